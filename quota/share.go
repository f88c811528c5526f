package quota

import "time"

// maxInstances is far above any number of instances, and keeps intervals within bounds.
const maxInstances = 1 << 16

// Fleet is how many API instances live, as it was last read from their heartbeats. Each gives out its part
// of a rate, so that together they give out the rate, whatever instance a client talks to. The zero Fleet is
// one that was never read.
type Fleet struct {
	Live int       // this one included
	Read time.Time // when
}

// staleAfter is the age at which a count is not to be relied on: three heartbeats of 5 s.
const staleAfter = 15 * time.Second

// Known is by how many instances the rates of wallets that are known are divided: by 1 where the count is
// stale or was never read. Instances may have gone since, and the shares of those who are left would together
// be less than the rate: a limit must err towards serving (CONTRACT section 5). It costs that a tenant gets up
// to as many times its rate as there are instances, while the database, which counts them, is away anyway.
func (f Fleet) Known(now time.Time) int {
	if now.Sub(f.Read) >= staleAfter {
		return 1
	}
	return f.Strangers()
}

// Strangers is by how many instances the rates of those who are not known are divided, which are enrolments
// and attempts to log in: by the last count, however old. To hold up a new wallet endangers no channel, and
// an outage must not be the moment to enrol a million.
func (f Fleet) Strangers() int { return min(max(f.Live, 1), maxInstances) }

// Over is one instance's part of the rate, where n live. The burst is each one's whole: the calls of a burst
// come over one connection, to one instance, and a wallet that starts reads all it has.
func (r Rate) Over(n int) Rate {
	r.Interval = min(r.Interval, forever/maxInstances) * time.Duration(n)
	return r
}

// Split is one instance's part of the rate and of the burst, which is rounded up.
func (r Rate) Split(n int) Rate {
	r = r.Over(n)
	r.Burst = (max(r.Burst, 1)-1)/int64(n) + 1
	return r
}
