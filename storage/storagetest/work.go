package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

// A page of at most 100 keys, out of a store of manyKeys, may look at so many index entries and rows. The
// bound leaves room for looking past some that do not match, not for all that match or all that do not.
const (
	manyKeys  = 100_000
	pageBound = 5_000
)

func testWork(t *testing.T, s *suite) {
	s.alone(t, "a page takes bounded work however rare or common its prefix", func(t *testing.T, c client) {
		// By age, the oldest first. Searching by key finds all of "old/" or "new/" before it can tell which are
		// the newest; searching by age walks past 90,000 keys before it meets the first of "old/".
		all := manyKeys
		if testing.Short() {
			all = manyKeys / 4
		}
		keys := make([]string, all)
		for i := range keys {
			age := i * 100 / all // in hundredths of the store
			name := "new/"
			switch {
			case i == 0:
				name = "first/"
			case i == all/2:
				name = "once/"
			case i == all-1:
				name = "last/"
			case i%500 == 7:
				name = "mid/"
			case age < 2 || i >= all-50:
				name = "both/"
			case age < 10:
				name = "old/"
			}
			keys[i] = fmt.Sprintf("%s%d-%d", name, i*7919%1000, i)
		}
		c.write(keys...)
		under := func(prefix string) []string {
			return reversed(slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return !strings.HasPrefix(k, prefix) }))
		}

		for _, prefix := range []string{
			"", "n", "new/", "new/7", "old/", "old/9", "o", "both/", "mid/", "first/", "once/", "last/", "absent/", "\U0010ffff",
			keys[0], keys[all/2], keys[all-1],
		} {
			want := under(prefix)
			for _, size := range []int{1, 0} {
				var worst int64
				req := storage.ListRequest{Prefix: prefix, PageSize: size}
				for n, listed := 0, 0; n < 12; n++ {
					before := c.place.Work(t)
					page := c.page(req)
					work := c.place.Work(t) - before
					worst = max(worst, work)
					if work > pageBound {
						t.Errorf("page %d by %d of %q looked at %d entries, more than %d of %d",
							n, size, prefix, work, pageBound, len(keys))
						break
					}
					for _, kv := range page.Keys {
						if listed == len(want) || kv.Key != want[listed] {
							t.Fatalf("page %d by %d of %q: key %d is %q", n, size, prefix, listed, kv.Key)
						}
						listed++
					}
					if req.Token = page.NextToken; req.Token == "" {
						if listed != len(want) {
							t.Fatalf("list %q by %d ended after %d keys of %d", prefix, size, listed, len(want))
						}
						break
					}
					if len(page.Keys) == 0 {
						t.Fatalf("page %d by %d of %q is empty, of %d keys", n, size, prefix, len(want))
					}
				}
				t.Logf("%q by %d: at most %d entries a page, of %d that match", prefix, size, worst, len(want))
			}
		}

		// Nor may the size of the store weigh on anything else.
		for what, call := range map[string]func(){
			"a get":               func() { c.wantVersion(keys[all/3], 1) },
			"a get of no key":     func() { c.wantVersion("missing", 0) },
			"a get of the global": func() { _, err := c.get(storage.GlobalVersionKey); wantErr(t, nil, err) },
		} {
			before := c.place.Work(t)
			call()
			if work := c.place.Work(t) - before; work > 100 {
				t.Errorf("%s looked at %d entries", what, work)
			}
		}

		c.wantCounted()
		if got := c.walk("mid/", 0); len(got) != len(under("mid/")) {
			t.Fatalf("%d of mid/, want %d", len(got), len(under("mid/")))
		}
	})
}
