package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// health asks one of the paths that load balancers and orchestrators ask.
func (p *platform) health(t testing.TB, path string) *answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.address+path, nil)
	check(t, err)
	return p.do(t, r)
}

func (a *answer) wantHealthy(t testing.TB) {
	t.Helper()
	if a.status != 200 || string(a.body) != "ok\n" {
		t.Errorf("HTTP %d %q", a.status, a.body)
	}
}

// wantNotReady: whatever the reason, a load balancer sees one status and a person one line.
func (a *answer) wantNotReady(t testing.TB, reason string) {
	t.Helper()
	if a.status != 503 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") ||
		!strings.HasPrefix(string(a.body), "not ready: "+reason) || strings.Contains(string(a.body), "secret") {
		t.Errorf("HTTP %d, %s: %q, want the reason %q", a.status, a.header.Get("Content-Type"), a.body, reason)
	}
}

func TestAServerIsReadyWhenItCanServe(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.health(t, "/livez").wantHealthy(t)
	p.health(t, "/readyz").wantHealthy(t)

	p.proxy.Down()
	eventually(t, "it is not ready without its database", func() bool { return p.health(t, "/readyz").status == 503 })
	p.health(t, "/readyz").wantNotReady(t, "the database ")
	p.health(t, "/livez").wantHealthy(t) // a restart would not help
	w := p.wallet(t, "acme", 1)
	for _, c := range calls {
		w.call(t, c.name, c.body).want(t, 503, internal)
	}

	p.proxy.Up()
	eventually(t, "it is ready again", func() bool { return p.health(t, "/readyz").status == 200 })
	w.put(t, "k", "v").wantDone(t)
	w.wantValue(t, "k", "v")
}

func TestAServerWithoutItsTenantsIsNotReady(t *testing.T) {
	t.Parallel()
	var directory *callers.Directory
	p := start(t, func(cfg *api.Config) {
		var err error
		directory, err = callers.NewDirectory(open(t, dbtest.New(t), db.RoleAPI), callers.DirectoryConfig{Timeout: time.Minute})
		check(t, err)
		cfg.Tenants = directory
	})
	p.health(t, "/livez").wantHealthy(t)
	p.health(t, "/readyz").wantNotReady(t, callers.ErrNotLoaded.Error())
	w := p.wallet(t, "acme", 1)
	for _, c := range calls {
		w.call(t, c.name, c.body).want(t, 503, internal)
	}
	check(t, directory.Refresh(t.Context()))
	p.health(t, "/readyz").wantHealthy(t)
	w.get(t, "k").want(t, 403, internal) // there is no acme in that database
}

func TestWhatTheReadinessProbeMeets(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ready  func(context.Context) error
		reason string
		least  time.Duration
	}{
		"unavailable": {func(context.Context) error { return fmt.Errorf("%w: secret", storage.ErrUnavailable) }, "the database is down", 0},
		"hangs":       {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, "the database does not answer in time", 2 * time.Second},
		"unknown":     {func(context.Context) error { return errors.New("secret") }, "internal error", 0},
		"panics":      {func(context.Context) error { panic("secret") }, "internal error", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, func(cfg *api.Config) { cfg.Ready = tc.ready })
			began := time.Now()
			p.health(t, "/readyz").wantNotReady(t, tc.reason)
			wantTook(t, began, tc.least)
		})
	}
}
