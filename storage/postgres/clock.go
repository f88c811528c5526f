package postgres

import (
	"sync/atomic"
	"time"
)

// clock tells the database's time. A write carries the instant after which it must have no effect, and the
// server compares it with its own clock; the two machines' clocks need not agree, so the instant is
// given in the server's time. Between two readings our monotonic clock counts, so a jump of our wall clock
// does nothing, and one of the server's lasts until the next answer, as every answer is a reading.
type clock struct {
	last atomic.Pointer[reading]
}

type reading struct {
	server time.Time
	ours   time.Time // with its monotonic part
}

// read takes a reading: server was its time before now. The instants that at returns are thus early by the
// way of the answer, never late.
func (c *clock) read(server time.Time) {
	c.last.Store(&reading{server: server, ours: time.Now()})
}

// at is the server's time at our instant t. False if the clock was never read.
func (c *clock) at(t time.Time) (time.Time, bool) {
	r := c.last.Load()
	if r == nil {
		return time.Time{}, false
	}
	return r.server.Add(t.Sub(r.ours)), true
}
