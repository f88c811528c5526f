package client_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
)

func TestABearerTokenIsSentAndAskedForAtEachAttempt(t *testing.T) {
	s := serve(t, busy, value)
	n := 0
	c := clientOf(t, s, func(cfg *client.Config) {
		cfg.Auth = client.BearerFunc(func(context.Context) (string, error) { n++; return fmt.Sprint("t", n), nil })
	})
	if _, err := c.GetObject(t.Context(), get); err != nil {
		t.Fatal(err)
	}
	for i, r := range s.seen() {
		if got, want := r.header.Get("Authorization"), fmt.Sprint("Bearer t", i+1); got != want {
			t.Errorf("attempt %d sent %q, want %q", i+1, got, want)
		}
	}
}

func TestATokenThatHTTPCannotCarryIsNoCredential(t *testing.T) {
	s := serve(t, value)
	for _, bad := range []string{"", "secret\n", "Bearer secret", "sécret"} {
		c := clientOf(t, s, func(cfg *client.Config) { cfg.Auth, cfg.Retry.FailFast = client.Bearer(bad), true })
		_, err := c.GetObject(t.Context(), get)
		if !errors.Is(err, client.ErrAuth) || strings.Contains(err.Error(), "cret") {
			t.Errorf("%q: %v, want ErrAuth that does not show the token", bad, err)
		}
	}
	if n := len(s.seen()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func unknownTenant(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vss-Error-Reason", "unknown_tenant")
	failure(403, vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION)(w, r)
}

func TestFailFastEndsWhatNoRetryMends(t *testing.T) {
	blocked := failure(403, vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION)
	noToken := client.BearerFunc(func(context.Context) (string, error) { return "", errors.New("none") })
	for _, tc := range []struct {
		name     string
		answer   http.HandlerFunc
		auth     client.Auth
		want     error
		attempts map[bool]int // by FailFast
	}{
		{"AUTH", failure(401, vsspb.ErrorCode_AUTH_EXCEPTION), nil, client.ErrAuth, map[bool]int{false: 14, true: 1}},
		{"an unknown tenant", unknownTenant, nil, client.ErrUnknownTenant, map[bool]int{false: 14, true: 1}},
		{"no credential", value, noToken, client.ErrAuth, map[bool]int{false: 0, true: 0}},
		{"a block", blocked, nil, client.ErrInternalServer, map[bool]int{false: 14, true: 14}},
		{"a server that is busy", busy, nil, client.ErrInternalServer, map[bool]int{false: 14, true: 14}},
	} {
		for _, fast := range []bool{false, true} {
			s := serve(t, tc.answer)
			slept := 0
			c := clientOf(t, s, func(cfg *client.Config) {
				cfg.Auth, cfg.Retry.FailFast = tc.auth, fast
				cfg.Sleep = func(context.Context, time.Duration) error { slept++; return nil }
			})
			_, err := c.GetObject(t.Context(), get)
			if !errors.Is(err, tc.want) || len(s.seen()) != tc.attempts[fast] || fast && tc.attempts[true] < 2 && slept != 0 {
				t.Errorf("%s, FailFast %t: %v after %d requests and %d waits, want %v after %d", tc.name, fast, err, len(s.seen()), slept, tc.want, tc.attempts[fast])
			}
			if errors.Is(err, client.ErrUnknownTenant) != (tc.want == client.ErrUnknownTenant) {
				t.Errorf("%s: %v is taken for an unknown tenant", tc.name, err)
			}
		}
	}
}

// site is a server that wallets log in at, as the contract has it. It verifies what they send.
type site struct {
	*httptest.Server
	life time.Duration
	now  func() time.Time

	mu         sync.Mutex
	challenges map[string]bool
	logins     []string // the keys
	answer     http.HandlerFunc
}

func login(t *testing.T) *site {
	t.Helper()
	s := &site{challenges: map[string]bool{}, life: time.Hour, now: time.Now}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.URL.Query()
	switch {
	case s.answer != nil:
		s.answer(w, r)
		return
	case r.Header.Get("X-Fixed") != "yes":
		fmt.Fprint(w, `{"status":"ERROR","reason":"the fixed header is missing"}`)
		return
	case q.Get("k1") == "":
		k1 := fmt.Sprintf("%064x", len(s.challenges)+1)
		s.challenges[k1] = true
		fmt.Fprintf(w, "http://LocalHost:%s/lnurl/auth?tag=login&k1=%s\n", s.URL[strings.LastIndex(s.URL, ":")+1:], k1)
		return
	}
	k1, _ := hex.DecodeString(q.Get("k1"))
	der, _ := hex.DecodeString(q.Get("sig"))
	public, _ := hex.DecodeString(q.Get("key"))
	key, err1 := secp256k1.ParsePubKey(public)
	sig, err2 := ecdsa.ParseDERSignature(der)
	if err1 != nil || err2 != nil || !s.challenges[q.Get("k1")] || !sig.Verify(k1, key) || q.Get("tag") != "login" {
		fmt.Fprint(w, `{"status":"ERROR","reason":"bad login"}`)
		return
	}
	delete(s.challenges, q.Get("k1"))
	s.challenges["used "+q.Get("k1")] = true
	s.logins = append(s.logins, q.Get("key"))
	claims := fmt.Sprintf(`{"sub":%q,"exp":%d}`, q.Get("key"), s.now().Add(s.life).Unix())
	fmt.Fprintf(w, `{"status":"OK","token":"e30.%s.%d"}`, base64.RawURLEncoding.EncodeToString([]byte(claims)), 1000+len(s.logins))
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.logins)
}

func (s *site) auth(t *testing.T, change func(*client.LNURLConfig)) *client.LNURLAuth {
	t.Helper()
	cfg := client.LNURLConfig{
		URL: s.URL + "/lnurl/auth", Header: http.Header{"X-Fixed": {"yes"}},
		Key: client.FixedLinkingKey(secret(t, func(int) byte { return 7 })),
	}
	if change != nil {
		change(&cfg)
	}
	a, err := client.NewLNURLAuth(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.CloseIdleConnections)
	return a
}

func TestAWalletLogsInOnceAndAgain60SecondsBeforeTheEnd(t *testing.T) {
	s := login(t)
	now := time.Unix(1_700_000_000, 0)
	s.now = func() time.Time { return now }
	a := s.auth(t, nil)
	for _, step := range []struct {
		after  time.Duration
		logins int
	}{{0, 1}, {time.Hour - 61*time.Second, 1}, {time.Second, 2}, {time.Second, 2}} {
		now = now.Add(step.after)
		got, err := a.Authorization(t.Context(), now)
		if want := fmt.Sprint(".", 1000+step.logins); err != nil || s.count() != step.logins || !strings.HasPrefix(got, "Bearer ") || !strings.HasSuffix(got, want) {
			t.Errorf("%v later: %q, %v after %d logins, want %d", step.after, got, err, s.count(), step.logins)
		}
	}
}

func TestCallsAtTheSameTimeShareOneLogin(t *testing.T) {
	s := login(t)
	c := clientOf(t, serve(t, value), func(cfg *client.Config) { cfg.Auth = s.auth(t, nil) })
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			if _, err := c.GetObject(t.Context(), get); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if n := s.count(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

func TestTheLinkingKeyIsThatOfTheChallengesHost(t *testing.T) {
	s := login(t)
	var hosts []string
	a := s.auth(t, func(cfg *client.LNURLConfig) {
		cfg.Key = func(host string) ([32]byte, error) {
			hosts = append(hosts, host)
			return client.LUD05(make([]byte, 32))(host)
		}
	})
	if _, err := a.Authorization(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if len(hosts) != 1 || hosts[0] != "localhost" { // and not the address that was asked, nor LocalHost
		t.Errorf("keys of %q were asked for", hosts)
	}
}

func TestALoginThatFailsSaysWhy(t *testing.T) {
	text := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); fmt.Fprint(w, body) }
	}
	const challenge = "http://h.example/?tag=login&k1="
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"the tenant has none":   {text(200, `{"status":"ERROR","reason":"this tenant has no LNURL-auth"}`), "refused: this tenant has no LNURL-auth"},
		"a fault with a reason": {text(503, `{"status":"ERROR","reason":"try later"}`), "refused: try later"},
		"a page":                {text(200, "<html>hello</html>"), "does not answer with a challenge"},
		"another status":        {text(404, "nothing here"), "HTTP 404"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, "HTTP 302"},
		"no k1":                  {text(200, challenge), "no k1"},
		"a short k1":             {text(200, challenge+"00"), "no k1"},
		"an answer without end":  {text(200, strings.Repeat("x", 70<<10)), "no answer that a login has"},
		"neither token nor word": {func(w http.ResponseWriter, r *http.Request) { answerLogin(w, r, `{"status":"OK"}`) }, "neither a token nor a reason"},
		"a token that is none":   {func(w http.ResponseWriter, r *http.Request) { answerLogin(w, r, `{"token":"secret"}`) }, "no JWT"},
	} {
		t.Run(name, func(t *testing.T) {
			s := login(t)
			s.answer = tc.answer
			c := clientOf(t, serve(t, value), func(cfg *client.Config) { cfg.Auth, cfg.Retry.FailFast = s.auth(t, nil), true })
			_, err := c.GetObject(t.Context(), get)
			if !errors.Is(err, client.ErrAuth) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v, want ErrAuth with %q", err, tc.want)
			}
		})
	}
}

