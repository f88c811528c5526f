package callers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	stdtime "time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

func TestAnotherTenantsDeadIssuerHoldsUpNoRotation(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	const hostile, each = 3, 49 // many more than there are turns
	for n := range hostile {
		slug := fmt.Sprintf("hostile-%d", n)
		p.create(t, slug)
		for i := range each {
			issuer := fmt.Sprintf("https://dead%d.example", i)
			p.addSource(t, slug, tenants.NewSource{Name: fmt.Sprintf("dead-%d", i), Kind: tenants.JWT, Rules: from(issuer), JWKSURL: issuer + "/keys"})
		}
	}
	p.create(t, "victim")
	p.addSource(t, "victim", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from("https://a.example"), JWKSURL: "https://a.example/keys"})

	old, fresh := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	var rotated atomic.Bool
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		keys := jwks(old)
		if rotated.Load() {
			keys = jwks(old, fresh)
		}
		_, _ = w.Write(keys)
	}))
	t.Cleanup(good.Close)
	dead := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(dead.Close)
	client := egress.New(egress.Config{AllowPrivate: true, Timeout: stdtime.Hour})
	var asked atomic.Int64
	time := &clock{}
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{Now: time.now,
		Fetch: func(ctx context.Context, tenant uuid.UUID, url string, h http.Header) (egress.Response, error) {
			if !strings.Contains(url, "dead") {
				return client.GetFor(ctx, tenant, good.URL, h)
			}
			asked.Add(1)
			return client.GetFor(ctx, tenant, dead.URL, h)
		}})
	run(t, d)
	eventually(t, "all dead issuers are asked", func() bool { return asked.Load() == hostile*each })
	auth := NewAuthenticator(AuthenticatorConfig{Now: time.now})
	accepted := func(k *lnurl.SigningKey) bool {
		_, err := auth.Authenticate(t.Context(), find1(t, d, "victim"), with("Bearer "+k.Sign("alice", "https://a.example", time.now(), 0)), netip.Addr{})
		return err == nil
	}
	eventually(t, "the keys are fetched", func() bool { return accepted(old) })
	rotated.Store(true)
	time.forward(stdtime.Minute)
	eventually(t, "the new key is fetched", func() bool { return accepted(fresh) })
}

func TestASecretInTheURLOfAKeySetIsUsedAndNotShown(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	_, err := p.service.AddSource(t.Context(), root, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from("a"), JWKSURL: "https://user:s3cret@a.example/keys"})
	wantInvalid(t, err, "jwks_url")
	if strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from("a"), JWKSURL: "https://a.example/keys?apikey=s3cret-1"})
	rows := p.audited(t)
	done(t)(p.service.SetSource(t.Context(), root, "acme", "auth", tenants.SourceChange{JWKSURL: ptr("https://a.example/keys?apikey=s3cret-2")}))
	if p.audited(t) != rows+1 {
		t.Error("the change of a secret is not in the audit log")
	}
	_, err = p.service.AddKeys(t.Context(), root, "acme", "auth", jwks(lnurl.NewSigningKey()), jwt.Active)
	if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "https://a.example/keys?apikey=***") {
		t.Errorf("got %v", err)
	}
	if n := query[int](t, p, "SELECT count(*) FROM audit_log WHERE detail::text LIKE '%s3cret%'"); n != 0 {
		t.Errorf("%d rows of the audit log have the secret", n)
	}

	var fetched atomic.Value
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{
		Fetch: func(_ context.Context, _ uuid.UUID, url string, _ http.Header) (egress.Response, error) {
			fetched.Store(url)
			return egress.Response{}, errors.New("down")
		}})
	run(t, d)
	eventually(t, "the whole URL is fetched", func() bool { return fetched.Load() == "https://a.example/keys?apikey=s3cret-2" })
	e := NewAuthenticator(AuthenticatorConfig{}).Explain(t.Context(), find1(t, d, "acme"), with(bearerOf(lnurl.NewSigningKey(), "a", "alice")))
	if text := fmt.Sprint(e.Checks); strings.Contains(text, "s3cret") || !strings.Contains(text, "apikey=***") {
		t.Errorf("explained as %s", text)
	}
}

func TestKeysThatChangeAtAURLMakeOneEventForAllInstances(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from(""), JWKSURL: "https://a.example/keys"})
	first, second := lnurl.NewSigningKey(), lnurl.NewSigningKey()
	pool := open(t, p.url, db.RoleAPI)
	issuer := &issuerServer{}
	var instances []*jwt.Source
	start := func() {
		d := newDirectory(t, pool, DirectoryConfig{Fetch: issuer.get, Saves: pool})
		run(t, d)
		eventually(t, "the directory is loaded", d.Loaded)
		instances = append(instances, find1(t, d, "acme").schemes.anyToken(t).issuer)
	}
	before := query[int](t, p, "SELECT count(*) FROM events")
	events := func() int { return query[int](t, p, "SELECT count(*) FROM events") - before }
	settled := func(want string) { // that all have these keys, and have kept them
		t.Helper()
		var kept sync.WaitGroup
		for _, keys := range instances {
			kept.Go(func() { done(t)(nil, keys.Refresh(t.Context())) })
		}
		kept.Wait()
		eventually(t, "the keys are kept", func() bool {
			return strings.Contains(query[string](t, p, "SELECT coalesce(max(convert_from(document, 'UTF8')), '') FROM jwks_documents"), want)
		})
	}
	issuer.set(false, first)
	start()
	start()
	settled(first.ID())
	if n := events(); n != 0 {
		t.Errorf("the first keys of a URL are %d events", n)
	}
	issuer.set(false, first, second)
	settled(second.ID())
	start() // late
	settled(second.ID())
	if n := events(); n != 1 {
		t.Errorf("a change that three instances saw is %d events", n)
	}
	if got := query[string](t, p, "SELECT max(kind || ' ' || subject) FROM events"); got != "keys_changed auth" {
		t.Errorf("it says %q", got)
	}
}

func TestWhyAKeyOfAURLIsSkippedIsKeptUntilItIsMended(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: from(""), JWKSURL: "https://a.example/keys"})
	good := string(jwks(lnurl.NewSigningKey()))
	starts := func(document string, skipped int) {
		t.Helper()
		pool := open(t, p.url, db.RoleAPI)
		fetched := func(context.Context, uuid.UUID, string, http.Header) (egress.Response, error) {
			return egress.Response{Status: http.StatusOK, Body: []byte(document)}, nil
		}
		run(t, newDirectory(t, pool, DirectoryConfig{Fetch: fetched, Saves: pool}))
		eventually(t, "what is skipped is kept", func() bool {
			keys, reasons, err := p.service.FetchedKeys(t.Context(), "acme", "auth")
			return err == nil && len(keys) == 1 && len(reasons) == skipped && (skipped == 0 || strings.HasPrefix(reasons[0], "key 2 "))
		})
	}
	starts(strings.TrimSuffix(good, "]}")+`,{"kty":"oct","k":"c2VjcmV0"}]}`, 1)
	starts(good, 0)
}
