// Package postgres keeps wallet state in PostgreSQL, as package storage promises it.
//
// The write is the part to read first (write.go). Its statements, with the snapshot, locks and plan of
// each, are in db/queries/objects.sql.
package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/storage"
)

// Config of a [Store]. The zero value is usable.
type Config struct {
	// Timeout bounds every call whose context has no nearer deadline. Zero: 8.5 s, which leaves room to
	// answer within the 9 s of CONTRACT section 3.
	Timeout time.Duration

	// MaxPageSize is the most keys a page of a list holds. Zero: 100 (CONTRACT section 2).
	MaxPageSize int
}

// inline is the size in bytes up to which a value is read along with the question whether it exists. A
// larger one is announced to storage.Admit first.
const inline = 64 << 10

// grace is how long after a call's deadline its connection is given up when the server, which keeps the
// deadline itself, has not answered.
const grace = 250 * time.Millisecond

// Store is a storage.Store over one PostgreSQL database. Any number of them, in any number of processes,
// may share the database.
type Store struct {
	pool        *pgxpool.Pool // made by db.Open, which explains its settings
	queries     *dbgen.Queries
	clock       clock
	turns       turns
	timeout     time.Duration
	maxPageSize int
}

var _ storage.Store = (*Store)(nil)

// New makes a store over a pool made by db.Open in the role of the API. It asks nothing of the database.
func New(pool *pgxpool.Pool, cfg Config) *Store {
	if cfg.Timeout == 0 {
		cfg.Timeout = 8500 * time.Millisecond
	}
	if cfg.MaxPageSize == 0 {
		cfg.MaxPageSize = 100
	}
	return &Store{pool: pool, queries: dbgen.New(), timeout: cfg.Timeout, maxPageSize: cfg.MaxPageSize}
}

// Ping says whether the primary answers.
func (s *Store) Ping(ctx context.Context) error {
	row, err := s.queries.DatabaseClock(ctx, s.pool)
	if err == nil && row.Standby {
		err = errStandby
	}
	return translate(err)
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
