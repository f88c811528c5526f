package tenants

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var root = audit.Actor{Role: audit.Operator, Name: "root@host", Confirmed: true}

const baseDomain = "vss.example"

// Public keys of wallets: of the private keys 1, 2 and the group's order - 1.
const (
	keyOne  = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	keyTwo  = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
	keyLast = "0379be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
)

// platform is a database with what works on it.
type platform struct {
	url     string
	service *Service
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

func newService(t *testing.T, url string) *Service {
	t.Helper()
	s, err := NewService(open(t, url, db.RoleAdmin), ServiceConfig{
		BaseDomain: baseDomain, MasterKey: masterKey(), Resolver: records,
		Egress: offline{egress.New(egress.Config{})},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
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

// create makes a tenant with these domains, for which an operator vouches.
func (p *platform) create(t *testing.T, slug string, domains ...string) *Tenant {
	t.Helper()
	tenant, err := p.service.Create(t.Context(), root, NewTenant{Slug: slug, Name: "Tenant " + slug})
	if err != nil {
		t.Fatal(err)
	}
	for _, domain := range domains {
		tenant = p.addDomain(t, slug, domain)
	}
	return tenant
}

// limitedTo limits bodies, and so values, to a size.
func limitedTo(size int64) Change {
	return Change{Limits: map[string]*int64{"body_size": &size, "value_size": &size}}
}

func (p *platform) addDomain(t *testing.T, slug, domain string) *Tenant {
	t.Helper()
	return done(t)(p.service.AddDomain(t.Context(), root, slug, domain, true))
}

// done is the tenant after a change that must succeed.
func done(t *testing.T) func(*Tenant, error) *Tenant {
	t.Helper()
	return func(tenant *Tenant, err error) *Tenant {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return tenant
	}
}

func (p *platform) set(t *testing.T, slug string, c Change) *Tenant {
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
	if e, ok := errors.AsType[*InvalidError](err); !ok || e.Field != field {
		t.Errorf("got %v, want an InvalidError of %s", err, field)
	}
}

func ptr[T any](v T) *T { return &v }
