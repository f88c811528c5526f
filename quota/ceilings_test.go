package quota

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// store is one as the counters on its row have it, under ceilings.
type store struct {
	ceilings Ceilings
	usage    Usage
	sizes    map[string]int64
}

// put writes and deletes, or refuses.
func (s *store) put(writes map[string]int64, deletes ...string) error {
	var ch Change
	for key, size := range writes {
		old, exists := s.sizes[key]
		if !exists {
			ch.Objects++
		}
		if size > old {
			ch.Value = max(ch.Value, size)
		}
		ch.Bytes += size - old
	}
	for _, key := range deletes {
		ch.Objects--
		ch.Bytes -= s.sizes[key]
	}
	if d := s.ceilings.Decide(s.usage, ch); d.Refused {
		return fmt.Errorf("refused: %+v", d)
	}
	for key, size := range writes {
		s.sizes[key] = size
	}
	for _, key := range deletes {
		delete(s.sizes, key)
	}
	s.usage.Objects += ch.Objects
	s.usage.Bytes += ch.Bytes
	return nil
}

// CONTRACT section 5: "LDK's incremental persistence makes most channel updates new keys". A wallet whose store
// is exactly at its hard lines, in a tenant that is beyond all of its own, still closes all its channels: up to
// 100 updates of each, then the full monitor over them, which has grown, their deletion, and the archive.
func TestAWalletOf40ChannelsAtItsHardLineClosesEveryChannel(t *testing.T) {
	const (
		channels = 40
		updates  = 100
		update   = 4 << 10
		monitor  = 64 << 10
		folded   = 128 << 10 // a monitor with its updates
	)
	for _, objects := range []int64{channels + 1, 1000, 5000, 25_000, 1_000_000} {
		for _, bytes := range []int64{channels*monitor + 1, 32 << 20, 1 << 30} {
			for _, order := range []string{"all at once", "one after the other", "mixed"} {
				t.Run(fmt.Sprintf("%d objects %d bytes %s", objects, bytes, order), func(t *testing.T) {
					l := effective(t, Values{"objects_per_store": objects, "bytes_per_store": bytes})
					s := &store{
						ceilings: l.Ceilings(),
						usage:    Usage{Wallets: math.MaxInt64, TenantBytes: math.MaxInt64, Stores: math.MaxInt64, Objects: objects, Bytes: bytes},
						sizes:    map[string]int64{},
					}
					for c := range channels {
						s.sizes[fmt.Sprint("monitors/", c)] = monitor
					}
					// What a channel does until it is closed, a step a put.
					var steps [channels][]func() error
					for c := range channels {
						full, archive := fmt.Sprint("monitors/", c), fmt.Sprint("archived_monitors/", c)
						key := func(n int) string { return fmt.Sprintf("monitor_updates/%d/%d", c, n) }
						for n := range updates {
							steps[c] = append(steps[c], func() error { return s.put(map[string]int64{key(n): update}) })
						}
						steps[c] = append(steps[c], func() error { return s.put(map[string]int64{full: folded}) })
						for n := range updates {
							steps[c] = append(steps[c], func() error { return s.put(nil, key(n)) })
						}
						steps[c] = append(steps[c],
							func() error { return s.put(map[string]int64{archive: folded}) },
							func() error { return s.put(nil, full) })
					}
					r := rand.New(rand.NewPCG(1, 2))
					for left := channels * len(steps[0]); left > 0; left-- {
						c := 0
						switch order {
						case "all at once":
							for i := range steps {
								if len(steps[i]) > len(steps[c]) {
									c = i
								}
							}
						case "one after the other":
							for len(steps[c]) == 0 {
								c++
							}
						case "mixed":
							for c = r.IntN(channels); len(steps[c]) == 0; {
								c = r.IntN(channels)
							}
						}
						if err := steps[c][0](); err != nil {
							t.Fatalf("channel %d, %d steps before it is closed: %v", c, len(steps[c]), err)
						}
						steps[c] = steps[c][1:]
					}
					if s.usage.Objects != objects {
						t.Errorf("%d objects when all is done, there were %d", s.usage.Objects, objects)
					}
				})
			}
		}
	}
}

