package lnurl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// memory is a [Guard] that counts.
type memory struct {
	mu    sync.Mutex
	used  map[K1]time.Time
	asked int
	err   error
}

func (m *memory) Admit(context.Context, K1, string) error { return nil }

func (m *memory) Use(_ context.Context, k1 K1, _ string, expires time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if m.err != nil {
		return false, m.err
	}
	if _, ok := m.used[k1]; ok {
		return false, nil
	}
	if m.used == nil {
		m.used = map[K1]time.Time{}
	}
	m.used[k1] = expires
	return true, nil
}

func (m *memory) count() (asked, used int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked, len(m.used)
}

// platform is a handler with what it works on. There are two tenants: acme at host, globex at globex.example.com.
type platform struct {
	clock
	memory
	handler    http.Handler
	challenges *Challenger
	key        *SigningKey

	mu       sync.Mutex
	outcomes []Outcome
}

const path = "/lnurl-auth"

func newPlatform(t *testing.T) *platform {
	t.Helper()
	p := &platform{key: NewSigningKey()}
	p.challenges = newChallenger(t, p.now, 7)
	p.handler = Handler(Config{Site: p.site, Challenges: p.challenges, Report: p.report})
	return p
}

var errUnknownHost = &Error{Reason: "no tenant has this host"}

func (p *platform) site(r *http.Request) (*Site, error) {
	site := &Site{Tenant: acme, Scheme: "https", Host: host, Path: path, Key: p.key, Issuer: "https://" + host, Guard: &p.memory}
	switch r.Host {
	case host:
	case "globex.example.com":
		site.Tenant, site.Host = globex, r.Host
	case "shared.example.com": // of acme, which a tenant of its own name has in development
		site.Host = r.Host
		if r.URL.Path == "/t/globex" {
			site.Tenant = globex
		}
	default:
		return nil, fmt.Errorf("looked for it: %w", errUnknownHost)
	}
	return site, nil
}

func (p *platform) report(_ *http.Request, o Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outcomes = append(p.outcomes, o)
}

// reported takes what was reported since it was last asked.
func (p *platform) reported() []Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.outcomes = nil }()
	return p.outcomes
}

// get is a request straight to the handler.
func (p *platform) get(target string) *httptest.ResponseRecorder {
	return serve(p.handler, http.MethodGet, target)
}

