-- What the API records about itself and its tenants, apart from calls.

-- name: StoreMeterBatch :one
-- Stores a batch of an instance's meter, once: another attempt, after the answer to the first was lost, finds its
-- sequence stored. One statement, so one transaction; rows are locked in the order in which the batch is sorted.
-- A wallet counts for a day and for a month when its row there is new: of two instances that report it at once, one
-- waits for the other and finds it.
WITH batch AS (
    INSERT INTO meter_batches AS m (instance, sequence) VALUES (@instance, @sequence)
    ON CONFLICT (instance) DO UPDATE SET sequence = excluded.sequence, stored_at = now() WHERE m.sequence < excluded.sequence
    RETURNING 1
), seen AS (
    SELECT unnest(@active_tenants::uuid[]) AS tenant_id, unnest(@active_days::date[]) AS day, unnest(@active_wallets::uuid[]) AS wallet
), active AS (
    INSERT INTO active_wallets (grain, start, tenant_id, wallet)
    SELECT DISTINCT g.grain, g.start, g.tenant_id, g.wallet
      FROM (SELECT 'day' AS grain, day AS start, tenant_id, wallet FROM seen
            UNION ALL
            SELECT 'month', date_trunc('month', day)::date, tenant_id, wallet FROM seen) g
     WHERE EXISTS (SELECT FROM batch)
     ORDER BY 1, 2, 3, 4
    ON CONFLICT DO NOTHING
    RETURNING grain, start, tenant_id
), counts AS (
    SELECT unnest(@tenants::uuid[]) AS tenant_id, 'hour' AS grain, unnest(@starts::timestamptz[]) AS start,
           unnest(@metrics::text[]) AS metric, unnest(@values::bigint[]) AS value
    UNION ALL
    SELECT tenant_id, grain, start::timestamp AT TIME ZONE 'UTC', 'active_wallets', count(*) FROM active GROUP BY 1, 2, 3
), counted AS (
    INSERT INTO usage AS u (tenant_id, grain, start, metric, value)
    SELECT tenant_id, grain, start, metric, value FROM counts
     WHERE EXISTS (SELECT FROM batch)
     ORDER BY 1, 2, 3, 4
    ON CONFLICT (tenant_id, grain, start, metric) DO UPDATE SET value = u.value + excluded.value
)
SELECT EXISTS (SELECT FROM batch)::bool AS stored;

-- name: SampleStored :execrows
-- What every tenant stores in this hour, once: the first sample of an hour stays. Reads every store's row once.
INSERT INTO usage (tenant_id, grain, start, metric, value)
SELECT t.tenant_id, 'hour', @hour::timestamptz, m.metric, m.value
  FROM (SELECT w.tenant_id, sum(s.bytes)::bigint AS bytes, sum(s.objects)::bigint AS objects
          FROM stores s JOIN wallets w ON w.wallet = s.wallet
         GROUP BY w.tenant_id) t
  CROSS JOIN LATERAL (VALUES ('stored_bytes', t.bytes), ('stored_objects', t.objects)) m (metric, value)
 ORDER BY t.tenant_id
ON CONFLICT DO NOTHING;

-- name: RollUpDays :exec
-- Makes the days since then the sums of their hours. It can be done again at any time while the hours are there.
INSERT INTO usage (tenant_id, grain, start, metric, value)
SELECT tenant_id, 'day', date_trunc('day', start, 'UTC'), metric, sum(value)::bigint
  FROM usage WHERE grain = 'hour' AND start >= @since::timestamptz
 GROUP BY 1, 3, 4 ORDER BY 1, 3, 4
ON CONFLICT (tenant_id, grain, start, metric) DO UPDATE SET value = excluded.value;

-- name: RollUpMonths :exec
-- Makes the months since then the sums of their days, but for active_wallets, which are no sum.
INSERT INTO usage (tenant_id, grain, start, metric, value)
SELECT tenant_id, 'month', date_trunc('month', start, 'UTC'), metric, sum(value)::bigint
  FROM usage WHERE grain = 'day' AND start >= @since::timestamptz AND metric <> 'active_wallets'
 GROUP BY 1, 3, 4 ORDER BY 1, 3, 4
