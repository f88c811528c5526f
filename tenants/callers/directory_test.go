package callers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tenants"
)

func TestEachHostHasOneWayToNameATenant(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.acme.com", "xn--bcher-kva.example")
	p.create(t, "globex", "vss.globex.com")
	p.create(t, "shut")
	p.set(t, "shut", tenants.Change{State: ptr(tenants.Closed)})
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{})
	if err := d.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}

	const (
		acme, globex, shut = "acme", "globex", "shut"
		unknown            = "unknown"
		hostNames          = "host names"
	)
	for _, tc := range []struct{ host, slug, want string }{
		// The tenant's own hosts.
		{"vss.acme.com", "", acme},
		{"VSS.ACME.com", "", acme},
		{"vss.acme.com:8443", "", acme},
		{"vss.acme.com.", "", acme},
		{"Vss.Acme.Com.:443", "", acme},
		{"xn--bcher-kva.example", "", acme},
		{"acme.vss.example", "", acme},
		{"ACME.vss.EXAMPLE.:80", "", acme},
		{"vss.globex.com", "", globex},
		{"globex.vss.example", "", globex},
		{"shut.vss.example", "", shut},

		// There a path names nobody, be it the same tenant.
		{"vss.acme.com", "acme", hostNames},
		{"vss.acme.com", "globex", hostNames},
		{"vss.acme.com", "nobody", hostNames},
		{"acme.vss.example:80", "globex", hostNames},
		{"acme.vss.example", "acme", hostNames},
		{"shut.vss.example", "acme", hostNames},

		// Below the base domain only slugs are hosts.
		{"nobody.vss.example", "", unknown},
		{"nobody.vss.example", "acme", unknown},
		{"www.vss.example", "acme", unknown},
		{"a.acme.vss.example", "", unknown},
		{"a.acme.vss.example", "acme", unknown},
		{"vss.acme.com.vss.example", "", unknown},

		// Near a tenant's host is not its host.
		{"acme.com", "", unknown},
		{"a.vss.acme.com", "", unknown},
		{"xvss.acme.com", "", unknown},
		{"acme.xvss.example", "", unknown},
		{"bücher.example", "", unknown},

		// Anywhere else the path names the tenant.
		{"vss.example", "acme", acme},
		{"vss.example.", "globex", globex},
		{"VSS.example:8080", "shut", shut},
		{"localhost:8080", "acme", acme},
		{"127.0.0.1:8080", "acme", acme},
		{"[::1]:8080", "globex", globex},
		{"[2001:db8::1]", "acme", acme},
		{"vss_api", "acme", acme},
		{"acme.com", "globex", globex},
		{"acme", "globex", globex},
		{"", "acme", acme},
		{"vss.example", "", unknown},
		{"localhost", "", unknown},
		{"acme", "", unknown},
		{"", "", unknown},

		// Byte for byte.
		{"localhost", "nobody", unknown},
		{"localhost", "Acme", unknown},
		{"localhost", "ACME", unknown},
		{"localhost", "%61cme", unknown},
		{"localhost", "acme%00", unknown},
		{"localhost", "acme.", unknown},
		{"localhost", ".", unknown},
		{"localhost", "..", unknown},
		{"localhost", "acme ", unknown},
		{"localhost", "acme/", unknown},
		{"localhost", "acme\x00", unknown},
		{"localhost", "vss.acme.com", unknown},
		{"localhost", "acme.vss.example", unknown},

		// What is no host names nobody.
		{"vss.acme.com..", "", unknown},
		{"acme.vss.example..", "", unknown},
		{"vss.acme.com:80:80", "", unknown},
		{"vss.acme.com:x", "", unknown},
		{"vss.acme.com, vss.globex.com", "", unknown},
		{"x@vss.acme.com", "", unknown},
		{"..", "acme", unknown},
		{"::1", "acme", unknown},
		{"[::1", "acme", unknown},
		{"localhost/acme", "acme", unknown},
	} {
		got, err := d.Resolve(tc.host, tc.slug)
		switch tc.want {
		case unknown:
			wantError(t, err, ErrUnknownTenant)
		case hostNames:
			wantError(t, err, ErrHostNamesTenant)
		default:
			if err != nil || got.Slug != tc.want {
				t.Errorf("host %q, path %q: got %+v, %v, want %s", tc.host, tc.slug, got, err, tc.want)
			}
			continue
		}
		if got != nil || t.Failed() {
			t.Fatalf("host %q, path %q: got %+v, %v, want %s", tc.host, tc.slug, got, err, tc.want)
		}
	}
}

