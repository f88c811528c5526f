-- The data plane. Every statement here is on a wallet's path: its snapshot, its locks and its plan are said
-- beside it. Plans assume enable_seqscan, enable_hashjoin and enable_mergejoin off, which db.Open sets, so
-- that a plan made while the tables were small stays right when they are not.

-- name: GetObject :one
-- One snapshot, no locks; one descent of the primary key. A value longer than inline is left where it is
-- (TOAST is not touched) and only its size is told. A row comes back for a missing key too, so that
-- "not found" always carries whether a primary said it, and which (life: the moment its postmaster started).
SELECT pg_is_in_recovery()::bool AS standby,
       pg_postmaster_start_time()::timestamptz AS life,
       o.version,
       o.size,
       (CASE WHEN o.size <= @inline::bigint THEN o.value END)::bytea AS value
  FROM (VALUES (1)) one
  LEFT JOIN objects o ON o.store = @store AND o.key = @key;

-- name: GetLargeObject :one
-- As GetObject, for a value that was admitted at a size: no row if it has grown past that since.
SELECT pg_is_in_recovery()::bool AS standby, pg_postmaster_start_time()::timestamptz AS life, o.version, o.value
  FROM objects o
 WHERE o.store = @store AND o.key = @key AND o.size <= @admitted::bigint;

-- name: GetGlobalVersion :one
-- One snapshot, no locks; one descent of the primary key of stores. 0 for a store never written.
SELECT pg_is_in_recovery()::bool AS standby,
       pg_postmaster_start_time()::timestamptz AS life,
       coalesce((SELECT s.global_version FROM stores s WHERE s.store = @store), 0)::bigint AS global_version;

-- name: ListObjects :many
-- One snapshot for the global version and the keys (list_keys is STABLE and shares it), no locks; the plan
-- and the bound are said at list_keys. For an empty page one row comes back, with the empty key.
SELECT pg_is_in_recovery()::bool AS standby,
       pg_postmaster_start_time()::timestamptz AS life,
       s.global_version,
       coalesce(k.key, '')::text AS key,
       coalesce(k.version, 0)::bigint AS version,
       coalesce(k.position, 0)::bigint AS position
  FROM (VALUES (1)) one
  LEFT JOIN stores s ON s.store = @store
  LEFT JOIN list_keys(@store, @from_key, @to_key, @before, @page) AS k (key, version, position) ON true
 ORDER BY k.position DESC
 LIMIT @page;

-- name: BoundTransaction :exec
-- Bounds the rest of this transaction on the server, so that it holds when the caller is gone: waiting for a
-- lock, running a statement, idling between two (milliseconds); all of it together where PostgreSQL can (17
-- and newer), as an instance that freezes between two messages of one batch keeps its locks otherwise. And
-- the commit itself is refused past not_after (the trigger commit_in_time).
SELECT set_config('lock_timeout', @milliseconds::text, true),
       set_config('statement_timeout', @milliseconds::text, true),
       set_config('idle_in_transaction_session_timeout', @milliseconds::text, true),
       CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN set_config('transaction_timeout', @milliseconds::text, true) END,
       set_config('vss.not_after', @not_after::text, true);

-- name: LockStores :exec
-- Locks the rows of these stores that nobody else holds, in order, and leaves their names in the
-- transaction's setting vss.locked for the next statement. It decides nothing else: what another writer
-- committed while this statement ran is not in its snapshot.
-- Locks: FOR NO KEY UPDATE, as the UPDATE to come takes; held to the end of the transaction. No waiting.
-- Plan: one descent of the primary key of stores a store.
SELECT set_config('vss.locked', coalesce(string_agg(l.store::text, ','), ''), true)
  FROM (SELECT s.store FROM stores s
         WHERE s.store = ANY (@stores::uuid[])
         ORDER BY s.store
           FOR NO KEY UPDATE SKIP LOCKED) l;

