package api_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

// addSource adds a source, which the server knows of when it returns.
func (p *platform) addSource(t testing.TB, slug string, n tenants.NewSource) {
	t.Helper()
	_, err := p.service.AddSource(t.Context(), operator, slug, n)
	check(t, err)
	check(t, p.directory.Refresh(t.Context()))
}

// as makes one of the four calls with a credential.
func (p *platform) as(t testing.TB, tenant, call string, body []byte, header http.Header) *answer {
	t.Helper()
	w := p.wallet(t, tenant, 1)
	r := w.request(t, call, body)
	r.Header.Del("Authorization")
	for name, values := range header {
		r.Header[name] = values
	}
	return p.do(t, r)
}

func bearer(key *lnurl.SigningKey, issuer, subject string) http.Header {
	return http.Header{"Authorization": {"Bearer " + key.Sign(subject, issuer, time.Now(), time.Hour)}}
}

// Scheme x tenant x state of the key x call, over two instances: a wallet reaches what is its own, and nobody else
// reaches anything.
func TestWhoIsAllowedByWhichKeyOfWhichTenant(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.create(t, "globex")
	instances := []*platform{p, p.beside(t)}
	refresh := func() {
		t.Helper()
		for _, i := range instances {
			check(t, i.directory.Refresh(t.Context()))
		}
	}
	issuers := map[string]*lnurl.SigningKey{}
	for _, slug := range []string{"acme", "globex"} {
		issuers[slug] = lnurl.NewSigningKey()
		p.addSource(t, slug, tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: jwt.Standard(), Keys: lnurl.JWKS(issuers[slug].Public())})
		p.addSource(t, slug, tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: slug + ".vss.example"})
	}
	refresh()
	number := byte(7)
	private := secp256k1.PrivKeyFromBytes([]byte{number})
	subject := hex.EncodeToString(private.PubKey().SerializeCompressed())
	schemes := map[string]func(tenant string) http.Header{
		"signature": func(tenant string) http.Header {
			return http.Header{"Authorization": {p.wallet(t, tenant, number).token(t)}}
		},
		"jwt": func(tenant string) http.Header { return bearer(issuers[tenant], "", subject) },
		"lnurl": func(tenant string) http.Header {
			return http.Header{"Authorization": {"Bearer " + p.login(t, tenant, private, nil).token(t)}}
		},
	}
	held := map[string]http.Header{} // credentials, by scheme and tenant
	for scheme, credential := range schemes {
		for _, tenant := range []string{"acme", "globex"} {
			held[scheme+" of "+tenant] = credential(tenant)
			body := encode(t, put(&vsspb.KeyValue{Key: "k", Version: -1, Value: []byte(scheme + " of " + tenant)}))
			instances[0].as(t, tenant, "putObjects", body, held[scheme+" of "+tenant]).wantDone(t)
		}
	}
	// wantAllowed says of each credential of acme whether it is allowed: there, at all calls, and nowhere else. A
	// signature alone is good at both tenants, and names a wallet of each.
	wantAllowed := func(what string, allowed map[string]bool) {
		t.Helper()
		refresh()
		for scheme := range schemes {
			for i, instance := range instances {
				header := held[scheme+" of acme"]
				for _, c := range calls {
					body := encode(t, c.body)
					if c.name != "getObject" && allowed[scheme] {
						continue // they would change what is read here
					}
					a := instance.as(t, "acme", c.name, body, header)
					switch {
					case allowed[scheme]:
						a.wantValue(t, scheme+" of acme")
					case a.status != 401:
						t.Errorf("%s: %s: instance %d: %s: HTTP %d", what, scheme, i, c.name, a.status)
					}
				}
				a := instance.as(t, "globex", "getObject", encode(t, calls[0].body), header)
				if scheme == "signature" {
					a.wantValue(t, "signature of globex")
				} else {
					a.want(t, 401, noAuth)
				}
				instance.as(t, "globex", "getObject", encode(t, calls[0].body), held[scheme+" of globex"]).wantValue(t, scheme+" of globex")
			}
		}
	}
	set := func(state jwt.State, until time.Time) {
		t.Helper()
		_, err := p.service.SetKey(t.Context(), operator, "acme", "auth", issuers["acme"].ID(), state, until)
		check(t, err)
	}
	all := map[string]bool{"signature": true, "jwt": true, "lnurl": true}
	wantAllowed("active", all)
	set(jwt.Standby, time.Time{})
	wantAllowed("standby", map[string]bool{"signature": true, "lnurl": true})
	set(jwt.Retired, time.Now().Add(time.Hour))
	wantAllowed("retired later", all)
	set(jwt.Retired, time.Now().Add(-time.Second))
	wantAllowed("retired", map[string]bool{"signature": true, "lnurl": true})
	set(jwt.Active, time.Time{})
	_, err := p.service.RotateKey(t.Context(), operator, "acme", "lnurl", false)
	check(t, err)
	wantAllowed("platform's key rotated", all)
	_, err = p.service.RotateKey(t.Context(), operator, "acme", "lnurl", true)
	check(t, err)
	wantAllowed("platform's key revoked", map[string]bool{"signature": true, "jwt": true})
	set(jwt.Revoked, time.Time{})
	wantAllowed("key revoked", map[string]bool{"signature": true})
	_, err = p.service.RemoveSource(t.Context(), operator, "acme", "signature")
	check(t, err)
	wantAllowed("signature source removed", nil)
	if p.log.String() == "" || strings.Contains(p.log.String(), subject) || strings.Contains(p.log.String(), "eyJ") {
		t.Error("the log has nothing, or a wallet's key, or a token")
	}
}

