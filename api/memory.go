package api

import (
	"context"
	"sync"

	"github.com/google/uuid"
)

// A call holds about this many times the bytes of its body, or of the value it answers, at its peak: as
// received, as decoded, and as sent on.
const copies = 3

// small is the cost up to which a call may draw on the whole of the memory; larger ones leave a ninth
// alone, so that a flood of large bodies refuses no small write.
const small = 1 << 20

// memory bounds the bytes that bodies and answers in flight hold, for the whole process. Nobody waits for memory: the
// client retries, and a queue of bodies is what this is to prevent.
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

// stranger says whether the request's wallet is not known to be enrolled. Without a [quota.Limiter] there are no strangers.
func (rq *request) stranger() bool { return !rq.known && rq.server.cfg.Quota.Limiter != nil }

// count adds what the request holds to the sums, or with -1 takes it away.
func (rq *request) count(sign int64) {
	m, n := rq.server.memory, sign*rq.held
	m.used += n
	switch {
	case rq.stranger():
		m.strangers += n
	case rq.held > small:
		if m.tenants[rq.tenant.ID] += n; m.tenants[rq.tenant.ID] == 0 {
			delete(m.tenants, rq.tenant.ID)
		}
	}
}

// recount changes what the request holds, or for whom, while that is not counted.
func (rq *request) recount(change func()) {
	m := rq.server.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	rq.count(-1)
	defer rq.count(1)
	change()
}

// hold reserves memory for a body or a value of size bytes, unless as much is reserved already. It fails with
// errOverloaded if that does not fit right now.
func (rq *request) hold(ctx context.Context, size int64) error { return rq.ask(ctx, size, true) }

// couldHold is hold without reserving.
func (rq *request) couldHold(ctx context.Context, size int64) error { return rq.ask(ctx, size, false) }

func (rq *request) ask(ctx context.Context, size int64, take bool) error {
	want := copies * size
	if want <= rq.held {
		return nil
	}
	var fits, asKnown bool
	try := func() {
		m, tenant, stranger := rq.server.memory, rq.tenant.ID, rq.stranger()
		fits = m.fits(tenant, stranger, want)
		asKnown = stranger && !fits && m.fits(tenant, false, want)
		if fits && take {
			rq.held = want
		}
	}
	rq.recount(try)
	if asKnown {
		// Every wallet is a stranger to an instance that has just started.
		if has, err := rq.stands(ctx); err == nil && has.known {
			rq.recount(try)
		}
	}
	if !fits {
		return errOverloaded
	}
	return nil
}

// release gives up all that the request holds.
func (rq *request) release() {
	if rq.held > 0 {
		rq.recount(func() { rq.held = 0 })
	}
}
