package egress

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnlyPublicAddressesAreReached(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", // this network, which Linux takes for this machine
		"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", // private
		"100.64.0.1", "100.100.100.200", "100.127.255.255", // carriers' NAT, and the metadata service of Alibaba
		"127.0.0.1", "127.255.255.255", "169.254.0.1", // loopback, link-local
		"169.254.169.254", "169.254.170.2", "168.63.129.16", "192.0.0.192", // metadata services
		"192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", // special
		"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", // multicast, reserved, broadcast
		"::", "::1", "::127.0.0.1", "::8.8.8.8", // unspecified, loopback, IPv4 inside IPv6 as it was once written
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", // mapped and translated IPv4
		"64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1", // NAT64
		"2002:7f00:1::", "2002:808:808::1", "2001::1", "2001:0:5ef5:79fb::1", // 6to4, Teredo
		"100::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1", "5f00::1", // special
		"fc00::1", "fd00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::1%eth0", "fec0::1", // local
		"ff02::1", "ff0e::1", "4000::1", // multicast, never assigned
		"2606:4700::1111%eth0", // a public one does not name an interface
	} {
		if isPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s would be reached", s)
		}
	}
	for _, s := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
		"168.63.129.15", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "223.255.255.255",
		"2001:4860:4860::8888", "2606:4700::1111", "2a00:1450::1",
	} {
		if !isPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s would not be reached", s)
		}
	}
}

func TestWhatIsWrongWithAURLIsSaidBeforeAnybodyIsAsked(t *testing.T) {
	t.Parallel()
	tests := []struct {
		url               string
		reason, inPrivate Reason
	}{
		{url: "https://issuer.example.com/.well-known/jwks.json?a=b"},
		{url: "https://issuer.example.com"},
		{url: "HTTPS://ISSUER.EXAMPLE.COM./"},
		{url: "https://issuer.example.com:443/"},
		{url: "https://issuer.example.com:8443/"},
		{url: "https://issuer.example.com:65535/"},
		{url: "https://xn--bcher-kva.example/"},
		{url: "https://a_b.example.com/"},
		{url: "https://1.1.1.1/"},
		{url: "https://[2606:4700::1111]:443/"},

		{"", NotHTTPS, NotHTTPS},
		{"issuer.example.com/jwks", NotHTTPS, NotHTTPS},
		{"//issuer.example.com/jwks", NotHTTPS, NotHTTPS},
		{"http://issuer.example.com/", NotHTTPS, ""},
		{"ftp://issuer.example.com/", NotHTTPS, NotHTTPS},
		{"file:///etc/passwd", NotHTTPS, NotHTTPS},
		{"gopher://issuer.example.com/", NotHTTPS, NotHTTPS},
		{"https:issuer.example.com", BadURL, BadURL},
		{"https:///jwks", BadURL, BadURL},
		{"https://", BadURL, BadURL},
		{"https://user@issuer.example.com/", BadURL, BadURL},
		{"https://user:password@issuer.example.com/", BadURL, BadURL},
		{"https://@issuer.example.com/", BadURL, BadURL},
		{"https://issuer.example.com/#key", BadURL, BadURL},
		{"https://issuer.example.com/#", BadURL, BadURL},
		{"https://issuer.example.com\\@evil.example/", BadURL, BadURL},
		{"https://issuer.example.com/ a", BadURL, BadURL},
		{"https://issuer.example.com/\r\nHost: evil.example", BadURL, BadURL},
		{" https://issuer.example.com/", BadURL, BadURL},
		{"https://bücher.example/", BadURL, BadURL},
		{"https://iss%75er.example.com/", BadURL, BadURL},
		{"https://issuer.example.com/" + strings.Repeat("a", 2048), BadURL, BadURL},
		{"https://" + strings.Repeat("a.", 127) + "com/", BadURL, BadURL},
		{"https://2130706433/", BadURL, BadURL},
		{"https://0x7f000001/", BadURL, BadURL},
		{"https://0x7f.1/", BadURL, BadURL},
		{"https://127.1/", BadURL, BadURL},
		{"https://127.0.0.01/", BadURL, BadURL},
		{"https://127.0.0.1./", BadURL, BadURL},
		{"https://./", BadURL, BadURL},
		{"https://a..b/", BadURL, BadURL},
		{"https://.example.com/", BadURL, BadURL},
		{"https://issuer.example.com../", BadURL, BadURL},
		{"https://-a.example.com/", BadURL, BadURL},
		{"https://a-.example.com/", BadURL, BadURL},
		{"https://" + strings.Repeat("a", 64) + ".example.com/", BadURL, BadURL},
		{url: "https://" + strings.Repeat("a", 63) + ".example.com/"},
		{"https://*.example.com/", BadURL, BadURL},

		{"https://localhost/", BadURL, ""},
		{"https://kubernetes:8443/", BadURL, ""},
		{"https://127.0.0.1/", NotPublic, ""},
		{"https://[::1]/", NotPublic, ""},
		{"https://[::ffff:127.0.0.1]/", NotPublic, ""},
		{"https://[fe80::1%25eth0]/", NotPublic, ""},
		{"https://169.254.169.254/latest/meta-data", NotPublic, ""},

		{"https://issuer.example.com:22/", BadPort, ""},
		{"https://issuer.example.com:25/", BadPort, ""},
		{"https://issuer.example.com:80/", BadPort, ""},
		{"https://issuer.example.com:1023/", BadPort, ""},
		{"https://issuer.example.com:0/", BadPort, BadPort},
		{"https://issuer.example.com:65536/", BadPort, BadPort},
		{"https://issuer.example.com:https/", BadURL, BadURL},
	}
	public, private := New(Config{}), New(Config{AllowPrivate: true})
	for _, tc := range tests {
		wantReason(t, tc.url, public.Check(tc.url), tc.reason)
		wantReason(t, tc.url+" (private)", private.Check(tc.url), tc.inPrivate)
	}
}