func TestWithoutABaseDomainOnlyOwnDomainsAndPathsNameTenants(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.acme.com")
	d, err := NewDirectory(open(t, p.url, db.RoleAPI), DirectoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"acme.", "acme", ".acme", "acme.vss.example"} {
		_, err := d.Resolve(host, "")
		wantError(t, err, ErrUnknownTenant)
	}
	for host, slug := range map[string]string{"vss.acme.com": "", "anything.example": "acme", "acme.vss.example": "acme"} {
		if got, err := d.Resolve(host, slug); err != nil || got.Slug != "acme" {
			t.Errorf("host %q, path %q: got %+v, %v", host, slug, got, err)
		}
	}
}

// The base domain can change after a domain was given away, and SQL by hand can do anything.
func TestADomainBelowTheBaseDomainNeverTakesAnotherTenantsHost(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.create(t, "globex")
	for _, host := range []string{"acme.vss.example", "vss.example", "other.vss.example"} {
		p.sql(t, "INSERT INTO domains (host, tenant_id) SELECT $1, id FROM tenants WHERE slug = 'globex'", host)
	}
	log := &journal{}
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{Log: slog.New(log)})
	for range 3 {
		p.sql(t, "UPDATE tenants SET name = name || '.'")
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.Resolve("acme.vss.example", ""); err != nil || got.Slug != "acme" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := d.Resolve("vss.example", "acme"); err != nil || got.Slug != "acme" {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err := d.Resolve("other.vss.example", "")
	wantError(t, err, ErrUnknownTenant)
	if n := log.count(slog.LevelWarn); n != 1 {
		t.Errorf("%d warnings, want one", n)
	}
}

func TestADirectoryThatWasNeverLoadedSaysSo(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	wire, pool := newWire(t, p.url)
	d := newDirectory(t, pool, DirectoryConfig{})
	wire.state.Store(cut)
	if err := d.Refresh(t.Context()); err == nil {
		t.Error("Refresh reached the database")
	}
	for _, slug := range []string{"", "acme", "nobody"} {
		_, err := d.Resolve("localhost", slug)
		wantError(t, err, ErrNotLoaded)
	}
	if d.Loaded() {
		t.Error("it says that it is loaded")
	}
	wire.state.Store(whole)
	if err := d.Refresh(t.Context()); err != nil || !d.Loaded() {
		t.Errorf("loaded: %v, %v", d.Loaded(), err)
	}
	if _, err := d.Resolve("localhost", "acme"); err != nil {
		t.Error(err)
	}
}

func TestAChangeHoldsOnEveryInstanceWithin5Seconds(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	var instances []*Directory
	for range 2 {
		d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{}) // as in production
		run(t, d)
		instances = append(instances, d)
	}
	everywhere := func(what string, holds func(*Directory) bool) {
		t.Helper()
		began := time.Now()
		eventually(t, what, func() bool { return holds(instances[0]) && holds(instances[1]) })
		t.Logf("%s: everywhere after %v", what, time.Since(began).Round(time.Millisecond))
	}
	named := func(host, slug string) func(*Directory) bool {
		return func(d *Directory) bool { got, err := d.Resolve(host, slug); return err == nil && got.Slug == "acme" }
	}
	refused := func(host, slug string, want error) func(*Directory) bool {
		return func(d *Directory) bool { _, err := d.Resolve(host, slug); return errors.Is(err, want) }
	}
	everywhere("loaded", refused("localhost", "acme", ErrUnknownTenant))
	p.create(t, "acme")
	everywhere("created", named("localhost", "acme"))
	p.addDomain(t, "acme", "vss.acme.com")
	everywhere("domain added", named("vss.acme.com", ""))
	p.set(t, "acme", tenants.Change{State: ptr(tenants.Closed)})
	everywhere("closed", func(d *Directory) bool {
		got, err := d.Resolve("vss.acme.com", "")
		return err == nil && errors.Is(got.Refuses(false), tenants.ErrClosed)
	})
	done(t)(p.service.RemoveDomain(t.Context(), root, "acme", "vss.acme.com"))
	everywhere("domain removed", refused("vss.acme.com", "", ErrUnknownTenant))
	p.sql(t, "UPDATE credential_sources SET window_seconds = 60")
	everywhere("changed by hand", func(d *Directory) bool {
		got, err := d.Resolve("localhost", "acme")
		return err == nil && got.Sources[0].Window == time.Minute
	})
}

