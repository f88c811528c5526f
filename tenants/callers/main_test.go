package callers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var root = audit.Actor{Role: audit.Operator, Name: "root@host", Confirmed: true}

const baseDomain = "vss.example"

// platform is a database with what works on it.
type platform struct {
	url     string
	service *tenants.Service
	owner   *pgx.Conn // somebody with SQL at hand
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	url := dbtest.New(t)
	owner, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { owner.Close(context.Background()) })
	return &platform{url: url, service: newService(t, url), owner: owner}
}

func open(t *testing.T, url string, role db.Role) *pgxpool.Pool {
	t.Helper()
	pool, err := db.Open(t.Context(), url, role, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newService(t *testing.T, url string) *tenants.Service {
	t.Helper()
	s, err := tenants.NewService(open(t, url, db.RoleAdmin), tenants.ServiceConfig{
		BaseDomain: baseDomain, MasterKey: masterKey(), Resolver: records,
		Egress: offline{egress.New(egress.Config{})},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// offline is an egress client for which no host is there.
type offline struct{ *egress.Client }

func (offline) GetFor(context.Context, uuid.UUID, string, http.Header) (egress.Response, error) {
	return egress.Response{}, &egress.Error{Reason: egress.NoHost}
}

// masterKey is the one of all platforms.
var masterKey = sync.OnceValue(newMasterKey)

func newMasterKey() *masterkey.Key {
	dir, err := os.MkdirTemp("", "vss-tenants-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	key, err := masterkey.Create(filepath.Join(dir, "master.key"))
	if err != nil {
		panic(err)
	}
	return key
}

// records is the DNS of all platforms: TXT records by name, or an error.
var records = new(dns)

type dns struct{ sync.Map }

func (d *dns) LookupTXT(_ context.Context, name string) ([]string, error) {
	switch found, _ := d.Load(name); found := found.(type) {
	case []string:
		return found, nil
	case error:
		return nil, found
	default:
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
}

func newDirectory(t *testing.T, pool *pgxpool.Pool, cfg DirectoryConfig) *Directory {
	t.Helper()
	cfg.BaseDomain = baseDomain
	d, err := NewDirectory(pool, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// run runs the directory until the test ends.
func run(t *testing.T, d *Directory) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// create makes a tenant with these domains, for which an operator vouches.
func (p *platform) create(t *testing.T, slug string, domains ...string) *tenants.Tenant {
	t.Helper()
	tenant, err := p.service.Create(t.Context(), root, tenants.NewTenant{Slug: slug, Name: "Tenant " + slug})
	if err != nil {
		t.Fatal(err)
	}
	for _, domain := range domains {
		tenant = p.addDomain(t, slug, domain)
	}
	return tenant
}

func (p *platform) addDomain(t *testing.T, slug, domain string) *tenants.Tenant {
	t.Helper()
	return done(t)(p.service.AddDomain(t.Context(), root, slug, domain, true))
}

// done is the tenant after a change that must succeed.
func done(t *testing.T) func(*tenants.Tenant, error) *tenants.Tenant {
	t.Helper()
	return func(tenant *tenants.Tenant, err error) *tenants.Tenant {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return tenant
	}
}

func (p *platform) set(t *testing.T, slug string, c tenants.Change) *tenants.Tenant {
	t.Helper()
	tenant, err := p.service.Set(t.Context(), root, slug, c)
	if err != nil {
		t.Fatal(err)
	}
	return tenant
}

// sql is a change by hand.
func (p *platform) sql(t *testing.T, statement string, args ...any) {
	t.Helper()
	if _, err := p.owner.Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

func query[T any](t *testing.T, p *platform, statement string, args ...any) T {
	t.Helper()
	var v T
	if err := p.owner.QueryRow(t.Context(), statement, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (p *platform) generation(t *testing.T) int64 {
	t.Helper()
	return query[int64](t, p, "SELECT generation FROM directory")
}

func (p *platform) audited(t *testing.T) int64 {
	t.Helper()
	return query[int64](t, p, "SELECT count(*) FROM audit_log")
}

// eventually waits for at most the time that a change may take to hold everywhere.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			t.Fatal("not within 5 s: ", what)
		}
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func wantInvalid(t *testing.T, err error, field string) {
	t.Helper()
	if e, ok := errors.AsType[*tenants.InvalidError](err); !ok || e.Field != field {
		t.Errorf("got %v, want an InvalidError of %s", err, field)
	}
}

func ptr[T any](v T) *T { return &v }

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

func (p *platform) addSource(t *testing.T, slug string, n tenants.NewSource) *tenants.Tenant {
	t.Helper()
	return done(t)(p.service.AddSource(t.Context(), root, slug, n))
}

// prove puts the record of a tenant's claim into DNS.
func (p *platform) prove(t *testing.T, slug, host string) {
	t.Helper()
	name, text := done(t)(p.service.Get(t.Context(), slug)).Domain(host).Record()
	records.Store(name+".", []string{"v=spf1 -all", text})
}

func (p *platform) claim(t *testing.T, slug, host string) {
	t.Helper()
	done(t)(p.service.AddDomain(t.Context(), root, slug, host, false))
}

func (p *platform) state(t *testing.T, slug, host string) tenants.DomainState {
	t.Helper()
	d := done(t)(p.service.Get(t.Context(), slug)).Domain(host)
	if d == nil {
		return ""
	}
	return d.State
}

// loginRules are those of an LNURL source's tokens.
func loginRules(source uuid.UUID) jwt.Rules {
	issuer := source.URN()
	return jwt.Rules{Issuer: &issuer, AudienceRule: jwt.AnyAudience, Algorithms: []string{"ES256"}, Grace: tenants.LoginGrace}
}

// anyToken is the source that takes every token.
func (v *schemes) anyToken(t *testing.T) *tokenSource {
	t.Helper()
	src, err := v.routing.Route(tenants.Look{})
	if err != nil || src == nil {
		t.Fatalf("no source takes every token: %v", err)
	}
	return v.tokens[src]
}

// together runs n calls at the same time.
func together(n int, call func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			<-start
			errs[i] = call(i)
		})
	}
	close(start)
	running.Wait()
	return errs
}