// loginAnswer is what the auth URL answered to a login.
type loginAnswer struct {
	header http.Header
	status int
	Status string `json:"status"`
	Reason string `json:"reason"`
	Token  string `json:"token"`
}

func (a *loginAnswer) token(t testing.TB) string {
	t.Helper()
	if a.Status != "OK" || strings.Count(a.Token, ".") != 2 {
		t.Fatalf("no token: %+v", a)
	}
	return a.Token
}

// visit GETs a URL of the tenant's own host.
func (p *platform) visit(t testing.TB, method, host, uri string, header http.Header) (status int, h http.Header, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.address+uri, nil)
	check(t, err)
	r.Host = host
	for name, values := range header {
		r.Header[name] = values
	}
	resp, err := p.http.Do(r)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	if v := resp.Header.Values("Vss-Protocol-Version"); len(v) != 1 || v[0] != "0" {
		t.Errorf("%s %s: Vss-Protocol-Version is %q", method, uri, v)
	}
	return resp.StatusCode, resp.Header, string(text)
}

// challenge is the auth URL with a challenge, and its k1.
func (p *platform) challenge(t testing.TB, tenant string, header http.Header) (u *url.URL, k1 []byte) {
	t.Helper()
	status, h, text := p.visit(t, http.MethodGet, tenant+".vss.example", "/lnurl/auth", header)
	u, err := url.Parse(text)
	if err != nil || status != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") || u.Scheme != "https" ||
		u.Host != tenant+".vss.example" || u.Path != "/lnurl/auth" || u.Query().Get("tag") != "login" {
		t.Fatalf("HTTP %d %q", status, text)
	}
	k1, err = hex.DecodeString(u.Query().Get("k1"))
	check(t, err)
	return u, k1
}

// signature is LUD-04's.
func signature(key *secp256k1.PrivateKey, k1 []byte) string {
	return hex.EncodeToString(ecdsa.Sign(key, k1).Serialize())
}

// answerChallenge signs and sends a challenge back.
func (p *platform) answerChallenge(t testing.TB, u *url.URL, k1 []byte, key *secp256k1.PrivateKey, header http.Header) *loginAnswer {
	t.Helper()
	uri := fmt.Sprintf("%s?%s&sig=%s&key=%x", u.Path, u.RawQuery, signature(key, k1), key.PubKey().SerializeCompressed())
	status, h, text := p.visit(t, http.MethodGet, u.Host, uri, header)
	a := &loginAnswer{header: h, status: status}
	if err := json.Unmarshal([]byte(text), a); err != nil {
		t.Fatalf("HTTP %d %q", status, text)
	}
	return a
}

// login is the whole flow.
func (p *platform) login(t testing.TB, tenant string, key *secp256k1.PrivateKey, header http.Header) *loginAnswer {
	t.Helper()
	u, k1 := p.challenge(t, tenant, header)
	return p.answerChallenge(t, u, k1, key, header)
}

