package callers

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

func bearerOf(k *lnurl.SigningKey, issuer, subject string) string {
	return "Bearer " + k.Sign(subject, issuer, time.Now(), time.Hour)
}

// known is the tenant as a fresh directory hands it out.
func (p *platform) known(t *testing.T, slug string) *Tenant {
	t.Helper()
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{})
	if err := d.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return find1(t, d, slug)
}

func find1(t *testing.T, d *Directory, slug string) *Tenant {
	t.Helper()
	tenant, err := d.Resolve("localhost", slug)
	if err != nil {
		t.Fatal(err)
	}
	return tenant
}

func TestTheFormAndTheIssuerOfACredentialSayWhichSourceItIsOf(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	a, b := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	p.addSource(t, "acme", tenants.NewSource{Name: "a", Kind: tenants.JWT, Rules: from("https://a.example"), Keys: jwks(a)})
	p.addSource(t, "acme", tenants.NewSource{Name: "b", Kind: tenants.JWT, Rules: from("https://b.example"), Keys: jwks(b)})
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	tenant := p.known(t, "acme")
	auth := NewAuthenticator(AuthenticatorConfig{})
	logins, err := NewLogins(auth, LoginsConfig{MasterKey: masterKey()})
	if err != nil {
		t.Fatal(err)
	}
	site, err := logins.Site(tenant, nil, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	key := privateKey(5)
	subject := fmt.Sprintf("%x", key.PubKey().SerializeCompressed())
	login := func() string { return "Bearer " + site.Key.Sign(subject, site.Issuer, time.Now(), site.Life) }

	wallets := map[storage.WalletID]string{}
	for _, tc := range []struct{ credential, source, namespace string }{
		{signToken(key, uint64(time.Now().Unix())), "signature", "sig"},
		{bearerOf(a, "https://a.example", subject), "a", "jwt:a"},
		{bearerOf(b, "https://b.example", subject), "b", "jwt:b"},
		{strings.Replace(login(), "Bearer", "bEARER", 1), "lnurl", "lnurl"},
	} {
		caller, err := auth.Authenticate(t.Context(), tenant, with(tc.credential), netip.Addr{})
		if err != nil || caller.Source.Name != tc.source || caller.Source.Namespace != tc.namespace || caller.Subject != subject || caller.Tenant != tenant {
			t.Errorf("%s: got %+v, %v", tc.source, caller, err)
			continue
		}
		// One subject under four schemes is four wallets: no scheme can name another's.
		if other := wallets[caller.Owner().Wallet()]; other != "" {
			t.Errorf("%s and %s name one wallet", other, tc.source)
		}
		wallets[caller.Owner().Wallet()] = tc.source
	}
	for what, credential := range map[string]string{
		"of a, signed by b":                bearerOf(b, "https://a.example", subject),
		"of nobody":                        bearerOf(lnurl.NewSigningKey(), "https://nobody.example", subject),
		"of the platform, signed by a":     bearerOf(a, site.Issuer, subject),
		"of another tenant's platform key": bearerOf(lnurl.NewSigningKey(), site.Issuer, subject),
		"signed by a, of no issuer":        bearerOf(a, "", subject),
	} {
		if caller, err := auth.Authenticate(t.Context(), tenant, with(credential), netip.Addr{}); !isRefusal(err) {
			t.Errorf("%s: got %+v, %v", what, caller, err)
		}
	}
}

func TestTheKidOfATokenSaysWhichSourceItIsOfWhereThatIsAskedFor(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	one, two := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	p.addSource(t, "acme", tenants.NewSource{Name: "one", Kind: tenants.JWT, Rules: from(""), Keys: jwks(one), ByKeyID: true})
	p.addSource(t, "acme", tenants.NewSource{Name: "two", Kind: tenants.JWT, Rules: from(""), Keys: jwks(two), ByKeyID: true})
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	tenant := p.known(t, "acme")
	auth := NewAuthenticator(AuthenticatorConfig{})
	for source, credential := range map[string]string{
		"one": bearerOf(one, "", "alice"), "two": bearerOf(two, "https://elsewhere.example", "alice"),
	} {
		caller, err := auth.Authenticate(t.Context(), tenant, with(credential), netip.Addr{})
		if err != nil || caller.Source.Name != source {
			t.Errorf("%s: got %+v, %v", source, caller, err)
		}
	}
	if _, err := auth.Authenticate(t.Context(), tenant, with(bearerOf(lnurl.NewSigningKey(), "", "alice")), netip.Addr{}); !isRefusal(err) {
		t.Errorf("a stranger's kid: %v", err)
	}
}

func isRefusal(err error) bool { _, ok := errors.AsType[*AuthError](err); return ok }

func TestASourceInAnothersNamespaceNamesItsWallets(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	before, after := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	p.addSource(t, "acme", tenants.NewSource{Name: "before", Kind: tenants.JWT, Rules: from("https://before.example"), Keys: jwks(before)})
	auth := NewAuthenticator(AuthenticatorConfig{})
	old, err := auth.Authenticate(t.Context(), p.known(t, "acme"), with(bearerOf(before, "https://before.example", "alice")), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	done(t)(p.service.RemoveSource(t.Context(), root, "acme", "before"))
	p.addSource(t, "acme", tenants.NewSource{Name: "after", Kind: tenants.JWT, Rules: from("https://after.example"), Keys: jwks(after), NamespaceOf: "before"})
	tenant := p.known(t, "acme")
	moved, err := auth.Authenticate(t.Context(), tenant, with(bearerOf(after, "https://after.example", "alice")), netip.Addr{})
	if err != nil || moved.Owner() != old.Owner() {
		t.Errorf("got %+v, %v, want %+v", moved, err, old)
	}
	if _, err := auth.Authenticate(t.Context(), tenant, with(bearerOf(before, "https://before.example", "alice")), netip.Addr{}); !isRefusal(err) {
		t.Errorf("the removed source still proves: %v", err)
	}
}

// The claim of a revocation: at once, on every instance within 5 s, cached credentials included.
func TestARevocationHoldsOnEveryInstanceWithin5Seconds(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	key := lnurl.NewSigningKey()
	auths := []*Authenticator{NewAuthenticator(AuthenticatorConfig{}), NewAuthenticator(AuthenticatorConfig{})}
	var directories []*Directory
	for range auths {
		d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{})
		run(t, d)
		directories = append(directories, d)
	}
	p.create(t, "acme")
	p.create(t, "bystander")
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from(""), Keys: jwks(key, lnurl.NewSigningKey())})
	p.addSource(t, "bystander", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from(""), Keys: jwks(key)})
	_, clientKey, err := p.service.AddClientKey(t.Context(), root, "acme", "app")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = p.service.AddClientKey(t.Context(), root, "acme", "another app")
	if err != nil {
		t.Fatal(err)
	}
	header := with(bearerOf(key, "", "alice"))
	header.Set("X-Client-Key", clientKey)
	everywhere := func(what, slug string, accepted bool) {
		t.Helper()
		for i, d := range directories {
			eventually(t, fmt.Sprint(what, ", on instance ", i), func() bool {
				tenant, err := d.Resolve("localhost", slug)
				if err != nil {
					return false
				}
				for range 2 { // cold, and cached
					if _, err := auths[i].Authenticate(t.Context(), tenant, header, netip.Addr{}); (err == nil) != accepted {
						return false
					}
				}
				return true
			})
		}
	}
	everywhere("good", "acme", true)
	done(t)(p.service.SetKey(t.Context(), root, "acme", "auth", key.ID(), jwt.Retired, time.Now().Add(time.Hour)))
	everywhere("key retired later", "acme", true)
	done(t)(p.service.SetKey(t.Context(), root, "acme", "auth", key.ID(), jwt.Retired, time.Now().Add(-time.Second)))
	everywhere("key retired", "acme", false)
	done(t)(p.service.SetKey(t.Context(), root, "acme", "auth", key.ID(), jwt.Active, time.Time{}))
	everywhere("key active again", "acme", true)
	done(t)(p.service.SetKey(t.Context(), root, "acme", "auth", key.ID(), jwt.Standby, time.Time{}))
	everywhere("key on standby", "acme", false)
	done(t)(p.service.SetKey(t.Context(), root, "acme", "auth", key.ID(), jwt.Active, time.Time{}))
	done(t)(p.service.Set(t.Context(), root, "acme", tenants.Change{Gate: ptr(tenants.GateRequired)}))
	everywhere("gate required", "acme", true)
	done(t)(p.service.RevokeClientKey(t.Context(), root, "acme", clientKey[:10]))
	everywhere("client key revoked", "acme", false)
	done(t)(p.service.Set(t.Context(), root, "acme", tenants.Change{Gate: ptr(tenants.GateOff)}))
	everywhere("gate off", "acme", true)
	done(t)(p.service.SetKey(t.Context(), root, "acme", "auth", key.ID(), jwt.Revoked, time.Time{}))
	everywhere("key revoked", "acme", false)
	everywhere("another tenant's key of the same kid", "bystander", true)
}

