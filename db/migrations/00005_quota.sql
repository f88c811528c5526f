-- Limits: what a tenant's wallets may do and have, who may not, and what they did.

-- +goose Up
-- A plan has every limit, by the names of quota.Names; a tenant has those in which it differs from its plan. Package
-- quota says what each may be: here it is only an object.
CREATE TABLE plans (
    name       text        PRIMARY KEY CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    limits     jsonb       NOT NULL CHECK (jsonb_typeof(limits) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO plans (name, limits) VALUES ('standard', '{
    "wallets": 100000, "stores_per_wallet": 1000, "objects_per_store": 100000,
    "bytes_per_store": 1073741824, "bytes_per_tenant": 1099511627776, "value_size": 104857600, "body_size": 104857600,
    "soft_percent": 80, "reserve_percent": 20,
    "wallet_writes_per_minute": 1200, "wallet_writes_burst": 600,
    "wallet_reads_per_minute": 6000, "wallet_reads_burst": 6000,
    "wallet_lists_per_minute": 600, "wallet_lists_burst": 600,
    "tenant_writes_per_minute": 60000, "tenant_writes_burst": 60000,
    "tenant_reads_per_minute": 300000, "tenant_reads_burst": 300000,
    "tenant_lists_per_minute": 60000, "tenant_lists_burst": 60000,
    "enrolments_per_minute": 600, "enrolments_burst": 1000,
    "address_enrolments_per_minute": 60, "address_enrolments_burst": 300
}');

ALTER TABLE tenants
    ADD COLUMN plan      text  NOT NULL DEFAULT 'standard' REFERENCES plans,
    ADD COLUMN limits    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object'),
    -- Who may become a wallet by a first write: anybody, nobody, or those of listed_wallets.
    ADD COLUMN enrolment text  NOT NULL DEFAULT 'open' CHECK (enrolment IN ('open', 'closed', 'listed'));
UPDATE tenants SET limits = jsonb_build_object('body_size', body_limit, 'value_size', body_limit) WHERE body_limit <> 104857600;
ALTER TABLE tenants DROP COLUMN body_limit;

-- Wallets that may enrol where enrolment is by list.
CREATE TABLE listed_wallets (
    wallet     uuid        PRIMARY KEY,
    tenant_id  uuid        NOT NULL REFERENCES tenants,
    namespace  text        NOT NULL,
    subject    text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, namespace, subject)
);

-- A blocked wallet reads and does not write. Its stores have a copy, so that a write looks at one row.
ALTER TABLE wallets ADD COLUMN blocked bool NOT NULL DEFAULT false;
ALTER TABLE stores  ADD COLUMN blocked bool NOT NULL DEFAULT false;

-- What every tenant has, as last measured: ceilings of whole tenants are decided by it, and so lag.
CREATE TABLE tenant_totals (
    tenant_id   uuid        PRIMARY KEY,
    wallets     bigint      NOT NULL,
    stores      bigint      NOT NULL,
    objects     bigint      NOT NULL,
    bytes       bigint      NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now()
);

-- What a tenant did, by hour, day and month (UTC), a row a metric: requests.{operation}.{outcome}, refused.{reason},
-- bytes_in, bytes_out, new_wallets; stored_bytes and stored_objects, of which an hour has a sample and a day the sum of
-- its hours (so bytes and hours multiplied); and, of days and months alone, active_wallets. Every flush updates rows of
-- the present hour; no index holds the value and the fillfactor leaves room, so they stay on their page (HOT).
CREATE TABLE usage (
    tenant_id uuid        NOT NULL,
    grain     text        NOT NULL CHECK (grain IN ('hour', 'day', 'month')),
    start     timestamptz NOT NULL,
    metric    text        NOT NULL,
    value     bigint      NOT NULL,
    PRIMARY KEY (tenant_id, grain, start, metric)
) WITH (fillfactor = 50);
CREATE INDEX usage_by_start ON usage (grain, start); -- roll-ups, and what is too old

-- The wallets that were active on a day, and in a month (its first day), so that each counts once. A row is written
-- once, and removed when nobody reports of its time any more: those of four days, and of one or two months, are there.
CREATE TABLE active_wallets (
    grain     text NOT NULL CHECK (grain IN ('day', 'month')),
    start     date NOT NULL,
    tenant_id uuid NOT NULL,
    wallet    uuid NOT NULL,
    PRIMARY KEY (grain, start, tenant_id, wallet)
);

-- The last batch that was stored of each instance's meter: one that is stored again changes nothing.
CREATE TABLE meter_batches (
    instance  uuid        PRIMARY KEY,
    sequence  bigint      NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now()
);

-- Who runs. An instance counts while it was seen within the last 15 seconds.
CREATE TABLE instances (
    id         uuid        PRIMARY KEY,
    host       text        NOT NULL,
    version    text        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);

-- What people should hear of, once for each change of a state: of which kind, and about what.
CREATE TABLE event_states (
    tenant_id uuid        NOT NULL REFERENCES tenants,
    kind      text        NOT NULL,
    subject   text        NOT NULL,
    state     text        NOT NULL,
    since     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, kind, subject)
);
CREATE INDEX event_states_raised ON event_states (since) WHERE state <> 'ok';
CREATE TABLE events (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid        NOT NULL REFERENCES tenants,
    kind      text        NOT NULL,
    subject   text        NOT NULL,
    state     text        NOT NULL,
    detail    jsonb       NOT NULL DEFAULT '{}',
    at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_by_tenant ON events (tenant_id, id);

CREATE TRIGGER directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plans
    FOR EACH STATEMENT EXECUTE FUNCTION directory_changed();

GRANT SELECT ON plans, listed_wallets TO vss_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON usage, active_wallets, meter_batches, instances, tenant_totals TO vss_api;
GRANT SELECT, INSERT, UPDATE ON event_states TO vss_api;
GRANT SELECT, INSERT ON events TO vss_api;
-- A new store's copy is read under a lock, which this is the right to.
GRANT UPDATE (blocked) ON wallets TO vss_api;

GRANT SELECT, INSERT, DELETE ON plans, listed_wallets TO vss_admin;
GRANT UPDATE (limits) ON plans TO vss_admin;
GRANT UPDATE (plan, limits, enrolment) ON tenants TO vss_admin;
GRANT UPDATE (blocked) ON wallets, stores TO vss_admin;
GRANT SELECT ON usage, tenant_totals, instances TO vss_admin;
GRANT SELECT, INSERT, UPDATE ON event_states TO vss_admin;
GRANT SELECT, INSERT ON events TO vss_admin;

-- +goose Down
DROP TABLE events, event_states, instances, meter_batches, active_wallets, usage, tenant_totals, listed_wallets;
REVOKE UPDATE (blocked) ON wallets, stores FROM vss_admin;
REVOKE UPDATE (blocked) ON wallets FROM vss_api;
ALTER TABLE stores  DROP COLUMN blocked;
ALTER TABLE wallets DROP COLUMN blocked;
ALTER TABLE tenants
    ADD COLUMN body_limit bigint NOT NULL DEFAULT 104857600 CHECK (body_limit BETWEEN 1024 AND 268435456);
UPDATE tenants SET body_limit = (limits->>'body_size')::bigint WHERE limits ? 'body_size';
ALTER TABLE tenants
    DROP COLUMN plan, DROP COLUMN limits, DROP COLUMN enrolment;
GRANT UPDATE (body_limit) ON tenants TO vss_admin;
DROP TABLE plans;
