package dbtest

import (
	"bufio"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/db/dbtest/pgwire"
)

// Action is what a [Proxy] does with a batch of statements on its way to the server.
type Action int

const (
	Pass      Action = iota
	CutBefore        // the server never gets the end of it; both sides see the connection break
	CutAfter         // the server does it all, the client sees the connection break and no answer
)

// Proxy stands between a client and the test server and breaks connections where a test says so.
type Proxy struct {
	url     string
	network string // of the server
	address string
	ln      net.Listener

	mu      sync.Mutex
	conns   map[net.Conn]struct{} // both sides
	down    bool
	inspect func(statements []string) Action
	arrive  func(statement string)
	trips   int
	cancels int
}

// NewProxy makes a proxy to the server of a URL that New or Empty gave. t closes it.
func NewProxy(t testing.TB, serverURL string) *Proxy {
	t.Helper()
	cfg, err := pgconn.ParseConfig(serverURL)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{conns: make(map[net.Conn]struct{})}
	p.network, p.address = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	if p.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password),
		Host: p.ln.Addr().String(), Path: cfg.Database, RawQuery: "sslmode=disable",
	}
	p.url = u.String()
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(&serving) })
	t.Cleanup(func() {
		_ = p.ln.Close()
		p.Down()
		serving.Wait()
	})
	return p
}

// URL reaches the database through the proxy.
func (p *Proxy) URL() string { return p.url }

// Down cuts all connections and lets none be made until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// Up ends Down.
func (p *Proxy) Up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// OnStatement has f called before each statement of the extended protocol passes; it may take its time. What
// came before it is on its way by then. nil: nobody is.
func (p *Proxy) OnStatement(f func(statement string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrive = f
}

// Inspect has every batch of statements decided by f as its end passes (a Sync of the extended protocol, or
// a simple query): for an implicit transaction that is its commit. f may take its time; the server has the
// statements themselves by then. nil: all pass.
func (p *Proxy) Inspect(f func(statements []string) Action) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inspect = f
}

// Trips is how many batches have passed so far: the round trips of its clients.
func (p *Proxy) Trips() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trips
}

// CancelRequests is how many cancel requests have come, which pass as everything does.
func (p *Proxy) CancelRequests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cancels
}

func (p *Proxy) serve(serving *sync.WaitGroup) {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.address)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		refused := p.down
		if !refused {
			p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		}
		p.mu.Unlock()
		if refused {
			_, _ = client.Close(), server.Close()
			continue
		}
		done := func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.conns, client)
			delete(p.conns, server)
			_, _ = client.Close(), server.Close()
		}
		link := &link{client: client, server: server, answered: make(chan struct{})}
		serving.Go(func() { defer done(); p.toServer(link) })
		serving.Go(func() { defer done(); link.toClient() })
	}
}

// link is one connection through the proxy.
type link struct {
	client, server net.Conn

	muted    atomic.Bool   // the server's answers go nowhere
	answered chan struct{} // closed when a muted server is ready for the next batch, or the link is cut
}

// toClient passes the server's bytes on.
func (l *link) toClient() {
	defer close(l.answered)
	buf := make([]byte, 32<<10)
	for {
		n, err := l.server.Read(buf)
		if l.muted.Load() {
			if err != nil || pgwire.Answered(buf[:n]) {
				return
			}
			continue
		}
		if n > 0 {
			if _, err := l.client.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// toServer passes the client's messages on, message by message.
func (p *Proxy) toServer(l *link) {
	in, out := pgwire.NewReader(l.client), bufio.NewWriter(l.server)
	for {
		m, err := in.Next()
		if err != nil {
			return
		}
		p.mu.Lock()
		inspect, arrive := p.inspect, p.arrive
		if m.Ends {
			p.trips++
		}
		if m.Cancel {
			p.cancels++
		}
		p.mu.Unlock()
		if m.Statement != "" && arrive != nil {
			_ = out.Flush()
			arrive(m.Statement)
		}
		action := Pass
		if m.Ends && inspect != nil {
			_ = out.Flush()
			action = inspect(m.Batch)
		}
		switch action {
		case Pass:
		case CutBefore:
			return
		case CutAfter:
			l.muted.Store(true)
		}
		_, _ = out.Write(m.Bytes)
		if m.Ends || in.Waits() {
			if err := out.Flush(); err != nil {
				return
			}
		}
		if action == CutAfter {
			<-l.answered
			return
		}
	}
}
