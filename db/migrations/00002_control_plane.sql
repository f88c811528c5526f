-- The control plane: who the tenants are, where they are reached and how their wallets prove who they are.

-- +goose Up
CREATE TABLE tenants (
    id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    -- Part of base URLs and of host names, for ever: one DNS label, lower case, never changed or reused.
    slug       text        NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    name       text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    state      text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'read_only', 'closed')),
    body_limit bigint      NOT NULL DEFAULT 104857600 CHECK (body_limit BETWEEN 1024 AND 268435456), -- bytes
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE domains (
    host       text        PRIMARY KEY CHECK (host = lower(host) AND host ~ '^[a-z0-9.-]{1,253}$'),
    tenant_id  uuid        NOT NULL REFERENCES tenants,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX domains_by_tenant ON domains (tenant_id);

-- The namespace is part of every wallet's identity: nobody is granted an update of it.
CREATE TABLE credential_sources (
    id             uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id      uuid        NOT NULL REFERENCES tenants,
    name           text        NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    kind           text        NOT NULL CHECK (kind IN ('signature')),
    namespace      text        NOT NULL CHECK (char_length(namespace) BETWEEN 1 AND 100),
    -- How far the time of a signature may lie from now, either way (CONTRACT section 4.1).
    window_seconds int         NOT NULL DEFAULT 86400 CHECK (window_seconds BETWEEN 60 AND 86400),
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);
-- A signature names no source, so a tenant can have one of this kind.
CREATE UNIQUE INDEX one_signature_source ON credential_sources (tenant_id) WHERE kind = 'signature';

-- Who changed what. Written in the transaction of the change itself.
CREATE TABLE audit_log (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT now(),
    actor     text        NOT NULL CHECK (actor <> ''),
    action    text        NOT NULL CHECK (action <> ''),
    tenant_id uuid        REFERENCES tenants,
    detail    jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_by_tenant ON audit_log (tenant_id, id);

-- One row, whose generation grows with every change of what the API's directory caches. A trigger and not
-- the service does it, so that a change by hand reaches the API too. It runs with the owner's rights, so pg_temp,
-- where anybody can put a table of this name, is searched last.
CREATE TABLE directory (
    only_row   bool   PRIMARY KEY DEFAULT true CHECK (only_row),
    generation bigint NOT NULL DEFAULT 1
);
INSERT INTO directory DEFAULT VALUES;
-- +goose StatementBegin
CREATE FUNCTION directory_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE directory SET generation = generation + 1;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tenants
    FOR EACH STATEMENT EXECUTE FUNCTION directory_changed();
CREATE TRIGGER directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON domains
    FOR EACH STATEMENT EXECUTE FUNCTION directory_changed();
CREATE TRIGGER directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON credential_sources
    FOR EACH STATEMENT EXECUTE FUNCTION directory_changed();

-- +goose Down
DROP TABLE directory, audit_log, credential_sources, domains, tenants;
DROP FUNCTION directory_changed;
