package usage

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/quota"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// database is one with a migrated schema, and somebody with SQL at hand.
type database struct {
	url        string
	owner      *pgx.Conn
	maintained time.Time // last
}

func newDatabase(t testing.TB) *database {
	t.Helper()
	url := dbtest.New(t)
	owner, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { owner.Close(context.Background()) })
	return &database{url: url, owner: owner}
}

func open(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := db.Open(t.Context(), url, db.RoleAPI, 5)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func (d *database) sql(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := d.owner.Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

func query[T any](t testing.TB, d *database, statement string, args ...any) T {
	t.Helper()
	var v T
	if err := d.owner.QueryRow(t.Context(), statement, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// newRecorder makes an instance, and its meter.
func newRecorder(pool *pgxpool.Pool, cfg RecorderConfig) (*Recorder, *Meter) {
	cfg.Meter = NewMeter(MeterConfig{})
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return NewRecorder(pool, cfg), cfg.Meter
}

// start runs it until the function that it returns is called, which waits for its end.
func start(r *Recorder) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return func() { cancel(); <-done }
}

// eventually waits for what takes well below a second on an idle machine.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatal("not within 30 s: ", what)
		}
	}
}

func TestWhatTheMeterCountedIsInTheTableAfterAFlush(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	r, meter := newRecorder(open(t, d.url), RecorderConfig{})
	at := time.Date(2031, 5, 31, 23, 59, 0, 0, time.UTC)
	tenant := uuid.New()
	for range 3 {
		meter.Record(at, Request{Tenant: tenant, Wallet: quota.Key{1}, Operation: PutObjects, Known: true, In: 5, Out: 7})
	}
	meter.Record(at, Request{Tenant: tenant, Wallet: quota.Key{2}, Operation: PutObjects, Outcome: Refused, Reason: quota.WalletRate, Enrolled: true})
	if err := r.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := query[map[string]int64](t, d, `SELECT json_object_agg(grain || ' ' || to_char(start, 'YYYY-MM-DD HH24') || ' ' || metric, value)
		FROM usage WHERE tenant_id = $1`, tenant)
	want := map[string]int64{
		"hour 2031-05-31 23 requests.putObjects.succeeded": 3,
		"hour 2031-05-31 23 requests.putObjects.refused":   1,
		"hour 2031-05-31 23 refused.wallet_rate":           1,
		"hour 2031-05-31 23 bytes_in":                      15,
		"hour 2031-05-31 23 bytes_out":                     21,
		"hour 2031-05-31 23 new_wallets":                   1,
		"day 2031-05-31 00 active_wallets":                 1,
		"month 2031-05-01 00 active_wallets":               1,
	}
	for metric, value := range want {
		if got[metric] != value {
			t.Errorf("%s: %d, want %d", metric, got[metric], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
}
