package db_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestInstancesThatStartTogetherMigrateOnce(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	var (
		wg      sync.WaitGroup
		applied [8]int
		errs    [8]error
		start   = make(chan struct{})
	)
	for i := range applied {
		wg.Go(func() {
			<-start
			applied[i], errs[i] = db.Migrate(t.Context(), url)
		})
	}
	close(start)
	wg.Wait()

	var all int
	for i, err := range errs {
		if err != nil {
			t.Errorf("instance %d: %v", i, err)
		}
		all += applied[i]
	}
	if want := len(migrationFiles(t)); all != want {
		t.Errorf("instances applied %v, in all %d, want %d", applied, all, want)
	}
	if got, want := schema(t, url), schema(t, dbtest.New(t)); got != want {
		t.Errorf("the schema is\n%s\nand differs from that of a lone migration:\n%s", got, want)
	}
}

func TestASecondStartChangesNothing(t *testing.T) {
	t.Parallel()
	url := dbtest.New(t)
	before := schema(t, url) + history(t, url)
	applied, err := db.Migrate(t.Context(), url)
	if applied != 0 || err != nil {
		t.Errorf("it applied %d (%v)", applied, err)
	}
	if after := schema(t, url) + history(t, url); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	t.Parallel()
	url := dbtest.New(t)
	before := schema(t, url)
	down(t, url, 0)
	if left := schema(t, url); left != schema(t, dbtest.Empty(t)) {
		t.Errorf("down leaves\n%s", left)
	}
	if applied, err := db.Migrate(t.Context(), url); err != nil || applied != len(migrationFiles(t)) {
		t.Fatalf("it applied %d (%v)", applied, err)
	}
	if after := schema(t, url); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// During a deploy the old program starts on the new one's schema.
func TestASchemaNewerThanTheProgramIsLeftAlone(t *testing.T) {
	t.Parallel()
	url := dbtest.New(t)
	conn := connect(t, url, "")
	if _, err := conn.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"); err != nil {
		t.Fatal(err)
	}
	before := schema(t, url) + history(t, url)
	if applied, err := db.Migrate(t.Context(), url); applied != 0 || err != nil {
		t.Errorf("it applied %d (%v)", applied, err)
	}
	if after := schema(t, url) + history(t, url); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestAMigrationWaitsForAnotherNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	conn := connect(t, url, "")
	if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock(4097083626)"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := db.Migrate(ctx, url)
	if err == nil || !strings.Contains(err.Error(), "another process is migrating this database") {
		t.Errorf("Migrate: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	// Once the holder is done it goes on at once, not at the next of goose's tries.
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		time.Sleep(200 * time.Millisecond)
		_, _ = conn.Exec(context.Background(), "SELECT pg_advisory_unlock(4097083626)")
	})
	if applied, err := db.Migrate(t.Context(), url); err != nil || applied == 0 {
		t.Errorf("it applied %d (%v)", applied, err)
	}
}

// A statement that waits for a table's lock has all who come after it wait too.
func TestADumpHoldsUpTheMigrationAndNobodyBehindIt(t *testing.T) {
	t.Parallel()
	url := dbtest.New(t)
	down(t, url, 4) // the next one alters tables that wallets use
	dump, err := connect(t, url, "").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dump.Exec(t.Context(), "LOCK TABLE stores IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	migrated := make(chan error, 1)
	go func() {
		_, err := db.Migrate(t.Context(), url)
		migrated <- err
	}()
	for text(t, url, "SELECT count(*)::text FROM pg_locks WHERE relation = 'stores'::regclass AND NOT granted") == "0" {
		time.Sleep(10 * time.Millisecond)
	}
	if got := text(t, url, "SELECT count(*)::text FROM stores"); got != "0" {
		t.Errorf("a read behind the migration got %s", got)
	}
	select {
	case err := <-migrated:
		t.Errorf("the migration ended before the dump: %v", err)
	default:
	}
	if err := dump.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Errorf("after the dump: %v", err)
	}
}

func TestAMigrationThatADumpHoldsUpEndsWithItsContext(t *testing.T) {
	t.Parallel()
	url := dbtest.New(t)
	down(t, url, 4)
	dump, err := connect(t, url, "").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dump.Rollback(context.Background()) }()
	if _, err := dump.Exec(t.Context(), "LOCK TABLE stores IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := db.Migrate(ctx, url); err == nil || !strings.Contains(err.Error(), "kept the table for too long") {
		t.Errorf("Migrate: %v", err)
	}
}

// down undoes the migrations after this one.
func down(t *testing.T, url string, to int64) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	conn := stdlib.OpenDB(*config)
	defer conn.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, conn, os.DirFS("migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.DownTo(t.Context(), to); err != nil {
		t.Fatal(err)
	}
}

func TestAFailedMigrationIsNamed(t *testing.T) {
	t.Parallel()
	url := dbtest.Empty(t)
	if _, err := connect(t, url, "").Exec(t.Context(), "CREATE TABLE tenants (id int)"); err != nil {
		t.Fatal(err)
	}
	applied, err := db.Migrate(t.Context(), url)
	if err == nil || !strings.Contains(err.Error(), "00002_control_plane.sql") || !strings.Contains(err.Error(), `"tenants" already exists`) {
		t.Errorf("Migrate: %v", err)
	}
	if applied != 1 {
		t.Errorf("it says that %d were applied before", applied)
	}
	if _, err := db.Migrate(t.Context(), "postgres://nobody:secret@127.0.0.1:1/none"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("without a server: %v", err)
	}
}

func migrationFiles(t *testing.T) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// schema describes everything in the public schema but goose's own table, grants and comments included.
func schema(t *testing.T, url string) string {
	t.Helper()
	const sql = `
WITH lines (line) AS (
    SELECT concat_ws(' ', 'relation', c.relkind, c.relname, c.reloptions, c.relacl, tc.reloptions)
      FROM pg_class c LEFT JOIN pg_class tc ON tc.oid = c.reltoastrelid
     WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'column', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                     a.attstorage, a.attidentity, a.attgenerated, a.attcollation::regcollation, a.attacl, pg_get_expr(d.adbin, d.adrelid))
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
      FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'index', indexdef) FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid)) FROM pg_trigger t WHERE NOT t.tgisinternal
    UNION ALL
    SELECT concat_ws(' ', 'function', pg_get_functiondef(oid), proacl) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
)
SELECT coalesce(string_agg(line, E'\n' ORDER BY line COLLATE "C"), '') FROM lines WHERE line !~ 'goose_db_version'`
	return text(t, url, sql)
}

// history is goose's own table.
func history(t *testing.T, url string) string {
	t.Helper()
	return text(t, url, "SELECT string_agg(concat_ws(' ', id, version_id, is_applied, tstamp), E'\n' ORDER BY id) FROM goose_db_version")
}

func text(t *testing.T, url, sql string) (s string) {
	t.Helper()
	if err := connect(t, url, "").QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// connect is a connection to url under a role, "" for the owner's.
func connect(t *testing.T, url, role string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if role != "" {
		config.RuntimeParams["role"] = role
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
