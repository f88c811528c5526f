package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of the time these tests wait. But for fuzzing it is the number of processes.
	if flag.Lookup("test.fuzz").Value.String() == "" {
		_ = flag.Set("test.parallel", "8")
	}
	dbtest.Main(m)
}

const baseDomain = "vss.example"

var operator = audit.Actor{Role: audit.Operator, Name: "root@host", Confirmed: true}

// The codes of errors, as the contract's table abbreviates them.
const (
	conflict = vsspb.ErrorCode_CONFLICT_EXCEPTION
	invalid  = vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION
	internal = vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION
	noSuch   = vsspb.ErrorCode_NO_SUCH_KEY_EXCEPTION
	noAuth   = vsspb.ErrorCode_AUTH_EXCEPTION
)

// calls are the four of the contract, each with a body that it takes.
var calls = []struct {
	name string
	body proto.Message
}{
	{"getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}},
	{"putObjects", &vsspb.PutObjectRequest{StoreId: "s", TransactionItems: []*vsspb.KeyValue{{Key: "k", Version: -1, Value: []byte("v")}}}},
	{"deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: &vsspb.KeyValue{Key: "k", Version: -1}}},
	{"listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"}},
}

// platform is a server that listens, over a database of its own with the tenant acme.
type platform struct {
	database  string        // its URL, as its owner
	proxy     *dbtest.Proxy // between the server and its database
	service   *tenants.Service
	directory *callers.Directory
	server    *api.Server
	address   string // of the server
	http      *http.Client
	http2     *http.Client
	log       *logbook
	metrics   *sdkmetric.ManualReader
	drain     context.CancelFunc
	served    chan struct{} // closed when Serve has returned
	err       error         // what it returned
}

// start starts a platform. The changes are to the server's configuration; a test that needs no database
// behind its calls brings a store.
func start(t testing.TB, changes ...func(*api.Config)) *platform {
	t.Helper()
	url := dbtest.New(t)
	p := &platform{
		database: url,
		proxy:    dbtest.NewProxy(t, url),
		log:      &logbook{},
		metrics:  sdkmetric.NewManualReader(),
		served:   make(chan struct{}),
	}
	var err error
	p.service, err = tenants.NewService(open(t, url, db.RoleAdmin), tenants.ServiceConfig{BaseDomain: baseDomain, MasterKey: masterKey(), Egress: offline{egress.New(egress.Config{})}})
	check(t, err)
	p.run(t, changes)
	p.create(t, "acme")
	return p
}

// beside starts another instance over the platform's database.
func (p *platform) beside(t testing.TB, changes ...func(*api.Config)) *platform {
	t.Helper()
	other := &platform{
		database: p.database,
		proxy:    dbtest.NewProxy(t, p.database),
		service:  p.service,
		log:      &logbook{},
		metrics:  sdkmetric.NewManualReader(),
		served:   make(chan struct{}),
	}
	other.run(t, changes)
	return other
}

// masterKey is the one of all platforms.
var masterKey = sync.OnceValue(func() *masterkey.Key {
	dir, err := os.MkdirTemp("", "vss-api-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	key, err := masterkey.Create(filepath.Join(dir, "master.key"))
	if err != nil {
		panic(err)
	}
	return key
})

// run serves an instance until the test ends.
func (p *platform) run(t testing.TB, changes []func(*api.Config)) {
	t.Helper()
	pool := open(t, p.proxy.URL(), db.RoleAPI)
	var err error
	p.directory, err = callers.NewDirectory(pool, callers.DirectoryConfig{BaseDomain: baseDomain, Timeout: time.Minute})
	check(t, err)
	check(t, p.directory.Refresh(t.Context()))
	store := postgres.New(pool, postgres.Config{AllowDataLoss: true})
	auth := callers.NewAuthenticator(callers.AuthenticatorConfig{})
	cfg := api.Config{
		Store:         store,
		Tenants:       p.directory,
		Auth:          auth,
		Ready:         store.Check,
		Log:           slog.New(slog.NewJSONHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.metrics)),
	}
	for _, change := range changes {
		change(&cfg)
	}
	cfg.Logins, err = callers.NewLogins(cfg.Auth, callers.LoginsConfig{
		Pool: open(t, p.proxy.URL(), db.RoleAPI), Limiter: cfg.Quota.Limiter, MasterKey: masterKey(),
	})
	check(t, err)
	p.server, err = api.New(cfg)
	check(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p.address = ln.Addr().String()
	p.http, p.http2 = newHTTPClient(false), newHTTPClient(true)
	ctx, drain := context.WithCancel(context.Background())
	p.drain = drain
	go func() {
		defer close(p.served)
		p.err = p.server.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		p.http.CloseIdleConnections()
		p.http2.CloseIdleConnections()
		drain()
		p.wait(t, 20*time.Second)
	})
}

// wait waits for Serve to return, which it must do with nil.
func (p *platform) wait(t testing.TB, atMost time.Duration) {
	t.Helper()
	select {
	case <-p.served:
		if p.err != nil {
			t.Error("Serve: ", p.err)
		}
	case <-time.After(atMost):
		t.Error("Serve has not returned ", atMost, " after its context ended")
	}
}

func open(t testing.TB, url string, role db.Role) *pgxpool.Pool {
	t.Helper()
	pool, err := db.Open(context.Background(), url, role, 10)
	check(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func newHTTPClient(http2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Client{
		Transport: &http.Transport{
			Protocols:             &protocols,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   256,
			ExpectContinueTimeout: 10 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// create makes a tenant, which the server knows of when it returns.
func (p *platform) create(t testing.TB, slug string, domains ...string) {
	t.Helper()
	_, err := p.service.Create(t.Context(), operator, tenants.NewTenant{Slug: slug, Name: slug})
	check(t, err)
	check(t, p.directory.Refresh(t.Context()))
	for _, domain := range domains {
		p.addDomain(t, slug, domain)
	}
}

// limitedTo limits bodies, and so values, to a size.
func limitedTo(size int64) tenants.Change {
	return tenants.Change{Limits: map[string]*int64{"body_size": &size, "value_size": &size}}
}

// addDomain gives a tenant a domain, which the server knows of when it returns.
func (p *platform) addDomain(t testing.TB, slug, domain string) {
	t.Helper()
	_, err := p.service.AddDomain(t.Context(), operator, slug, domain, true)
	check(t, err)
	check(t, p.directory.Refresh(t.Context()))
}

// set changes a tenant, which the server knows of when it returns.
func (p *platform) set(t testing.TB, slug string, change tenants.Change) {
	t.Helper()
	_, err := p.service.Set(t.Context(), operator, slug, change)
	check(t, err)
	check(t, p.directory.Refresh(t.Context()))
}

// wallet is one of a tenant's, named by the path on a host that is no tenant's.
type wallet struct {
	*platform
	base string // path of its base URL
	auth *client.SignatureAuth
}

// wallet is the tenant's wallet with this number. Wallets of different tenants with the same number have
// the same key.
func (p *platform) wallet(t testing.TB, tenant string, number byte) *wallet {
	t.Helper()
	auth, err := client.NewSignatureAuth([32]byte{31: number})
	check(t, err)
	return &wallet{p, "/t/" + tenant + "/vss", auth}
}

// token is a good Authorization header.
func (w *wallet) token(t testing.TB) string {
	t.Helper()
	token, err := w.auth.Authorization(t.Context(), time.Now())
	check(t, err)
	return token
}

// request is one of the wallet's calls, ready to be sent or spoiled.
func (w *wallet) request(t testing.TB, call string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.address+w.base+"/"+call, bytes.NewReader(body))
	check(t, err)
	r.Header.Set("Authorization", w.token(t))
	r.Header.Set("Content-Type", "application/octet-stream")
	return r
}

// call makes one of the wallet's calls.
func (w *wallet) call(t testing.TB, call string, body proto.Message) *answer {
	t.Helper()
	return w.do(t, w.request(t, call, encode(t, body)))
}

func (w *wallet) get(t testing.TB, key string) *answer {
	t.Helper()
	return w.call(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: key})
}

func (w *wallet) put(t testing.TB, key, value string) *answer {
	t.Helper()
	return w.call(t, "putObjects", &vsspb.PutObjectRequest{
		StoreId: "s", TransactionItems: []*vsspb.KeyValue{{Key: key, Version: -1, Value: []byte(value)}},
	})
}

// wantValue reads the key.
func (w *wallet) wantValue(t testing.TB, key, value string) {
	t.Helper()
	w.get(t, key).wantValue(t, value)
}

// do sends the request and reads its whole answer, which must be one by the contract.
func (p *platform) do(t testing.TB, r *http.Request) *answer {
	t.Helper()
	return p.doBy(t, p.http, r)
}

func (p *platform) doBy(t testing.TB, c *http.Client, r *http.Request) *answer {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal("no answer: ", err)
	}
	return read(t, resp)
}

// answer is what came back, all of it.
type answer struct {
	status int
	proto  string
	header http.Header
	body   []byte
	method string // of the request
}

// read reads an answer to its end and holds it to CONTRACT section 1.
func read(t testing.TB, resp *http.Response) *answer {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("answer %s is not whole: %v", resp.Status, err)
	}
	if resp.Close && resp.ProtoAtLeast(1, 1) && resp.Header["Connection"] == nil {
		resp.Header["Connection"] = []string{"close"} // net/http took it away
	}
	a := &answer{resp.StatusCode, resp.Proto, resp.Header, body, resp.Request.Method}
	a.wantContract(t)
	return a
}

var requestID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// wantContract holds any answer, to whatever request, to what CONTRACT section 1 says of every one.
func (a *answer) wantContract(t testing.TB) {
	t.Helper()
	want := func(header string, ok func(value string) bool) {
		t.Helper()
		if v := a.header.Values(header); len(v) != 1 || !ok(v[0]) {
			t.Errorf("HTTP %d: %s is %q", a.status, header, v)
		}
	}
	want("Vss-Protocol-Version", func(v string) bool { return v == "0" })
	want("X-Request-Id", requestID.MatchString)
	want("Content-Length", func(v string) bool { return a.method == http.MethodHead || v == strconv.Itoa(len(a.body)) })
	want("Date", func(v string) bool {
		date, err := http.ParseTime(v)
		return err == nil && time.Since(date).Abs() < time.Minute
	})
	switch a.proto {
	case "HTTP/1.1":
		want("Connection", func(v string) bool { return v == "keep-alive" || v == "close" })
		if a.header.Get("Connection") == "keep-alive" && a.proto == "HTTP/1.1" {
			want("Keep-Alive", func(v string) bool { return v == "timeout=120" }) // of which vss-client 0.6 can read no more
		}
	case "HTTP/2.0":
		if v := a.header.Values("Connection"); v != nil {
			t.Errorf("HTTP/2 answer has Connection %q", v)
		}
	}
	if got, is := a.header.Get("Retry-After"), a.status == 429 || a.status == 503; (got != "") != is {
		t.Errorf("HTTP %d has Retry-After %q", a.status, got)
	}
	if got, is := a.header.Get("Allow"), a.status == 405; (got != "") != is {
		t.Errorf("HTTP %d has Allow %q", a.status, got)
	}
	switch {
	case a.status/100 == 2:
	case strings.HasPrefix(string(a.body), "not ready: "): // of /readyz, which is no call
	case a.status < 400 || a.status > 599:
		t.Errorf("HTTP %d is neither a success nor an error", a.status)
	default:
		want("Content-Type", func(v string) bool { return v == "application/octet-stream" })
		if a.method == http.MethodHead {
			break
		}
		var e vsspb.ErrorResponse
		if err := proto.Unmarshal(a.body, &e); err != nil {
			t.Errorf("HTTP %d: body %q is no ErrorResponse: %v", a.status, a.body, err)
		}
		if e.GetErrorCode() == vsspb.ErrorCode_UNKNOWN || e.GetMessage() == "" || len(e.ProtoReflect().GetUnknown()) > 0 {
			t.Errorf("HTTP %d: ErrorResponse is {%v}", a.status, &e)
		}
	}
}

// want checks status and code of an error.
func (a *answer) want(t testing.TB, status int, code vsspb.ErrorCode) {
	t.Helper()
	if e := a.error(t); a.status != status || e.GetErrorCode() != code {
		t.Errorf("got HTTP %d %v %q, want %d %v", a.status, e.GetErrorCode(), e.GetMessage(), status, code)
	}
}

func (a *answer) error(t testing.TB) *vsspb.ErrorResponse {
	t.Helper()
	e := &vsspb.ErrorResponse{}
	if a.status/100 != 2 {
		check(t, proto.Unmarshal(a.body, e))
	}
	return e
}

// wantOK checks that the call was done, and decodes its answer.
func (a *answer) wantOK(t testing.TB, into proto.Message) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Errorf("got HTTP %d %v, want success", a.status, a.error(t))
		return
	}
	if v := a.header.Values("Content-Type"); !slices.Equal(v, []string{"application/octet-stream"}) {
		t.Errorf("Content-Type is %q", v)
	}
	if into == nil {
		return
	}
	if err := proto.Unmarshal(a.body, into); err != nil || len(into.ProtoReflect().GetUnknown()) > 0 {
		t.Errorf("body %.100q is no %T: %v", a.body, into, err)
	}
}

