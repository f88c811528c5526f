package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

var base64url = base64.RawURLEncoding

// issuer signs tokens, as a wallet company's server does.
type issuer struct {
	kid string // "": it names none
	key crypto.Signer
}

func newIssuer(t *testing.T, kid string) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{kid, key}
}

func newRSAIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{"", key}
}

// jwks is its public key.
func (i *issuer) jwks(t *testing.T) string {
	t.Helper()
	point, err := i.key.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`,
		i.kid, base64url.EncodeToString(point[1:33]), base64url.EncodeToString(point[33:]))
}

func (i *issuer) pem(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// token is one that says this and lives for an hour.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	header := map[string]any{"alg": "ES256"}
	if _, ok := i.key.(*rsa.PrivateKey); ok {
		header["alg"] = "RS256"
	}
	if i.kid != "" {
		header["kid"] = i.kid
	}
	if claims["exp"] == nil {
		claims["exp"] = time.Now().Add(time.Hour).Unix()
	}
	var parts []string
	for _, part := range []any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, base64url.EncodeToString(text))
	}
	digest := sha256.Sum256([]byte(strings.Join(parts, ".")))
	var signature []byte
	switch key := i.key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case *rsa.PrivateKey:
		var err error
		if signature, err = key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(append(parts, base64url.EncodeToString(signature)), ".")
}

// answers waits until a wallet with this token, and these header fields, gets this status.
func answers(t *testing.T, status int, base, token string, fields ...string) {
	t.Helper()
	eventually(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/listKeyVersions", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		for i := 0; i < len(fields); i += 2 {
			req.Header.Set(fields[i], fields[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode == status
	})
}

// TestTheOperatorRunsCredentials has one platform, and a tenant for each part.
func TestTheOperatorRunsCredentials(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	p := s.dev()
	t.Run("tenants", func(t *testing.T) {
		for name, part := range map[string]func(*testing.T, *shell, string, string){
			"sources":     sources,
			"rules":       rules,
			"reference":   asTheReferenceServer,
			"fetched":     fetchedKeys,
			"client-keys": clientKeys,
			"domains":     domains,
			"explain":     explainAndFailures,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := s.in(t)
				s.want(0, name, "tenant", "create", name)
				part(t, s, name, strings.Replace(p.base, "/demo/", "/"+name+"/", 1))
			})
		}
	})
	t.Run("logins", func(t *testing.T) { logins(t, s.in(t), p) })
}

func sources(t *testing.T, s *shell, tenant, base string) {
	first, second := newIssuer(t, "first"), newIssuer(t, "second")
	wallet := func(i *issuer) string { return i.token(t, map[string]any{"sub": "wallet 1", "iss": "https://id.test"}) }

	s.want(2, "--kind", "source", "add", tenant, "app")
	s.want(2, "either the URL of a JWKS or the keys", "source", "add", tenant, "app", "--kind", "jwt")
	s.with("my key").want(2, "neither a JWKS", "source", "add", tenant, "app", "--kind", "jwt", "--keys", "-")
	s.want(3, "no such tenant", "source", "list", "nobody")
	add := []string{"source", "add", tenant, "app", "--kind", "jwt", "--issuer", "https://id.test", "--keys", "-"}
	s.with(first.jwks(t)).want(0, `app +jwt +jwt:app +iss "https://id.test", any aud, keys: 1`, add...)
	s.with(first.jwks(t)).want(2, "name: is taken", add...)
	answers(t, 200, base, wallet(first))
	s.want(0, "saved", "put", "by token", "v", "--url", base, "--token", wallet(first))
	answers(t, 401, base, wallet(second))

	s.with(second.jwks(t)).want(0, `(?s)first +active.*second +standby|second +standby.*first +active`, "key", "add", tenant, "app", "-", "--standby")
	s.with(second.jwks(t)).want(2, "already", "key", "add", tenant, "app", "-")
	s.with(second.jwks(t)).want(3, "no source", "key", "add", tenant, "none", "-")
	s.want(0, "second +active +EC, P-256", "key", "set", tenant, "app", "second", "--state", "active")
	answers(t, 200, base, wallet(second))
	s.want(2, "--for is of", "key", "set", tenant, "app", "second", "--state", "active", "--for", "1h")
	s.want(3, "no key", "key", "set", tenant, "app", "third", "--state", "active")
	s.want(2, "refused from .* on. If that is wanted, say --yes", "key", "set", tenant, "app", "first", "--state", "retired")
	s.want(0, "first +retired, verifies until", "key", "set", tenant, "app", "first", "--state", "retired", "--for", "1h", "--yes")
	answers(t, 200, base, wallet(first))
	s.want(2, "refused at once.*say --yes", "key", "set", tenant, "app", "first", "--state", "revoked")
	s.want(0, `"state": "revoked"`, "key", "set", tenant, "app", "first", "--state", "revoked", "--yes", "--json")
	answers(t, 401, base, wallet(first))
	s.want(2, "a revoked key stays so", "key", "set", tenant, "app", "first", "--state", "active")
	answers(t, 200, base, wallet(second))
	s.want(0, "first +revoked", "key", "list", tenant, "app")
	s.want(3, "no source", "key", "list", tenant, "none")
	s.want(2, "only the platform's own keys", "key", "rotate", tenant, "app")

	next := []string{"source", "add", tenant, "next", "--kind", "jwt", "--namespace-of", "app", "--issuer", "https://next.test", "--jwks-url", "http://127.0.0.1:1/keys", "--egress-allow-private"}
	s.want(2, "gets the data .*say --yes", next...)
	s.want(0, `next +jwt +jwt:app +iss "https://next.test", any aud, keys at http://127.0.0.1:1/keys`, append(next, "--yes")...)
	s.want(2, "jwks_url", "source", "add", tenant, "local", "--kind", "jwt", "--issuer", "x", "--jwks-url", "http://127.0.0.1/keys")

	s.want(2, "are refused from now on. If that is wanted, say --yes", "source", "remove", tenant, "app")
	s.want(0, "removed source app", "source", "remove", tenant, "app", "--yes")
	s.want(3, "no source", "source", "remove", tenant, "app", "--yes")
	answers(t, 401, base, wallet(second))
	s.want(0, `(?s)signature +signature +sig +within 24h.*app +jwt +jwt:app +removed`, "source", "list", tenant)
	s.want(0, `(?s)source +next \(jwt, namespace jwt:app\)`, "tenant", "show", tenant)
}

