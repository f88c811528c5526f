package tenants

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

// jwks is the key set of an issuer that signs with these keys. Our own signing keys make good test issuers.
func jwks(keys ...*lnurl.SigningKey) []byte {
	var public []lnurl.JWK
	for _, k := range keys {
		public = append(public, k.Public())
	}
	return lnurl.JWKS(public...)
}

func from(issuer string) jwt.Rules {
	r := jwt.Standard()
	if issuer != "" {
		r.Issuer = &issuer
	}
	return r
}

func (p *platform) addSource(t *testing.T, slug string, n NewSource) *Tenant {
	t.Helper()
	return done(t)(p.service.AddSource(t.Context(), root, slug, n))
}

func rsaPEM(t *testing.T, bits int) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestASourceHasANamespaceOfItsOwnUnlessItIsToShareOne(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", NewSource{Name: "auth0", Kind: JWT, Rules: from("https://a.example"), Keys: jwks(lnurl.NewSigningKey())})
	p.addSource(t, "acme", NewSource{Name: "lnurl", Kind: LNURL, Host: "ACME.vss.example."})
	p.addSource(t, "acme", NewSource{Name: "keycloak", Kind: JWT, Rules: from("https://b.example"), JWKSURL: "https://b.example/keys", NamespaceOf: "auth0"})
	done(t)(p.service.RemoveSource(t.Context(), root, "acme", "auth0"))
	after := p.addSource(t, "acme", NewSource{Name: "third", Kind: JWT, Rules: from("https://a.example"), Keys: jwks(lnurl.NewSigningKey()), NamespaceOf: "auth0"})

	namespaces := map[string]string{}
	for _, src := range slices.Concat(after.Sources, after.Removed) {
		namespaces[src.Name] = src.Namespace
	}
	if want := map[string]string{
		"signature": "sig", "auth0": "jwt:auth0", "lnurl": "lnurl", "keycloak": "jwt:auth0", "third": "jwt:auth0",
	}; !reflect.DeepEqual(namespaces, want) {
		t.Errorf("got %v, want %v", namespaces, want)
	}
	if src := after.Source(LNURL); src.Host != "acme.vss.example" || src.TokenLife != time.Hour || len(src.Keys) != 1 {
		t.Errorf("the LNURL source is %+v", src)
	}
	if len(after.Removed) != 1 || after.Removed[0].Name != "auth0" {
		t.Errorf("removed: %+v", after.Removed)
	}
}

// The issuer of the platform's tokens is made when the source is saved, so it is nobody else's.
func TestLNURLAuthCanBeAddedToASourceThatLooksAtNoIssuer(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", NewSource{Name: "reference", Kind: JWT, Rules: jwt.ReferenceServer(), Keys: rsaPEM(t, 2048)})
	unasked := root // nobody has a token of its issuer yet, so no wallet can feel it
	unasked.Confirmed = false
	after := done(t)(p.service.AddSource(t.Context(), unasked, "acme", NewSource{Name: "lnurl", Kind: LNURL, Host: "acme.vss.example"}))
	if src := after.Source(LNURL); src == nil || src.Rules.Issuer == nil {
		t.Errorf("the LNURL source is %+v", src)
	}
}