// wantDone checks that a put or delete was done, the answer to which is empty.
func (a *answer) wantDone(t testing.TB) {
	t.Helper()
	a.wantOK(t, nil)
	if a.status == http.StatusOK && len(a.body) > 0 {
		t.Errorf("body is %q, want none", a.body)
	}
}

func (a *answer) wantValue(t testing.TB, value string) {
	t.Helper()
	var got vsspb.GetObjectResponse
	a.wantOK(t, &got)
	if a.status == http.StatusOK && string(got.GetValue().GetValue()) != value {
		t.Errorf("value is %.100q, want %.100q", got.GetValue().GetValue(), value)
	}
}

func (a *answer) keys(t testing.TB) (keys []string) {
	t.Helper()
	var got vsspb.ListKeyVersionsResponse
	a.wantOK(t, &got)
	for _, kv := range got.GetKeyVersions() {
		keys = append(keys, kv.GetKey())
	}
	return keys
}

// wire is a bare connection to the server.
type wire struct {
	net.Conn
	in *bufio.Reader
}

// dial connects. Nothing on the connection may take longer than a minute.
func (p *platform) dial(t testing.TB) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", p.address)
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	check(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return &wire{conn, bufio.NewReader(conn)}
}

func (w *wire) send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(w.Conn, text); err != nil {
		t.Fatal("cannot send: ", err)
	}
}

