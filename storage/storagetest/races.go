package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

// Most tests here run writers at both instances, several each, and let chance do the rest.
const writersPerInstance = 4

// each runs f for every writer at once and waits for all.
func (c client) each(f func(c client, writer int)) {
	var wg sync.WaitGroup
	for w := range 2 * writersPerInstance {
		wg.Go(func() { f(c.via(w%2), w) })
	}
	wg.Wait()
}

func rounds(n int) int {
	if testing.Short() {
		return max(1, n/10)
	}
	return n
}

// won says whether a put was the one that won: of the others each lost to a conflict.
func (c client) won(what string, err error) bool {
	if err != nil && !errors.Is(err, storage.ErrConflict) {
		c.t.Errorf("%s: error %v, want none or a conflict", what, err)
	}
	return err == nil
}

// winners counts who won which version.
type winners struct {
	mu sync.Mutex
	of map[int64][]string
}

func (w *winners) add(version int64, who string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = make(map[int64][]string)
	}
	w.of[version] = append(w.of[version], who)
}

// wantOneEach expects exactly one winner of each version from 0 and returns the last.
func (w *winners) wantOneEach(t testing.TB) (last string) {
	t.Helper()
	for v := range int64(len(w.of)) {
		if len(w.of[v]) != 1 {
			t.Fatalf("version %d has winners %q, want exactly one", v, w.of[v])
		}
		last = w.of[v][0]
	}
	return last
}

func testRaces(t *testing.T, s *suite) {
	s.that(t, "compare-and-set has exactly one winner a version", func(t *testing.T, c client) {
		c.write("bystander")
		var won winners
		c.each(func(c client, writer int) {
			for round := range rounds(60) {
				o, err := c.get("k")
				if err != nil && !errors.Is(err, storage.ErrNoSuchKey) {
					t.Errorf("get: %v", err)
					return
				}
				who := fmt.Sprintf("%d in round %d", writer, round)
				err = c.put(writes(storage.Object{Key: "k", Version: o.Version, Value: []byte(who)}))
				if c.won("put", err) {
					won.add(o.Version, who)
				}
			}
		})
		last := won.wantOneEach(t)
		c.wantObject("k", int64(len(won.of)), []byte(last))
		c.wantCounted()
	})

	s.that(t, "compare-and-set of the global version has exactly one winner a version", func(t *testing.T, c client) {
		c.write("k")
		var won winners
		c.each(func(c client, writer int) {
			for round := range rounds(60) {
				g, err := c.get(storage.GlobalVersionKey)
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				who := fmt.Sprintf("%d in round %d", writer, round)
				err = c.put(storage.Batch{GlobalVersion: &g.Version, Writes: []storage.Object{
					{Key: "k", Version: -1, Value: []byte(who)}}})
				if c.won("put", err) {
					won.add(g.Version, who)
				}
			}
		})
		last := won.wantOneEach(t)
		c.wantObject("k", 1, []byte(last))
		c.wantGlobal(int64(len(won.of)))
	})

	s.that(t, "of those who create, delete or batch-delete one key at once, one wins", func(t *testing.T, c client) {
		c.write("bystander")
		for range rounds(20) {
			var won winners
			c.each(func(c client, writer int) {
				if c.won("create", c.put(writes(object("k", 0)))) {
					won.add(0, fmt.Sprint(writer))
				}
			})
			c.each(func(c client, writer int) {
				if c.won("batch delete", c.put(storage.Batch{Deletes: []storage.KeyVersion{item("k", int64(1-writer%2*2))}})) {
					won.add(1, fmt.Sprint(writer))
				}
			})
			if len(won.of) != 2 {
				t.Fatalf("winners %v, want one who created and one who deleted", won.of)
			}
			won.wantOneEach(t)
			c.each(func(c client, _ int) {
				if err := c.del("k", -1); err != nil {
					t.Errorf("delete: %v", err)
				}
			})
			c.wantVersion("k", 0)
		}
		c.wantCounted()
	})

	s.that(t, "batches over the same keys in opposite orders fail with nothing but conflicts", func(t *testing.T, c client) {
		const n = 30
		keys := numbered("", n)
		c.write(keys...)
		c.each(func(c client, writer int) {
			for range rounds(60) {
				order := rand.Perm(n)
				var b storage.Batch
				for _, i := range order[:2+rand.IntN(n-2)] {
					switch rand.IntN(8) {
					case 0:
						b.Deletes = append(b.Deletes, item(keys[i], int64(rand.IntN(3)-1)))
					case 1, 2:
						b.Writes = append(b.Writes, object(keys[i], int64(rand.IntN(3))))
					default:
						b.Writes = append(b.Writes, object(keys[i], -1))
					}
				}
				if writer%2 == 0 {
					b.Deletes = nil // or most would conflict
					for i := range b.Writes {
						b.Writes[i].Version = -1
					}
				}
				if !c.won("put", c.put(b)) && writer%2 == 0 {
					t.Error("an unconditional put conflicts")
				}
			}
		})
		c.wantCounted()
	})

	s.that(t, "unconditional writers of one key all succeed and one of them is last", func(t *testing.T, c client) {
		c.each(func(c client, writer int) {
			for range rounds(30) {
				if err := c.put(writes(storage.Object{Key: "k", Version: -1, Value: []byte{byte(writer)}})); err != nil {
					t.Errorf("put: %v", err)
				}
			}
		})
		c.wantVersion("k", 1)
		c.wantCounted()
	})
}