// answerLogin gives a challenge of this host, and answers it so.
func answerLogin(w http.ResponseWriter, r *http.Request, body string) {
	if r.URL.Query().Get("k1") == "" {
		body = fmt.Sprintf("http://%s/?tag=login&k1=%064x", r.Host, 5)
	}
	fmt.Fprint(w, body)
}

func TestALoginEndsWithItsContextAndHoldsUpNobody(t *testing.T) {
	s := login(t)
	a := s.auth(t, nil)
	s.answer = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := a.Authorization(ctx, time.Now())
			failed <- err
		}()
	}
	cancel()
	for range 2 {
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want canceled", err)
		}
	}
	s.mu.Lock()
	s.answer = nil
	s.mu.Unlock()
	if _, err := a.Authorization(t.Context(), time.Now()); err != nil {
		t.Errorf("the login after: %v", err)
	}
}

func TestASecureLoginDoesNotGoOnInTheOpen(t *testing.T) {
	var signed bool
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "http://%s/?tag=login&k1=%064x", r.Host, 5)
	}))
	t.Cleanup(s.Close)
	a, err := client.NewLNURLAuth(client.LNURLConfig{
		URL: s.URL, HTTPClient: s.Client(),
		Key: func(string) ([32]byte, error) { signed = true; return [32]byte{31: 1}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authorization(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "not https") || signed {
		t.Errorf("%v, signed: %t", err, signed)
	}
}

func TestAnLNURLAuthThatCannotWorkIsRefused(t *testing.T) {
	key := client.FixedLinkingKey([32]byte{31: 1})
	for _, cfg := range []client.LNURLConfig{{URL: "", Key: key}, {URL: "lnurl1xyz", Key: key}, {URL: "http://user:word@ho st/", Key: key}, {URL: "https://h.example/"}} {
		if _, err := client.NewLNURLAuth(cfg); err == nil || strings.Contains(err.Error(), "word") {
			t.Errorf("%q: %v", cfg.URL, err)
		}
	}
}

func TestPrintingACredentialDoesNotShowIt(t *testing.T) {
	s := login(t)
	a := s.auth(t, nil)
	if _, err := a.Authorization(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for want, auth := range map[string]client.Auth{
			"bearer token": client.Bearer("secret"), "LNURL-auth at " + strings.TrimPrefix(s.URL, "http://"): a,
		} {
			if got := fmt.Sprintf(format, auth); got != want {
				t.Errorf("%s prints %s, want %s", format, got, want)
			}
		}
	}
}
