package usage

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
)

// books is a database as far as the meter's is one: what was stored, and the last number of each instance.
type books struct {
	last   map[uuid.UUID]int64
	hours  map[hour]*Counts
	active map[Active]bool
	lost   int64
}

func newBooks() *books {
	return &books{last: map[uuid.UUID]int64{}, hours: map[hour]*Counts{}, active: map[Active]bool{}}
}

func (b *books) store(batch *Batch) {
	if batch.Sequence <= b.last[batch.Instance] {
		return
	}
	b.last[batch.Instance] = batch.Sequence
	for _, h := range batch.Hours {
		key := hour{h.Tenant, h.Start.Unix() / 3600}
		if b.hours[key] == nil {
			b.hours[key] = &Counts{}
		}
		b.hours[key].add(&h.Counts)
	}
	for _, a := range batch.Active {
		b.active[a] = true
	}
	b.lost += batch.Lost
}

// count is what Record should do, one request after the other.
func (b *books) count(at time.Time, r Request) {
	key := hour{r.Tenant, at.Truncate(time.Hour).Unix() / 3600}
	if b.hours[key] == nil {
		b.hours[key] = &Counts{}
	}
	c := b.hours[key]
	c.Requests[r.Operation][r.Outcome]++
	if r.Outcome == Refused {
		c.Refused[r.Reason]++
	}
	c.In += r.In
	c.Out += r.Out
	if r.Enrolled {
		c.Enrolled++
	}
	if r.Known {
		b.active[Active{r.Tenant, at.UTC().Truncate(24 * time.Hour), r.Wallet}] = true
	}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// 1e5 requests of 8 goroutines, of 3 days, while batches are stored, some twice since an answer was lost, some
// at the second try since the first did nothing.
func TestCountsAreExactWhateverBecomesOfAFlush(t *testing.T) {
	m, stored := NewMeter(MeterConfig{}), newBooks()
	flush := func(r *rand.Rand) {
		b := m.Take()
		if b == nil {
			return
		}
		switch r.IntN(3) {
		case 0: // committed, and the answer was lost
			stored.store(b)
			return
		case 1: // not committed
			return
		}
		stored.store(b)
		m.Acknowledge(b.Sequence)
	}
	var wg sync.WaitGroup
	counted := make([]*books, 8)
	for g := range counted {
		counted[g] = newBooks()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			for range 12_500 {
				wallet := r.IntN(2000)
				req := Request{
					Tenant: customer(wallet % 7), Wallet: nth(wallet), Operation: Operation(r.IntN(operations)), Outcome: Outcome(r.IntN(outcomes)),
					Reason: quota.Reason(r.IntN(quota.Reasons)), In: r.Int64N(1000), Out: r.Int64N(1000), Known: wallet%3 > 0, Enrolled: r.IntN(100) == 0,
				}
				if wallet == 0 {
					req.Wallet = quota.Key{}
				}
				at := noon.Add(time.Duration(r.Int64N(int64(72 * time.Hour))))
				m.Record(at, req)
				counted[g].count(at, req)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	r := rand.New(rand.NewPCG(1, 4))
	for running := true; running; flush(r) {
		select {
		case <-done:
			running = false
		default:
		}
	}
	for m.Take() != nil {
		flush(r)
	}
	want := newBooks()
	for _, one := range counted {
		for key, c := range one.hours {
			if want.hours[key] == nil {
				want.hours[key] = &Counts{}
			}
			want.hours[key].add(c)
		}
		for a := range one.active {
			want.active[a] = true
		}
	}
	if !reflect.DeepEqual(stored.hours, want.hours) {
		t.Error("the counts are not those of the requests")
	}
	if !reflect.DeepEqual(stored.active, want.active) {
		t.Errorf("%d active wallets are stored, there were %d", len(stored.active), len(want.active))
	}
	if stored.lost != 0 {
		t.Errorf("%d requests were lost", stored.lost)
	}
}

func TestABatchStaysTheSameUntilItIsAcknowledged(t *testing.T) {
	m := NewMeter(MeterConfig{})
	if b := m.Take(); b != nil {
		t.Fatalf("nothing happened, and there is %+v", b)
	}
	put := Request{Tenant: acme, Wallet: nth(1), Operation: PutObjects, In: 10, Out: 1, Known: true}
	m.Record(noon, put)
	first := m.Take()
	want := Batch{
		Instance: m.instance, Sequence: 1,
		Hours:  []Hour{{acme, noon, Counts{In: 10, Out: 1}}},
		Active: []Active{{acme, noon.Truncate(24 * time.Hour), nth(1)}},
	}
	want.Hours[0].Requests[PutObjects][Succeeded] = 1
	if !reflect.DeepEqual(*first, want) {
		t.Fatalf("got %+v\nwant %+v", *first, want)
	}
	m.Record(noon, put)
	m.Acknowledge(0)
	m.Acknowledge(2)
	if again := m.Take(); again != first || !reflect.DeepEqual(*again, want) {
		t.Errorf("it was not acknowledged, and became %+v", again)
	}
	m.Acknowledge(1)
	want.Sequence, want.Active = 2, nil // who was active today is known
	if second := m.Take(); !reflect.DeepEqual(*second, want) {
		t.Errorf("got %+v\nwant %+v", *second, want)
	}
	m.Acknowledge(1) // comes late
	if m.Take() == nil {
		t.Error("the acknowledgement of the first batch was one of the second")
	}
	m.Acknowledge(2)
	if b := m.Take(); b != nil {
		t.Errorf("nothing new happened, and there is %+v", b)
	}
	if NewMeter(MeterConfig{}).instance == m.instance {
		t.Error("two runs have the same id")
	}
}

func TestAWalletIsActiveOncePerDayAndOnlyIfItIsKnown(t *testing.T) {
	m := NewMeter(MeterConfig{})
	m.Record(noon, Request{Tenant: acme, Wallet: nth(1)})
	m.Record(noon, Request{Tenant: acme, Known: true}) // whose credential does not verify
	for at := noon; at.Before(noon.Add(36 * time.Hour)); at = at.Add(time.Hour) {
		m.Record(at, Request{Tenant: acme, Wallet: nth(2), Known: true})
	}
	var days []string
	for _, a := range m.Take().Active {
		if a.Wallet != nth(2) {
			t.Errorf("%+v is active", a)
		}
		days = append(days, a.Day.Format(time.DateOnly))
	}
	if want := []string{"2026-01-02", "2026-01-03"}; !reflect.DeepEqual(days, want) {
		t.Errorf("active on %v, want %v", days, want)
	}
}

func TestTheMetersMemoryIsBoundedAndWhatItLosesIsSaid(t *testing.T) {
	m := NewMeter(MeterConfig{Rows: 160, Wallets: 1600})
	const wallets = 50_000
	for n := range wallets {
		m.Record(noon, Request{Tenant: customer(n % 500), Wallet: nth(n), Known: true})
	}
	b := m.Take()
	var counted int64
	for _, h := range b.Hours {
		counted += h.Requests[GetObject][Succeeded]
	}
	if len(b.Hours) > 160 || len(b.Active) != 1600 {
		t.Errorf("%d rows and %d wallets, 160 and 1600 are allowed", len(b.Hours), len(b.Active))
	}
	if b.Lost == 0 || counted+b.Lost != wallets {
		t.Errorf("%d requests counted and %d lost, there were %d", counted, b.Lost, wallets)
	}
	if m.Record(noon, Request{Tenant: acme, Wallet: nth(1)}); m.Take() != b {
		t.Error("a second batch was made before the first was acknowledged")
	}

	// Those beyond it are counted when they come again.
	seen := map[quota.Key]bool{}
	for range 10 {
		for _, a := range b.Active {
			seen[a.Wallet] = true
		}
		m.Acknowledge(b.Sequence)
		for n := range 5000 {
			m.Record(noon, Request{Tenant: acme, Wallet: nth(n), Known: true})
		}
		b = m.Take()
	}
	for n := range 5000 {
		if !seen[nth(n)] {
			t.Fatalf("wallet %d was never counted", n)
		}
	}
	if size := unsafe.Sizeof(Counts{}) + unsafe.Sizeof(hour{}) + 8; size > 400 {
		t.Errorf("a row takes %d bytes, the documentation says 400", size)
	}
}

func BenchmarkRecord(b *testing.B) {
	const wallets = 100_000
	m := NewMeter(MeterConfig{})
	known := make([]quota.Key, wallets)
	for n := range known {
		known[n] = nth(n)
		m.Record(noon, Request{Tenant: acme, Wallet: known[n], Known: true})
	}
	run := func(next func() bool) {
		r := rand.New(rand.NewPCG(1, 2))
		for next() {
			m.Record(noon, Request{Tenant: acme, Wallet: known[r.IntN(wallets)], Operation: PutObjects, In: 700, Known: true})
		}
	}
	b.Run("one", func(b *testing.B) { b.ReportAllocs(); run(b.Loop) })
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) { run(pb.Next) })
	})
}