// What a token could belong to twice, or what no wallet could use, is refused when it is saved, and nothing of it
// is.
func TestASourceThatCannotBeIsRefusedWhenItIsSaved(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.acme.com")
	p.create(t, "rival", "vss.rival.com")
	keyed := jwks(lnurl.NewSigningKey())
	p.addSource(t, "acme", NewSource{Name: "by-issuer", Kind: JWT, Rules: from("https://a.example"), Keys: jwks(lnurl.NewSigningKey())})
	p.addSource(t, "acme", NewSource{Name: "by-kid", Kind: JWT, Rules: from(""), Keys: keyed, ByKeyID: true, NamespaceOf: "by-issuer"})
	p.create(t, "open")
	p.addSource(t, "open", NewSource{Name: "main", Kind: JWT, Rules: jwt.ReferenceServer(), Keys: rsaPEM(t, 2048)})
	p.addSource(t, "open", NewSource{Name: "lnurl", Kind: LNURL, Host: "open.vss.example"}) // whose tokens are nobody else's
	beside := func(n NewSource) func(context.Context) error {
		n.Name, n.Kind = "new", JWT
		return func(ctx context.Context) error { _, err := p.service.AddSource(ctx, root, "open", n); return err }
	}
	p.addSource(t, "acme", NewSource{Name: "gone", Kind: JWT, Rules: from("https://gone.example"), Keys: jwks(lnurl.NewSigningKey()), NamespaceOf: "by-issuer"})
	done(t)(p.service.RemoveSource(t.Context(), root, "acme", "gone"))
	_, err := p.service.AddDomain(t.Context(), root, "acme", "pending.acme.com", false)
	if err != nil {
		t.Fatal(err)
	}

	good := func(change func(*NewSource)) func(context.Context) error {
		n := NewSource{Name: "new", Kind: JWT, Rules: from("https://new.example"), Keys: jwks(lnurl.NewSigningKey())}
		change(&n)
		return func(ctx context.Context) error { _, err := p.service.AddSource(ctx, root, "acme", n); return err }
	}
	set := func(name string, c SourceChange) func(context.Context) error {
		return func(ctx context.Context) error { _, err := p.service.SetSource(ctx, root, "acme", name, c); return err }
	}
	login := func(host string) func(context.Context) error {
		return good(func(n *NewSource) { *n = NewSource{Name: "new", Kind: LNURL, Host: host} })
	}
	for _, tc := range []struct {
		name  string
		try   func(context.Context) error
		field string
		want  error
	}{
		{name: "no name", try: good(func(n *NewSource) { n.Name = "" }), field: "name"},
		{name: "a name that is taken", try: good(func(n *NewSource) { n.Name = "by-kid" }), field: "name"},
		{name: "the name of a removed source", try: good(func(n *NewSource) { n.Name = "gone" }), field: "name"},
		{name: "no kind", try: good(func(n *NewSource) { n.Kind = ""; n.Keys = nil }), field: "kind"},
		{name: "a second signature source", try: good(func(n *NewSource) { *n = NewSource{Name: "new", Kind: Signature} }), field: "kind"},
		{name: "another's issuer", try: good(func(n *NewSource) { n.Rules = from("https://a.example") }), field: "issuer"},
		{name: "no issuer beside one with", try: good(func(n *NewSource) { n.Rules = from("") }), field: "issuer"},
		{name: "by kid beside one by issuer", try: good(func(n *NewSource) { n.Rules, n.ByKeyID = from(""), true }), field: "issuer"},
		{name: "by kid at a URL", try: good(func(n *NewSource) {
			n.Rules, n.ByKeyID, n.Keys, n.JWKSURL = from(""), true, nil, "https://new.example/keys"
		}), field: "by_key_id"},
		{name: "by kid with keys that have none", try: good(func(n *NewSource) {
			n.Rules, n.ByKeyID, n.Keys, n.NamespaceOf = from(""), true, rsaPEM(t, 2048), "by-issuer"
		}), field: "keys"},
		{name: "another's kid", try: good(func(n *NewSource) {
			n.Rules, n.ByKeyID, n.Keys, n.NamespaceOf = from(""), true, keyed, "by-issuer"
		}), field: "keys"},
		{name: "an issuer beside one that takes every token", try: beside(NewSource{Rules: from("https://new.example"), Keys: keyed}), field: "issuer"},
		{name: "by kid beside one that takes every token", try: beside(NewSource{Rules: from(""), Keys: keyed, ByKeyID: true}), field: "issuer"},
		{name: "two that take every token", try: beside(NewSource{Rules: from(""), Keys: keyed, NamespaceOf: "main"}), field: "issuer"},
		{name: "an issuer given up for none", try: func(ctx context.Context) error {
			for _, n := range []NewSource{
				{Name: "one", Kind: JWT, Rules: from("https://one.example"), JWKSURL: "https://one.example/keys"},
				{Name: "two", Kind: JWT, Rules: from("https://two.example"), Keys: keyed},
			} {
				if _, err := p.service.AddSource(ctx, root, "rival", n); err != nil {
					return err
				}
			}
			_, err := p.service.SetSource(ctx, root, "rival", "two", SourceChange{Issuer: ptr("")})
			return err
		}, field: "issuer"},
		{name: "a key that no algorithm is for", try: good(func(n *NewSource) {
			n.Rules.Algorithms, n.NamespaceOf = []string{"RS256"}, "by-issuer"
		}), field: "keys"},
		{name: "set: algorithms that no key is for", try: set("by-issuer", SourceChange{Algorithms: []string{"RS256"}}), field: "keys"},
		{name: "rules of another kind of source", try: good(func(n *NewSource) { n.Kind, n.Keys = Signature, nil }), field: "rules"},
		{name: "a fifth key without a kid", try: func(ctx context.Context) error {
			for range 4 {
				if _, err := p.service.AddKeys(ctx, root, "open", "main", rsaPEM(t, 2048), jwt.Active); err != nil {
					return err
				}
			}
			return nil
		}, field: "keys"},
		{name: "set: another's issuer", try: set("by-kid", SourceChange{Issuer: ptr("https://a.example"), ByKeyID: ptr(false)}), field: "issuer"},
		{name: "no algorithm", try: good(func(n *NewSource) { n.Rules.Algorithms = nil }), field: "rules"},
		{name: "HMAC", try: good(func(n *NewSource) { n.Rules.Algorithms = []string{"HS256"} }), field: "rules"},
		{name: "none", try: good(func(n *NewSource) { n.Rules.Algorithms = []string{"none"} }), field: "rules"},
		{name: "audiences without their rule", try: good(func(n *NewSource) { n.Rules.Audiences = []string{"a"} }), field: "rules"},
		{name: "an endless issuer", try: good(func(n *NewSource) { n.Rules = from(strings.Repeat("a", 501)) }), field: "rules"},
		{name: "neither keys nor URL", try: good(func(n *NewSource) { n.Keys = nil }), field: "keys"},
		{name: "both keys and URL", try: good(func(n *NewSource) { n.JWKSURL = "https://new.example/keys" }), field: "keys"},
		{name: "keys of another kind of source", try: good(func(n *NewSource) { n.Kind = LNURL }), field: "keys"},
		{name: "keys that are none", try: good(func(n *NewSource) { n.Keys = []byte("<html>") }), field: "keys"},
		{name: "a weak key", try: good(func(n *NewSource) {
			n.Keys = []byte(`{"kty":"RSA","e":"AQAB","n":"` + strings.Repeat("7", 170) + `"}`)
		}), field: "keys"},
		{name: "a symmetric key", try: good(func(n *NewSource) { n.Keys = []byte(`{"kty":"oct","k":"c2VjcmV0"}`) }), field: "keys"},
		{name: "a private key", try: good(func(n *NewSource) {
			n.Keys = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: lnurl.NewSigningKey().PKCS8()})
		}), field: "keys"},
		{name: "a URL without TLS", try: good(func(n *NewSource) { n.Keys, n.JWKSURL = nil, "http://new.example/keys" }), field: "jwks_url"},
		{name: "a URL of an address inside", try: good(func(n *NewSource) { n.Keys, n.JWKSURL = nil, "https://[::ffff:10.0.0.1]/keys" }), field: "jwks_url"},
		{name: "the wallets of a source that is not there", try: good(func(n *NewSource) { n.NamespaceOf = "nobody" }), field: "namespace_of"},
		{name: "a host for tokens", try: good(func(n *NewSource) { n.Host = "vss.acme.com" }), field: "host"},
		{name: "no host", try: login(""), field: "host"},
		{name: "a rival's domain", try: login("vss.rival.com"), field: "host"},
		{name: "a rival's sub-domain", try: login("rival.vss.example"), field: "host"},
		{name: "the base domain", try: login("vss.example"), field: "host"},
		{name: "a domain that is not verified", try: login("pending.acme.com"), field: "host"},
		{name: "set: a source that is not there", try: set("nobody", SourceChange{}), want: ErrNotFound},
		{name: "set: a removed source", try: set("gone", SourceChange{CheckNotBefore: ptr(false)}), want: ErrNotFound},
		{name: "set: a window of a JWT source", try: set("by-kid", SourceChange{Window: ptr(time.Hour)}), field: "window"},
		{name: "set: a token life of a JWT source", try: set("by-kid", SourceChange{TokenLife: ptr(time.Hour)}), field: "token_life"},
		{name: "set: rules of a signature source", try: set("signature", SourceChange{CheckNotBefore: ptr(false)}), field: "rules"},
		{name: "set: a URL for uploaded keys", try: set("by-kid", SourceChange{JWKSURL: ptr("https://new.example/keys")}), field: "jwks_url"},
		{name: "remove: a removed source", try: func(ctx context.Context) error {
			_, err := p.service.RemoveSource(ctx, root, "acme", "gone")
			return err
		}, want: ErrNotFound},
		{name: "remove: no actor", try: func(ctx context.Context) error {
			_, err := p.service.RemoveSource(ctx, audit.Actor{}, "acme", "by-kid")
			return err
		}, want: audit.ErrNoActor},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := done(t)(p.service.Get(t.Context(), "acme"))
			err := tc.try(t.Context())
			if tc.field != "" {
				wantInvalid(t, err, tc.field)
			} else {
				wantError(t, err, tc.want)
			}
			if after := done(t)(p.service.Get(t.Context(), "acme")); !reflect.DeepEqual(before, after) {
				t.Errorf("it left %+v", after)
			}
		})
	}
	if n := query[int](t, p, "SELECT count(*) FROM audit_log WHERE detail::text ~ 'PRIVATE|oct'"); n != 0 {
		t.Error("a key that was refused is in the audit log")
	}
}

