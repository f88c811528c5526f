package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/storage"
)

func TestARequestIsOneLineOfTheLog(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	tenant, err := p.service.Get(t.Context(), "acme")
	check(t, err)
	ks, err := storage.NewKeyspace(storage.Owner{Tenant: tenant.ID, Namespace: "sig", Subject: w.auth.Subject()}, "s")
	check(t, err)
	me := ks.Wallet().String()

	noCredential := w.request(t, "getObject", nil)
	noCredential.Header.Del("Authorization")
	nowhere := w.request(t, "nothing", []byte("body"))
	body := encode(t, calls[1].body)
	for _, tc := range []struct {
		name string
		a    *answer
		want map[string]any
	}{
		{"put", w.call(t, "putObjects", calls[1].body), map[string]any{
			"level": "INFO", "tenant": "acme", "call": "putObjects", "wallet": me, "status": 200.0, "outcome": "ok",
			"received": float64(len(body)), "sent": 0.0}},
		{"get", w.get(t, "k"), map[string]any{
			"level": "INFO", "tenant": "acme", "call": "getObject", "wallet": me, "status": 200.0, "outcome": "ok",
			"received": 6.0, "sent": 10.0}},
		{"absent", w.get(t, "absent"), map[string]any{
			"level": "INFO", "tenant": "acme", "call": "getObject", "wallet": me, "status": 404.0, "outcome": "NO_SUCH_KEY_EXCEPTION",
			"received": 11.0, "sent": 15.0}},
		{"no credential", p.do(t, noCredential), map[string]any{
			"level": "INFO", "tenant": "acme", "call": "getObject", "wallet": "", "status": 401.0, "outcome": "AUTH_EXCEPTION", "received": 0.0,
			"refusal": "there is no Authorization header"}},
		{"unknown tenant", p.wallet(t, "nobody", 1).get(t, "k"), map[string]any{
			"level": "INFO", "tenant": "", "call": "getObject", "wallet": "", "status": 403.0, "outcome": "INTERNAL_SERVER_EXCEPTION"}},
		{"unknown path", p.do(t, nowhere), map[string]any{
			"level": "INFO", "tenant": "", "call": "", "wallet": "", "status": 404.0, "outcome": "INVALID_REQUEST_EXCEPTION"}},
		{"health", p.health(t, "/livez"), map[string]any{
			"level": "DEBUG", "tenant": "", "call": "", "wallet": "", "status": 200.0, "outcome": "ok", "sent": 3.0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			line := p.log.of(t, tc.a)
			for field, want := range tc.want {
				if got := line[field]; got != want {
					t.Errorf("%s is %v, want %v", field, got, want)
				}
			}
			if line["request"] != tc.a.header.Get("X-Request-Id") || line["client"] != "127.0.0.1" || line["msg"] != "request" {
				t.Errorf("line is %v", line)
			}
			if took, ok := line["duration_ms"].(float64); !ok || took <= 0 || took > 60_000 {
				t.Errorf("duration_ms is %v", line["duration_ms"])
			}
			fields := slices.Sorted(maps.Keys(line))
			want := []string{"call", "client", "duration_ms", "level", "msg", "outcome", "received", "request", "sent", "status", "tenant", "time", "wallet"}
			if tc.want["refusal"] != nil {
				want = slices.Insert(want, 7, "refusal")
			}
			if !slices.Equal(fields, want) {
				t.Errorf("fields are %q", fields)
			}
		})
	}
}

func TestAFaultIsLoggedOnceWithItsCauseAndAPanicWithItsStack(t *testing.T) {
	t.Parallel()
	fault := errors.New("relation does not exist (SQLSTATE 42P01)")
	outcome := map[string]func() error{
		"fault":       func() error { return fault },
		"ambiguous":   func() error { return fmt.Errorf("%w: %w", storage.ErrAmbiguous, fault) },
		"unavailable": func() error { return fmt.Errorf("%w: %w", storage.ErrUnavailable, fault) },
		"panic":       func() error { panic(fault) },
	}
	p := start(t, over(fake{get: func(_ context.Context, _ storage.Keyspace, key string, _ storage.Admit) (storage.Object, error) {
		return storage.Object{}, outcome[key]()
	}}))
	w := p.wallet(t, "acme", 1)
	for name := range outcome {
		a := w.get(t, name)
		line := p.log.of(t, a)
		cause, _ := line["error"].(string)
		if line["level"] != "ERROR" || !strings.Contains(cause, fault.Error()) {
			t.Errorf("%s: line is %v", name, line)
		}
		if name == "panic" && !strings.Contains(cause, "event_test.go") {
			t.Errorf("no stack: %v", cause)
		}
	}
	if n := strings.Count(p.log.String(), "\n"); n != len(outcome) {
		t.Errorf("%d lines for %d requests: %s", n, len(outcome), p.log)
	}
}

