package api_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// limitedLogins is a platform whose limiter's clock stands still. Its tenants are acme and globex, and 2 wallets may enrol at
// each from one address and 5 from all, so that 8 strangers may log in from one address and 20 from all.
func limitedLogins(t testing.TB) *platform {
	t.Helper()
	p := start(t, standingStill)
	p.create(t, "globex")
	for _, slug := range []string{"acme", "globex"} {
		p.addSource(t, slug, tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: slug + ".vss.example"})
		p.set(t, slug, tenants.Change{Limits: map[string]*int64{
			"address_enrolments_burst": ptr[int64](2), "address_enrolments_per_minute": ptr[int64](1),
			"enrolments_burst": ptr[int64](5), "enrolments_per_minute": ptr[int64](1),
		}})
	}
	return p
}

// standingStill is the change to the configuration of an instance of [limitedLogins].
func standingStill(cfg *api.Config) {
	now := time.Now()
	cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	cfg.Quota.Limiter = quota.NewLimiter(quota.LimiterConfig{Now: func() time.Time { return now }})
}

func number(n uint32) *secp256k1.PrivateKey {
	return secp256k1.PrivKeyFromBytes(binary.BigEndian.AppendUint32(nil, n))
}

func at(address string) http.Header { return http.Header{"X-Forwarded-For": {address}} }

// flood logs in with so many new keys, from the addresses in turn, and says how many were let in. Each that was not was told
// the reason in LUD-04's form.
func (p *platform) flood(t testing.TB, tenant string, first, n uint32, reason string, addresses ...string) (in int) {
	t.Helper()
	for i := range n {
		a := p.login(t, tenant, number(first+i), at(addresses[int(i)%len(addresses)]))
		switch {
		case a.Status == "OK":
			in++
		case a.status != 200 || a.Status != "ERROR" || a.Token != "" || !strings.Contains(a.Reason, reason):
			t.Fatalf("got %+v", a)
		}
	}
	return in
}

func (p *platform) usedChallenges(t testing.TB) (n int) {
	t.Helper()
	owner, err := pgx.Connect(t.Context(), p.database)
	check(t, err)
	defer owner.Close(context.Background())
	check(t, owner.QueryRow(t.Context(), "SELECT count(*) FROM lnurl_used").Scan(&n))
	return n
}

func TestAFloodOfLoginsIsHeldToItsAddressAndTenant(t *testing.T) {
	t.Parallel()
	p := limitedLogins(t)
	if in := p.flood(t, "acme", 1, 40, "this network", "203.0.113.1"); in != 8 {
		t.Errorf("%d strangers of one address logged in, want 8", in)
	}
	if in := p.flood(t, "acme", 100, 20, "this network", "2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:9"); in != 8 {
		t.Errorf("%d strangers of one /64 logged in, want 8", in)
	}
	if n := p.usedChallenges(t); n != 16 {
		t.Errorf("%d rows were written, want 16", n)
	}
	// Others of the tenant go on, and others at the address.
	p.login(t, "acme", number(200), at("203.0.113.2")).token(t)
	p.login(t, "globex", number(1), at("203.0.113.1")).token(t)

	// From everywhere at once they are held to what is left to the tenant.
	addresses := make([]string, 50)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("198.51.100.%d", i)
	}
	if in := p.flood(t, "acme", 300, 50, "this tenant", addresses...); in != 3 {
		t.Errorf("%d strangers of the tenant logged in beyond 17, want 3", in)
	}
	p.login(t, "globex", number(300), at("198.51.100.1")).token(t)
	for _, reason := range []quota.Reason{quota.AddressRate, quota.LoginRate} {
		if n := p.count(t, "vss.quota.refusals", attribute.String("reason", reason.String())); n == 0 {
			t.Errorf("no refusal is counted for %v", reason)
		}
	}
}