func wantReason(t *testing.T, what string, err error, want Reason) {
	t.Helper()
	if want == "" && err == nil {
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Reason != want {
		t.Errorf("%s: got %v (%T), want %q", what, err, err, want)
	}
	if ok && e.Error() == "" {
		t.Errorf("%s: %q has no text", what, e.Reason)
	}
}

// get fetches from a server of the test's own.
func get(t *testing.T, c *Client, url string) (Response, error) {
	t.Helper()
	return c.Get(t.Context(), url, nil)
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

func TestAnAnswerComesBackAsItWasSent(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 201, 304, 400, 404, 429, 500, 503} {
		body := "<html>hello</html>" // what it is, is for the caller to say
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(status)
			if status != http.StatusNotModified {
				fmt.Fprint(w, body)
			}
		})
		got, err := get(t, New(Config{AllowPrivate: true}), url)
		if status == http.StatusNotModified {
			body = ""
		}
		if err != nil || got.Status != status || string(got.Body) != body || got.Header.Get("ETag") != `"1"` {
			t.Errorf("%d: got %+v, %v", status, got, err)
		}
	}
}

func TestARequestSaysWhoAsksAndCarriesNoState(t *testing.T) {
	t.Parallel()
	var requests []*http.Request // one after the other
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests = append(requests, r)
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
	})
	c := New(Config{AllowPrivate: true})
	header := http.Header{"If-None-Match": {`"1"`}, "User-Agent": {"other"}}
	for range 2 {
		if _, err := c.Get(t.Context(), u+"/a?b=c", header); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range requests {
		want := http.Header{
			"User-Agent": {"vss-cloud"}, "Accept-Encoding": {"identity"}, "If-None-Match": {`"1"`}, "Connection": {"close"},
		}
		for name, values := range r.Header {
			if len(values) != 1 || want.Get(name) != values[0] {
				t.Errorf("sent %s: %q", name, values)
			}
		}
		if r.RequestURI != "/a?b=c" || r.Method != http.MethodGet || len(r.Header) != len(want) {
			t.Errorf("sent %s %s %v", r.Method, r.RequestURI, r.Header)
		}
	}
	if header.Get("User-Agent") != "other" {
		t.Error("the caller's header was changed")
	}
}

// listen answers connections, each in a goroutine of its own, until the test ends.
func listen(t *testing.T, address string, respond func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				respond(conn)
			})
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-accepting
		conns.Wait()
	})
	return listener.Addr().String()
}

func readRequest(conn net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(conn)) }

