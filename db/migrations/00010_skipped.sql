-- What is wrong with the entries of a key set that are no keys to verify with, a text each, for people.

-- +goose Up
ALTER TABLE jwks_documents ADD COLUMN skipped text[] NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE jwks_documents DROP COLUMN skipped;
