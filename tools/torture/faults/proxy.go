// Package faults breaks things: connections, processes, disks and clocks, each fault by a program that can be
// put on a schedule.
package faults

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vss-cloud/vss-cloud/db/dbtest/pgwire"
)

// Proxy passes connections on as they are, until it is told otherwise.
type Proxy struct {
	address string
	dial    func() (net.Conn, error)
	up      func(*link) // carries the client's bytes to the server
	down    func(*link) // and back

	mu     sync.Mutex
	ln     net.Listener // nil: nobody listens
	links  map[*link]struct{}
	thawed chan struct{} // closed; open while frozen
	cuts   struct{ requests, answers int }

	serving sync.WaitGroup
}

// link is one connection through the proxy.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	close          func()

	fate     atomic.Int32  // Action on the answers of a database
	answered chan struct{} // closed when those to CutAfter have come, or the link has ended
}

// NewProxy makes a proxy to whatever dial reaches, asked anew for each connection.
func NewProxy(dial func() (net.Conn, error)) (*Proxy, error) {
	p := &Proxy{dial: dial, up: (*link).requests, down: (*link).answers}
	return p, p.start()
}

func (p *Proxy) start() error {
	p.address = "127.0.0.1:0"
	p.links = make(map[*link]struct{})
	p.thawed = make(chan struct{})
	close(p.thawed)
	return p.Up()
}

// Address is where it listens, also after Down and Up.
func (p *Proxy) Address() string { return p.address }

// Up listens again after Down.
func (p *Proxy) Up() error {
	ln, err := net.Listen("tcp", p.address)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address, p.ln = ln.Addr().String(), ln
	p.serving.Go(func() { p.serve(ln) })
	return nil
}

// Down refuses connections, as where no process listens, and cuts those that there are.
func (p *Proxy) Down() {
	p.mu.Lock()
	ln := p.ln
	p.ln = nil
	p.mu.Unlock()
	if ln != nil {
		_ = ln.Close()
	}
	p.Cut()
}

// Cut ends all connections. New ones can be made.
func (p *Proxy) Cut() {
	p.mu.Lock()
	links := p.links
	p.links = make(map[*link]struct{})
	p.mu.Unlock()
	for l := range links {
		l.close()
	}
}

// Freeze stops all bytes, both ways, without a word to either side, until Thaw.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
		p.thawed = make(chan struct{})
	default:
	}
}

// Thaw ends Freeze. What was held up goes on its way.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
	default:
		close(p.thawed)
	}
}

// CutRequests cuts the next n requests in their middle.
func (p *Proxy) CutRequests(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts.requests = n
}

// CutAnswers cuts the next n answers at their beginning or in their middle.
func (p *Proxy) CutAnswers(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts.answers = n
}

// Close ends the proxy.
func (p *Proxy) Close() error {
	p.Thaw()
	p.Down()
	p.serving.Wait()
	return nil
}

func (p *Proxy) serve(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				time.Sleep(10 * time.Millisecond) // out of descriptors, for a moment
				continue
			}
			return
		}
		server, err := p.dial()
		if err != nil {
			_ = client.Close()
			continue
		}
		l := &link{proxy: p, client: client, server: server, answered: make(chan struct{})}
		l.close = sync.OnceFunc(func() { _, _ = client.Close(), server.Close() })
		p.mu.Lock()
		current := p.ln == ln
		if current {
			p.links[l] = struct{}{}
		}
		p.mu.Unlock()
		if !current {
			l.close()
			return
		}
		carry := func(bytes func(*link)) func() {
			return func() {
				bytes(l)
				l.close()
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(p.links, l)
			}
		}
		p.serving.Go(carry(p.up))
		p.serving.Go(carry(p.down))
	}
}

// gate waits while the proxy is frozen, or until the link is closed from outside, which the next write tells.
func (p *Proxy) gate() {
	p.mu.Lock()
	thawed := p.thawed
	p.mu.Unlock()
	<-thawed
}

// take counts one of n that are still to be cut.
func (p *Proxy) take(n *int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *n == 0 {
		return false
	}
	*n--
	return true
}

func (l *link) requests() { l.carry(l.client, l.server, &l.proxy.cuts.requests) }

func (l *link) answers() {
	defer close(l.answered)
	l.carry(l.server, l.client, &l.proxy.cuts.answers)
}

// carry passes bytes on, and ends in the middle of what came last if there is something to be cut.
func (l *link) carry(from, to net.Conn, cuts *int) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		l.proxy.gate()
		if fate := Action(l.fate.Load()); fate != Pass && from == l.server {
			if err != nil || fate == CutAfter && pgwire.Answered(buf[:n]) {
				return
			}
			continue
		}
		if n > 0 {
			cut := l.proxy.take(cuts)
			if cut {
				n /= 2
			}
			if _, err := to.Write(buf[:n]); err != nil || cut {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
