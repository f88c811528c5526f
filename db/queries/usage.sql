-- What the API records about itself and its tenants, apart from calls.

-- name: StoreMeterBatch :one
-- Stores a batch of an instance's meter, once: another attempt, after the answer to the first was lost, finds its
-- sequence stored, and waits for it if the first is not over yet. A wallet counts for a day when its row there is new,
-- and for the month when its row there is too: of two instances that report it at once, one waits for the other and
-- finds it.
-- One statement, so one transaction and snapshot. Plan: scans of what was sent, sorted, and for each row a descent of
-- a primary key. Locks: the instance's own row, then rows of active_wallets by (grain, start, tenant_id, wallet), then
-- rows of usage by its primary key (each sort has all its input before the first insert): of any number of flushes
-- all wait in one direction. The roll-ups and pruning below touch no row that it does, but for late ones.
WITH batch AS (
    INSERT INTO meter_batches AS m (instance, sequence) VALUES (@instance, @sequence)
    ON CONFLICT (instance) DO UPDATE SET sequence = excluded.sequence, stored_at = now() WHERE m.sequence < excluded.sequence
    RETURNING 1
), active_days AS (
    INSERT INTO active_wallets (grain, start, tenant_id, wallet)
    SELECT 'day', day, tenant_id, wallet
      FROM (SELECT unnest(@active_tenants::uuid[]) AS tenant_id, unnest(@active_days::date[]) AS day, unnest(@active_wallets::uuid[]) AS wallet) seen
     WHERE EXISTS (SELECT FROM batch)
     ORDER BY day, tenant_id, wallet
    ON CONFLICT DO NOTHING
    RETURNING start, tenant_id, wallet
), active_months AS (
    INSERT INTO active_wallets (grain, start, tenant_id, wallet)
    SELECT 'month', date_trunc('month', start::timestamp)::date, tenant_id, wallet FROM active_days
     ORDER BY 2, 3, 4
    ON CONFLICT DO NOTHING
    RETURNING start, tenant_id
), counts AS (
    SELECT unnest(@tenants::uuid[]) AS tenant_id, 'hour' AS grain, unnest(@starts::timestamptz[]) AS start,
           unnest(@metrics::text[]) AS metric, unnest(@values::bigint[]) AS value
    UNION ALL
    SELECT tenant_id, 'day', start::timestamp AT TIME ZONE 'UTC', 'active_wallets', count(*) FROM active_days GROUP BY 1, 3
    UNION ALL
    SELECT tenant_id, 'month', start::timestamp AT TIME ZONE 'UTC', 'active_wallets', count(*) FROM active_months GROUP BY 1, 3
), counted AS (
    INSERT INTO usage AS u (tenant_id, grain, start, metric, value)
    SELECT tenant_id, grain, start, metric, value FROM counts
     WHERE EXISTS (SELECT FROM batch)
     ORDER BY 1, 2, 3, 4
    ON CONFLICT (tenant_id, grain, start, metric) DO UPDATE SET value = u.value + excluded.value
)
SELECT EXISTS (SELECT FROM batch)::bool AS stored;

-- name: Bound :exec
-- For a transaction of those below. Bounds it on the server, so that it holds when the caller is gone (milliseconds):
-- waiting for a lock, running a statement, idling between two. And lets no plan gather all of a range before it takes
-- the first few rows of it.
SELECT set_config('lock_timeout', @milliseconds::text, true),
       set_config('statement_timeout', @milliseconds::text, true),
       set_config('idle_in_transaction_session_timeout', @milliseconds::text, true),
       set_config('enable_bitmapscan', 'off', true);

-- name: TryMaintenance :one
-- Whether this transaction is the one that does the work that one instance does for all. The lock alone takes no
-- snapshot and no transaction id, so it holds up no vacuum.
SELECT pg_try_advisory_xact_lock(hashtextextended('vss-cloud usage', 0))::bool AS ours;

-- name: AwaitMaintenance :exec
-- Waits until it is, up to lock_timeout. A measure of many wallets may take longer; then it is to be tried again.
SELECT pg_advisory_xact_lock(hashtextextended('vss-cloud usage', 0));

-- name: RollUpDays :exec
-- Makes the days since then, which is 00:00 UTC, the sums of their hours. It can be done again at any time while the
-- hours are there, by one transaction at a time: of two, the one with the older snapshot might write last.
-- Plan: a range of usage_by_start, sorted; for each row that is not as it was a descent of the primary key. It locks
-- only rows that are sums, and only while it writes; its snapshot lasts about 2 us a row that it reads.
INSERT INTO usage AS u (tenant_id, grain, start, metric, value)
SELECT tenant_id, 'day', date_trunc('day', start, 'UTC'), metric, sum(value)::bigint
  FROM usage WHERE grain = 'hour' AND start >= @since::timestamptz
 GROUP BY 1, 3, 4 ORDER BY 1, 3, 4