-- name: ApplyWrites :many
-- Decides and applies writes, at most one a store, and answers an outcome for each by its ordinal n:
--   ok        applied
--   conflict  a version did not match, or an item to delete is missing; nothing changed
--   late      the database's clock is past not_after; nothing changed
--   blocked   the wallet does not write; nothing changed
--   objects   the store would have more of them than it may, and more than before; nothing changed
--   bytes     likewise
--   value     a value would be larger than it may, and than before; nothing changed
--   busy      another transaction holds the store's row; nothing changed, to be tried alone
--   absent    the store has never been written; nothing changed, to be tried alone
-- Snapshot: begins after LockStores has ended, so for the stores in vss.locked it holds all that was ever
-- committed: every writer of a store holds its row lock to the end of its transaction. It must never lock
-- a row itself: after a wait, only that row would be fresh.
-- Ceilings (CONTRACT section 5): a store that was just created has to stay below the hard lines, any other below
-- the last ones. The counts on the store's row are exact. What does not grow the store is not refused.
-- Plan: nested loops from the parameters into the primary keys of stores and objects; values are taken
-- from the array at the insert alone, by subscript, and never pass through a CTE's tuple store.
WITH locked AS MATERIALIZED (
    SELECT unnest(string_to_array(current_setting('vss.locked'), ',')::uuid[]) AS store
), write AS MATERIALIZED (
    SELECT generate_subscripts(@stores::uuid[], 1) AS n,
           unnest(@stores::uuid[]) AS store,
           unnest(@write_ids::uuid[]) AS write_id,
           unnest(@global_versions::bigint[]) AS global_version,
           unnest(@not_after::timestamptz[]) AS not_after,
           unnest(@hard_objects::bigint[]) AS hard_objects,
           unnest(@last_objects::bigint[]) AS last_objects,
           unnest(@hard_bytes::bigint[]) AS hard_bytes,
           unnest(@last_bytes::bigint[]) AS last_bytes,
           unnest(@largest_values::bigint[]) AS largest_value
), item AS MATERIALIZED (
    SELECT generate_subscripts(@keys::text[], 1) AS i,
           unnest(@item_writes::int[]) AS n,
           unnest(@keys::text[]) AS key,
           unnest(@versions::bigint[]) AS expected,
           unnest(@deletes::bool[]) AS deletes
), current AS MATERIALIZED (
    SELECT item.i, item.n, item.key, item.expected, item.deletes, write.store, o.version, o.size,
           octet_length((@values::bytea[])[item.i]) AS new_size
      FROM item
      JOIN write ON write.n = item.n
      JOIN locked ON locked.store = write.store
      LEFT JOIN objects o ON o.store = write.store AND o.key = item.key
), sums AS MATERIALIZED (
    SELECT c.n,
           bool_or(c.deletes AND c.version IS NULL
                   OR c.expected <> -1 AND c.expected <> coalesce(c.version, 0)) AS conflict,
           count(*) FILTER (WHERE NOT c.deletes AND c.version IS NULL) AS created,
           count(*) FILTER (WHERE c.deletes) AS deleted,
           sum(CASE WHEN c.deletes THEN 0 ELSE octet_length(c.key) + c.new_size END
               - CASE WHEN c.version IS NULL THEN 0 ELSE octet_length(c.key) + c.size END)::bigint AS growth,
           max(c.new_size) FILTER (WHERE NOT c.deletes AND c.new_size > coalesce(c.size, 0)) AS largest
      FROM current c GROUP BY c.n
), after AS MATERIALIZED (
    SELECT write.n, s.revision = 0 AS fresh,
           s.objects + coalesce(sums.created - sums.deleted, 0) AS objects, coalesce(sums.created - sums.deleted, 0) > 0 AS more,
           s.bytes + coalesce(sums.growth, 0) AS bytes, coalesce(sums.growth, 0) > 0 AS larger, coalesce(sums.largest, 0) AS largest,
           CASE WHEN s.revision = 0 THEN write.hard_objects ELSE write.last_objects END AS most_objects,
           CASE WHEN s.revision = 0 THEN write.hard_bytes ELSE write.last_bytes END AS most_bytes
      FROM write
      JOIN locked ON locked.store = write.store
      JOIN stores s ON s.store = locked.store
      LEFT JOIN sums ON sums.n = write.n
), verdict AS MATERIALIZED (
    SELECT write.n, write.store, write.write_id, write.global_version, s.next_position,
           coalesce(sums.created, 0) AS created, after.objects, after.bytes, after.largest, after.fresh,
           CASE WHEN locked.store IS NULL
                THEN CASE WHEN EXISTS (SELECT FROM stores e WHERE e.store = write.store) THEN 'busy' ELSE 'absent' END
                WHEN clock_timestamp() > write.not_after THEN 'late'
                WHEN s.blocked THEN 'blocked'
                WHEN write.global_version <> -1 AND write.global_version <> s.global_version THEN 'conflict'
                WHEN sums.conflict THEN 'conflict'
                WHEN after.more AND after.objects > after.most_objects THEN 'objects'
                WHEN after.larger AND after.bytes > after.most_bytes THEN 'bytes'
                WHEN after.larger AND after.largest > write.largest_value THEN 'value'
                ELSE 'ok'
           END AS outcome
      FROM write
      LEFT JOIN locked ON locked.store = write.store
      LEFT JOIN stores s ON s.store = locked.store
      LEFT JOIN sums ON sums.n = write.n
      LEFT JOIN after ON after.n = write.n
), removed AS (
    DELETE FROM objects o
     USING current c JOIN verdict v ON v.n = c.n
     WHERE v.outcome = 'ok' AND c.deletes AND o.store = c.store AND o.key = c.key
), written AS (
    INSERT INTO objects AS o (store, key, version, position, value)
    SELECT c.store, c.key,
           CASE WHEN c.expected = -1 THEN 1 ELSE c.expected + 1 END,
           v.next_position + count(*) FILTER (WHERE c.version IS NULL) OVER (PARTITION BY c.n ORDER BY c.i),
           (@values::bytea[])[c.i]
      FROM current c JOIN verdict v ON v.n = c.n
     WHERE v.outcome = 'ok' AND NOT c.deletes
    ON CONFLICT (store, key) DO UPDATE
       SET version = excluded.version, value = excluded.value, updated_at = now()
), counted AS (
    UPDATE stores s
       SET global_version = CASE WHEN v.global_version IS NULL THEN s.global_version
                                 WHEN v.global_version = -1 THEN 1
                                 ELSE s.global_version + 1 END,
           revision = s.revision + 1,
           last_write = v.write_id,
           next_position = s.next_position + v.created,
           objects = v.objects,
           bytes = v.bytes,
           last_written_at = now()
      FROM verdict v
     WHERE v.outcome = 'ok' AND s.store = v.store
)
SELECT n::int AS n, outcome::text AS outcome, clock_timestamp()::timestamptz AS now,
       coalesce(objects, 0)::bigint AS objects, coalesce(bytes, 0)::bigint AS bytes, coalesce(largest, 0)::bigint AS largest, coalesce(fresh, false)::bool AS fresh
  FROM verdict;

