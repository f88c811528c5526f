package storage_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vss-cloud/vss-cloud/storage"
)

// isText is the rule of every name, said another way than the code says it.
func isText(s string, least, most int) bool {
	characters := []rune(s)
	return utf8.ValidString(s) && !slices.Contains(characters, 0) && least <= len(characters) && len(characters) <= most
}

func write(key string, version int64) storage.Object {
	return storage.Object{Key: key, Version: version}
}
func item(key string, version int64) storage.KeyVersion {
	return storage.KeyVersion{Key: key, Version: version}
}

func checkAll[T any](t *testing.T, check func(T) error, valid bool, inputs map[string]T) {
	t.Helper()
	for what, input := range inputs {
		err := check(input)
		if (err == nil) != valid {
			t.Errorf("%s: error %v, want valid %t", what, err, valid)
		}
		if err != nil && !isInvalid(err) {
			t.Errorf("%s: error %v is not an InvalidError", what, err)
		}
	}
}

func TestCheckKey(t *testing.T) {
	checkAll(t, storage.CheckKey, true, map[string]string{
		"the shortest":                     "a",
		"the longest":                      strings.Repeat("a", 600),
		"the longest of 4-byte characters": strings.Repeat("\U0010ffff", 600),
		"a blank":                          " ",
		"control characters":               "\x01\n\x7f",
		"the replacement character":        "\ufffd",
		"a noncharacter":                   "\uffff",
		"the reserved key, which is read":  storage.GlobalVersionKey,
	})
	checkAll(t, storage.CheckKey, false, map[string]string{
		"none":                      "",
		"too long":                  strings.Repeat("a", 601),
		"too long in 4-byte ones":   strings.Repeat("😀", 601),
		"NUL":                       "\x00",
		"NUL inside":                "a\x00b",
		"a lone continuation byte":  "\x80",
		"a truncated character":     "a\xf0\x9f\x98",
		"a surrogate":               "\xed\xa0\x80",
		"an overlong NUL":           "\xc0\x80",
		"beyond the last character": "\xf4\x90\x80\x80",
	})
}

func TestCheckItem(t *testing.T) {
	checkAll(t, storage.KeyVersion.Check, true, map[string]storage.KeyVersion{
		"unconditional":         item("k", -1),
		"zero":                  item("k", 0),
		"the largest version":   item("k", math.MaxInt64),
		"like the reserved key": item("Global_Version", 1),
		"within it":             item("global_versio", 1),
		"beyond it":             item("global_version ", 1),
	})
	checkAll(t, storage.KeyVersion.Check, false, map[string]storage.KeyVersion{
		"below -1":             item("k", -2),
		"the smallest version": item("k", math.MinInt64),
		"the reserved key":     item(storage.GlobalVersionKey, -1),
		"no key":               item("", 1),
		"a key with NUL":       item("\x00", 1),
	})
}

func TestCheckBatch(t *testing.T) {
	version := func(v int64) *int64 { return &v }
	many := func(writes, deletes int) (b storage.Batch) {
		for i := range writes {
			b.Writes = append(b.Writes, write(fmt.Sprint("w", i), -1))
		}
		for i := range deletes {
			b.Deletes = append(b.Deletes, item(fmt.Sprint("d", i), -1))
		}
		return b
	}
	checkAll(t, storage.Batch.Check, true, map[string]storage.Batch{
		"nothing":                   {},
		"only a global version":     {GlobalVersion: version(0)},
		"unconditional":             {GlobalVersion: version(-1)},
		"1000 writes":               many(1000, 0),
		"1000 deletes":              many(0, 1000),
		"1000 of both":              many(500, 500),
		"keys that are alike":       {Writes: []storage.Object{write("k", 0), write("K", 0), write("k ", 0), write("é", 0), write("e\u0301", 0)}},
		"a delete beside its write": {Writes: []storage.Object{write("k", 0)}, Deletes: []storage.KeyVersion{item("l", 0)}},
	})
	checkAll(t, storage.Batch.Check, false, map[string]storage.Batch{
		"1001 writes":                     many(1001, 0),
		"1001 deletes":                    many(0, 1001),
		"1001 of both":                    many(1000, 1),
		"a global version below -1":       {GlobalVersion: version(-2)},
		"a write twice":                   {Writes: []storage.Object{write("k", 0), write("l", 0), write("k", 1)}},
		"a delete twice":                  {Deletes: []storage.KeyVersion{item("k", -1), item("k", -1)}},
		"a write and a delete of one key": {Writes: []storage.Object{write("k", 0)}, Deletes: []storage.KeyVersion{item("k", 1)}},
		"a write of the reserved key":     {Writes: []storage.Object{write("k", 0), write(storage.GlobalVersionKey, 0)}},
		"a delete of the reserved key":    {Deletes: []storage.KeyVersion{item(storage.GlobalVersionKey, -1)}},
		"a write without a key":           {Writes: []storage.Object{write("", 0)}},
		"a delete without a key":          {Deletes: []storage.KeyVersion{item("", -1)}},
		"a write below -1":                {Writes: []storage.Object{write("k", -2)}},
		"a delete below -1":               {Deletes: []storage.KeyVersion{item("k", -2)}},
	})
}

