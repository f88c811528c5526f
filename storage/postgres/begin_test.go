package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/storage"
)

// Of two instances that begin a store at once, the second finds one that exists, and limits of what begins are
// nothing to it.
func TestAStoreThatAnotherInstanceHasJustBegunIsOneThatExists(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 2)
	ks := key(t)
	limits := storage.Limits{Stores: 1, Begin: func(ctx context.Context, _ bool) error {
		// Between the first try, which found no store, and this.
		return save(ctx, p.stores[1], ks, put("k", 0, "v"))
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	if _, err := p.stores[0].Put(ctx, ks, put("other", 0, "v"), limits); err != nil {
		t.Fatal(err)
	}
	// And where the other was there before the question.
	limits.Begin = func(context.Context, bool) error { return errors.New("asked of a store that exists") }
	if _, err := p.stores[0].Put(ctx, ks, put("third", 0, "v"), limits); err != nil {
		t.Fatal(err)
	}
}
