package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// Every answer in these tests is held to CONTRACT section 1 as it is read, by answer.wantContract.

func TestEveryKindOfAnswerIsTheContractsOverHTTP1AndHTTP2(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, slug := range []string{"closed", "paused", "small"} {
		p.create(t, slug)
	}
	p.set(t, "closed", tenants.Change{State: ptr(tenants.Closed)})
	p.set(t, "paused", tenants.Change{State: ptr(tenants.ReadOnly)})
	p.set(t, "small", limitedTo(1024))
	w := p.wallet(t, "acme", 1)
	w.put(t, "there", "v").wantDone(t)

	of := func(tenant, call string, body proto.Message) func() *http.Request {
		return func() *http.Request { return p.wallet(t, tenant, 1).request(t, call, encode(t, body)) }
	}
	but := func(good func() *http.Request, change func(*http.Request)) func() *http.Request {
		return func() *http.Request { r := good(); change(r); return r }
	}
	item := func(version int64) *vsspb.PutObjectRequest {
		return &vsspb.PutObjectRequest{StoreId: "s", TransactionItems: []*vsspb.KeyValue{{Key: "there", Version: version, Value: []byte("v")}}}
	}
	get := of("acme", "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "there"})
	for _, kind := range []struct {
		name   string
		make   func() *http.Request
		status int
		code   vsspb.ErrorCode
	}{
		{"get", get, 200, 0},
		{"put", of("acme", "putObjects", item(-1)), 200, 0},
		{"delete", of("acme", "deleteObject", &vsspb.DeleteObjectRequest{KeyValue: &vsspb.KeyValue{Key: "absent", Version: -1}}), 200, 0},
		{"list", of("acme", "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"}), 200, 0},
		{"absent key", of("acme", "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "absent"}), 404, noSuch},
		{"conflict", of("acme", "putObjects", item(7)), 409, conflict},
		{"invalid version", of("acme", "putObjects", item(-2)), 400, invalid},
		{"malformed body", but(get, func(r *http.Request) { setBody(r, []byte{0xff}) }), 400, invalid},
		{"encoded body", but(get, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }), 400, invalid},
		{"body over the limit", but(of("small", "putObjects", item(-1)), func(r *http.Request) { setBody(r, make([]byte, 1025)) }), 413, invalid},
		{"unknown path", but(get, func(r *http.Request) { r.URL.Path = "/t/acme/vss/getObjects" }), 404, invalid},
		{"root", but(get, func(r *http.Request) { r.URL.Path = "/" }), 404, invalid},
		{"GET", but(get, func(r *http.Request) { r.Method = http.MethodGet }), 405, invalid},
		{"HEAD", but(get, func(r *http.Request) { r.Method = http.MethodHead }), 405, 0},
		{"OPTIONS", but(get, func(r *http.Request) { r.Method = http.MethodOptions }), 405, invalid},
		{"unknown method", but(get, func(r *http.Request) { r.Method = "PROPFIND" }), 405, invalid},
		{"no credential", but(get, func(r *http.Request) { r.Header.Del("Authorization") }), 401, noAuth},
		{"bad credential", but(get, func(r *http.Request) { r.Header.Set("Authorization", "nonsense") }), 401, noAuth},
		{"unknown tenant", of("nobody", "getObject", &vsspb.GetObjectRequest{Key: "k"}), 403, internal},
		{"closed tenant", of("closed", "getObject", &vsspb.GetObjectRequest{Key: "k"}), 403, internal},
		{"read-only tenant", of("paused", "putObjects", item(-1)), 403, internal},
	} {
		for name, c := range map[string]*http.Client{"HTTP/1.1": p.http, "HTTP/2.0": p.http2} {
			t.Run(kind.name+" over "+name, func(t *testing.T) {
				a := p.doBy(t, c, kind.make())
				if a.proto != name {
					t.Errorf("answered over %s", a.proto)
				}
				if kind.code == 0 {
					if a.status != kind.status {
						t.Errorf("got HTTP %d, want %d", a.status, kind.status)
					}
					return
				}
				a.want(t, kind.status, kind.code)
			})
		}
	}
}

func TestWhatAStoreFailsWithBecomesAnAnswerThatTellsNoInternals(t *testing.T) {
	t.Parallel()
	const secret = "SQLSTATE 42P01: SELECT value FROM objects"
	internals := errors.New(secret)
	wrapped := func(err error) error { return fmt.Errorf("%w: %w", err, internals) }
	for _, tc := range []struct {
		name    string
		err     error
		status  int
		code    vsspb.ErrorCode
		message string // all of it but for the request's id
	}{
		{"invalid", &storage.InvalidError{Reason: "key is too odd"}, 400, invalid, "key is too odd"},
		{"invalid, wrapped", wrapped(&storage.InvalidError{Reason: "key is too odd"}), 400, invalid, "key is too odd"},
		{"bad token", storage.ErrBadToken, 400, invalid, storage.ErrBadToken.Error()},
		{"conflict", storage.ErrConflict, 409, conflict, "version conflict"},
		{"conflict, wrapped", wrapped(storage.ErrConflict), 409, conflict, "version conflict"},
		{"no such key", storage.ErrNoSuchKey, 404, noSuch, "no such key"},
		{"no such key, wrapped", wrapped(storage.ErrNoSuchKey), 404, noSuch, "no such key"},
		{"too late", storage.ErrTooLate, 503, internal, "temporarily unavailable, try again (request %s)"},
		{"too late, wrapped", wrapped(storage.ErrTooLate), 503, internal, "temporarily unavailable, try again (request %s)"},
		{"deadline", wrapped(context.DeadlineExceeded), 503, internal, "temporarily unavailable, try again (request %s)"},
		{"cancelled", wrapped(context.Canceled), 503, internal, "temporarily unavailable, try again (request %s)"},
		{"unavailable", storage.ErrUnavailable, 503, internal, "temporarily unavailable, try again (request %s)"},
		{"unavailable, wrapped", wrapped(storage.ErrUnavailable), 503, internal, "temporarily unavailable, try again (request %s)"},
		{"ambiguous", storage.ErrAmbiguous, 500, internal, "the write may or may not have been saved, try again (request %s)"},
		// Whatever was in its way, it is not known to have had no effect.
		{"ambiguous, at the deadline", wrapped(fmt.Errorf("%w: %w", storage.ErrAmbiguous, context.DeadlineExceeded)), 500, internal,
			"the write may or may not have been saved, try again (request %s)"},
		{"ambiguous, the database gone", fmt.Errorf("%w: %w", storage.ErrAmbiguous, wrapped(storage.ErrUnavailable)), 500, internal,
			"the write may or may not have been saved, try again (request %s)"},
		{"a fault of ours", internals, 500, internal, "internal error (request %s)"},
		{"a panic", nil, 500, internal, "internal error (request %s)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, over(always(func(context.Context) error {
				if tc.err == nil {
					panic(secret)
				}
				return tc.err
			})))
			w := p.wallet(t, "acme", 1)
			for _, c := range calls {
				a := w.call(t, c.name, c.body)
				a.want(t, tc.status, tc.code)
				want := strings.Replace(tc.message, "%s", a.header.Get("X-Request-Id"), 1)
				if got := a.error(t).GetMessage(); got != want {
					t.Errorf("%s: message is %q, want %q", c.name, got, want)
				}
				if a.status >= 500 && a.header.Get("Connection") != "keep-alive" {
					t.Errorf("%s: a fault closes the connection", c.name)
				}
			}
			if n := p.connections(t); n != 1 {
				t.Errorf("%d connections for %d calls", n, len(calls))
			}
		})
	}
}