// issuerServer is a tenant's JWKS endpoint, which can be down.
type issuerServer struct {
	mu      sync.Mutex
	keys    []byte
	down    bool
	fetched int
}

func (s *issuerServer) get(context.Context, uuid.UUID, string, http.Header) (egress.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched++
	if s.down {
		return egress.Response{}, errors.New("connection refused")
	}
	return egress.Response{Status: http.StatusOK, Header: http.Header{}, Body: s.keys}, nil
}

func (s *issuerServer) set(down bool, keys ...*lnurl.SigningKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.keys = down, jwks(keys...)
}

// clock is one that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

func TestWalletsWithKnownKeysDoNotNoticeAnIssuersOutage(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from("https://a.example"), JWKSURL: "https://a.example/keys"})
	known, unknown := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	issuer, time := &issuerServer{}, &clock{}
	issuer.set(false, known)
	auth := NewAuthenticator(AuthenticatorConfig{Now: time.now})
	pool := open(t, p.url, db.RoleAPI)
	instance := func() *Directory {
		d := newDirectory(t, pool, DirectoryConfig{Fetch: issuer.get, Saves: pool, Now: time.now})
		run(t, d)
		eventually(t, "the directory is loaded", d.Loaded)
		return d
	}
	try := func(d *Directory, k *lnurl.SigningKey) error {
		_, err := auth.Authenticate(t.Context(), find1(t, d, "acme"), with("Bearer "+k.Sign("alice", "https://a.example", time.now(), 0)), netip.Addr{})
		return err
	}
	d := instance()
	eventually(t, "the keys are fetched", func() bool { return try(d, known) == nil })
	eventually(t, "the keys are kept", func() bool { return query[int](t, p, "SELECT count(*) FROM jwks_documents") == 1 })

	issuer.set(true)
	for range 12 {
		time.forward(5 * 60e9)
		if err := try(d, known); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody can say of a new key whether it is the issuer's: the wallet tries again.
	wantError(t, try(d, unknown), ErrKeysUnavailable)

	// An instance that starts meanwhile knows the last good keys.
	late := instance()
	if err := try(late, known); err != nil {
		t.Error(err)
	}
	issuer.set(false, known, unknown)
	time.forward(60e9)
	eventually(t, "a new key is fetched when a token names it", func() bool { return try(d, unknown) == nil })
}

