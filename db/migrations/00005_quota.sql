-- Limits: what a tenant's wallets may do and have, and who may not.

-- +goose Up
-- A blocked wallet reads and does not write. Its stores have a copy, so that a write looks at one row.
ALTER TABLE wallets ADD COLUMN blocked bool NOT NULL DEFAULT false;
ALTER TABLE stores  ADD COLUMN blocked bool NOT NULL DEFAULT false;

GRANT UPDATE (blocked) ON wallets, stores TO vss_admin;
-- A new store's copy is read under a lock, which this is the right to.
GRANT UPDATE (blocked) ON wallets TO vss_api;

-- +goose Down
REVOKE UPDATE (blocked) ON wallets, stores FROM vss_admin;
REVOKE UPDATE (blocked) ON wallets FROM vss_api;
ALTER TABLE stores  DROP COLUMN blocked;
ALTER TABLE wallets DROP COLUMN blocked;
