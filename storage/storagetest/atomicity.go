package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/storage"
)

func testAtomicity(t *testing.T, s *suite) {
	// Every batch here would write 20 keys, half of them new, delete 5 and move the global version, were it
	// not for one item.
	good := func() storage.Batch {
		b := storage.Batch{GlobalVersion: at(1)}
		for i := range 10 {
			b.Writes = append(b.Writes,
				storage.Object{Key: fmt.Sprintf("old%d", i), Version: 2, Value: []byte("changed")},
				object(fmt.Sprintf("new%d", i), 0))
		}
		for i := range 5 {
			b.Deletes = append(b.Deletes, item(fmt.Sprintf("gone%d", i), int64(1-2*(i%2))))
		}
		return b
	}
	prepare := func(c client) {
		c.t.Helper()
		for _, v := range []int64{0, 1} {
			var b storage.Batch
			for i := range 10 {
				b.Writes = append(b.Writes, object(fmt.Sprintf("old%d", i), v))
			}
			c.wantPut(nil, b)
		}
		c.wantPut(nil, storage.Batch{GlobalVersion: at(0)})
		c.write("gone0", "gone1", "gone2", "gone3", "gone4", "bystander")
	}

	bad := []struct {
		what  string
		spoil func(b *storage.Batch, i int)
	}{
		{"a stale write", func(b *storage.Batch, i int) {
			b.Writes = slices.Insert(b.Writes, i*len(b.Writes)/2, object("bystander", 7))
		}},
		{"a write of what exists as new", func(b *storage.Batch, i int) {
			b.Writes = slices.Insert(b.Writes, i*len(b.Writes)/2, object("bystander", 0))
		}},
		{"a write over what is missing", func(b *storage.Batch, i int) {
			b.Writes = slices.Insert(b.Writes, i*len(b.Writes)/2, object("missing", 1))
		}},
		{"a stale delete", func(b *storage.Batch, i int) {
			b.Deletes = slices.Insert(b.Deletes, i*len(b.Deletes)/2, item("bystander", 2))
		}},
		{"a delete of version 0", func(b *storage.Batch, i int) {
			b.Deletes = slices.Insert(b.Deletes, i*len(b.Deletes)/2, item("bystander", 0))
		}},
		{"an unconditional delete of what is missing", func(b *storage.Batch, i int) {
			b.Deletes = slices.Insert(b.Deletes, i*len(b.Deletes)/2, item("missing", -1))
		}},
		{"a stale global version", func(b *storage.Batch, _ int) { b.GlobalVersion = at(0) }},
	}
	s.that(t, "one bad item of many changes nothing", func(t *testing.T, c client) {
		prepare(c)
		c.unchanged(func() {
			for _, bad := range bad {
				for i, where := range []string{"first", "in the middle", "last"} {
					b := good()
					bad.spoil(&b, i)
					if err := c.put(b); !errors.Is(err, storage.ErrConflict) {
						t.Fatalf("%s, %s: error %v, want a conflict", bad.what, where, err)
					}
				}
			}
		})
		// What the refused batches took must not be missing now: the good one still goes through, and its
		// new keys come in order.
		c.wantPut(nil, good())
		c.wantKeys("new", "new9", "new8", "new7", "new6", "new5", "new4", "new3", "new2", "new1", "new0")
		c.wantKeys("old", "old9", "old8", "old7", "old6", "old5", "old4", "old3", "old2", "old1", "old0")
		c.wantKeys("gone")
		c.wantObject("old3", 3, []byte("changed"))
		c.wantGlobal(2)
		c.wantCounted()
	})

	s.that(t, "a bad first write of a store leaves it empty", func(t *testing.T, c client) {
		c.wantPut(storage.ErrConflict, writes(object("a", -1), object("b", 1)))
		c.wantPut(storage.ErrConflict, storage.Batch{
			Writes: []storage.Object{object("a", 0)}, Deletes: []storage.KeyVersion{item("b", -1)}})
		c.wantPut(storage.ErrConflict, storage.Batch{GlobalVersion: at(1), Writes: []storage.Object{object("a", 0)}})
		c.wantVersion("a", 0)
		c.wantKeys("")
		c.wantGlobal(0)
		c.wantCounted()
		c.wantPut(nil, writes(object("a", 0)))
	})

	s.that(t, "an empty batch changes nothing", func(t *testing.T, c client) {
		c.wantPut(nil, storage.Batch{})
		c.wantKeys("")
		c.wantGlobal(0)
		c.writeTo("k", 2)
		before := c.state()
		c.wantPut(nil, storage.Batch{})
		c.wantPut(nil, storage.Batch{Writes: []storage.Object{}, Deletes: []storage.KeyVersion{}})
		after := c.state()
		before.Count.Revision, after.Count.Revision = 0, 0 // free to grow
		if fmt.Sprint(before) != fmt.Sprint(after) {
			t.Fatalf("the store has changed:\nbefore %v\nafter  %v", before, after)
		}
	})

	s.that(t, "a batch of 1000 writes is one change, and so are 1000 deletes and a mix", func(t *testing.T, c client) {
		name := func(i int) string { return fmt.Sprintf("k%04d", i) }
		var b storage.Batch
		for i := range 1000 {
			b.Writes = append(b.Writes, object(name(i), 0))
		}
		c.wantPut(nil, b)
		if got := c.walk("", 0); len(got) != 1000 || got[0].Key != name(999) || got[999].Key != name(0) {
			t.Fatalf("%d keys listed, want 1000 from %s to %s", len(got), name(999), name(0))
		}

		mix := storage.Batch{GlobalVersion: at(0)}
		for i := range 500 {
			mix.Writes = append(mix.Writes, object(name(i), 1))
			mix.Deletes = append(mix.Deletes, item(name(500+i), 1))
		}
		spoilt := mix
		spoilt.Deletes = append(slices.Clone(mix.Deletes[:499]), item(name(999), 2))
		before := c.recount()
		c.wantPut(storage.ErrConflict, spoilt)
		if after := c.recount(); after != before {
			t.Fatalf("a refused batch changed %+v to %+v", before, after)
		}
		c.wantPut(nil, mix)
		c.wantVersion(name(0), 2)
		c.wantVersion(name(499), 2)
		c.wantVersion(name(500), 0)
		if n := c.wantCounted(); n.Objects != 500 {
			t.Fatalf("%d objects, want 500", n.Objects)
		}

		var gone storage.Batch
		for i := range 500 {
			gone.Deletes = append(gone.Deletes, item(name(i), 2))
		}
		for i := range 500 {
			gone.Writes = append(gone.Writes, object(name(500+i), -1))
		}
		c.wantPut(nil, gone)
		gone = storage.Batch{}
		for i := range 500 {
			gone.Deletes = append(gone.Deletes, item(name(500+i), -1))
		}
		c.wantPut(nil, gone)
		c.wantKeys("")
		if n := c.wantCounted(); n.Objects != 0 || n.Bytes != 0 {
			t.Fatalf("%+v, want nothing", n)
		}

		b.Writes[0].Version = -1
		c.wantPut(nil, b)
		gone = storage.Batch{}
		for i := range 1000 {
			gone.Deletes = append(gone.Deletes, item(name(i), 1))
		}
		c.wantPut(nil, gone)
		c.wantKeys("")
	})

	s.that(t, "a page shows a batch whole or not at all, and a global version no newer than its keys", func(t *testing.T, c client) {
		c.wantPut(nil, storage.Batch{GlobalVersion: at(0), Writes: []storage.Object{object("a", 0), object("z", 0)}})
		c.write("between1", "between2")
		var wg sync.WaitGroup
		defer wg.Wait()
		stop := make(chan struct{})
		defer close(stop)
		wg.Go(func() {
			for v := int64(1); ; v++ {
				select {
				case <-stop:
					return
				default:
				}
				b := storage.Batch{GlobalVersion: at(v), Writes: []storage.Object{object("a", v), object("z", v)}}
				if v%2 == 1 {
					b.Writes = append(b.Writes, object("p1", 0), object("p2", 0))
				} else {
					b.Deletes = append(b.Deletes, item("p1", 1), item("p2", 1))
				}
				if err := c.put(b); err != nil {
					t.Errorf("put at version %d: %v", v, err)
					return
				}
			}
		})
		for end := time.Now().Add(time.Second); time.Now().Before(end) && !t.Failed(); {
			page := c.via(1).page(storage.ListRequest{})
			seen := make(map[string]int64)
			for _, kv := range page.Keys {
				seen[kv.Key] = kv.Version
			}
			if seen["a"] != seen["z"] || seen["p1"] != seen["p2"] || (seen["p1"] == 1) != (seen["a"]%2 == 0) {
				t.Errorf("a page shows half a batch: %v", page.Keys)
			}
			if *page.GlobalVersion > seen["a"] {
				t.Errorf("a page shows global version %d with keys of version %d", *page.GlobalVersion, seen["a"])
			}
		}
	})
}