func rules(t *testing.T, s *shell, tenant, base string) {
	i := newIssuer(t, "")
	set := func(code int, match string, flags ...string) {
		t.Helper()
		s.want(code, match, append([]string{"source", "set", tenant, "app", "--yes"}, flags...)...)
	}
	s.with(i.pem(t)).want(0, `aud \["a" "b,c"\], nbf ignored, ES256 EdDSA`, "source", "add", tenant, "app", "--kind", "jwt",
		"--keys", "-", "--audience", "a", "--audience", "b,c", "--ignore-nbf", "--algorithm", "ES256,EdDSA")
	token := i.token(t, map[string]any{"sub": "w", "aud": "b,c", "nbf": time.Now().Add(time.Hour).Unix()})
	answers(t, 200, base, token)
	s.want(2, "refused before the time in them .* say --yes", "source", "set", tenant, "app", "--nbf")
	set(0, `any iss, aud \["a" "b,c"\], ES256 EdDSA`, "--nbf")
	answers(t, 401, base, token)
	set(0, "any aud, nbf ignored", "--any-audience", "--ignore-nbf")
	answers(t, 200, base, token)
	set(0, "no aud", "--no-audience")
	answers(t, 401, base, token)
	set(0, `iss "x", aud \["b,c"\], nbf ignored, ES256`, "--issuer", "x", "--audience", "b,c", "--algorithm", "ES256")
	set(2, "no algorithm .* is for its key", "--algorithm", "RS256")
	set(0, "any iss", "--issuer", "")
	cognito := func(client string) string {
		return i.token(t, map[string]any{"sub": "w", "client_id": client, "token_use": "access"})
	}
	set(0, `any aud, client_id "app1", token_use "access"`, "--any-audience", "--claim", "client_id=app1", "--claim", "token_use=access")
	answers(t, 200, base, cognito("app1"))
	answers(t, 401, base, cognito("app2"))
	s.with(cognito("app2")).want(5, "FAILED +claims +.*asks for", "auth", "explain", tenant, "--token", "-")
	set(2, "the claim aud has a rule of its own", "--claim", "aud=x")
	set(2, "NAME=TEXT", "--claim", "client_id")
	set(2, "twice", "--claim", "a=1", "--claim", "a=2")
	set(0, `any aud, nbf ignored, ES256`, "--no-claims")
	answers(t, 200, base, cognito("app2"))
	set(0, `aud \["b,c"\], a "x=,y"`, "--audience", "b,c", "--claim", "a=x=,y")
	set(2, "can't be used together", "--any-audience", "--no-audience")
	set(2, "can't be used together", "--nbf", "--ignore-nbf")
	set(2, "an algorithm is not one of", "--algorithm", "none")
	set(2, "window: is of sources of kind signature", "--window", "1h")
	set(2, "token_life: is of sources of kind lnurl", "--token-life", "1h")
	set(2, "keys are uploaded", "--jwks-url", "https://x.test/k")
	s.want(2, "more than 1h0m0s from now are refused .*say --yes", "source", "set", tenant, "signature", "--window", "1h")
	s.want(0, "within 1h0m0s of now", "source", "set", tenant, "signature", "--window", "1h", "--yes")
	s.want(2, "window: must be", "source", "set", tenant, "signature", "--window", "25h")
	s.want(3, "no source", "source", "set", tenant, "none", "--window", "1h")
	s.want(2, "kind jwt", "source", "add", tenant, "more", "--kind", "lnurl", "--issuer", "x")
	s.want(2, "can have one source of kind signature", "source", "add", tenant, "more", "--kind", "signature")

	var views []map[string]any
	if err := json.Unmarshal([]byte(s.want(0, "", "source", "list", tenant, "--json")), &views); err != nil || len(views) != 2 {
		t.Fatalf("source list: %v, %v", views, err)
	}
	for _, name := range []string{"name", "kind", "namespace", "audience_rule", "audiences", "check_not_before", "algorithms", "claims", "keys"} {
		if views[0][name] == nil {
			t.Errorf("source list --json has no %s: %v", name, views[0])
		}
	}
}