ON CONFLICT (tenant_id, grain, start, metric) DO UPDATE SET value = excluded.value WHERE u.value <> excluded.value;

-- name: RollUpMonths :exec
-- Makes the months since then, which is the first of one, the sums of their days, but for active_wallets, which are
-- no sum. As RollUpDays.
INSERT INTO usage AS u (tenant_id, grain, start, metric, value)
SELECT tenant_id, 'month', date_trunc('month', start, 'UTC'), metric, sum(value)::bigint
  FROM usage WHERE grain = 'day' AND start >= @since::timestamptz AND metric <> 'active_wallets'
 GROUP BY 1, 3, 4 ORDER BY 1, 3, 4
ON CONFLICT (tenant_id, grain, start, metric) DO UPDATE SET value = excluded.value WHERE u.value <> excluded.value;

-- name: MeasureSlice :many
-- What every tenant has in wallets of this range, both ends included. No locks of rows. Plan: a range of the primary key of
-- wallets, and for each a descent of stores_by_wallet. Its snapshot keeps versions of every store's row as long as it
-- runs (10 us a wallet, and more where pages are read from disk), so the wallets are read in slices.
WITH w AS MATERIALIZED (
    SELECT a.wallet, a.tenant_id FROM wallets a WHERE a.wallet BETWEEN @first AND @last
)
SELECT w.tenant_id, count(*) AS wallets, sum(s.stores)::bigint AS stores, sum(s.objects)::bigint AS objects, sum(s.bytes)::bigint AS bytes
  FROM w
 CROSS JOIN LATERAL (SELECT count(*) AS stores, coalesce(sum(s.objects), 0) AS objects, coalesce(sum(s.bytes), 0) AS bytes
                       FROM stores s WHERE s.wallet = w.wallet) s
 GROUP BY w.tenant_id;

-- name: StoreTotals :exec
-- In the order of tenants. Locks their rows, which only who maintains writes; readers don't wait.
INSERT INTO tenant_totals (tenant_id, wallets, stores, objects, bytes)
SELECT unnest(@tenants::uuid[]), unnest(@wallets::bigint[]), unnest(@stores::bigint[]), unnest(@objects::bigint[]), unnest(@bytes::bigint[])
ON CONFLICT (tenant_id) DO UPDATE
   SET wallets = excluded.wallets, stores = excluded.stores, objects = excluded.objects, bytes = excluded.bytes, measured_at = now();

-- name: SampleStored :execrows
-- What every tenant stores in this hour, as just measured: the first sample of an hour stays. Plan: the tenants' totals
-- and a descent of a primary key for two metrics of each. No flush writes these metrics.
INSERT INTO usage (tenant_id, grain, start, metric, value)
SELECT t.tenant_id, 'hour', @hour::timestamptz, m.metric, m.value
  FROM tenant_totals t
  CROSS JOIN LATERAL (VALUES ('stored_bytes', t.bytes), ('stored_objects', t.objects)) m (metric, value)
 ORDER BY t.tenant_id, m.metric
ON CONFLICT DO NOTHING;

-- name: PruneHours :execrows
-- Plan: the beginning of a range of usage_by_start, then its rows by their place; entries of rows that earlier pieces
-- removed are marked dead when met again. Locks the rows that it removes, which nobody else touches; 5,000 take 10 ms.
DELETE FROM usage
 WHERE ctid = ANY (ARRAY(SELECT u.ctid FROM usage u WHERE u.grain = 'hour' AND u.start < @before::timestamptz LIMIT @most));

-- name: PruneActiveWallets :execrows
-- As PruneHours, by the primary key.
DELETE FROM active_wallets
 WHERE ctid = ANY (ARRAY(SELECT a.ctid FROM active_wallets a WHERE a.grain = @grain AND a.start < @before::date LIMIT @most));

-- name: PruneEvents :execrows
-- Those of 400 days ago among this many that come first by id, which grows with time. Plan: the beginning of the primary key, then
-- a descent of it for each that goes. Locks the rows that it removes, which nobody else touches.
DELETE FROM events
 WHERE id = ANY (ARRAY(SELECT e.id FROM (SELECT id, at FROM events ORDER BY id LIMIT @most) e WHERE e.at < now() - interval '400 days'));

-- name: PruneStates :execrows
-- States that have been over for so long: what is not there is 'ok' too. Plan: the beginning of event_states_over, then
-- its rows by their place. Locks the rows that it removes: who raises one of them waits for the piece and writes it
-- anew, and one that was just raised stays, as its state is looked at again.
DELETE FROM event_states s
 WHERE s.ctid = ANY (ARRAY(SELECT e.ctid FROM event_states e WHERE e.state = 'ok' AND e.since < now() - interval '400 days' LIMIT @most))
   AND s.state = 'ok';

