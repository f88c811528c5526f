package tenants

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// suspects keeps floods of credentials that do not verify from taking the processor. An address that has sent
// several in the last seconds is suspect: what else it sends is verified out of a budget that all suspects share.
// Wallets share addresses with others, so nobody is refused for the address alone: a credential that is in the
// cache costs nothing, and one of a subject that was verified a while ago is not held up (see [Authenticator]).
//
// Addresses are counted in two rows of a table of fixed size, each in one cell of each row, and the lower count
// is believed: an address is suspect by mistake only where others fail in both of its cells.
type suspects struct {
	seed   maphash.Seed
	cells  [2][suspectCells]atomic.Uint64 // the period in the upper half, the count in the lower one
	budget *rate.Limiter                  // microseconds of arithmetic
}

const (
	suspectCells  = 1 << 14
	suspectPeriod = 10 * time.Second // in which a count halves
	suspectAfter  = 8                // failures
	suspectMost   = 64               // what is counted at most, so that half a minute after a flood it is forgotten

	// suspectBudget is what suspects may take, in microseconds a second: a tenth of a processor.
	suspectBudget = 100_000
)

func newSuspects() *suspects {
	return &suspects{seed: maphash.MakeSeed(), budget: rate.NewLimiter(suspectBudget, suspectBudget)}
}

// network is what one client has to itself: of IPv6, providers give out whole /64s.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(64) // only fails for other lengths
		return p.Addr()
	}
	return a
}

// at are the cells of an address.
func (s *suspects) at(a netip.Addr) (cells [2]*atomic.Uint64) {
	h := maphash.Comparable(s.seed, network(a))
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

// suspect says whether an address has failed often of late. No address at all never has.
func (s *suspects) suspect(a netip.Addr, now time.Time) bool {
	if !a.IsValid() {
		return false
	}
	for _, cell := range s.at(a) {
		if _, count := faded(cell.Load(), now); count < suspectAfter {
			return false
		}
	}
	return true
}

// failed counts a failure of an address.
func (s *suspects) failed(a netip.Addr, now time.Time) {
	if !a.IsValid() {
		return
	}
	for _, cell := range s.at(a) {
		for {
			old := cell.Load()
			period, count := faded(old, now)
			if cell.CompareAndSwap(old, uint64(period)<<32|uint64(min(count+1, suspectMost))) {
				break
			}
		}
	}
}

// spend takes the cost of a verification out of the budget, or says that it is used up.
func (s *suspects) spend(cost time.Duration, now time.Time) bool {
	return s.budget.AllowN(now, int(cost.Microseconds()))
}