func asTheReferenceServer(t *testing.T, s *shell, tenant, base string) {
	i, other := newRSAIssuer(t), newRSAIssuer(t)
	add := []string{"source", "add", tenant, "app", "--kind", "jwt", "--preset", "reference"}
	s.want(2, "needs --keys FILE", add...)
	add = append(add, "--keys", "-")
	s.with(newIssuer(t, "k").jwks(t)).want(2, "one RSA key in PEM", add...)
	s.with(newIssuer(t, "").pem(t)).want(2, "one RSA key in PEM", add...)
	s.with(i.pem(t)+other.pem(t)).want(2, "one RSA key in PEM", add...)
	s.with(i.pem(t)).want(2, "reference server's rules and no others", append(add, "--issuer", "x")...)
	s.with(i.pem(t)).want(0, "any iss, no aud, nbf ignored, RS256, keys: 1", add...)
	answers(t, 200, base, i.token(t, map[string]any{"sub": "w", "iss": "anybody"}))
	answers(t, 401, base, i.token(t, map[string]any{"sub": "w", "aud": "anything"}))
}

// fetchedKeys has an issuer that gives one kid to two keys, as issuers may.
func fetchedKeys(t *testing.T, s *shell, tenant, base string) {
	one, two, gone := newIssuer(t, "same"), newIssuer(t, "same"), newIssuer(t, "other")
	both := strings.Replace(one.jwks(t), "]}", ","+strings.TrimPrefix(two.jwks(t), `{"keys":[`), 1)
	var down atomic.Bool
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			http.Error(w, "out of order", http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, both)
	}))
	defer site.Close()
	s.env = append(slices.Clone(s.env), "VSS_EGRESS_ALLOW_PRIVATE=true")
	add := []string{"source", "add", tenant, "app", "--kind", "jwt", "--jwks-url", site.URL}
	down.Store(true)
	s.want(2, "no key to verify tokens with: the URL answered with status 502.*say --yes", add...)
	down.Store(false)
	s.want(0, `(?s)keys at http://127.0.0.1.*answered with \d+ bytes.* 1h0m0s.*same +EC.*used.*same +EC.*used.*Note: .*another service`, add...)
	wallet := func(i *issuer) string { return i.token(t, map[string]any{"sub": "w"}) }
	explain := func(code int, match string, i *issuer) {
		t.Helper()
		s.with(wallet(i)).want(code, match, "auth", "explain", tenant, "--token", "-")
	}
	explain(0, "(?s)ok +keys +2\n.*ok +signature", one) // by a fetch of its own
	answers(t, 200, base, wallet(one))
	answers(t, 200, base, wallet(two))
	eventually(t, func() bool {
		_, out, _ := s.run("key", "list", tenant, "app")
		return strings.Count(out, "same  active") == 2
	})
	s.want(2, "only revoking overrules", "key", "set", tenant, "app", "same", "--state", "standby")
	s.want(3, "has no key", "key", "set", tenant, "app", "none", "--state", "revoked", "--yes")
	s.want(0, "same +revoked", "key", "set", tenant, "app", "same", "--state", "revoked", "--yes")
	answers(t, 401, base, wallet(one))
	answers(t, 401, base, wallet(two))
	explain(5, `FAILED +signature +.*revoked`, two)
	if out := s.want(0, "As the API last got them", "key", "list", tenant, "app"); strings.Count(out, "same  revoked") != 2 {
		t.Errorf("not both keys are revoked:\n%s", out)
	}
	down.Store(true)
	explain(5, `(?s)ok +keys +2 kept from before, since http://.* cannot be had: .*502.*FAILED +signature`, one)
	explain(5, `(?s)FAILED +keys +.*try again: .*502.*FAILED +signature`, gone)
	s.want(0, "keys at http://127.0.0.1:1/x", "source", "set", tenant, "app", "--jwks-url", "http://127.0.0.1:1/x", "--yes")
	s.want(0, "(?s)As the API last got them.*same +revoked", "key", "list", tenant, "app")
	s.with(gone.jwks(t)).want(2, "its keys are at", "key", "add", tenant, "app", "-")
}