// loginPlatform is two instances, and acme and globex with LNURL-auth.
func loginPlatform(t testing.TB) []*platform {
	t.Helper()
	p := start(t)
	p.create(t, "globex")
	for _, slug := range []string{"acme", "globex"} {
		p.addSource(t, slug, tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL, Host: slug + ".vss.example"})
	}
	return []*platform{p, p.beside(t)}
}

func TestAnLNURLWalletUsesSeveralInstances(t *testing.T) {
	t.Parallel()
	instances := loginPlatform(t)
	key := secp256k1.PrivKeyFromBytes([]byte{9})
	u, k1 := instances[0].challenge(t, "acme", nil)
	answer := instances[1].answerChallenge(t, u, k1, key, nil)
	header := http.Header{"Authorization": {"Bearer " + answer.token(t)}}
	instances[0].as(t, "acme", "putObjects", encode(t, calls[1].body), header).wantDone(t)
	instances[1].as(t, "acme", "getObject", encode(t, calls[0].body), header).wantValue(t, "v")

	// Another login of the same key is the same wallet; another key's is not.
	again := http.Header{"Authorization": {"Bearer " + instances[1].login(t, "acme", key, nil).token(t)}}
	instances[0].as(t, "acme", "getObject", encode(t, calls[0].body), again).wantValue(t, "v")
	other := http.Header{"Authorization": {"Bearer " + instances[1].login(t, "acme", secp256k1.PrivKeyFromBytes([]byte{10}), nil).token(t)}}
	instances[0].as(t, "acme", "getObject", encode(t, calls[0].body), other).want(t, 404, noSuch)

	// A challenge is good once, on all instances, and for its own tenant.
	for _, p := range instances {
		if a := p.answerChallenge(t, u, k1, key, nil); a.Status != "ERROR" || a.Token != "" || !strings.Contains(a.Reason, "used") {
			t.Errorf("a used challenge: %+v", a)
		}
	}
	u, k1 = instances[0].challenge(t, "acme", nil)
	u.Host = "globex.vss.example"
	if a := instances[0].answerChallenge(t, u, k1, key, nil); a.Status != "ERROR" || a.Token != "" {
		t.Errorf("another tenant's challenge: %+v", a)
	}
	for _, p := range instances {
		for _, secret := range []string{hex.EncodeToString(k1), hex.EncodeToString(key.PubKey().SerializeCompressed()), answer.Token, "sig="} {
			if strings.Contains(p.log.String(), secret) {
				t.Errorf("the log has %q", secret)
			}
		}
	}
}

func TestABurstOfFirstLoginsAllSucceed(t *testing.T) {
	t.Parallel()
	instances := loginPlatform(t)
	key := secp256k1.PrivKeyFromBytes([]byte{11})
	tokens := make([]string, 40)
	var running sync.WaitGroup
	for i := range tokens {
		running.Go(func() {
			defer func() { _ = recover() }() // t.FailNow of another goroutine
			tokens[i] = instances[i%2].login(t, "acme", key, nil).Token
		})
	}
	running.Wait()
	for i, token := range tokens {
		if token == "" {
			t.Errorf("login %d of %d has failed", i, len(tokens))
		}
	}
}

