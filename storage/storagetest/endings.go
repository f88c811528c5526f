package storagetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/storage"
)

// wantEnded expects that a call ended without an answer: it failed, and not with what only the store's
// content could have told.
func wantEnded(t testing.TB, err error) {
	t.Helper()
	invalid := (*storage.InvalidError)(nil)
	if err == nil || errors.Is(err, storage.ErrConflict) || errors.Is(err, storage.ErrNoSuchKey) || errors.As(err, &invalid) {
		t.Fatalf("error %v of a call whose context has ended", err)
	}
}

// wantTooLate expects that a call said that its deadline passed.
func wantTooLate(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, storage.ErrTooLate) && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want %v", err, storage.ErrTooLate)
	}
}

func testEndings(t *testing.T, s *suite) {
	endings := []struct {
		name string
		ctx  func(testing.TB) context.Context
		want func(testing.TB, error)
	}{
		{"was cancelled", func(t testing.TB) context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx
		}, wantEnded},
		{"has a deadline that passed", func(t testing.TB) context.Context {
			ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Millisecond))
			t.Cleanup(cancel)
			return ctx
		}, wantTooLate},
	}
	for _, end := range endings {
		s.that(t, "a write whose context "+end.name+" has no effect", func(t *testing.T, c client) {
			c.write("k")
			c.unchanged(func() {
				for range 20 {
					ctx := end.ctx(t)
					end.want(t, c.putBy(ctx, writes(object("k", 1), object("new", 0))))
					end.want(t, c.putBy(ctx, writes(object("k", -1))))
					end.want(t, c.putBy(ctx, storage.Batch{GlobalVersion: at(0)}))
					end.want(t, c.delBy(ctx, "k", 1))
				}
				time.Sleep(100 * time.Millisecond) // for what may have been left running
			})
		})

		s.that(t, "a first write whose context "+end.name+" has no effect", func(t *testing.T, c client) {
			for range 20 {
				end.want(t, c.putBy(end.ctx(t), writes(object("k", -1))))
			}
			time.Sleep(100 * time.Millisecond)
			c.wantVersion("k", 0)
			c.wantKeys("")
			if n := c.recount(); n.Known {
				t.Fatalf("on record: %+v", n)
			}
		})

		s.that(t, "a read whose context "+end.name+" returns at once", func(t *testing.T, c client) {
			c.write("k")
			for range 20 {
				ctx := end.ctx(t)
				began := time.Now()
				_, err := c.store().Get(ctx, c.ks, "k", nil)
				end.want(t, err)
				_, err = c.store().Get(ctx, c.ks, "missing", nil)
				end.want(t, err)
				_, err = c.store().List(ctx, c.ks, storage.ListRequest{})
				end.want(t, err)
				if took := time.Since(began); took > 5*time.Second {
					t.Fatalf("three reads took %s", took)
				}
			}
			c.wantVersion("k", 1)
		})
	}

	s.that(t, "calls go on as ever after many were cancelled", func(t *testing.T, c client) {
		c.write("k")
		for i := range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
			err := c.putBy(ctx, writes(object("k", -1)))
			if err != nil && errors.Is(err, storage.ErrConflict) {
				t.Fatalf("put: %v", err)
			}
			_, err = c.store().Get(ctx, c.ks, "k", nil)
			if err != nil && errors.Is(err, storage.ErrNoSuchKey) {
				t.Fatalf("get: %v", err)
			}
			cancel()
		}
		c.wantVersion("k", 1)
		c.wantPut(nil, writes(object("k", 1)))
	})

	// The deadlines straddle the time that a put takes, so that it ends in each of its stages.
	s.that(t, "a put cut off at any moment took effect if it said so, and not if it said it did not", func(t *testing.T, c client) {
		for _, cancelled := range []bool{false, true} {
			for i := range 100 {
				began := time.Now()
				before, err := c.get("k")
				if err != nil && !errors.Is(err, storage.ErrNoSuchKey) {
					t.Fatal(err)
				}
				span := time.Since(began)*4 + time.Millisecond
				ctx, cancel := context.WithCancel(t.Context())
				if cancelled {
					time.AfterFunc(span*time.Duration(i)/100, cancel)
				} else {
					ctx, cancel = context.WithTimeout(t.Context(), span*time.Duration(i)/100)
				}
				err = c.putBy(ctx, writes(object("k", before.Version)))
				cancel()
				want := before.Version
				switch {
				case err == nil:
					want++
				case errors.Is(err, storage.ErrConflict):
					t.Fatalf("put %d: %v", i, err)
				case errors.Is(err, storage.ErrTooLate), errors.Is(err, storage.ErrUnavailable):
				default:
					continue // whoever cancels learns no outcome
				}
				c.wantVersion("k", want)
			}
		}
	})

	s.that(t, "a context without a deadline will do", func(t *testing.T, c client) {
		ctx := context.WithoutCancel(t.Context())
		wantErr(t, nil, c.putBy(ctx, writes(object("k", 0))))
		_, err := c.store().Get(ctx, c.ks, "k", nil)
		wantErr(t, nil, err)
		_, err = c.store().List(ctx, c.ks, storage.ListRequest{})
		wantErr(t, nil, err)
		wantErr(t, nil, c.delBy(ctx, "k", 1))
	})
}
