package postgres

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/storage"
)

var (
	aStore       = storage.StoreID(uuid.MustParse("6a1f7c3e-0000-4000-8000-00000000000a"))
	anotherStore = storage.StoreID(uuid.MustParse("6a1f7c3e-0000-4000-8000-00000000000b"))
)

// FuzzPageToken: a token is good for its store and prefix and tells its position there, and nothing else is
// a token.
func FuzzPageToken(f *testing.F) {
	f.Add("", int64(1), "")
	f.Add("bdk_wallet#", int64(math.MaxInt64), newToken(aStore, "bdk_wallet#", 7))
	f.Add("%_\\", int64(math.MinInt64), "AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("\xff", int64(-1), "AAAAAAAAAAAAAAAAAAAAAB")
	f.Add("a", int64(0), newToken(aStore, "a", 0)+"=")
	f.Fuzz(func(t *testing.T, prefix string, position int64, given string) {
		token := newToken(aStore, prefix, position)
		if got, err := parseToken(aStore, prefix, token); err != nil || got != position {
			t.Errorf("position %d comes back as %d, %v", position, got, err)
		}
		if _, err := parseToken(anotherStore, prefix, token); err != storage.ErrBadToken {
			t.Errorf("another store takes it: %v", err)
		}
		for _, other := range []string{prefix + "x", prefix + "\x00", "x" + prefix, strings.TrimSuffix(prefix, "x")} {
			if _, err := parseToken(aStore, other, token); other != prefix && err != storage.ErrBadToken {
				t.Errorf("prefix %q takes it: %v", other, err)
			}
		}
		for i := range len(token) {
			changed := []byte(token)
			changed[i] ^= 1
			if _, err := parseToken(aStore, prefix, string(changed)); err != storage.ErrBadToken {
				t.Errorf("%q is taken for %q: %v", changed, token, err)
			}
		}
		for _, part := range []string{"", token[:len(token)-1], token + "A", token + "=", " " + token, token + token} {
			if _, err := parseToken(aStore, prefix, part); err != storage.ErrBadToken {
				t.Errorf("%q is taken: %v", part, err)
			}
		}

		got, err := parseToken(aStore, prefix, given)
		switch {
		case err == nil:
			// encoding/base64 overlooks line ends.
			if plain := strings.NewReplacer("\r", "", "\n", "").Replace(given); plain != newToken(aStore, prefix, got) {
				t.Errorf("%q is taken for position %d", given, got)
			}
		case err != storage.ErrBadToken:
			t.Errorf("%q fails with %v", given, err)
		}
	})
}

// checkAfterPrefix: the keys that begin with a prefix are those from it to below afterPrefix of it, in the
// order of bytes.
func checkAfterPrefix(t *testing.T, key, prefix string) {
	t.Helper()
	if utf8.RuneCountInString(key) > storage.MaxKeyLength {
		return // there is none
	}
	after := afterPrefix(prefix)
	if within := prefix <= key && key < after; within != strings.HasPrefix(key, prefix) {
		t.Errorf("%.40q begins with %.40q: %v; is between it and %.40q: %v", key, prefix, strings.HasPrefix(key, prefix), after, within)
	}
	if !utf8.ValidString(after) {
		t.Errorf("after %.40q comes %.40q, which PostgreSQL does not take", prefix, after)
	}
}

func FuzzAfterPrefix(f *testing.F) {
	f.Add("", "")
	f.Add("a", "")
	f.Add("ab", "a")
	f.Add("b", "a")
	f.Add("a\uE000", "a\uD7FF")
	f.Add("a\U0010FFFF\U0010FFFF", "a\U0010FFFF")
	f.Add("b", "a\U0010FFFF")
	f.Add(strings.Repeat("\U0010FFFF", storage.MaxKeyLength), strings.Repeat("\U0010FFFF", storage.MaxKeyLength))
	f.Add("\x80", "\x7f")
	f.Fuzz(func(t *testing.T, key, prefix string) {
		for _, s := range []string{key, prefix} {
			if !utf8.ValidString(s) || utf8.RuneCountInString(s) > storage.MaxKeyLength {
				return // no store is asked for that
			}
		}
		checkAfterPrefix(t, key, prefix)
		checkAfterPrefix(t, prefix+key, prefix)
		checkAfterPrefix(t, key, prefix+key)
	})
}

// The characters at which their encodings change, where a successor by bytes would go wrong.
func TestAfterPrefixAtTheEdgesOfUTF8(t *testing.T) {
	edges := []rune{0x01, 'a', 'b', 0x7E, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FE, 0xD7FF, 0xE000, 0xFFFE, 0xFFFF, 0x10000, 0x10FFFE, 0x10FFFF}
	rng := rand.New(rand.NewPCG(1, 2))
	text := func(most int) string {
		runes := make([]rune, rng.IntN(most+1))
		for i := range runes {
			runes[i] = edges[rng.IntN(len(edges))]
		}
		return string(runes)
	}
	for range 200_000 {
		prefix := text(4)
		checkAfterPrefix(t, text(5), prefix)
		checkAfterPrefix(t, prefix+text(3), prefix)
	}
	for _, a := range edges {
		for _, b := range edges {
			checkAfterPrefix(t, string(a), string(b))
			checkAfterPrefix(t, string(a)+string(b), string(a))
			checkAfterPrefix(t, string(a), string(a)+string(b))
		}
	}
}
