package db_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
)

func TestEachRoleDoesWhatItIsGrantedAndNothingElse(t *testing.T) {
	t.Parallel()
	const (
		tenant = "'11111111-1111-1111-1111-111111111111'"
		id     = "'22222222-2222-2222-2222-222222222222'"
	)
	url := dbtest.New(t)
	_, err := connect(t, url, "").Exec(t.Context(), `
		INSERT INTO tenants (id, slug, name) VALUES (`+tenant+`, 'a', 'A');
		INSERT INTO domains (host, tenant_id) VALUES ('a.example', `+tenant+`);
		INSERT INTO credential_sources (tenant_id, name, kind, namespace) VALUES (`+tenant+`, 'sig', 'signature', 'sig');
		INSERT INTO audit_log (actor, action, tenant_id) VALUES ('x', 'y', `+tenant+`);
		INSERT INTO wallets (wallet, tenant_id, namespace, subject) VALUES (`+id+`, `+tenant+`, 'sig', 's');
		INSERT INTO stores (store, wallet, store_id) VALUES (`+id+`, `+id+`, '');
		INSERT INTO objects (store, key, version, position, value) VALUES (`+id+`, 'k', 1, 0, '\x00')`)
	if err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		statement  string
		api, admin bool // allowed
	}{
		// The data plane.
		{"SELECT store, key, version, position, size, created_at, updated_at FROM objects", true, true},
		{"SELECT count(*) FROM objects", true, true},
		{"SELECT value FROM objects", true, false},
		{"SELECT * FROM objects", true, false},
		{"SELECT o FROM objects o", true, false},
		{"SELECT length(value) FROM objects", true, false},
		{"SELECT FROM objects WHERE value = ''", true, false},
		{"COPY objects TO STDOUT", true, false},
		{"SELECT * FROM list_keys(" + id + ", '', '', 1, 1)", true, false},
		{"INSERT INTO objects (store, key, version, position, value) VALUES (" + id + ", 'l', 1, 1, '')", true, false},
		{"UPDATE objects SET version = version + 1", true, false},
		{"DELETE FROM objects", true, false},
		{"TRUNCATE objects", false, false},
		{"SELECT * FROM stores", true, true},
		{"SELECT FROM stores FOR UPDATE", true, true}, // to block one
		{"INSERT INTO stores (store, wallet, store_id) VALUES (gen_random_uuid(), " + id + ", '')", true, false},
		{"UPDATE stores SET revision = revision + 1", true, false},
		{"DELETE FROM stores", false, false},
		{"TRUNCATE stores", false, false},
		{"SELECT * FROM wallets", true, true},
		{"INSERT INTO wallets (wallet, tenant_id, namespace, subject) VALUES (gen_random_uuid(), " + tenant + ", 'sig', 't')", true, false},
		{"UPDATE wallets SET subject = 'u'", false, false},
		{"UPDATE wallets SET namespace = 'u'", false, false},
		{"DELETE FROM wallets", false, false},

		// The control plane.
		{"SELECT * FROM tenants", true, true},
		{"INSERT INTO tenants (slug, name) VALUES ('b', 'B')", false, true},
		{"UPDATE tenants SET name = 'AA', state = 'read_only', enrolment = 'closed'", false, true},
		{"UPDATE tenants SET slug = 'c'", false, false},
		{"UPDATE tenants SET id = gen_random_uuid()", false, false},
		{"DELETE FROM tenants", false, false},
		{"SELECT * FROM domains", true, true},
		{"INSERT INTO domains (host, tenant_id) VALUES ('b.example', " + tenant + ")", false, true},
		{"UPDATE domains SET host = 'c.example'", false, false},
		{"UPDATE domains SET tenant_id = " + tenant, false, false},
		{"DELETE FROM domains", false, true},
		{"SELECT * FROM credential_sources", true, true},
		{"INSERT INTO credential_sources (tenant_id, name, kind, namespace) SELECT id, 'sig', 'signature', 'sig' FROM tenants t" +
			" WHERE NOT EXISTS (SELECT FROM credential_sources c WHERE c.tenant_id = t.id)", false, true},
		{"UPDATE credential_sources SET window_seconds = 60", false, true},
		{"UPDATE credential_sources SET namespace = 'other'", false, false},
		{"UPDATE credential_sources SET kind = 'signature'", false, false},
		{"UPDATE credential_sources SET tenant_id = " + tenant, false, false},
		{"DELETE FROM credential_sources", false, false},
		{"SELECT * FROM directory", true, true},
		{"UPDATE directory SET generation = 1", false, false},
		{"DELETE FROM directory", false, false},

		// The record of it.
		{"SELECT * FROM audit_log", false, true},
		{"INSERT INTO audit_log (actor, action) VALUES ('x', 'y')", false, true},
		{"UPDATE audit_log SET actor = 'z'", false, false},
		{"DELETE FROM audit_log", false, false},
		{"TRUNCATE audit_log", false, false},

		{"SELECT * FROM leases", true, true}, // an update of stores looks at them
		{"INSERT INTO leases (instance, life) VALUES (gen_random_uuid(), now())", true, false},
		{"UPDATE leases SET kept_at = now()", true, false},
		{"DELETE FROM leases", true, false},

		{"DELETE FROM events", true, false}, // that are too old
		{"UPDATE events SET state = 'z'", false, false},
		{"DELETE FROM event_states", true, false},

		// The schema itself.
		{"SELECT * FROM goose_db_version", true, true},
		{"DELETE FROM goose_db_version", false, false},
		{"CREATE TABLE mine (n int)", false, false},
		{"ALTER TABLE audit_log DISABLE TRIGGER ALL", false, false},
		{"ALTER TABLE tenants DISABLE TRIGGER directory_changed", false, false},
		{"CREATE ROLE mine", false, false},
	} {
		for _, role := range []struct {
			name    db.Role
			allowed bool
		}{{db.RoleAPI, c.api}, {db.RoleAdmin, c.admin}} {
			t.Run(string(role.name)+": "+c.statement, func(t *testing.T) {
				err := try(t, connect(t, url, string(role.name)), c.statement)
				var refused *pgconn.PgError
				switch {
				case role.allowed && err != nil:
					t.Errorf("refused: %v", err)
				case !role.allowed && err == nil:
					t.Error("allowed")
				case !role.allowed && (!errors.As(err, &refused) || refused.Code != "42501"): // insufficient_privilege
					t.Errorf("fails, but not because it is refused: %v", err)
				}
			})
		}
	}
}