func serve(h http.Handler, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

// begin is the URL with a challenge that the auth URL at the host answers.
func (p *platform) begin(t *testing.T, host string) string {
	t.Helper()
	w := p.get("https://" + host + path)
	wantAnswer(t, w, http.StatusOK, "text/plain; charset=utf-8")
	return w.Body.String()
}

// signed adds what a wallet with the private key n adds.
func signed(t *testing.T, lnurl string, n byte) string {
	t.Helper()
	s, _, err := signWithURL(lnurl, signer(private(n)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func private(n byte) *secp256k1.PrivateKey { return secp256k1.PrivKeyFromBytes([]byte{n}) }

// wantAnswer checks what all answers have in common.
func wantAnswer(t *testing.T, w *httptest.ResponseRecorder, status int, contentType string) {
	t.Helper()
	h := w.Header()
	if w.Code != status || h.Get("Content-Type") != contentType {
		t.Errorf("got %d %s %q, want %d %s", w.Code, h.Get("Content-Type"), w.Body, status, contentType)
	}
	if h.Get("Cache-Control") != "no-store" || h.Get("Location") != "" || h.Get("Content-Length") != fmt.Sprint(w.Body.Len()) {
		t.Errorf("headers %v", h)
	}
}

// wantReason: the answer is the error, with nothing else in it.
func wantReason(t *testing.T, w *httptest.ResponseRecorder, status int, reason string) {
	t.Helper()
	wantAnswer(t, w, status, "application/json")
	want, err := json.Marshal(map[string]string{"status": "ERROR", "reason": reason})
	if err != nil {
		t.Fatal(err)
	}
	wantSameJSON(t, w.Body.String(), string(want))
}

func wantSameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w map[string]any
	if err := errors.Join(json.Unmarshal([]byte(got), &g), json.Unmarshal([]byte(want), &w)); err != nil || !maps.Equal(g, w) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// wantToken is the subject of the token in the answer.
func (p *platform) wantToken(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	wantAnswer(t, w, http.StatusOK, "application/json")
	var answer map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	token := answer["token"]
	wantSameJSON(t, w.Body.String(), `{"status":"OK","token":"`+token+`"}`)
	subject, ok := verified(t, JWKS(p.key.Public()), token)["sub"].(string)
	if !ok {
		t.Errorf("%s has no subject", token)
	}
	return subject
}

// overTLS serves the platform as it is behind its proxy, and gives what calls it as wallets do.
func (p *platform) overTLS(t *testing.T, see func(*http.Request)) *http.Client {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		see(r)
		p.handler.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of connections that Close cuts
	s.StartTLS()
	t.Cleanup(s.Close)
	c := s.Client()
	c.CheckRedirect = func(r *http.Request, _ []*http.Request) error { return fmt.Errorf("redirected to %s", r.URL) }
	return c
}

func TestEveryReleasedClientLogsIn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	headers := map[string]string{"X-App": "wallet", "Authorization": "Bearer of.another.scheme", "Accept": "text/html"}
	calls := make(chan string, 100)
	c := p.overTLS(t, func(r *http.Request) { calls <- r.Header.Get("X-App") })
	for _, release := range clients {
		t.Run(release.name, func(t *testing.T) {
			w := wallet{client: release, http: c, key: private(1), headers: headers}
			token, expires, domain, err := w.fetchToken("https://" + host + path)
			if err != nil {
				t.Fatal(err)
			}
			if domain != host {
				t.Errorf("the key is derived from %q", domain)
			}
			if want := p.now().Add(time.Hour); !expires.Equal(want) {
				t.Errorf("expires %v, want %v", expires, want)
			}
			wantClaims(t, verified(t, JWKS(p.key.Public()), token), map[string]any{
				"iss": "https://" + host, "sub": keyOne, "iat": p.now().Unix(), "exp": expires.Unix(),
			})
			if len(calls) != 2 || <-calls != "wallet" || <-calls != "wallet" {
				t.Error("the calls were not two with the fixed headers")
			}
			want := []Outcome{{}, {Subject: keyOne}}
			if got := p.reported(); !slices.Equal(got, want) {
				t.Errorf("reported %+v, want %+v", got, want)
			}
		})
	}
}

func TestFirstRequestsOfOneWalletRaceAndAllLogIn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	c := p.overTLS(t, func(*http.Request) {})
	var wg sync.WaitGroup
	const each = 10
	for _, release := range clients {
		for range each {
			wg.Go(func() {
				w := wallet{client: release, http: c, key: private(1)}
				if _, _, _, err := w.fetchToken("https://" + host + path); err != nil {
					t.Errorf("%s: %v", release.name, err)
				}
			})
		}
	}
	wg.Wait()
	if asked, used := p.count(); asked != each*len(clients) || used != asked {
		t.Errorf("%d challenges used, %d asked for", used, asked)
	}
}

func TestEveryReleasedClientReportsTheReason(t *testing.T) {
	t.Parallel()
	for _, release := range clients {
		t.Run(release.name, func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t)
			c := p.overTLS(t, func(*http.Request) {})
			report := func(authURL string, between func()) string {
				w := wallet{client: release, http: c, key: private(1), between: between}
				_, _, _, err := w.fetchToken(authURL)
				return fmt.Sprint(err)
			}
			authURL := "https://" + host + path
			if got, want := report(authURL, func() { p.move(time.Hour) }), "LNURL Auth failed, reason is: "+reasonExpired; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got := report("https://nobody.example.com"+path, nil); !strings.Contains(got, errUnknownHost.Reason) {
				t.Errorf("got %q", got)
			}
			p.err = errors.New("no database") // of nobody else by now
			if got, want := report(authURL, nil), "LNURL Auth failed, reason is: "+reasonOurFault; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestAnAnonymousGetWritesNothing(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	for range 100 {
		p.begin(t, host)
	}
	if asked, _ := p.count(); asked != 0 {
		t.Errorf("asked %d times", asked)
	}
}

func TestAChallengeIsUsedOnce(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	begun := p.begin(t, host)
	login := signed(t, begun, 1)
	if subject := p.wantToken(t, p.get(login)); subject != keyOne {
		t.Errorf("subject %q", subject)
	}
	for _, again := range []string{
		login,
		signed(t, begun, 2), // another wallet, which has seen it
		strings.Replace(login, query(t, login).Get("k1"), strings.ToUpper(query(t, login).Get("k1")), 1),
	} {
		wantReason(t, p.get(again), http.StatusOK, reasonUsed)
	}
	want := []Outcome{{}, {Subject: keyOne}, {Subject: keyOne}, {Subject: keyTwo}, {Subject: keyOne}}
	got := p.reported()
	for i, o := range got {
		if i >= 2 {
			wantRefusal(t, o.Err, reasonUsed)
		}
		got[i].Err = nil
	}
	if !slices.Equal(got, want) {
		t.Errorf("reported %+v, want %+v", got, want)
	}
	// It is remembered until it expires, and has no use after that.
	k1 := mustK1(t, query(t, login).Get("k1"))
	if want := p.now().Add(DefaultChallengeLife); !p.used[k1].Equal(want) {
		t.Errorf("remembered until %v, want %v", p.used[k1], want)
	}
	p.move(DefaultChallengeLife)
	wantReason(t, p.get(login), http.StatusOK, reasonExpired)
}

func query(t *testing.T, u string) url.Values {
	t.Helper()
	parsed, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Query()
}

func TestOfManyReplaysAtOnceOneGetsAToken(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	login := signed(t, p.begin(t, host), 1)
	answers := make([]*httptest.ResponseRecorder, 32)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = p.get(login) })
	}
	wg.Wait()
	tokens := 0
	for _, a := range answers {
		if strings.Contains(a.Body.String(), "token") {
			tokens++
			p.wantToken(t, a)
		} else {
			wantReason(t, a, http.StatusOK, reasonUsed)
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens", tokens)
	}
}

func TestARefusedLoginWritesNothing(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		name   string
		login  func(t *testing.T, p *platform) string
		reason string
	}{
		{"another tenant's", func(t *testing.T, p *platform) string {
			return signed(t, strings.Replace(p.begin(t, "globex.example.com"), "globex.example.com", host, 1), 1)
		}, reasonForeign},
		{"another tenant's of the same host", func(t *testing.T, p *platform) string {
			return signed(t, strings.Replace(p.begin(t, "shared.example.com"), path, "/t/globex", 1), 1)
		}, reasonForeign},
		{"the same tenant's of another host", func(t *testing.T, p *platform) string {
			return signed(t, strings.Replace(p.begin(t, "shared.example.com"), "shared.example.com", host, 1), 1)
		}, reasonForeign},
		{"another time's", func(t *testing.T, p *platform) string {
			login := signed(t, p.begin(t, host), 1)
			p.move(DefaultChallengeLife)
			return login
		}, reasonExpired},
		{"one prolonged", func(t *testing.T, p *platform) string {
			begun := p.begin(t, host)
			k1 := query(t, begun).Get("k1")
			return signed(t, strings.Replace(begun, k1, "7"+k1[1:], 1), 1)
		}, reasonForeign},
		{"a random one", func(t *testing.T, _ *platform) string {
			return signed(t, "https://"+host+path+"?k1="+clientK1, 1)
		}, reasonForeign},
		{"vss-client's golden login", func(*testing.T, *platform) string {
			return "https://" + host + path + "?tag=login&k1=" + clientK1 + "&sig=" + clientSig + "&key=" + clientKey
		}, reasonForeign},
		{"a signature of another challenge", func(t *testing.T, p *platform) string {
			return strings.Replace(signed(t, p.begin(t, host), 1), "&sig=", "&sig="+sigOne+"&notsig=", 1)
		}, reasonMismatch},
		{"another wallet's key", func(t *testing.T, p *platform) string {
			return strings.Replace(signed(t, p.begin(t, host), 1), keyOne, keyTwo, 1)
		}, reasonMismatch},
		{"malformed DER", func(t *testing.T, p *platform) string {
			return strings.Replace(signed(t, p.begin(t, host), 1), "&sig=30", "&sig=31", 1)
		}, reasonSigDER},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t)
			login := v.login(t, p)
			p.reported()
			wantReason(t, p.get(login), http.StatusOK, v.reason)
			if asked, _ := p.count(); asked != 0 {
				t.Error("it was asked whether the challenge was used")
			}
			got := p.reported()
			if len(got) != 1 || got[0].Subject != "" {
				t.Fatalf("reported %+v", got)
			}
			wantRefusal(t, got[0].Err, v.reason)
		})
	}
}