func TestAnOutageKeepsTheLastGoodDirectoryAndIsLoggedOnce(t *testing.T) {
	t.Parallel()
	for _, outage := range []int32{cut, mute} {
		t.Run(map[int32]string{cut: "connections break", mute: "nothing answers"}[outage], func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t)
			p.create(t, "acme", "vss.acme.com")
			wire, pool := newWire(t, p.url)
			log := &journal{}
			d := newDirectory(t, pool, DirectoryConfig{
				Interval: 10 * time.Millisecond, Timeout: time.Second, Log: slog.New(log),
			})
			run(t, d)
			eventually(t, "loaded", d.Loaded)

			wire.state.Store(outage)
			time.Sleep(4 * time.Second) // several polls, however they fail
			p.set(t, "acme", tenants.Change{State: ptr(tenants.Closed)})
			got, err := d.Resolve("vss.acme.com", "")
			if err != nil || got.State != tenants.Active {
				t.Errorf("during the outage: %+v, %v", got, err)
			}
			_, err = d.Resolve("localhost", "nobody")
			wantError(t, err, ErrUnknownTenant)
			if age := d.Age(); age < time.Second {
				t.Errorf("the directory says that it is %v old", age)
			}
			if n := log.count(slog.LevelError); n != 1 {
				t.Errorf("the outage was logged %d times", n)
			}
			if n := log.count(slog.LevelInfo); n != 0 {
				t.Errorf("its end was logged %d times before it ended", n)
			}

			wire.state.Store(whole)
			eventually(t, "recovered", func() bool {
				got, err := d.Resolve("vss.acme.com", "")
				return err == nil && got.State == tenants.Closed
			})
			eventually(t, "young again", func() bool { return d.Age() < time.Second })
			eventually(t, "logged", func() bool { return log.count(slog.LevelInfo) == 1 })
			if n := log.count(slog.LevelError); n != 1 {
				t.Errorf("the outage was logged %d times", n)
			}
		})
	}
}

func TestARefreshShowsWholeChangesOnly(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "one", "vss.acme.com")
	p.create(t, "two")
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{})
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		// The domain moves to the tenant that is named "owner".
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			owner := []string{"one", "two"}[i%2]
			_, err := p.owner.Exec(context.Background(), fmt.Sprintf(`BEGIN;
				UPDATE tenants SET name = CASE slug WHEN '%[1]s' THEN 'owner' ELSE 'other' END;
				UPDATE domains SET tenant_id = (SELECT id FROM tenants WHERE slug = '%[1]s');
				COMMIT`, owner))
			if err != nil {
				done <- err
				return
			}
		}
	}()
	seen := map[string]int{}
	for began := time.Now(); time.Since(began) < time.Second; {
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := d.Resolve("vss.acme.com", "")
		if err != nil {
			t.Fatal(err)
		}
		seen[got.Slug+" is "+got.Name]++
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	delete(seen, "one is Tenant one") // before the first change
	if len(seen) != 2 || seen["one is owner"] == 0 || seen["two is owner"] == 0 {
		t.Errorf("the domain led to %v", seen)
	}
}