// answer reads the next answer, to a POST, which must be one by the contract.
func (w *wire) answer(t testing.TB) *answer {
	t.Helper()
	return w.answerTo(t, http.MethodPost)
}

func (w *wire) answerTo(t testing.TB, method string) *answer {
	t.Helper()
	connection := w.connection(t)
	resp, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		t.Fatal("no answer: ", err)
	}
	if connection != nil {
		resp.Header["Connection"] = connection
	}
	return read(t, resp)
}

// connection is what the next answer has as its Connection headers, of which net/http's reader hides some.
func (w *wire) connection(t testing.TB) (values []string) {
	t.Helper()
	for n := 1; ; n = max(n+1, w.in.Buffered()) {
		seen, err := w.in.Peek(n)
		head, _, whole := bytes.Cut(seen, []byte("\r\n\r\n"))
		if err != nil {
			t.Fatalf("no answer: %v, after %q", err, seen)
		}
		if !whole {
			continue
		}
		for line := range strings.Lines(string(head)) {
			if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Connection") {
				values = append(values, strings.TrimSpace(value))
			}
		}
		return values
	}
}

// rest is everything that still comes until the server closes the connection.
func (w *wire) rest(t testing.TB) string {
	t.Helper()
	rest, err := io.ReadAll(w.in)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the connection is not closed: %v, after %q", err, rest)
	}
	return string(rest)
}