func TestAPanicAfterTheAnswerHasBegunCutsItAndIsLogged(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}))
	w := p.wallet(t, "acme", 1)
	r := w.request(t, "getObject", encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}))
	func() {
		defer func() {
			if v := recover(); v != http.ErrAbortHandler {
				t.Errorf("the handler ended with %v", v)
			}
		}()
		p.server.Handler().ServeHTTP(brokenWriter{httptest.NewRecorder()}, r)
	}()
	if log := p.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "panic: broken") || !strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("log is %s", log)
	}
	p.wantNoneInFlight(t, "it")
}

// brokenWriter panics when the body of an answer is written.
type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { panic("broken") }

func TestNoCredentialIsEverLogged(t *testing.T) {
	t.Parallel()
	deliver := func(context.Context) error { return nil }
	p := start(t, over(always(func(ctx context.Context) error { return deliver(ctx) })))
	w := p.wallet(t, "acme", 1)
	token := w.token(t)
	send := func(call string, spoil func(string) string) {
		conn := p.dial(t)
		text := w.text(t, call, calls[1].body, "Authorization: "+token, "Connection: close")
		conn.send(t, spoil(text))
		if spoil(text) != text { // a put whose client has left does not reach the store
			_ = conn.Conn.(interface{ CloseWrite() error }).CloseWrite()
		}
		conn.rest(t)
	}
	same := func(s string) string { return s }
	replace := func(from, to string) func(string) string {
		return func(s string) string { return strings.Replace(s, from, to, 1) }
	}
	send("putObjects", same)
	send("nothing", same)
	send("putObjects", replace("POST", "GET"))
	send("putObjects", replace("POST", "P@ST"))
	send("putObjects", replace("/acme/", "/nobody/"))
	send("putObjects", replace("/acme/", "/"+token+"/"))
	send("putObjects", replace("Authorization: ", "Authorization: Bearer "))
	send("putObjects", replace("Authorization: ", "Authorization: x\r\nAuthorization: "))
	send("putObjects", replace("Authorization: ", "Authorization : "))
	send("putObjects", replace("Authorization: ", "Host: "))
	send("putObjects", replace("Authorization: ", "X-Forwarded-For: "))
	send("putObjects", replace("\r\n\r\n", "\r\n"+strings.Repeat("X: x\r\n", 20_000)+"\r\n"))
	send("putObjects", replace("Content-Length: ", "Content-Length: 9"))
	send("putObjects", replace("Content-Length: ", "Transfer-Encoding: chunked\r\nX: "))
	deliver = func(context.Context) error { panic("x") }
	send("putObjects", same)
	deliver = func(context.Context) error { return errors.New("x") }
	send("putObjects", same)

	c := p.dialHTTP2(t)
	c.request(t, true, [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", "x"}, {":path", w.base + "/putObjects"},
		{"authorization", token}, {"x", strings.Repeat("x", 100_000)},
	})
	c.answer(t)

	log := p.log.String()
	if !strings.Contains(log, "panic: x") {
		t.Error("no panic is logged: ", log)
	}
	for what, secret := range map[string]string{"token": token, "public key": w.auth.Subject(), "signature": token[66 : 66+128]} {
		if strings.Contains(strings.ToLower(log), secret) {
			t.Errorf("the %s is in the log: %s", what, log)
		}
	}
}

