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
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	_, err := p.stores[0].Put(ctx, ks, put("other", 0, "v"), storage.Limits{Known: true})
	var never *storage.NeverWrittenError
	if !errors.As(err, &never) {
		t.Fatal(err)
	}
	if err := save(ctx, p.stores[1], ks, put("k", 0, "v")); err != nil {
		t.Fatal(err)
	}
	one := storage.Ceiling{Hard: 1, Last: 10}
	if _, err := p.stores[0].Put(ctx, ks, put("other", 0, "v"), storage.Limits{Objects: one, Begin: never}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.stores[0].Put(ctx, ks, put("third", 0, "v"), storage.Limits{Objects: one, Known: true}); err != nil {
		t.Fatal(err)
	}
}

// A machine may be suspended between the question and the leave, and its clock with it: the put's time is what the
// database's clock said when it was young.
func TestLeaveToBeginDoesNotMoveThePutsDeadline(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ks := key(t)
	young, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := p.stores[0].Put(young, ks, put("k", 0, "v"), storage.Limits{Known: true})
	var never *storage.NeverWrittenError
	if !errors.As(err, &never) {
		t.Fatal(err)
	}
	<-young.Done()
	// By its own clock, it has all the time there is.
	if _, err := p.stores[0].Put(t.Context(), ks, put("k", 0, "v"), storage.Limits{Begin: never}); !errors.Is(err, storage.ErrTooLate) {
		t.Errorf("error %v, want that it is too late", err)
	}
	if _, err := p.stores[0].Get(t.Context(), ks, "k", nil); !errors.Is(err, storage.ErrNoSuchKey) {
		t.Errorf("error %v, want that nothing was saved", err)
	}
}

// A primary may be demoted under a connection. Who hears that a store was never written may refuse its wallet.
func TestOnlyAPrimarySaysThatAStoreWasNeverWritten(t *testing.T) {
	t.Parallel()
	p := newPlace(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	if _, err := p.owner.Exec(ctx, `
		CREATE SCHEMA demoted;
		CREATE FUNCTION demoted.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true';
		GRANT USAGE ON SCHEMA demoted TO PUBLIC`); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 9 << 20} {
		if err := save(ctx, p.stores[0], key(t), put("k", 0, "v")); err != nil { // the connection is known to be to a primary
			t.Fatal(err)
		}
		if n := p.pools[0].Stat().TotalConns(); n != 1 {
			t.Fatalf("there are %d connections", n)
		}
		if _, err := p.pools[0].Exec(ctx, `SET search_path = demoted, pg_catalog, public`); err != nil {
			t.Fatal(err)
		}
		b := storage.Batch{Writes: []storage.Object{{Key: "k", Value: make([]byte, size)}}}
		_, err := p.stores[0].Put(ctx, key(t), b, storage.Limits{Known: true})
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("a put of %d bytes: error %v, want that a standby answered", size, err)
		}
	}
}
