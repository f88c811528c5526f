package api

import (
	"sync"

	"github.com/google/uuid"
)

// A call holds about this many times the bytes of its body, or of the value it answers, at its peak: as
// received, as decoded, and as sent on.
const copies = 3

// small is the cost up to which a call may draw on the whole of the memory; larger ones leave a ninth
// alone, so that a flood of large bodies refuses no small write.
const small = 1 << 20

// memory bounds the bytes that bodies and answers in flight hold, for the whole process. It never makes
// anyone wait: a client retries, and a queue of bodies is what it is there to prevent.
//
// Nobody takes it all. Of what large calls share, those of strangers take a third at most and leave another third
// free, and those of the known wallets of one tenant take half of what strangers leave. So whatever strangers and
// one tenant hold, a third is there for a known wallet of another: by default 303 MiB, and a body of 100 MiB, the
// largest unless a tenant is allowed more, takes 300. Nor would less than a third do for a stranger, whose
// first write may be as large.
type memory struct {
	limit int64

	mu        sync.Mutex
	used      int64
	strangers int64               // of used
	tenants   map[uuid.UUID]int64 // of used, by large calls of known wallets
}

func newMemory(limit int64) *memory { return &memory{limit: limit, tenants: map[uuid.UUID]int64{}} }

func (m *memory) inFlight() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// fits says whether a call that holds nothing may hold so much.
func (m *memory) fits(tenant uuid.UUID, stranger bool, want int64) bool {
	used, strangers, shared := m.used+want, m.strangers+want, m.limit-m.limit/9
	switch {
	case want <= small:
		return used <= m.limit && (!stranger || strangers <= m.limit/3)
	case used > shared:
		return false
	case stranger:
		return strangers <= shared/3 && used <= shared/3*2
	default:
		// A tenant's only large call may be larger than its half: a body can have 256 MiB, and a value that is there
		// can always be read.
		others := m.tenants[tenant]
		return others == 0 || others+want <= (shared-m.strangers)/2
	}
}

// share is what one call holds of the memory. It belongs to the call's goroutine.
type share struct {
	of       *memory
	tenant   uuid.UUID
	stranger bool        // the wallet has not been seen to be enrolled
	enrolled func() bool // asks whether it is nevertheless, and then makes it known
	held     int64
}

// count adds what the share holds to the sums, or with -1 takes it away.
func (h *share) count(sign int64) {
	m, n := h.of, sign*h.held
	m.used += n
	switch {
	case h.stranger:
		m.strangers += n
	case h.held > small:
		if m.tenants[h.tenant] += n; m.tenants[h.tenant] == 0 {
			delete(m.tenants, h.tenant)
		}
	}
}

// change changes the share while it is not counted.
func (h *share) change(do func()) {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.count(-1)
	defer h.count(1)
	do()
}

// fit makes the share that of a call with a body or a value of size bytes, if it is not larger already.
// errOverloaded: it does not fit right now.
func (h *share) fit(size int64) error { return h.ask(size, true) }

// wouldFit is fit that takes nothing.
func (h *share) wouldFit(size int64) error { return h.ask(size, false) }

func (h *share) ask(size int64, take bool) error {
	want := copies * size
	if want <= h.held {
		return nil
	}
	var fits, asKnown bool
	try := func() {
		fits = h.of.fits(h.tenant, h.stranger, want)
		asKnown = h.stranger && !fits && h.of.fits(h.tenant, false, want)
		if fits && take {
			h.held = want
		}
	}
	h.change(try)
	if asKnown && h.enrolled() {
		h.change(try)
	}
	if !fits {
		return errOverloaded
	}
	return nil
}

// known makes a stranger's share that of a known wallet.
func (h *share) known() { h.change(func() { h.stranger = false }) }

func (h *share) release() { h.change(func() { h.held = 0 }) }