// hold says nothing, until the other side hangs up.
func hold(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func TestARedirectIsAnErrorAndIsNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	target := serve(t, func(http.ResponseWriter, *http.Request) { followed.Store(true) })
	for _, status := range []int{300, 301, 302, 303, 305, 307, 308} {
		_, err := get(t, New(Config{AllowPrivate: true}), serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", target)
			w.WriteHeader(status)
		}))
		wantReason(t, http.StatusText(status), err, Redirect)
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func TestTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	c := New(Config{AllowPrivate: true})
	const size = 100 << 20
	var sent atomic.Int64
	flood := func(w http.ResponseWriter) {
		chunk := make([]byte, 64<<10)
		for range size / len(chunk) {
			n, err := w.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 8<<20)) // eight times what is taken, in a few KB
	z.Close()
	var empty bytes.Buffer
	gzip.NewWriter(&empty).Close()
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		reason  Reason
	}{
		"100 MB, announced": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "104857600")
			flood(w)
		}, TooLarge},
		"100 MB in chunks": {func(w http.ResponseWriter, _ *http.Request) { flood(w) }, TooLarge},
		"a byte too many":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20+1)) }, TooLarge},
		"just as many":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }, ""},
		"a long header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 100<<10))
		}, NotHTTP},
		"many headers": {func(w http.ResponseWriter, _ *http.Request) {
			for range 10_000 {
				w.Header().Add("X", "x")
			}
		}, NotHTTP},
		"a gzip bomb": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		}, TooLarge},
		"gzip that is cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes()[:100])
		}, Compressed},
		"gzip that is none": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, `{"keys":[]}`)
		}, Compressed},
		"gzip of nothing, without end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bytes.Repeat(empty.Bytes(), 2<<20/empty.Len()))
		}, TooLarge},
		"brotli": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "br") }, Compressed},
	} {
		sent.Store(0)
		_, err := get(t, c, serve(t, tc.handler))
		wantReason(t, name, err, tc.reason)
		if n := sent.Load(); n > 16<<20 { // what sockets hold
			t.Errorf("%s: the server got rid of %d bytes", name, n)
		}
	}
}