func clientKeys(t *testing.T, s *shell, tenant, base string) {
	i := newIssuer(t, "k")
	s.with(i.jwks(t)).want(0, "", "source", "add", tenant, "app", "--kind", "jwt", "--keys", "-")
	token := i.token(t, map[string]any{"sub": "w"})
	const header = "X-Client-Key"

	s.want(2, "has no client key", "client-key", "gate", tenant, "required", "--yes")
	for _, name := range []string{
		"Authorization", "transfer-encoding", "TE", "Trailer", "Expect", "Content-Encoding", "Content-Length", "Content-Type", "X-Forwarded-For",
		"Forwarded", "Cookie", "Host", "Connection", "Upgrade", "Proxy-Authorization", "Sec-Fetch-Site", "Accept-Encoding", "Range", "Traceparent",
	} {
		s.want(2, "client_key_header: cannot be "+name+": .*would not arrive", "client-key", "gate", tenant, "observed", "--header", name)
	}
	s.want(2, "must be one of", "client-key", "gate", tenant, "open")
	s.want(0, "client keys observed, in the header X-Client-Key", "client-key", "gate", tenant, "observed")
	eventually(t, func() bool {
		answers(t, 200, base, token, header, "wrong") // the gate may not be there yet
		_, out, _ := s.run("auth", "failures", tenant)
		return regexp.MustCompile(`[1-9][0-9]* +- +only observed: the client key is not one of this tenant`).MatchString(out)
	})

	first := strings.Fields(s.want(0, "not shown again", "client-key", "add", tenant, "the app"))[0]
	s.want(2, "name: must have", "client-key", "add", tenant, "")
	s.want(2, "is refused .*: apps released without one.*say --yes", "client-key", "gate", tenant, "required")
	s.want(0, `"client_key_gate": "required"`, "client-key", "gate", tenant, "required", "--yes", "--json")
	answers(t, 401, base, token)
	answers(t, 200, base, token, header, first)
	s.want(0, "client keys +required, in the header X-Client-Key", "tenant", "show", tenant)

	var made struct{ Key, Prefix, Name, State string }
	if err := json.Unmarshal([]byte(s.want(0, "", "client-key", "rotate", tenant, first[:10], "--json")), &made); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.Key, made.Prefix) || made.Key == first || made.Name != "the app" || made.State != "active" {
		t.Errorf("client-key rotate: %+v", made)
	}
	answers(t, 200, base, token, header, made.Key)
	answers(t, 200, base, token, header, first)
	s.want(0, first[:10]+" +active until", "client-key", "list", tenant)
	s.want(3, "no client key", "client-key", "rotate", tenant, "vck_none")
	s.want(2, "overlap", "client-key", "rotate", tenant, made.Prefix, "--overlap=-1h")

	s.want(2, "never works again.*say --yes", "client-key", "revoke", tenant, first[:10])
	if out := s.want(0, first[:10]+" +revoked", "client-key", "revoke", tenant, first[:10], "--yes"); strings.Contains(out, first) {
		t.Error("a client key is shown again")
	}
	answers(t, 401, base, token, header, first)
	answers(t, 200, base, token, header, made.Key)
	s.want(2, "was revoked", "client-key", "rotate", tenant, first[:10])

	file := filepath.Join(t.TempDir(), "client.key")
	if err := os.WriteFile(file, []byte(made.Key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.with(token).want(0, "ok +client key", "auth", "explain", tenant, "--token", "-", "--client-key-file", file)
	s.with(token).want(5, "FAILED +client key +there is no client key", "auth", "explain", tenant, "--token", "-")
}

func domains(t *testing.T, s *shell, tenant, base string) {
	const host = "xn--bcher-kva.example"
	s.want(0, "domains +none", "tenant", "show", tenant)
	s.want(2, "not a host name", "domain", "add", tenant, "https://vss.example")
	s.want(0, `(?s)Claimed `+host+`.*_vss-cloud.`+host+`  TXT  "vss-cloud-domain=[0-9a-f]{32}"`, "domain", "add", tenant, "BÜCHER.example")
	s.want(0, host+` \(pending\)`, "tenant", "show", tenant)

	dns := newDNS(t)
	check := func(code int, match string, args ...string) {
		t.Helper()
		s.want(code, match, append([]string{"domain", "check", tenant, "--dns-server", dns.address}, args...)...)
	}
	s.want(1, "(?s)"+host+" +pending.*DNS did not answer, nothing was changed", "domain", "check", tenant, "--dns-server", "127.0.0.1:1")
	check(1, "(?s)"+host+" +pending.*the DNS record that proves the domain is not there: _vss-cloud."+host+" TXT")
	check(3, "no domain", "other.example")
	var list []domainView
	if err := json.Unmarshal([]byte(s.want(0, "", "domain", "list", tenant, "--json")), &list); err != nil || len(list) != 1 || list[0].CheckedAt == nil {
		t.Fatalf("domain list: %+v, %v", list, err)
	}
	dns.has(list[0].RecordName, list[0].RecordText)
	check(0, host+" +verified", "bücher.example")
	s.want(4, "belongs to another tenant", "domain", "add", "demo", host, "--vouch")
	dns.has(list[0].RecordName, "another record")
	check(1, "(?s)"+host+" +lost")

	s.want(0, "vss.acme.test +verified +vouched for", "domain", "add", tenant, "vss.acme.test", "--vouch")
	check(1, "(?s)vss.acme.test +verified.*"+host+" +lost")
	check(0, "vss.acme.test +verified", "vss.acme.test")
	s.want(2, "are refused.*say --yes", "domain", "remove", tenant, "vss.acme.test")
	s.want(0, "", "domain", "remove", tenant, "vss.acme.test", "--yes")
	s.want(3, "no domain", "domain", "remove", tenant, "vss.acme.test", "--yes")
	s.want(0, "^\\[\\]\n$", "domain", "list", "demo", "--json")
	s.want(0, "", "domain", "check", "demo")
}

// dnsServer answers with one TXT record, or that there is none.
type dnsServer struct {
	address string
	mu      sync.Mutex
	name    string
	text    string
}

func (d *dnsServer) has(name, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.name, d.text = name, text
}

func newDNS(t *testing.T) *dnsServer {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d := &dnsServer{address: conn.LocalAddr().String()}
	go func() {
		for b := make([]byte, 4096); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}, Questions: m.Questions}
			d.mu.Lock()
			if q := m.Questions[0]; q.Name.String() == d.name+"." && q.Type == dnsmessage.TypeTXT {
				answer.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class},
					Body:   &dnsmessage.TXTResource{TXT: []string{d.text}},
				}}
			} else {
				answer.RCode = dnsmessage.RCodeNameError
			}
			d.mu.Unlock()
			if packed, err := answer.Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	return d
}

