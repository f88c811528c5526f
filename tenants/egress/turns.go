package egress

import (
	"context"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// turns share out how many exchanges go on at once. A tenant gets a part of them whoever else is there, and so
// does a host: their exchanges may take their whole time, and somebody else's must not wait until they have. A turn that is
// free goes to the tenant that has the fewest, and between equals to who came first.
//
// quota.Queue lets a tenant that is alone take all places, which is right where each is held for milliseconds.
type turns struct {
	all, perTenant, perHost, perVisit int

	mu      sync.Mutex
	taken   int
	tenants map[uuid.UUID]int
	hosts   map[string]int // of all tenants
	visits  map[visit]int
	waiting []*waiter // in order of arrival
}

// visit is of a tenant to a host.
type visit struct {
	tenant uuid.UUID
	host   string
}

type waiter struct {
	visit
	called chan struct{} // closed when it has its turn
}

func newTurns(n int) *turns {
	return &turns{
		all: n, perTenant: max(n/8, 1), perHost: max(n/4, 1), perVisit: max(n/16, 1),
		tenants: map[uuid.UUID]int{}, hosts: map[string]int{}, visits: map[visit]int{},
	}
}

// take waits for a turn, which leave ends, or for the end of the context.
func (t *turns) take(ctx context.Context, v visit) (leave func(), err error) {
	w := &waiter{v, make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, w)
	t.call()
	t.mu.Unlock()
	leave = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.count(v, -1)
		t.call()
	}
	select {
	case <-w.called:
		return leave, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(t.waiting, w)
	if i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	}
	t.mu.Unlock()
	if i < 0 {
		leave() // it was called just now
	}
	return nil, ctx.Err()
}

// call gives out the turns that are free. This and count need the lock.
func (t *turns) call() {
	for t.taken < t.all {
		next := -1
		for i, w := range t.waiting {
			has := t.tenants[w.tenant]
			may := has < t.perTenant && t.hosts[w.host] < t.perHost && t.visits[w.visit] < t.perVisit
			if may && (next < 0 || has < t.tenants[t.waiting[next].tenant]) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		w := t.waiting[next]
		t.waiting = slices.Delete(t.waiting, next, next+1)
		t.count(w.visit, 1)
		close(w.called)
	}
}

func (t *turns) count(v visit, n int) {
	t.taken += n
	add(t.tenants, v.tenant, n)
	add(t.hosts, v.host, n)
	add(t.visits, v, n)
}

func add[K comparable](to map[K]int, k K, n int) {
	if to[k] += n; to[k] == 0 {
		delete(to, k)
	}
}
