-- Instances tell each other what they cannot fetch, so that people hear of it once.

-- +goose Up
-- The credential sources whose keys the instance could not get from their URLs when it was last seen.
ALTER TABLE instances ADD COLUMN failing uuid[] NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE instances DROP COLUMN failing;
