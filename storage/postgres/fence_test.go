package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/embedded"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
)

// pair is a primary with a synchronous standby.
type pair struct {
	primary, standby string // data directories
	servers          map[string]*embedded.Server
}

func newPair(t *testing.T) *pair {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) { // started by root, PostgreSQL runs as somebody else
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := &pair{primary: filepath.Join(dir, "a"), standby: filepath.Join(dir, "b"), servers: make(map[string]*embedded.Server)}
	p.start(t, p.primary, nil)
	if _, err := db.Migrate(t.Context(), embedded.URL(p.primary, "postgres")); err != nil {
		t.Fatal(err)
	}
	p.stop(t, p.primary)
	if err := os.Mkdir(p.standby, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"cp", "-a", filepath.Join(p.primary, "pg"), filepath.Join(p.standby, "pg")},
		{"cp", "-a", filepath.Join(p.primary, "pg", "PG_VERSION"), filepath.Join(p.standby, "pg", "standby.signal")},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	p.start(t, p.primary, map[string]string{"synchronous_standby_names": "*"})
	p.follow(t)
	return p
}

// follow starts the standby.
func (p *pair) follow(t *testing.T) {
	t.Helper()
	p.start(t, p.standby, map[string]string{"primary_conninfo": "user=postgres host=" + filepath.Dir(embedded.Socket(p.primary))})
}

func (p *pair) start(t *testing.T, dir string, settings map[string]string) {
	t.Helper()
	all := map[string]string{"synchronous_commit": "on", "wal_retrieve_retry_interval": "100ms"}
	for k, v := range settings {
		all[k] = v
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	version := embedded.Newest
	if os.Getenv("VSS_TEST_POSTGRES") == "15" {
		version = embedded.V15
	}
	s, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir, Version: version, Throwaway: true, Settings: all})
	if err != nil {
		t.Fatal(err)
	}
	p.servers[dir] = s
	t.Cleanup(func() { p.stop(t, dir) })
}

func (p *pair) stop(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if s := p.servers[dir]; s != nil {
		delete(p.servers, dir)
		if err := s.Stop(ctx); err != nil {
			t.Log(err)
		}
	}
}

func (p *pair) promote(t *testing.T) {
	t.Helper()
	var done bool
	p.ask(t, p.standby, "SELECT pg_promote()", &done)
	if !done {
		t.Fatal("not promoted")
	}
}

func (p *pair) ask(t *testing.T, dir, sql string, into any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), embedded.URL(dir, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := conn.QueryRow(t.Context(), sql).Scan(into); err != nil {
		t.Fatal(err)
	}
}