func TestWhatAJWTSourceAsksOfTokensCanBeChanged(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", NewSource{Name: "auth", Kind: JWT, Rules: jwt.ReferenceServer(), JWKSURL: "https://a.example/keys"})
	after := done(t)(p.service.SetSource(t.Context(), root, "acme", "auth", SourceChange{
		Issuer: ptr("https://a.example"), AudienceRule: ptr(jwt.OneOf), Audiences: []string{"vss"}, CheckNotBefore: ptr(true),
		Algorithms: []string{"ES256K", "EdDSA"}, JWKSURL: ptr("https://b.example/keys"),
	}))
	src := named(after.Sources, "auth")
	want := jwt.Rules{Issuer: ptr("https://a.example"), AudienceRule: jwt.OneOf, Audiences: []string{"vss"}, CheckNotBefore: true, Algorithms: []string{"ES256K", "EdDSA"}}
	if !reflect.DeepEqual(src.Rules, want) || src.JWKSURL != "https://b.example/keys" {
		t.Errorf("got %+v", src)
	}
	after = done(t)(p.service.SetSource(t.Context(), root, "acme", "auth", SourceChange{Issuer: ptr(""), AudienceRule: ptr(jwt.AnyAudience)}))
	if r := named(after.Sources, "auth").Rules; r.Issuer != nil || len(r.Audiences) != 0 || !r.CheckNotBefore {
		t.Errorf("got %+v", r)
	}
}

