package quota

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

// nth is a key like those of wallets.
func nth(n int) (k Key) {
	r := rand.NewPCG(uint64(n), 1)
	binary.LittleEndian.PutUint64(k[:], r.Uint64())
	binary.LittleEndian.PutUint64(k[8:], r.Uint64())
	return k
}

var perSecond = Rate{Interval: time.Second, Burst: 10}

// exhaust takes until the key is refused and says how often it was admitted.
func exhaust(t *Table, key Key, r Rate, now time.Duration) (n int) {
	for v, _ := t.take(key, 0, r, now, 0); v.OK; v, _ = t.take(key, 0, r, now, 0) {
		n++
	}
	return n
}

func TestAKeyThatIsKnownGetsExactlyItsRateWhateverStrangersDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := NewTable(1, 1) // all strangers of a shard share one cell
		r := anyRate.Draw(t, "rate")
		now, b, key := time.Hour, Bucket(0), nth(0)
		table.Own(key, 1)
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			now += step(t, r)
			for n := range rapid.IntRange(0, 200).Draw(t, "strangers") {
				table.take(nth(n+1), 0, r, now, MaxDelay)
			}
			var want Verdict
			b, want = r.Take(b, now, 0)
			if got, own := table.take(key, 0, r, now, 0); got != want || !own {
				t.Fatalf("got %+v (own %t), alone it would get %+v", got, own, want)
			}
		}
	})
}

// The promise of the table: to be evicted, by whomever, to come back and to be known again, in any order and
// as often as one likes, never admits a call that the rate alone would not.
func TestNoKeyGetsMoreThanItsRateHoweverOftenItIsEvicted(t *testing.T) {
	r := Rate{Interval: time.Second, Burst: 5}
	rapid.Check(t, func(t *rapid.T) {
		table := NewTable(1, rapid.SampledFrom([]int{1, 1 << 12}).Draw(t, "cells"))
		now, next := time.Hour, 1000
		models := map[int]*log{}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			now += rapid.SampledFrom([]time.Duration{0, 0, 0, 0, 300 * time.Millisecond, time.Second, 3 * time.Second}).Draw(t, "step")
			n := rapid.IntRange(0, 3).Draw(t, "key")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				table.Own(nth(n), now)
			case 1: // everybody is evicted, by keys that owe more (of something else)
				for range 12 * shards {
					next++
					table.take(nth(next), 1, Rate{Interval: time.Hour}, now, 0)
					table.Own(nth(next), now)
				}
			default:
				if models[n] == nil {
					models[n] = &log{rate: r}
				}
				for range rapid.IntRange(1, 6).Draw(t, "calls") {
					got, own := table.take(nth(n), 0, r, now, 0)
					if !got.OK {
						break
					}
					if want := models[n].take(now, got.Wait); !want.OK {
						t.Fatalf("key %d (own %t) was admitted, alone it would get %+v", n, own, want)
					}
				}
			}
		}
	})
}

func TestEvictionGivesNobodyAFreshBurst(t *testing.T) {
	table, now, key := NewTable(1, 1<<16), time.Hour, nth(0)
	table.Own(key, now)
	if n := exhaust(table, key, perSecond, now); n != 10 {
		t.Fatalf("%d calls in a burst of 10", n)
	}
	for n := range 10_000 { // known wallets in debt, which press it out
		table.Own(nth(n+1), now)
		for range 11 {
			table.take(nth(n+1), 0, perSecond, now+time.Second, 0)
		}
	}
	if v, own := table.take(key, 0, perSecond, now, 0); v.OK || own {
		t.Fatalf("after its eviction it gets %+v (own %t)", v, own)
	}
	table.Own(key, now)
	if v, own := table.take(key, 0, perSecond, now, 0); v.OK || !own {
		t.Fatalf("known again it gets %+v (own %t)", v, own)
	}
	if v, _ := table.take(key, 0, perSecond, now+10*time.Second, 0); !v.OK {
		t.Fatalf("its debt was never paid: %+v", v)
	}
}