-- name: ForgetBatches :exec
-- Of instances that ended long ago: as long as one may try to store its last batch again, its number must be there.
DELETE FROM meter_batches WHERE stored_at < now() - interval '90 days';

-- name: SettleRefusals :execrows
-- Ends the states of refusals, whose subject is their reason, of which no instance has counted one since then. Plan: the
-- states of these kinds, and for each a descent of the primary key of usage. Locks the rows that it ends.
WITH settled AS (
    UPDATE event_states s SET state = 'ok', since = now()
     WHERE s.state <> 'ok' AND s.kind = ANY (@kinds::text[])
       AND NOT EXISTS (SELECT FROM usage u
                        WHERE u.tenant_id = s.tenant_id AND u.grain = 'hour' AND u.start >= @since::timestamptz
                          AND u.metric = 'refused.' || s.subject)
    RETURNING tenant_id, kind, subject, state
)
INSERT INTO events (tenant_id, kind, subject, state)
SELECT tenant_id, kind, subject, state FROM settled;

-- name: Totals :many
-- One snapshot, no locks: the table, a row a tenant.
SELECT * FROM tenant_totals;

-- name: TotalsAge :one
-- In seconds; very old where there are none. Reads a row a tenant.
SELECT coalesce(extract(epoch FROM now() - max(measured_at)), 1e9)::float8 AS seconds FROM tenant_totals;

-- name: Beat :one
-- Tells that this instance runs and what it cannot fetch, and hears how many run, and what those that were seen cannot
-- fetch. Another runs from its second beat on. Locks its own row, which nobody else does but to forget it; reads the
-- table, a row for each instance of the last day.
WITH beat AS (
    INSERT INTO instances (id, host, version, failing) VALUES (@id, @host, @version, @failing)
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), failing = excluded.failing
), others AS (
    SELECT i.seen_at > i.started_at AS runs, i.failing FROM instances i WHERE i.id <> @id AND i.seen_at > now() - interval '15 seconds'
)
SELECT ((SELECT count(*) FROM others o WHERE o.runs) + 1)::int AS live,
       (SELECT coalesce(array_agg(f.source), '{}') FROM (SELECT unnest(o.failing) AS source FROM others o) f)::uuid[] AS failing;

-- name: Leave :exec
DELETE FROM instances WHERE id = @id;

-- name: ForgetInstances :exec
DELETE FROM instances WHERE seen_at < now() - interval '1 day';

-- name: Instances :many
SELECT *, (seen_at > now() - interval '15 seconds')::bool AS live FROM instances ORDER BY started_at;

-- name: RaiseEvent :execrows
-- Notes a state, and writes an event if it is another one than before. A state that nothing was noted of is 'ok'.
-- One that is noted already is only read, by a descent of the primary key; of instances that note one at once, one
-- waits for the other's row and then finds it noted. It locks that row alone, so no two wait for each other.
WITH changed AS (
    INSERT INTO event_states AS s (tenant_id, kind, subject, state)
    SELECT @tenant_id::uuid, @kind::text, @subject::text, @state::text
     WHERE coalesce((SELECT e.state FROM event_states e WHERE e.tenant_id = @tenant_id AND e.kind = @kind AND e.subject = @subject), 'ok')
           <> @state::text
    ON CONFLICT (tenant_id, kind, subject) DO UPDATE SET state = excluded.state, since = now() WHERE s.state <> excluded.state
    RETURNING tenant_id, kind, subject, state
)
INSERT INTO events (tenant_id, kind, subject, state, detail)
SELECT tenant_id, kind, subject, state, @detail::jsonb FROM changed;

-- name: RaisedStates :many
-- What is not 'ok', the newest first. One snapshot, no locks; plan: event_states_raised, whatever else is in the table.
SELECT tenant_id, kind, subject, state FROM event_states WHERE state <> 'ok' ORDER BY since DESC LIMIT @most;

-- name: Events :many
SELECT * FROM events WHERE tenant_id = @tenant_id ORDER BY id DESC LIMIT @most;

-- name: ActiveWallets :many
-- The wallets that were active last, for an instance that starts and knows none. One snapshot, no locks; plan: the end of
-- the days' range of the primary key, at most so many rows.
SELECT wallet FROM active_wallets WHERE grain = 'day' ORDER BY start DESC LIMIT @most;

-- name: UsageSince :many
SELECT start, metric, value FROM usage
 WHERE tenant_id = @tenant_id AND grain = @grain AND start >= @since::timestamptz
 ORDER BY start, metric;
