package faults

import (
	"bufio"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/db/dbtest/pgwire"
)

// Action is what a [DatabaseProxy] does with a batch of statements on its way to the server.
type Action int

// The actions. A batch that is late or lost is so from its end on, which is what makes the server act.
const (
	Pass      Action = iota
	CutBefore        // the server never gets its end; both sides see the connection break
	CutAfter         // the server does it all, the client sees the connection break and no answer
	Silence          // the server does it all, and the client hears nothing more on a connection that stays
)

// DatabaseProxy is a [Proxy] in front of PostgreSQL that knows where a batch of statements ends: there lies
// the commit of an implicit transaction.
type DatabaseProxy struct {
	*Proxy
	url     url.URL
	inspect atomic.Pointer[func(statements []string) Action]
	trips   atomic.Int64
}

// NewDatabaseProxy makes a proxy to the server of a URL.
func NewDatabaseProxy(serverURL string) (*DatabaseProxy, error) {
	cfg, err := pgconn.ParseConfig(serverURL)
	if err != nil {
		return nil, err
	}
	network, address := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	p := &DatabaseProxy{url: url.URL{Scheme: "postgres", User: url.User(cfg.User), Path: cfg.Database, RawQuery: "sslmode=disable"}}
	if cfg.Password != "" {
		p.url.User = url.UserPassword(cfg.User, cfg.Password)
	}
	p.Proxy = &Proxy{dial: func() (net.Conn, error) { return net.DialTimeout(network, address, 5*time.Second) }}
	p.up, p.down = p.toServer, (*link).answers
	return p, p.start()
}

// URL reaches the database through the proxy.
func (p *DatabaseProxy) URL() string {
	u := p.url
	u.Host = p.Address()
	return u.String()
}

// Inspect has every batch decided by f as its end passes (a Sync of the extended protocol, or a simple query).
// f may take its time. nil: all pass.
func (p *DatabaseProxy) Inspect(f func(statements []string) Action) {
	if f == nil {
		p.inspect.Store(nil)
		return
	}
	p.inspect.Store(&f)
}

// Trips is how many batches have passed so far.
func (p *DatabaseProxy) Trips() int64 { return p.trips.Load() }

// toServer passes the client's messages on, message by message.
func (p *DatabaseProxy) toServer(l *link) {
	in, out := pgwire.NewReader(l.client), bufio.NewWriter(l.server)
	for {
		m, err := in.Next()
		if err != nil {
			return
		}
		action := Pass
		if m.Ends {
			p.trips.Add(1)
			if inspect := p.inspect.Load(); inspect != nil {
				action = (*inspect)(m.Batch)
			}
		}
		p.gate()
		switch action {
		case Pass:
		case CutBefore:
			_ = out.Flush() // what came before it is on its way, as it would be
			return
		case CutAfter, Silence:
			l.fate.Store(int32(action))
		}
		_, _ = out.Write(m.Bytes)
		if m.Ends || in.Waits() {
			if err := out.Flush(); err != nil {
				return
			}
		}
		switch action {
		case CutAfter:
			select {
			case <-l.answered:
			case <-time.After(time.Minute):
			}
			return
		case Silence:
			_, _ = io.Copy(io.Discard, l.client) // until the client has had enough
			return
		case Pass, CutBefore:
		}
	}
}
