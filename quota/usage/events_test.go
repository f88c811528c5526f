package usage

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/quota"
)

func (d *database) tenant(t testing.TB, slug string) (id uuid.UUID) {
	t.Helper()
	return query[uuid.UUID](t, d, "INSERT INTO tenants (slug, name) VALUES ($1, 'T') RETURNING id", slug)
}

// story is all events, in order.
func (d *database) story(t *testing.T) string {
	t.Helper()
	return query[string](t, d, "SELECT coalesce(string_agg(concat_ws(' ', kind, nullif(subject, ''), state), ', ' ORDER BY id), '') FROM events")
}

func wantStory(t *testing.T, d *database, want string) {
	t.Helper()
	if got := d.story(t); got != want {
		t.Errorf("events: %s\n  want: %s", got, want)
	}
}

func newTestEvents(pool *pgxpool.Pool) *Events {
	return newEvents(pool, slog.New(slog.DiscardHandler))
}

// settled writes what is queued and reads what is raised.
func settled(t *testing.T, all ...*Events) {
	t.Helper()
	for _, e := range all {
		if err := e.write(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range all {
		if err := e.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFourInstancesThatSeeAChangeAtOnceWriteOneEvent(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	pool := open(t, d.url)
	var all []*Events
	for range 4 {
		all = append(all, newTestEvents(pool))
	}
	var want []string
	for round := range 10 {
		state := []string{Raised, OK}[round%2]
		var instances sync.WaitGroup
		for _, e := range all {
			instances.Go(func() {
				for range 100 {
					e.Raise(tenant, StorageSoft, "s", state, map[string]any{"used": round})
				}
				if err := e.write(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		instances.Wait()
		settled(t, all...)
		want = append(want, "storage_soft s "+state)
	}
	wantStory(t, d, strings.Join(want, ", "))
	if n := query[int](t, d, "SELECT (detail->>'used')::int FROM events ORDER BY id DESC LIMIT 1"); n != 9 {
		t.Errorf("the last has the detail of the change %d", n)
	}
}

func TestAStateThatStaysCostsNoStatement(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	proxy := dbtest.NewProxy(t, d.url)
	e, other := newTestEvents(open(t, proxy.URL())), newTestEvents(open(t, d.url))
	settled(t, e)
	before := proxy.Trips()
	e.Raise(tenant, StorageSoft, "s", OK, nil) // as it always was
	settled(t, e)
	quiet := proxy.Trips() - before // the reading alone
	e.Raise(tenant, StorageSoft, "s", Raised, nil)
	settled(t, e)
	other.Raise(tenant, StorageHard, "s", Raised, nil)
	settled(t, other, e)
	before = proxy.Trips()
	for range 1000 {
		e.Raise(tenant, StorageSoft, "s", Raised, nil)
		e.Raise(tenant, StorageHard, "s", Raised, nil) // which the other raised
		e.Raise(tenant, StorageSoft, "another", OK, nil)
	}
	settled(t, e)
	if n := proxy.Trips() - before; n != quiet {
		t.Errorf("%d round trips, want %d", n, quiet)
	}
	// The end of a state may be seen by another instance than its beginning, or another process.
	again := newTestEvents(open(t, d.url))
	settled(t, again)
	again.Raise(tenant, StorageHard, "s", OK, nil)
	settled(t, again, e)
	e.Raise(tenant, StorageHard, "s", OK, nil)
	settled(t, e)
	wantStory(t, d, "storage_soft s raised, storage_hard s raised, storage_hard s ok")
}

func TestAStateThatStaysCostsNoMemory(t *testing.T) {
	e := newTestEvents(nil)
	raise := func() { e.Raise(uuid.UUID{1}, StorageSoft, "s", Raised, nil) }
	if !e.news(uuid.UUID{1}, StorageSoft, "s", Raised) || e.news(uuid.UUID{1}, StorageSoft, "s", OK) {
		t.Error("what was never raised is OK, and that is no news")
	}
	raise()
	if e.news(uuid.UUID{1}, StorageSoft, "s", Raised) || !e.news(uuid.UUID{1}, StorageSoft, "s", OK) {
		t.Error("what was raised is no news, and its end is")
	}
	if n := testing.AllocsPerRun(100, raise); n != 0 || len(e.queue) != 1 {
		t.Errorf("%v allocations, and %d are queued", n, len(e.queue))
	}
}

func BenchmarkRaiseAStateThatStays(b *testing.B) {
	e := newTestEvents(nil)
	e.Raise(uuid.UUID{1}, StorageSoft, "s", Raised, nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e.Raise(uuid.UUID{1}, StorageSoft, "s", Raised, nil)
			e.Raise(uuid.UUID{2}, StorageSoft, "s", OK, nil)
		}
	})
}

func TestEventsWaitForTheDatabaseInOrderAndWithinBounds(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	proxy := dbtest.NewProxy(t, d.url)
	log := &journal{}
	e := newEvents(open(t, proxy.URL()), slog.New(log))
	proxy.Down()
	e.Raise(tenant, StorageSoft, "", Raised, nil)
	e.Raise(tenant, StorageSoft, "", OK, nil)
	e.Raise(tenant, StorageSoft, "", Raised, nil)
	if err := e.write(t.Context()); err == nil {
		t.Error("written to a database that is away")
	}
	for i := range 3 * mostQueued {
		e.Raise(tenant, StorageHard, fmt.Sprint(i), Raised, nil)
	}
	if n := len(e.queue); n != mostQueued {
		t.Errorf("%d are queued", n)
	}
	if n := log.count(slog.LevelError); n != 1 {
		t.Errorf("that some are dropped was logged %d times", n)
	}
	proxy.Up()
	settled(t, e)
	if story := d.story(t); !strings.HasPrefix(story, "storage_soft raised, storage_soft ok, storage_soft raised, storage_hard 0 raised,") {
		t.Errorf("%.200s", story)
	}
	// A state that was dropped is told when it is raised again.
	e.Raise(tenant, StorageHard, "3000", Raised, nil)
	settled(t, e)
	if story := d.story(t); !strings.HasSuffix(story, ", storage_hard 3000 raised") {
		t.Error("a state that was dropped stays unknown")
	}
}

func TestAnEventThatTheDatabaseRefusesHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	log := &journal{}
	e := newEvents(open(t, d.url), slog.New(log))
	e.Raise(uuid.New(), StorageSoft, "", Raised, nil) // no tenant of ours
	e.Raise(tenant, StorageHard, "", Raised, map[string]any{"text": "a\x00b"})
	e.Raise(tenant, StorageHard, "nul\x00 and half a \xe2\x82", Raised, map[string]any{"no JSON": func() {}})
	settled(t, e)
	wantStory(t, d, "storage_hard nul\uFFFD and half a \uFFFD raised")
	if n := log.count(slog.LevelError); n != 2 {
		t.Errorf("%d were logged, want 2", n)
	}
	(*Events)(nil).Raise(tenant, StorageSoft, "", Raised, nil)
}

func TestAStateIsWrittenOnceWhereTheAnswerIsLost(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	proxy := dbtest.NewProxy(t, d.url)
	var cuts atomic.Int32
	proxy.Inspect(func(statements []string) dbtest.Action {
		for _, s := range statements {
			if strings.Contains(s, "RaiseEvent") && cuts.Add(1) <= 3 {
				return dbtest.CutAfter
			}
		}
		return dbtest.Pass
	})
	e := newTestEvents(open(t, proxy.URL()))
	e.Raise(tenant, StorageSoft, "", Raised, nil)
	for range 3 {
		if err := e.write(t.Context()); err == nil {
			t.Error("the answer was not lost")
		}
	}
	settled(t, e)
	wantStory(t, d, "storage_soft raised")
}

func TestRefusalsThatGoOnRaiseOneEventAndItEndsWithThem(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	now := time.Date(2031, 6, 1, 12, 0, 0, 0, time.UTC)
	r, meter := newRecorder(open(t, d.url), RecorderConfig{Now: func() time.Time { return now }})
	d.store(t, tenant, uuid.New(), 1, 1)
	refuse := func(n int, reason quota.Reason) {
		t.Helper()
		for range n {
			meter.Record(now, Request{Tenant: tenant, Outcome: Refused, Reason: reason})
		}
		flushed(t, r)
		settled(t, r.events)
	}
	refuse(1000, quota.WalletRate)
	wantStory(t, d, "") // one burst is no news
	for range 6 * 30 {
		now = now.Add(10 * time.Second)
		refuse(2, quota.TenantRate)
	}
	wantStory(t, d, "rate_limited tenant_rate raised")
	refuse(1, quota.Enrolment)
	refuse(1, quota.Enrolment)
	const both = "rate_limited tenant_rate raised, enrolment_refused enrolment raised"
	wantStory(t, d, both)

	maintained(t, d, r)
	now = now.Add(time.Hour)
	refuse(1, quota.TenantRate)
	maintained(t, d, r)
	wantStory(t, d, both)
	now = now.Add(time.Hour) // enrolment has been quiet for two
	maintained(t, d, r)
	wantStory(t, d, both+", enrolment_refused enrolment ok")
	now = now.Add(time.Hour)
	maintained(t, d, r)
	wantStory(t, d, both+", enrolment_refused enrolment ok, rate_limited tenant_rate ok")
	settled(t, r.events)
	refuse(1, quota.Enrolment)
	wantStory(t, d, both+", enrolment_refused enrolment ok, rate_limited tenant_rate ok, enrolment_refused enrolment raised")
}

func TestSustainedMeansMoreThanMostInEachOfConsecutiveMinutes(t *testing.T) {
	t.Parallel()
	of := refusal{uuid.UUID{1}, quota.WalletRate}
	for name, tc := range map[string]struct {
		minutes []int64 // refusals in each
		want    bool
	}{
		"three in a row":        {[]int64{11, 11, 11}, true},
		"many once":             {[]int64{1 << 40}, false},
		"two minutes":           {[]int64{11, 11}, false},
		"as many as may be":     {[]int64{10, 10, 10, 10, 10}, false},
		"a quiet minute":        {[]int64{11, 11, 0, 11, 11}, false},
		"a minute with few":     {[]int64{11, 11, 10, 11, 11}, false},
		"after a quiet minute":  {[]int64{11, 0, 11, 11, 11}, true},
		"and on":                {[]int64{11, 11, 11, 11, 11}, true},
		"the last not yet":      {[]int64{11, 11, 11, 5}, false},
		"none":                  {nil, false},
		"quiet for a long time": {[]int64{11, 11, 11, 0, 0, 0, 11}, false},
	} {
		s := newSustained(10, 3)
		got := false
		for i, n := range tc.minutes {
			for range n % 100 { // one by one, all over the minute
				got = s.add(time.Unix(int64(i*60), 0).Add(time.Duration(n)*time.Second), of, 1)
			}
			if n >= 100 {
				got = s.add(time.Unix(int64(i*60), 0), of, n)
			}
			s.forget(time.Unix(int64(i*60+59), 0))
			s.add(time.Unix(int64(i*60), 0), refusal{uuid.UUID{2}, quota.WalletRate}, 100) // another's
		}
		if got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSustainedForgetsWhatNoLongerGoesOn(t *testing.T) {
	t.Parallel()
	s := newSustained(0, 1)
	for i := range 10_000 {
		at := time.Unix(int64(i), 0)
		s.forget(at)
		s.add(at, refusal{tenant: uuid.New()}, 1)
	}
	if n := len(s.streaks); n > 120 {
		t.Errorf("%d are remembered", n)
	}
}

func TestAKnownStateIsReadWhileOthersAreRaised(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	pool := open(t, d.url)
	r, _ := newRecorder(pool, RecorderConfig{Interval: 20 * time.Millisecond})
	stop := start(r)
	var callers sync.WaitGroup
	for i := range 4 {
		callers.Go(func() {
			for j := range 200 {
				r.Events().Raise(tenant, StorageSoft, fmt.Sprint(j), Raised, nil)
				r.Events().Raise(tenant, StorageHard, fmt.Sprint(i, j%2), []string{Raised, OK}[j/2%2], nil)
			}
		})
	}
	callers.Wait()
	eventually(t, "all are written", func() bool {
		return query[int](t, d, "SELECT count(*) FROM events WHERE kind = 'storage_soft'") == 200
	})
	stop()
	if n := query[int](t, d, "SELECT count(*) FROM event_states WHERE kind = 'storage_soft' AND state = 'raised'"); n != 200 {
		t.Errorf("%d states", n)
	}
}

// journal counts what is logged.
type journal struct {
	mu     sync.Mutex
	levels []slog.Level
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.levels = append(j.levels, r.Level)
	return nil
}

func (j *journal) count(level slog.Level) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.levels {
		if l == level {
			n++
		}
	}
	return n
}