func TestAKeyOfAURLCanBeRevokedThoughTheURLStillHasIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from(""), JWKSURL: "https://a.example/keys"})
	stolen, good := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	issuer := &issuerServer{}
	issuer.set(false, stolen, good)
	pool := open(t, p.url, db.RoleAPI)
	d := newDirectory(t, pool, DirectoryConfig{Fetch: issuer.get, Saves: pool})
	run(t, d)
	eventually(t, "the directory is loaded", d.Loaded)
	auth := NewAuthenticator(AuthenticatorConfig{})
	token := with(bearerOf(stolen, "", "alice"))
	accepted := func(h http.Header) bool {
		_, err := auth.Authenticate(t.Context(), find1(t, d, "acme"), h, netip.Addr{})
		return err == nil
	}
	eventually(t, "the key is fetched", func() bool { return accepted(token) })
	eventually(t, "the keys are kept", func() bool { return query[int](t, p, "SELECT count(*) FROM jwks_documents") == 1 })

	_, err := p.service.SetKey(t.Context(), root, "acme", "auth", "nobody", jwt.Revoked, time.Time{})
	wantError(t, err, tenants.ErrNotFound)
	_, err = p.service.SetKey(t.Context(), root, "acme", "auth", stolen.ID(), jwt.Standby, time.Time{})
	wantInvalid(t, err, "state")
	done(t)(p.service.SetKey(t.Context(), root, "acme", "auth", stolen.ID(), jwt.Revoked, time.Time{}))
	eventually(t, "the key is revoked", func() bool { return !accepted(token) })
	if !accepted(with(bearerOf(good, "", "alice"))) {
		t.Error("the other key is revoked too")
	}
	// A change of what is nothing to the source voids no credential that was verified by its keys.
	before := find1(t, d, "acme").schemes.anyToken(t).issuer.Set()
	p.create(t, "bystander")
	if err := d.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if find1(t, d, "acme").schemes.anyToken(t).issuer.Set() != before {
		t.Error("the keys were replaced by the same ones")
	}

	// Another URL begins with the keys of the one before it, and what is revoked is revoked there too.
	issuer.set(true)
	done(t)(p.service.SetSource(t.Context(), root, "acme", "auth", tenants.SourceChange{JWKSURL: ptr("https://down.example/keys")}))
	eventually(t, "the other URL is known", func() bool {
		return find1(t, d, "acme").Source(tenants.JWT).JWKSURL == "https://down.example/keys"
	})
	if !accepted(with(bearerOf(good, "", "carol"))) || accepted(token) {
		t.Error("a URL that does not answer yet cuts wallets off, or brings a revoked key back")
	}
	issuer.set(false, stolen, good)
	done(t)(p.service.SetSource(t.Context(), root, "acme", "auth", tenants.SourceChange{JWKSURL: ptr("https://b.example/keys")}))
	eventually(t, "the other URL is fetched", func() bool { return accepted(with(bearerOf(good, "", "bob"))) })
	if accepted(token) {
		t.Error("the key is back")
	}
}