// store is an instance whose URL names these servers, in this order.
func (p *pair) store(t *testing.T, dirs ...string) *postgres.Store {
	t.Helper()
	hosts, ports := "", ""
	for i, dir := range dirs {
		if i > 0 {
			hosts, ports = hosts+",", ports+","
		}
		hosts, ports = hosts+filepath.Dir(embedded.Socket(dir)), ports+"5432"
	}
	pool, err := db.Open(t.Context(), fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres connect_timeout=1", hosts, ports), db.RoleAPI, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return postgres.New(pool, postgres.Config{AllowDataLoss: true})
}

// until calls again while the answer is "unavailable".
func until[T any](t *testing.T, call func() (T, error)) T {
	t.Helper()
	for {
		v, err := call()
		if err == nil {
			return v
		}
		if t.Context().Err() != nil || !errors.Is(err, storage.ErrUnavailable) && !errors.Is(err, storage.ErrTooLate) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestADeposedPrimaryIsReadByNobodyOnceAnotherIsWritten(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ks := key(t)
	reader := p.store(t, p.primary, p.standby)
	if err := save(t.Context(), reader, ks, put("k", -1, "old")); err != nil {
		t.Fatal(err)
	}
	get := func() (storage.Object, error) { return reader.Get(t.Context(), ks, "k", nil) }
	until(t, get)
	p.promote(t) // and the old primary goes on, and says that it is one

	writer := p.store(t, p.standby)
	until(t, func() (bool, error) { return true, save(t.Context(), writer, ks, put("k", -1, "new")) })
	if got, err := get(); err == nil && string(got.Value) != "new" {
		t.Errorf("%q is read after a later value was saved", got.Value)
	}
	if got := until(t, get); string(got.Value) != "new" {
		t.Errorf("%q is read after a later value was saved", got.Value)
	}
	page := until(t, func() (storage.Page, error) { return reader.List(t.Context(), ks, storage.ListRequest{}) })
	if len(page.Keys) != 1 {
		t.Errorf("listed %v", page.Keys)
	}
}

func TestADeposedPrimaryDoesNotSayNotFound(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ks := key(t)
	reader := p.store(t, p.primary, p.standby)
	get := func() (storage.Object, error) { return reader.Get(t.Context(), ks, "k", nil) }
	if _, err := get(); !errors.Is(err, storage.ErrNoSuchKey) {
		t.Fatal(err)
	}
	p.promote(t)
	writer := p.store(t, p.standby)
	until(t, func() (bool, error) { return true, save(t.Context(), writer, ks, put("k", -1, "new")) })
	if _, err := get(); errors.Is(err, storage.ErrNoSuchKey) {
		t.Error("not found, after it was saved")
	}
	until(t, get)
}

func TestReadsWaitForALostStandbyAndLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ks := key(t)
	s := p.store(t, p.primary)
	if err := save(t.Context(), s, ks, put("k", -1, "v")); err != nil {
		t.Fatal(err)
	}
	p.stop(t, p.standby)
	get := func() (storage.Object, error) { return s.Get(t.Context(), ks, "k", nil) }
	refused := 0
	for began := time.Now(); refused < 20; {
		switch _, err := get(); {
		case err == nil && time.Since(began) > 20*time.Second: // ten times as long as a lease lasts
			t.Fatal("reads are served without a standby")
		case errors.Is(err, storage.ErrUnavailable), errors.Is(err, storage.ErrTooLate):
			refused++
		case err != nil:
			t.Fatal(err)
		}
	}
	var waiting int
	p.ask(t, p.primary, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", &waiting)
	if waiting != 1 {
		t.Errorf("%d backends wait for the standby", waiting)
	}
	p.follow(t)
	if got := until(t, get); string(got.Value) != "v" {
		t.Errorf("%q is read", got.Value)
	}
}

func TestAStoreThatIsKeptSaysWhenItsServerWentBack(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	s := p.store(t, p.standby, p.primary)
	told := make(chan error, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	p.promote(t)
	go func() { s.Keep(ctx, func(err error) { told <- err }); close(ended) }()
	defer func() { stop(); <-ended }()
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.stop(t, p.standby) // and the one that it was promoted from is there
	if err := <-told; !errors.Is(err, db.ErrWentBack) || s.Fence() != -1 {
		t.Errorf("told %v, the metric says %d", err, s.Fence())
	}
	if _, err := s.Get(t.Context(), key(t), "k", nil); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("read from the older server: %v", err)
	}
}

func TestACommitIsRefusedWhileAnotherServerIsReadFrom(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ks := key(t)
	if err := save(t.Context(), p.stores[0], ks, put("k", -1, "v")); err != nil {
		t.Fatal(err)
	}
	_, err := p.owner.Exec(t.Context(), `INSERT INTO leases (instance, life) VALUES (gen_random_uuid(), now() - interval '1 day')`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.owner.Exec(t.Context(), `UPDATE stores SET revision = revision + 1`)
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "55000" {
		t.Fatalf("error %v", err)
	}
	// Once the other's lease must have ended, its row goes.
	until(t, func() (bool, error) { return true, save(t.Context(), p.stores[0], ks, put("k", -1, "w")) })
	var left int
	p.query(t, `SELECT count(*) FROM leases WHERE life <> pg_postmaster_start_time()`, nil, &left)
	if left != 0 {
		t.Errorf("%d leases on another server are left, and it was written", left)
	}
}

func TestAStoreThatIsKeptGivesItsLeaseBack(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	s := p.stores[0].(*postgres.Store)
	go func() { s.Keep(ctx, func(err error) { t.Error(err) }); close(ended) }()
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Fence() != 1 {
		t.Error("the metric says that there is no lease")
	}
	leases := func() (n int) { p.query(t, `SELECT count(*) FROM leases`, nil, &n); return n }
	if n := leases(); n != 1 {
		t.Errorf("%d leases while it is kept", n)
	}
	stop()
	<-ended
	if n := leases(); n != 0 {
		t.Errorf("%d leases afterwards", n)
	}
	if _, err := s.Get(t.Context(), key(t), "k", nil); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("a read without a lease: %v", err)
	}
}