func TestTheURLIsTheSitesWhateverWasCalled(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.handler = Handler(Config{Challenges: p.challenges, Site: func(*http.Request) (*Site, error) {
		return &Site{Tenant: acme, Scheme: "https", Host: host, Path: "/a/b%20c", Key: p.key}, nil
	}})
	want := "https://" + host + "/a/b%20c?tag=login&k1="
	for _, called := range []string{
		"http://" + host + path, "https://AUTH.example.com:443/other", "https://127.0.0.1/?tag=login&action=login",
		"https://x/?app=1&token=2&K1=3&Sig=4", "https://x/?" + strings.Repeat("a", maxQuery),
	} {
		w := p.get(called)
		wantAnswer(t, w, http.StatusOK, "text/plain; charset=utf-8")
		k1, ok := strings.CutPrefix(w.Body.String(), want)
		if !ok || len(k1) != 64 || k1 != strings.ToLower(k1) {
			t.Fatalf("%s is answered %q", called, w.Body)
		}
		if _, err := p.challenges.Check(mustK1(t, k1), acme, host); err != nil {
			t.Error(err)
		}
	}
}

func TestQueriesThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	login := signed(t, p.begin(t, host), 1)
	q := query(t, login)
	k1, sig, key := "k1="+q.Get("k1"), "sig="+q.Get("sig"), "key="+q.Get("key")
	for _, v := range []struct{ name, query, reason string }{
		{"no k1", sig + "&" + key, "k1 is missing"},
		{"no sig", k1 + "&" + key, "sig is missing"},
		{"no key", k1 + "&" + sig, "key is missing"},
		{"k1 alone", "tag=login&" + k1, "sig is missing"},
		{"sig alone", sig, "k1 is missing"},
		{"key alone", key, "k1 is missing"},
		{"k1 without a value", "k1", "sig is missing"},
		{"two k1", k1 + "&" + k1 + "&" + sig + "&" + key, "k1 is there more than once"},
		{"two sig", k1 + "&" + sig + "&" + key + "&sig=", "sig is there more than once"},
		{"two key", k1 + "&" + sig + "&" + key + "&key=" + keyTwo, "key is there more than once"},
		{"two, one spelled otherwise", "%6b1=00&" + k1 + "&" + sig + "&" + key, "k1 is there more than once"},
		{"an empty k1", "k1=&" + sig + "&" + key, reasonK1},
		{"k1 of 31 bytes", "k1=" + q.Get("k1")[2:] + "&" + sig + "&" + key, reasonK1},
		{"k1 of 33 bytes", k1 + "00&" + sig + "&" + key, reasonK1},
		{"k1 that is not hex", "k1=g" + q.Get("k1")[1:] + "&" + sig + "&" + key, reasonK1},
		{"an empty sig", k1 + "&sig=&" + key, reasonSigDER},
		{"sig that is not hex", k1 + "&sig=<script>&" + key, reasonSigHex},
		{"an empty key", k1 + "&" + sig + "&key=", reasonKeyHex},
		{"another case of the names", "K1=00&" + sig + "&" + key, "k1 is missing"},
		{"a semicolon", k1 + ";" + sig + ";" + key, reasonQuery},
		{"half an escape", k1 + "&" + sig + "&" + key + "&x=%4", reasonQuery},
		{"no escape", "k1=%zz", reasonQuery},
		{"a byte too long", k1 + "&" + sig + "&" + key + "&" + strings.Repeat("x", maxQuery-len(k1+sig+key)-2), reasonLong},
		{"1 MiB", strings.Repeat("&k1", 1<<20/3), reasonLong},
	} {
		t.Run(v.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "https://"+host+path, nil)
			r.URL.RawQuery = v.query
			w := httptest.NewRecorder()
			p.handler.ServeHTTP(w, r)
			wantReason(t, w, http.StatusOK, v.reason)
		})
	}
	if asked, _ := p.count(); asked != 0 {
		t.Error("it was asked whether the challenge was used")
	}
	// All the while it was a good one: in another order, escaped, with more beside it, to the last byte.
	escaped := strings.ReplaceAll(strings.ReplaceAll(key+"&"+sig+"&x&"+k1, "0", "%30"), "e", "%65")
	good := escaped + "&" + strings.Repeat("x", maxQuery-len(escaped)-1)
	p.wantToken(t, p.get("https://"+host+path+"?"+good))
}