// testFirstWrites: there is no row of the store to lock yet, which is a path of its own.
func testFirstWrites(t *testing.T, s *suite) {
	// together starts n puts at once, at both instances by turns.
	together := func(c client, n int, keyspaceOf func(i int) storage.Keyspace, batch func(i int) storage.Batch) []error {
		ctx, cancel := context.WithTimeout(c.t.Context(), patience)
		defer cancel()
		errs := make([]error, n)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range n {
			c := c.via(i % 2).in(keyspaceOf(i))
			b := batch(i)
			wg.Go(func() {
				<-start
				errs[i] = c.putBy(ctx, b)
			})
		}
		close(start)
		wg.Wait()
		return errs
	}
	wantOne := func(c client, errs []error) (winner int) {
		c.t.Helper()
		winner = -1
		for i, err := range errs {
			if c.won("first write", err) {
				if winner >= 0 {
					c.t.Fatalf("%d and %d both won", winner, i)
				}
				winner = i
			}
		}
		if winner < 0 {
			c.t.Fatal("nobody won")
		}
		return winner
	}
	value := func(i int) []byte { return []byte(fmt.Sprint(i)) }

	for _, n := range []int{2, 20} {
		tests := []struct {
			name string
			run  func(t *testing.T, c client)
		}{
			{"that are unconditional all succeed", func(t *testing.T, c client) {
				same := func(int) storage.Keyspace { return c.ks }
				for i, err := range together(c, n, same, func(i int) storage.Batch {
					return writes(object("k", -1), object(fmt.Sprintf("own%d", i), -1))
				}) {
					if err != nil {
						t.Errorf("writer %d: %v", i, err)
					}
				}
				c.wantVersion("k", 1)
				for i := range n {
					c.wantVersion(fmt.Sprintf("own%d", i), 1)
				}
				if got := c.wantCounted(); got.Objects != int64(n)+1 {
					t.Fatalf("%d objects, want %d", got.Objects, n+1)
				}
			}},
			{"that create one key have one winner", func(t *testing.T, c client) {
				same := func(int) storage.Keyspace { return c.ks }
				winner := wantOne(c, together(c, n, same, func(i int) storage.Batch {
					return writes(storage.Object{Key: "k", Value: value(i)}, object(fmt.Sprintf("own%d", i), 0))
				}))
				c.wantObject("k", 1, value(winner))
				c.wantKeys("own", fmt.Sprintf("own%d", winner))
				c.wantCounted()
			}},
			{"that create keys of their own all succeed", func(t *testing.T, c client) {
				same := func(int) storage.Keyspace { return c.ks }
				for i, err := range together(c, n, same, func(i int) storage.Batch {
					return writes(storage.Object{Key: fmt.Sprint(i), Value: value(i)})
				}) {
					if err != nil {
						t.Errorf("writer %d: %v", i, err)
					}
				}
				for i := range n {
					c.wantObject(fmt.Sprint(i), 1, value(i))
				}
				if got := c.wantCounted(); got.Objects != int64(n) {
					t.Fatalf("%d objects, want %d", got.Objects, n)
				}
			}},
			{"that give the global version have one winner", func(t *testing.T, c client) {
				same := func(int) storage.Keyspace { return c.ks }
				winner := wantOne(c, together(c, n, same, func(i int) storage.Batch {
					return storage.Batch{GlobalVersion: at(0), Writes: []storage.Object{{Key: "k", Version: -1, Value: value(i)}}}
				}))
				c.wantObject("k", 1, value(winner))
				c.wantGlobal(1)
			}},
			{"of different stores of one new wallet all succeed", func(t *testing.T, c client) {
				owner := c.ks.Owner()
				stores := make([]storage.Keyspace, n)
				for i := range stores {
					stores[i] = keyspaceOf(t, owner, fmt.Sprint("store ", i))
				}
				of := func(i int) storage.Keyspace { return stores[i] }
				for i, err := range together(c, n, of, func(i int) storage.Batch {
					return writes(storage.Object{Key: "k", Value: value(i)})
				}) {
					if err != nil {
						t.Errorf("writer %d: %v", i, err)
						continue
					}
					c.in(stores[i]).wantObject("k", 1, value(i))
					c.in(stores[i]).wantCounted()
				}
			}},
		}
		for _, test := range tests {
			s.that(t, fmt.Sprintf("%d first writes %s", n, test.name), func(t *testing.T, c client) {
				for range rounds(20) {
					test.run(t, c.in(keyspace(t)))
				}
			})
		}
	}
}
