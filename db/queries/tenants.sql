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

-- name: LockControlPlane :exec
-- One change at a time, until the end of the transaction. Changes would wait for each other anyway, at the
-- directory's row, but in an order that two of them can deadlock in.
SELECT pg_advisory_xact_lock(hashtextextended('vss-cloud control plane', 0));

-- name: LockTenant :exec
-- Keeps a change by hand out, which knows nothing of LockControlPlane.
SELECT FROM tenants WHERE slug = @slug FOR NO KEY UPDATE;

-- name: InsertTenant :one
INSERT INTO tenants (slug, name, body_limit) VALUES (@slug, @name, @body_limit) RETURNING id;

-- name: UpdateTenant :exec
UPDATE tenants
   SET name = coalesce(sqlc.narg(name), name),
       state = coalesce(sqlc.narg(state), state),
       body_limit = coalesce(sqlc.narg(body_limit), body_limit)
 WHERE id = @id;

-- name: InsertCredentialSource :exec
INSERT INTO credential_sources (tenant_id, name, kind, namespace) VALUES (@tenant_id, @name, @kind, @namespace);

-- name: UpdateSignatureWindow :execrows
UPDATE credential_sources SET window_seconds = @window_seconds WHERE tenant_id = @tenant_id AND kind = 'signature';

-- name: InsertDomain :exec
INSERT INTO domains (host, tenant_id) VALUES (@host, @tenant_id);

-- name: DeleteDomain :exec
DELETE FROM domains WHERE host = @host AND tenant_id = @tenant_id;

-- name: InsertAudit :exec
INSERT INTO audit_log (actor, action, tenant_id, detail) VALUES (@actor, @action, @tenant_id, @detail);