func TestAFloodOfNewKeysTakesNoMemory(t *testing.T) {
	table, now, n := NewTable(1000, 1000), time.Hour, 0
	allocs := testing.AllocsPerRun(100_000, func() {
		n++
		now += time.Microsecond
		table.take(nth(n), n%slots, perSecond, now, 0)
		table.Own(nth(n), now)
	})
	if allocs >= 1 {
		t.Errorf("%v allocations for each new key", allocs)
	}
	if size := unsafe.Sizeof(place{}); size != 56 {
		t.Errorf("a place takes %d bytes, the documentation says 56", size)
	}
	if size := rows * unsafe.Sizeof(buckets{}); size != 160 {
		t.Errorf("the cells of an index take %d bytes, the documentation says 160", size)
	}
}

// A flood within what a server can answer leaves wallets that were idle, and so are strangers, their burst.
// Here it is 50,000 new keys a second for 6 s.
func TestAFloodOfNewKeysTakesNoBurstFromAWalletThatReturns(t *testing.T) {
	table, now := NewTable(1000, 1<<16), time.Hour
	reads := Rate{Interval: 100 * time.Millisecond, Burst: 1000}
	for n := range 300_000 {
		now += 20 * time.Microsecond
		table.take(nth(n), int(Read), reads, now, 0)
	}
	for n := range 100 {
		key, got := nth(1_000_000+n), 0
		for v := (Verdict{OK: true}); v.OK && got < 1000; got++ {
			v, _ = table.take(key, int(Read), reads, now, 0)
		}
		if got < 995 {
			t.Fatalf("wallet %d could read %d times of 1000", n, got)
		}
	}
}

func TestTheLeastRecentlyUsedOfASetGoes(t *testing.T) {
	table, now := NewTable(1, 1), time.Hour
	for n := range 200_000 {
		now += time.Millisecond
		if n%10 == 0 { // often enough to stay, in a set of 8 that 1/64 of the others pass through
			_, own := table.take(nth(0), 0, Rate{Interval: 1}, now, 0)
			if !own && n > 0 {
				t.Fatalf("the key in use was evicted before call %d", n)
			}
			table.Own(nth(0), now)
		}
		table.Own(nth(n+1), now)
	}
}

func TestATableIsSafeForConcurrentUse(t *testing.T) {
	table := NewTable(1, 64)
	var wg sync.WaitGroup
	admitted := make([]int, 4)
	for g := range admitted {
		wg.Go(func() {
			for n := range 20_000 {
				table.Own(nth(n%700+1), time.Hour)
				if v, _ := table.take(nth(0), 0, perSecond, time.Hour, 0); v.OK {
					admitted[g]++
				}
				table.giveBack(nth(n), 1, perSecond)
			}
		})
	}
	wg.Wait()
	if sum := admitted[0] + admitted[1] + admitted[2] + admitted[3]; sum > 10 {
		t.Errorf("%d calls in a burst of 10", sum)
	}
}

func TestAnIPv6AddressCountsByItsSubnet(t *testing.T) {
	key := func(s string) Key { return AddressKey(netip.MustParseAddr(s)) }
	same := [][2]string{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"},
		{"192.0.2.1", "::ffff:192.0.2.1"},
		{"fe80::1%eth0", "fe80::1%eth1"},
	}
	for _, pair := range same {
		if key(pair[0]) != key(pair[1]) {
			t.Errorf("%s and %s count apart", pair[0], pair[1])
		}
	}
	apart := [][2]string{
		{"2001:db8:1:2::1", "2001:db8:1:3::1"},
		{"192.0.2.1", "192.0.2.2"},
		{"0.0.0.0", "::"},
	}
	for _, pair := range apart {
		if key(pair[0]) == key(pair[1]) {
			t.Errorf("%s and %s count as one", pair[0], pair[1])
		}
	}
}