// try runs the statement and takes back what it did.
func try(t *testing.T, conn *pgx.Conn, statement string) error {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), statement)
	return err
}

// The trigger that counts changes runs with the owner's rights: it must do so on the table it means.
func TestNoRoleBorrowsTheOwnersRights(t *testing.T) {
	t.Parallel()
	url := dbtest.New(t)
	conn := connect(t, url, string(db.RoleAdmin))
	_, err := conn.Exec(t.Context(), `
		CREATE TEMP TABLE directory (generation bigint);
		INSERT INTO directory VALUES (0);
		CREATE TEMP TABLE loot (taken_by text);
		GRANT ALL ON directory, loot TO PUBLIC;
		CREATE FUNCTION pg_temp.take() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO pg_temp.loot VALUES (current_user);
			RETURN NULL;
		END
		$$;
		CREATE TRIGGER take AFTER UPDATE ON directory FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.take();
		INSERT INTO public.tenants (slug, name) VALUES ('a', 'A')`)
	if err != nil {
		t.Fatal(err)
	}
	var thieves []string
	if err := conn.QueryRow(t.Context(), "SELECT coalesce(array_agg(taken_by), '{}') FROM loot").Scan(&thieves); err != nil {
		t.Fatal(err)
	}
	if len(thieves) > 0 {
		t.Errorf("code of %s ran as %v", db.RoleAdmin, thieves)
	}
}