-- name: Standing :one
-- What there is of a wallet that is about to write to a store for the first time. One snapshot, no locks: of
-- several first writes at once none sees the others. As with "not found", only a primary may say that a store was never
-- written: who hears that may refuse its wallet.
SELECT pg_is_in_recovery()::bool AS standby,
       EXISTS (SELECT FROM wallets w WHERE w.wallet = @wallet)::bool AS known,
       EXISTS (SELECT FROM stores s WHERE s.store = @store)::bool AS begun, -- by another instance, just now
       (SELECT count(*) FROM stores s WHERE s.wallet = @wallet)::bigint AS stores;

-- name: EnrolWallet :execrows
-- The first write of a wallet. Waits for another transaction that inserts the same wallet right now, and
-- then does nothing. Wallets are inserted before stores, one of each a transaction: no cycle.
INSERT INTO wallets (wallet, tenant_id, namespace, subject)
VALUES (@wallet, @tenant_id, @namespace, @subject)
ON CONFLICT DO NOTHING;

-- name: CreateStore :exec
-- The first write of a store; waits as EnrolWallet does. The lock on the wallet's row keeps a block of the wallet
-- from missing the store.
INSERT INTO stores (store, wallet, store_id, blocked)
SELECT @store, w.wallet, @store_id, w.blocked
  FROM wallets w WHERE w.wallet = @wallet FOR SHARE
ON CONFLICT DO NOTHING;

-- name: LockStore :exec
-- Locks one store's row and waits for it, up to lock_timeout. Decides nothing: its snapshot is older than
-- what the holder of the lock commits.
SELECT FROM stores WHERE store = @store FOR NO KEY UPDATE;

-- name: LastWrite :one
-- Settles a commit whose answer was lost. Waits for the store's row, up to lock_timeout: as long as the
-- lost transaction lives, it holds it. It must lock: that writes WAL, so this transaction's own commit waits
-- for the synchronous standby to have all that came before it, the lost commit included.
SELECT s.last_write FROM stores s WHERE s.store = @store FOR NO KEY UPDATE;

-- name: Acquaint :one
-- What a store must know of the server behind a new connection: its clock, whether it keeps what it says it has
-- saved (CONTRACT section 6), and whether its schema refuses a commit that comes too late.
SELECT clock_timestamp()::timestamptz AS now,
       pg_is_in_recovery()::bool AS standby,
       current_setting('fsync')::bool AS fsync,
       current_setting('full_page_writes')::bool AS full_page_writes,
       current_setting('synchronous_commit')::text AS synchronous_commit,
       current_setting('synchronous_standby_names')::text AS standbys,
       EXISTS (SELECT FROM pg_catalog.pg_trigger t
                WHERE t.tgrelid = 'stores'::regclass AND t.tgname = 'commit_in_time' AND t.tgenabled IN ('O', 'A'))::bool AS in_time;
