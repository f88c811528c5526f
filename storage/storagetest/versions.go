package storagetest

import (
	"math"
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

func testVersions(t *testing.T, s *suite) {
	s.that(t, "an unconditional write leaves version 1, also over a higher one", func(t *testing.T, c client) {
		c.wantPut(nil, writes(storage.Object{Key: "k", Version: -1, Value: []byte("first")}))
		c.wantObject("k", 1, []byte("first"))
		c.wantPut(nil, writes(object("k", 1)))
		c.wantPut(nil, writes(object("k", 2)))
		c.wantObject("k", 3, []byte("k"))
		c.wantPut(nil, writes(storage.Object{Key: "k", Version: -1, Value: []byte("last")}))
		c.wantObject("k", 1, []byte("last"))
	})

	s.that(t, "version 0 writes only what does not exist and leaves version 1", func(t *testing.T, c client) {
		c.wantPut(nil, writes(object("k", 0)))
		c.wantObject("k", 1, []byte("k"))
		c.wantPut(storage.ErrConflict, writes(object("k", 0)))
		c.wantDelete("k", 1)
		c.wantPut(nil, writes(object("k", 0)))
		c.wantVersion("k", 1)
	})

	s.that(t, "version n writes only over n and leaves n+1", func(t *testing.T, c client) {
		c.write("k")
		for v := int64(1); v <= 20; v++ {
			value := []byte{byte(v)}
			c.wantPut(nil, writes(storage.Object{Key: "k", Version: v, Value: value}))
			c.wantObject("k", v+1, value)
		}
	})

	s.that(t, "every version that does not match is a conflict and changes nothing", func(t *testing.T, c client) {
		c.write("before")
		c.writeTo("k", 3)
		c.write("after")
		c.unchanged(func() {
			for _, v := range []int64{0, 1, 2, 4, 5, math.MaxInt32, math.MaxInt64} {
				c.wantPut(storage.ErrConflict, writes(storage.Object{Key: "k", Version: v, Value: []byte("x")}))
			}
			for _, v := range []int64{1, 2, 3, math.MaxInt32, math.MaxInt64} {
				c.wantPut(storage.ErrConflict, writes(object("missing", v)))
			}
		})
	})

	s.that(t, "a version cannot match in a store never written", func(t *testing.T, c client) {
		for _, v := range []int64{1, 2, math.MaxInt64} {
			c.wantPut(storage.ErrConflict, writes(object("k", v)))
		}
		c.wantVersion("k", 0)
		c.wantKeys("")
	})

	s.that(t, "a version starts anew after a delete", func(t *testing.T, c client) {
		c.writeTo("k", 5)
		c.wantDelete("k", 5)
		c.wantPut(storage.ErrConflict, writes(object("k", 5)))
		c.wantVersion("k", 0)
		c.wantPut(nil, writes(object("k", 0)))
		c.wantVersion("k", 1)
	})

	s.that(t, "a conditional write sent twice conflicts with itself", func(t *testing.T, c client) {
		c.write("k")
		again := writes(storage.Object{Key: "k", Version: 1, Value: []byte("new")})
		c.wantPut(nil, again)
		c.wantPut(storage.ErrConflict, again)
		c.wantObject("k", 2, []byte("new"))
	})

	s.that(t, "a write is seen at once through every instance", func(t *testing.T, c client) {
		for v := int64(0); v < 20; v++ {
			writer, reader := c.via(int(v%2)), c.via(int((v+1)%2))
			value := []byte{byte(v)}
			writer.wantPut(nil, writes(storage.Object{Key: "k", Version: v, Value: value}))
			reader.wantObject("k", v+1, value)
			if got := reader.walk("", 0); len(got) != 1 || got[0] != item("k", v+1) {
				t.Fatalf("list = %v, want k at version %d", got, v+1)
			}
		}
		c.via(0).wantDelete("k", storage.Unconditional)
		c.via(1).wantVersion("k", 0)
		c.via(1).wantKeys("")
	})

	s.that(t, "the revision grows with every write", func(t *testing.T, c client) {
		var last int64
		grown := func(what string) {
			t.Helper()
			now := c.recount().Revision
			if now <= last {
				t.Fatalf("revision %d after %s, was %d", now, what, last)
			}
			last = now
		}
		c.write("a", "b")
		grown("the first write")
		c.write("a")
		grown("an update of the same value")
		c.wantPut(nil, storage.Batch{Deletes: []storage.KeyVersion{item("a", 1)}})
		grown("a delete in a batch")
		c.wantDelete("b", 1)
		grown("a delete")
		c.wantPut(nil, storage.Batch{GlobalVersion: at(0)})
		grown("a move of the global version")
	})
}