func TestTheClientIsTheOneBeforeTrustedProxiesOnly(t *testing.T) {
	t.Parallel()
	const forwarded = "198.51.100.9, 203.0.113.7"
	for name, tc := range map[string]struct {
		trusted []netip.Prefix
		client  string
	}{
		"nobody is trusted":        {nil, "127.0.0.1"},
		"somebody else is trusted": {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, "127.0.0.1"},
		"the peer is trusted":      {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, "203.0.113.7"},
		"both proxies are trusted": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("203.0.113.0/24")}, "198.51.100.9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, func(cfg *api.Config) { cfg.TrustedProxies = tc.trusted })
			r := p.wallet(t, "acme", 1).request(t, "listKeyVersions", nil)
			r.Header.Set("X-Forwarded-For", forwarded)
			r.Header.Set("X-Real-Ip", "192.0.2.1")
			r.Header.Set("True-Client-Ip", "192.0.2.1")
			if line := p.log.of(t, p.do(t, r)); line["client"] != tc.client {
				t.Errorf("client is %v, want %s", line["client"], tc.client)
			}
		})
	}
}

func TestCallsAndConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	w.put(t, "k", "v").wantDone(t)
	w.wantValue(t, "k", "v")
	w.wantValue(t, "k", "v")
	w.get(t, "absent").want(t, 404, noSuch)
	w.call(t, "putObjects", put(item("k", 7))).want(t, 409, conflict)
	p.do(t, w.request(t, "nothing", nil)).want(t, 404, invalid)
	p.health(t, "/readyz").wantHealthy(t)
	p.doBy(t, p.http2, w.request(t, "listKeyVersions", nil)).wantOK(t, nil)

	eventually(t, "all calls are counted", func() bool { return p.count(t, "vss.calls") >= 6 })
	for _, tc := range []struct {
		call, outcome string
		n             int64
	}{
		{"putObjects", "ok", 1}, {"putObjects", "CONFLICT_EXCEPTION", 1},
		{"getObject", "ok", 2}, {"getObject", "NO_SUCH_KEY_EXCEPTION", 1},
		{"listKeyVersions", "ok", 1}, {"deleteObject", "ok", 0},
	} {
		if n := p.count(t, "vss.calls", attribute.String("call", tc.call), attribute.String("outcome", tc.outcome)); n != tc.n {
			t.Errorf("%s %s: counted %d, want %d", tc.call, tc.outcome, n, tc.n)
		}
	}
	if n := p.count(t, "vss.calls"); n != 6 { // what is no call is not counted as one
		t.Errorf("counted %d calls", n)
	}
	if n := p.connections(t); n != 2 {
		t.Errorf("counted %d connections", n)
	}
}

func TestMetricsKnowTheirRouteAndNothingThatAStrangerChooses(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	w.put(t, "k", "v").wantDone(t)
	const odd = "odd-4711"
	for _, path := range []string{"/t/" + odd + "/vss/getObject", "/" + odd, "/vss/getObject"} {
		r := w.request(t, "", nil)
		r.URL.Path, r.Host = path, odd+".example"
		r.Header.Set("User-Agent", odd)
		p.do(t, r)
		r = w.request(t, "", nil)
		r.URL.Path, r.Method = path, strings.ToUpper(odd)
		p.do(t, r)
	}
	var all metricdata.ResourceMetrics
	check(t, p.metrics.Collect(context.Background(), &all))
	text, err := json.Marshal(all.ScopeMetrics)
	check(t, err)
	for _, want := range []string{"http.server.request.duration", `/t/{tenant}/vss/putObjects`, "vss.directory.age"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("there is no %s in %s", want, text)
		}
	}
	for _, never := range []string{odd, strings.ToUpper(odd), "acme", w.auth.Subject()} {
		if strings.Contains(string(text), never) {
			t.Errorf("%s is in the metrics: %s", never, text)
		}
	}
}

func TestAnUploadThatBreaksOffIsLoggedAndNoFaultOfTheServers(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}))
	w := p.wallet(t, "acme", 1)
	conn := p.dial(t)
	conn.send(t, w.head(t, "putObjects", "Content-Length: 100"))
	eventually(t, "the upload is counted", func() bool { return p.inFlight(t) > 0 })
	check(t, conn.Close())
	eventually(t, "it is logged", func() bool { return strings.Contains(p.log.String(), `"call":"putObjects"`) })
	if log := p.log.String(); !strings.Contains(log, `"outcome":"INVALID_REQUEST_EXCEPTION"`) || strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("log is %s", log)
	}
}
