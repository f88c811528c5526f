package api

import "sync/atomic"

// A call holds about this many times the bytes of its body, or of the value it answers, at its peak: as
// received, as decoded, and as sent on.
const copies = 3

// small is the cost up to which a call may draw on the whole of the memory; larger ones leave an eighth
// alone, so that a flood of large bodies refuses no small write.
const small = 1 << 20

// memory bounds the bytes that bodies and answers in flight hold, for the whole process. It never makes
// anyone wait: a client retries, and a queue of bodies is what it is there to prevent.
type memory struct {
	limit int64
	used  atomic.Int64
}

func newMemory(limit int64) *memory { return &memory{limit: limit} }

func (m *memory) take(n int64) bool {
	limit := m.limit
	if n > small {
		limit -= limit / 8
	}
	if m.used.Add(n) > limit {
		m.used.Add(-n)
		return false
	}
	return true
}

// share is what one call holds of the memory. It belongs to the call's goroutine.
type share struct {
	of   *memory
	held int64
}

// fit makes the share that of a call with a body or a value of size bytes, if it is not larger already.
// errOverloaded: it does not fit right now.
func (h *share) fit(size int64) error {
	more := copies*size - h.held
	if more <= 0 {
		return nil
	}
	if !h.of.take(more) {
		return errOverloaded
	}
	h.held += more
	return nil
}

func (h *share) release() {
	h.of.used.Add(-h.held)
	h.held = 0
}