func TestTheGateAsksForAClientKey(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	tenant, key, err := p.service.AddClientKey(t.Context(), root, "acme", "app")
	if err != nil {
		t.Fatal(err)
	}
	prefix := tenant.ClientKeys[0].Prefix
	tenant, fresh, err := p.service.RotateClientKey(t.Context(), root, "acme", prefix, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, lasting, err := p.service.RotateClientKey(t.Context(), root, "acme", tenant.ClientKeys[1].Prefix, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pool := open(t, p.url, db.RoleAPI)
	auth := NewAuthenticator(AuthenticatorConfig{Pool: pool})
	try := func(tenant *Tenant, name string, keys ...string) error {
		header := with(signToken(privateKey(5), uint64(time.Now().Unix())))
		for _, k := range keys {
			header.Add(name, k)
		}
		_, err := auth.Authenticate(t.Context(), tenant, header, netip.Addr{})
		return err
	}
	bad := map[string][]string{
		reasonNoClientKey:    {},
		reasonClientKey:      {"vck_" + strings.Repeat("a", 26)},
		reasonClientKeyEnded: {key},
	}
	for _, gate := range []tenants.GateState{tenants.GateOff, tenants.GateObserved, tenants.GateRequired} {
		p.set(t, "acme", tenants.Change{Gate: ptr(gate), Header: ptr("X-App")})
		tenant := p.known(t, "acme")
		for _, k := range []string{fresh, lasting} {
			if err := try(tenant, "x-app", k); err != nil {
				t.Errorf("%s: %v", gate, err)
			}
		}
		for reason, keys := range bad {
			switch err := try(tenant, "X-App", keys...); {
			case gate == tenants.GateRequired:
				wantAuthError(t, err, reason)
			case err != nil:
				t.Errorf("%s: %s: %v", gate, reason, err)
			}
		}
		if gate == tenants.GateRequired {
			wantAuthError(t, try(tenant, "X-App", fresh, fresh), reasonNoClientKey)
			wantAuthError(t, try(tenant, "X-Client-Key", fresh), reasonNoClientKey)
		}
	}
	if err := auth.failures.flush(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	got := query[string](t, p, `SELECT string_agg(reason || ' ' || count, '; ' ORDER BY reason) FROM auth_failures WHERE source = ''`)
	want := strings.Join([]string{
		observed + reasonClientKeyEnded + " 1", observed + reasonNoClientKey + " 1", observed + reasonClientKey + " 1",
		reasonClientKeyEnded + " 1", reasonNoClientKey + " 3", reasonClientKey + " 1",
	}, "; ")
	if len(got) != len(want) || !strings.Contains(got, reasonNoClientKey+" 3") {
		t.Errorf("counted %s, want in some order %s", got, want)
	}
}

func TestCountsOfRefusalsSurviveAnOutage(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	key := lnurl.NewSigningKey()
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from(""), Keys: jwks(key)})
	tenant := p.known(t, "acme")
	wire, cutPool := newWire(t, p.url)
	auths := []*Authenticator{NewAuthenticator(AuthenticatorConfig{}), NewAuthenticator(AuthenticatorConfig{})}
	refusals := func() {
		for i, auth := range auths {
			for range i + 1 {
				for _, header := range []http.Header{
					with(), with("Bearer x"), with("Bearer " + key.Sign("alice", "", time.Now().Add(-2*time.Hour), time.Hour)),
					with(keyOne + sigOne + "1700000001"),
				} {
					if _, err := auth.Authenticate(t.Context(), tenant, header, netip.Addr{}); err == nil {
						t.Fatal("accepted")
					}
				}
			}
		}
	}
	flush := func(pool *pgxpool.Pool) (err error) {
		for _, auth := range auths {
			err = errors.Join(err, auth.failures.flush(t.Context(), pool))
		}
		return err
	}
	wire.state.Store(cut)
	refusals()
	if flush(cutPool) == nil {
		t.Fatal("flushed without a database")
	}
	refusals()
	pool := open(t, p.url, db.RoleAPI)
	for range 2 { // what was flushed is not flushed again
		if err := flush(pool); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []struct{ source, reason string }{
		{"", reasonMissing},
		{"", (&jwt.Error{Reason: jwt.BadForm}).Error()},
		{"auth", (&jwt.Error{Reason: jwt.Expired}).Error()},
		{"signature", reasonWindow},
	} {
		n := query[int](t, p, "SELECT coalesce(sum(count), 0) FROM auth_failures WHERE source = $1 AND reason = $2 AND tenant_id = $3", want.source, want.reason, tenant.ID)
		if n != 6 {
			t.Errorf("%+v was counted %d times", want, n)
		}
	}
}

// countingVerifier counts the curve arithmetic that is spent on signatures.
func countingVerifier(n *atomic.Int64) verifier {
	return func(key *[keySize]byte, digest *[sha256.Size]byte, sig *[signatureSize]byte) bool {
		n.Add(1)
		return verifyECDSA(key, digest, sig)
	}
}

func TestACredentialIsVerifiedOnceAndItsTimeIsAskedEachTime(t *testing.T) {
	t.Parallel()
	now, spent := &clock{}, new(atomic.Int64)
	auth := NewAuthenticator(AuthenticatorConfig{Now: now.now})
	auth.ecdsa = countingVerifier(spent)
	tenant := signingTenant(time.Hour)
	header := with(signToken(privateKey(5), uint64(time.Now().Unix())))
	for range 100 {
		if _, err := auth.Authenticate(t.Context(), tenant, header, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	now.forward(time.Hour + 5*time.Second)
	_, err := auth.Authenticate(t.Context(), tenant, header, netip.Addr{})
	wantAuthError(t, err, reasonWindow)
	if e, _ := errors.AsType[*AuthError](err); e.Source != "signature" {
		t.Errorf("the refusal is of source %q", e.Source)
	}
	if spent.Load() != 1 {
		t.Errorf("verified %d times", spent.Load())
	}
	// The same credential is another one for another tenant.
	now.forward(-time.Hour)
	if _, err := auth.Authenticate(t.Context(), signingTenant(time.Hour), header, netip.Addr{}); err != nil || spent.Load() != 2 {
		t.Errorf("got %v after %d verifications", err, spent.Load())
	}
	// Even if by a fault two had the same schemes.
	other := *tenant
	other.ID = uuid.New()
	if caller, err := auth.Authenticate(t.Context(), &other, header, netip.Addr{}); err != nil || caller.Tenant != &other || spent.Load() != 3 {
		t.Errorf("got %+v, %v after %d verifications", caller, err, spent.Load())
	}
}

// A change of a plan is one of all its tenants: their wallets must not all be verified anew at once.
func TestOnlyWhatCredentialsDependOnVoidsThoseThatWereVerified(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "bystander")
	p.create(t, "acme")
	key, stolen := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from("https://a.example"), Keys: jwks(key, stolen)})
	p.addSource(t, "acme", tenants.NewSource{Name: "url", Kind: tenants.JWT, Rules: from("https://b.example"), JWKSURL: "https://b.example/keys"})
	_, clientKey, err := p.service.AddClientKey(t.Context(), root, "acme", "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = p.service.AddClientKey(t.Context(), root, "acme", "another app"); err != nil {
		t.Fatal(err)
	}
	issuer := &issuerServer{}
	issuer.set(false, key)
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{Fetch: issuer.get})
	refresh := func() {
		t.Helper()
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var spent atomic.Int64
	auth := NewAuthenticator(AuthenticatorConfig{})
	auth.ecdsa = countingVerifier(&spent)
	header := with(signToken(privateKey(5), uint64(time.Now().Unix())))
	header.Set("X-App", clientKey)
	verified := func(tenant *Tenant) int64 {
		t.Helper()
		spent.Store(0)
		caller, err := auth.Authenticate(t.Context(), tenant, header, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		if caller.Tenant != tenant || caller.Source != tenant.Source(tenants.Signature) || caller.Owner().Tenant != tenant.ID {
			t.Errorf("the caller is %+v, asked was for %+v", caller, tenant)
		}
		return spent.Load()
	}
	set := func(c tenants.Change) func() { return func() { p.set(t, "acme", c) } }
	service := func(change func(ctx context.Context, s *tenants.Service) (*tenants.Tenant, error)) func() {
		return func() { done(t)(change(t.Context(), p.service)) }
	}
	refresh()
	verified(find1(t, d, "acme"))
	verified(find1(t, d, "bystander"))
	for _, step := range []struct {
		what   string
		change func()
		void   bool
		holds  func(*Tenant) bool // nil: of the tenant nothing is to be seen
	}{
		{"nothing", func() {}, false, nil},
		{"another tenant", func() { p.create(t, "another") }, false, nil},
		{"limits of its plan", func() { p.sql(t, `UPDATE plans SET limits = limits || '{"wallets": 77}'`) }, false,
			func(acme *Tenant) bool { return acme.Limits.Wallets == 77 }},
		{"limits of its own", set(tenants.Change{Limits: map[string]*int64{"wallets": ptr(int64(5))}}), false,
			func(acme *Tenant) bool { return acme.Limits.Wallets == 5 }},
		{"limits that are none", func() { p.sql(t, `UPDATE tenants SET limits = '{"wallets": 0}' WHERE slug = 'acme'`) }, false,
			func(acme *Tenant) bool { return acme.Fault != "" }},
		{"limits again", set(tenants.Change{Limits: map[string]*int64{"wallets": nil}}), false,
			func(acme *Tenant) bool { return acme.Limits.Wallets == 77 && acme.Fault == "" }},
		{"name", set(tenants.Change{Name: ptr("Acme")}), false, func(acme *Tenant) bool { return acme.Name == "Acme" }},
		{"enrolment", set(tenants.Change{Enrolment: ptr(tenants.EnrolmentClosed)}), false, func(acme *Tenant) bool { return acme.Enrolment == tenants.EnrolmentClosed }},
		{"state", set(tenants.Change{State: ptr(tenants.ReadOnly)}), false, func(acme *Tenant) bool { return errors.Is(acme.Refuses(true), tenants.ErrReadOnly) }},
		{"state back", set(tenants.Change{State: ptr(tenants.Active)}), false, func(acme *Tenant) bool { return acme.Refuses(true) == nil }},
		{"domain", func() { p.addDomain(t, "acme", "vss.acme.com") }, false, func(acme *Tenant) bool { return len(acme.Domains) == 1 }},
		{"domain checked", func() { p.sql(t, "UPDATE domains SET checked_at = now()") }, false,
			func(acme *Tenant) bool { return !acme.Domains[0].CheckedAt.IsZero() }},
		{"gate", set(tenants.Change{Gate: ptr(tenants.GateRequired), Header: ptr("X-App")}), false, func(acme *Tenant) bool { return acme.Gate.State == tenants.GateRequired }},
		{"window", service(func(ctx context.Context, s *tenants.Service) (*tenants.Tenant, error) {
			return s.SetSource(ctx, root, "acme", "signature", tenants.SourceChange{Window: ptr(time.Hour)})
		}), true, func(acme *Tenant) bool { return acme.Source(tenants.Signature).Window == time.Hour }},
		{"rules of a source", service(func(ctx context.Context, s *tenants.Service) (*tenants.Tenant, error) {
			return s.SetSource(ctx, root, "acme", "auth", tenants.SourceChange{Issuer: ptr("https://c.example")})
		}), true, nil},
		{"key revoked", service(func(ctx context.Context, s *tenants.Service) (*tenants.Tenant, error) {
			return s.SetKey(ctx, root, "acme", "auth", stolen.ID(), jwt.Revoked, time.Time{})
		}), true, nil},
		{"key retired", service(func(ctx context.Context, s *tenants.Service) (*tenants.Tenant, error) {
			return s.SetKey(ctx, root, "acme", "auth", key.ID(), jwt.Retired, time.Now())
		}), true, nil},
		{"another URL", service(func(ctx context.Context, s *tenants.Service) (*tenants.Tenant, error) {
			return s.SetSource(ctx, root, "acme", "url", tenants.SourceChange{JWKSURL: ptr("https://b.example/others")})
		}), true, nil},
		{"other keys of the same URL", func() { d.issuers.bySource = nil; p.create(t, "yet-another") }, true, nil},
		{"source removed", service(func(ctx context.Context, s *tenants.Service) (*tenants.Tenant, error) {
			return s.RemoveSource(ctx, root, "acme", "url")
		}), true, func(acme *Tenant) bool { return len(acme.Removed) == 1 }},
		{"client key revoked", service(func(ctx context.Context, s *tenants.Service) (*tenants.Tenant, error) {
			return s.RevokeClientKey(ctx, root, "acme", p.known(t, "acme").ClientKeys[1].Prefix)
		}), true, nil},
		{"client key added", func() {
			if _, _, err := p.service.AddClientKey(t.Context(), root, "acme", "third app"); err != nil {
				t.Fatal(err)
			}
		}, true, nil},
		{"name and source", func() {
			set(tenants.Change{Name: ptr("Acme again")})()
			p.addSource(t, "acme", tenants.NewSource{Name: "third", Kind: tenants.JWT, Rules: from("https://d.example"), Keys: jwks(key)})
		}, true, func(acme *Tenant) bool { return acme.Name == "Acme again" }},
	} {
		before := find1(t, d, "acme")
		step.change()
		refresh()
		acme := find1(t, d, "acme")
		if step.holds != nil && (step.holds(before) || !step.holds(acme)) {
			t.Errorf("%s: the tenant was %+v and is %+v", step.what, before, acme)
		}
		if n := verified(acme); n != map[bool]int64{true: 1}[step.void] {
			t.Errorf("%s: verified %d times", step.what, n)
		}
		// A call that began before the change ends as it began.
		if n := verified(before) + verified(acme) + verified(find1(t, d, "bystander")); n != 0 {
			t.Errorf("%s: the others were verified %d times", step.what, n)
		}
	}
}

func TestManyRequestsWithOneNewCredentialCostOneVerification(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var spent atomic.Int64
		auth := NewAuthenticator(AuthenticatorConfig{})
		auth.ecdsa = func(key *[keySize]byte, digest *[sha256.Size]byte, sig *[signatureSize]byte) bool {
			time.Sleep(time.Second) // until all have come
			return countingVerifier(&spent)(key, digest, sig)
		}
		tenant := signingTenant(time.Hour)
		header := with(signToken(privateKey(5), uint64(time.Now().Unix())))
		errs := together(100, func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			if i == 0 {
				cancel() // who verifies for all may leave
			}
			defer cancel()
			_, err := auth.Authenticate(ctx, tenant, header, netip.Addr{})
			if i == 0 {
				return nil
			}
			return err
		})
		if err := errors.Join(errs...); err != nil || spent.Load() != 1 {
			t.Errorf("got %v after %d verifications", err, spent.Load())
		}
	})
}

