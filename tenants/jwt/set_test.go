package jwt

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestAKeyVerifiesAsItsStateSays(t *testing.T) {
	t.Parallel()
	i := issuerOf("ES256").named("k1")
	token := i.token(`{"sub":"alice","exp":1900000000}`)
	for _, tc := range []struct {
		name  string
		state State
		until time.Time
		want  Reason
	}{
		{"just read", "", time.Time{}, KeyStandby},
		{"standby", Standby, time.Time{}, KeyStandby},
		{"active", Active, time.Time{}, ""},
		{"active, with a time", Active, now.Add(-time.Hour), ""},
		{"retired, until later", Retired, now.Add(time.Nanosecond), ""},
		{"retired, until now", Retired, now, KeyRetired},
		{"retired, until earlier", Retired, now.Add(-time.Second), KeyRetired},
		{"retired, without a time", Retired, time.Time{}, KeyRetired},
		{"revoked", Revoked, now.Add(time.Hour), KeyRevoked},
		{"of a newer program", "resting", now.Add(time.Hour), KeyRevoked},
	} {
		k := i.key
		k.State, k.Until = tc.state, tc.until
		claims, err := NewSet([]Key{k}).Verify(token, Standard(), now)
		wantReason(t, tc.name, err, tc.want)
		if until := tc.until; tc.want == "" && (tc.state == Retired) != claims.KeyUntil.Equal(until) && !until.IsZero() {
			t.Errorf("%s: the claims hold until %v", tc.name, claims.KeyUntil)
		}
	}
}

func TestAKidMeansTheOneKeyThatHasIt(t *testing.T) {
	t.Parallel()
	one, two, unnamed := issuerOf("ES256").named("1"), strangerOf("ES256").named("2"), strangerOf("ES256")
	ed, rsa := issuerOf("EdDSA"), issuerOf("RS256")
	all := []Key{one.key, two.key, unnamed.key, ed.key, rsa.key}
	header := func(i issuer, kid string) string {
		if kid == "" {
			return i.raw(fmt.Sprintf(`{"alg":%q}`, i.alg), goodClaims)
		}
		return i.raw(fmt.Sprintf(`{"alg":%q,"kid":%q}`, i.alg, kid), goodClaims)
	}
	for _, tc := range []struct {
		name, token, id string
		want            Reason
	}{
		{"its kid", header(one, "1"), "1", ""},
		{"the other's kid", header(one, "2"), "", BadSignature},
		{"no kid", header(one, ""), "1", ""},
		{"no kid, the second", header(two, ""), "2", ""},
		{"no kid, the third", header(unnamed, ""), unnamed.key.id, ""},
		{"no kid, another type", header(ed, ""), ed.key.id, ""},
		{"no kid, nobody's", header(strangerOf("ES256"), ""), "", UnknownKey},
		{"no kid, no key of the type", header(issuerOf("ES384"), ""), "", UnknownKey},
		{"a kid that nobody has, the unnamed key", header(unnamed, "3"), unnamed.key.id, ""},
		{"a kid that nobody has, a named key", header(one, "3"), "", UnknownKey},
		{"a kid that nobody has, unnamed of another type", header(rsa, "3"), rsa.key.id, ""},
		{"the kid of a named key, the unnamed one", header(unnamed, "1"), "", BadSignature},
		{"a thumbprint as kid", header(unnamed, unnamed.key.id), unnamed.key.id, ""},
		{"a thumbprint of a named key as kid", header(one, one.key.thumbprint), "", UnknownKey},
		{"a kid of a key of another type", header(ed, "1"), "", WrongKeyType},
	} {
		claims, err := NewSet(all).Verify(tc.token, Standard(), now)
		wantReason(t, tc.name, err, tc.want)
		if claims.KeyID != tc.id {
			t.Errorf("%s: by key %q", tc.name, claims.KeyID)
		}
	}
	if _, err := (*Set)(nil).Verify(one.token(goodClaims), Standard(), now); err == nil {
		t.Error("no keys at all verify")
	} else {
		wantReason(t, "no set", err, UnknownKey)
	}
}

