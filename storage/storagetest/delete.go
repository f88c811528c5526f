package storagetest

import (
	"math"
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

func testDelete(t *testing.T, s *suite) {
	gone := func(items ...storage.KeyVersion) storage.Batch { return storage.Batch{Deletes: items} }

	s.that(t, "it removes the object at its version, and at any for -1", func(t *testing.T, c client) {
		c.writeTo("a", 3)
		c.writeTo("b", 3)
		c.write("c")
		c.wantDelete("a", 3)
		c.wantVersion("a", 0)
		c.wantKeys("", "c", "b")
		c.wantDelete("b", storage.Unconditional)
		c.wantVersion("b", 0)
		c.wantKeys("", "c")
		c.wantCounted()
	})

	s.that(t, "it is content with what is gone or never was", func(t *testing.T, c client) {
		c.write("k", "other")
		c.wantDelete("k", 1)
		c.unchanged(func() {
			for _, v := range []int64{-1, 0, 1, 2, math.MaxInt64} {
				c.wantDelete("k", v)
				c.wantDelete("never", v)
			}
		})
	})

	s.that(t, "it deletes nothing at another version, and says so to nobody", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		c.unchanged(func() {
			for _, v := range []int64{0, 1, 2, 4, math.MaxInt64} {
				c.wantDelete("k", v)
			}
		})
	})

	s.that(t, "it leaves no trace in a store never written", func(t *testing.T, c client) {
		c.wantDelete("k", storage.Unconditional)
		c.wantDelete("k", 1)
		c.wantKeys("")
		c.wantVersion("k", 0)
		if n := c.recount(); n.Known {
			t.Fatalf("on record: %+v", n)
		}
	})

	s.that(t, "in a batch, what is missing is a conflict even at -1", func(t *testing.T, c client) {
		c.wantPut(storage.ErrConflict, gone(item("k", -1)))
		c.write("other", "k")
		c.wantDelete("k", 1)
		c.unchanged(func() {
			for _, v := range []int64{-1, 0, 1, 2} {
				c.wantPut(storage.ErrConflict, gone(item("k", v)))
				c.wantPut(storage.ErrConflict, gone(item("other", 1), item("k", v)))
			}
		})
	})

	s.that(t, "in a batch, version 0 and every other that does not match is a conflict", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		c.unchanged(func() {
			for _, v := range []int64{0, 1, 2, 4, math.MaxInt64} {
				c.wantPut(storage.ErrConflict, gone(item("k", v)))
			}
		})
		c.wantPut(nil, gone(item("k", 3)))
		c.wantVersion("k", 0)
	})

	s.that(t, "in a batch, -1 removes any version", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		c.wantPut(nil, gone(item("k", -1)))
		c.wantVersion("k", 0)
		c.wantCounted()
	})
}
