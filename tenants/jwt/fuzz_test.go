package jwt

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzParse(f *testing.F) {
	var keys []Key
	for _, v := range vectors() {
		k := must(ParseKey(v.JWK))
		k.State = Active
		keys = append(keys, k)
	}
	set := NewSet(keys)
	f.Fuzz(func(t *testing.T, text string) {
		claims, err := set.Verify(text, Standard(), now)
		if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Error() == "") {
			t.Fatalf("%v is not an Error with a text", err)
		}
		// Whoever has no key can make no token: that of a vector is the only one that verifies.
		if err == nil && claims.Subject != "wallet-1" {
			t.Errorf("%q verifies as %+v", text, claims)
		}
		token, err := Parse(text)
		if err != nil {
			return
		}
		for _, c := range set.Explain(token, ReferenceServer(), now) {
			if e, ok := errors.AsType[*Error](c.Err); c.Err != nil && !ok {
				t.Errorf("%s: %v is no Error", c.Name, e)
			}
		}
		// There is one text for what was read.
		parts := strings.Split(text, ".")
		if len(parts) != 3 || string(token.signed)+"."+encoding.EncodeToString(token.signature) != text {
			t.Errorf("%q was read as %q and a signature of %d bytes", text, token.signed, len(token.signature))
		}
		if !utf8.ValidString(token.Subject) || token.Subject == "" || strings.ContainsRune(token.Subject, 0) ||
			utf8.RuneCountInString(token.Subject) > maxSubject || token.expires.Before(now.AddDate(-100, 0, 0)) || token.expires.After(lastTime) {
			t.Errorf("%q was read as %+v", text, token)
		}
		// encoding/json, which is more lenient, reads the same.
		var payload map[string]any
		raw, _ := decode(make([]byte, len(parts[1])), []byte(parts[1]))
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber() // of any size
		if err := decoder.Decode(&payload); err != nil || payload["sub"] != token.Subject {
			t.Errorf("%s was read as %+v, and by encoding/json as %v, %v", raw, token, payload, err)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := ParseKeys(text)
		if e, ok := errors.AsType[*KeyError](err); err != nil && (!ok || e.Reason == "" || keys != nil) {
			t.Fatalf("%v is not a KeyError with a reason", err)
		}
		if err == nil && (len(keys) == 0 || len(keys) > maxKeys) {
			t.Errorf("%d keys", len(keys))
		}
		fetched, _, _ := readDocument(text)
		for _, k := range append(keys, fetched...) {
			again, err := ParseKey(k.JWK())
			if err != nil || again.ID() != k.ID() || again.Named() != k.Named() || !bytes.Equal(again.JWK(), k.JWK()) {
				t.Errorf("%s is read again as %s, %v", k.JWK(), again.JWK(), err)
			}
			var members map[string]string
			if err := json.Unmarshal(k.JWK(), &members); err != nil || members["d"] != "" || members["k"] != "" {
				t.Errorf("%s: %v", k.JWK(), err)
			}
		}
	})
}
