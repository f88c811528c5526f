package postgres_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
)

func has(statements []string, part string) bool {
	return slices.ContainsFunc(statements, func(s string) bool { return strings.Contains(s, part) })
}

// oneTrip is the whole of a write in the usual case, and commit the end of one that was tried alone.
func oneTrip(statements []string) bool {
	return has(statements, "BoundTransaction") && has(statements, "ApplyWrites")
}
func commit(statements []string) bool { return slices.Contains(statements, "commit") }

// ways are the two ways in which a write ends, and whether it is its store's first.
var ways = map[string]struct {
	first   bool
	commits func([]string) bool
}{
	"in the usual case":        {false, oneTrip},
	"in a store's first write": {true, commit},
}

// cutOnce does action to the first batch that commits.
func cutOnce(p *dbtest.Proxy, commits func([]string) bool, action dbtest.Action) (cut *atomic.Bool) {
	cut = new(atomic.Bool)
	p.Inspect(func(statements []string) dbtest.Action {
		if !commits(statements) || !cut.CompareAndSwap(false, true) {
			return dbtest.Pass
		}
		return action
	})
	return cut
}

func key(t *testing.T) storage.Keyspace {
	t.Helper()
	ks, err := storage.NewKeyspace(storage.Owner{Tenant: uuid.New(), Namespace: "sig", Subject: "wallet"}, "")
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

func put(key string, version int64, value string) storage.Batch {
	return storage.Batch{Writes: []storage.Object{{Key: key, Version: version, Value: []byte(value)}}}
}

// written is a place of two instances with a store that holds the object "other", so that the next write to it is
// the usual case.
func written(t *testing.T) (*place, storage.Keyspace) {
	t.Helper()
	p, ks := newPlace(t, 2), key(t)
	write(t, p.stores[1], ks, put("other", 0, ""))
	return p, ks
}

func write(t *testing.T, s storage.Store, ks storage.Keyspace, b storage.Batch) {
	t.Helper()
	if err := save(t.Context(), s, ks, b); err != nil {
		t.Fatal(err)
	}
}

func wantVersion(t *testing.T, s storage.Store, ks storage.Keyspace, key string, version int64) {
	t.Helper()
	switch o, err := s.Get(t.Context(), ks, key, nil); {
	case version == 0 && !errors.Is(err, storage.ErrNoSuchKey):
		t.Fatalf("get %q: version %d, error %v; want no such key", key, o.Version, err)
	case version != 0 && (err != nil || o.Version != version):
		t.Fatalf("get %q: version %d, error %v; want version %d", key, o.Version, err, version)
	}
}

func TestAWriteWhoseConnectionIsLostAfterItsCommitWasSentIsSaved(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ks := written(t)
			if way.first {
				ks = key(t)
			}
			cut := cutOnce(p.proxies[0], way.commits, dbtest.CutAfter)
			if err := save(t.Context(), p.stores[0], ks, put("k", 0, "v")); err != nil {
				t.Fatalf("the server has it, and the put says %v", err)
			}
			if !cut.Load() {
				t.Fatal("nothing was cut")
			}
			wantVersion(t, p.stores[1], ks, "k", 1)
		})
	}
}

func TestAWriteLostBeforeItsCommitIsNotSaidToBeSaved(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ks := written(t)
			if way.first {
				ks = key(t)
			}
			cut := cutOnce(p.proxies[0], way.commits, dbtest.CutBefore)
			// Nothing on this side can tell it from the case above: the commit was sent and not answered.
			if err := save(t.Context(), p.stores[0], ks, put("k", 0, "v")); !errors.Is(err, storage.ErrAmbiguous) {
				t.Fatalf("error %v, want ErrAmbiguous", err)
			}
			if !cut.Load() {
				t.Fatal("nothing was cut")
			}
			wantVersion(t, p.stores[1], ks, "k", 0)
		})
	}
}