func TestAnExchangeEndsInTime(t *testing.T) {
	t.Parallel()
	drip := func(begin string) func(net.Conn) {
		return func(conn net.Conn) {
			if begin != "" {
				readRequest(conn)
			}
			fmt.Fprint(conn, begin)
			for {
				if _, err := conn.Write([]byte{'x'}); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	for name, tc := range map[string]struct {
		scheme  string
		respond func(net.Conn)
	}{
		"no answer":        {"http", hold},
		"a slow header":    {"http", drip("HTTP/1.1 200 OK\r\nX: ")},
		"a slow body":      {"http", drip("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")},
		"endless hints":    {"http", drip("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: ")},
		"no TLS handshake": {"https", hold},
		"a slow TLS handshake": {"https", func(conn net.Conn) {
			_, _ = conn.Write([]byte{22, 3, 3, 64, 0})
			drip("")(conn)
		}},
	} {
		const timeout = 200 * time.Millisecond
		began := time.Now()
		_, err := get(t, New(Config{AllowPrivate: true, Timeout: timeout}), tc.scheme+"://"+listen(t, "127.0.0.1:0", tc.respond))
		wantReason(t, name, err, TimedOut)
		if took := time.Since(began); took < timeout || took > 20*timeout {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

func TestWhatIsNoHTTPIsRefused(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"nothing":            "",
		"another protocol":   "220 mail.example.com ESMTP\r\n",
		"a switch to one":    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		"a body cut short":   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
		"two lengths":        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
		"a negative length":  "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n12",
		"a broken chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"too many hints":     strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 2000),
		"a header with NULs": "HTTP/1.1 200 OK\r\nX\x00: y\r\n\r\n",
	} {
		_, err := get(t, New(Config{AllowPrivate: true}), "http://"+listen(t, "127.0.0.1:0", func(conn net.Conn) {
			readRequest(conn)
			fmt.Fprint(conn, answer)
		}))
		wantReason(t, name, err, NotHTTP)
		if err != nil && strings.Contains(err.Error(), "mail") {
			t.Errorf("%v repeats what the server said", err)
		}
	}
}

func TestTheCallersContextEndsAnExchangeWithoutBlamingTheURL(t *testing.T) {
	t.Parallel()
	c := New(Config{AllowPrivate: true, MaxConcurrent: 1})
	entered := make(chan struct{})
	url := "http://" + listen(t, "127.0.0.1:0", func(conn net.Conn) {
		readRequest(conn)
		close(entered)
		hold(conn)
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Get(ctx, url, nil)
		done <- err
	}()
	<-entered
	// The one turn is taken, so this one waits for it.
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := c.Get(short, url, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a turn: got %v", err)
	}
	cancel()
	err := <-done
	if _, blamed := errors.AsType[*Error](err); blamed || !errors.Is(err, context.Canceled) {
		t.Errorf("under way: got %v", err)
	}
}

// A resolver that tests write the answers of.
type resolver struct {
	mu    sync.Mutex
	asked []string
	addrs []netip.Addr // one an answer; the last one for ever
}

func (r *resolver) use(t *testing.T, c *Client) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		query := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(query[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = r.answer(q)
			}
			if packed, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	c.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

func (r *resolver) answer(q dnsmessage.Question) []dnsmessage.Resource {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, q.Name.String())
	addr := r.addrs[0]
	if len(r.addrs) > 1 {
		r.addrs = r.addrs[1:]
	}
	return []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
		Body:   &dnsmessage.AResource{A: addr.As4()},
	}}
}

func TestANameThatResolvesToSomethingElseThanBeforeGainsNothing(t *testing.T) {
	t.Parallel()
	// In this test 127.0.0.2 is a public address, and 127.0.0.1 what it is: the platform's own.
	public, private := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "public") }))
	server.Listener.Close()
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.StartTLS()
	t.Cleanup(server.Close)
	port := listener.Addr().(*net.TCPAddr).AddrPort().Port()
	var reached atomic.Bool
	listen(t, netip.AddrPortFrom(private, port).String(), func(net.Conn) { reached.Store(true) })

	c := New(Config{})
	c.public = func(addr netip.Addr) bool { return addr == public }
	c.roots = x509.NewCertPool()
	c.roots.AddCert(server.Certificate())
	r := &resolver{addrs: []netip.Addr{public, private}}
	r.use(t, c)

	u := (&url.URL{Scheme: "https", Host: fmt.Sprint("example.com:", port)}).String()
	if err := c.Check(u); err != nil {
		t.Fatal(err)
	}
	got, err := get(t, c, u)
	if err != nil || string(got.Body) != "public" {
		t.Fatalf("at its public address: %+v, %v", got, err)
	}
	_, err = get(t, c, u)
	wantReason(t, "at its private address", err, NotPublic)
	if err != nil && strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("%v says what the name resolves to", err)
	}
	if reached.Load() {
		t.Error("the private address was reached")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range r.asked {
		if name != "example.com." {
			t.Errorf("%q was looked up too", name)
		}
	}
}

func TestANameIsNotTriedInsideThisMachinesDomains(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"issuer.example.com:443":  "issuer.example.com.:443",
		"issuer.example.com.:443": "issuer.example.com.:443",
		"192.0.2.1:443":           "192.0.2.1:443",
		"[2001:db8::1]:443":       "[2001:db8::1]:443",
	} {
		if got := whole(address); got != want {
			t.Errorf("%s: got %s", address, got)
		}
	}
}

func TestWhatKeepsAConnectionFromBeingMadeIsSaid(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	c := New(Config{AllowPrivate: true})

	_, err := get(t, c, server.URL)
	wantReason(t, "a certificate of nobody", err, BadTLS)
	if err != nil && !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("%v does not say what is wrong with it", err)
	}
	_, err = get(t, c, strings.Replace(plain, "http:", "https:", 1))
	wantReason(t, "no TLS", err, BadTLS)

	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	_, err = get(t, c, "http://"+closed.Addr().String())
	wantReason(t, "nobody there", err, NoConnection)
	if err != nil && strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("%v says where", err)
	}

	c = New(Config{})
	c.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no network")
	}}
	_, err = get(t, c, "https://issuer.example.com/")
	wantReason(t, "no DNS", err, NoHost)
}