func TestManyCallsTakeOneConnection(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	for i := range 30 {
		switch i % 5 {
		case 0:
			w.put(t, "k", "v").wantDone(t)
		case 1:
			w.wantValue(t, "k", "v")
		case 2:
			w.get(t, "absent").want(t, 404, noSuch)
		case 3:
			p.wallet(t, "nobody", 1).get(t, "k").want(t, 403, internal)
		case 4:
			r := w.request(t, "nothing", nil)
			p.do(t, r).want(t, 404, invalid)
		}
	}
	if n := p.connections(t); n != 1 {
		t.Errorf("30 calls took %d connections", n)
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	const n = 40
	for i := range n {
		w.put(t, fmt.Sprint("key", i), fmt.Sprint("value", i)).wantDone(t)
	}

	// As released clients do on one connection: a row of reads, and a put behind them.
	conn := p.dial(t)
	var row strings.Builder
	for i := range n {
		row.WriteString(w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: fmt.Sprint("key", i)}))
	}
	row.WriteString(w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "absent"}))
	row.WriteString(w.text(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"}))
	row.WriteString(w.text(t, "putObjects", &vsspb.PutObjectRequest{
		StoreId: "s", TransactionItems: []*vsspb.KeyValue{{Key: "key0", Version: 1, Value: []byte("new")}}}))
	row.WriteString(w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "key0"}))
	row.WriteString(w.text(t, "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: &vsspb.KeyValue{Key: "key0", Version: -1}}))
	row.WriteString(w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "key0"}))
	conn.send(t, row.String())

	for i := range n {
		conn.answer(t).wantValue(t, fmt.Sprint("value", i))
	}
	conn.answer(t).want(t, 404, noSuch)
	if keys := conn.answer(t).keys(t); len(keys) != n {
		t.Errorf("list has %d keys, want %d", len(keys), n)
	}
	conn.answer(t).wantDone(t)
	conn.answer(t).wantValue(t, "new")
	conn.answer(t).wantDone(t)
	conn.answer(t).want(t, 404, noSuch)
	conn.wantOpen(t)
}