func explainAndFailures(t *testing.T, s *shell, tenant, base string) {
	i := newIssuer(t, "k")
	s.with(i.jwks(t)).want(0, "", "source", "add", tenant, "app", "--kind", "jwt", "--issuer", "https://id.test", "--keys", "-")
	explain := func(code int, match, credential string, flags ...string) {
		t.Helper()
		args := append([]string{"auth", "explain", tenant, "--token", "-"}, flags...)
		got, stdout, stderr := s.with(credential).run(args...)
		if got != code || !regexp.MustCompile(match).MatchString(stdout+stderr) {
			t.Fatalf("exit code %d, want %d and a match of %q in\n%s%s", got, code, match, stdout, stderr)
		}
		for part := range strings.FieldsFuncSeq(credential, func(r rune) bool { return r == '.' || r == ' ' || r == '\n' || r == ':' }) {
			if len(part) > 15 && strings.Contains(stdout+stderr, part) {
				t.Errorf("a part of the credential is printed: %s%s", stdout, stderr)
			}
		}
	}
	good := i.token(t, map[string]any{"sub": "wallet of somebody", "iss": "https://id.test"})
	for _, credential := range []string{good, "Bearer " + good, "authorization: bearer " + good + "\n"} {
		explain(0, `(?s)ok +source +app \(jwt, namespace jwt:app\).*ok +exp.*ok +signature.*wallet [0-9a-f-]{36}\n$`, credential)
	}
	explain(0, `(?s)"ok": true,\s+"source": "app",\s+"wallet": "[0-9a-f-]{36}",\s+"checks": \[`, good, "--json")
	expired := i.token(t, map[string]any{"sub": "wallet of somebody", "iss": "https://id.test", "exp": 1e9})
	explain(5, `(?s)FAILED +exp +the token has expired.*ok +signature.*these credentials are refused`, expired)
	explain(5, `(?s)"ok": false.*"name": "exp",\s+"ok": false,\s+"reason": "the token has expired`, expired, "--json")
	explain(5, `FAILED +signature`, newIssuer(t, "k").token(t, map[string]any{"sub": "w", "iss": "https://id.test"}))
	explain(5, `no tokens of this issuer`, i.token(t, map[string]any{"sub": "w", "iss": "https://other.test"}))
	explain(5, `FAILED +form`, "not a credential of any kind, and long enough to be found")
	explain(2, "nothing on standard input", "\n")

	auth, err := client.NewSignatureAuth([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	signature := func(at time.Time) string {
		text, err := auth.Authorization(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	explain(0, `(?s)ok +form +a signature.*ok +time.*ok +signature`, signature(time.Now()))
	explain(5, `(?s)FAILED +time +.*is the device's clock right.*ok +signature`, signature(time.Now().Add(-48*time.Hour)))

	for _, args := range [][]string{{"--token", good}, {"--token=" + good}} {
		_, stdout, stderr := s.run(append([]string{"auth", "explain", tenant}, args...)...)
		if strings.Contains(stdout+stderr, good[:20]) || !strings.Contains(stderr, "--token -") {
			t.Errorf("a token among the arguments: %s%s", stdout, stderr)
		}
	}
	s.with(good).want(3, "no such tenant", "auth", "explain", "nobody", "--token", "-")

	s.want(0, `^\[\]\n$`, "auth", "failures", tenant, "--json") // explaining counts nothing
	answers(t, 401, base, expired)
	eventually(t, func() bool {
		_, out, _ := s.run("auth", "failures", tenant)
		return regexp.MustCompile(`(?m)^\S+ +[1-9][0-9]* +app +the token has expired`).MatchString(out)
	})
	s.want(3, "no such tenant", "auth", "failures", "nobody")
}

// logins is about the keys that the platform signs tokens with, and the master key. It restarts the platform.
func logins(t *testing.T, s *shell, p *platform) {
	keys := func(want int) {
		t.Helper()
		eventually(t, func() bool {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(p.base, "/vss")+callers.KeysPath, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var set struct{ Keys []any }
			return json.NewDecoder(resp.Body).Decode(&set) == nil && len(set.Keys) == want
		})
	}
	s.want(0, "acme", "tenant", "create", "acme")
	s.want(2, "give one of this tenant's own", "source", "add", "acme", "logins", "--kind", "lnurl")
	s.want(2, "neither this tenant's sub-domain nor a verified domain", "source", "add", "acme", "logins", "--kind", "lnurl", "--host", "vss.acme.test")
	s.want(0, "logins +lnurl +lnurl +on the host that tenants share, tokens live 1h0m0s, keys: 1", "source", "add", "acme", "logins", "--kind", "lnurl", "--allow-shared-host")
	s.want(0, "tokens live 5m0s", "source", "set", "acme", "logins", "--token-life", "5m")
	s.with(newIssuer(t, "k").jwks(t)).want(2, "not given by people", "key", "add", "acme", "logins", "-")

	keys(1)
	s.want(0, "(?s)active.*retired, verifies until", "key", "rotate", "demo", "lnurl")
	keys(2)
	s.want(2, "until it logs in again.*say --yes", "key", "rotate", "demo", "lnurl", "--revoke")
	s.want(0, "(?s)active.*revoked.*revoked", "key", "rotate", "demo", "lnurl", "--revoke", "--yes")
	keys(1)

	other := filepath.Join(t.TempDir(), "other.key")
	if _, err := masterkey.Create(other); err != nil {
		t.Fatal(err)
	}
	s.want(1, "is it the right one", "key", "rotate", "demo", "lnurl", "--master-key-file", other)
	nowhere := s.in(t)
	nowhere.env = append(slices.Clone(s.env), "VSS_DATA_DIR="+t.TempDir())
	nowhere.want(2, "--master-key-file", "key", "rotate-master", "begin")

	s.want(0, "Next: name it with --master-key-file", "key", "create-master", filepath.Join(t.TempDir(), "made.key"))
	s.want(1, "exists", "key", "create-master", other)

	begun := s.want(0, "Next: bring the file to every machine", "key", "rotate-master", "begin")
	id := regexp.MustCompile(`[0-9a-f]{16}`).FindString(begun)
	s.want(0, "active", "key", "rotate", "acme", "logins") // still sealed by the old one, which every instance has
	s.want(1, "comes first", "key", "rotate-master", "finish", id, "--yes")
	s.want(1, "another master key", "key", "rotate-master", "reseal", "0000000000000000")
	s.want(0, "(?s)[45] signing keys were not sealed.*Next: .*finish", "key", "rotate-master", "reseal", id)
	s.want(0, `"resealed": 0`, "key", "rotate-master", "reseal", id, "--json")
	s.want(2, "are removed from .*say --yes", "key", "rotate-master", "finish", id)
	s.want(0, "and no other", "key", "rotate-master", "finish", id, "--yes")
	p.stop(t, syscall.SIGTERM)
	*p = *s.dev() // which opens all keys before it serves
	keys(1)
	s.want(0, "active", "key", "rotate", "acme", "logins")
}
