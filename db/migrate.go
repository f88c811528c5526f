package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the schema of the database at url up to this program's and returns how many migrations it
// applied: none, if there was nothing to do. url is the owner's, over a direct connection.
//
// Instances that start together take turns behind an advisory lock. ctx bounds the wait for it and the
// migrations themselves. Each migration is a transaction: after an error, those that applied stay.
// A schema newer than this program's is left as it is.
//
// It may be run while wallets are served. A statement that waits for a table has all who come after it wait
// too, be it only for a dump to end. So none waits for longer than lockTimeout: then its migration is undone,
// and tried again until ctx ends.
func Migrate(ctx context.Context, url string) (applied int, err error) {
	if url == "" {
		return 0, errNoURL
	}
	p, closeDB, err := provider(url)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	defer func() { _ = closeDB() }()
	for {
		results, err := p.Up(ctx)
		if err == nil {
			return applied + len(results), nil
		}
		if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
			return applied, fmt.Errorf("migrate: %w", explain(err, ""))
		}
		partial, ok := errors.AsType[*goose.PartialError](err)
		if !ok {
			return applied, fmt.Errorf("migrate: %w", err)
		}
		applied += len(partial.Applied)
		err = fmt.Errorf("migrate: %s: %w", partial.Failed.Source.Path, partial.Err)
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "55P03" { // lock_not_available
			return applied, err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return applied, fmt.Errorf("%w: another session, maybe a dump or an export, kept the table for too long", err)
		}
	}
}

// A client gives a call 10 s (CONTRACT section 3), and has some left after this wait.
const (
	lockTimeout = 2 * time.Second
	retryPause  = 2 * time.Second // in which those who waited behind it get on
)

func provider(url string) (_ *goose.Provider, closeDB func() error, _ error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, nil, err
	}
	pinSchema(config)
	config.RuntimeParams["lock_timeout"] = strconv.FormatInt(lockTimeout.Milliseconds(), 10)
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, nil, err
	}
	conn := stdlib.OpenDB(*config)
	p, err := goose.NewProvider(goose.DialectPostgres, conn, files, goose.WithSessionLocker(sessionLock(4097083626)))
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return p, conn.Close, nil
}

// sessionLock is the number of an advisory lock (the one that goose itself would use). Its own locker tries
// once in several seconds and gives up after a number of tries; this one goes by the context.
type sessionLock int64

// SessionLock tries again and again rather than wait inside one statement, whose snapshot would hold up
// the holder's CREATE INDEX CONCURRENTLY for ever.
func (l sessionLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	for refused := false; ; refused = true {
		var locked bool
		err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", int64(l)).Scan(&locked)
		if err == nil && locked {
			return nil
		}
		if err == nil {
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil && (err == nil || refused) {
			return fmt.Errorf("another process is migrating this database and did not finish in time: %w", ctx.Err())
		}
		return err
	}
}

// SessionUnlock cannot fail in a way that matters: the lock also ends with the session, which Migrate closes.
func (l sessionLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _ = conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", int64(l))
	return nil
}