func TestTheConnectionHeaderSaysWhatBecomesOfTheConnection(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	w.put(t, "k", "v").wantDone(t)
	get := func(headers ...string) string {
		return w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}, headers...)
	}
	as10 := func(request string) string { return strings.Replace(request, "HTTP/1.1", "HTTP/1.0", 1) }
	p.create(t, "small")
	p.set(t, "small", limitedTo(1024))
	const large = 1 << 20
	tooLarge := p.wallet(t, "small", 1).head(t, "getObject", fmt.Sprint("Content-Length: ", large)) + strings.Repeat("x", large)
	for _, tc := range []struct {
		name, request string
		status        int
		connection    []string
		open          bool
	}{
		{"HTTP/1.1", get(), 200, []string{"keep-alive"}, true},
		{"HTTP/1.1, asked to keep", get("Connection: keep-alive"), 200, []string{"keep-alive"}, true},
		{"HTTP/1.1, asked to close", get("Connection: close"), 200, []string{"close"}, false},
		{"HTTP/1.1, asked to close in capitals", get("Connection: Close"), 200, []string{"close"}, false},
		{"HTTP/1.0", as10(get()), 200, nil, false},
		{"HTTP/1.0, asked to keep", as10(get("Connection: keep-alive")), 200, []string{"keep-alive"}, true},
		{"HTTP/1.0, asked to close", as10(get("Connection: close")), 200, nil, false},
		{"HTTP/1.0 without Host", as10(get("Host:")), 200, nil, false},
		{"an error", get("Authorization: nonsense"), 401, []string{"keep-alive"}, true},
		{"an error, asked to close", get("Authorization: nonsense", "Connection: close"), 401, []string{"close"}, false},
		{"a body too large, sent whole", tooLarge, 413, []string{"keep-alive"}, true},
		{"HTTP/1.0, an error", as10(get("Authorization: nonsense")), 401, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn := p.dial(t)
			conn.send(t, tc.request)
			a := conn.answer(t)
			if a.status != tc.status {
				t.Errorf("got HTTP %d, want %d", a.status, tc.status)
			}
			if got := a.header.Values("Connection"); !slices.Equal(got, tc.connection) {
				t.Errorf("Connection is %q, want %q", got, tc.connection)
			}
			if tc.open {
				conn.wantOpen(t)
			} else {
				conn.wantClosed(t)
			}
		})
	}
}

