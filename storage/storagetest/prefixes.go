package storagetest

import (
	"slices"
	"strings"
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

// wantAllPrefixes writes the keys and compares the list under each prefix with what a plain comparison of
// bytes says.
func (c client) wantAllPrefixes(keys, prefixes []string) {
	c.t.Helper()
	c.write(keys...)
	for i, prefix := range prefixes {
		var want []string
		for _, k := range reversed(keys) {
			if strings.HasPrefix(k, prefix) {
				want = append(want, k)
			}
		}
		var got []string
		for _, kv := range c.walk(prefix, 1+i%7) {
			got = append(got, kv.Key)
		}
		if !equal(got, want) {
			c.t.Errorf("keys under %+.80q:\n got %+.400q\nwant %+.400q", prefix, got, want)
		}
	}
}

// prefixesOf are all prefixes of all keys that are valid UTF-8.
func prefixesOf(keys []string) []string {
	all := []string{""}
	for _, k := range keys {
		for i := range k {
			all = append(all, k[:i])
		}
		all = append(all, k)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func testPrefixes(t *testing.T, s *suite) {
	s.that(t, "a prefix has no wildcards", func(t *testing.T, c client) {
		keys := []string{
			"a_b", "axb", "a_", "a", "a%b", "a%", "%", "%%", "_", "__", `\`, `\\`, `\%`, `\_`, `a\b`, `a\`, `a\\b`,
			"*", "a*b", "?", "[a]", "[", "^a", "$", ".", "a.b", ".*", "'", `"`, "''", "$1", "--", ";", "a\nb", "a\n",
			"\n", "\t", " ", "  ", "a b", "bdk_wallet#1", "bdk-wallet#1", "bdk_wallet#", "BDK_WALLET#",
		}
		c.wantAllPrefixes(keys, append(prefixesOf(keys), "a_b_", "_x", "%x", "%a", `\a`, "A", "zz"))
	})

	s.that(t, "a prefix may be a whole key", func(t *testing.T, c client) {
		c.write("k", "k/", "k/1", "kk", "j", "l")
		c.wantKeys("k", "kk", "k/1", "k/", "k")
		c.wantKeys("k/", "k/1", "k/")
		c.wantKeys("k/1", "k/1")
		c.wantKeys("k/12")
	})

	// The end of a prefix's range is the hazard: after these characters there is no next one, or none where
	// adding one to the last byte would have it.
	s.that(t, "a prefix may end in any character", func(t *testing.T, c client) {
		edges := []rune{
			0x01, ' ', 'z', 0x7e, 0x7f, 0x80, 0xbf, 0xc0, 0xff, 0x7ff, 0x800, 0xfff, 0x1000, 0xcfff, 0xd000, 0xd7fe, 0xd7ff,
			0xe000, 0xe001, 0xfffd, 0xfffe, 0xffff, 0x10000, 0x3ffff, 0x40000, 0xfffff, 0x100000, 0x10fffe, 0x10ffff,
		}
		var keys []string
		for _, r := range edges {
			e := string(r)
			keys = append(keys, e, e+e, e+"x", "p"+e, "p"+e+"x", "p"+e+"\U0010ffff", "p\U0010ffff"+e)
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
		c.wantAllPrefixes(keys, prefixesOf(keys))
	})

	s.that(t, "a prefix may be as long as a key", func(t *testing.T, c client) {
		for _, r := range []string{"a", "\u07ff", "\ud7ff", "\ue000", "\U0001f600", "\U0010ffff"} {
			longest := strings.Repeat(r, storage.MaxKeyLength)
			shorter := strings.Repeat(r, storage.MaxKeyLength-1)
			c := c.in(keyspace(t))
			c.write(longest, shorter, "b")
			c.wantKeys(longest, longest)
			c.wantKeys(shorter, shorter, longest)
		}
	})
}

func testCollation(t *testing.T, s *suite) {
	s.that(t, "keys that look alike are distinct", func(t *testing.T, c client) {
		keys := []string{
			"a", "A", "b", "B", "aB", "Ab", "ab", "AB", "Zebra", "zebra", "Äpfel", "A\u0308pfel", "äpfel", "Apfel",
			"é", "e\u0301", "e", "E\u0301", "É", "ß", "ss", "SS", "ẞ", "ı", "i", "İ", "I", "i\u0307", "ﬁ", "fi", "\u00c5", "\u212b", "A\u030a",
			"😀", "😀\ufe0f", "👩‍👩‍👧", "👩", "👩‍", "한", "\u1112\u1161\u11ab", "ａ", "1", "１", "①", "10", "2", "02",
			"a\u200b", "a\u200d", "\ufeffa", "a ", " a", "a\u00a0", "a-b", "a b", "ab-", "-ab", "coop", "co-op", "CO-OP", "الف", "אבג",
		}
		c.wantAllPrefixes(keys, prefixesOf(keys))
		for i, k := range keys {
			c.wantPut(nil, writes(storage.Object{Key: k, Version: 1, Value: []byte{byte(i)}}))
		}
		for i, k := range keys {
			c.wantObject(k, 2, []byte{byte(i)})
		}
		for i, k := range keys {
			c.wantDelete(k, 2)
			if n := c.recount(); n.Objects != int64(len(keys)-i-1) {
				t.Fatalf("%d objects after %d deletes of %d", n.Objects, i+1, len(keys))
			}
		}
	})

	s.that(t, "the order of a list is not that of its keys", func(t *testing.T, c client) {
		c.write("é", "Z", "a", "😀", "A", "b", "z", "B", "É")
		c.wantKeys("", "É", "B", "z", "b", "A", "😀", "a", "Z", "é")
	})
}
