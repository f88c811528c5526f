package db_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/embedded"
)

func TestWhatAPersonMustPutRightIsSaidWithWhatToDo(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	at := func(user, database string) string {
		u, err := url.Parse(server.URL(database))
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(user, "wrong")
		q := u.Query()
		q.Set("sslmode", "prefer") // as it is unless the operator says otherwise
		u.RawQuery = q.Encode()
		return u.String()
	}
	create := func(name string) string {
		if _, err := server.Database(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		return server.URL(name)
	}
	execute := func(sql, name string) {
		if _, err := connect(t, server.URL(name), "").Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	check := func(url string, want string) {
		t.Helper()
		pool, err := db.Open(t.Context(), url, db.RoleAPI, 1)
		if err == nil {
			defer pool.Close()
			err = db.Check(t.Context(), pool)
		}
		if want == "" && err != nil {
			t.Errorf("error %v", err)
		}
		if want == "" {
			return
		}
		if _, ok := errors.AsType[*db.SetupError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "TLS") || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "wrong")) {
			t.Errorf("error %v", err)
		}
	}

	check("", "set DATABASE_URL")
	check("postgres://%zz", "database URL")
	check(at("postgres", "none"), `there is no database "none"`)
	create("vss")
	check(at("postgres", "vss"), "role vss_api does not exist")
	create("other")
	execute("CREATE ROLE vss_api; CREATE ROLE login LOGIN; CREATE ROLE locked LOGIN PASSWORD 'right'", "vss")
	check(at("locked", "vss"), `refuses the password of user "locked"`)
	check(at("stranger", "vss"), `does not let user "stranger" in`)
	check(at("login", "vss"), `GRANT vss_api TO "login"`)
	execute("GRANT vss_api TO login", "vss")
	check(at("login", "vss"), "run 'vssctl migrate'") // no schema
	if _, err := db.Migrate(t.Context(), server.URL("vss")); err != nil {
		t.Fatal(err)
	}
	check(at("login", "vss"), "")

	execute("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)", "vss")
	check(at("login", "vss"), "") // as during a deploy
	execute("CREATE OR REPLACE FUNCTION oldest_program() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 99999::bigint'", "vss")
	check(at("login", "vss"), "too new for this program")
	execute("DELETE FROM goose_db_version WHERE version_id >= (SELECT max(version_id) FROM goose_db_version WHERE version_id < 99999)", "vss")
	check(at("login", "vss"), "is older than this program")
	down(t, server.URL("vss"), 7)
	check(at("login", "vss"), "is older than this program")

	for _, user := range []string{"locked", "stranger"} {
		if _, err := db.Migrate(t.Context(), at(user, "vss")); err == nil || strings.Contains(err.Error(), "TLS") || !strings.Contains(err.Error(), user) {
			t.Errorf("Migrate: %v", err)
		}
	}
	if _, err := db.Migrate(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "set DATABASE_URL") {
		t.Errorf("Migrate: %v", err)
	}
}

func TestADatabaseThatIsDownIsNoMistakeOfAPersons(t *testing.T) {
	t.Parallel()
	pool, err := db.Open(t.Context(), "postgres://nobody:secret@127.0.0.1:1/none", db.RoleAPI, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	err = db.Check(t.Context(), pool)
	if err == nil || errors.As(err, new(*db.SetupError)) || strings.Count(err.Error(), "connection refused") != 1 || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
}

// startServer starts a server of the test's own: its roles are the server's, and one of them needs a password.
func startServer(t *testing.T) *embedded.Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "vss-db-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // for the server's user
		t.Fatal(err)
	}
	server, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir, Throwaway: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = server.Stop(ctx)
	})
	if err := os.WriteFile(filepath.Join(dir, "pg", "pg_hba.conf"), []byte("local all locked scram-sha-256\nlocal all all trust\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, server.URL("postgres"), "").Exec(t.Context(), "SELECT pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	return server
}