// CONTRACT section 5: "A delete, or a write that does not grow its store, is never refused for storage."
func TestADeleteOrAWriteThatDoesNotGrowItsStoreIsNeverRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, u := anyCeilings(t), anyUsage(t)
		ch := Change{
			Objects: rapid.Int64Range(math.MinInt64, 0).Draw(t, "objects"),
			Bytes:   rapid.Int64Range(math.MinInt64, 0).Draw(t, "bytes"),
			Value:   rapid.Int64Range(0, math.MaxInt64).Draw(t, "value"), // one value may grow at another's cost
		}
		if d := c.Decide(u, ch); d.Refused {
			t.Fatalf("%+v was refused to %+v by %+v", ch, u, d)
		}
	})
}

// The same: "new wallets, then new stores of a wallet, ... and only past a reserve ... growth or new keys of an
// existing store". Who comes later in that order is not refused where one that comes earlier is served.
func TestLimitsBiteInTheContractsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, u, ch := anyCeilings(t), anyUsage(t), anyChange(t)
		refused := func(wallet, store bool) bool {
			ch.NewWallet, ch.NewStore = wallet, store
			return c.Decide(u, ch).Refused
		}
		wallet, store, growth := refused(true, true), refused(false, true), refused(false, false)
		if growth && !store || store && !wallet {
			t.Fatalf("refused: a new wallet %t, a new store %t, growth %t", wallet, store, growth)
		}
	})
}

func TestAtTheHardLineOnlyExistingStoresGrow(t *testing.T) {
	const big = 1 << 40
	l := effective(t, Values{"objects_per_store": 100_000, "bytes_per_store": 1 << 30}) // a fifth is above the least reserve
	c := l.Ceilings()
	room := Usage{Wallets: 10, TenantBytes: 1000, Stores: 1, Objects: 50, Bytes: 5000}
	with := func(change func(*Usage)) Usage { u := room; change(&u); return u }
	key := Change{Objects: 1, Bytes: 100, Value: 100}
	newStore, newWallet := key, key
	newStore.NewStore = true
	newWallet.NewWallet, newWallet.NewStore = true, true

	tests := []struct {
		name   string
		usage  Usage
		change Change
		want   Decision
	}{
		{"a new wallet where there is room", room, newWallet, Decision{}},
		{"the last wallet", with(func(u *Usage) { u.Wallets = 999; u.Stores = 0 }), newWallet, Decision{Line: BeyondSoft, Near: BeyondHard, Limit: "wallets", Used: 1000, Allowed: 1000}},
		{"a wallet too many", with(func(u *Usage) { u.Wallets = 1000 }), newWallet, Decision{true, BeyondHard, BeyondHard, "wallets", 1001, 1000}},
		{"its tenant's wallets do not concern a new store", with(func(u *Usage) { u.Wallets = 1000 }), newStore, Decision{}},
		{"the last store", with(func(u *Usage) { u.Stores = 3 }), newStore, Decision{Line: BeyondSoft, Near: BeyondLast, Limit: "stores_per_wallet", Used: 4, Allowed: 4}},
		{"a store too many", with(func(u *Usage) { u.Stores = 4 }), newStore, Decision{true, BeyondLast, BeyondLast, "stores_per_wallet", 5, 4}},
		{"a new store in a tenant that is full", with(func(u *Usage) { u.TenantBytes = 4 << 30 }), newStore, Decision{true, BeyondHard, BeyondHard, "bytes_per_tenant", 4<<30 + 100, 4 << 30}},
		{"growth in a tenant that is over-full", with(func(u *Usage) { u.TenantBytes, u.Wallets, u.Stores = big, big, 4 }), key, Decision{Line: BeyondSoft, Near: BeyondLast, Limit: "stores_per_wallet", Used: 4, Allowed: 4}},
		{"a new store that begins with more than a store may have", Usage{}, Change{NewStore: true, Objects: 1, Bytes: 1<<30 + 1, Value: 100}, Decision{true, BeyondHard, BeyondHard, "bytes_per_store", 1<<30 + 1, 1 << 30}},

		{"a key up to the soft line", with(func(u *Usage) { u.Objects = 79_999 }), key, Decision{Near: BeyondSoft}},
		{"a key beyond it", with(func(u *Usage) { u.Objects = 80_000 }), key, Decision{Line: BeyondSoft, Near: BeyondSoft, Limit: "objects_per_store", Used: 80_001, Allowed: 120_000}},
		{"a key beyond the hard line", with(func(u *Usage) { u.Objects = 100_000 }), key, Decision{Line: BeyondHard, Near: BeyondHard, Limit: "objects_per_store", Used: 100_001, Allowed: 120_000}},
		{"the last key of the reserve", with(func(u *Usage) { u.Objects = 119_999 }), key, Decision{Line: BeyondHard, Near: BeyondLast, Limit: "objects_per_store", Used: 120_000, Allowed: 120_000}},
		{"a key past the reserve", with(func(u *Usage) { u.Objects = 120_000 }), key, Decision{true, BeyondLast, BeyondLast, "objects_per_store", 120_001, 120_000}},
		{"bytes past the reserve", with(func(u *Usage) { u.Bytes = (6<<30)/5 - 50 }), key, Decision{true, BeyondLast, BeyondLast, "bytes_per_store", (6<<30)/5 + 50, (6 << 30) / 5}},
		{"a key that makes room past the reserve of keys", with(func(u *Usage) { u.Objects = 120_000 }), Change{Objects: 1, Bytes: -100}, Decision{true, BeyondLast, BeyondLast, "objects_per_store", 120_001, 120_000}},
		{"bytes past the reserve, of a store without a key more", with(func(u *Usage) { u.Objects = 500_000 }), Change{Bytes: 100, Value: 200}, Decision{Line: BeyondLast, Near: BeyondLast, Limit: "objects_per_store", Used: 500_000, Allowed: 120_000}},
		{"one key for another past the reserve", with(func(u *Usage) { u.Objects = 500_000 }), Change{}, Decision{Line: BeyondLast, Near: BeyondLast, Limit: "objects_per_store", Used: 500_000, Allowed: 120_000}},

		{"a monitor larger than a value may be, in the reserve", room, Change{Bytes: 100, Value: 17 << 20}, Decision{Line: BeyondSoft, Near: BeyondSoft, Limit: "value_size", Used: 17 << 20, Allowed: (96 << 20) / 5}},
		{"and past it", room, Change{Bytes: 100, Value: 20 << 20}, Decision{true, BeyondLast, BeyondLast, "value_size", 20 << 20, (96 << 20) / 5}},
		{"the same in a new store", Usage{}, Change{NewStore: true, Objects: 1, Bytes: 20 << 20, Value: 20 << 20}, Decision{true, BeyondLast, BeyondLast, "value_size", 20 << 20, (96 << 20) / 5}},
	}
	for _, test := range tests {
		if got := c.Decide(test.usage, test.change); got != test.want {
			t.Errorf("%s:\n got %+v\nwant %+v", test.name, got, test.want)
		}
	}
	if d := (&Ceilings{}).Decide(Usage{Objects: big, Bytes: big, Wallets: big, Stores: big}, newWallet); d.Refused {
		t.Errorf("ceilings that nobody filled refuse: %+v", d)
	}
}