func TestARefusedMethodIsAnErrorOnEveryPath(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	for _, method := range []string{
		"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "QUERY", "PROPFIND", "post", "Post", "POSTS", "X-_.!", "PRI",
	} {
		for _, path := range []string{"/t/acme/vss/putObjects", "/vss/putObjects", "/t/acme/vss/nothing", "/", "*"} {
			t.Run(method+" "+path, func(t *testing.T) {
				t.Parallel()
				conn := p.dial(t)
				conn.send(t, method+" "+path+" HTTP/1.1\r\nHost: vss.example\r\nAuthorization: "+w.token(t)+"\r\n\r\n")
				a := conn.answerTo(t, method)
				called := strings.HasSuffix(path, "putObjects")
				switch {
				case !called && a.status == 404:
				case a.status != 405 || !called:
					t.Errorf("got HTTP %d", a.status)
				case a.header.Get("Allow") != "POST":
					t.Errorf("Allow is %q", a.header.Get("Allow"))
				}
				if method != "HEAD" {
					a.want(t, a.status, invalid)
				}
				conn.wantOpen(t)
			})
		}
	}
}

func TestARefusedMethodIsToldThoseOfItsPath(t *testing.T) {
	t.Parallel()
	s := start(t)
	for path, allow := range map[string]string{
		"/livez": "GET", "/readyz": "GET",
		"/t/acme/vss/getObject": "POST", "/t/%61cme/vss/getObject": "POST",
		callers.KeysPath: "GET, HEAD", "/t/acme" + callers.KeysPath: "GET, HEAD",
		callers.LoginPath: "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
			if slices.Contains(strings.Split(allow, ", "), method) {
				continue
			}
			r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.address+path, nil)
			check(t, err)
			resp, err := s.http.Do(r)
			check(t, err)
			resp.Body.Close()
			if got := resp.Header.Get("Allow"); resp.StatusCode != 405 || got != allow {
				t.Errorf("%s %s: HTTP %d with Allow %q, want 405 and %q", method, path, resp.StatusCode, got, allow)
			}
		}
	}
}