func TestCheckListRequest(t *testing.T) {
	checkAll(t, storage.ListRequest.Check, true, map[string]storage.ListRequest{
		"nothing asked":      {},
		"the largest page":   {PageSize: math.MaxInt},
		"the longest prefix": {Prefix: strings.Repeat("😀", 600)},
		"wildcards":          {Prefix: `%_\`},
		"the reserved key":   {Prefix: storage.GlobalVersionKey},
		"any token":          {Token: "\x00\xff"},
	})
	checkAll(t, storage.ListRequest.Check, false, map[string]storage.ListRequest{
		"a negative page size": {PageSize: -1},
		"a prefix too long":    {Prefix: strings.Repeat("a", 601)},
		"a prefix with NUL":    {Prefix: "a\x00"},
		"half a character":     {Prefix: "\xf0\x9f"},
	})
}

func TestBadTokenIsInvalidInput(t *testing.T) {
	if !isInvalid(storage.ErrBadToken) || storage.ErrBadToken.Error() == "" {
		t.Fatalf("ErrBadToken is %#v", storage.ErrBadToken)
	}
}

// What a reason quotes came from the caller and goes into an answer, a log line and a protobuf string.
func FuzzReasonsAreText(f *testing.F) {
	f.Add("\xff", int64(-1))
	f.Add("global_version", int64(0))
	f.Add("\u202e\n", int64(-7))
	f.Fuzz(func(t *testing.T, key string, version int64) {
		twice := storage.Batch{Writes: []storage.Object{write(key, version)}, Deletes: []storage.KeyVersion{item(key, version)}}
		for _, err := range []error{storage.CheckKey(key), item(key, version).Check(), twice.Check(), storage.ListRequest{Prefix: key}.Check()} {
			if err == nil {
				continue
			}
			if reason := err.Error(); !utf8.ValidString(reason) || strings.ContainsAny(reason, "\x00\n\r") || len(reason) > 12*600+200 {
				t.Fatalf("reason %q", reason)
			}
		}
	})
}

func FuzzCheck(f *testing.F) {
	f.Add("a", "b", int64(0), int64(-1), 0)
	f.Add("", "\x00", int64(-2), int64(1), -1)
	f.Add("global_version", "\xff", int64(math.MaxInt64), int64(math.MinInt64), math.MaxInt)
	f.Add(strings.Repeat("😀", 600), strings.Repeat("é", 601), int64(1), int64(1), 100)
	f.Fuzz(func(t *testing.T, a, b string, v, w int64, size int) {
		key := func(s string) bool { return isText(s, 1, 600) }
		valid := func(s string, v int64) bool { return key(s) && s != "global_version" && v >= -1 }
		for _, c := range []struct {
			what string
			err  error
			want bool
		}{
			{"key", storage.CheckKey(a), key(a)},
			{"item", item(a, v).Check(), valid(a, v)},
			{"writes", storage.Batch{Writes: []storage.Object{write(a, v), write(b, w)}}.Check(), valid(a, v) && valid(b, w) && a != b},
			{"deletes", storage.Batch{Deletes: []storage.KeyVersion{item(a, v), item(b, w)}}.Check(), valid(a, v) && valid(b, w) && a != b},
			{"both", storage.Batch{Writes: []storage.Object{write(a, v)}, Deletes: []storage.KeyVersion{item(b, w)}}.Check(),
				valid(a, v) && valid(b, w) && a != b},
			{"global version", storage.Batch{GlobalVersion: &v}.Check(), v >= -1},
			{"list", storage.ListRequest{Prefix: a, PageSize: size, Token: b}.Check(), isText(a, 0, 600) && size >= 0},
		} {
			if (c.err == nil) != c.want || c.err != nil && !isInvalid(c.err) {
				t.Errorf("%s: error %v, want valid %t", c.what, c.err, c.want)
			}
		}
	})
}
