package postgres

import (
	"context"
	"sync"

	"github.com/vss-cloud/vss-cloud/storage"
)

// turns lets writes to one store through one at a time. They would wait for each other in the database
// anyway, for the store's row, but each with a connection of the pool in its hands: one busy wallet would
// hold up all others. The queue of a store is bounded by the deadlines of those in it.
type turns struct {
	mu     sync.Mutex
	stores map[storage.StoreID]*turn // those with a write under way or waiting
}

type turn struct {
	token chan struct{} // holds one element while a write is under way
	users int           // under way and waiting; guarded by turns.mu
}

// take waits for the store's turn, at most until ctx ends. The caller gives it back by release.
func (t *turns) take(ctx context.Context, id storage.StoreID) (release func(), err error) {
	t.mu.Lock()
	if t.stores == nil {
		t.stores = make(map[storage.StoreID]*turn)
	}
	q := t.stores[id]
	if q == nil {
		q = &turn{token: make(chan struct{}, 1)}
		t.stores[id] = q
	}
	q.users++
	t.mu.Unlock()

	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if q.users--; q.users == 0 {
			delete(t.stores, id)
		}
	}
	select {
	case q.token <- struct{}{}:
		return func() { <-q.token; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
