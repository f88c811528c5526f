package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

func testLoad(t *testing.T, s *suite) {
	s.that(t, "after 1e5 random operations at once nothing is lost, doubled or miscounted", func(t *testing.T, c client) {
		const stores = 3
		operations := rounds(100_000)
		logs := make([]*history, stores)
		for i := range logs {
			logs[i] = &history{c: c.in(keyspace(t)), keys: make(map[string]*account)}
		}
		c.each(func(c client, writer int) {
			rnd := rand.New(rand.NewPCG(uint64(writer), 11))
			for n, done := 0, 0; done < operations/(2*writersPerInstance) && !t.Failed(); n++ {
				h := logs[rnd.IntN(stores)]
				done += h.step(c.in(h.c.ks), rnd, fmt.Sprintf("%d.%d", writer, n))
			}
		})
		if t.Failed() {
			return
		}
		for _, h := range logs {
			h.settle()
		}
	})
}

// history is what the writers of one store were told.
type history struct {
	c  client
	mu sync.Mutex

	// Of the keys that all write. The order of the writes is not known, but each write or delete at a version
	// used up one write that left this version.
	keys map[string]*account

	// Of the keys that one put creates and nothing ever touches again: the acknowledged ones, a writer's in
	// its order, and the refused ones.
	saved   map[string][]string
	refused []string

	puts, conflicts int
}

// account is the book of one key, by version.
type account struct {
	left   map[int64]int    // acknowledged writes that left the version
	used   map[int64]int    // acknowledged conditional writes and deletes at the version
	values map[string]int64 // acknowledged values, and the version each was left at
	wiped  int              // acknowledged deletes that may have found something
}

// step makes one call and returns how many items it had.
func (h *history) step(c client, rnd *rand.Rand, id string) int {
	const keys = 40
	version := func() int64 {
		if rnd.IntN(4) > 0 {
			return storage.Unconditional
		}
		return int64(rnd.IntN(4))
	}
	key := func(i int) string { return fmt.Sprintf("shared%d", i) }

	if rnd.IntN(5) == 0 {
		d := item(key(rnd.IntN(keys)), version())
		if err := c.del(d.Key, d.Version); err != nil {
			c.t.Errorf("delete: %v", err)
			return 1
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.account(d.Key).wiped++
		return 1
	}

	var b storage.Batch
	switch rnd.IntN(4) {
	case 0: // one key, at the version it has
		k := key(rnd.IntN(keys))
		o, err := c.get(k)
		if err != nil && !errors.Is(err, storage.ErrNoSuchKey) {
			c.t.Errorf("get: %v", err)
			return 1
		}
		b.Writes = []storage.Object{{Key: k, Version: o.Version, Value: []byte(id)}}
	default: // many keys; few of them conditional, or all would conflict
		all := rnd.IntN(3) > 0
		for _, i := range rnd.Perm(keys)[:1+rnd.IntN(keys)] {
			v := version()
			if all || v > 0 && rnd.IntN(8) > 0 {
				v = storage.Unconditional
			}
			if !all && rnd.IntN(10) == 0 {
				b.Deletes = append(b.Deletes, item(key(i), v))
				continue
			}
			value := make([]byte, len(id)+rnd.IntN(300))
			copy(value, id)
			b.Writes = append(b.Writes, storage.Object{Key: key(i), Version: v, Value: value})
		}
		b.Writes = append(b.Writes, object("own"+id, 0))
	}
	err := c.put(b)

	h.mu.Lock()
	defer h.mu.Unlock()
	h.puts++
	items := len(b.Writes) + len(b.Deletes)
	own := b.Writes[len(b.Writes)-1].Key == "own"+id
	if err != nil {
		if !errors.Is(err, storage.ErrConflict) {
			c.t.Errorf("put: %v", err)
		}
		h.conflicts++
		if own {
			h.refused = append(h.refused, "own"+id)
		}
		return items
	}
	if own {
		writer, _, _ := strings.Cut(id, ".")
		if h.saved == nil {
			h.saved = make(map[string][]string)
		}
		h.saved[writer] = append(h.saved[writer], "own"+id)
		b.Writes = b.Writes[:len(b.Writes)-1]
	}
	for _, w := range b.Writes {
		a := h.account(w.Key)
		a.left[next(w.Version)]++
		a.values[string(w.Value)] = next(w.Version)
		if w.Version >= 0 {
			a.used[w.Version]++
		}
	}
	for _, d := range b.Deletes {
		a := h.account(d.Key)
		a.wiped++
		if d.Version >= 0 {
			a.used[d.Version]++
		}
	}
	return items
}

func (h *history) account(key string) *account {
	a := h.keys[key]
	if a == nil {
		a = &account{left: make(map[int64]int), used: make(map[int64]int), values: make(map[string]int64)}
		h.keys[key] = a
	}
	return a
}

// settle compares what is there in the end with what was said.
func (h *history) settle() {
	t, c := h.c.t, h.c
	count := c.wantCounted()
	order := make(map[string]int)
	list := c.walk("", 0)
	for i, kv := range list {
		order[kv.Key] = i
	}
	if len(order) != len(list) || int64(len(list)) != count.Objects {
		t.Fatalf("%d keys listed, %d of them distinct, %d counted", len(list), len(order), count.Objects)
	}
	t.Logf("%d puts, %d of them refused; %d objects of %d bytes", h.puts, h.conflicts, count.Objects, count.Bytes)

	var saved int
	for _, keys := range h.saved {
		saved += len(keys)
		for i, k := range keys {
			place, ok := order[k]
			if !ok {
				t.Fatalf("%q was acknowledged and is gone", k)
			}
			if i > 0 && place > order[keys[i-1]] {
				t.Errorf("%q is listed as older than %q, which was there before it was sent", k, keys[i-1])
			}
		}
	}
	for _, k := range h.refused {
		if _, there := order[k]; there {
			t.Errorf("%q was refused and is there", k)
		}
	}

	for k, a := range h.keys {
		o, err := c.get(k)
		if err != nil && !errors.Is(err, storage.ErrNoSuchKey) {
			t.Fatal(err)
		}
		if err == nil {
			saved++
			if left, ok := a.values[string(o.Value)]; !ok || left != o.Version {
				t.Errorf("%q holds %s at version %d, which nobody left there", k, brief(o.Value), o.Version)
			}
			a.used[o.Version]++ // this one is still there
		}
		for v, used := range a.used {
			switch {
			case v > 0 && used > a.left[v]:
				t.Errorf("%q: %d writes left version %d, and it was found %d times", k, a.left[v], v, used)
			case v == 0 && used > a.wiped+1:
				t.Errorf("%q was created %d times and deleted %d times", k, used, a.wiped)
			}
		}
	}
	if saved != len(list) {
		t.Errorf("%d keys accounted for, %d there", saved, len(list))
	}
}