// The contract's order in its own words, over numbers without end.
func TestTheDecisionIsTheContractsForAnyNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, u, ch := anyCeilings(t), anyUsage(t), anyChange(t)
		above := func(used, more, allowed int64) bool {
			if allowed == 0 { // no limit
				return false
			}
			sum := new(big.Int).Add(big.NewInt(used), big.NewInt(more))
			return sum.Cmp(big.NewInt(allowed)) > 0
		}
		var want bool
		switch {
		case ch.NewWallet || ch.NewStore:
			want = ch.NewWallet && above(u.Wallets, 1, c.Wallets.Hard) ||
				above(u.TenantBytes, max(ch.Bytes, 0), c.TenantBytes.Hard) ||
				above(u.Stores, 1, c.Stores.Hard) ||
				ch.Objects > 0 && above(u.Objects, ch.Objects, c.Objects.Hard) ||
				ch.Bytes > 0 && above(u.Bytes, ch.Bytes, c.Bytes.Hard) ||
				ch.Bytes > 0 && above(ch.Value, 0, c.Value.Hard)
		default:
			want = ch.Objects > 0 && above(u.Objects, ch.Objects, c.Objects.Last) ||
				ch.Bytes > 0 && above(u.Bytes, ch.Bytes, c.Bytes.Last) ||
				ch.Bytes > 0 && above(ch.Value, 0, c.Value.Last)
		}
		if got := c.Decide(u, ch); got.Refused != want {
			t.Fatalf("refused %t, want %t: %+v", got.Refused, want, got)
		}
	})
}