func TestOnlyTheExactPathIsACallAndNoneRedirects(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	for target, status := range map[string]int{
		"/t/acme/vss/listKeyVersions":                                 200,
		"/t/acme/vss/listKeyVersions?":                                200,
		"/t/acme/vss/listKeyVersions?a=%zz&b;c":                       200,
		"http://vss.example/t/acme/vss/listKeyVersions":               200,
		"/t/acme/vss/listKeyVersions/":                                404,
		"/t/acme/vss/listKeyVersions/x":                               404,
		"/t/acme/vss/listKeyVersionsx":                                404,
		"/t/acme/vss/listkeyversions":                                 404,
		"/t/acme/vss/ListKeyVersions":                                 404,
		"/t/acme/VSS/listKeyVersions":                                 404,
		"/T/acme/vss/listKeyVersions":                                 404,
		"/t/acme/vss/":                                                404,
		"/t/acme/vss":                                                 404,
		"/t/acme/listKeyVersions":                                     404,
		"/t/acme":                                                     404,
		"/t/":                                                         404,
		"/t//vss/listKeyVersions":                                     403,
		"/t/vss/listKeyVersions":                                      404,
		"//t/acme/vss/listKeyVersions":                                404,
		"/t//acme/vss/listKeyVersions":                                404,
		"/t/acme//vss/listKeyVersions":                                404,
		"/t/acme/vss//listKeyVersions":                                404,
		"/t/acme/vss/listKeyVersions//":                               404,
		"/./t/acme/vss/listKeyVersions":                               404,
		"/t/acme/vss/./listKeyVersions":                               404,
		"/t/acme/vss/../vss/listKeyVersions":                          404,
		"/t/acme/vss/x/../listKeyVersions":                            404,
		"/t/x/../acme/vss/listKeyVersions":                            404,
		"/x/../t/acme/vss/listKeyVersions":                            404,
		"/t/acme/vss/listKeyVersion%73":                               404,
		"/t/acme/vs%73/listKeyVersions":                               404,
		"/%74/acme/vss/listKeyVersions":                               404,
		"/t/acme/vss%2FlistKeyVersions":                               404,
		"/t/acme%2Fvss/listKeyVersions":                               404,
		"/t/acme/vss/listKeyVersions%00":                              404,
		"/t/acme/vss/listKeyVersions%20":                              404,
		"/t/acme/vss/listKeyVersions%2F":                              404,
		"/t/acme/vss/listKeyVersions;x":                               404,
		"/t/acme/vss/listKeyVersions%3Fx":                             404,
		"\\t\\acme\\vss\\listKeyVersions":                             400, // by net/http
		"/t/acme\\vss/listKeyVersions":                                404,
		"/t/acm%65/vss/listKeyVersions":                               403,
		"/t/Acme/vss/listKeyVersions":                                 403,
		"/t/ACME/vss/listKeyVersions":                                 403,
		"/t/acme./vss/listKeyVersions":                                403,
		"/t/./vss/listKeyVersions":                                    403,
		"/t/../vss/listKeyVersions":                                   403,
		"/t/acme%2F/vss/listKeyVersions":                              403,
		"/t/acme%00/vss/listKeyVersions":                              403,
		"/t/acme%20/vss/listKeyVersions":                              403,
		"/t/acme;x/vss/listKeyVersions":                               403,
		"/t/{tenant}/vss/listKeyVersions":                             403,
		"/t/" + strings.Repeat("a", 64) + "/vss/listKeyVersions":      403,
		"/t/" + strings.Repeat("acme/", 30) + "vss/listKeyVersions":   404,
		"/t/" + strings.Repeat("a.", 20_000) + "/vss/listKeyVersions": 403,
		"/t/acme/vss/" + strings.Repeat("listKeyVersions/", 2_000):    404,
		"/vss/listKeyVersions":                                        403, // names no tenant
		"/vss/listKeyVersions/":                                       404,
		"/vss//listKeyVersions":                                       404,
		"/vss/t/acme/vss/listKeyVersions":                             404,
	} {
		t.Run(fmt.Sprintf("%.60s", target), func(t *testing.T) {
			t.Parallel()
			conn := p.dial(t)
			request := w.text(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"})
			_, rest, _ := strings.Cut(request, " HTTP/1.1")
			conn.send(t, "POST "+target+" HTTP/1.1"+rest)
			if status == 400 {
				if got := conn.rest(t); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
					t.Errorf("got %q", got)
				}
				return
			}
			a := conn.answer(t)
			if a.status != status {
				t.Errorf("got HTTP %d %v, want %d", a.status, a.error(t), status)
			}
			if location := a.header.Get("Location"); location != "" {
				t.Errorf("redirects to %q", location)
			}
			conn.wantOpen(t)
		})
	}
}

func TestBrowsersMayCallAndReadTheHeadersTheyNeed(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)

	preflight := func(path, headers string) *answer {
		r := w.request(t, "", nil)
		r.Method, r.URL.Path = http.MethodOptions, path
		r.Header = http.Header{
			"Origin":                        {"https://wallet.example"},
			"Access-Control-Request-Method": {"POST"},
		}
		if headers != "" {
			r.Header.Set("Access-Control-Request-Headers", headers)
		}
		return p.do(t, r)
	}
	for _, path := range []string{"/t/acme/vss/putObjects", "/vss/getObject", "/t/nobody/vss/getObject"} {
		a := preflight(path, "authorization, content-type, x-my-fixed-header")
		for header, want := range map[string]string{
			"Access-Control-Allow-Origin":      "*",
			"Access-Control-Allow-Methods":     "POST",
			"Access-Control-Allow-Headers":     "Authorization, Content-Type, X-My-Fixed-Header",
			"Access-Control-Max-Age":           "3600",
			"Access-Control-Allow-Credentials": "", // the credential is in a header, never in a cookie
		} {
			if got := a.header.Get(header); got != want {
				t.Errorf("preflight of %s: %s is %q, want %q", path, header, got, want)
			}
		}
		if a.status/100 != 2 || len(a.body) != 0 {
			t.Errorf("preflight of %s: HTTP %d %q", path, a.status, a.body)
		}
	}

	wantExposed := func(a *answer) {
		t.Helper()
		if got := a.header.Get("Access-Control-Allow-Origin"); got != "*" {
			t.Errorf("HTTP %d: Access-Control-Allow-Origin is %q", a.status, got)
		}
		exposed := strings.Split(a.header.Get("Access-Control-Expose-Headers"), ", ")
		for _, header := range []string{"Vss-Protocol-Version", "X-Request-Id", "Vss-Error-Reason", "Retry-After"} {
			if !slices.Contains(exposed, header) {
				t.Errorf("HTTP %d: %s is not exposed", a.status, header)
			}
		}
	}
	from := func(r *http.Request, origin string) *http.Request {
		r.Header.Set("Origin", origin)
		return r
	}
	body := encode(t, calls[1].body)
	for _, origin := range []string{"https://wallet.example", "null", ""} {
		done := p.do(t, from(w.request(t, "putObjects", body), origin))
		done.wantDone(t)
		wantExposed(done)
		absent := p.do(t, from(w.request(t, "getObject", encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "absent"})), origin))
		absent.want(t, 404, noSuch)
		wantExposed(absent)
		nowhere := p.do(t, from(w.request(t, "nothing", body), origin))
		nowhere.want(t, 404, invalid)
		wantExposed(nowhere)
		refused := from(w.request(t, "putObjects", body), origin)
		refused.Header.Del("Authorization")
		a := p.do(t, refused)
		a.want(t, 401, noAuth)
		wantExposed(a)
	}
}

