package quota

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// customer is the nth tenant.
func customer(n int) uuid.UUID { return uuid.UUID{15: byte(n), 14: byte(n >> 8), 0: 1} }

// What a queue promises at every moment, through any calls in any order.
func TestAQueueKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := QueueConfig{
			Places:      rapid.IntRange(1, 20).Draw(t, "places"),
			WritePlaces: rapid.IntRange(0, 20).Draw(t, "write places"),
			Depth:       rapid.IntRange(1, 6).Draw(t, "depth"),
		}
		q := NewQueue(cfg)
		now := time.Unix(1e9, 0)
		var all []*ticket
		kindOf := map[*ticket]Kind{}
		granted := map[*ticket]bool{} // as of the last step
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1, 2:
				tk, kind := &ticket{}, Kind(rapid.IntRange(0, 2).Draw(t, "kind"))
				if rapid.Bool().Draw(t, "has a deadline") {
					tk.deadline = now.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "deadline")))
				}
				who := Entrant{
					Tenant: customer(rapid.IntRange(0, 3).Draw(t, "tenant")), Weight: rapid.IntRange(0, 20).Draw(t, "weight"),
					Stranger: rapid.Bool().Draw(t, "stranger"),
				}
				before := 0
				for other := range kindOf {
					if other.state == waiting && other.line.tenant == who.Tenant && (other.in == &other.line.strangers) == who.Stranger &&
						(kindOf[other] == Write) == (kind == Write) {
						before++
					}
				}
				depth := cfg.Depth
				if kind == List {
					depth = (depth + 1) / 2
				}
				if err := q.join(tk, who, kind, now); err != nil {
					if before < depth {
						t.Fatalf("a %v is refused with %d waiting, %d may", kind, before, depth)
					}
					continue
				}
				all, kindOf[tk] = append(all, tk), kind
			case 3, 4:
				if len(all) > 0 {
					q.leave(all[rapid.IntRange(0, len(all)-1).Draw(t, "who")], now)
				}
			default:
				now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "step")))
			}

			var busy, writes int
			held, lines := map[*line]int{}, map[*line]int{}
			for _, tk := range all {
				switch tk.state {
				case inside:
					busy++
					held[tk.line]++
					if kindOf[tk] == Write {
						writes++
					}
					switch most := tk.line.lane.most(tk.line.tenant, now); {
					case granted[tk]:
					case tk.line.held > most:
						t.Fatalf("a tenant got a place and holds %d, %d are allowed", tk.line.held, most)
					case !tk.deadline.IsZero() && !now.Before(tk.deadline):
						t.Fatal("a call got a place after its deadline")
					}
				case waiting:
					lines[tk.line]++
				}
				granted[tk] = tk.state == inside
			}
			if busy != q.busy || busy > cfg.Places || writes > q.lanes[1].places {
				t.Fatalf("%d places are held (it says %d), %d by writes; there are %d, %d for writes", busy, q.busy, writes, cfg.Places, q.lanes[1].places)
			}
			for in, n := range held {
				if n != in.held {
					t.Fatalf("a tenant holds %d places (it says %d)", n, in.held)
				}
			}
			for in, n := range lines {
				if busy < cfg.Places && in.lane.busy < in.lane.places && in.held < in.lane.most(in.tenant, now) {
					t.Fatalf("%d calls wait for a place that is free", n)
				}
				for _, part := range []*list.List{&in.known, &in.strangers} {
					for _, tk := range all {
						if tk.in == part && tk.state == waiting {
							if tk != part.Front().Value.(*ticket) {
								t.Fatal("a line is out of order")
							}
							break
						}
					}
				}
			}
			for i := range q.lanes {
				for _, in := range q.lanes[i].lines {
					if held[in]+lines[in] == 0 {
						t.Fatal("a tenant that has nothing is remembered")
					}
				}
			}
		}
	})
}

