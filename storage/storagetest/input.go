package storagetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/storage"
)

// incompressible is n random characters of four bytes each: what makes the largest index entry of a length.
func incompressible(n int) string {
	r := make([]rune, n)
	for i := range r {
		r[i] = rune(0x10000 + rand.IntN(0x100000))
	}
	return string(r)
}

func testInput(t *testing.T, s *suite) {
	s.that(t, "a key has 1 to 600 characters, however many bytes", func(t *testing.T, c client) {
		for _, n := range []int{1, 2, 255, 256, 599, 600} {
			for _, char := range []string{"a", "é", "한", "😀", ""} {
				key := strings.Repeat(char, n)
				if char == "" {
					key = incompressible(n)
				}
				c := c.in(keyspace(t))
				c.wantPut(nil, writes(object(key, 0), object("other", 0)))
				c.wantObject(key, 1, []byte(key))
				c.wantPut(nil, writes(object(key, 1)))
				c.wantKeys(key, key)
				c.wantKeys("", "other", key)
				c.wantCounted()
				c.wantDelete(key, 2)
				c.wantVersion(key, 0)
				c.wantPut(nil, writes(object(key, -1)))
				c.wantPut(nil, storage.Batch{Deletes: []storage.KeyVersion{item(key, 1)}})
				c.wantKeys("", "other")
			}
		}
	})

	s.that(t, "many of the longest keys fit one put and one page", func(t *testing.T, c client) {
		keys := make([]string, maxPage)
		for i := range keys {
			keys[i] = incompressible(storage.MaxKeyLength)
		}
		c.write(keys...)
		c.wantKeys("", reversed(keys)...)
		token := c.page(storage.ListRequest{PageSize: 1}).NextToken
		if got := c.page(storage.ListRequest{PageSize: 1, Token: token}).Keys; len(got) != 1 || got[0].Key != keys[maxPage-2] {
			t.Fatal("the second page by 1 has not the second key")
		}
		// Ones that differ only in the last character, which no index may cut off.
		one := strings.Repeat("\U0001f600", storage.MaxKeyLength-1)
		c = c.in(keyspace(t))
		c.write(one+"a", one+"b", one+"c")
		c.wantDelete(one+"b", 1)
		c.wantKeys(one, one+"c", one+"a")
	})

	s.that(t, "a key that is empty, too long or no text is invalid in every call", func(t *testing.T, c client) {
		c.write("k")
		c.unchanged(func() {
			for _, key := range []string{
				"", strings.Repeat("a", 601), strings.Repeat("😀", 601), strings.Repeat("a", 1<<20),
				"\x00", "a\x00b", "a\x00", "\xff", "a\xc3", "\xc3\x28", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80",
			} {
				_, err := c.get(key)
				wantInvalid(t, err)
				wantInvalid(t, c.del(key, -1))
				wantInvalid(t, c.put(writes(object("k", -1), object(key, -1))))
				wantInvalid(t, c.put(storage.Batch{
					Writes: []storage.Object{object("k", -1)}, Deletes: []storage.KeyVersion{item(key, -1)}}))
			}
		})
	})

	s.that(t, "a prefix has up to 600 characters of text", func(t *testing.T, c client) {
		c.write("k")
		for _, prefix := range []string{strings.Repeat("a", 600), strings.Repeat("😀", 600), incompressible(600)} {
			c.wantKeys(prefix)
		}
		for _, prefix := range []string{
			strings.Repeat("a", 601), strings.Repeat("😀", 601), "\x00", "k\x00", "\xff", "k\xf0\x9f", "\xed\xa0\x80",
		} {
			_, err := c.list(storage.ListRequest{Prefix: prefix})
			wantInvalid(t, err)
		}
	})

	s.that(t, "a page size is not negative", func(t *testing.T, c client) {
		for _, size := range []int{-1, -100, math.MinInt32} {
			_, err := c.list(storage.ListRequest{PageSize: size}) // also of an empty store
			wantInvalid(t, err)
		}
	})

	s.that(t, "a version is -1 or more", func(t *testing.T, c client) {
		c.write("k")
		c.unchanged(func() {
			for _, v := range []int64{-2, -3, math.MinInt32, math.MinInt64} {
				wantInvalid(t, c.put(writes(object("k", v))))
				wantInvalid(t, c.put(storage.Batch{Deletes: []storage.KeyVersion{item("k", v)}}))
				wantInvalid(t, c.put(storage.Batch{GlobalVersion: at(v), Writes: []storage.Object{object("k", -1)}}))
				wantInvalid(t, c.del("k", v))
				wantInvalid(t, c.del("missing", v))
			}
		})
	})

	s.that(t, "a key comes once in a put, across both lists", func(t *testing.T, c client) {
		c.write("k", "other")
		c.unchanged(func() {
			for _, v := range []int64{-1, 0, 1, 2} {
				wantInvalid(t, c.put(writes(object("k", v), object("other", -1), object("k", v))))
				wantInvalid(t, c.put(storage.Batch{Deletes: []storage.KeyVersion{item("k", v), item("k", v)}}))
				wantInvalid(t, c.put(storage.Batch{
					Writes:  []storage.Object{object("other", -1), object("k", v)},
					Deletes: []storage.KeyVersion{item("k", 1)}}))
			}
		})
	})

	s.that(t, "a put has at most 1000 items, of both lists together", func(t *testing.T, c client) {
		var full storage.Batch
		for i := range 500 {
			full.Writes = append(full.Writes, object(fmt.Sprintf("w%d", i), -1))
			full.Deletes = append(full.Deletes, item(fmt.Sprintf("d%d", i), -1))
		}
		for _, d := range full.Deletes {
			full.Writes = append(full.Writes, object(d.Key, -1))
		}
		full.Deletes = nil
		c.wantPut(nil, full) // 1000 writes
		c.unchanged(func() {
			b := full
			b.Writes = append(b.Writes[:1000:1000], object("one more", -1))
			wantInvalid(t, c.put(b))
			b = full
			b.Deletes = []storage.KeyVersion{item("one more", -1)}
			wantInvalid(t, c.put(b))
		})
	})

	s.that(t, "the reserved key is neither written nor deleted", func(t *testing.T, c client) {
		c.wantPut(nil, storage.Batch{GlobalVersion: at(0), Writes: []storage.Object{object("k", 0)}})
		c.unchanged(func() {
			for _, v := range []int64{-1, 0, 1} {
				wantInvalid(t, c.put(writes(object("k", -1), object(storage.GlobalVersionKey, v))))
				wantInvalid(t, c.put(storage.Batch{Deletes: []storage.KeyVersion{item(storage.GlobalVersionKey, v)}}))
				wantInvalid(t, c.del(storage.GlobalVersionKey, v))
			}
		})
	})

	s.that(t, "invalid input is found before a conflict and before the store is known", func(t *testing.T, c client) {
		wantInvalid(t, c.put(writes(object("missing", 7), object("", -1))))
		wantInvalid(t, c.del(storage.GlobalVersionKey, -1))
		if c.recount().Known {
			t.Fatal("invalid input has put the store on record")
		}
	})

	s.that(t, "a store_id has 0 to 120 characters, however many bytes", func(t *testing.T, c client) {
		owner := storage.Owner{Tenant: uuid.New(), Namespace: "sig", Subject: incompressible(storage.MaxSubjectLength)}
		for i, id := range []string{
			"", "a", "%", strings.Repeat("a", 120), strings.Repeat("😀", 120), incompressible(120), strings.Repeat("'", 120),
		} {
			c := c.in(keyspaceOf(t, owner, id))
			c.wantPut(nil, writes(storage.Object{Key: "k", Version: 0, Value: []byte{byte(i)}}))
			c.wantObject("k", 1, []byte{byte(i)})
			c.wantKeys("", "k")
		}
		for _, id := range []string{strings.Repeat("a", 121), incompressible(121), "\x00", "a\x00", "\xff", "a\xed\xa0\x80"} {
			_, err := storage.NewKeyspace(owner, id)
			wantInvalid(t, err)
		}
	})
}