func TestNoPostIsAnsweredAsAPreflight(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	for _, headers := range [][]string{
		{"Origin: https://wallet.example", "Access-Control-Request-Method: POST"},
		{"Origin: https://wallet.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"},
		{"Origin: null", "Access-Control-Request-Method: OPTIONS"},
		{"Origin: https://wallet.example", "X-HTTP-Method-Override: OPTIONS"},
		{"Origin: https://wallet.example", "X-HTTP-Method: OPTIONS", "X-Method-Override: OPTIONS"},
	} {
		conn := p.dial(t)
		// An absent key has an answer that no shortcut gives.
		conn.send(t, w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "absent"}, headers...))
		conn.answer(t).want(t, 404, noSuch)
		conn.send(t, w.text(t, "putObjects", calls[1].body, append(headers, "Authorization: nonsense")...))
		conn.answer(t).want(t, 401, noAuth)
	}
	// Nor is an OPTIONS that is no preflight a success.
	conn := p.dial(t)
	for _, header := range []string{"X: x", "Origin: https://wallet.example", "Access-Control-Request-Method: POST"} {
		conn.send(t, "OPTIONS /t/acme/vss/putObjects HTTP/1.1\r\nHost: vss.example\r\n"+header+"\r\n\r\n")
		conn.answerTo(t, http.MethodOptions).want(t, 405, invalid)
	}
}

func TestTheRequestIDIsTheServersOwn(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	seen := map[string]bool{}
	for range 10 {
		r := w.request(t, "listKeyVersions", nil)
		r.Header.Set("X-Request-Id", "0123456789abcdef")
		id := p.do(t, r).header.Get("X-Request-Id")
		if seen[id] || id == "0123456789abcdef" {
			t.Errorf("request id %q", id)
		}
		seen[id] = true
	}
}

func TestTheVersionHeaderOfARequestIsNotAsked(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	r := w.request(t, "putObjects", encode(t, calls[1].body))
	r.Header.Set("Vss-Protocol-Version", "7")
	r.Header.Set("Content-Type", "text/plain") // nor what it says it is
	p.do(t, r).wantDone(t)
}

func TestAnOverloadedServerSaysSo(t *testing.T) {
	t.Parallel()
	p := start(t, func(cfg *api.Config) { cfg.Memory = 3000 })
	w := p.wallet(t, "acme", 1)
	a := w.put(t, "k", strings.Repeat("v", 1000))
	a.want(t, 503, internal)
	w.get(t, "k").want(t, 404, noSuch)
	w.put(t, "k", "v").wantDone(t)
	w.wantValue(t, "k", "v")
}

// setBody gives a request another body.
func setBody(r *http.Request, body []byte) {
	fresh, err := http.NewRequest(r.Method, r.URL.String(), bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Body, r.GetBody, r.ContentLength = fresh.Body, fresh.GetBody, fresh.ContentLength
}
