package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
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
	// way. An error says that it was not done, or not all of it, as where another one was in its way or where it
	// hit nothing; it can be tried again. A [Finding] says more.
	Do func(ctx context.Context, f *Field, rng *rand.Rand) error
}

// Finding is an error by which the platform itself has failed, whatever was done to it.
type Finding struct{ error }

// errNothing: what the fault is about was not there just then.
var errNothing = errors.New("there was nothing to do it to")

// long is more than any call may take, and longer than the most patient client waits (10 s). While the API is
// stopped, clients have time to give up and to write something newer through the other instance.
const (
	long    = 11 * time.Second
	stopped = 14 * time.Second
)

// Kinds are the faults of a schedule.
var Kinds = []Kind{
	{Name: "API killed", Crash: true, Do: killAPI},
	{Name: "API crashed", Crash: true, Do: crashAPI},
	{Name: "API restarted", Do: restartAPI},
	{Name: "API stopped for 14 s", Lasts: stopped, Do: stopAPI(stopped)},
	{Name: "API stopped for a moment", Do: stopAPI(2 * time.Second)},
	{Name: "postmaster killed", Crash: true, Do: killDatabase},
	{Name: "PostgreSQL restarted", Do: restartDatabase},
	{Name: "postmaster stopped for 11 s", Lasts: long, Do: stopPostmaster},
	{Name: "backends terminated", Do: terminateBackends},
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
	{Name: "connection pool exhausted", Do: exhaustPool},
	{Name: "PostgreSQL takes no connection", Do: refuseConnections},
	{Name: "database clock jumps", Do: jumpClock},
	{Name: "migrations", Do: migrate},
}

// Restarts are what operators do every week. A wallet is to see nothing of either.
var Restarts = []Kind{
	{Name: "each API restarted in turn", Do: restartAPIs},
	{Name: "PostgreSQL restarted, alone", Do: restartDatabase},
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
	return f.anyInstance(rng).end(ctx, syscall.SIGKILL, between(rng, 0, time.Second))
}

// crashAPI makes the process write down where all its goroutines are and end, as at a fatal error of the runtime.
func crashAPI(ctx context.Context, f *Field, rng *rand.Rand) error {
	return f.anyInstance(rng).end(ctx, syscall.SIGQUIT, between(rng, 0, time.Second))
}

// end ends the process without a goodbye and starts it again after a while.
func (i *Instance) end(ctx context.Context, how syscall.Signal, away time.Duration) error {
	i.process.Lock()
	defer i.process.Unlock()
	_ = i.End(ctx, how)
	i.Front.Down()
	wait(ctx, away)
	return i.Start(context.WithoutCancel(ctx))
}

func restartAPI(ctx context.Context, f *Field, rng *rand.Rand) error {
	return f.anyInstance(rng).restart(ctx)
}

