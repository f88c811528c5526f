-- The fence against a deposed primary (storage/postgres/fence.go).

-- name: KeepLease :one
-- Takes or renews the lease of an instance on the server that it expects, and answers which one it is. On another
-- server it writes nothing, so that its commit proves nothing.
-- Locks: the instance's row, whether it changes or not, which writes WAL: the commit waits for the synchronous standby.
WITH kept AS (
    INSERT INTO leases AS l (instance, life)
    SELECT @instance::uuid, pg_postmaster_start_time() WHERE pg_postmaster_start_time() = @life::timestamptz
    ON CONFLICT (instance) DO UPDATE SET life = excluded.life, kept_at = now()
     WHERE l.life <> excluded.life OR l.kept_at < now() - interval '1 hour'
)
SELECT pg_postmaster_start_time()::timestamptz AS life,
       EXISTS (SELECT FROM leases o WHERE o.instance <> @instance AND o.life <> pg_postmaster_start_time())::bool AS closed,
       current_setting('synchronous_standby_names')::text AS standbys,
       -- Whatever other commits do, this one waits.
       (CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
             THEN set_config('synchronous_commit', 'on', true) ELSE current_setting('synchronous_commit') END)::text AS synchronous_commit;

-- name: EndLeases :exec
-- Those on other servers, which have ended, and those of instances that are long gone.
DELETE FROM leases WHERE life <> pg_postmaster_start_time() OR kept_at < now() - interval '1 day';

-- name: LeaveLease :exec
DELETE FROM leases WHERE instance = @instance;