func TestAWriteThatCannotBeSettledIsAmbiguous(t *testing.T) {
	t.Parallel()
	p, ks := written(t)

	// Cut for good once the commit has been sent: nobody can be asked.
	var asked atomic.Int64
	p.proxies[0].Inspect(func(statements []string) dbtest.Action {
		if oneTrip(statements) {
			asked.Add(1)
			go p.proxies[0].Down()
			return dbtest.CutAfter
		}
		return dbtest.Pass
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := save(ctx, p.stores[0], ks, put("k", -1, "v")); !errors.Is(err, storage.ErrAmbiguous) {
		t.Fatalf("error %v, want ErrAmbiguous", err)
	}
	if n := asked.Load(); n != 1 {
		t.Fatalf("the write was sent %d times", n)
	}
}

func TestAWriteSettlesOverARestartOfTheDatabase(t *testing.T) {
	t.Parallel()
	p, ks := written(t)
	var cut, down atomic.Bool
	p.proxies[0].Inspect(func(statements []string) dbtest.Action {
		switch {
		case oneTrip(statements) && cut.CompareAndSwap(false, true):
			return dbtest.CutAfter
		case has(statements, "LastWrite") && down.CompareAndSwap(false, true):
			go func() {
				p.proxies[0].Down()
				time.Sleep(500 * time.Millisecond)
				p.proxies[0].Up()
			}()
			return dbtest.CutBefore
		}
		return dbtest.Pass
	})
	if err := save(t.Context(), p.stores[0], ks, put("k", 0, "v")); err != nil {
		t.Fatal(err)
	}
	if !down.Load() {
		t.Fatal("the database did not go down")
	}
	wantVersion(t, p.stores[1], ks, "k", 1)
}

func TestALostWriteThatALaterOneReplacedIsNotSaidToBeSaved(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 2)
	ks := key(t)
	write(t, p.stores[1], ks, put("k", 0, "v"))
	cutOnce(p.proxies[0], oneTrip, dbtest.CutAfter)
	// The other instance writes between the lost commit and the question for the last write.
	var replaced atomic.Bool
	p.proxies[0].OnStatement(func(statement string) {
		if strings.Contains(statement, "LastWrite") && replaced.CompareAndSwap(false, true) {
			write(t, p.stores[1], ks, put("k", 2, "newer"))
		}
	})
	if err := save(t.Context(), p.stores[0], ks, put("k", 1, "v")); !errors.Is(err, storage.ErrAmbiguous) {
		t.Fatalf("error %v, want ErrAmbiguous", err)
	}
	if !replaced.Load() {
		t.Fatal("nobody asked for the last write")
	}
	wantVersion(t, p.stores[1], ks, "k", 3)
}

func TestAWriteThatIsHeldUpOnItsWayHasNoEffectAfterItsDeadline(t *testing.T) {
	t.Parallel()
	statement := func(p *dbtest.Proxy, held func()) {
		p.OnStatement(func(s string) {
			if strings.Contains(s, "ApplyWrites") {
				held()
			}
		})
	}
	batch := func(is func([]string) bool) func(*dbtest.Proxy, func()) {
		return func(p *dbtest.Proxy, held func()) {
			p.Inspect(func(s []string) dbtest.Action {
				if is(s) {
					held()
				}
				return dbtest.Pass
			})
		}
	}
	for name, way := range map[string]struct {
		first bool
		hold  func(p *dbtest.Proxy, held func())
	}{
		"with the statement that decides":          {false, statement},
		"with the commit":                          {false, batch(oneTrip)},
		"with the commit of a store's first write": {true, batch(commit)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, ks := written(t)
			if way.first {
				ks = key(t)
			}
			write(t, p.stores[0], key(t), put("k", 0, "v")) // its statements are prepared and the clock is read
			passed := make(chan struct{})
			var once atomic.Bool
			way.hold(p.proxies[0], func() {
				if once.CompareAndSwap(false, true) {
					time.Sleep(1500 * time.Millisecond)
					close(passed)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := save(ctx, p.stores[0], ks, put("k", -1, "v"))
			if !errors.Is(err, storage.ErrTooLate) && !errors.Is(err, storage.ErrAmbiguous) {
				t.Fatalf("error %v, want ErrTooLate or ErrAmbiguous", err)
			}
			<-passed
			time.Sleep(300 * time.Millisecond)
			wantVersion(t, p.stores[1], ks, "k", 0)
			write(t, p.stores[1], ks, put("k", 0, "v")) // and holds nobody up
		})
	}
}

func TestAServerThatMayLoseWhatItAcknowledgesTakesNoWrites(t *testing.T) {
	t.Parallel()
	pool, err := db.Open(t.Context(), dbtest.New(t), db.RoleAPI, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s := postgres.New(pool, postgres.Config{}) // test servers are made with fsync off
	if err := s.Check(t.Context()); !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), "fsync is false") {
		t.Fatalf("check: %v", err)
	}
	if err := save(t.Context(), s, key(t), put("k", -1, "v")); !errors.Is(err, storage.ErrUnavailable) {
		t.Fatalf("put: %v", err)
	}
	if _, err := s.Get(t.Context(), key(t), "k", nil); !errors.Is(err, storage.ErrNoSuchKey) {
		t.Fatalf("reads are served, and say %v", err)
	}
}

func TestARequestThatMeetsADeadConnectionIsRunAgain(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ks := key(t)
	write(t, p.stores[0], ks, put("k", 0, "v"))
	// The server ends the idle connections, as a restart does. pgx notices when it sends.
	var ended int
	p.query(t, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'vss_api'`, nil, &ended)
	if ended == 0 {
		t.Fatal("there was no connection to end")
	}
	if _, err := p.stores[0].Get(t.Context(), ks, "k", nil); err != nil {
		t.Fatal(err)
	}
	write(t, p.stores[0], ks, put("k", 1, "v"))
}

func TestAWriteTakesOneRoundTrip(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ks := key(t)
	for i := range 3 { // the first ones prepare statements and read the clock
		write(t, p.stores[0], ks, put("k", int64(i), "v"))
	}
	before := p.proxies[0].Trips()
	const n = 20
	for i := range n {
		write(t, p.stores[0], ks, put("k", int64(i)+3, "v"))
	}
	if trips := p.proxies[0].Trips() - before; trips != n {
		t.Errorf("%d writes took %d round trips", n, trips)
	}
	wantVersion(t, p.stores[0], ks, "k", n+3)
	before = p.proxies[0].Trips()
	for range n {
		wantVersion(t, p.stores[0], ks, "k", n+3)
	}
	if trips := p.proxies[0].Trips() - before; trips != n {
		t.Errorf("%d gets took %d round trips", n, trips)
	}
}

func TestNoCancelRequestIsEverSent(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ks := key(t)
	write(t, p.stores[0], ks, put("k", 0, "v"))
	release := p.Hold(t, ks)
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := save(ctx, p.stores[0], ks, put("k", 1, "v")); !errors.Is(err, storage.ErrTooLate) {
		t.Fatalf("error %v, want ErrTooLate", err)
	}
	time.Sleep(500 * time.Millisecond) // pgx cancels from a goroutine of its own
	if n := p.proxies[0].CancelRequests(); n != 0 {
		t.Fatalf("%d cancel requests", n)
	}
}

func TestADatabaseClockThatDiffersChangesNothing(t *testing.T) {
	t.Parallel()
	url := dbtest.New(t)
	pool, err := db.Open(t.Context(), url, db.RoleAPI, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s := postgres.New(pool, postgres.Config{AllowDataLoss: true})
	ks := key(t)
	for _, skew := range []time.Duration{0, -time.Hour, 0, time.Hour, 0} {
		postgres.SkewClock(s, skew)
		// A call that was on its way when the clock jumped may be refused; the next knows.
		if err := save(t.Context(), s, ks, put("k", -1, "v")); err != nil && (skew == 0 || !errors.Is(err, storage.ErrTooLate)) {
			t.Fatalf("with our idea of the server's clock off by %v: %v", skew, err)
		}
		if off := postgres.ClockError(t.Context(), s); skew != 0 && off.Abs() > time.Minute {
			t.Fatalf("our idea of the server's clock stays off by %v", off)
		}
	}
}

func TestAWriteThatEndsAsNothingKnownIsNotSaved(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ks := key(t)
	write(t, p.stores[0], ks, put("k", 0, "v"))
	// Somebody takes the store's row away while a put waits for it.
	tx, err := p.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `DELETE FROM stores WHERE store = $1`, uuid.UUID(ks.Store())); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- save(t.Context(), p.stores[0], ks, put("k", 1, "w")) }()
	for p.Waiting(t) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, storage.ErrUnavailable) {
		t.Fatalf("error %v, want ErrUnavailable", err)
	}
}

func TestAWriteIsNotRevivedByANewReadingOfTheClock(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ks := key(t)
	write(t, p.stores[0], ks, put("k", 0, "v"))
	release := p.Hold(t, ks)
	// Our clock stood still for an hour, as it does while a machine is suspended: the server's is ahead of
	// what we believe by that when the put was made.
	postgres.SkewClock(p.stores[0].(*postgres.Store), -time.Hour)
	done := make(chan error, 1)
	go func() { done <- save(t.Context(), p.stores[0], ks, put("k", -1, "old")) }()
	for p.Waiting(t) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	release()
	if err := <-done; !errors.Is(err, storage.ErrTooLate) {
		t.Fatalf("error %v, want ErrTooLate", err)
	}
	time.Sleep(300 * time.Millisecond)
	if o, err := p.stores[0].Get(t.Context(), ks, "k", nil); err != nil || string(o.Value) != "v" {
		t.Fatalf("get: %q, %v", o.Value, err)
	}
}

func TestASchemaWithoutItsTriggerTakesNoWrites(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	if _, err := p.owner.Exec(t.Context(), `ALTER TABLE stores DISABLE TRIGGER commit_in_time`); err != nil {
		t.Fatal(err)
	}
	if err := save(t.Context(), p.stores[0], key(t), put("k", 0, "v")); !errors.Is(err, storage.ErrUnavailable) {
		t.Fatalf("error %v, want ErrUnavailable", err)
	}
}
