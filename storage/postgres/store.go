// Package postgres keeps wallet state in PostgreSQL, as package storage promises it.
//
// The write is the part to read first (write.go). Its statements, with the snapshot, locks and plan of
// each, are in db/queries/objects.sql.
package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/storage"
)

// Config of a [Store]. The zero value is usable.
type Config struct {
	// Timeout bounds every call whose context has no nearer deadline. Zero: storage.Timeout.
	Timeout time.Duration

	// MaxPageSize is the most keys a page of a list holds. Zero: 100 (CONTRACT section 2).
	MaxPageSize int

	// Enter is asked for a place before a call to a store holds a connection, and its answer called after that. A
	// place is given back within the call's deadline. Nil: writes may hold three quarters of the pool, and reads the
	// rest at least.
	Enter func(ctx context.Context, ks storage.Keyspace, kind Kind) (leave func(), err error)

	// Probe is the pool that Check asks over, so that it is answered while calls hold all of theirs. Nil: the calls'.
	Probe *pgxpool.Pool

	// AllowDataLoss lets writes onto a server that may lose what it acknowledged: fsync, full_page_writes or
	// synchronous_commit is off. Without it they are refused (CONTRACT section 6). For tests.
	AllowDataLoss bool
}

// Kind is what a call does to the database.
type Kind uint8

const (
	Write Kind = iota
	Read
	List

	// LargeWrite is a write of 8 MiB and more. There is one at a time, and while others wait for that they must not
	// hold the places of small ones.
	LargeWrite
)

// inline is the size in bytes up to which a value is read along with the question whether it exists. A
// larger one is announced to storage.Admit first.
const inline = 64 << 10

// grace is how long after a call's deadline its connection is given up when the server, which keeps the
// deadline itself, has not answered.
const grace = 250 * time.Millisecond

// large is the size of a batch, in bytes, from which on it is written one at a time: the server needs several
// times as much for it.
const large = 8 << 20

// Store is a storage.Store over one PostgreSQL database. Any number of them, in any number of processes,
// may share the database.
type Store struct {
	pool        *pgxpool.Pool // made by db.Open, which explains its settings
	probe       *pgxpool.Pool
	queries     *dbgen.Queries
	clock       clock
	fence       *fence
	turns       turns
	places      func(ctx context.Context, ks storage.Keyspace, kind Kind) (leave func(), err error)
	timeout     time.Duration
	maxPageSize int
	lossy       bool
}

var _ storage.Store = (*Store)(nil)

// New makes a store over a pool made by db.Open in the role of the API. It asks nothing of the database.
func New(pool *pgxpool.Pool, cfg Config) *Store {
	if cfg.Timeout == 0 {
		cfg.Timeout = storage.Timeout
	}
	if cfg.MaxPageSize == 0 {
		cfg.MaxPageSize = 100
	}
	if cfg.Enter == nil {
		// Writes wait for locks, and for a standby that may be gone; reads must still find a connection.
		writes := make(chan struct{}, max(1, pool.Config().MaxConns*3/4-1)) // and a large one
		larges := make(chan struct{}, 1)
		cfg.Enter = func(ctx context.Context, _ storage.Keyspace, kind Kind) (func(), error) {
			switch kind {
			case Write:
				return place(ctx, writes)
			case LargeWrite:
				return place(ctx, larges)
			default:
				return func() {}, nil
			}
		}
	}
	if cfg.Probe == nil {
		cfg.Probe = pool
	}
	return &Store{
		pool: pool, probe: cfg.Probe, queries: dbgen.New(), timeout: cfg.Timeout, maxPageSize: cfg.MaxPageSize, lossy: cfg.AllowDataLoss,
		places: cfg.Enter, fence: newFence(pool),
	}
}

// Keep keeps the store's lease until ctx ends, and gives it back. A store that nobody keeps takes it when it is asked
// something: then the first call after a pause is the slower for it, and after a failover others wait for its lease to
// end. tell hears why when the lease ran out, so that nothing is served, and nil when there is one again.
func (s *Store) Keep(ctx context.Context, tell func(error)) { s.fence.keep(ctx, tell) }

// Fence is the state of the lease, for a metric: 1 while there is one, 0 without, -1 where the servers that can be
// reached are older than one that was seen. For a store that is kept.
func (s *Store) Fence() int64 {
	switch {
	case s.fence.wentBack.Load():
		return -1
	case db.Fenced() && s.fence.expired():
		return 0
	}
	return 1
}

// Standbys is what the primary's synchronous_standby_names was when the store last took its lease. Empty: it said that
// there is one copy, or has said nothing yet.
func (s *Store) Standbys() string { return s.fence.standbys() }

// Check says whether the primary answers, and whether it may be written to.
func (s *Store) Check(ctx context.Context) error {
	conn, err := s.probe.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Release()
	began := time.Now()
	now, err := s.ask(ctx, conn)
	if err == nil {
		s.clock.refine(now, began)
		err = s.fence.begin(ctx)
	}
	return err
}

// acquaint asks the server behind a connection once, since a new connection may be to another server, and fails for one
// that is not known to be the primary of now.
func (s *Store) acquaint(ctx context.Context, conn *pgxpool.Conn) error {
	if err := s.primary(ctx, conn.Conn(), false, db.ServerOf(conn.Conn()).Life, nil); err != nil {
		return err
	}
	const known = "vss.acquainted"
	seen := conn.Conn().PgConn().CustomData()
	if seen[known] != nil {
		return nil
	}
	now, err := s.ask(ctx, conn)
	if err != nil {
		return err
	}
	s.clock.set(now)
	seen[known] = true
	return nil
}

// ask reads the server's clock and its settings. It fails for a server that must not be written to.
func (s *Store) ask(ctx context.Context, conn *pgxpool.Conn) (now time.Time, err error) {
	row, err := s.queries.Acquaint(ctx, conn)
	if err := primary(ctx, conn.Conn(), row.Standby, err); err != nil {
		return now, err
	}
	if !row.InTime {
		return now, fmt.Errorf("%w: no write is taken, since the trigger commit_in_time of the table stores is missing or disabled", storage.ErrUnavailable)
	}
	unsafe := !row.Fsync || !row.FullPageWrites || row.SynchronousCommit == "off" ||
		row.SynchronousCommit == "local" && row.Standbys != ""
	if unsafe && !s.lossy {
		return now, fmt.Errorf("%w: no write is taken, since the database may lose it: fsync is %t, full_page_writes is %t, synchronous_commit is %s",
			storage.ErrUnavailable, row.Fsync, row.FullPageWrites, row.SynchronousCommit)
	}
	return row.Now, nil
}

// enter takes the call's place.
func (s *Store) enter(ctx context.Context, ks storage.Keyspace, kind Kind) (leave func(), err error) {
	leave, err = s.places(ctx, ks, kind)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", translate(ctx.Err()), err)
	}
	return leave, err
}

// place takes a place in one of the store's bounds, or fails when ctx ends first.
func place(ctx context.Context, places chan struct{}) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, translate(ctx.Err())
	}
}

// bounded gives ctx a deadline if it has none nearer than the store's timeout.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}

// uncancelled is for statements that were sent: it keeps the deadline of ctx (and a grace for the server to
// keep it first) but does not end when the caller leaves. pgx gives a connection up when a context ends;
// callers who come and go must not cost one each, and a write's answer is wanted whoever still listens.
func uncancelled(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		panic("postgres: context without a deadline") // every method begins with bounded
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(grace))
}