func TestAKeyGoesThroughItsStatesAndComesBackFromAllButRevoked(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	first, second := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	p.addSource(t, "acme", NewSource{Name: "auth", Kind: JWT, Rules: from(""), Keys: jwks(first)})
	p.addSource(t, "acme", NewSource{Name: "lnurl", Kind: LNURL, Host: "acme.vss.example"})
	states := func(tenant *Tenant) map[string]jwt.State {
		m := map[string]jwt.State{}
		for _, k := range named(tenant.Sources, "auth").Keys {
			m[k.ID] = k.State
		}
		return m
	}
	after := done(t)(p.service.AddKeys(t.Context(), root, "acme", "auth", jwks(second), jwt.Standby))
	if got := states(after); got[first.ID()] != jwt.Active || got[second.ID()] != jwt.Standby {
		t.Errorf("got %v", got)
	}
	until := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	for _, step := range []struct {
		state jwt.State
		until time.Time
	}{{jwt.Active, time.Time{}}, {jwt.Retired, until}, {jwt.Standby, time.Time{}}, {jwt.Revoked, time.Time{}}} {
		after = done(t)(p.service.SetKey(t.Context(), root, "acme", "auth", second.ID(), step.state, step.until))
		if k := named(after.Sources, "auth").key(second.ID()); k.State != step.state || !k.Until.Equal(step.until) {
			t.Errorf("got %+v, want %+v", k, step)
		}
	}
	for _, tc := range []struct {
		name, source, kid string
		state             jwt.State
		until             time.Time
		field             string
		want              error
	}{
		{"a revoked key", "auth", second.ID(), jwt.Active, time.Time{}, "state", nil},
		{"an unknown key", "auth", "nobody", jwt.Revoked, time.Time{}, "", ErrNotFound},
		{"an unknown source", "nobody", first.ID(), jwt.Revoked, time.Time{}, "", ErrNotFound},
		{"an unknown state", "auth", first.ID(), "gone", time.Time{}, "state", nil},
		{"retired without an end", "auth", first.ID(), jwt.Retired, time.Time{}, "until", nil},
		{"active with an end", "auth", first.ID(), jwt.Active, until, "until", nil},
		{"a key of ours", "lnurl", first.ID(), jwt.Revoked, time.Time{}, "source", nil},
	} {
		_, err := p.service.SetKey(t.Context(), root, "acme", tc.source, tc.kid, tc.state, tc.until)
		if tc.field != "" {
			wantInvalid(t, err, tc.field)
		} else {
			wantError(t, err, tc.want)
		}
	}
	// A key that was revoked does not come back under another name.
	_, err := p.service.AddKeys(t.Context(), root, "acme", "auth", bytes.Replace(jwks(second), []byte(`"kid":"`), []byte(`"kid":"other`), 1), jwt.Active)
	wantInvalid(t, err, "keys")
	for source, text := range map[string][]byte{"auth": jwks(first), "lnurl": jwks(lnurl.NewSigningKey())} {
		if _, err := p.service.AddKeys(t.Context(), root, "acme", source, text, jwt.Active); err == nil {
			t.Errorf("%s took a key", source)
		}
	}
}

