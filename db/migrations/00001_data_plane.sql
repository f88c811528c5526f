-- The data plane: wallets, their stores and their objects.
--
-- wallet and store are 16-byte hashes (storage/keyspace.go) kept as uuid, the type of 16 bytes without a
-- header. Hot tables begin with store, so that all of one store can live on one shard, and have no foreign
-- keys: a put takes exactly one row lock, on its stores row.

-- +goose Up
CREATE TABLE wallets (
    wallet      uuid        PRIMARY KEY,
    tenant_id   uuid        NOT NULL,
    namespace   text        NOT NULL CHECK (char_length(namespace) BETWEEN 1 AND 100),
    subject     text        NOT NULL CHECK (char_length(subject) BETWEEN 1 AND 255),
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, namespace, subject)
);

-- One row a store, locked and updated by every write to it. No index holds a column that a write changes
-- and the fillfactor leaves room, so these updates stay on their page (HOT).
CREATE TABLE stores (
    store           uuid        PRIMARY KEY,
    wallet          uuid        NOT NULL,
    global_version  bigint      NOT NULL DEFAULT 0 CHECK (global_version >= 0),
    revision        bigint      NOT NULL DEFAULT 0 CHECK (revision >= 0), -- grows with every write
    last_write      uuid,                                                 -- settles a commit whose answer was lost
    next_position   bigint      NOT NULL DEFAULT 0 CHECK (next_position >= 0),
    objects         bigint      NOT NULL DEFAULT 0 CHECK (objects >= 0),
    bytes           bigint      NOT NULL DEFAULT 0 CHECK (bytes >= 0),    -- of keys and values
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_written_at timestamptz NOT NULL DEFAULT now(),
    store_id        text        NOT NULL CHECK (char_length(store_id) <= 120)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX stores_by_wallet ON stores (wallet);

-- Every write updates its stores row, and this runs at the end of its transaction, in the commit: a commit that
-- arrives after its deadline must not take effect (CONTRACT section 3), however long it was on its way.
-- +goose StatementBegin
CREATE FUNCTION commit_in_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF clock_timestamp() > nullif(current_setting('vss.not_after', true), '')::timestamptz THEN
        RAISE EXCEPTION 'the commit came after its deadline' USING ERRCODE = 'query_canceled';
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER commit_in_time AFTER UPDATE ON stores DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION commit_in_time();

-- Values are ciphertext: EXTERNAL keeps PostgreSQL from trying to compress them.
CREATE TABLE objects (
    store      uuid             NOT NULL,
    key        text COLLATE "C" NOT NULL CHECK (char_length(key) BETWEEN 1 AND 600 AND key <> 'global_version'),
    version    bigint           NOT NULL CHECK (version >= 1),
    position   bigint           NOT NULL CHECK (position >= 0), -- order of creation within the store
    size       bigint           NOT NULL GENERATED ALWAYS AS (octet_length(value)) STORED,
    created_at timestamptz      NOT NULL DEFAULT now(),
    updated_at timestamptz      NOT NULL DEFAULT now(),
    value      bytea            NOT NULL,
    PRIMARY KEY (store, key)
) WITH (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE objects ALTER COLUMN value SET STORAGE EXTERNAL;

-- Lists go newest first and by prefix. Neither (store, position) nor (store, key) bounds the work for every
-- prefix: the one walks past all newer keys that do not match, the other sorts all keys that do. This index
-- cuts the positions into blocks of 256, inside which keys are ordered: a block with no match costs one
-- descent. An update changes none of its columns.
CREATE UNIQUE INDEX objects_by_block ON objects (store, (position >> 8), key);

-- list_keys returns the store's keys k with p_from <= k < p_to and position < p_before, newest first: at least
-- p_limit of them if there are as many, and up to a block more.
--
-- Work: a range of at most 1,000 keys is read through the primary key and sorted. For a longer one, blocks are
-- read from the newest on: two descents for each block that holds any key, and the matches themselves. After
-- 500 blocks (128,000 keys, fewer where much has been deleted since) the rest of the page comes from the whole
-- range, sorted: one read of each key that matches, whatever else the store holds.
-- STABLE: every statement inside sees the one snapshot of the calling statement.
-- The plans must be index scans however small the tables were when they were made, hence enable_seqscan.
-- +goose StatementBegin
CREATE FUNCTION list_keys(p_store uuid, p_from text, p_to text, p_before bigint, p_limit int)
    RETURNS TABLE (key text, version bigint, "position" bigint)
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
    SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    few     CONSTANT int := 1000;
    budget  int := 500; -- blocks
    matches int;
    total   int := 0;
    block   bigint := p_before >> 8;
BEGIN
    IF p_from <> '' THEN
        SELECT count(*) INTO matches
          FROM (SELECT FROM objects o
                 WHERE o.store = p_store AND o.key >= p_from COLLATE "C" AND o.key < p_to COLLATE "C"
                 LIMIT few + 1) probe;
        IF matches <= few THEN
            RETURN QUERY
                SELECT o.key, o.version, o.position FROM objects o
                 WHERE o.store = p_store AND o.key >= p_from COLLATE "C" AND o.key < p_to COLLATE "C"
                   AND o.position < p_before
                 ORDER BY o.position DESC LIMIT p_limit;
            RETURN;
        END IF;
    END IF;
    LOOP
        SELECT o.position >> 8 INTO block FROM objects o
         WHERE o.store = p_store AND (o.position >> 8) <= block
         ORDER BY o.store DESC, (o.position >> 8) DESC LIMIT 1;
        EXIT WHEN NOT FOUND;
        RETURN QUERY
            SELECT o.key, o.version, o.position FROM objects o
             WHERE o.store = p_store AND (o.position >> 8) = block
               AND o.key >= p_from COLLATE "C" AND o.key < p_to COLLATE "C"
               AND o.position < p_before
             ORDER BY o.position DESC;
        GET DIAGNOSTICS matches = ROW_COUNT;
        total := total + matches;
        EXIT WHEN total >= p_limit;
        block := block - 1;
        budget := budget - 1;
        IF budget = 0 THEN
            RETURN QUERY
                SELECT o.key, o.version, o.position FROM objects o
                 WHERE o.store = p_store AND o.key >= p_from COLLATE "C" AND o.key < p_to COLLATE "C"
                   AND o.position < p_before AND (o.position >> 8) <= block
                 ORDER BY o.position DESC LIMIT p_limit - total;
            RETURN;
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION list_keys;
DROP TABLE objects;
DROP TABLE stores;
DROP FUNCTION commit_in_time;
DROP TABLE wallets;
