-- What the API keeps about credentials while it serves.

-- name: JWKSDocuments :many
-- The last good keys of these sources, be it of another URL: until the new one has answered they are what there is.
SELECT source_id, document, skipped FROM jwks_documents WHERE source_id = ANY (@source_ids::uuid[]);

-- name: SaveJWKSDocument :exec
-- Not by an instance that has not heard of the source's new URL. Where it replaces other keys that is an event, once:
-- of instances that save the same ones at once, the later waits for the row of the first and then changes nothing.
WITH saved AS (
    INSERT INTO jwks_documents AS d (source_id, url, document, skipped)
    SELECT s.id, s.jwks_url, @document, @skipped::text[] FROM credential_sources s WHERE s.id = @source_id AND s.jwks_url = @url::text
    ON CONFLICT (source_id) DO UPDATE SET url = excluded.url, document = excluded.document, skipped = excluded.skipped, fetched_at = now()
     WHERE d.url <> excluded.url OR d.document <> excluded.document OR d.skipped <> excluded.skipped
    RETURNING d.source_id
)
INSERT INTO events (tenant_id, kind, subject, state, detail)
SELECT c.tenant_id, 'keys_changed', c.name, 'changed', '{"changed": ["jwks"]}'
  FROM saved
  JOIN jwks_documents was ON was.source_id = saved.source_id AND was.document <> @document -- as it was before
  JOIN credential_sources c ON c.id = saved.source_id;

-- name: UseChallenge :execrows
-- 1 for the first use of a challenge, 0 for any other: of several at once the later ones wait for the first.
INSERT INTO lnurl_used (k1, expires_at) VALUES (@k1, @expires_at) ON CONFLICT DO NOTHING;

-- name: ForgetChallenges :execrows
-- Long after they expired by any instance's clock.
DELETE FROM lnurl_used
 WHERE k1 IN (SELECT k1 FROM lnurl_used WHERE expires_at < now() - interval '15 minutes' ORDER BY expires_at LIMIT 10000);

-- name: AddAuthFailures :exec
-- Sorted, so that two instances lock the rows in one order.
INSERT INTO auth_failures AS f (tenant_id, source, reason, count, last_at)
SELECT tenant_id, source, reason, count, last_at
  FROM (SELECT unnest(@tenant_ids::uuid[]) AS tenant_id, unnest(@sources::text[]) AS source, unnest(@reasons::text[]) AS reason,
               unnest(@counts::bigint[]) AS count, unnest(@last_ats::timestamptz[]) AS last_at) added
 ORDER BY tenant_id, source COLLATE "C", reason COLLATE "C"
ON CONFLICT (tenant_id, source, reason) DO UPDATE
   SET count = f.count + excluded.count, last_at = greatest(f.last_at, excluded.last_at);
