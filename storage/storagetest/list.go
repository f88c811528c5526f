package storagetest

import (
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

func testList(t *testing.T, s *suite) {
	s.that(t, "a store never written has one empty page", func(t *testing.T, c client) {
		for _, size := range []int{0, 1, maxPage, 1 << 20} {
			page := c.page(storage.ListRequest{PageSize: size})
			if len(page.Keys) != 0 || page.NextToken != "" {
				t.Fatalf("page %+v, want an empty last one", page)
			}
		}
	})

	s.that(t, "the newest created comes first", func(t *testing.T, c client) {
		c.write("b")
		c.write("c")
		c.write("a")
		c.wantKeys("", "a", "c", "b")
	})

	s.that(t, "of one put, the later item is the newer", func(t *testing.T, c client) {
		c.write("m", "z", "a", "q")
		c.write("n", "b", "m", "y")
		c.wantKeys("", "y", "b", "n", "q", "a", "z", "m")
	})

	s.that(t, "an update does not move a key", func(t *testing.T, c client) {
		c.write("a", "b", "c")
		c.write("a")
		c.wantPut(nil, writes(object("b", 1), object("a", 1)))
		c.wantPut(nil, writes(storage.Object{Key: "a", Version: 2, Value: make([]byte, 5000)}))
		c.wantKeys("", "c", "b", "a")
	})

	s.that(t, "a key that is deleted and created again is new", func(t *testing.T, c client) {
		c.write("a", "b", "c")
		c.wantDelete("a", -1)
		c.write("a")
		c.wantKeys("", "a", "c", "b")
		c.wantPut(nil, storage.Batch{Deletes: []storage.KeyVersion{item("b", 1)}})
		c.wantPut(nil, writes(object("b", 0)))
		c.wantKeys("", "b", "a", "c")
	})

	s.that(t, "keys come with their versions", func(t *testing.T, c client) {
		c.writeTo("a", 3)
		c.writeTo("b", 1)
		c.writeTo("c", 2)
		got := c.walk("", 0)
		if len(got) != 3 || got[0] != item("c", 2) || got[1] != item("b", 1) || got[2] != item("a", 3) {
			t.Fatalf("list = %v", got)
		}
	})

	s.that(t, "the global version is never among the keys", func(t *testing.T, c client) {
		c.wantPut(nil, storage.Batch{GlobalVersion: at(0), Writes: []storage.Object{object("global_versions", 0)}})
		c.wantKeys("", "global_versions")
		c.wantKeys("global_version", "global_versions")
	})
}