func TestPlacesGoToTenantsInTurnByWeight(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := NewQueue(QueueConfig{Places: 1, WritePlaces: 1})
	weights := map[int]int{3: 3 * OrdinaryWeight} // nothing is as an ordinary one
	var order []int
	names := map[*ticket]int{}
	join := func(n, calls int) {
		for range calls {
			tk := &ticket{}
			names[tk] = n
			if err := q.join(tk, Entrant{Tenant: customer(n), Weight: weights[n]}, Write, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	join(1, 8)
	join(2, 3)
	join(3, 6)
	for range 17 {
		for tk, n := range names {
			if tk.state == inside {
				order = append(order, n)
				q.leave(tk, now)
				break
			}
		}
	}
	const want = "[1 2 3 3 3 1 2 3 3 3 1 2 1 1 1 1 1]"
	if got := fmt.Sprint(order); got != want {
		t.Errorf("the order is %s,\nwant %s", got, want)
	}
}

// A store with more to do than it can is shared by what tenants pay for, also between fractions of a place.
func TestATenantHoldsPlacesInProportionToItsWeight(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := NewQueue(QueueConfig{Places: 16, WritePlaces: 16})
	weights := []int{OrdinaryWeight / 4, OrdinaryWeight, 2 * OrdinaryWeight}
	var all []*ticket
	for range 100 {
		for n, weight := range weights {
			tk := &ticket{}
			if err := q.join(tk, Entrant{Tenant: customer(n), Weight: weight}, Write, now); err != nil {
				t.Fatal(err)
			}
			all = append(all, tk)
		}
	}
	for _, tk := range all[:150] { // until it has settled
		if tk.state == inside {
			q.leave(tk, now)
		}
	}
	for n, weight := range weights {
		held, share := q.lanes[1].lines[customer(n)].held, 16*float64(weight)/13
		if math.Abs(float64(held)-share) > 1 {
			t.Errorf("with a weight of %d of 13 a tenant holds %d places of 16", weight, held)
		}
	}
}

func TestStrangersNeitherFillTheKnownWalletsLineNorStarve(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := NewQueue(QueueConfig{Places: 1, WritePlaces: 1, Depth: 8})
	join := func(stranger bool) (*ticket, error) {
		tk := &ticket{}
		return tk, q.join(tk, Entrant{Tenant: acme, Stranger: stranger}, Write, now)
	}
	holder, err := join(true)
	if err != nil {
		t.Fatal(err)
	}
	var waits []*ticket
	for range 8 {
		tk, err := join(true)
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, tk)
	}
	if _, err := join(true); err != ErrQueueFull {
		t.Errorf("one stranger too many gets %v", err)
	}
	for range 8 {
		tk, err := join(false)
		if err != nil {
			t.Fatalf("behind a flood of strangers a known wallet gets %v", err)
		}
		waits = append(waits, tk)
	}
	order := ""
	for q.leave(holder, now); q.busy > 0; q.leave(holder, now) {
		for i, tk := range waits {
			if tk.state == inside {
				holder = tk
				order += map[bool]string{true: "s", false: "K"}[i < 8]
			}
		}
	}
	if want := "KKKsKKKsKKssssss"; order != want {
		t.Errorf("the order is %s, want %s", order, want)
	}
}

func TestATenantHoldsAllPlacesOnlyWhileItIsAlone(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := NewQueue(QueueConfig{Places: 16}) // 12 for writes
	holds := func(tenant uuid.UUID) int {
		for range 20 {
			if err := q.join(&ticket{}, Entrant{Tenant: tenant}, Write, now); err != nil {
				t.Fatal(err)
			}
		}
		return q.lanes[1].lines[tenant].held
	}
	if n := holds(acme); n != 12 {
		t.Errorf("alone it holds %d places of 12", n)
	}
	q = NewQueue(QueueConfig{Places: 16})
	if err := q.join(&ticket{}, Entrant{Tenant: bolt}, Write, now); err != nil {
		t.Fatal(err)
	}
	if n := holds(acme); n != 9 {
		t.Errorf("with another that holds 1 it holds %d places of 12, want three quarters", n)
	}
	now = now.Add(others)
	if n := holds(acme); n != 11 {
		t.Errorf("when the other hasn't come for long it holds %d places of 12, want all but the other's", n)
	}
}

func TestWritesAndReadsDoNotHoldUpEachOther(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, flood := range []Kind{Write, Read} {
		other := Read
		if flood == Read {
			other = Write
		}
		q := NewQueue(QueueConfig{Places: 4})
		var in []*ticket
		for range 20 {
			tk := &ticket{}
			if err := q.join(tk, Entrant{Tenant: acme}, flood, now); err != nil {
				t.Fatal(err)
			}
			in = append(in, tk)
		}
		tk := &ticket{}
		if err := q.join(tk, Entrant{Tenant: acme}, other, now); err != nil {
			t.Fatal(err)
		}
		if flood == Write && tk.state != inside {
			t.Error("writes took all places, 3 of 4 are theirs")
		}
		q.leave(in[0], now)
		if tk.state != inside {
			t.Errorf("the place that a %v left did not go to the first %v", flood, other)
		}
	}
}

// CONTRACT section 5: lists go before reads and writes do.
func TestListsAreRefusedFirstAndWritesAreNeverRefusedForReads(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := NewQueue(QueueConfig{Places: 1, Depth: 4})
	join := func(k Kind) error { return q.join(&ticket{}, Entrant{Tenant: acme}, k, now) }
	for _, step := range []struct {
		kind Kind
		want error
	}{
		{Read, nil}, // has the place
		{Read, nil}, {List, nil}, {List, ErrQueueFull}, {Read, nil}, {Read, nil}, {Read, ErrQueueFull}, {List, ErrQueueFull},
		{Write, nil}, {Write, nil}, {Write, nil}, {Write, nil}, {Write, ErrQueueFull},
	} {
		if err := join(step.kind); err != step.want {
			t.Fatalf("a %v gets %v, want %v", step.kind, err, step.want)
		}
	}
	if err := q.join(&ticket{}, Entrant{Tenant: bolt}, List, now); err != nil {
		t.Errorf("another tenant gets %v", err)
	}
}

func TestACallThatIsCancelledLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(QueueConfig{Places: 1})
		leave, err := q.Enter(t.Context(), Entrant{Tenant: acme}, Write)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		go func() { _, err := q.Enter(ctx, Entrant{Tenant: bolt}, Write); got <- err }()
		synctest.Wait()
		cancel()
		if err := <-got; err != context.Canceled {
			t.Errorf("it ends with %v", err)
		}
		if n := len(q.lanes[1].lines); n != 1 {
			t.Errorf("%d tenants are in the queue, want the one inside", n)
		}
		if _, err := q.Enter(ctx, Entrant{Tenant: bolt}, Write); err != context.Canceled {
			t.Errorf("a call that is cancelled before gets %v", err)
		}
		leave()
		leave() // does nothing
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = q.Enter(ctx, Entrant{Tenant: bolt}, Write)
		}
		if err != ErrQueueTimeout {
			t.Errorf("leaving twice freed two places: %v", err)
		}
	})
}