// wantOpen checks that the connection serves another request.
func (w *wire) wantOpen(t testing.TB) {
	t.Helper()
	w.send(t, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	if a := w.answerTo(t, http.MethodGet); a.status != http.StatusOK {
		t.Errorf("/livez on the same connection: HTTP %d", a.status)
	}
}

// wantClosed checks that nothing more comes and the server closes the connection.
func (w *wire) wantClosed(t testing.TB) {
	t.Helper()
	if rest := w.rest(t); rest != "" {
		t.Errorf("after the answer came %q", rest)
	}
}

// head is the head of one of the wallet's requests over HTTP/1.1, up to its empty line, with headers added
// or, if they have the same name, replaced. "Name:" alone leaves one out.
func (w *wallet) head(t testing.TB, call string, headers ...string) string {
	t.Helper()
	all := []string{"Host: vss.example", "Authorization: " + w.token(t)}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		all = slices.DeleteFunc(all, func(have string) bool { return strings.HasPrefix(have, name+":") })
		if value != "" {
			all = append(all, h)
		}
	}
	return "POST " + w.base + "/" + call + " HTTP/1.1\r\n" + strings.Join(all, "\r\n") + "\r\n\r\n"
}

// text is one of the wallet's requests over HTTP/1.1, whole.
func (w *wallet) text(t testing.TB, call string, body proto.Message, headers ...string) string {
	t.Helper()
	raw := encode(t, body)
	return w.head(t, call, append(headers, fmt.Sprint("Content-Length: ", len(raw)))...) + string(raw)
}

// count is the sum of a counter or gauge over everything counted with these attributes.
func (p *platform) count(t testing.TB, name string, attributes ...attribute.KeyValue) (sum int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	check(t, p.metrics.Collect(context.Background(), &all))
	add := func(points []metricdata.DataPoint[int64]) {
		for _, point := range points {
			if !slices.ContainsFunc(attributes, func(a attribute.KeyValue) bool {
				v, ok := point.Attributes.Value(a.Key)
				return !ok || v != a.Value
			}) {
				sum += point.Value
			}
		}
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				add(data.DataPoints)
			case metricdata.Gauge[int64]:
				add(data.DataPoints)
			default:
				t.Fatalf("%s is a %T", name, data)
			}
		}
	}
	return sum
}

