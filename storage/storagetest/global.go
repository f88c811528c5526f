package storagetest

import (
	"math"
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

func testGlobalVersion(t *testing.T, s *suite) {
	only := func(version int64) storage.Batch { return storage.Batch{GlobalVersion: &version} }
	with := func(version int64, objs ...storage.Object) storage.Batch {
		return storage.Batch{GlobalVersion: &version, Writes: objs}
	}

	s.that(t, "it is 0, with an empty value, in a store never written", func(t *testing.T, c client) {
		c.wantGlobal(0)
		if c.recount().Known {
			t.Fatal("a read has put the store on record")
		}
	})

	s.that(t, "it is 0 in a store that has keys and was never given one", func(t *testing.T, c client) {
		c.write("a", "b")
		c.wantGlobal(0)
		c.wantPut(storage.ErrConflict, only(1))
		c.wantPut(nil, with(0, object("c", 0)))
		c.wantGlobal(1)
	})

	s.that(t, "absent, it is neither checked nor changed", func(t *testing.T, c client) {
		c.wantPut(nil, only(0))
		c.wantPut(nil, only(1))
		c.write("a")
		c.wantPut(nil, writes(object("a", 1)))
		c.wantPut(nil, storage.Batch{Deletes: []storage.KeyVersion{item("a", 2)}})
		c.wantGlobal(2)
	})

	s.that(t, "present, it must equal the store's and then grows by one", func(t *testing.T, c client) {
		for v := range int64(5) {
			c.wantPut(nil, with(v, object("k", v)))
			c.wantGlobal(v + 1)
		}
		c.unchanged(func() {
			for _, v := range []int64{0, 1, 4, 6, math.MaxInt64} {
				c.wantPut(storage.ErrConflict, with(v, object("k", -1), object("new", 0)))
				c.wantPut(storage.ErrConflict, only(v))
			}
		})
	})

	s.that(t, "-1 sets it to 1 whatever it was", func(t *testing.T, c client) {
		c.wantPut(nil, with(-1, object("k", 0)))
		c.wantGlobal(1)
		c.wantPut(nil, only(1))
		c.wantPut(nil, only(2))
		c.wantGlobal(3)
		c.wantPut(nil, only(-1))
		c.wantGlobal(1)
	})

	s.that(t, "a put that is refused does not move it", func(t *testing.T, c client) {
		c.wantPut(nil, with(0, object("k", 0)))
		c.unchanged(func() {
			c.wantPut(storage.ErrConflict, with(1, object("k", 5)))
			c.wantPut(storage.ErrConflict, with(-1, object("k", 0)))
			c.wantPut(storage.ErrConflict, storage.Batch{
				GlobalVersion: at(1), Deletes: []storage.KeyVersion{item("missing", -1)}})
		})
	})

	s.that(t, "a put of nothing else moves it", func(t *testing.T, c client) {
		c.wantPut(nil, only(0))
		c.wantPut(nil, only(1))
		c.wantGlobal(2)
		c.wantKeys("")
		if n := c.wantCounted(); n.Objects != 0 || n.Bytes != 0 {
			t.Fatalf("%+v, want no objects", n)
		}
	})

	s.that(t, "a delete does not move it", func(t *testing.T, c client) {
		c.wantPut(nil, with(0, object("k", 0)))
		c.wantDelete("k", 1)
		c.wantGlobal(1)
	})

	s.that(t, "it outlives the store's keys", func(t *testing.T, c client) {
		c.wantPut(nil, with(0, object("k", 0)))
		c.wantPut(nil, storage.Batch{GlobalVersion: at(1), Deletes: []storage.KeyVersion{item("k", -1)}})
		c.wantGlobal(2)
		c.wantPut(storage.ErrConflict, only(0))
	})
}
