-- Instances tell each other what they cannot fetch, so that people hear of it once; and remove events that are too old.

-- +goose Up
-- The credential sources whose keys the instance could not get from their URLs when it was last seen.
ALTER TABLE instances ADD COLUMN failing uuid[] NOT NULL DEFAULT '{}';

CREATE INDEX event_states_over ON event_states (since) WHERE state = 'ok'; -- what is too old
GRANT DELETE ON events, event_states TO vss_api;

-- +goose Down
REVOKE DELETE ON events, event_states FROM vss_api;
DROP INDEX event_states_over;
ALTER TABLE instances DROP COLUMN failing;
