// Package egress is the way out: the one HTTP client for everything that a tenant's URL can make the platform
// fetch. Such a URL is chosen by a stranger, and what answers it is written by one, so the client reaches only
// public addresses, takes only what it asked for, and every exchange has an end in time and in bytes.
package egress

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
	"github.com/google/uuid"
)

// Config says how a [Client] works.
type Config struct {
	// AllowPrivate lets the client reach every address, on every port, with http too: for development and
	// tests, where issuers run on this machine.
	AllowPrivate bool

	// Timeout is how long an exchange may take, from the look-up of the host to the last byte. 0: 5 s.
	Timeout time.Duration

	// MaxBytes is the largest body. 0: 1 MiB.
	MaxBytes int64

	// MaxHeaderBytes is the largest header of an answer. 0: 32 KiB.
	MaxHeaderBytes int64

	// MaxConcurrent is how many exchanges go on at once; others wait for their turn, until their context
	// ends. One tenant has at most an eighth of them, one host a quarter, and one host for one tenant a sixteenth. 0: 64.
	MaxConcurrent int
}

// Client fetches what tenants' URLs name. It is safe for concurrent use, and keeps no connections.
type Client struct {
	cfg    Config
	dialer net.Dialer
	turns  *turns

	// Tests put others here.
	public func(netip.Addr) bool
	roots  *x509.CertPool // nil: the system's
}

// New makes a client.
func New(cfg Config) *Client {
	setDefault(&cfg.Timeout, 5*time.Second)
	setDefault(&cfg.MaxBytes, 1<<20)
	setDefault(&cfg.MaxHeaderBytes, 32<<10)
	setDefault(&cfg.MaxConcurrent, 64)
	c := &Client{cfg: cfg, public: isPublic, turns: newTurns(cfg.MaxConcurrent)}
	c.dialer.Control = c.control
	return c
}

func setDefault[T int | int64 | time.Duration](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

// Response is an answer of any status but a redirect's.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Get is [Client.GetFor] for nobody in particular.
func (c *Client) Get(ctx context.Context, rawURL string, header http.Header) (Response, error) {
	return c.GetFor(ctx, uuid.Nil, rawURL, header)
}

// GetFor fetches a URL of the tenant, with these header fields besides the client's own. It fails with an [*Error] where that
// is the URL's or its server's doing, and with the context's error where the context ended.
func (c *Client) GetFor(ctx context.Context, tenant uuid.UUID, rawURL string, header http.Header) (Response, error) {
	u, err := c.parse(rawURL)
	if err != nil {
		return Response{}, err
	}
	leave, err := c.turns.take(ctx, visit{tenant, strings.ToLower(u.Host)})
	if err != nil {
		return Response{}, err
	}
	defer leave()
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()

	req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header.Clone()}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", "vss-cloud")
	// Some servers send gzip all the same.
	req.Header.Set("Accept-Encoding", "identity")

	// The transport and no http.Client: that would follow redirects and keep cookies.
	resp, err := c.transport(limited).RoundTrip(req.WithContext(limited))
	if err != nil {
		return Response{}, explain(ctx, err, NotHTTP)
	}
	defer resp.Body.Close()
	if reason := c.refuses(resp); reason != "" {
		refused := &Error{Reason: reason}
		if to, err := resp.Location(); reason == Redirect && err == nil {
			refused.Location = URL(to.String())
		}
		return Response{}, refused
	}
	body, err := c.read(resp)
	if err != nil {
		reason := NotHTTP
		if resp.Header.Get("Content-Encoding") != "" {
			reason = Compressed
		}
		return Response{}, explain(ctx, err, reason)
	}
	if int64(len(body)) > c.cfg.MaxBytes {
		return Response{}, &Error{Reason: TooLarge}
	}
	return Response{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

// transport is for one exchange, with its context. One that were shared would keep a connection being made, by
// a server that takes its time, after the exchange has ended: it hands dialers a context that does not.
func (c *Client) transport(ctx context.Context) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy: nil, // one would look up the host itself, where nobody checks the address
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return c.dial(ctx, address)
		},
		DialTLSContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return c.dialTLS(ctx, address)
		},
		DisableCompression:     true,
		DisableKeepAlives:      true, // fetches of one URL are minutes apart
		MaxResponseHeaderBytes: c.cfg.MaxHeaderBytes,
		Protocols:              protocols,
	}
}

