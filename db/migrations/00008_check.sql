-- What a program asks before it serves (db.Check).

-- +goose Up
GRANT SELECT ON goose_db_version TO vss_api, vss_admin;

-- The first migration that a program must know to be served by this schema. A program on a schema that is newer is fine
-- during a deploy; a migration after which it is not replaces this with its own number.
CREATE FUNCTION oldest_program() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 8::bigint';

-- +goose Down
DROP FUNCTION oldest_program();
REVOKE SELECT ON goose_db_version FROM vss_api, vss_admin;