// What goes to and fro at a line has crossed it all the time: it is below by more than a tenth when it has not.
func TestALineIsNearUpToATenthBelowIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, u, ch := anyCeilings(t), anyUsage(t), Change{Objects: anyNumber(t, "more objects"), Bytes: anyNumber(t, "more bytes")}
		d := c.Decide(u, ch)
		if d.Near < d.Line {
			t.Fatalf("a line that is crossed is not near: %+v", d)
		}
		if d.Refused {
			return
		}
		want := BelowSoft
		for _, of := range []struct {
			ceiling Ceiling
			used    int64
		}{{c.Stores, u.Stores}, {c.Objects, add(u.Objects, ch.Objects)}, {c.Bytes, add(u.Bytes, ch.Bytes)}} {
			for i, line := range []int64{of.ceiling.Soft, of.ceiling.Hard, of.ceiling.Last} {
				tenfold := new(big.Int).Mul(big.NewInt(of.used), big.NewInt(10))
				ninefold := new(big.Int).Mul(big.NewInt(line), big.NewInt(9))
				if of.ceiling != (Ceiling{}) && of.used > 0 && tenfold.Cmp(ninefold) >= 0 {
					want = max(want, Line(i+1))
				}
			}
		}
		if d.Near != want {
			t.Fatalf("near %d, want %d", d.Near, want)
		}
	})
}

// Also of the smallest ceilings: one more or one less, in turns, tells nothing new, and with nothing left all is over.
func TestOneMoreAndOneLessInTurnsCrossALineOnce(t *testing.T) {
	for _, objects := range []int64{1, 2, 3, 4, 9, 10, 11, 19, 20, 21, 100, 5000} {
		for _, soft := range []int64{1, 50, 80, 99, 100} {
			l := effective(t, Values{"objects_per_store": objects, "soft_percent": soft})
			c := l.Ceilings()
			for line, most := range map[Line]int64{BeyondSoft: c.Objects.Soft, BeyondHard: c.Objects.Hard, BeyondLast: c.Objects.Last} {
				has := func(n int64) Decision { return c.Decide(Usage{Objects: n}, Change{}) }
				if more, less := has(most+1), has(most); more.Line < line || less.Line >= line || less.Near < line {
					t.Errorf("%+v: %+v, then %+v", c.Objects, more, less)
				}
			}
			if d := c.Decide(Usage{}, Change{}); d != (Decision{}) {
				t.Errorf("%+v: nothing is %+v", c.Objects, d)
			}
		}
	}
}

// anyNumber is one that lies near another now and then, or near the end of the numbers. The ends themselves, to
// which sums are cut, are no ceilings.
func anyNumber(t *rapid.T, name string) int64 {
	return rapid.OneOf(
		rapid.Int64Range(-3, 130),
		rapid.Int64Range(math.MaxInt64-3, math.MaxInt64),
		rapid.Int64Range(math.MinInt64, math.MinInt64+3),
		rapid.Int64(),
	).Draw(t, name)
}

func anyCeilings(t *rapid.T) Ceilings {
	line := func(name string) Ceiling {
		hard := rapid.OneOf(rapid.Int64Range(0, 100), rapid.Just(int64(maxBytes))).Draw(t, name)
		if hard == 0 {
			return Ceiling{}
		}
		return Ceiling{Soft: hard * 4 / 5, Hard: hard, Last: hard + rapid.Int64Range(0, 20).Draw(t, "reserve")}
	}
	return Ceilings{line("wallets"), line("tenant bytes"), line("stores"), line("objects"), line("bytes"), line("value")}
}

func anyUsage(t *rapid.T) Usage {
	return Usage{anyNumber(t, "wallets"), anyNumber(t, "tenant bytes"), anyNumber(t, "stores"), anyNumber(t, "objects"), anyNumber(t, "bytes")}
}

func anyChange(t *rapid.T) Change {
	return Change{rapid.Bool().Draw(t, "new wallet"), rapid.Bool().Draw(t, "new store"),
		anyNumber(t, "more objects"), anyNumber(t, "more bytes"), max(0, anyNumber(t, "value"))}
}