// refuses says why an answer is not worth reading, or "".
func (c *Client) refuses(resp *http.Response) Reason {
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case resp.StatusCode < 200:
		return NotHTTP
	case resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified:
		return Redirect
	case encoding != "" && !strings.EqualFold(encoding, "identity") && !strings.EqualFold(encoding, "gzip"):
		return Compressed
	case resp.ContentLength > c.cfg.MaxBytes:
		return TooLarge
	}
	return ""
}

// read reads a body to a byte beyond the limit, which holds for it as sent and as inflated.
func (c *Client) read(resp *http.Response) ([]byte, error) {
	sent := &io.LimitedReader{R: resp.Body, N: c.cfg.MaxBytes + 1}
	if !strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") || resp.Body == http.NoBody {
		return io.ReadAll(sent)
	}
	inflated, err := gzip.NewReader(sent)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(inflated, c.cfg.MaxBytes+1))
	}
	if sent.N == 0 {
		return nil, &Error{Reason: TooLarge}
	}
	return body, err
}

// Check says what is wrong with a URL as far as that can be said without asking anybody, with an [*Error]:
// for telling whoever enters it. Get checks it again.
func (c *Client) Check(rawURL string) error {
	_, err := c.parse(rawURL)
	return err
}

func (c *Client) parse(rawURL string) (*url.URL, error) {
	refuse := func(reason Reason) (*url.URL, error) { return nil, &Error{Reason: reason} }
	u, err := url.Parse(rawURL)
	switch {
	case err != nil, len(rawURL) > 2048, strings.ContainsFunc(rawURL, notPrintableASCII):
		return refuse(BadURL)
	case u.Scheme != "https" && (u.Scheme != "http" || !c.cfg.AllowPrivate):
		return refuse(NotHTTPS)
	case u.Opaque != "", u.User != nil, strings.Contains(rawURL, "#"), !c.isHost(u.Hostname()):
		return refuse(BadURL)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !c.allows(addr) {
		return refuse(NotPublic)
	}
	if !c.allowsPort(u.Port()) {
		return refuse(BadPort)
	}
	return u, nil
}

func notPrintableASCII(r rune) bool { return r <= ' ' || r > '~' }

// isHost says whether a URL may name this host: an IP address or a full name, of labels as the DNS has them (RFC 1035),
// whose last one begins with no digit: some resolvers take such names ("127.1", "0x7f000001") for addresses.
func (c *Client) isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	name := strings.TrimSuffix(host, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	full := len(last) < len(name) || c.cfg.AllowPrivate
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return full && len(name) <= 253 && (last[0] < '0' || last[0] > '9')
}

func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
}

// allowsPort: wallet companies do run issuers on ports like 8443. The low ones are mail, SSH and the like;
// their servers have nothing to say to us, and their owners would see us knock.
func (c *Client) allowsPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && (n == 443 || n >= 1024 || c.cfg.AllowPrivate)
}

func (c *Client) allows(addr netip.Addr) bool { return c.cfg.AllowPrivate || c.public(addr) }

// guardian knows the special-purpose registries of IANA. To them comes Azure's 168.63.129.16, which every
// machine there reaches its host by: public by its number alone.
var guardian = ssrf.New(ssrf.WithDeniedV4Prefixes(netip.MustParsePrefix("168.63.129.16/32")))

func isPublic(addr netip.Addr) bool { return guardian.SafeAddr(addr) == nil }

// control is asked between the look-up and the connection, with the address that will be connected to: a name
// that resolves to something else than a moment ago gains nothing.
func (c *Client) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !c.allows(ap.Addr()) {
		return &Error{Reason: NotPublic}
	}
	return nil
}

// whole is the address with a dot at the end of its name: without, a resolver may try the name inside the
// domains of this machine's search list first.
func whole(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return address
	}
	return net.JoinHostPort(strings.TrimSuffix(host, ".")+".", port)
}

func (c *Client) dial(ctx context.Context, address string) (net.Conn, error) {
	if !c.cfg.AllowPrivate {
		address = whole(address)
	}
	conn, err := c.dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		return conn, nil
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.Timeout() {
		return nil, &Error{Reason: NoHost, err: err}
	}
	return nil, explain(ctx, err, NoConnection)
}

func (c *Client) dialTLS(ctx context.Context, address string) (net.Conn, error) {
	conn, err := c.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err == nil {
		tlsConn := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: c.roots, MinVersion: tls.VersionTLS12})
		if err = tlsConn.HandshakeContext(ctx); err == nil {
			return tlsConn, nil
		}
	}
	conn.Close()
	return nil, explain(ctx, err, BadTLS)
}
