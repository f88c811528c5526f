package api_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
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

func TestAServerIsReadyWhenItCanServe(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.health(t, "/livez").wantHealthy(t)
	p.health(t, "/readyz").wantHealthy(t)

	p.proxy.Down()
	eventually(t, "it is not ready without its database", func() bool { return p.health(t, "/readyz").status == 503 })
	a := p.health(t, "/readyz")
	a.want(t, 503, internal)
	if message := a.error(t).GetMessage(); !strings.HasPrefix(message, "temporarily unavailable") {
		t.Errorf("message is %q", message)
	}
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

func TestAServerThatKnowsNoTenantsYetIsNotReadyAndSaysNothingOfThem(t *testing.T) {
	t.Parallel()
	var directory *tenants.Directory
	p := start(t, func(cfg *api.Config) {
		var err error
		directory, err = tenants.NewDirectory(open(t, dbtest.New(t), db.RoleAPI), tenants.DirectoryConfig{Timeout: time.Minute})
		check(t, err)
		cfg.Tenants = directory
	})
	p.health(t, "/livez").wantHealthy(t)
	p.health(t, "/readyz").want(t, 503, internal)
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
		ready   func(context.Context) error
		status  int
		message string
		least   time.Duration
	}{
		"unavailable": {func(context.Context) error { return storage.ErrUnavailable }, 503, "temporarily unavailable", 0},
		"hangs":       {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 503, "temporarily unavailable", 2 * time.Second},
		"unknown":     {func(context.Context) error { return errors.New("secret") }, 500, "internal error", 0},
		"panics":      {func(context.Context) error { panic("secret") }, 500, "internal error", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, func(cfg *api.Config) { cfg.Ready = tc.ready })
			began := time.Now()
			a := p.health(t, "/readyz")
			a.want(t, tc.status, internal)
			if message := a.error(t).GetMessage(); !strings.HasPrefix(message, tc.message) || strings.Contains(message, "secret") {
				t.Errorf("message is %q", message)
			}
			wantTook(t, began, tc.least)
		})
	}
}