func TestOtherMethodsAreRefusedAndNeverSucceed(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	login := signed(t, p.begin(t, host), 1)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"} {
		w := serve(p.handler, method, login)
		wantReason(t, w, http.StatusMethodNotAllowed, reasonMethod)
		if w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: headers %v", method, w.Header())
		}
	}
	// A link preview does not use up a login either.
	wantAnswer(t, serve(p.handler, http.MethodHead, login), http.StatusOK, "text/plain; charset=utf-8")
	if asked, _ := p.count(); asked != 0 {
		t.Error("it was asked whether the challenge was used")
	}
	p.wantToken(t, p.get(login))
}

func TestHeadHasNoBody(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	c := p.overTLS(t, func(*http.Request) {})
	resp, err := c.Head("https://" + host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if want := len("https://"+host+path+"?tag=login&k1=") + 64; err != nil || len(body) != 0 || resp.ContentLength != int64(want) {
		t.Errorf("got %q of %d, %v; want 0 of %d", body, resp.ContentLength, err, want)
	}
}

func TestAFaultOfOursIsNotToldToTheWallet(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	fault := errors.New("SELECT secret FROM used")
	p.err = fault
	login := signed(t, p.begin(t, host), 1)
	wantFault := func(w *httptest.ResponseRecorder, subject string, cause error) {
		t.Helper()
		wantReason(t, w, http.StatusServiceUnavailable, reasonOurFault)
		if w.Header().Get("Retry-After") == "" {
			t.Errorf("headers %v", w.Header())
		}
		got := p.reported()
		if o := got[len(got)-1]; !errors.Is(o.Err, cause) || o.Subject != subject {
			t.Errorf("reported %+v", o)
		}
	}
	wantFault(p.get(login), keyOne, fault)

	// A login that came to nothing was not used up.
	p.err = nil
	p.wantToken(t, p.get(login))

	login = signed(t, p.begin(t, host), 1)
	p.handler = Handler(Config{Challenges: p.challenges, Report: p.report,
		Site: func(*http.Request) (*Site, error) { return nil, fault }})
	wantFault(p.get(login), "", fault)
	p.handler = Handler(Config{Challenges: p.challenges, Report: p.report,
		Site: func(*http.Request) (*Site, error) {
			return &Site{Tenant: acme, Scheme: "https", Host: host, Path: path}, nil
		}})
	wantFault(p.get(login), "", errNoKey)
}

// stuck is a [Guard] that answers nobody.
type stuck struct{}

func (stuck) Admit(context.Context, K1, string) error { return nil }

func (stuck) Use(ctx context.Context, _ K1, _ string, _ time.Time) (bool, error) {
	<-ctx.Done()
	return true, ctx.Err()
}

func TestAStuckStoreIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	login := signed(t, p.begin(t, host), 1)
	site := func(r *http.Request) (*Site, error) {
		s, err := p.site(r)
		s.Guard = stuck{}
		return s, err
	}
	h := Handler(Config{Challenges: p.challenges, Site: site, Report: p.report, Timeout: time.Millisecond})
	wantReason(t, serve(h, http.MethodGet, login), http.StatusServiceUnavailable, reasonOurFault)
	got := p.reported()
	if o := got[len(got)-1]; !errors.Is(o.Err, context.DeadlineExceeded) {
		t.Errorf("reported %+v", o)
	}
}

