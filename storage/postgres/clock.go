package postgres

import (
	"sync/atomic"
	"time"
)

// clock tells the database's time. A write carries the instant after which it must have no effect, and the
// server compares it with its own clock; the two machines' clocks need not agree, so the instant is given in
// the server's time. It is read on every new connection and off every answer to a write, and in between our
// monotonic clock counts: a jump of our wall clock does nothing.
type clock struct {
	last atomic.Pointer[reading]
}

type reading struct {
	server time.Time
	ours   time.Time // with its monotonic part
}

// set takes a reading: server was its time before now. The instants that at returns are thus early by the way
// of the answer, never late.
func (c *clock) set(server time.Time) {
	c.last.Store(&reading{server: server, ours: time.Now()})
}

// refine takes a reading if it is the better one, as an answer that came faster is.
func (c *clock) refine(server time.Time) {
	now := time.Now()
	if server.After(c.at(now)) {
		c.last.Store(&reading{server: server, ours: now})
	}
}

// at is the server's time at our instant t; ours, if it was never read.
func (c *clock) at(t time.Time) time.Time {
	r := c.last.Load()
	if r == nil {
		return t
	}
	return r.server.Add(t.Sub(r.ours))
}
