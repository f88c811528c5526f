-- How a tenant's wallets prove who they are, beyond signatures: JWTs of the tenant's own issuer, LNURL-auth with
-- the platform as issuer, and client keys as a gate in addition. And which host names are a tenant's.

-- +goose Up
-- A source that was removed stays, so that its namespace, and with it its wallets, is never anybody's by accident.
ALTER TABLE credential_sources
    DROP CONSTRAINT credential_sources_kind_check,
    ADD CONSTRAINT credential_sources_kind_check CHECK (kind IN ('signature', 'jwt', 'lnurl')),
    ADD COLUMN removed_at timestamptz,
    -- jwt: what a token must say. NULL issuer: iss is not looked at.
    ADD COLUMN issuer           text   CHECK (char_length(issuer) BETWEEN 1 AND 500),
    ADD COLUMN audience_rule    text   NOT NULL DEFAULT 'any' CHECK (audience_rule IN ('any', 'one_of', 'none')),
    ADD COLUMN audiences        text[] NOT NULL DEFAULT '{}',
    ADD COLUMN check_not_before bool   NOT NULL DEFAULT true,
    ADD COLUMN algorithms       text[] NOT NULL DEFAULT '{}',
    -- jwt: its tokens are told from others' by the kid of its keys, not by their issuer.
    ADD COLUMN by_kid           bool   NOT NULL DEFAULT false,
    -- jwt: where its keys are; NULL: they are uploaded (source_keys).
    ADD COLUMN jwks_url         text   CHECK (char_length(jwks_url) BETWEEN 1 AND 2000),
    -- lnurl: the host of the auth URL, for ever; NULL: the one that tenants share, for development.
    ADD COLUMN host             text,
    -- lnurl: the life of the tokens that we issue.
    ADD COLUMN token_seconds    int    NOT NULL DEFAULT 3600 CHECK (token_seconds BETWEEN 300 AND 86400),
    ADD CONSTRAINT audiences_have_their_rule CHECK ((audience_rule = 'one_of') = (cardinality(audiences) > 0)),
    ADD CONSTRAINT jwt_has_rules CHECK ((kind = 'jwt') = (cardinality(algorithms) > 0)),
    ADD CONSTRAINT only_jwt_has_an_issuer CHECK (kind = 'jwt' OR issuer IS NULL AND jwks_url IS NULL AND NOT by_kid),
    ADD CONSTRAINT kids_are_of_uploaded_keys CHECK (NOT by_kid OR issuer IS NULL AND jwks_url IS NULL),
    ADD CONSTRAINT only_lnurl_has_a_host CHECK (kind = 'lnurl' OR host IS NULL);
DROP INDEX one_signature_source;
-- Neither a signature nor the request of a login names a source.
CREATE UNIQUE INDEX one_signature_source ON credential_sources (tenant_id) WHERE kind = 'signature' AND removed_at IS NULL;
CREATE UNIQUE INDEX one_lnurl_source ON credential_sources (tenant_id) WHERE kind = 'lnurl' AND removed_at IS NULL;
CREATE UNIQUE INDEX one_source_an_issuer ON credential_sources (tenant_id, issuer) WHERE removed_at IS NULL;

-- Keys of a source: of a jwt source those that were uploaded, or, where it has a URL, those of the URL that must
-- not verify; of an lnurl source those that we sign with.
CREATE TABLE source_keys (
    source_id  uuid        NOT NULL REFERENCES credential_sources,
    kid        text        NOT NULL CHECK (char_length(kid) BETWEEN 1 AND 255),
    public     text        NOT NULL, -- a JWK, public parts only
    sealed     bytea,                -- the private key under the master key; ours only
    state      text        NOT NULL CHECK (state IN ('standby', 'active', 'retired', 'revoked')),
    retires_at timestamptz CHECK ((state = 'retired') = (retires_at IS NOT NULL)),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- in the order of the changes, which wait for each other
    PRIMARY KEY (source_id, kid)
);

-- The last good key set of a source with a URL, so that an instance that starts while the issuer is down knows
-- the keys. Written by whichever instance fetched it, and read when an instance begins with a source: it is no
-- part of the directory.
CREATE TABLE jwks_documents (
    source_id  uuid        PRIMARY KEY REFERENCES credential_sources,
    url        text        NOT NULL,
    document   bytea       NOT NULL,
    fetched_at timestamptz NOT NULL DEFAULT now()
);

-- Challenges of LNURL-auth that were used, until after they would have expired. An unused one is nowhere.
CREATE TABLE lnurl_used (
    k1         bytea       PRIMARY KEY CHECK (octet_length(k1) = 32),
    expires_at timestamptz NOT NULL
);
CREATE INDEX lnurl_used_by_expiry ON lnurl_used (expires_at);

