package jwt

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAnObjectIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	text := " {\"a\" : 1,\"b\":\t\"x,}]\\\"\",\n\"c\":[1,{\"d\":[]},\"]\"] , \"\":{\"}\":null},\"\\u0065\\n\":-1.5e3,\"f\":true}\r\n"
	members, ok := readObject([]byte(text), nil)
	if !ok {
		t.Fatal("refused")
	}
	var got []string
	for _, m := range members {
		got = append(got, fmt.Sprintf("%s=%s", m.name, m.value))
	}
	want := []string{"a=1", `b="x,}]\""`, `c=[1,{"d":[]},"]"]`, `={"}":null}`, "e\n=-1.5e3", "f=true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	var inside []string
	for value := range elements(members[2].value) {
		inside = append(inside, string(value))
	}
	if !slices.Equal(inside, []string{"1", `{"d":[]}`, `"]"`}) {
		t.Errorf("elements %q", inside)
	}
	for _, empty := range []string{"{}", " { } "} {
		if members, ok := readObject([]byte(empty), nil); !ok || len(members) != 0 {
			t.Errorf("%q: %v, %v", empty, members, ok)
		}
	}
}

func TestWhatIsNoObjectOfDistinctMembersIsRefused(t *testing.T) {
	t.Parallel()
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf(`"%d":1`, i)
	}
	for _, text := range []string{
		"", " ", "null", "1", `"x"`, "[]", "[{}]", "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}{}`, `{"a":1} x`, "\ufeff{}", `{a:1}`, `{'a':1}`,
		"{\"a\":\"\n\"}", `{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":0x1}`, `{"a":NaN}`, `{"a":1/*x*/}`, "{\"a\":\"\xff\"}", "{\"\xc0\xaf\":1}",
		`{"a":1,"a":1}`, `{"a":1,"b":2,"\u0061":3}`, `{"\ud800":1}`, `{"":1,"":2}`,
		"{" + strings.Join(many, ",") + `,"7":2}`,
	} {
		if members, ok := readObject([]byte(text), nil); ok {
			t.Errorf("%q was read as %v", text, members)
		}
	}
}

func TestAStringIsTheSameTextAsForEncodingJSONOrNone(t *testing.T) {
	t.Parallel()
	pieces := []string{"a", "é", "𝄞", `\n`, `\"`, `\\`, `\/`, `\b\f\r\t`, `\u0000`, `\u00e9`, `\ud834\udd1e`, `\ud834`, `\udd1e`, `\uFFFD`, "\ufffd"}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var b strings.Builder
		for range rng.IntN(6) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		quoted := `"` + b.String() + `"`
		var want string
		if err := json.Unmarshal([]byte(quoted), &want); err != nil {
			t.Fatal(err)
		}
		// encoding/json puts U+FFFD where there is half a pair.
		plain := strings.NewReplacer(`\ud834\udd1e`, "", `\uFFFD`, "", "\ufffd", "").Replace(quoted)
		half := strings.Contains(plain, `\ud834`) || strings.Contains(plain, `\udd1e`)
		got, ok := unquote([]byte(quoted))
		if ok == half || ok && string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", quoted, got, ok, want)
		}
	}
	for _, value := range []string{"", "1", "null", "[]", "{}"} {
		if _, ok := unquote([]byte(value)); ok {
			t.Errorf("%q was taken for a text", value)
		}
	}
}

func TestATimeIsANumberOfSeconds(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Time{
		"0":                    time.Unix(0, 0),
		"1700000000":           time.Unix(1700000000, 0),
		"1700000000.5":         time.Unix(1700000000, 5e8),
		"1700000000.0":         time.Unix(1700000000, 0),
		"1.7e9":                time.Unix(1700000000, 0),
		"17E8":                 time.Unix(1700000000, 0),
		"0.25":                 time.Unix(0, 25e7),
		"253402300798":         lastTime.Add(-time.Second),
		"253402300799":         lastTime,
		"253402300799.5":       lastTime,
		"1700000000000":        lastTime, // milliseconds
		"18446744073709551615": lastTime,
		"99999999999999999999": lastTime,
		"1e300":                lastTime,
	} {
		if got, ok := seconds([]byte(value)); !ok || !got.Equal(want) {
			t.Errorf("%s: got %v, %v, want %v", value, got, ok, want)
		}
	}
	for _, value := range []string{"", "-1", "-0", "-0.5", "-1e300", `"1700000000"`, "null", "true", "[1700000000]", "{}", "1e400"} {
		if got, ok := seconds([]byte(value)); ok {
			t.Errorf("%q was taken for %v", value, got)
		}
	}
}