func TestAFloodOfCredentialsPushesOutNoneThatIsInUse(t *testing.T) {
	t.Parallel()
	var spent atomic.Int64
	auth := NewAuthenticator(AuthenticatorConfig{CacheSize: 1000})
	auth.ecdsa = countingVerifier(&spent)
	tenant := signingTenant(time.Hour)
	now := uint64(time.Now().Unix())
	var good []http.Header
	for i := range 200 {
		good = append(good, with(signToken(privateKey(byte(i+1)), now)))
	}
	use := func() {
		for i, h := range good {
			if _, err := auth.Authenticate(t.Context(), tenant, h, netip.Addr{}); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 {
				auth.cache.CleanUp() // it forgets reads that come faster than it can note them, as here alone
			}
		}
	}
	for range 10 {
		use()
	}
	flooder := privateKey(255)
	for i := range 5000 {
		// Everybody can make good ones, of a new time each.
		if _, err := auth.Authenticate(t.Context(), tenant, with(signToken(flooder, now-uint64(i%3000))), netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		_, _ = auth.Authenticate(t.Context(), tenant, with(forged(now)), netip.Addr{})
		if i%500 == 0 {
			use()
		}
	}
	auth.cache.CleanUp() // what is pushed out goes a moment later
	if n := auth.cache.EstimatedSize(); n > 1100 {
		t.Errorf("the cache has %d entries", n)
	}
	spent.Store(0)
	use()
	if spent.Load() > 20 {
		t.Errorf("%d of 200 credentials in use were pushed out", spent.Load())
	}
}

// forged is a credential of a random signature, for the key 1.
func forged(seconds uint64) string {
	var sig [64]byte
	_, _ = rand.Read(sig[1:])
	sig[32] &= 0x3f
	return fmt.Sprintf("%s%x%d", keyOne, sig, seconds)
}

func TestAFloodOfForgeriesIsBoundedAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	then := time.Unix(vectorSeconds, 0)
	var spent atomic.Int64
	auth := authenticatorAt(then, countingVerifier(&spent))
	tenant := signingTenant(time.Hour)
	attacker, neighbour, elsewhere := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff"), netip.MustParseAddr("2001:db8:1::1")
	try := func(credential string, from netip.Addr) error {
		_, err := auth.Authenticate(t.Context(), tenant, with(credential), from)
		return err
	}
	wallet, newcomer := privateKey(7), privateKey(8)
	if err := try(signToken(wallet, vectorSeconds), neighbour); err != nil {
		t.Fatal(err)
	}
	spent.Store(0)
	var held int
	for range 20_000 {
		if errors.Is(try(forged(vectorSeconds), attacker), ErrSuspect) {
			held++
		}
	}
	// Some at once, and then a tenth of a second's worth: the clock stands still.
	if n := uint32(spent.Load()); n > levels[0].after+suspectBudget/250+1 || n < levels[0].after || held == 0 {
		t.Errorf("20000 forged credentials cost %d verifications, %d were not looked at", n, held)
	}
	for what, tc := range map[string]struct {
		credential string
		from       netip.Addr
		want       error
	}{
		"a wallet of the same network with a cached credential": {signToken(wallet, vectorSeconds), neighbour, nil},
		"a wallet of the same network with a new credential":    {signToken(wallet, vectorSeconds+1), neighbour, nil},
		"a newcomer of the same network":                        {signToken(newcomer, vectorSeconds), neighbour, ErrSuspect},
		"a newcomer of another network":                         {signToken(privateKey(9), vectorSeconds), elsewhere, nil},
	} {
		if err := try(tc.credential, tc.from); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", what, err, tc.want)
		}
	}
	// A minute later it is forgotten.
	later := authenticatorAt(then.Add(time.Minute), verifyECDSA)
	later.suspects = auth.suspects
	if later.suspects.suspect(attacker, then.Add(time.Minute)) {
		t.Error("the network is still suspect")
	}
}