// restartAPIs is a deploy: one after the other, the next when the last is ready.
func restartAPIs(ctx context.Context, f *Field, _ *rand.Rand) error {
	for _, i := range f.Instances {
		if err := errors.Join(i.restart(ctx), i.WaitReady(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func (i *Instance) restart(ctx context.Context) error {
	i.process.Lock()
	defer i.process.Unlock()
	err := i.End(context.WithoutCancel(ctx), terminate)
	if err != nil {
		err = Finding{fmt.Errorf("%s after SIGTERM: %w\n%s", i.Name, err, i.Tail())}
	}
	i.Front.Down()
	return errors.Join(err, i.Start(context.WithoutCancel(ctx)))
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
	var ended int64
	var errs []error
	for range 5 {
		err := f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			tag, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity
				WHERE application_name = 'vss_api' ORDER BY random() LIMIT $1) chosen`, 1+rng.IntN(6))
			ended += tag.RowsAffected()
			return err
		})
		if err != nil { // another fault has taken the database away
			errs = append(errs, err)
		}
		wait(ctx, between(rng, 50*time.Millisecond, 400*time.Millisecond))
	}
	if ended == 0 {
		return errors.Join(append(errs, errNothing)...)
	}
	return nil
}

func killBackend(ctx context.Context, f *Field, _ *rand.Rand) error {
	f.database.Lock()
	defer f.database.Unlock()
	pids, err := f.backends(ctx)
	if err != nil {
		return err
	}
	// PostgreSQL ends all the others and recovers.
	return syscall.Kill(pids[0], syscall.SIGKILL)
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

// inspect has the batches of an instance decided for a while. decide says also whether that batch was hit; one at
// least must be.
func (i *Instance) inspect(ctx context.Context, d time.Duration, decide func([]string) (Action, bool)) error {
	var hits atomic.Int64
	i.Back.Inspect(func(statements []string) Action {
		action, hit := decide(statements)
		if hit {
			hits.Add(1)
		}
		return action
	})
	wait(ctx, d)
	i.Back.Inspect(nil)
	if hits.Load() == 0 {
		return errNothing
	}
	return nil
}

func slowBack(ctx context.Context, f *Field, rng *rand.Rand) error {
	most := between(rng, 20*time.Millisecond, 300*time.Millisecond)
	return f.anyInstance(rng).inspect(ctx, 3*time.Second, func([]string) (Action, bool) {
		time.Sleep(rand.N(most))
		return Pass, true
	})
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
	return f.anyInstance(rng).inspect(ctx, 3*time.Second, func(statements []string) (Action, bool) {
		if commits(statements) {
			switch rand.IntN(12) {
			case 0:
				return CutBefore, true
			case 1:
				return CutAfter, true
			}
		}
		return Pass, false
	})
}

func silentCommits(ctx context.Context, f *Field, rng *rand.Rand) error {
	return f.anyInstance(rng).inspect(ctx, 3*time.Second, func(statements []string) (Action, bool) {
		if commits(statements) && rand.IntN(30) == 0 {
			return Silence, true
		}
		return Pass, false
	})
}

// holdLocks takes the rows of some stores that were written last, and sleeps there: who takes the database away
// ends the sleep.
func holdLocks(d time.Duration) func(context.Context, *Field, *rand.Rand) error {
	return func(ctx context.Context, f *Field, rng *rand.Rand) error {
		return f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			tag, err := conn.Exec(ctx, `BEGIN`)
			if err == nil {
				tag, err = conn.Exec(ctx, `SELECT FROM stores WHERE store IN (SELECT store FROM stores
					ORDER BY last_written_at DESC LIMIT $1) ORDER BY store FOR UPDATE`, 2+rng.IntN(6))
			}
			if err == nil && tag.RowsAffected() == 0 {
				err = errNothing
			}
			if err == nil {
				_, err = conn.Exec(ctx, `SELECT pg_sleep($1)`, d.Seconds())
			}
			return err
		})
	}
}

func lockTable(ctx context.Context, f *Field, rng *rand.Rand) error {
	return f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `BEGIN; LOCK TABLE objects IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(`+
			strconv.FormatFloat(between(rng, 500*time.Millisecond, 3*time.Second).Seconds(), 'f', 3, 64)+`)`)
		return err
	})
}

// exhaustPool holds up every call there is until an instance has no connection left for more of them, and a while
// longer.
func exhaustPool(ctx context.Context, f *Field, _ *rand.Rand) error {
	starved := func(ctx context.Context, i *Instance) bool {
		taken, ok := i.metric(ctx, "pgxpool_acquired_connections")
		most, known := i.metric(ctx, "pgxpool_max_connections")
		return ok && known && taken >= most
	}
	return f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `BEGIN; LOCK TABLE stores, objects IN ACCESS EXCLUSIVE MODE`); err != nil {
			return err
		}
		for n := 0; !slices.ContainsFunc(f.Instances, func(i *Instance) bool { return starved(ctx, i) }); n++ {
			if n == 40 {
				return errNothing
			}
			if _, err := conn.Exec(ctx, `SELECT pg_sleep(0.1)`); err != nil {
				return err
			}
		}
		_, err := conn.Exec(ctx, `SELECT pg_sleep(1.5)`)
		return err
	})
}

// refuseConnections takes the connections of the API away and refuses new ones for a while, as a PostgreSQL does
// that has too many.
func refuseConnections(ctx context.Context, f *Field, _ *rand.Rand) (err error) {
	do := func(sql string) error {
		return f.query(context.WithoutCancel(ctx), func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, sql)
			return err
		})
	}
	defer func() {
		err = errors.Join(err, insist(func() error { return do(`ALTER ROLE ` + platform.Login + ` CONNECTION LIMIT -1`) }))
	}()
	if err := do(`ALTER ROLE ` + platform.Login + ` CONNECTION LIMIT 0`); err != nil {
		return err
	}
	if err := do(renew); err != nil {
		return err
	}
	wait(ctx, 2*time.Second)
	return nil
}

// renew ends the connections of the API.
const renew = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vss_api'`

// insist does what must not be left undone, once the database is back.
func insist(do func() error) (err error) {
	for range 40 {
		if err = do(); err == nil {
			return nil
		}
		time.Sleep(500 * time.Millisecond)
	}
	return err
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
	if err := do(`
		DROP SCHEMA IF EXISTS skew CASCADE;
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
		err = errors.Join(err, insist(func() error { return do(`DROP SCHEMA IF EXISTS skew CASCADE; ` + renew) }))
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
				if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "55P03" || pg.Code == "42703") {
					continue // it gives up, rather than make everybody wait behind it, or has before
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
