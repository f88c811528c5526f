package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/db"
)

const terminate = syscall.SIGTERM

// Kind is a fault.
type Kind struct {
	Name string

	// Lasts is how long it takes if that is longer than the deadline of a call.
	Lasts time.Duration

	// Delays says that requests reach the server up to FrontDelay late.
	Delays bool

	// Stalls says that processes of the database stand still past a deadline, wherever they are.
	Stalls bool

	// Crash says that something of the platform dies of it without a goodbye.
	Crash bool

	// Do does it and returns when it is undone: the platform may still be recovering, but nothing is in its
	// way. An error says that it was not done, or not all of it, as where another one was in its way.
	Do func(ctx context.Context, f *Field, rng *rand.Rand) error
}

// long is more than any call may take, and longer than the most patient client waits (10 s). While the API is
// stopped, clients have time to give up and to write something newer through the other instance.
const (
	long    = 11 * time.Second
	stopped = 14 * time.Second
)

// Kinds are the faults of a schedule.
var Kinds = []Kind{
	{Name: "API killed", Crash: true, Do: killAPI},
	{Name: "API restarted", Do: restartAPI},
	{Name: "API stopped for 14 s", Lasts: stopped, Do: stopAPI(stopped)},
	{Name: "API stopped for a moment", Do: stopAPI(2 * time.Second)},
	{Name: "postmaster killed", Crash: true, Do: killDatabase},
	{Name: "PostgreSQL restarted", Do: restartDatabase},
	{Name: "postmaster stopped for 11 s", Lasts: long, Do: stopPostmaster},
	{Name: "backends terminated", Crash: true, Do: terminateBackends},
	{Name: "backend killed", Crash: true, Do: killBackend},
	{Name: "backends stopped for 11 s", Lasts: long, Stalls: true, Do: stopBackends},
	{Name: "requests and answers cut", Do: cutHTTP},
	{Name: "client's connections silent for 4 s", Delays: true, Do: freezeFront},
	{Name: "database connections cut", Do: cutBack},
	{Name: "database connections silent for 11 s", Lasts: long, Do: freezeBack(long)},
	{Name: "database connections silent for a moment", Do: freezeBack(2 * time.Second)},
	{Name: "database slow", Do: slowBack},
	{Name: "commits cut", Do: cutCommits},
	{Name: "answers to commits never come", Do: silentCommits},
	{Name: "locks held for a moment", Do: holdLocks(2 * time.Second)},
	{Name: "locks held for 11 s", Lasts: long, Do: holdLocks(long)},
	{Name: "table locked", Do: lockTable},
	{Name: "database clock jumps", Do: jumpClock},
	{Name: "migrations", Do: migrate},
}

func (f *Field) anyInstance(rng *rand.Rand) *Instance { return f.Instances[rng.IntN(len(f.Instances))] }

// between draws a time.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// wait waits, whatever ctx says: what was begun is undone in its time. It returns early only at ctx's end.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func killAPI(ctx context.Context, f *Field, rng *rand.Rand) error {
	i := f.anyInstance(rng)
	i.process.Lock()
	defer i.process.Unlock()
	_ = i.End(ctx, syscall.SIGKILL)
	i.Front.Down()
	wait(ctx, between(rng, 0, time.Second))
	return i.Start(context.WithoutCancel(ctx))
}

func restartAPI(ctx context.Context, f *Field, rng *rand.Rand) error {
	i := f.anyInstance(rng)
	i.process.Lock()
	defer i.process.Unlock()
	if err := i.End(context.WithoutCancel(ctx), terminate); err != nil {
		return fmt.Errorf("%s after SIGTERM: %w\n%s", i.Name, err, i.Tail())
	}
	i.Front.Down()
	return i.Start(context.WithoutCancel(ctx))
}

func stopAPI(d time.Duration) func(context.Context, *Field, *rand.Rand) error {
	return func(ctx context.Context, f *Field, rng *rand.Rand) error {
		i := f.anyInstance(rng)
		i.process.Lock()
		defer i.process.Unlock()
		if err := i.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		wait(ctx, d)
		return i.Signal(syscall.SIGCONT)
	}
}

func killDatabase(ctx context.Context, f *Field, rng *rand.Rand) error {
	f.database.Lock()
	defer f.database.Unlock()
	if err := f.Database.Kill(); err != nil {
		return err
	}
	wait(ctx, between(rng, 0, 500*time.Millisecond))
	return f.Database.Start(context.WithoutCancel(ctx))
}