func TestTheAuthURLKeepsTheContractOfWhatIsAroundIt(t *testing.T) {
	t.Parallel()
	p := loginPlatform(t)[0]
	p.create(t, "signers")
	p.create(t, "shut")
	p.set(t, "shut", tenants.Change{State: ptr(tenants.Closed)})
	for _, tc := range []struct {
		method, host, uri string
		status            int
		body              string // a part
	}{
		{"GET", "acme.vss.example", "/lnurl/auth", 200, "https://acme.vss.example/lnurl/auth?tag=login&k1="},
		{"GET", "acme.vss.example:8443", "/lnurl/auth", 200, "https://acme.vss.example/lnurl/auth?tag=login&k1="},
		{"GET", "localhost", "/t/acme/lnurl/auth", 200, "https://acme.vss.example/lnurl/auth?tag=login&k1="},
		{"HEAD", "acme.vss.example", "/lnurl/auth", 200, ""},
		{"POST", "acme.vss.example", "/lnurl/auth", 405, `"status":"ERROR"`},
		{"DELETE", "acme.vss.example", "/lnurl/auth", 405, `"status":"ERROR"`},
		{"GET", "acme.vss.example", "/lnurl/auth?k1=00", 200, `"status":"ERROR"`},
		{"GET", "signers.vss.example", "/lnurl/auth", 200, "no LNURL-auth"},
		{"GET", "shut.vss.example", "/lnurl/auth", 200, "closed"},
		{"GET", "nobody.vss.example", "/lnurl/auth", 200, "unknown tenant"},
		{"GET", "localhost", "/lnurl/auth", 200, "unknown tenant"},
		{"GET", "acme.vss.example", "/lnurl/jwks.json", 200, `{"keys":[{"kty":"EC","crv":"P-256",`},
		{"GET", "localhost", "/t/acme/lnurl/jwks.json", 200, `{"keys":[{"kty":"EC"`},
		{"GET", "signers.vss.example", "/lnurl/jwks.json", 404, ""},
		{"GET", "nobody.vss.example", "/lnurl/jwks.json", 403, ""},
	} {
		status, h, body := p.visit(t, tc.method, tc.host, tc.uri, http.Header{"Origin": {"https://wallet.example"}})
		if status != tc.status || !strings.Contains(body, tc.body) ||
			tc.method != "DELETE" && h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %s%s: HTTP %d %q %v", tc.method, tc.host, tc.uri, status, body, h)
		}
	}
	if strings.Contains(p.log.String(), "k1=") {
		t.Error("the log has a query")
	}
}

func TestTheGateOfClientKeysIsBeforeLoginsAndCalls(t *testing.T) {
	t.Parallel()
	p := loginPlatform(t)[0]
	_, key, err := p.service.AddClientKey(t.Context(), operator, "acme", "app")
	check(t, err)
	p.set(t, "acme", tenants.Change{Gate: ptr(tenants.GateRequired), Header: ptr("X-App")})
	private := secp256k1.PrivKeyFromBytes([]byte{12})
	app := http.Header{"X-App": {key}}
	token := p.login(t, "acme", private, app).token(t)
	app.Set("Authorization", "Bearer "+token)
	for _, c := range calls {
		p.as(t, "acme", c.name, encode(t, c.body), http.Header{"Authorization": {"Bearer " + token}}).want(t, 401, noAuth)
	}
	p.as(t, "acme", "putObjects", encode(t, calls[1].body), app).wantDone(t)
	if _, _, body := p.visit(t, http.MethodGet, "acme.vss.example", "/lnurl/auth", nil); !strings.Contains(body, "client key") {
		t.Errorf("without a client key the auth URL answers %q", body)
	}
	if strings.Contains(p.log.String(), key) {
		t.Error("the log has the client key")
	}
}

func TestAnIssuerThatCannotBeReachedIsNoFaultOfTheWallet(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.addSource(t, "acme", tenants.NewSource{Name: "auth", Kind: tenants.JWT, Rules: jwt.Standard(), JWKSURL: "https://issuer.example/keys"})
	a := p.as(t, "acme", "getObject", encode(t, calls[0].body), bearer(lnurl.NewSigningKey(), "", "alice"))
	a.want(t, 503, internal)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestAFloodOfForgedSignaturesLeavesKnownWalletsServed(t *testing.T) {
	t.Parallel()
	now := time.Now() // which stands still, so that the budget of suspects does not grow
	p := start(t, func(cfg *api.Config) {
		cfg.Auth = callers.NewAuthenticator(callers.AuthenticatorConfig{Now: func() time.Time { return now }})
	})
	known := p.wallet(t, "acme", 1)
	known.put(t, "k", "v").wantDone(t)
	forged := []byte(p.wallet(t, "acme", 2).token(t))
	statuses := map[int]int{}
	for i := range 600 {
		copy(forged[68:132], fmt.Sprintf("%064x", i+1)) // r
		a := p.as(t, "acme", "getObject", encode(t, calls[0].body), http.Header{"Authorization": {string(forged)}})
		statuses[a.status]++
		if a.status == 429 {
			a.want(t, 429, internal)
		}
	}
	if statuses[401]+statuses[429] != 600 || statuses[401] == 0 || statuses[429] == 0 {
		t.Errorf("the flood was answered %v", statuses)
	}
	known.wantValue(t, "k", "v")
}