ON CONFLICT (tenant_id, grain, start, metric) DO UPDATE SET value = excluded.value;

-- name: PruneHours :execrows
-- A few rows at a time, so that no lock is held for long.
DELETE FROM usage
 WHERE ctid = ANY (ARRAY(SELECT u.ctid FROM usage u WHERE u.grain = 'hour' AND u.start < @before::timestamptz LIMIT 5000));

-- name: PruneActiveWallets :execrows
DELETE FROM active_wallets
 WHERE ctid = ANY (ARRAY(SELECT a.ctid FROM active_wallets a WHERE a.grain = @grain AND a.start < @before::date LIMIT 5000));

-- name: MeasureTotals :exec
-- What every tenant has. Reads the wallets and the stores once.
INSERT INTO tenant_totals (tenant_id, wallets, stores, objects, bytes)
SELECT w.tenant_id, count(*), coalesce(sum(s.stores), 0)::bigint, coalesce(sum(s.objects), 0)::bigint, coalesce(sum(s.bytes), 0)::bigint
  FROM wallets w
  LEFT JOIN (SELECT wallet, count(*) AS stores, sum(objects) AS objects, sum(bytes) AS bytes FROM stores GROUP BY wallet) s
         ON s.wallet = w.wallet
 GROUP BY w.tenant_id ORDER BY w.tenant_id
ON CONFLICT (tenant_id) DO UPDATE
   SET wallets = excluded.wallets, stores = excluded.stores, objects = excluded.objects, bytes = excluded.bytes, measured_at = now();

-- name: Totals :many
SELECT * FROM tenant_totals;

-- name: TotalsAge :one
-- In seconds; very old where there are none.
SELECT coalesce(extract(epoch FROM now() - max(measured_at)), 1e9)::float8 AS seconds FROM tenant_totals;

-- name: TryMaintenance :one
-- Whether this transaction is the one that does the work that one instance does for all.
SELECT pg_try_advisory_xact_lock(hashtextextended('vss-cloud usage', 0))::bool AS ours;

-- name: Beat :one
-- Tells that this instance runs, and how many do.
WITH beat AS (
    INSERT INTO instances (id, host, version) VALUES (@id, @host, @version)
    ON CONFLICT (id) DO UPDATE SET seen_at = now()
)
SELECT (count(*) FILTER (WHERE i.id <> @id) + 1)::int AS live FROM instances i WHERE i.seen_at > now() - interval '15 seconds';

-- name: Leave :exec
DELETE FROM instances WHERE id = @id;

-- name: ForgetInstances :exec
DELETE FROM instances WHERE seen_at < now() - interval '1 day';

-- name: Instances :many
SELECT *, (seen_at > now() - interval '15 seconds')::bool AS live FROM instances ORDER BY started_at;

-- name: RaiseEvent :execrows
-- Notes a state, and writes an event if it is another one than before. A state that nothing was noted of is 'ok'.
WITH changed AS (
    INSERT INTO event_states AS s (tenant_id, kind, subject, state)
    SELECT @tenant_id::uuid, @kind::text, @subject::text, @state::text
     WHERE @state::text <> 'ok'
        OR EXISTS (SELECT FROM event_states e WHERE e.tenant_id = @tenant_id AND e.kind = @kind AND e.subject = @subject)
    ON CONFLICT (tenant_id, kind, subject) DO UPDATE SET state = excluded.state, since = now() WHERE s.state <> excluded.state
    RETURNING tenant_id, kind, subject, state
)
INSERT INTO events (tenant_id, kind, subject, state, detail)
SELECT tenant_id, kind, subject, state, @detail::jsonb FROM changed;

-- name: InsertEvent :exec
-- What has no state and happens.
INSERT INTO events (tenant_id, kind, subject, state, detail) VALUES (@tenant_id, @kind, @subject, @state, @detail);

-- name: Events :many
SELECT * FROM events WHERE tenant_id = @tenant_id ORDER BY id DESC LIMIT @most;

-- name: UsageSince :many
SELECT start, metric, value FROM usage
 WHERE tenant_id = @tenant_id AND grain = @grain AND start >= @since::timestamptz
 ORDER BY start, metric;
