-- What else tokens must say, and which wallets an issuer's tokens once named.

-- +goose Up
ALTER TABLE credential_sources
    -- jwt: claims that a token must have, each with its text.
    ADD COLUMN claims         jsonb  NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(claims) = 'object'),
    -- jwt: issuers that the source had, '' for none: their tokens named wallets of its namespace.
    ADD COLUMN former_issuers text[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT only_jwt_asks_for_claims CHECK (kind = 'jwt' OR claims = '{}');
GRANT UPDATE (claims, former_issuers) ON credential_sources TO vss_admin;

-- +goose Down
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM credential_sources WHERE claims <> '{}' AND removed_at IS NULL) THEN
        RAISE EXCEPTION 'there are credential sources that would take tokens without the claims that they ask for';
    END IF;
END
$$;
-- +goose StatementEnd
REVOKE UPDATE (claims, former_issuers) ON credential_sources FROM vss_admin;
ALTER TABLE credential_sources DROP COLUMN claims, DROP COLUMN former_issuers;
