package dbtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestEveryTestHasADatabaseOfItsOwnThatGoesWithIt(t *testing.T) {
	var urls []string
	t.Run("tests", func(t *testing.T) {
		for range 4 {
			url := dbtest.New(t)
			urls = append(urls, url)
			t.Run("one", func(t *testing.T) {
				t.Parallel()
				conn := connect(t, url)
				// The same slug in each, and a connection that is still open when the database is dropped.
				if _, err := conn.Exec(t.Context(), "INSERT INTO tenants (slug, name) VALUES ('a', 'A')"); err != nil {
					t.Error(err)
				}
			})
		}
	})
	for _, url := range urls {
		if conn, err := pgx.Connect(t.Context(), url); err == nil {
			_ = conn.Close(t.Context())
			t.Errorf("%s outlives its test", url)
		}
	}
}

func TestAnEmptyDatabaseHasNoTables(t *testing.T) {
	t.Parallel()
	var tables int
	err := connect(t, dbtest.Empty(t)).QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables)
	if err != nil || tables != 0 {
		t.Errorf("it has %d (%v)", tables, err)
	}
}

// A test process without its database fails, whatever the reason.
func TestADatabaseThatCannotBeHadFailsTheTest(t *testing.T) {
	t.Parallel()
	for _, environment := range []string{
		"DATABASE_URL=postgres://nobody@127.0.0.1:1/none", "DATABASE_URL=nonsense", "VSS_TEST_POSTGRES=9",
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAnEmptyDatabaseHasNoTables$")
		cmd.Env = append(os.Environ(), environment)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "dbtest: no database:") {
			t.Errorf("%s: %v\n%s", environment, err, out)
		}
	}
}

// A server that is given is used, and left as it was found.
func TestAGivenServerIsLeftAsItWasFound(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t) // whose server plays the given one
	conn := connect(t, url)
	cmd := exec.Command(os.Args[0], "-test.run=^TestEveryTestHasADatabaseOfItsOwnThatGoesWithIt$", "-test.v")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+url)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "starting PostgreSQL") {
		t.Errorf("%v\n%s", err, out)
	}
	var left []string
	var mine string
	if err := conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&mine); err != nil {
		t.Fatal(err)
	}
	mine = mine[:strings.LastIndex(mine, "_")]
	err := conn.QueryRow(t.Context(),
		"SELECT array_agg(datname::text) FROM pg_database WHERE datname LIKE 'vss_test%' AND NOT starts_with(datname, $1)", mine).Scan(&left)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestAnEmbeddedServerLeavesNoDirectoryBehind(t *testing.T) {
	t.Parallel()
	if os.Getenv("DATABASE_URL") != "" {
		return // nothing embedded runs
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAnEmptyDatabaseHasNoTables$", "-test.v")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, path, found := strings.Cut(string(out), " cluster in ")
	path, _, _ = strings.Cut(path, "\n")
	if _, err := os.Stat(filepath.Dir(path)); !found || !os.IsNotExist(err) {
		t.Errorf("%q is left (%v)", path, err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		dbtest.New(b)
	}
}