func TestAFloodOfLoginsHoldsUpNoWalletThatIsEnrolled(t *testing.T) {
	t.Parallel()
	p := limitedLogins(t)
	header := at("203.0.113.7")
	header.Set("Authorization", "Bearer "+p.login(t, "acme", number(1), header).token(t))
	p.as(t, "acme", "putObjects", encode(t, calls[1].body), header).wantDone(t)

	// On another instance it is a stranger like all.
	for _, instance := range []*platform{p, p.beside(t, standingStill)} {
		instance.flood(t, "acme", 100, 20, "this network", "203.0.113.7")
		instance.flood(t, "acme", 200, 30, "", "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4")
		if a := instance.login(t, "acme", number(99), at("198.51.100.9")); a.Status != "ERROR" {
			t.Fatalf("a stranger is let in: %+v", a)
		}
		for range 30 {
			instance.login(t, "acme", number(1), at("203.0.113.7")).token(t)
		}
	}
}

func TestAReplayedLoginDoesNoSQL(t *testing.T) {
	t.Parallel()
	p := limitedLogins(t)
	key := number(1)
	u, k1 := p.challenge(t, "acme", nil)
	p.answerChallenge(t, u, k1, key, at("203.0.113.1")).token(t)
	p.proxy.Down()
	for range 100 {
		if a := p.answerChallenge(t, u, k1, key, at("203.0.113.1")); a.status != 200 || !strings.Contains(a.Reason, "used") {
			t.Fatalf("got %+v", a)
		}
	}
	// A fresh one does.
	if a := p.login(t, "acme", key, at("203.0.113.1")); a.status != 503 {
		t.Errorf("got %+v", a)
	}
	p.proxy.Up()
	for range 3 { // the replays took nothing from the address either
		p.login(t, "acme", key, at("203.0.113.1")).token(t)
	}
}

func TestLoginsThatHangHoldUpNoCalls(t *testing.T) {
	t.Parallel()
	p := limitedLogins(t)
	w := p.wallet(t, "globex", 1)
	w.put(t, "k", "v").wantDone(t)
	owner, err := pgx.Connect(t.Context(), p.database)
	check(t, err)
	defer owner.Close(context.Background())
	tx, err := owner.Begin(t.Context())
	check(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE lnurl_used")
	check(t, err)
	var hanging sync.WaitGroup
	for i := range uint32(20) {
		u, k1 := p.challenge(t, "acme", nil)
		hanging.Go(func() { p.answerChallenge(t, u, k1, number(i+1), at(fmt.Sprintf("198.51.100.%d", i))) })
	}
	for waiting := 0; waiting < 10; time.Sleep(5 * time.Millisecond) {
		check(t, owner.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&waiting))
	}
	for range 20 {
		w.put(t, "k", "v").wantDone(t)
	}
	check(t, tx.Rollback(t.Context()))
	hanging.Wait()
}

func TestForgedLoginsOfAKnownWalletTakeNothingFromIt(t *testing.T) {
	t.Parallel()
	p := limitedLogins(t)
	key := number(1)
	header := at("203.0.113.7")
	header.Set("Authorization", "Bearer "+p.login(t, "acme", key, header).token(t))
	p.as(t, "acme", "putObjects", encode(t, calls[1].body), header).wantDone(t)

	u, k1 := p.challenge(t, "acme", nil)
	named := hex.EncodeToString(key.PubKey().SerializeCompressed())
	for i := range 60 { // of another key's, with this one's name
		_, forged := p.challenge(t, "acme", nil)
		uri := fmt.Sprintf("%s?%s&sig=%s&key=%s", u.Path, u.RawQuery, signature(number(2), forged), named)
		if _, _, body := p.visit(t, http.MethodGet, u.Host, uri, at("203.0.113.7")); !strings.Contains(body, "ERROR") {
			t.Fatalf("number %d: %s", i, body)
		}
	}
	p.answerChallenge(t, u, k1, key, at("203.0.113.7")).token(t)
	p.login(t, "acme", number(3), at("203.0.113.8")).token(t)
}