// A failover to a standby that lacks the last change, then another change, can end at a known generation.
func TestAChangeUnderAnOldGenerationIsFoundToo(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{})
	state := func() tenants.State {
		t.Helper()
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := d.Resolve("", "acme")
		if err != nil {
			t.Fatal(err)
		}
		return got.State
	}
	state()
	generation := p.generation(t)
	p.set(t, "acme", tenants.Change{State: ptr(tenants.Closed)})
	p.sql(t, "UPDATE directory SET generation = $1", generation)
	if got := state(); got != tenants.Active {
		t.Errorf("got %s: this test shows nothing", got)
	}
	d.current.Load().loaded = time.Now().Add(-reloadInterval)
	if got := state(); got != tenants.Closed {
		t.Errorf("got %s, want %s", got, tenants.Closed)
	}
}

func TestADirectoryStopsWithItsContext(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	log := &journal{}
	wire, pool := newWire(t, p.url)
	d := newDirectory(t, pool, DirectoryConfig{Log: slog.New(log)})
	wire.state.Store(mute) // in the middle of a poll
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	time.Sleep(100 * time.Millisecond)
	cancel()
	select {
	case <-done:
	case <-time.After(time.Second):
		t.Fatal("Run goes on")
	}
	if n := log.count(slog.LevelError); n != 0 {
		t.Error("the end was logged as an outage")
	}
}

// Two companies, the same two wallets at both.
func TestAWalletIsTheTenantsWhoseURLItUses(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.acme.com")
	p.create(t, "globex")
	done(t)(p.service.SetSource(t.Context(), root, "globex", "signature", tenants.SourceChange{Window: ptr(time.Hour)}))
	d := newDirectory(t, open(t, p.url, db.RoleAPI), DirectoryConfig{})
	if err := d.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := NewAuthenticator(AuthenticatorConfig{})
	now := uint64(time.Now().Unix())
	identities := map[string]bool{}
	for _, url := range []struct{ host, slug, tenant string }{
		{"vss.acme.com", "", "acme"}, {"acme.vss.example", "", "acme"}, {"localhost:8080", "acme", "acme"},
		{"globex.vss.example", "", "globex"}, {"localhost:8080", "globex", "globex"},
	} {
		tenant, err := d.Resolve(url.host, url.slug)
		if err != nil {
			t.Fatal(err)
		}
		for wallet := range byte(2) {
			key := privateKey(wallet + 1)
			caller, err := a.Authenticate(t.Context(), tenant, with(signToken(key, now)), netip.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			if caller.Tenant.Slug != url.tenant || caller.Subject != fmt.Sprintf("%x", key.PubKey().SerializeCompressed()) {
				t.Errorf("%+v: caller %+v", url, caller)
			}
			identities[fmt.Sprint(caller.Tenant.ID, caller.Source.Namespace, caller.Subject)] = true

			// Only at acme is a clock that is two hours off good enough.
			_, err = a.Authenticate(t.Context(), tenant, with(signToken(key, now-7200)), netip.Addr{})
			if url.tenant == "acme" && err != nil {
				t.Error(err)
			} else if url.tenant == "globex" {
				wantAuthError(t, err, reasonWindow)
			}
		}
	}
	if len(identities) != 4 {
		t.Errorf("two wallets at two tenants are %d: %v", len(identities), identities)
	}
}

func TestAStateRefusesWhatItSays(t *testing.T) {
	t.Parallel()
	for state, want := range map[tenants.State]struct{ read, write error }{
		tenants.Active:   {nil, nil},
		tenants.ReadOnly: {nil, tenants.ErrReadOnly},
		tenants.Closed:   {tenants.ErrClosed, tenants.ErrClosed},
		"":               {tenants.ErrClosed, tenants.ErrClosed},
		"newer":          {tenants.ErrClosed, tenants.ErrClosed},
	} {
		tenant := &Tenant{Tenant: &tenants.Tenant{State: state}}
		if got := tenant.Refuses(false); !errors.Is(got, want.read) {
			t.Errorf("%s: a read gets %v", state, got)
		}
		if got := tenant.Refuses(true); !errors.Is(got, want.write) {
			t.Errorf("%s: a write gets %v", state, got)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	d, err := NewDirectory(nil, DirectoryConfig{BaseDomain: baseDomain})
	if err != nil {
		b.Fatal(err)
	}
	acme := &Tenant{Tenant: &tenants.Tenant{Slug: "acme"}}
	d.current.Store(&snapshot{bySlug: map[string]*Tenant{"acme": acme}, byDomain: map[string]*Tenant{"vss.acme.com": acme}})
	for _, url := range []struct{ host, slug string }{{"vss.acme.com", ""}, {"acme.vss.example", ""}, {"vss.example:8080", "acme"}} {
		b.Run(url.host, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := d.Resolve(url.host, url.slug); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// wire leads to a database and can fail.
type wire struct {
	state atomic.Int32
	to    *pgx.ConnConfig
}

const (
	whole int32 = iota
	cut         // connections break, and new ones are closed at once
	mute        // what is sent is lost, and nobody says so
)

// newWire returns a wire to the database and a pool of the API over it.
func newWire(t *testing.T, databaseURL string) (*wire, *pgxpool.Pool) {
	t.Helper()
	to, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{to: to}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.carry(client) })
		}
	})
	t.Cleanup(func() { listener.Close(); running.Wait() })

	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("host", host) // goes before the one in front of the path
	q.Set("port", port)
	u.RawQuery = q.Encode()
	pool, err := db.Open(t.Context(), u.String(), db.RoleAPI, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.state.Store(cut) // pgx waits up to 15 s for a server that should hang up
		pool.Close()
	})
	return w, pool
}

