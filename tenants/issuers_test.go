package tenants

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	stdtime "time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
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
			p.addSource(t, slug, NewSource{Name: fmt.Sprintf("dead-%d", i), Kind: JWT, Rules: from(issuer), JWKSURL: issuer + "/keys"})
		}
	}
	p.create(t, "victim")
	p.addSource(t, "victim", NewSource{Name: "auth", Kind: JWT, Rules: from("https://a.example"), JWKSURL: "https://a.example/keys"})

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