func TestSitesThatClientsWouldReadDifferently(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		scheme, host, path string
		good               bool
	}{
		{"https", host, path, true},
		{"https", "xn--bcher-kva.example", "/", true},
		{"https", "auth.example.com:8443", path, true},
		{"http", "localhost:8080", "/t/demo/lnurl-auth", true},
		{"http", "127.0.0.1:8080", path, true}, // for vss-client 0.6 alone
		{"http", "[::1]:8080", path, true},
		{"https", host, "/a%20b", true},

		{"", host, path, false},
		{"HTTPS", host, path, false},
		{"ftp", host, path, false},
		{"https", "", path, false},
		{"https", ":443", path, false},
		{"https", "Auth.example.com", path, false},
		{"https", "auth.example.com.", path, false},
		{"https", "auth.example.com.:443", path, false},
		{"https", "bücher.example", path, false},
		{"https", "auth.example.com:port", path, false},
		{"https", "user@auth.example.com", path, false},
		{"https", "auth.example.com/x", path, false},
		{"https", "auth_1.example.com", path, false},
		{"https", "auth.example.com ", path, false},
		{"https", "%61uth.example.com", path, false},
		{"https", host, "", false},
		{"https", host, "lnurl-auth", false},
		{"https", host, "/a?b", false},
		{"https", host, "/a#b", false},
		{"https", host, "/a b", false},
		{"https", host, "/ä", false},
		{"https", host, "/a%", false},
		{"https", host, "/a\n", false},
	} {
		p := newPlatform(t)
		p.handler = Handler(Config{Challenges: p.challenges, Report: p.report,
			Site: func(*http.Request) (*Site, error) {
				return &Site{Tenant: acme, Scheme: v.scheme, Host: v.host, Path: v.path, Key: p.key}, nil
			}})
		w := p.get("https://" + host + path)
		if !v.good {
			wantReason(t, w, http.StatusServiceUnavailable, reasonOurFault)
			continue
		}
		wantAnswer(t, w, http.StatusOK, "text/plain; charset=utf-8")
		for _, c := range clients {
			domain, _, _ := strings.Cut(v.host, ":")
			_, got, err := c.sign(w.Body.String(), signer(private(1)))
			if isName := v.host[0] >= 'a'; isName && (err != nil || got != domain) {
				t.Errorf("%s derives its key from %q, %v; want %q", c.name, got, err, domain)
			}
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Fuzz(func(t *testing.T, query string) {
		l, err := parseQuery(query)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok || l != nil {
				t.Errorf("got %v, %v", l, err)
			}
			return
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("taken, though %v", err)
		}
		if l == nil {
			if values.Has("k1") || values.Has("sig") || values.Has("key") {
				t.Error("a login was taken for a request of a challenge")
			}
			return
		}
		for name, want := range map[string]string{"k1": l.k1.String(), "sig": l.sig, "key": l.key} {
			got := values[name]
			if name == "k1" && len(got) == 1 {
				got[0] = strings.ToLower(got[0])
			}
			if !slices.Equal(got, []string{want}) {
				t.Errorf("%s is %q, was read as %q", name, got, want)
			}
		}
	})
}