// What a tenant of a million wallets costs, each of which is active three times, in batches of 100,000 requests.
func BenchmarkAMillionActiveWallets(b *testing.B) {
	const wallets = 1_000_000
	all := make([]quota.Key, wallets)
	for n := range all {
		all[n] = nth(n)
	}
	var rows int
	for b.Loop() {
		m, r := NewMeter(MeterConfig{}), rand.New(rand.NewPCG(1, 2))
		for n := range 3 * wallets {
			wallet := n // in order, and then at random
			if n >= wallets {
				wallet = r.IntN(wallets)
			}
			m.Record(noon, Request{Tenant: acme, Wallet: all[wallet], Known: true})
			if n%100_000 == 99_999 {
				batch := m.Take()
				rows += len(batch.Active)
				m.Acknowledge(batch.Sequence)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(3*wallets*b.N), "ns/request")
	b.ReportMetric(float64(rows)/float64(wallets*b.N), "rows/wallet")
}

var acme = customer(1)

// customer is the n-th tenant.
func customer(n int) uuid.UUID { return uuid.UUID{15: byte(n), 14: byte(n >> 8), 0: 1} }

// nth is a key like those of wallets.
func nth(n int) (k quota.Key) {
	r := rand.NewPCG(uint64(n), 1)
	binary.LittleEndian.PutUint64(k[:], r.Uint64())
	binary.LittleEndian.PutUint64(k[8:], r.Uint64())
	return k
}