func TestACallPastItsDeadlineIsNeverLetInEvenIfItsTimerIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead time.Duration // of the contexts' timers
		q := NewQueue(QueueConfig{Places: 1, Now: func() time.Time { return time.Now().Add(ahead) }})
		leave, err := q.Enter(t.Context(), Entrant{Tenant: acme}, Write)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		got := make(chan error)
		go func() { _, err := q.Enter(ctx, Entrant{Tenant: bolt}, Write); got <- err }()
		synctest.Wait()
		ahead = time.Minute
		leave()
		if err := <-got; err != ErrQueueTimeout || time.Since(began) > 0 {
			t.Errorf("it ends with %v after %v", err, time.Since(began))
		}
		if _, err := q.Enter(ctx, Entrant{Tenant: bolt}, Write); err != ErrQueueTimeout {
			t.Errorf("there is a place, and a call that is too late gets %v", err)
		}
		if q.busy != 0 || len(q.lanes[1].lines) != 0 {
			t.Errorf("%d places are held", q.busy)
		}
	})
}

func TestAQueueIsSafeForConcurrentUse(t *testing.T) {
	q := NewQueue(QueueConfig{Places: 4, Depth: 8})
	var inside, most, served atomic.Int64
	var wg sync.WaitGroup
	for g := range 40 {
		wg.Go(func() {
			for n := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of which none is needed
				if (g+n)%7 == 0 {
					go cancel()
				}
				if leave, err := q.Enter(ctx, Entrant{Tenant: customer(g % 5)}, Kind(n%3)); err == nil {
					now := inside.Add(1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					served.Add(1)
					inside.Add(-1)
					leave()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > 4 || served.Load() == 0 {
		t.Errorf("%d calls were inside at once, %d in all", most.Load(), served.Load())
	}
	if q.busy != 0 || len(q.lanes[0].lines)+len(q.lanes[1].lines) != 0 {
		t.Errorf("%d places are held when all have left", q.busy)
	}
}

func BenchmarkEnter(b *testing.B) {
	q := NewQueue(QueueConfig{Places: 64})
	b.ReportAllocs()
	for b.Loop() {
		leave, err := q.Enter(b.Context(), Entrant{Tenant: acme}, Write)
		if err != nil {
			b.Fatal(err)
		}
		leave()
	}
}