-- Publishable keys of a tenant's apps, hashed. The gate says what a call without a good one gets.
ALTER TABLE tenants
    ADD COLUMN client_key_gate   text NOT NULL DEFAULT 'off' CHECK (client_key_gate IN ('off', 'observed', 'required')),
    ADD COLUMN client_key_header text NOT NULL DEFAULT 'X-Client-Key' CHECK (client_key_header ~ '^[A-Za-z0-9-]{1,64}$');
CREATE TABLE client_keys (
    tenant_id  uuid        NOT NULL REFERENCES tenants,
    prefix     text        NOT NULL CHECK (prefix <> ''), -- shown, to tell keys apart
    name       text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    hash       bytea       NOT NULL UNIQUE CHECK (octet_length(hash) = 32), -- SHA-256: the key is random
    expires_at timestamptz, -- set by a rotation
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, prefix)
);

-- Any tenant can claim a host, and one has it. A claim counts once a DNS record proves it, or an operator vouches.
--   pending   claimed; not served
--   verified  served
--   lost      no longer proved: served on, so that a slip in DNS cuts off no wallet, until another proves it
ALTER TABLE domains
    DROP CONSTRAINT domains_pkey,
    ADD PRIMARY KEY (host, tenant_id),
    ADD COLUMN state      text NOT NULL DEFAULT 'verified' CHECK (state IN ('pending', 'verified', 'lost')),
    ADD COLUMN challenge  text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''), -- what the record says
    ADD COLUMN vouched    bool NOT NULL DEFAULT false, -- by an operator: DNS is not asked
    ADD COLUMN checked_at timestamptz;
UPDATE domains SET vouched = true; -- by whoever made them, when there was nothing else
CREATE UNIQUE INDEX one_tenant_a_host ON domains (host) WHERE state <> 'pending';

-- Why credentials were refused, for "why does my app get 401". No token and no wallet is ever in it.
CREATE TABLE auth_failures (
    tenant_id uuid        NOT NULL REFERENCES tenants,
    source    text        NOT NULL, -- its name, or '' where the credential named none
    reason    text        NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 200),
    count     bigint      NOT NULL,
    last_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, source, reason)
);

CREATE TRIGGER directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON source_keys
    FOR EACH STATEMENT EXECUTE FUNCTION directory_changed();
CREATE TRIGGER directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON client_keys
    FOR EACH STATEMENT EXECUTE FUNCTION directory_changed();

GRANT SELECT ON source_keys, client_keys TO vss_api;
GRANT SELECT, INSERT, UPDATE ON jwks_documents, auth_failures TO vss_api;
GRANT SELECT, INSERT, DELETE ON lnurl_used TO vss_api;

GRANT SELECT, INSERT ON source_keys, client_keys TO vss_admin;
GRANT SELECT ON jwks_documents, auth_failures TO vss_admin;
GRANT UPDATE (client_key_gate, client_key_header) ON tenants TO vss_admin;
GRANT UPDATE (removed_at, issuer, audience_rule, audiences, check_not_before, algorithms, by_kid, jwks_url, token_seconds)
    ON credential_sources TO vss_admin;
GRANT UPDATE (state, retires_at, sealed) ON source_keys TO vss_admin;
GRANT UPDATE (expires_at, revoked_at) ON client_keys TO vss_admin;
GRANT UPDATE (state, vouched, checked_at) ON domains TO vss_admin;

-- +goose Down
-- The names of removed sources keep their namespaces from being anybody else's, and sources of other kinds name wallets.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM credential_sources WHERE kind <> 'signature' OR removed_at IS NOT NULL) THEN
        RAISE EXCEPTION 'there are credential sources that this would forget, and with them whose wallets are whose';
    END IF;
END
$$;
-- +goose StatementEnd
DROP TABLE auth_failures, client_keys, lnurl_used, jwks_documents, source_keys;
DELETE FROM domains WHERE state = 'pending';
DROP INDEX one_tenant_a_host;
ALTER TABLE domains
    DROP CONSTRAINT domains_pkey,
    ADD PRIMARY KEY (host),
    DROP COLUMN state, DROP COLUMN challenge, DROP COLUMN vouched, DROP COLUMN checked_at;
ALTER TABLE tenants DROP COLUMN client_key_gate, DROP COLUMN client_key_header;
DROP INDEX one_signature_source, one_lnurl_source, one_source_an_issuer;
ALTER TABLE credential_sources
    DROP CONSTRAINT credential_sources_kind_check,
    ADD CONSTRAINT credential_sources_kind_check CHECK (kind IN ('signature')),
    DROP COLUMN removed_at, DROP COLUMN issuer, DROP COLUMN audience_rule, DROP COLUMN audiences,
    DROP COLUMN check_not_before, DROP COLUMN algorithms, DROP COLUMN by_kid, DROP COLUMN jwks_url, DROP COLUMN host, DROP COLUMN token_seconds;
CREATE UNIQUE INDEX one_signature_source ON credential_sources (tenant_id) WHERE kind = 'signature';
