-- The fence against a deposed primary (storage/postgres/fence.go; the proof is in storage/postgres/README.md).

-- +goose Up
-- One row for each instance that may count on a server's reads: the server, by the moment its postmaster started, on
-- which it last took its lease. A row changes when that server does; a lease is renewed by locking the row alone, which
-- is WAL enough for the commit to wait for the synchronous standby, and leaves no dead row behind.
CREATE TABLE leases (
    instance uuid        PRIMARY KEY,
    life     timestamptz NOT NULL,
    kept_at  timestamptz NOT NULL DEFAULT now() -- to the hour; what was not kept for a day is of an instance that is gone
);

-- A commit must not take effect past its deadline, nor while an instance may still read from another server, which
-- would not show it (CONTRACT sections 3 and 6). In READ COMMITTED each statement of the function has a new snapshot.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION commit_in_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM leases WHERE life <> pg_postmaster_start_time()) THEN
        RAISE EXCEPTION 'an instance may still read from the server that was the primary before' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF clock_timestamp() > nullif(current_setting('vss.not_after', true), '')::timestamptz THEN
        RAISE EXCEPTION 'the commit came after its deadline' USING ERRCODE = 'query_canceled';
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

GRANT SELECT, INSERT, UPDATE, DELETE ON leases TO vss_api;
GRANT SELECT ON leases TO vss_admin;

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION commit_in_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF clock_timestamp() > nullif(current_setting('vss.not_after', true), '')::timestamptz THEN
        RAISE EXCEPTION 'the commit came after its deadline' USING ERRCODE = 'query_canceled';
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
DROP TABLE leases;
