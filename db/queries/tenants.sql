-- The control plane: tenants, their domains and credential sources, the directory's generation and the
-- audit log. Reads take an optional tenant; without one they answer all.

-- name: DirectoryGeneration :one
SELECT generation FROM directory;

-- name: Tenants :many
SELECT * FROM tenants
 WHERE sqlc.narg(slug)::text IS NULL OR slug = sqlc.narg(slug)
 ORDER BY slug COLLATE "C";

-- name: Domains :many
SELECT * FROM domains
 WHERE sqlc.narg(tenant_id)::uuid IS NULL OR tenant_id = sqlc.narg(tenant_id)
 ORDER BY host COLLATE "C";

-- name: CredentialSources :many
SELECT * FROM credential_sources
 WHERE sqlc.narg(tenant_id)::uuid IS NULL OR tenant_id = sqlc.narg(tenant_id)
 ORDER BY name COLLATE "C";

-- name: SourceKeys :many
SELECT k.*, s.tenant_id
  FROM source_keys k JOIN credential_sources s ON s.id = k.source_id
 WHERE sqlc.narg(tenant_id)::uuid IS NULL OR s.tenant_id = sqlc.narg(tenant_id)
 ORDER BY k.created_at DESC, k.kid COLLATE "C";

-- name: ClientKeys :many
SELECT * FROM client_keys
 WHERE sqlc.narg(tenant_id)::uuid IS NULL OR tenant_id = sqlc.narg(tenant_id)
 ORDER BY created_at, prefix COLLATE "C";

-- name: Plans :many
SELECT * FROM plans ORDER BY name COLLATE "C";

-- name: SavePlan :exec
INSERT INTO plans (name, limits) VALUES (@name, @limits) ON CONFLICT (name) DO UPDATE SET limits = excluded.limits;

-- name: DeletePlan :execrows
-- None that a tenant has: the reference refuses that.
DELETE FROM plans WHERE name = @name;

-- name: AllowWallets :execrows
-- Puts wallets on the list of those that may enrol.
INSERT INTO listed_wallets (wallet, tenant_id, namespace, subject)
SELECT unnest(@wallets::uuid[]), @tenant_id::uuid, @namespace::text, unnest(@subjects::text[])
ON CONFLICT DO NOTHING;

-- name: DisallowWallets :execrows
DELETE FROM listed_wallets WHERE tenant_id = @tenant_id AND wallet = ANY (@wallets::uuid[]);

-- name: CountListed :one
SELECT count(*) FROM listed_wallets WHERE tenant_id = @tenant_id;

-- name: CountListedOf :one
SELECT count(*) FROM listed_wallets WHERE tenant_id = @tenant_id AND namespace = @namespace;

-- name: Enrolment :one
-- Whether a wallet has ever written, and whether it is on its tenant's list. Asked of reads that found nothing and of
-- first writes, where enrolment is not open.
SELECT EXISTS (SELECT FROM wallets w WHERE w.wallet = @wallet)::bool AS known,
       EXISTS (SELECT FROM listed_wallets l WHERE l.wallet = @wallet)::bool AS listed;

-- name: ShowWallet :one
SELECT w.*, (SELECT count(*) FROM stores s WHERE s.wallet = w.wallet)::bigint AS stores,
       coalesce((SELECT sum(s.objects) FROM stores s WHERE s.wallet = w.wallet), 0)::bigint AS objects,
       coalesce((SELECT sum(s.bytes) FROM stores s WHERE s.wallet = w.wallet), 0)::bigint AS bytes,
       coalesce((SELECT max(s.last_written_at) FROM stores s WHERE s.wallet = w.wallet), w.enrolled_at)::timestamptz AS last_written_at
  FROM wallets w WHERE w.wallet = @wallet AND w.tenant_id = @tenant_id;

-- name: LockWallet :one
-- Whether a wallet is blocked, which is then for this transaction to change. Waits for a store of it that is being
-- created (CreateStore), and keeps it from getting another one meanwhile.
SELECT blocked FROM wallets WHERE wallet = @wallet AND tenant_id = @tenant_id FOR NO KEY UPDATE;

-- name: BlockWallet :exec
-- After LockWallet.
UPDATE wallets SET blocked = @blocked WHERE wallet = @wallet AND tenant_id = @tenant_id;

