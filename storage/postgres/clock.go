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

// refine takes a reading from the answer to what was sent at began, if it is a better one than the last: as it
// came faster, or as the last is ahead of what the server can have said, its clock having been put back.
func (c *clock) refine(server, began time.Time) {
	now := time.Now()
	if server.After(c.at(now)) || server.Before(c.at(began)) {
		c.last.Store(&reading{server: server, ours: now})
	}
}

// known says whether the clock was ever read.
func (c *clock) known() bool { return c.last.Load() != nil }

// at is the server's time at our instant t; ours, if it was never read.
func (c *clock) at(t time.Time) time.Time {
	r := c.last.Load()
	if r == nil {
		return t
	}
	return r.server.Add(t.Sub(r.ours))
}