func TestAClientKeyIsShownOnceAndKeptAsItsHash(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	_, err := p.service.Set(t.Context(), root, "acme", Change{Gate: ptr(GateRequired)})
	wantInvalid(t, err, "client_key_gate") // it would refuse every call
	after, key, err := p.service.AddClientKey(t.Context(), root, "acme", "Android")
	if err != nil || !strings.HasPrefix(key, after.ClientKeys[0].Prefix) || !strings.HasPrefix(key, "vck_") || len(key) != 30 {
		t.Fatalf("got %q, %+v, %v", key, after, err)
	}
	done(t)(p.service.Set(t.Context(), root, "acme", Change{Gate: ptr(GateRequired)}))
	after, second, err := p.service.RotateClientKey(t.Context(), root, "acme", after.ClientKeys[0].Prefix, time.Hour)
	if err != nil || second == key || len(after.ClientKeys) != 2 {
		t.Fatalf("got %q, %+v, %v", second, after, err)
	}
	old, fresh := after.ClientKeys[0], after.ClientKeys[1]
	if left := time.Until(old.ExpiresAt); left < 59*time.Minute || left > time.Hour || !fresh.ExpiresAt.IsZero() || fresh.Name != "Android" {
		t.Errorf("got %+v and %+v", old, fresh)
	}
	_, err = p.service.Set(t.Context(), root, "acme", Change{Header: ptr("X-Other")})
	wantInvalid(t, err, "client_key_header") // all apps send the other one
	done(t)(p.service.RevokeClientKey(t.Context(), root, "acme", old.Prefix))
	_, err = p.service.RevokeClientKey(t.Context(), root, "acme", fresh.Prefix)
	wantInvalid(t, err, "client_key") // it is the last
	done(t)(p.service.Set(t.Context(), root, "acme", Change{Gate: ptr(GateObserved)}))
	after = done(t)(p.service.RevokeClientKey(t.Context(), root, "acme", fresh.Prefix))
	if after.ClientKeys[1].RevokedAt.IsZero() {
		t.Errorf("got %+v", after.ClientKeys[1])
	}
	_, _, err = p.service.RotateClientKey(t.Context(), root, "acme", fresh.Prefix, time.Hour)
	wantInvalid(t, err, "client_key")
	_, err = p.service.RevokeClientKey(t.Context(), root, "acme", "vck_nobody")
	wantError(t, err, ErrNotFound)
	_, _, err = p.service.AddClientKey(t.Context(), root, "acme", "")
	wantInvalid(t, err, "name")
	_, _, err = p.service.RotateClientKey(t.Context(), root, "acme", old.Prefix, -1)
	wantInvalid(t, err, "overlap")

	for _, table := range []string{"client_keys", "audit_log", "tenants"} {
		rows := query[string](t, p, "SELECT coalesce(string_agg(x::text, ''), '') FROM "+table+" x")
		if strings.Contains(rows, key) || strings.Contains(rows, second) {
			t.Errorf("a client key is in %s", table)
		}
	}
}