func TestForgeriesInAWalletsNameLeaveItWhatItHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var forgeries, refused atomic.Int64
		key, stranger := lnurl.NewSigningKey(), lnurl.NewSigningKey()
		tenant := prepared(tenants.Source{Name: "auth", Kind: tenants.JWT, Namespace: "auth", Rules: from("https://a.example"),
			Keys: []tenants.SourceKey{{ID: key.ID(), Public: key.Public().JSON(), State: jwt.Active}}})
		auth := NewAuthenticator(AuthenticatorConfig{})
		auth.tokens = func(alg string, key crypto.PublicKey, signed, sig []byte) bool {
			good := jwt.VerifySignature(alg, key, signed, sig)
			if !good {
				forgeries.Add(1)
			}
			return good
		}
		here := netip.MustParseAddr("192.0.2.1") // the attacker's and the wallet's
		try := func(token string) error {
			_, err := auth.Authenticate(t.Context(), tenant, with("Bearer "+token), here)
			return err
		}
		wallet := func(n int) string { // a new token each
			return key.Sign("alice", "https://a.example", time.Now().Add(time.Duration(-n)*time.Second), 5*time.Minute)
		}
		forged := func(subject string) string { // with the key's kid, and of no key
			token := key.Sign(subject, "https://a.example", time.Now(), time.Hour)
			other := stranger.Sign(subject, "https://a.example", time.Now(), time.Hour)
			return token[:strings.LastIndexByte(token, '.')] + other[strings.LastIndexByte(other, '.'):]
		}
		if err := try(wallet(0)); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var attack sync.WaitGroup
		began := time.Now()
		for n := range 40 {
			subject := "alice"
			if n%2 > 0 {
				subject = fmt.Sprint("nobody ", n)
			}
			token := forged(subject)
			attack.Go(func() {
				for ctx.Err() == nil {
					if errors.Is(try(token), ErrSuspect) {
						refused.Add(1)
					}
					time.Sleep(5 * time.Millisecond) // as a network has it
				}
			})
		}
		time.Sleep(time.Second)
		for n := range 48 {
			if err := try(wallet(n + 1)); err != nil {
				t.Errorf("the wallet's token %d: %v", n, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		stop()
		attack.Wait()
		// Each budget has a second's worth at first, and then a second's each second.
		per := float64(time.Second.Microseconds()) / 10 / 220
		most := int64(2*per*(1+time.Since(began).Seconds())) + int64(levels[0].after) + 40
		if n := forgeries.Load(); n > most || refused.Load() == 0 {
			t.Errorf("%d forgeries were verified, %d at most may be; %d were not looked at", n, most, refused.Load())
		}
	})
}