func (p *platform) connections(t testing.TB) int64 { return p.count(t, "vss.http.connections") }

// inFlight is the memory that the server counts for calls under way.
func (p *platform) inFlight(t testing.TB) int64 { return p.count(t, "vss.memory.in_flight") }

// logbook keeps what a server logs.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// of waits for the line of the request with this answer, and returns it. There must be just one.
func (l *logbook) of(t testing.TB, a *answer) map[string]any {
	t.Helper()
	id := a.header.Get("X-Request-Id")
	var lines []map[string]any
	eventually(t, "the answer is logged", func() bool {
		for line := range strings.Lines(l.String()) {
			if strings.Contains(line, id) {
				var fields map[string]any
				check(t, json.Unmarshal([]byte(line), &fields))
				lines = append(lines, fields)
			}
		}
		return len(lines) > 0
	})
	if len(lines) != 1 {
		t.Fatalf("%d lines: %v", len(lines), lines)
	}
	return lines[0]
}

// fake is a store that does what a test says, and nothing where it says nothing.
type fake struct {
	get    func(ctx context.Context, ks storage.Keyspace, key string, admit storage.Admit) (storage.Object, error)
	put    func(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error
	delete func(ctx context.Context, ks storage.Keyspace, item storage.KeyVersion) error
	list   func(ctx context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error)
}

func (f fake) Get(ctx context.Context, ks storage.Keyspace, key string, admit storage.Admit) (storage.Object, error) {
	if f.get == nil {
		return storage.Object{Key: key, Version: 1}, nil
	}
	return f.get(ctx, ks, key, admit)
}

func (f fake) Put(ctx context.Context, ks storage.Keyspace, batch storage.Batch, _ storage.Limits) (storage.Written, error) {
	if f.put == nil {
		return storage.Written{}, nil
	}
	return storage.Written{}, f.put(ctx, ks, batch)
}

func (f fake) Delete(ctx context.Context, ks storage.Keyspace, item storage.KeyVersion) (storage.Written, error) {
	if f.delete == nil {
		return storage.Written{}, nil
	}
	return storage.Written{}, f.delete(ctx, ks, item)
}

func (f fake) List(ctx context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error) {
	if f.list == nil {
		return storage.Page{}, nil
	}
	return f.list(ctx, ks, req)
}

// always is a store every method of which does the same.
func always(do func(context.Context) error) fake {
	return fake{
		get: func(ctx context.Context, _ storage.Keyspace, _ string, _ storage.Admit) (storage.Object, error) {
			return storage.Object{}, do(ctx)
		},
		put:    func(ctx context.Context, _ storage.Keyspace, _ storage.Batch) error { return do(ctx) },
		delete: func(ctx context.Context, _ storage.Keyspace, _ storage.KeyVersion) error { return do(ctx) },
		list: func(ctx context.Context, _ storage.Keyspace, _ storage.ListRequest) (storage.Page, error) {
			return storage.Page{}, do(ctx)
		},
	}
}

// limited is a store of which only puts are asked, with their limits.
type limited func(context.Context, storage.Limits) (storage.Written, error)

func (limited) Get(context.Context, storage.Keyspace, string, storage.Admit) (storage.Object, error) {
	return storage.Object{}, storage.ErrNoSuchKey
}

func (l limited) Put(ctx context.Context, _ storage.Keyspace, _ storage.Batch, limits storage.Limits) (storage.Written, error) {
	return l(ctx, limits)
}

func (limited) Delete(context.Context, storage.Keyspace, storage.KeyVersion) (storage.Written, error) {
	return storage.Written{Objects: -1, Bytes: -1}, nil
}

func (limited) List(context.Context, storage.Keyspace, storage.ListRequest) (storage.Page, error) {
	return storage.Page{}, nil
}

// over lets a platform serve from this store.
func over(store storage.Store) func(*api.Config) {
	return func(cfg *api.Config) { cfg.Store = store }
}

// within gives calls so much time.
func within(timeout time.Duration) func(*api.Config) {
	return func(cfg *api.Config) { cfg.Timeout = timeout }
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	check(t, err)
	return body
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatal("not within 30 s: ", what)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// offline is an egress client for which no host is there.
type offline struct{ *egress.Client }

func (offline) GetFor(context.Context, uuid.UUID, string, http.Header) (egress.Response, error) {
	return egress.Response{}, &egress.Error{Reason: egress.NoHost}
}
