package usage

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbtest"
)

// store makes a store of a wallet that becomes the tenant's.
func (d *database) store(t *testing.T, tenant, wallet uuid.UUID, objects, bytes int) {
	t.Helper()
	d.sql(t, "INSERT INTO wallets (wallet, tenant_id, namespace, subject) VALUES ($1, $2, 'sig', $3) ON CONFLICT DO NOTHING", wallet, tenant, wallet.String())
	d.sql(t, "INSERT INTO stores (store, wallet, store_id, objects, bytes) VALUES (gen_random_uuid(), $1, '', $2, $3)", wallet, objects, bytes)
}

// maintained does maintenance that is due: the last was when the recorder's clock says.
func maintained(t *testing.T, d *database, r *Recorder) {
	t.Helper()
	now := r.cfg.Now()
	if d.maintained.IsZero() {
		d.maintained = now
	}
	d.sql(t, "UPDATE tenant_totals SET measured_at = now() - make_interval(secs => $1)", max(now.Sub(d.maintained), 6*time.Minute).Seconds())
	d.maintained = now
	if err := r.maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTotalsAreThoseOfAllWalletsAndAreInMemory(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	r, _ := newRecorder(open(t, d.url), RecorderConfig{})
	acme, globex := uuid.New(), uuid.New()
	want := map[uuid.UUID]Totals{}
	for i := range 200 {
		tenant := []uuid.UUID{acme, globex}[i%2]
		w := want[tenant]
		wallet := uuid.New()
		w.Wallets++
		for j := range i % 4 {
			d.store(t, tenant, wallet, i, j)
			w.Stores++
			w.Objects += int64(i)
			w.Bytes += int64(j)
		}
		if i%4 == 0 { // a wallet without a store
			d.sql(t, "INSERT INTO wallets (wallet, tenant_id, namespace, subject) VALUES ($1, $2, 'sig', $3)", wallet, tenant, wallet.String())
		}
		want[tenant] = w
	}
	// The first and the last wallet that there can be.
	w := want[acme]
	d.store(t, acme, uuid.UUID{}, 1, 1)
	d.store(t, acme, uuid.Max, 1, 1)
	w.Wallets, w.Stores, w.Objects, w.Bytes = w.Wallets+2, w.Stores+2, w.Objects+2, w.Bytes+2
	want[acme] = w

	if _, known := r.Totals(acme); known || !r.Measured().IsZero() {
		t.Error("they are known before they are read")
	}
	if err := r.maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.readTotals(t.Context()); err != nil {
		t.Fatal(err)
	}
	for tenant, want := range want {
		got, known := r.Totals(tenant)
		if got.MeasuredAt = (time.Time{}); !known || got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if age := time.Since(r.Measured()); age < 0 || age > time.Minute {
		t.Errorf("they are %v old", age)
	}
	if _, known := r.Totals(uuid.New()); known {
		t.Error("a tenant that is not there has totals")
	}

	// Young ones are not measured again.
	d.store(t, globex, uuid.New(), 1, 1)
	for range 2 {
		if err := r.maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := query[int64](t, d, "SELECT wallets FROM tenant_totals WHERE tenant_id = $1", globex); n != want[globex].Wallets {
		t.Errorf("measured again: %d wallets", n)
	}
	maintained(t, d, r)
	if n := query[int64](t, d, "SELECT wallets FROM tenant_totals WHERE tenant_id = $1", globex); n != want[globex].Wallets+1 {
		t.Errorf("old ones were not measured again: %d wallets", n)
	}
}

func TestSlicesAreAllWalletsAndMeetNowhere(t *testing.T) {
	t.Parallel()
	for _, n := range []uint64{1, 2, 3, 16, 17, 1000, 65536} {
		next := uuid.UUID{}
		for i := range n {
			p := slice(i, n)
			if p.First != next {
				t.Fatalf("slice %d of %d begins at %v, want %v", i, n, p.First, next)
			}
			next = p.Last
			for j := len(next) - 1; j >= 0; j-- {
				if next[j]++; next[j] != 0 {
					break
				}
			}
		}
		if next != (uuid.UUID{}) {
			t.Errorf("the last of %d ends before %v", n, next)
		}
	}
}

func TestByteHoursOfADayAndAMonthAreTheSumOfTheHoursSamples(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	now := time.Date(2031, 2, 27, 0, 3, 0, 0, time.UTC)
	r, _ := newRecorder(open(t, d.url), RecorderConfig{Now: func() time.Time { return now }})
	tenant, wallet := uuid.New(), uuid.New()
	d.store(t, tenant, wallet, 3, 1000)
	want := map[string]int64{}
	for end := now.AddDate(0, 0, 4); now.Before(end); now = now.Add(20 * time.Minute) {
		size := int64(now.Sub(time.Date(2031, 2, 27, 0, 0, 0, 0, time.UTC)).Minutes()) // at any time
		d.sql(t, "UPDATE stores SET bytes = $1", size)
		if now.Minute() < 20 {
			want["day "+now.Format("2006-01-02")] += size
			want["month "+month(now, 0).Format("2006-01-02")] += size
		}
		maintained(t, d, r)
	}
	maintained(t, d, r) // rolls up, and then takes the first sample of another day
	got := query[map[string]int64](t, d, `SELECT json_object_agg(grain || to_char(start AT TIME ZONE 'UTC', ' YYYY-MM-DD'), value)
		FROM usage WHERE metric = 'stored_bytes' AND grain <> 'hour'`)
	wantUsage(t, got, want)
	if n := query[int64](t, d, "SELECT value FROM usage WHERE metric = 'stored_objects' AND grain = 'day' AND start = '2031-02-28'"); n != 24*3 {
		t.Errorf("%d object hours, want 72", n)
	}
}

// sums are days and months as they must be, by the hours.
const sums = `SELECT coalesce(json_agg(row(a.*, b.*)), '[]')::text FROM
	(SELECT tenant_id, g.grain, date_trunc(g.grain, start, 'UTC') AS start, metric, sum(value) AS value
	   FROM usage, (VALUES ('day'), ('month')) g (grain) WHERE usage.grain = 'hour' GROUP BY 1, 2, 3, 4) a
	FULL JOIN (SELECT * FROM usage WHERE grain <> 'hour' AND metric <> 'active_wallets') b USING (tenant_id, grain, start, metric)
	WHERE a.value IS DISTINCT FROM b.value`

func TestRollUpsAreTheSumsOfTheirHoursAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	now := time.Date(2031, 1, 27, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	pool := open(t, d.url)
	on, _ := newRecorder(pool, RecorderConfig{Now: clock})
	var instances []*Recorder
	var meters []*Meter
	for range 2 {
		r, m := newRecorder(pool, RecorderConfig{Now: clock})
		instances, meters = append(instances, r), append(meters, m)
	}
	d.store(t, uuid.New(), uuid.New(), 1, 1)
	random := rand.New(rand.NewPCG(3, 4))
	for range 12 * 24 / 3 {
		for range 20 {
			meters[random.IntN(2)].Record(now.Add(-time.Duration(random.Int64N(int64(3*time.Hour)))),
				Request{Tenant: uuid.UUID{byte(random.IntN(3) + 1)}, Operation: Operation(random.IntN(4)), In: 1, Out: 5})
		}
		if random.IntN(6) == 0 {
			flushed(t, instances[0])
		}
		if random.IntN(25) == 0 { // its batches are days late
			flushed(t, instances[1])
		}
		if random.IntN(4) > 0 {
			maintained(t, d, on)
		}
		now = now.Add(3 * time.Hour)
	}
	flushed(t, instances[0])
	flushed(t, instances[1])
	for range 2 {
		maintained(t, d, on)
		// The hour's sample comes after the roll-up.
		d.sql(t, "DELETE FROM usage WHERE metric LIKE 'stored%'")
		if wrong := query[string](t, d, sums); wrong != "[]" {
			t.Errorf("not the sums: %.500s", wrong)
		}
	}
	if n := query[int](t, d, "SELECT count(*) FROM usage WHERE grain = 'month'"); n < 2*3*6 {
		t.Errorf("only %d rows of months", n)
	}
}

// The platform stands still for days, and the day on which it stopped is rolled up when it is back.
func TestADayIsRolledUpHoweverLongNobodyMaintained(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	now := time.Date(2031, 1, 27, 22, 0, 0, 0, time.UTC)
	r, meter := newRecorder(open(t, d.url), RecorderConfig{Now: func() time.Time { return now }})
	d.store(t, uuid.New(), uuid.New(), 1, 1)
	maintained(t, d, r)
	meter.Record(now, Request{Tenant: uuid.UUID{1}})
	flushed(t, r)
	now = now.AddDate(0, 0, 20)
	maintained(t, d, r)
	if n := query[int](t, d, "SELECT count(*) FROM usage WHERE grain <> 'hour' AND metric = 'requests.getObject.succeeded' AND value = 1"); n != 2 {
		t.Errorf("%d rows of the day and the month, want 2", n)
	}
}

func TestPruningTakesWhatIsTooOldAndLeavesTheRest(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	now := time.Date(2031, 6, 2, 5, 0, 0, 0, time.UTC)
	r, _ := newRecorder(open(t, d.url), RecorderConfig{Now: func() time.Time { return now }})
	d.store(t, uuid.New(), uuid.New(), 1, 1)
	d.sql(t, `INSERT INTO usage (tenant_id, grain, start, metric, value)
		SELECT md5(t::text)::uuid, grain, '2031-06-02 05:00Z'::timestamptz - h * interval '6 hours', 'old', 1
		  FROM generate_series(0, 500) h, generate_series(1, 50) t, (VALUES ('hour'), ('day')) g (grain)`)
	d.sql(t, `INSERT INTO active_wallets (grain, start, tenant_id, wallet)
		SELECT grain, '2031-06-02'::date - b, md5('t')::uuid, md5(w::text)::uuid
		  FROM generate_series(0, 70) b, generate_series(1, 300) w, (VALUES ('day'), ('month')) g (grain)
		 WHERE grain = 'day' OR extract(day FROM '2031-06-02'::date - b) = 1`)
	d.sql(t, "INSERT INTO meter_batches VALUES ($1, 1, now() - interval '91 days'), ($2, 1, now() - interval '89 days')", uuid.New(), uuid.New())
	d.sql(t, "INSERT INTO instances (id, host, version, seen_at) VALUES ($1, '', '', now() - interval '25 hours'), ($2, '', '', now() - interval '23 hours')", uuid.New(), uuid.New())
	if _, err := r.prune(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if _, err := r.forget(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		"SELECT count(*) FROM usage WHERE grain = 'day'": fmt.Sprint(501 * 50),
		// From midnight 90 days ago on, which is 89 days and four samples today, one of which is 05:00.
		"SELECT count(*) || ' ' || min(start AT TIME ZONE 'UTC')::date FROM usage WHERE grain = 'hour'": fmt.Sprint((90*4+1)*50, " 2031-03-04"),
		"SELECT count(*) || ' ' || min(start) FROM active_wallets WHERE grain = 'day'":                  fmt.Sprint(4*300, " 2031-05-30"),
		"SELECT count(*) || ' ' || min(start) FROM active_wallets WHERE grain = 'month'":                fmt.Sprint(2*300, " 2031-05-01"),
		"SELECT count(*) FROM meter_batches":                                                            "1",
		"SELECT count(*) FROM instances":                                                                "1",
	} {
		if got := query[string](t, d, "SELECT ("+what+")::text"); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
}

func TestEventsAndStatesThatAreOverGoAfter400Days(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	tenant := d.tenant(t, "a")
	r, _ := newRecorder(open(t, d.url), RecorderConfig{})
	// One on each of the last 500, and more than two pieces that are older.
	d.sql(t, `INSERT INTO events (tenant_id, kind, subject, state, at)
		SELECT $1, 'storage_soft', 's', 'raised', at FROM (
			SELECT now() - n * interval '1 day' + interval '12 hours' AS at FROM generate_series(0, 499) n
			UNION ALL SELECT now() - interval '1000 days' FROM generate_series(1, $2)) old ORDER BY at`, tenant, 2*piece+1)
	d.sql(t, `INSERT INTO event_states (tenant_id, kind, subject, state, since)
		SELECT $1, 'storage_soft', state || n, state, now() - n % 500 * interval '1 day' + interval '12 hours'
		  FROM generate_series(0, 500 * 60 - 1) n, (VALUES ('ok'), ('raised')) s (state) WHERE state = 'ok' OR n < 500`, tenant)
	if ours, err := r.prune(t.Context(), time.Now()); err != nil || !ours {
		t.Fatal(ours, err)
	}
	for what, want := range map[string]string{
		"SELECT count(*) || ' ' || extract(day FROM now() - min(at)) FROM events":                                 "401 399",
		"SELECT count(*) || ' ' || extract(day FROM now() - min(since)) FROM event_states WHERE state = 'ok'":     fmt.Sprint(401*60, " 399"),
		"SELECT count(*) || ' ' || extract(day FROM now() - min(since)) FROM event_states WHERE state = 'raised'": "500 498",
	} {
		if got := query[string](t, d, what); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	// What went is as it was: OK, and raised again it is an event.
	e := newTestEvents(open(t, d.url))
	e.Raise(tenant, StorageSoft, "ok499", Raised, nil)
	settled(t, e)
	if n := query[int](t, d, "SELECT count(*) FROM events WHERE subject = 'ok499'"); n != 1 {
		t.Errorf("%d events", n)
	}
}

// Each transaction removes a piece, and between two the lock is free.
func TestPruningIsDoneInPieces(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	proxy := dbtest.NewProxy(t, d.url)
	var pieces atomic.Int32
	proxy.OnStatement(func(s string) {
		if strings.Contains(s, "PruneHours") {
			pieces.Add(1)
		}
	})
	r, _ := newRecorder(open(t, proxy.URL()), RecorderConfig{})
	d.sql(t, "INSERT INTO usage SELECT gen_random_uuid(), 'hour', now() - interval '100 days', 'old', 1 FROM generate_series(1, $1)", 3*piece+1)
	if _, err := r.prune(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, d, "SELECT count(*) FROM usage"); n != 0 || pieces.Load() != 4 {
		t.Errorf("%d rows are left after %d pieces, want none after 4", n, pieces.Load())
	}
}

// With many instances and a long measure somebody's turn always comes while it lasts.
func TestAMeasureIsOneSnapshotAndHoldsUpNothing(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.store(t, uuid.New(), uuid.New(), 1, 1)
	proxy, others := dbtest.NewProxy(t, d.url), dbtest.NewProxy(t, d.url)
	r, _ := newRecorder(open(t, proxy.URL()), RecorderConfig{})
	other, _ := newRecorder(open(t, others.URL()), RecorderConfig{})
	var slices, maintained atomic.Int32
	const held = `SELECT coalesce(string_agg(DISTINCT l.relation::regclass::text, ' '), '') || count(a.backend_xmin) || count(a.backend_xid)
		  FROM pg_stat_activity a JOIN pg_locks l USING (pid) WHERE a.datname = current_database() AND a.state = 'idle in transaction'`
	others.OnStatement(func(s string) {
		if strings.Contains(s, "RollUp") || strings.Contains(s, "MeasureSlice") {
			maintained.Add(1)
		}
	})
	proxy.OnStatement(func(s string) {
		slice := strings.Contains(s, "MeasureSlice")
		if slice {
			slices.Add(1)
		}
		if n := slices.Load(); n == 0 || n == 16 && !slice {
			return // it measures not yet, or no more
		}
		if err := other.maintain(t.Context()); err != nil {
			t.Error(err)
		}
		if !slice || slices.Load() == 1 { // which was just prepared
			return
		}
		conn, err := pgx.Connect(t.Context(), d.url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(t.Context())
		var got string
		if err := conn.QueryRow(t.Context(), held).Scan(&got); err != nil || got != "00" {
			t.Errorf("it holds %s, %v", got, err)
		}
	})
	if err := r.maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, d, "SELECT count(*) FROM tenant_totals"); n != 1 || slices.Load() != 16 || maintained.Load() != 0 {
		t.Errorf("%d tenants after %d slices, and another did %d steps", n, slices.Load(), maintained.Load())
	}
}

func TestAMeasureThatBreaksOffLeavesItsLockToOthers(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.store(t, uuid.New(), uuid.New(), 1, 1)
	proxy := dbtest.NewProxy(t, d.url)
	var slices atomic.Int32
	proxy.Inspect(func(statements []string) dbtest.Action {
		for _, s := range statements {
			if strings.Contains(s, "MeasureSlice") && slices.Add(1) == 5 {
				return dbtest.CutAfter
			}
		}
		return dbtest.Pass
	})
	r, _ := newRecorder(open(t, proxy.URL()), RecorderConfig{})
	if err := r.maintain(t.Context()); err == nil {
		t.Error("it did not break off")
	}
	other, _ := newRecorder(open(t, d.url), RecorderConfig{})
	eventually(t, "another measures", func() bool {
		if err := other.maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		return query[int](t, d, "SELECT count(*) FROM tenant_totals") == 1
	})
}

func TestOneInstanceMaintainsWhileTheOthersGoOn(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	pool := open(t, d.url)
	d.store(t, uuid.New(), uuid.New(), 1, 1)
	r, meter := newRecorder(pool, RecorderConfig{})
	tx, err := d.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('vss-cloud usage', 0))"); err != nil {
		t.Fatal(err)
	}
	meter.Record(time.Now(), Request{Tenant: uuid.UUID{1}})
	if err := r.maintain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.flush(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := tx.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, d, "SELECT count(*) FROM tenant_totals"); n != 0 {
		t.Error("two maintained at once")
	}
	// Any number at once ends well.
	var instances sync.WaitGroup
	for range 4 {
		r, _ := newRecorder(pool, RecorderConfig{})
		instances.Go(func() {
			if err := r.maintain(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	instances.Wait()
	if n := query[int](t, d, "SELECT count(*) FROM tenant_totals"); n != 1 {
		t.Error("nobody maintained")
	}
}
