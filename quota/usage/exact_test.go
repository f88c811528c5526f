package usage

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/quota"
)

// flaky is a database that commits and breaks the connection before it says so, or breaks it before, as often as not.
func flaky(t *testing.T, d *database) (url string) {
	t.Helper()
	p := dbtest.NewProxy(t, d.url)
	random := rand.New(rand.NewPCG(14, uint64(len(p.URL()))))
	var mu sync.Mutex
	p.Inspect(func(statements []string) dbtest.Action {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range statements {
			if strings.Contains(s, "StoreMeterBatch") || s == "commit" {
				return []dbtest.Action{dbtest.Pass, dbtest.CutAfter, dbtest.CutAfter, dbtest.CutBefore}[random.IntN(4)]
			}
		}
		return dbtest.Pass
	})
	return p.URL()
}

// recount is what was recorded, by "tenant grain start metric", counted by other means than the meter's.
type recount struct {
	mu     sync.Mutex
	counts map[string]int64
	active map[string]struct{}
}

func newRecount() *recount {
	return &recount{counts: map[string]int64{}, active: map[string]struct{}{}}
}

func (c *recount) add(at time.Time, q Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	some := func(metric string, n int64) {
		if n != 0 {
			c.counts[fmt.Sprint(q.Tenant, " hour ", at.UTC().Format("2006-01-02 15"), " ", metric)] += n
		}
	}
	some(fmt.Sprint("requests.", q.Operation, ".", q.Outcome), 1)
	if q.Outcome == Refused {
		some(fmt.Sprint("refused.", q.Reason), 1)
	}
	some("bytes_in", q.In)
	some("bytes_out", q.Out)
	if q.Enrolled {
		some("new_wallets", 1)
	}
	if !q.Known {
		return
	}
	for grain, start := range map[string]string{"day": at.UTC().Format("2006-01-02 00"), "month": month(at, 0).Format("2006-01-02 00")} {
		row := fmt.Sprint(q.Tenant, " ", grain, " ", start, " active_wallets")
		if _, seen := c.active[fmt.Sprint(row, q.Wallet)]; !seen {
			c.active[fmt.Sprint(row, q.Wallet)] = struct{}{}
			c.counts[row]++
		}
	}
}

// usage is the table, as a recount is.
func (d *database) usage(t *testing.T, where string) map[string]int64 {
	t.Helper()
	got := query[map[string]int64](t, d, `SELECT coalesce(json_object_agg(concat_ws(' ', tenant_id, grain,
		to_char(start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24'), metric), value), '{}') FROM usage WHERE `+where)
	return got
}

func wantUsage(t *testing.T, got, want map[string]int64) {
	t.Helper()
	for row, n := range want {
		if got[row] != n {
			t.Errorf("%s: %d, want %d", row, got[row], n)
		}
	}
	for row, n := range got {
		if _, there := want[row]; !there {
			t.Errorf("%s: %d, want none", row, n)
		}
	}
}

// flushed flushes until nothing is left, whatever fails.
func flushed(t *testing.T, r *Recorder) {
	t.Helper()
	for failures := 0; ; {
		err := r.flush(t.Context())
		if err == nil {
			if r.cfg.Meter.Take() == nil {
				return
			}
			continue
		}
		if failures++; failures > 200 {
			t.Fatal(err)
		}
	}
}

func TestABrokenCommitCountsEachRequestOnce(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	want := newRecount()
	tenants := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	// Hours of two days and two months, those before yesterday among them, which are rolled up as they are flushed.
	now := time.Date(2031, 6, 2, 3, 0, 0, 0, time.UTC)
	var instances sync.WaitGroup
	for i := range uint64(2) {
		r, meter := newRecorder(open(t, flaky(t, d)), RecorderConfig{Now: func() time.Time { return now }})
		instances.Go(func() {
			random := rand.New(rand.NewPCG(i, 0))
			for range 30 {
				for range random.IntN(300) {
					tenant := random.IntN(3)
					q := Request{
						Tenant: tenants[tenant], Wallet: quota.Key{byte(random.IntN(200)), byte(tenant + 1)}, // names its tenant
						Operation: Operation(random.IntN(4)), Outcome: Outcome(random.IntN(7)), Reason: quota.Reason(random.IntN(10)),
						In: random.Int64N(3), Out: random.Int64N(1 << 40), Known: random.IntN(3) > 0, Enrolled: random.IntN(50) == 0,
					}
					at := now.Add(-time.Duration(random.Int64N(int64(50 * time.Hour))))
					meter.Record(at, q)
					want.add(at, q)
				}
				_ = r.flush(t.Context()) // or not
			}
			flushed(t, r)
		})
	}
	instances.Wait()
	wantUsage(t, d.usage(t, "grain = 'hour' OR metric = 'active_wallets'"), want.counts)
	if len(want.counts) < 1000 {
		t.Errorf("only %d rows", len(want.counts))
	}
}