func TestForgedTokensAtASourceWithAURLAreLimited(t *testing.T) {
	t.Parallel()
	for _, down := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var verifications atomic.Int64
			keys := []*lnurl.SigningKey{lnurl.NewSigningKey(), lnurl.NewSigningKey(), lnurl.NewSigningKey(), lnurl.NewSigningKey()}
			url := &issuerServer{}
			url.set(false, keys...)
			id := uuid.New()
			source, err := jwt.NewSource(jwt.SourceConfig{Get: func(ctx context.Context, u string, h http.Header) (egress.Response, error) {
				return url.get(ctx, uuid.Nil, u, h)
			}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			source.Start(ctx, &running)
			defer func() { stop(); running.Wait() }()
			synctest.Wait()
			url.set(down, keys...)
			time.Sleep(time.Minute)
			tenant := &Tenant{Tenant: &tenants.Tenant{State: tenants.Active, Gate: tenants.Gate{State: tenants.GateOff}, Sources: []tenants.Source{{ID: id, Name: "auth", Kind: tenants.JWT, Rules: from("https://a.example"), JWKSURL: "https://a.example/keys"}}}}
			tenant.schemes = prepare(tenant.Tenant, map[uuid.UUID]*jwt.Source{id: source}, slog.Default())
			auth := NewAuthenticator(AuthenticatorConfig{})
			auth.tokens = func(alg string, key crypto.PublicKey, signed, sig []byte) bool {
				verifications.Add(1)
				return jwt.VerifySignature(alg, key, signed, sig)
			}
			encode := base64.RawURLEncoding.EncodeToString
			limited := 0
			for n := range 2000 { // none has a kid, so each is tried with all keys
				token := encode([]byte(`{"alg":"ES256"}`)) + "." + encode(fmt.Appendf(nil, `{"iss":"https://a.example","sub":"%d","exp":%d}`, n, time.Now().Unix()+60)) + "." + encode(make([]byte, 64))
				_, err := auth.Authenticate(t.Context(), tenant, with("Bearer "+token), netip.MustParseAddr("192.0.2.1"))
				if errors.Is(err, ErrSuspect) {
					limited++
				} else if down != errors.Is(err, ErrKeysUnavailable) {
					t.Fatalf("token %d: %v", n, err)
				}
			}
			// The first few, and then a tenth of a second's worth, at 200 µs a key.
			if n := int(verifications.Load()); n > 4*int(levels[0].after)+600 || limited < 1800 {
				t.Errorf("the URL is down: %v: 2000 forged tokens cost %d verifications, and %d were limited", down, n, limited)
			}
		})
	}
}