func TestATokenWithoutKidCostsFewTriesOrNone(t *testing.T) {
	t.Parallel()
	var issuers []issuer
	var keys []Key
	for range MaxUnnamed + 1 {
		i := newIssuer("EdDSA")
		issuers, keys = append(issuers, i), append(keys, i.key)
	}
	few, many := NewSet(keys[:MaxUnnamed]), NewSet(keys)
	for _, i := range issuers[:MaxUnnamed] {
		_, err := few.Verify(i.token(goodClaims), Standard(), now)
		wantReason(t, "few keys", err, "")
		_, err = many.Verify(i.token(goodClaims), Standard(), now)
		wantReason(t, "many keys", err, NoKeyID)
	}
	// Those that do not count are not tried.
	keys[0].State, keys[1].State = Revoked, Standby
	_, err := NewSet(keys).Verify(issuers[4].token(goodClaims), Standard(), now)
	wantReason(t, "many keys, of which few are in use", err, "")
	_, err = NewSet(keys).Verify(issuers[0].token(goodClaims), Standard(), now)
	wantReason(t, "without kid by a revoked key", err, UnknownKey)
}

func TestAKeyUnderOneKidForTwoAlgorithmsIsKeptForBoth(t *testing.T) {
	t.Parallel()
	f := issuerOf("RS256").key.fields
	f.Kid = "k1"
	jwk := func(alg string) string { f.Alg = alg; return string(f.json()) }
	document := []byte(`{"keys":[` + jwk("RS256") + "," + jwk("PS512") + "," + jwk("RS256") + `]}`)
	s, err := NewSource(SourceConfig{Document: document})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Set().Keys()); n != 2 {
		t.Errorf("%d keys", n)
	}
	for alg, want := range map[string]Reason{"RS256": "", "PS512": "", "RS512": WrongKeyType} {
		token := must(Parse(issuerOf(alg).named("k1").token(goodClaims)))
		_, err := s.Set().VerifyToken(token, Standard(), now)
		wantReason(t, alg, err, want)
	}
}

func TestEd25519IsEdDSAByAnotherName(t *testing.T) {
	t.Parallel()
	i := issuerOf("EdDSA").named("k1")
	rules := Standard()
	for _, taken := range []bool{true, false} {
		_, err := i.set().Verify(i.raw(`{"alg":"Ed25519","kid":"k1"}`, goodClaims), rules, now)
		wantReason(t, "Ed25519", err, map[bool]Reason{false: BadAlgorithm}[taken])
		rules.Algorithms = []string{"ES256"}
	}
}

func TestAKeyForOneAlgorithmTakesNoOther(t *testing.T) {
	t.Parallel()
	for _, own := range Algorithms() {
		f := issuerOf(own).key.fields
		f.Alg = own
		k, bad := newKey(f)
		if bad != "" {
			t.Fatal(bad)
		}
		k = withKid(k, "k1")
		k.State = Active
		for _, alg := range Algorithms() {
			want := WrongKeyType
			if alg == own {
				want = ""
			}
			_, err := NewSet([]Key{k}).Verify(issuerOf(alg).raw(fmt.Sprintf(`{"alg":%q,"kid":"k1"}`, alg), goodClaims), Standard(), now)
			wantReason(t, alg+" with a key for "+own, err, want)
		}
	}
}

func TestASetDoesNotChangeWithTheKeysItWasMadeOf(t *testing.T) {
	t.Parallel()
	i := issuerOf("ES256").named("k1")
	keys := []Key{i.key}
	set := NewSet(keys)
	keys[0].State = Revoked
	set.Keys()[0].State = Revoked
	_, err := set.Verify(i.token(goodClaims), Standard(), now)
	wantReason(t, "after changes", err, "")
	if !slices.EqualFunc(set.Keys(), []Key{i.key}, func(a, b Key) bool { return a.State == b.State && a.id == b.id }) {
		t.Errorf("got %+v", set.Keys())
	}
}