func TestFlushesAtOnceOfTheSameRowsDoNotDeadlock(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenants := make([]uuid.UUID, 50)
	for i := range tenants {
		tenants[i] = uuid.New()
	}
	now := time.Date(2031, 6, 1, 0, 0, 30, 0, time.UTC)
	var instances sync.WaitGroup
	for range 4 {
		r, meter := newRecorder(open(t, d.url), RecorderConfig{Now: func() time.Time { return now }})
		instances.Go(func() {
			for round := range 10 {
				for i := range 2000 {
					w := quota.Key{byte(i), byte(i >> 8), byte(round), 1}
					meter.Record(now.Add(-time.Minute*time.Duration(i%2)), Request{Tenant: tenants[i%50], Wallet: w, Known: true})
				}
				if err := r.flush(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	instances.Wait()
	if n := query[int64](t, d, "SELECT sum(value)::bigint FROM usage WHERE grain = 'hour'"); n != 4*10*2000 {
		t.Errorf("%d requests, want %d", n, 4*10*2000)
	}
	if n := query[int64](t, d, "SELECT sum(value)::bigint FROM usage WHERE grain = 'day'"); n != 10*2000 {
		t.Errorf("%d active, want %d", n, 10*2000)
	}
}

func TestACrashLosesNoMoreThanWasCountedSinceTheLastFlush(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	pool := open(t, d.url)
	now := time.Date(2031, 6, 1, 12, 0, 0, 0, time.UTC)
	want := newRecount()
	for life := range 5 { // each ends without notice
		r, meter := newRecorder(pool, RecorderConfig{Now: func() time.Time { return now }})
		for i := range 10 {
			q := Request{Tenant: uuid.UUID{1}, Wallet: quota.Key{byte(i), 1}, Known: true, In: int64(life)}
			meter.Record(now, q)
			if i < 8 {
				want.add(now, q)
			}
			if i%4 == 3 {
				if err := r.flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	wantUsage(t, d.usage(t, "true"), want.counts)
}

func TestWhatWasCountedIsStoredWhenTheRecorderEnds(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	r, meter := newRecorder(open(t, d.url), RecorderConfig{Interval: time.Hour})
	stop := start(r)
	eventually(t, "it runs", func() bool { return query[int](t, d, "SELECT count(*) FROM instances") == 1 })
	want := newRecount()
	now := time.Now()
	for i := range 100 {
		q := Request{Tenant: uuid.UUID{1}, Wallet: quota.Key{byte(i), 1}, Known: true, In: 1}
		meter.Record(now, q)
		want.add(now, q)
	}
	stop()
	wantUsage(t, d.usage(t, "metric NOT LIKE 'stored%'"), want.counts)
	if n := query[int](t, d, "SELECT count(*) FROM instances"); n != 0 {
		t.Error("it is still there")
	}
}

// Wallets are active at two instances on the same days; batches come late, around midnight and the end of a month.
func TestActiveWalletsOfDaysAndMonthsAreExact(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Date(2031, 2, 26, 22, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	type instance struct {
		*Recorder
		meter *Meter
	}
	var instances []instance
	for range 2 {
		r, meter := newRecorder(open(t, d.url), RecorderConfig{Now: clock})
		instances = append(instances, instance{r, meter})
	}
	want := newRecount()
	for end := time.Date(2031, 3, 6, 2, 0, 0, 0, time.UTC); now.Before(end); now = now.Add(time.Hour) {
		for range 20 {
			q := Request{Tenant: uuid.UUID{1}, Wallet: quota.Key{byte(random.IntN(60)), 1}, Known: random.IntN(8) > 0}
			at := now.Add(-time.Duration(random.Int64N(int64(time.Hour))))
			instances[random.IntN(2)].meter.Record(at, q)
			if q.Known {
				want.add(at, q)
			}
		}
		for _, i := range instances {
			if random.IntN(20) == 0 { // so most are hours late, and some more than a day
				flushed(t, i.Recorder)
			}
		}
		// Rows that can be reported no more go meanwhile.
		if _, err := instances[0].prune(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range instances {
		flushed(t, i.Recorder)
	}
	maps.DeleteFunc(want.counts, func(row string, _ int64) bool { return !strings.HasSuffix(row, "active_wallets") })
	wantUsage(t, d.usage(t, "metric = 'active_wallets'"), want.counts)
	if n := query[int](t, d, "SELECT count(*) FROM active_wallets WHERE start < '2031-03-01'"); n != 0 {
		t.Errorf("%d rows of last month are left", n)
	}
}

// A batch waits for three days, while another instance counts the same wallet and its row goes.
func TestAWalletThatIsReportedTooLateIsNotCountedTwice(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	now := time.Date(2031, 2, 28, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	a, ofA := newRecorder(open(t, d.url), RecorderConfig{Now: clock})
	b, ofB := newRecorder(open(t, d.url), RecorderConfig{Now: clock})
	want := newRecount()
	q := Request{Tenant: uuid.UUID{1}, Wallet: quota.Key{1}, Known: true}
	for _, m := range []*Meter{ofA, ofB} {
		m.Record(now, q)
		want.add(now, q)
	}
	flushed(t, a)
	now = now.AddDate(0, 0, 5)
	if _, err := a.prune(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	flushed(t, b)
	wantUsage(t, d.usage(t, "grain = 'hour' OR metric = 'active_wallets'"), want.counts)
	if n := query[int](t, d, "SELECT value FROM usage WHERE grain = 'day' AND metric = 'requests.getObject.succeeded'"); n != 2 {
		t.Errorf("the day has %d requests, want 2", n)
	}
}
