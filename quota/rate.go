package quota

import (
	"math/bits"
	"time"
)

// MaxDelay is the longest that a write is told to wait so that a burst becomes a rate: short against the
// 8.5 s that a call has (CONTRACT sections 3 and 5).
const MaxDelay = time.Second

// forever bounds all times here, so that none of their sums overflows.
const forever = time.Duration(1 << 61)

// Rate is how often something may happen: Burst times at once, and once more each Interval after that. The
// zero Rate is no limit.
type Rate struct {
	Interval time.Duration
	Burst    int64 // less than 1 counts as 1
}

// PerMinute is a rate of n a minute; no limit where n is less than 1. The interval is cut to whole nanoseconds,
// which makes a rate of a million a second up to 0.1 % faster.
func PerMinute(n, burst int64) Rate {
	if n < 1 {
		return Rate{}
	}
	return Rate{Interval: time.Minute / time.Duration(n), Burst: burst}
}

// AtLeast is the rate with a burst that is no smaller than this.
func (r Rate) AtLeast(burst int64) Rate {
	r.Burst = max(r.Burst, burst)
	return r
}

// Bucket is the state of a [Rate] for one key: the instant at which the bucket will be full again (the
// "theoretical arrival time" of GCRA, ITU-T I.371), as time since an origin that the caller chooses. The zero
// Bucket is full. One that is full is not worth keeping, since it is as a new one.
type Bucket time.Duration

// Verdict is what a limit says to a call.
type Verdict struct {
	OK   bool
	Wait time.Duration // before it is to be done; only ever above 0 where the caller had patience

	// RetryAfter is, for a call that is refused, when it would be admitted without waiting if no other came.
	RetryAfter time.Duration
}

// Take asks for one call at now, which can wait for patience, at most [MaxDelay]. It returns the bucket as it
// is afterwards. A refused call costs nothing.
//
// The rate of a bucket may change from one call to the next. Nobody then owes more than a burst of the new
// rate: a plan with a higher rate or an instance more must not make a wallet wait for the debt of the old one.
func (r Rate) Take(b Bucket, now, patience time.Duration) (Bucket, Verdict) {
	if r.Interval <= 0 {
		return b, Verdict{OK: true}
	}
	tolerance := r.tolerance()
	full := max(min(time.Duration(b), now+tolerance+MaxDelay), now)
	next := full + r.Interval
	wait := max(next-tolerance-now, 0)
	if wait > min(patience, MaxDelay) {
		return Bucket(full), Verdict{RetryAfter: wait}
	}
	return Bucket(next), Verdict{OK: true, Wait: wait}
}

// giveBack undoes a Take of a moment ago.
func (r Rate) giveBack(b Bucket) Bucket { return b - Bucket(max(r.Interval, 0)) }

// tolerance is how long an empty bucket takes to fill.
func (r Rate) tolerance() time.Duration {
	high, low := bits.Mul64(uint64(max(r.Burst, 1)), uint64(r.Interval))
	if high > 0 || low > uint64(forever) {
		return forever
	}
	return time.Duration(low)
}

// Patience is how long a call of this kind may be made to wait when it has this much time left. Reads and
// lists have none: the client pipelines them, and the put behind them on the connection, whose 10 s run,
// would wait too (CONTRACT section 5). A write keeps most of its time for the store.
func Patience(k Kind, left time.Duration) time.Duration {
	if k != Write {
		return 0
	}
	return min(max(left/4, 0), MaxDelay)
}

// Seconds is a duration as a Retry-After header has it (RFC 9110, section 10.2.3): whole seconds, rounded up
// so that who comes back then is not too early, and at least 1.
func Seconds(d time.Duration) int64 {
	return max(int64((d+time.Second-1)/time.Second), 1)
}