func TestTheExplanationSaysWhatIsWrongAndNothingOfTheCredential(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	key := lnurl.NewSigningKey()
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from("https://a.example"), Keys: jwks(key)})
	_, _, err := p.service.AddClientKey(t.Context(), root, "acme", "app")
	if err != nil {
		t.Fatal(err)
	}
	p.set(t, "acme", tenants.Change{Gate: ptr(tenants.GateObserved)})
	tenant := p.known(t, "acme")
	auth := NewAuthenticator(AuthenticatorConfig{})
	const subject = "alice@secret.example"
	for what, tc := range map[string]struct {
		credential string
		failed     []string
	}{
		"good token":             {bearerOf(key, "https://a.example", subject), nil},
		"good signature":         {signToken(privateKey(5), uint64(time.Now().Unix())), nil},
		"expired":                {"Bearer " + key.Sign(subject, "https://a.example", time.Now().Add(-2*time.Hour), time.Hour), []string{"exp"}},
		"signed by another":      {bearerOf(lnurl.NewSigningKey(), "https://a.example", subject), []string{"signature"}},
		"expired and by another": {"Bearer " + lnurl.NewSigningKey().Sign(subject, "https://a.example", time.Unix(1e9, 0), 0), []string{"exp", "signature"}},
		"another's issuer":       {bearerOf(key, "https://secret.example", subject), []string{"form"}},
		"no token":               {"Bearer secret", []string{"form"}},
		"old signature":          {keyOne + sigOne + vectorTime, []string{"time"}},
		"forged":                 {forged(uint64(time.Now().Unix())), []string{"signature"}},
	} {
		e := auth.Explain(t.Context(), tenant, with(tc.credential))
		var failed []string
		for _, c := range e.Checks {
			if c.Err != nil {
				failed = append(failed, c.Name)
			}
			text := fmt.Sprint(c.Name, c.Err, c.Detail)
			for _, part := range strings.FieldsFunc(tc.credential+"."+subject, func(r rune) bool { return strings.ContainsRune(". @", r) }) {
				if len(part) > 5 && part != "Bearer" && part != "example" && strings.Contains(text, part) {
					t.Errorf("%s: %q is in %q", what, part, text)
				}
			}
		}
		_, err := auth.Authenticate(t.Context(), tenant, with(tc.credential), netip.Addr{})
		if fmt.Sprint(failed) != fmt.Sprint(tc.failed) || e.OK() != (err == nil) || e.OK() != (failed == nil) {
			t.Errorf("%s: failed %v, want %v; OK %v, and authenticated with %v", what, failed, tc.failed, e.OK(), err)
		}
	}
	if e := auth.Explain(t.Context(), tenant, http.Header{}); e.OK() || e.Checks[len(e.Checks)-1].Err == nil {
		t.Errorf("without a credential: %+v", e)
	}
}

// Rows that the service would not have written, as by hand, make nobody another's wallet: what could belong to two
// sources is put off, and all else goes on.
func TestAnAmbiguousTableIsNotServedWhoeverWroteIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	login, other, stolen := lnurl.NewSigningKey(), lnurl.NewSigningKey(), lnurl.NewSigningKey()
	tenant := p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	ours := *tenant.Source(tenants.LNURL).Rules.Issuer
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from("https://a.example"), Keys: jwks(other)})
	p.addSource(t, "acme", tenants.NewSource{Name: "zz", Kind: tenants.JWT, Rules: from("https://z.example"), Keys: jwks(stolen, login)})
	p.sql(t, "UPDATE credential_sources SET issuer = $1 WHERE name = 'zz'", ours)

	var log bytes.Buffer
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := d.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Count(text, "contradict each other") != 1 || !strings.Contains(text, "zz") || !strings.Contains(text, "lnurl") {
		t.Errorf("the log says %q", text)
	}
	a := NewAuthenticator(AuthenticatorConfig{})
	try := func(k *lnurl.SigningKey, issuer string) (Caller, error) {
		return a.Authenticate(t.Context(), find1(t, d, "acme"), with(bearerOf(k, issuer, "w")), netip.Addr{})
	}
	for _, k := range []*lnurl.SigningKey{login, stolen, other} {
		_, err := try(k, ours)
		wantError(t, err, tenants.ErrAmbiguousSource)
	}
	if c, err := try(other, "https://a.example"); err != nil || c.Source.Namespace != "jwt:auth" {
		t.Errorf("the other issuer: got %+v, %v", c.Source, err)
	}
	if _, err := find1(t, d, "acme").schemes.routing.Route(tenants.Look{Signature: true}); err != nil {
		t.Error(err)
	}
	// What has nothing to do with it can still be changed, and so can it, step by step.
	done(t)(p.service.Set(t.Context(), root, "acme", tenants.Change{Name: ptr("Acme")}))
	done(t)(p.service.RemoveSource(t.Context(), root, "acme", "zz"))
	if err := d.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := try(stolen, ours); errors.Is(err, tenants.ErrAmbiguousSource) {
		t.Error(err)
	}
}
