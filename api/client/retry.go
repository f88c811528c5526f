package client

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"time"
)

// Retry says how often and when a call is tried again. Its zero value is ldk-node's policy since 0.7 within
// the bounds of CONTRACT section 1: about 164 s of sleeping in 14 attempts. A person who waits for an
// answer wants fewer: 6 attempts sleep for half a second.
type Retry struct {
	// MaxAttempts is how often a call is tried in all. Zero: 14. One: never again.
	MaxAttempts int

	// Base makes the delays: after attempt n it is Base times 2^n - 1, as in vss-client. Zero: 10 ms.
	Base time.Duration

	// MaxJitter bounds what is added to each delay, at random. Zero: 100 ms. Negative: nothing.
	MaxJitter time.Duration

	// MaxDelay bounds the sum of the delays of a call: it ends instead of going over. Zero: 180 s.
	MaxDelay time.Duration

	// FailFast ends a call at once that was refused for its credential, for which none could be had, or whose
	// URL names no tenant. Released wallets try on, in case an operator mends it in time; a person, a script
	// or a server would rather know.
	FailFast bool
}

func (r Retry) withDefaults() Retry {
	return Retry{
		MaxAttempts: cmp.Or(r.MaxAttempts, 14),
		Base:        cmp.Or(r.Base, 10*time.Millisecond),
		MaxJitter:   cmp.Or(r.MaxJitter, 100*time.Millisecond),
		MaxDelay:    cmp.Or(r.MaxDelay, 180*time.Second),
		FailFast:    r.FailFast,
	}
}

// delay is how long to wait after so many attempts and so much waiting, and whether to try again at all.
func (r Retry) delay(attempts int, slept time.Duration) (time.Duration, bool) {
	if attempts >= r.MaxAttempts {
		return 0, false
	}
	factor := int64(1)<<min(attempts, 40) - 1
	if int64(r.Base) > int64(r.MaxDelay)/factor { // too long, and perhaps longer than a Duration can be
		return 0, false
	}
	d := r.Base * time.Duration(factor)
	if r.MaxJitter > 0 {
		d += rand.N(r.MaxJitter)
	}
	return d, slept+d <= r.MaxDelay
}

// retried says whether another attempt may end better than with this error.
func (r Retry) retried(err error) bool {
	if r.FailFast && (errors.Is(err, ErrAuth) || errors.Is(err, ErrUnknownTenant)) {
		return false
	}
	for _, final := range []error{ErrConflict, ErrInvalidRequest, ErrNoSuchKey, ErrProtocol} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}
