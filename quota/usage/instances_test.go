package usage

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/quota"
)

// fleet remembers what it heard.
type fleet struct {
	mu    sync.Mutex
	heard []int
}

func (f *fleet) set(live int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, live)
}

// keySets are two of one tenant, named by their sources, of which these cannot be fetched.
func keySets(tenant uuid.UUID, sources [2]uuid.UUID, failing ...uuid.UUID) (sets []KeySet) {
	for _, source := range sources {
		set := KeySet{Tenant: tenant, Source: source, Name: source.String()}
		if slices.Contains(failing, source) {
			set.Err = errors.New("the URL does not answer")
		}
		sets = append(sets, set)
	}
	return sets
}

// raised are the sources whose keys cannot be fetched, as this instance told it.
func raised(r *Recorder) (sources []uuid.UUID) {
	for _, set := range r.cfg.KeySets() {
		if r.events.states.Load().of(about{set.Tenant, JWKSFailing, set.Name}) == Raised {
			sources = append(sources, set.Source)
		}
	}
	return sources
}

func (f *fleet) take() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	heard := f.heard
	f.heard = nil
	return heard
}

func TestEveryBeatTellsHowManyInstancesLive(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	pool := open(t, d.url)
	f := &fleet{}
	var instances []*Recorder
	for i := range 3 {
		r, _ := newRecorder(pool, RecorderConfig{Heard: f.set, Host: fmt.Sprint("host", i), Version: "v1"})
		instances = append(instances, r)
	}
	beat := func(want ...int) {
		t.Helper()
		for _, r := range instances {
			if err := r.beat(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.take(); !slices.Equal(got, want) {
			t.Errorf("live: %v, want %v", got, want)
		}
	}
	beat(1, 1, 1) // the others beat once
	beat(1, 2, 3)
	beat(3, 3, 3)
	beat(3, 3, 3) // also when it is the same as before
	if got := query[string](t, d, "SELECT string_agg(host || ' ' || version, ', ' ORDER BY host) FROM instances"); got != "host0 v1, host1 v1, host2 v1" {
		t.Error(got)
	}

	d.sql(t, "UPDATE instances SET started_at = now() - interval '1 hour'")

	// One dies. It counts for 15 s after its last beat, and not longer.
	dead := instances[2].instance
	instances = instances[:2]
	d.sql(t, "UPDATE instances SET seen_at = now() - interval '5 seconds' WHERE id = $1", dead)
	beat(3, 3)
	d.sql(t, "UPDATE instances SET seen_at = now() - interval '15 seconds' WHERE id = $1", dead)
	beat(2, 2)
	if n := query[int](t, d, "SELECT count(*) FROM instances"); n != 3 {
		t.Error("it is not shown any more")
	}

	// One that was taken for dead counts itself at once, and again with the others.
	d.sql(t, "UPDATE instances SET seen_at = now() - interval '1 minute'")
	beat(1, 2)
	beat(2, 2)
}

func TestAnInstanceThatCrashesAtEveryStartDividesNothing(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	pool := open(t, d.url)
	f := &fleet{}
	tenant, sources := uuid.New(), [2]uuid.UUID{uuid.New(), uuid.New()}
	var healthy []*Recorder
	for range 2 {
		r, _ := newRecorder(pool, RecorderConfig{Heard: f.set, KeySets: func() []KeySet { return keySets(tenant, sources) }})
		healthy = append(healthy, r)
	}
	beat := func() {
		t.Helper()
		for _, r := range healthy {
			if err := r.beat(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	beat()
	beat()
	f.take()
	for range 10 {
		crashes, _ := newRecorder(pool, RecorderConfig{KeySets: func() []KeySet { return keySets(tenant, sources, sources[0]) }})
		if err := crashes.beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		beat()
		if got := f.take(); !slices.Equal(got, []int{2, 2}) {
			t.Fatalf("live: %v, want 2 each time", got)
		}
		if got := raised(healthy[0]); !slices.Equal(got, sources[:1]) {
			t.Errorf("heard that the keys of %v cannot be fetched, want %v", got, sources[:1])
		}
	}
	if n := query[int](t, d, "SELECT count(*) FROM instances"); n != 12 {
		t.Errorf("%d instances are shown, want 12", n)
	}
}

// So that people hear once of keys that some instance cannot fetch, and once when all can.
func TestEveryBeatTellsWhatTheInstancesThatLiveCannotFetch(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	pool := open(t, d.url)
	one, two := uuid.New(), uuid.New()
	tenant := uuid.New()
	with := func(failing *[]uuid.UUID) *Recorder {
		r, _ := newRecorder(pool, RecorderConfig{KeySets: func() []KeySet { return keySets(tenant, [2]uuid.UUID{one, two}, *failing...) }})
		return r
	}
	var own []uuid.UUID // of the first instance
	first, second, healthy := with(&own), with(&[]uuid.UUID{two}), with(&[]uuid.UUID{})
	beat := func(r *Recorder, want ...uuid.UUID) {
		t.Helper()
		if err := r.beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := raised(r); !slices.Equal(got, want) {
			t.Errorf("failing: %v, want %v", got, want)
		}
	}
	beat(healthy)
	own = []uuid.UUID{one}
	beat(first, one)
	beat(second, one, two)
	beat(healthy, one, two)
	own = nil
	beat(first, two)
	d.sql(t, "UPDATE instances SET seen_at = now() - interval '15 seconds' WHERE id = $1", second.instance)
	beat(healthy)
}

func TestAnInstanceThatEndsIsGoneAtOnce(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	pool := open(t, d.url)
	f := &fleet{}
	stays, _ := newRecorder(pool, RecorderConfig{Heard: f.set})
	ends, _ := newRecorder(pool, RecorderConfig{Interval: 20 * time.Millisecond})
	stop := start(ends)
	eventually(t, "both live", func() bool {
		if err := stays.beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		return slices.Equal(f.take(), []int{2})
	})
	stop()
	if err := stays.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.take(); !slices.Equal(got, []int{1}) {
		t.Errorf("live: %v", got)
	}
}

func TestAnOutageIsLoggedAtBothEndsAndLosesNothing(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	proxy := dbtest.NewProxy(t, d.url)
	log, f := &journal{}, &fleet{}
	r, meter := newRecorder(open(t, proxy.URL()), RecorderConfig{Interval: 10 * time.Millisecond, Heard: f.set, Log: slog.New(log)})
	defer start(r)()
	eventually(t, "it runs", func() bool { return len(f.take()) > 0 })

	proxy.Down()
	eventually(t, "the outage is noticed", func() bool { return log.count(slog.LevelError) == 1 })
	f.take()
	recorded := 0
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; time.Sleep(time.Millisecond) { // many intervals
		meter.Record(time.Now(), Request{Tenant: tenant, Wallet: quota.Key{byte(recorded), 1}, Known: true})
		recorded++
		r.Events().Raise(tenant, StorageSoft, "s", []string{Raised, OK}[recorded%2], nil)
	}
	if n := f.take(); len(n) > 0 {
		t.Errorf("the limiter heard %v of a database that is away", n)
	}
	if e, i := log.count(slog.LevelError), log.count(slog.LevelInfo); e != 1 || i != 0 {
		t.Errorf("%d errors and %d ends were logged while it lasted", e, i)
	}
	proxy.Up()
	eventually(t, "its end is logged", func() bool { return log.count(slog.LevelInfo) == 1 })
	eventually(t, "all is there", func() bool {
		return query[int](t, d, "SELECT coalesce(sum(value), 0) FROM usage WHERE grain = 'hour' AND metric LIKE 'requests%'") == recorded &&
			query[int](t, d, "SELECT count(*) FROM events") >= recorded-1
	})
	if e := log.count(slog.LevelError); e != 1 {
		t.Errorf("%d errors were logged", e)
	}
	if len(f.take()) == 0 {
		t.Error("the limiter hears nothing any more")
	}
}

func TestAMeterStaysBoundedWhileNothingIsStored(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	proxy := dbtest.NewProxy(t, d.url)
	r, _ := newRecorder(open(t, proxy.URL()), RecorderConfig{})
	meter := NewMeter(MeterConfig{Rows: 160, Wallets: 160})
	r.cfg.Meter = meter
	now := time.Now()
	proxy.Down()
	const requests = 10_000
	for i := range requests {
		meter.Record(now, Request{Tenant: uuid.UUID{byte(i), byte(i >> 8), 1}, Wallet: quota.Key{byte(i), byte(i >> 8), 1}, Known: true})
		if i%500 == 0 {
			if err := r.flush(t.Context()); i > 0 && err == nil {
				t.Fatal("flushed")
			}
		}
	}
	var lost int64
	proxy.Up()
	for b := meter.Take(); b != nil; b = meter.Take() {
		if len(b.Hours) > 160 || len(b.Active) > 160 {
			t.Errorf("%d rows and %d wallets waited", len(b.Hours), len(b.Active))
		}
		lost += b.Lost
		if err := r.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := query[int64](t, d, "SELECT sum(value)::bigint FROM usage WHERE metric LIKE 'requests%'"); n+lost != requests || n == 0 {
		t.Errorf("%d counted and %d lost of %d", n, lost, requests)
	}
}

func TestTheEndComesThoughTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	proxy := dbtest.NewProxy(t, d.url)
	log := &journal{}
	r, meter := newRecorder(open(t, proxy.URL()), RecorderConfig{Log: slog.New(log)})
	stop := start(r)
	eventually(t, "it runs", func() bool { return query[int](t, d, "SELECT count(*) FROM instances") == 1 })
	proxy.Down()
	meter.Record(time.Now(), Request{Tenant: uuid.UUID{1}})
	stop()
	if log.count(slog.LevelError) == 0 || log.count(slog.LevelWarn) != 1 {
		t.Error("what is lost was not logged")
	}
}