func (w *wire) carry(client net.Conn) {
	defer client.Close()
	network, address := pgconn.NetworkAddress(w.to.Host, w.to.Port)
	server, err := net.Dial(network, address)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		defer client.Close()
		_, _ = io.Copy(client, server) // to the end of either
	}()
	for buffer := make([]byte, 4096); w.state.Load() != cut; {
		if err := client.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			return
		}
		n, err := client.Read(buffer)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if n > 0 && w.state.Load() == whole {
			if _, err := server.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

// journal counts what is logged.
type journal struct {
	mu     sync.Mutex
	levels []slog.Level
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.levels = append(j.levels, r.Level)
	return nil
}

func (j *journal) count(level slog.Level) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.levels {
		if l == level {
			n++
		}
	}
	return n
}

func TestAClaimedDomainIsServedOnceDNSProvesIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.claim(t, "acme", "vss.served.com")
	d := newDirectory(t, open(t, p.url, "vss_api"), DirectoryConfig{})
	served := func(want error) {
		t.Helper()
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := d.Resolve("vss.served.com", "")
		wantError(t, err, want)
	}
	served(ErrUnknownTenant)
	_, err := p.service.CheckDomain(t.Context(), root, "acme", "vss.served.com")
	wantError(t, err, tenants.ErrUnproved)
	served(ErrUnknownTenant)

	p.prove(t, "acme", "vss.served.com")
	done(t)(p.service.CheckDomain(t.Context(), root, "acme", "VSS.served.com."))
	served(nil)

	// A record that is gone makes the domain lost, and cuts off nobody.
	name, _ := done(t)(p.service.Get(t.Context(), "acme")).Domain("vss.served.com").Record()
	records.Delete(name + ".")
	_, err = p.service.CheckDomain(t.Context(), root, "acme", "vss.served.com")
	wantError(t, err, tenants.ErrUnproved)
	if got := p.state(t, "acme", "vss.served.com"); got != tenants.Lost {
		t.Errorf("the domain is %s", got)
	}
	served(nil)
	p.prove(t, "acme", "vss.served.com")
	done(t)(p.service.CheckDomain(t.Context(), root, "acme", "vss.served.com"))
	if got := p.state(t, "acme", "vss.served.com"); got != tenants.Verified {
		t.Errorf("the domain is %s", got)
	}

	// DNS that does not answer changes nothing.
	records.Store(name+".", &net.DNSError{Err: "server misbehaving", IsTemporary: true})
	if _, err := p.service.CheckDomain(t.Context(), root, "acme", "vss.served.com"); err == nil || errors.Is(err, tenants.ErrUnproved) {
		t.Errorf("got %v", err)
	}
	if got := p.state(t, "acme", "vss.served.com"); got != tenants.Verified {
		t.Errorf("the domain is %s", got)
	}
	done(t)(p.service.RemoveDomain(t.Context(), root, "acme", "vss.served.com"))
	served(ErrUnknownTenant)
}
