-- What each service may do. The roles cannot log in: an operator's login role is made a member of one
-- (GRANT vss_api TO ...), and a service takes the role on when it connects (db.Open). Roles belong to the
-- cluster, so they may exist already, and a migration of another database may be making them right now.

-- +goose Up
-- +goose StatementBegin
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY ARRAY['vss_api', 'vss_admin'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', r);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- The API: reads the control plane it needs, reads and writes the data plane, enrols wallets.
GRANT SELECT ON tenants, domains, credential_sources, directory TO vss_api;
GRANT SELECT, INSERT ON wallets TO vss_api;
GRANT SELECT, INSERT, UPDATE ON stores TO vss_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON objects TO vss_api;
REVOKE EXECUTE ON FUNCTION list_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_keys TO vss_api;

-- The admin service: runs the control plane; of the data plane it sees who, how many and how large, and
-- never a value. It can neither change an identity nor rewrite the audit log.
GRANT SELECT, INSERT ON tenants, domains, credential_sources, audit_log TO vss_admin;
GRANT UPDATE (name, state, body_limit) ON tenants TO vss_admin;
GRANT UPDATE (window_seconds) ON credential_sources TO vss_admin;
GRANT DELETE ON domains TO vss_admin;
GRANT SELECT ON directory, wallets, stores TO vss_admin;
GRANT SELECT (store, key, version, position, size, created_at, updated_at) ON objects TO vss_admin;

-- +goose Down
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM vss_api, vss_admin;
REVOKE ALL ON FUNCTION list_keys FROM vss_api;