func restartDatabase(ctx context.Context, f *Field, _ *rand.Rand) error {
	f.database.Lock()
	defer f.database.Unlock()
	if err := f.Database.Stop(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return f.Database.Start(context.WithoutCancel(ctx))
}

func stopPostmaster(ctx context.Context, f *Field, _ *rand.Rand) error {
	f.database.Lock()
	defer f.database.Unlock()
	pid := f.Database.Pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	wait(ctx, long)
	return syscall.Kill(pid, syscall.SIGCONT)
}

func terminateBackends(ctx context.Context, f *Field, rng *rand.Rand) error {
	var errs []error
	for range 5 {
		err := f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity
				WHERE application_name = 'vss_api' ORDER BY random() LIMIT $1) chosen`, 1+rng.IntN(6))
			return err
		})
		if err != nil { // another fault has taken the database away
			errs = append(errs, err)
		}
		wait(ctx, between(rng, 50*time.Millisecond, 400*time.Millisecond))
	}
	if len(errs) < 5 {
		return nil
	}
	return errors.Join(errs...)
}

func killBackend(ctx context.Context, f *Field, _ *rand.Rand) error {
	f.database.Lock()
	defer f.database.Unlock()
	pids, err := f.backends(ctx)
	if err != nil || len(pids) == 0 {
		return err
	}
	// PostgreSQL ends all the others and recovers.
	return ignoreGone(syscall.Kill(pids[0], syscall.SIGKILL))
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

func stopBackends(ctx context.Context, f *Field, rng *rand.Rand) error {
	f.database.Lock()
	defer f.database.Unlock()
	pids, err := f.backends(ctx)
	if err != nil {
		return err
	}
	pids = pids[:min(len(pids), 1+rng.IntN(4))]
	for _, pid := range pids {
		err = errors.Join(err, ignoreGone(syscall.Kill(pid, syscall.SIGSTOP)))
	}
	wait(ctx, long)
	for _, pid := range pids {
		err = errors.Join(err, ignoreGone(syscall.Kill(pid, syscall.SIGCONT)))
	}
	return err
}

func cutHTTP(ctx context.Context, f *Field, rng *rand.Rand) error {
	for range 10 {
		i := f.anyInstance(rng)
		switch rng.IntN(3) {
		case 0:
			i.Front.CutRequests(1 + rng.IntN(3))
		case 1:
			i.Front.CutAnswers(1 + rng.IntN(3))
		case 2:
			i.Front.Cut()
		}
		wait(ctx, between(rng, 50*time.Millisecond, 300*time.Millisecond))
	}
	return nil
}

// freezeFront is shorter than a client's patience: what it delays reaches the server while its client waits.
func freezeFront(ctx context.Context, f *Field, rng *rand.Rand) error {
	i := f.anyInstance(rng)
	i.Front.Freeze()
	defer i.Front.Thaw()
	wait(ctx, FrontDelay)
	return nil
}

// FrontDelay is how long a request can be on its way to the server.
const FrontDelay = 4 * time.Second

func cutBack(ctx context.Context, f *Field, rng *rand.Rand) error {
	for range 6 {
		f.anyInstance(rng).Back.Cut()
		wait(ctx, between(rng, 50*time.Millisecond, 400*time.Millisecond))
	}
	i := f.anyInstance(rng)
	i.Back.Down()
	wait(ctx, time.Second)
	return i.Back.Up()
}

func freezeBack(d time.Duration) func(context.Context, *Field, *rand.Rand) error {
	return func(ctx context.Context, f *Field, rng *rand.Rand) error {
		i := f.anyInstance(rng)
		i.Back.Freeze()
		defer i.Back.Thaw()
		wait(ctx, d)
		return nil
	}
}

// inspect has the batches of an instance decided for a while.
func (i *Instance) inspect(ctx context.Context, d time.Duration, decide func([]string) Action) {
	i.Back.Inspect(decide)
	wait(ctx, d)
	i.Back.Inspect(nil)
}

func slowBack(ctx context.Context, f *Field, rng *rand.Rand) error {
	most := between(rng, 20*time.Millisecond, 300*time.Millisecond)
	f.anyInstance(rng).inspect(ctx, 3*time.Second, func([]string) Action {
		time.Sleep(rand.N(most))
		return Pass
	})
	return nil
}

// commits reports whether a batch has the end of a write in it.
func commits(statements []string) bool {
	for _, s := range statements {
		if strings.Contains(s, "ApplyWrites") || s == "commit" {
			return true
		}
	}
	return false
}

func cutCommits(ctx context.Context, f *Field, rng *rand.Rand) error {
	f.anyInstance(rng).inspect(ctx, 3*time.Second, func(statements []string) Action {
		if commits(statements) {
			switch rand.IntN(12) {
			case 0:
				return CutBefore
			case 1:
				return CutAfter
			}
		}
		return Pass
	})
	return nil
}

func silentCommits(ctx context.Context, f *Field, rng *rand.Rand) error {
	f.anyInstance(rng).inspect(ctx, 3*time.Second, func(statements []string) Action {
		if commits(statements) && rand.IntN(30) == 0 {
			return Silence
		}
		return Pass
	})
	return nil
}

// holdLocks takes the rows of some stores that were written last, and sleeps.
func holdLocks(d time.Duration) func(context.Context, *Field, *rand.Rand) error {
	return func(ctx context.Context, f *Field, rng *rand.Rand) error {
		return f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			rows, _ := conn.Query(ctx, `SELECT store FROM stores ORDER BY last_written_at DESC LIMIT $1`, 2+rng.IntN(6))
			stores, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
			if err != nil {
				return err
			}
			_, err = conn.Exec(ctx, `BEGIN`)
			if err != nil {
				return err
			}
			if _, err := conn.Exec(ctx, `SELECT FROM stores WHERE store = ANY ($1) ORDER BY store FOR UPDATE`, stores); err != nil {
				return err
			}
			wait(ctx, d)
			_, err = conn.Exec(context.WithoutCancel(ctx), `ROLLBACK`)
			return err
		})
	}
}

func lockTable(ctx context.Context, f *Field, rng *rand.Rand) error {
	return f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `BEGIN; LOCK TABLE objects IN ACCESS EXCLUSIVE MODE`)
		wait(ctx, between(rng, 500*time.Millisecond, 3*time.Second))
		return err
	})
}

// jumpClock makes the database's clock jump to and fro: a function in front of PostgreSQL's own adds to it. The
// instances look for functions in the schema skew first, which exists only while this runs.
func jumpClock(ctx context.Context, f *Field, rng *rand.Rand) (err error) {
	do := func(sql string, args ...any) error {
		return f.query(context.WithoutCancel(ctx), func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, sql, args...)
			return err
		})
	}
	const renew = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vss_api'`
	if err := do(`
		CREATE SCHEMA skew;
		CREATE TABLE skew.clock (by interval NOT NULL);
		INSERT INTO skew.clock VALUES ('0');
		CREATE FUNCTION skew.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql
			AS 'SELECT pg_catalog.clock_timestamp() + by FROM skew.clock';
		GRANT USAGE ON SCHEMA skew TO PUBLIC;
		GRANT SELECT ON skew.clock TO PUBLIC;
		` + renew); err != nil {
		return err
	}
	defer func() {
		for n := 0; ; n++ { // it must not stay
			undone := do(`DROP SCHEMA IF EXISTS skew CASCADE; ` + renew)
			if undone == nil || n == 20 {
				err = errors.Join(err, undone)
				return
			}
			time.Sleep(500 * time.Millisecond)
		}
	}()
	for _, by := range []time.Duration{time.Hour, -time.Hour, 0, 5 * time.Second, -5 * time.Second, 0} {
		wait(ctx, between(rng, 100*time.Millisecond, 500*time.Millisecond))
		if err := do(`UPDATE skew.clock SET by = make_interval(secs => $1)`, by.Seconds()); err != nil {
			return err
		}
	}
	wait(ctx, 200*time.Millisecond)
	return nil
}

// migrate migrates again and again, as instances do that start together, and changes the tables that are
// being served as a migration may.
func migrate(ctx context.Context, f *Field, _ *rand.Rand) error {
	for n := range 3 {
		if _, err := db.Migrate(ctx, f.Database.URL(f.Name)); err != nil {
			return err
		}
		err := f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			for _, sql := range []string{
				`SET lock_timeout = '2s'`,
				fmt.Sprintf(`ALTER TABLE objects ADD COLUMN IF NOT EXISTS torture_%d int NOT NULL DEFAULT 7`, n),
				fmt.Sprintf(`ALTER TABLE stores ADD COLUMN IF NOT EXISTS torture_%d text`, n),
				fmt.Sprintf(`CREATE INDEX CONCURRENTLY IF NOT EXISTS torture_%d ON objects (store, torture_%[1]d)`, n),
				fmt.Sprintf(`DROP INDEX CONCURRENTLY IF EXISTS torture_%d`, n),
				fmt.Sprintf(`ALTER TABLE objects DROP COLUMN IF EXISTS torture_%d`, n),
				fmt.Sprintf(`ALTER TABLE stores DROP COLUMN IF EXISTS torture_%d`, n),
			} {
				_, err := conn.Exec(ctx, sql)
				if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "55P03" {
					continue // it gives up, rather than make everybody wait behind it
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
