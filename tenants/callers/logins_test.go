package callers

import (
	"encoding/json"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

func (p *platform) logins(t *testing.T, key *masterkey.Key, now func() time.Time) *Logins {
	t.Helper()
	auth := NewAuthenticator(AuthenticatorConfig{Now: now})
	l, err := NewLogins(auth, LoginsConfig{Pool: open(t, p.url, db.RoleAPI), MasterKey: key, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func site(t *testing.T, l *Logins, tenant *Tenant) *lnurl.Site {
	t.Helper()
	s, err := l.Site(tenant, nil, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnAuthURLHasTheHostOfItsSourceWhateverHostItWasAskedOn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.lasting.com")
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "vss.lasting.com"})
	s := site(t, p.logins(t, masterKey(), nil), p.known(t, "acme"))
	if s.Scheme != "https" || s.Host != "vss.lasting.com" || s.Path != "/lnurl/auth" || s.Life != time.Hour {
		t.Errorf("got %+v", s)
	}
}

func TestARotatedKeysTokensLastAndARevokedKeysDoNot(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	now := &clock{}
	logins := p.logins(t, masterKey(), now.now)
	try := func(token string) error {
		_, err := logins.auth.Authenticate(t.Context(), p.known(t, "acme"), with("Bearer "+token), netip.Addr{})
		return err
	}
	sign := func() (kid, token string) {
		s := site(t, logins, p.known(t, "acme"))
		return s.Key.ID(), s.Key.Sign("alice", s.Issuer, now.now(), s.Life)
	}
	published := func() int {
		keys, err := logins.Keys(p.known(t, "acme"))
		var set struct{ Keys []lnurl.JWK }
		if err := errors.Join(err, json.Unmarshal(keys, &set)); err != nil {
			t.Fatal(err)
		}
		return len(set.Keys)
	}
	first, before := sign()
	done(t)(p.service.RotateKey(t.Context(), root, "acme", "lnurl", false))

	// While an instance may not know the new key, the old one signs on.
	if kid, token := sign(); kid != first || try(token) != nil || published() != 2 {
		t.Errorf("signed by %s, which is not %s, or it does not verify; %d keys are published", kid, first, published())
	}
	now.forward(tenants.KeySettles + time.Second)
	second, after := sign()
	if second == first || try(after) != nil || try(before) != nil {
		t.Errorf("the new key does not sign, or one of the two does not verify: %v, %v", try(after), try(before))
	}
	// The last token of the old key ends before the key does, also where the life of tokens was changed meanwhile.
	done(t)(p.service.SetSource(t.Context(), root, "acme", "lnurl", tenants.SourceChange{TokenLife: ptr(tenants.MinTokenLife)}))
	done(t)(p.service.RotateKey(t.Context(), root, "acme", "lnurl", false))
	now.forward(time.Hour - tenants.KeySettles - 10*time.Second)
	if err := try(before); err != nil {
		t.Error(err)
	}
	now.forward(tenants.KeySettles + tenants.LoginGrace)
	if err := try(before); err != nil {
		t.Error("within the grace: ", err)
	}
	now.forward(2 * time.Minute)
	wantAuthError(t, try(before), (&jwt.Error{Reason: jwt.Expired}).Error())
	now.forward(tenants.MaxTokenLife + tenants.LoginGrace)
	if n := published(); n != 1 {
		t.Errorf("%d keys are published", n)
	}

	_, last := sign()
	done(t)(p.service.RotateKey(t.Context(), root, "acme", "lnurl", true))
	wantAuthError(t, try(last), (&jwt.Error{Reason: jwt.KeyRevoked}).Error())
	if kid, token := sign(); kid == second || try(token) != nil {
		t.Error("the key that replaces a revoked one does not sign at once")
	}
}

func TestAWrongOrMissingMasterKeyIsFoundAtTheStart(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.create(t, "signers")
	if err := p.logins(t, nil, nil).Check([]*Tenant{p.known(t, "signers")}); err != nil {
		t.Errorf("without LNURL-auth: %v", err)
	}
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	all := []*Tenant{p.known(t, "acme"), p.known(t, "signers")}
	if err := p.logins(t, masterKey(), nil).Check(all); err != nil {
		t.Error(err)
	}
	none, wrong := p.logins(t, nil, nil), p.logins(t, newMasterKey(), nil)
	wantError(t, none.Check(all), ErrNoMasterKey)
	wantError(t, wrong.Check(all), masterkey.ErrWrongKey)
	for _, l := range []*Logins{none, wrong} {
		if _, err := l.Site(all[0], nil, netip.Addr{}); err == nil {
			t.Error("it logs in")
		} else if _, told := errors.AsType[*lnurl.Error](err); told {
			t.Errorf("the wallet is told %q", err)
		}
	}
	// A sealed key moved to another tenant is not its key.
	p.addSource(t, "signers", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "signers.vss.example"})
	p.sql(t, `UPDATE source_keys k SET sealed = (SELECT o.sealed FROM source_keys o WHERE o.kid <> k.kid LIMIT 1)
		WHERE source_id = (SELECT id FROM credential_sources WHERE host = 'signers.vss.example')`)
	wantError(t, p.logins(t, masterKey(), nil).Check([]*Tenant{p.known(t, "signers")}), masterkey.ErrDamaged)
}

func TestResealingPutsEveryKeyUnderTheNewMasterKey(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	for _, slug := range []string{"acme", "rival", "signers"} {
		p.create(t, slug)
	}
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	p.addSource(t, "rival", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "rival.vss.example"})
	done(t)(p.service.RotateKey(t.Context(), root, "rival", "lnurl", false))
	done(t)(p.service.RemoveSource(t.Context(), root, "rival", "lnurl"))

	path := t.TempDir() + "/master.key"
	if _, err := masterkey.Create(path); err != nil {
		t.Fatal(err)
	}
	stranger, err := masterkey.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tenants.NewService(open(t, p.url, db.RoleAdmin), tenants.ServiceConfig{BaseDomain: baseDomain, MasterKey: stranger})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Reseal(t.Context(), root)
	wantError(t, err, masterkey.ErrWrongKey)

	// What is sealed by the first key of a file is resealed by the one that is put before it.
	p.sql(t, "TRUNCATE source_keys")
	for range 3 {
		done(t)(s.RotateKey(t.Context(), root, "acme", "lnurl", false))
	}
	added, err := masterkey.Add(path)
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := masterkey.Promote(path, added.IDs()[1])
	if err != nil {
		t.Fatal(err)
	}
	after, err := tenants.NewService(open(t, p.url, db.RoleAdmin), tenants.ServiceConfig{BaseDomain: baseDomain, MasterKey: rotated})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{3, 0} {
		if n, err := after.Reseal(t.Context(), root); err != nil || n != want {
			t.Errorf("%d keys were resealed, %v, want %d", n, err, want)
		}
	}
	retired, err := masterkey.Retire(path, rotated.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.logins(t, retired, nil).Check([]*Tenant{p.known(t, "acme")}); err != nil {
		t.Error(err)
	}
}

func TestAChallengeIsUsedOnceOnAllInstances(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	instances := []*Logins{p.logins(t, masterKey(), nil), p.logins(t, masterKey(), nil)}
	p.create(t, "acme")
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	tenant := p.known(t, "acme")
	expires := time.Now().Add(time.Minute)
	for range 20 {
		k1 := instances[0].Challenges().New(tenant.ID, "acme.vss.example")
		var first atomic.Int32
		if err := errors.Join(together(6, func(i int) error {
			ok, err := site(t, instances[i%2], tenant).Guard.Use(t.Context(), k1, "alice", expires)
			if ok {
				first.Add(1)
			}
			return err
		})...); err != nil || first.Load() != 1 {
			t.Fatalf("%d of 6 were first, %v", first.Load(), err)
		}
	}
	p.sql(t, "UPDATE lnurl_used SET expires_at = now() - interval '2 hours' WHERE k1 IN (SELECT k1 FROM lnurl_used LIMIT 5)")
	if err := instances[0].forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, p, "SELECT count(*) FROM lnurl_used"); n != 15 {
		t.Errorf("%d challenges are kept, of 15 that may come again", n)
	}
}

func TestTheSharedAuthURLIsOnlyForWhomTheOperatorAllowsIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	s, err := tenants.NewService(open(t, p.url, db.RoleAdmin), tenants.ServiceConfig{MasterKey: masterKey(), SharedLogins: true})
	if err != nil {
		t.Fatal(err)
	}
	done(t)(s.AddSource(t.Context(), root, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL}))
	tenant := p.known(t, "acme")
	_, err = p.logins(t, masterKey(), nil).Site(tenant, nil, netip.Addr{})
	if e, ok := errors.AsType[*lnurl.Error](err); !ok || e.Reason != reasonNoShared {
		t.Errorf("got %v", err)
	}
	auth := NewAuthenticator(AuthenticatorConfig{})
	for _, bad := range []string{"localhost:8080", "ftp://localhost", "http://LOCALHOST", "http://a/b", "http://a?b", "http://u@a", "://"} {
		if _, err := NewLogins(auth, LoginsConfig{SharedURL: bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	l, err := NewLogins(auth, LoginsConfig{MasterKey: masterKey(), SharedURL: "http://localhost:8080/"})
	if err != nil {
		t.Fatal(err)
	}
	if got := site(t, l, tenant); got.Scheme+"://"+got.Host+got.Path != "http://localhost:8080/t/acme/lnurl/auth" {
		t.Errorf("got %+v", got)
	}
}

// The database's clock may go back, as at a failover, and changes may overtake each other.
func TestAKeyThatWasRetiredSignsNoTokensThatOutliveIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	old := site(t, p.logins(t, masterKey(), nil), p.known(t, "acme")).Key.ID()
	done(t)(p.service.RotateKey(t.Context(), root, "acme", "lnurl", false))
	p.sql(t, "UPDATE source_keys SET created_at = now() + interval '1 hour' WHERE kid = $1", old)
	now := &clock{}
	logins := p.logins(t, masterKey(), now.now)
	for range 30 {
		now.forward(time.Hour)
		s := site(t, logins, p.known(t, "acme"))
		token := s.Key.Sign("alice", s.Issuer, now.now(), s.Life)
		now.forward(s.Life + tenants.LoginGrace)
		if _, err := logins.auth.Authenticate(t.Context(), p.known(t, "acme"), with("Bearer "+token), netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		now.forward(-s.Life - tenants.LoginGrace)
	}
	if site(t, logins, p.known(t, "acme")).Key.ID() == old {
		t.Error("the retired key signs for ever")
	}
}

func TestTheHostOfAnAuthURLStaysWhenItsSourceIsReplaced(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.moving.com")
	p.addSource(t, "acme", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "acme.vss.example"})
	done(t)(p.service.RemoveSource(t.Context(), root, "acme", "lnurl"))
	_, err := p.service.AddSource(t.Context(), root, "acme", tenants.NewSource{Name: "again", Kind: tenants.LNURL, Host: "vss.moving.com"})
	wantInvalid(t, err, "host")
	p.addSource(t, "acme", tenants.NewSource{Name: "again", Kind: tenants.LNURL, Host: "acme.vss.example"})
}

func TestAHostThatBecameAnotherTenantsIsNoAuthURLAnyMore(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "before")
	p.create(t, "after")
	p.claim(t, "before", "vss.left.com")
	p.prove(t, "before", "vss.left.com")
	done(t)(p.service.CheckDomain(t.Context(), root, "before", "vss.left.com"))
	p.addSource(t, "before", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: "vss.left.com"})
	p.claim(t, "after", "vss.left.com")
	p.prove(t, "after", "vss.left.com")
	done(t)(p.service.CheckDomain(t.Context(), root, "after", "vss.left.com"))
	_, err := p.logins(t, masterKey(), nil).Site(p.known(t, "before"), nil, netip.Addr{})
	if e, ok := errors.AsType[*lnurl.Error](err); !ok || e.Reason != reasonNoHost {
		t.Errorf("got %v", err)
	}
}
