package postgres_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
	"github.com/vss-cloud/vss-cloud/storage/storagetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestConformance(t *testing.T) {
	storagetest.Test(t, storagetest.Backend{New: func(t testing.TB, n int) storagetest.Place { return newPlace(t, n) }})
}

// place is one database with some instances over it, each behind a proxy of its own.
type place struct {
	owner   *pgxpool.Pool
	stores  []storage.Store
	pools   []*pgxpool.Pool
	proxies []*dbtest.Proxy
}

func newPlace(t testing.TB, instances int) *place {
	t.Helper()
	url := dbtest.New(t)
	owner, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	p := &place{owner: owner}
	for range instances {
		proxy := dbtest.NewProxy(t, url)
		pool, err := db.Open(t.Context(), proxy.URL(), db.RoleAPI, 10)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			proxy.Down() // what a test left running ends now, and the pool need not wait for it
			pool.Close()
		})
		p.proxies, p.pools = append(p.proxies, proxy), append(p.pools, pool)
		p.stores = append(p.stores, postgres.New(pool, postgres.Config{AllowDataLoss: true}))
	}
	return p
}

func (p *place) Stores() []storage.Store { return p.stores }

func (p *place) Hold(t testing.TB, ks storage.Keyspace) (release func()) {
	t.Helper()
	tx, err := p.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var one int
	if err := tx.QueryRow(t.Context(), `SELECT 1 FROM stores WHERE store = $1 FOR UPDATE`, uuid.UUID(ks.Store())).Scan(&one); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = tx.Rollback(context.Background()) })
	t.Cleanup(release)
	return release
}

func (p *place) Waiting(t testing.TB) (n int) {
	t.Helper()
	p.query(t, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`, nil, &n)
	return n
}

// save puts without limits.
func save(ctx context.Context, s storage.Store, ks storage.Keyspace, b storage.Batch) error {
	_, err := s.Put(ctx, ks, b, storage.Limits{})
	return err
}

func (p *place) Block(t testing.TB, ks storage.Keyspace, block bool) {
	t.Helper()
	for _, statement := range []string{"UPDATE wallets SET blocked = $2 WHERE wallet = $1", "UPDATE stores SET blocked = $2 WHERE wallet = $1"} {
		if _, err := p.owner.Exec(t.Context(), statement, uuid.UUID(ks.Wallet()), block); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *place) Kill(_ testing.TB, instance int) { p.proxies[instance].Down() }

func (p *place) Recount(t testing.TB, ks storage.Keyspace) (c storagetest.Count) {
	t.Helper()
	store := uuid.UUID(ks.Store())
	p.query(t, `SELECT EXISTS (SELECT FROM stores WHERE store = $1) OR EXISTS (SELECT FROM wallets WHERE wallet = $2)`,
		[]any{store, uuid.UUID(ks.Wallet())}, &c.Known)
	err := p.owner.QueryRow(t.Context(), `SELECT revision, objects, bytes FROM stores WHERE store = $1`, store).
		Scan(&c.Revision, &c.Objects, &c.Bytes)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	p.query(t, `SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0) FROM objects WHERE store = $1`,
		[]any{store}, &c.CountedObjects, &c.CountedBytes)
	return c
}

// Work adds up the statistics of the tables of the data plane and their indexes. Each backend keeps its own
// until it is made to report them.
func (p *place) Work(t testing.TB) (n int64) {
	t.Helper()
	for _, pool := range p.pools {
		for _, conn := range pool.AcquireAllIdle(t.Context()) {
			if _, err := conn.Exec(t.Context(), `SELECT pg_stat_force_next_flush()`); err != nil {
				t.Fatal(err)
			}
			conn.Release()
		}
	}
	p.query(t, `SELECT (SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables WHERE relname IN ('objects', 'stores'))
		+ (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN ('objects', 'stores'))`, nil, &n)
	return n
}

func (p *place) query(t testing.TB, sql string, args []any, into ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.owner.QueryRow(ctx, sql, args...).Scan(into...); err != nil {
		t.Fatal(err)
	}
}
