package storagetest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/storage"
)

// numbered are the names of n keys, the oldest first.
func numbered(prefix string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		// In neither ascending nor descending order, so that none passes for the order of creation.
		keys[i] = fmt.Sprintf("%s%03d-%d", prefix, i*7919%1000, i)
	}
	return keys
}

func reversed(keys []string) []string {
	keys = slices.Clone(keys)
	slices.Reverse(keys)
	return keys
}

func testPaging(t *testing.T, s *suite) {
	s.that(t, "every page size gives the same list", func(t *testing.T, c client) {
		const n = 23
		mine := numbered("mine/", n)
		for i, k := range mine {
			c.write(k, fmt.Sprintf("other/%d", i), fmt.Sprintf("mind/%d", i))
		}
		all := reversed(mine)
		for size := 1; size <= n+2; size++ {
			got := c.via(size%2).walk("mine/", size)
			for i, kv := range got {
				if i >= n || kv != item(all[i], 1) {
					t.Fatalf("by %d: key %d is %v", size, i, kv)
				}
			}
			if len(got) != n {
				t.Fatalf("by %d: %d keys, want %d", size, len(got), n)
			}
			if got := c.walk("", size); len(got) != 3*n {
				t.Fatalf("by %d: %d keys in all, want %d", size, len(got), 3*n)
			}
		}
	})

	s.that(t, "the store decides on the size of a page that is unset or too large", func(t *testing.T, c client) {
		keys := numbered("", 2*maxPage+1)
		c.write(keys...)
		for _, size := range []int{0, maxPage, maxPage + 1, 1000, 1<<31 - 1} {
			got := c.walk("", size) // holds each page to maxPage
			for i, k := range reversed(keys) {
				if got[i].Key != k {
					t.Fatalf("by %d: key %d is %q, want %q", size, i, got[i].Key, k)
				}
			}
		}
	})

	s.that(t, "a token goes with any page size and any instance", func(t *testing.T, c client) {
		keys := numbered("", 20)
		c.write(keys...)
		want := reversed(keys)
		req := storage.ListRequest{PageSize: 1}
		for turn := 1; ; turn++ {
			page := c.via(turn % 2).page(req)
			for _, kv := range page.Keys {
				if len(want) == 0 || kv.Key != want[0] {
					t.Fatalf("%q is out of order", kv.Key)
				}
				want = want[1:]
			}
			if page.NextToken == "" {
				break
			}
			req = storage.ListRequest{PageSize: turn + 1, Token: page.NextToken}
		}
		if len(want) > 0 {
			t.Fatalf("not listed: %q", want)
		}
	})

	s.that(t, "a token can be used again", func(t *testing.T, c client) {
		c.write(numbered("", 10)...)
		first := c.page(storage.ListRequest{PageSize: 4})
		again := storage.ListRequest{PageSize: 4, Token: first.NextToken}
		one, two := c.page(again), c.page(again)
		if !slices.Equal(one.Keys, two.Keys) {
			t.Fatalf("%v, then %v", one.Keys, two.Keys)
		}
	})

	// The hazard is a token that names an entry, and a page that starts where that entry is found.
	s.that(t, "a token survives the deletion of any entry, at every position", func(t *testing.T, c client) {
		const n = 12
		for size := 1; size < n; size++ {
			for from := range n {
				for to := from; to < n; to += 3 {
					c := c.in(keyspace(t))
					keys := numbered("", n)
					c.write(keys...)
					page := c.page(storage.ListRequest{PageSize: size})
					all := reversed(keys)
					want := slices.Clone(all[len(page.Keys):])
					var b storage.Batch
					for _, k := range all[from : to+1] {
						b.Deletes = append(b.Deletes, item(k, -1))
						want = slices.DeleteFunc(want, func(w string) bool { return w == k })
					}
					c.wantPut(nil, b)
					var got []string
					for page.NextToken != "" {
						page = c.page(storage.ListRequest{PageSize: size, Token: page.NextToken})
						if len(page.Keys) == 0 && len(got) < len(want) {
							t.Fatalf("an empty page while %q match", want[len(got):])
						}
						for _, kv := range page.Keys {
							got = append(got, kv.Key)
						}
					}
					if !equal(got, want) {
						t.Fatalf("by %d, deleted %d to %d: then %q, want %q", size, from, to, got, want)
					}
				}
			}
		}
	})

	s.that(t, "a token survives the deletion of everything", func(t *testing.T, c client) {
		keys := numbered("", 10)
		c.write(keys...)
		page := c.page(storage.ListRequest{PageSize: 3})
		for _, k := range keys {
			c.wantDelete(k, -1)
		}
		page = c.page(storage.ListRequest{PageSize: 3, Token: page.NextToken})
		if len(page.Keys) != 0 || page.NextToken != "" {
			t.Fatalf("page %+v, want an empty last one", page)
		}
	})

	s.that(t, "writes in between neither add, skip nor double a key", func(t *testing.T, c client) {
		keys := numbered("k", 60)
		c.write(keys...)
		want := reversed(keys)
		var got []string
		req := storage.ListRequest{Prefix: "k", PageSize: 7}
		for turn := 0; ; turn++ {
			page := c.page(req)
			for _, kv := range page.Keys {
				got = append(got, kv.Key)
			}
			if page.NextToken == "" {
				break
			}
			req.Token = page.NextToken
			other := c.via(1)
			other.write(fmt.Sprintf("knew%d", turn), fmt.Sprintf("other%d", turn)) // new
			other.write(keys...)                                                   // updated
			last := page.Keys[len(page.Keys)-1].Key
			other.wantDelete(last, -1) // listed, deleted, created again
			other.write(last)
		}
		if !equal(got, want) {
			t.Fatalf("listed %q\nwant   %q", got, want)
		}
	})

	s.that(t, "a key deleted and created again before its page is new, so it is not listed", func(t *testing.T, c client) {
		c.write("a", "b", "c", "d")
		page := c.page(storage.ListRequest{PageSize: 1})
		c.wantDelete("b", -1)
		c.write("b")
		var got []string
		for page.NextToken != "" {
			page = c.page(storage.ListRequest{PageSize: 1, Token: page.NextToken})
			for _, kv := range page.Keys {
				got = append(got, kv.Key)
			}
		}
		if !equal(got, []string{"c", "a"}) {
			t.Fatalf("listed %q", got)
		}
	})

	s.that(t, "a token of another store or prefix is refused", func(t *testing.T, c client) {
		owner := storage.Owner{Tenant: uuid.New(), Namespace: "sig", Subject: "one"}
		stranger := owner
		stranger.Subject = "two"
		c = c.in(keyspaceOf(t, owner, "store"))
		others := []client{
			c.in(keyspaceOf(t, owner, "other store")),
			c.in(keyspaceOf(t, stranger, "store")),
			c.in(keyspace(t)),
		}
		keys := numbered("p/", 5)
		for _, c := range append(others, c) {
			c.write(keys...)
		}
		for _, given := range []string{"", "p", "p/"} {
			token := c.page(storage.ListRequest{Prefix: given, PageSize: 2}).NextToken
			for _, prefix := range []string{"", "p", "p/", "p/0", "q"} {
				_, err := c.list(storage.ListRequest{Prefix: prefix, PageSize: 2, Token: token})
				if prefix == given {
					wantErr(t, nil, err)
				} else {
					wantErr(t, storage.ErrBadToken, err)
				}
			}
			for _, other := range others {
				_, err := other.list(storage.ListRequest{Prefix: given, PageSize: 2, Token: token})
				wantErr(t, storage.ErrBadToken, err)
			}
		}
		// A store never written gave no token either.
		_, err := c.in(keyspace(t)).list(storage.ListRequest{Token: c.page(storage.ListRequest{PageSize: 1}).NextToken})
		wantErr(t, storage.ErrBadToken, err)
	})

	s.that(t, "garbage is no token", func(t *testing.T, c client) {
		c.write(numbered("", 5)...)
		token := c.page(storage.ListRequest{PageSize: 2}).NextToken
		garbage := []string{
			" ", "x", "0", "-1", "1", "null", "global_version", "\x00", "\xff\xfe", token + token, token + "=",
			" " + token, token + " ", token + "\x00", strings.Repeat("A", 1<<16),
		}
		for i := range token {
			garbage = append(garbage, token[:i])
		}
		for _, n := range []int{1, 8, 16, 24, 32, 40, 64} {
			zeros := make([]byte, n)
			garbage = append(garbage, base64.RawURLEncoding.EncodeToString(zeros), base64.StdEncoding.EncodeToString(zeros))
		}
		for _, g := range garbage {
			if g == "" {
				continue
			}
			if _, err := c.list(storage.ListRequest{Token: g}); !errors.Is(err, storage.ErrBadToken) {
				t.Fatalf("token %.80q: error %v", g, err)
			}
		}
		// A forged one may happen to be good; it is never a fault.
		for i := range token {
			for _, b := range []byte{'A', 'z', '0', '_', '-', 0, 0x80} {
				forged := token[:i] + string(b) + token[i+1:]
				if _, err := c.list(storage.ListRequest{Token: forged}); err != nil {
					wantErr(t, storage.ErrBadToken, err)
				}
			}
		}
	})
}