-- name: BlockStores :exec
-- After LockWallet, as a statement of its own: its snapshot has the stores that LockWallet waited for.
UPDATE stores SET blocked = @blocked WHERE wallet = @wallet;

-- name: LockControlPlane :exec
-- One change at a time, until the end of the transaction. Changes would wait for each other anyway, at the
-- directory's row, but in an order that two of them can deadlock in.
SELECT pg_advisory_xact_lock(hashtextextended('vss-cloud control plane', 0));

-- name: LockTenant :exec
-- Keeps a change by hand out, which knows nothing of LockControlPlane.
SELECT FROM tenants WHERE slug = @slug FOR NO KEY UPDATE;

-- name: InsertTenant :one
INSERT INTO tenants (slug, name, plan) VALUES (@slug, @name, @plan) RETURNING id;

-- name: UpdateTenant :exec
UPDATE tenants
   SET name = coalesce(sqlc.narg(name), name),
       state = coalesce(sqlc.narg(state), state),
       enrolment = coalesce(sqlc.narg(enrolment), enrolment),
       plan = coalesce(sqlc.narg(plan), plan),
       limits = coalesce(sqlc.narg(limits), limits),
       client_key_gate = coalesce(sqlc.narg(client_key_gate), client_key_gate),
       client_key_header = coalesce(sqlc.narg(client_key_header), client_key_header)
 WHERE id = @id;

-- name: InsertCredentialSource :one
INSERT INTO credential_sources (
    tenant_id, name, kind, namespace, issuer, audience_rule, audiences, check_not_before, algorithms, claims, by_kid, jwks_url, host
) VALUES (
    @tenant_id, @name, @kind, @namespace, @issuer, @audience_rule, @audiences, @check_not_before, @algorithms, @claims, @by_kid, @jwks_url, @host
) RETURNING id;

-- name: UpdateCredentialSource :exec
UPDATE credential_sources
   SET window_seconds = @window_seconds, token_seconds = @token_seconds, issuer = @issuer, audience_rule = @audience_rule,
       audiences = @audiences, check_not_before = @check_not_before, algorithms = @algorithms, claims = @claims, by_kid = @by_kid,
       jwks_url = @jwks_url, former_issuers = @former_issuers,
       removed_at = CASE WHEN @removed::bool THEN now() END
 WHERE id = @id;

-- name: InsertSourceKey :exec
INSERT INTO source_keys (source_id, kid, public, sealed, state) VALUES (@source_id, @kid, @public, @sealed, @state);

-- name: UpdateSourceKey :exec
UPDATE source_keys SET state = @state, retires_at = @retires_at, sealed = @sealed WHERE source_id = @source_id AND kid = @kid;

-- name: InsertClientKey :exec
INSERT INTO client_keys (tenant_id, prefix, name, hash) VALUES (@tenant_id, @prefix, @name, @hash);

-- name: EndClientKey :exec
UPDATE client_keys
   SET expires_at = sqlc.narg(expires_at), revoked_at = CASE WHEN @revoked::bool THEN now() END
 WHERE tenant_id = @tenant_id AND prefix = @prefix;

-- name: InsertDomain :exec
INSERT INTO domains (host, tenant_id, state, vouched) VALUES (@host, @tenant_id, @state, @vouched);

-- name: DomainOwner :one
SELECT * FROM domains WHERE host = @host AND state <> 'pending';

-- name: UpdateDomain :exec
UPDATE domains
   SET state = @state, vouched = @vouched, checked_at = coalesce(sqlc.narg(checked_at), checked_at)
 WHERE host = @host AND tenant_id = @tenant_id;

-- name: DeleteDomain :exec
DELETE FROM domains WHERE host = @host AND tenant_id = @tenant_id;

-- name: AuthFailures :many
SELECT source, reason, count, last_at FROM auth_failures WHERE tenant_id = @tenant_id ORDER BY last_at DESC, source, reason;

-- name: InsertAudit :exec
INSERT INTO audit_log (actor, action, tenant_id, detail) VALUES (@actor, @action, @tenant_id, @detail);

-- name: KeysChanged :exec
-- An event beside the change.
INSERT INTO events (tenant_id, kind, subject, state, detail) VALUES (@tenant_id, 'keys_changed', @source, 'changed', @detail);
