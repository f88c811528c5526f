package callers

import (
	"context"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// suspects keeps floods of credentials that do not verify from taking the processor. A network that has sent several
// in the last seconds is suspect: what else it sends is verified out of a budget that all suspects share. Wallets
// share networks with others, so nobody is refused for the network alone: a credential that is in the cache costs
// nothing, and one of a wallet that was verified a while ago is not counted (see [Authenticator]). Where forgeries
// name such a wallet, its credentials cannot be told from them but by verifying all: they wait in line, each for its
// part of a second budget, and none is refused unless the line is long.
//
// Networks are counted in two rows of a table of fixed size (2 MiB), each in one cell of each row, and the lower count
// is believed: one is suspect by mistake only where others fail in both of its cells.
type suspects struct {
	seed   maphash.Seed
	cells  [2][suspectCells]atomic.Uint64 // the period in the upper half, the count in the lower one
	budget *rate.Limiter                  // microseconds of arithmetic
	line   *rate.Limiter                  // the same, for wallets that are known and disputed
}

const (
	suspectCells  = 1 << 17
	suspectPeriod = 10 * time.Second // in which a count halves

	// suspectBudget is what suspects may take, in microseconds a second: a tenth of a processor.
	suspectBudget = 100_000

	// maxLine is how long a credential waits in line at most.
	maxLine = 2 * time.Second

	// disputeLasts is how long after a forgery a wallet's credentials wait in line.
	disputeLasts = 30 * time.Second
)

func newSuspects() *suspects {
	return &suspects{
		seed:   maphash.MakeSeed(),
		budget: rate.NewLimiter(suspectBudget, suspectBudget),
		line:   rate.NewLimiter(suspectBudget, suspectBudget),
	}
}

// level is a size of network that is counted by itself.
type level struct {
	bits  int    // of IPv6; IPv4 has addresses alone
	after uint32 // failures until it is suspect
}

// levels: of IPv6, providers give out whole /64s, and whole /48s to whoever asks.
var levels = []level{{64, 8}, {48, 64}}

// networks calls do with each network of an address. No address has none.
func networks(a netip.Addr, do func(netip.Prefix, level) (more bool)) {
	a = a.Unmap().WithZone("")
	for _, l := range levels {
		bits := l.bits
		if a.Is4() {
			bits = 32
		}
		p, err := a.Prefix(bits)
		if err != nil || !do(p, l) || a.Is4() {
			return
		}
	}
}

// at are the cells of a network.
func (s *suspects) at(p netip.Prefix) (cells [2]*atomic.Uint64) {
	h := maphash.Comparable(s.seed, p)
	cells[0] = &s.cells[0][h%suspectCells]
	cells[1] = &s.cells[1][h>>32%suspectCells]
	return cells
}

// faded is what a cell counts now.
func faded(cell uint64, now time.Time) (period uint32, count uint32) {
	period = uint32(now.Unix() / int64(suspectPeriod/time.Second))
	if age := period - uint32(cell>>32); age < 32 {
		count = uint32(cell) >> age
	}
	return period, count
}

// suspect says whether a network of the address has failed often of late.
func (s *suspects) suspect(a netip.Addr, now time.Time) (is bool) {
	networks(a, func(p netip.Prefix, l level) bool {
		is = true
		for _, cell := range s.at(p) {
			_, count := faded(cell.Load(), now)
			is = is && count >= l.after
		}
		return !is
	})
	return is
}

// failed counts a failure of an address. Half a minute after a flood, however large, it is forgotten.
func (s *suspects) failed(a netip.Addr, now time.Time) {
	networks(a, func(p netip.Prefix, l level) bool {
		for _, cell := range s.at(p) {
			for {
				old := cell.Load()
				period, count := faded(old, now)
				if cell.CompareAndSwap(old, uint64(period)<<32|uint64(min(count+1, 8*l.after))) {
					break
				}
			}
		}
		return true
	})
}

// spend takes the cost of a verification out of the budget, or says that it is used up.
func (s *suspects) spend(cost time.Duration, now time.Time) bool {
	return s.budget.AllowN(now, int(cost.Microseconds()))
}

// wait waits until the line's budget has the cost, or says that the line is too long.
func (s *suspects) wait(ctx context.Context, cost time.Duration, now time.Time) bool {
	turn := s.line.ReserveN(now, int(cost.Microseconds()))
	if !turn.OK() {
		return false
	}
	delay := turn.DelayFrom(now)
	if delay > maxLine {
		turn.CancelAt(now)
		return false
	}
	select {
	case <-time.After(delay):
		return true
	case <-ctx.Done():
		return false
	}
}

// standing is what is remembered of a wallet that was verified.
type standing struct{ lastForged atomic.Int64 } // in unix seconds

func (s *standing) forged(now time.Time) { s.lastForged.Store(now.Unix()) }

// disputed says whether somebody who was not the wallet has named it of late.
func (s *standing) disputed(now time.Time) bool {
	return now.Sub(time.Unix(s.lastForged.Load(), 0)) < disputeLasts
}
