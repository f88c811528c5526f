package storagetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/storage"
)

// slack is how late a call may return after its deadline, on a machine that is busy with everything else.
const slack = 5 * time.Second

// within is a context that ends in so much time.
func (c client) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.t.Context(), d)
}

// stays expects, now and a while later, that the key is at a version: nothing that was left running somewhere
// comes to an end after all.
func (c client) stays(key string, version int64) {
	c.t.Helper()
	for range 4 {
		c.wantVersion(key, version)
		time.Sleep(250 * time.Millisecond)
	}
	c.wantVersion(key, version)
	c.wantCounted()
}

// testLocks is about writers that wait for another's lock. The hazard in all of them: a statement that waited
// sees the locked row afresh and everything else as it was before, and it waits on when its caller is gone.
func testLocks(t *testing.T, s *suite) {
	// Both wait, so neither has seen the other's write when it began.
	races := []struct {
		name    string
		prepare storage.Batch
		put     storage.Batch
		key     string
		version int64 // of key at the end
	}{
		{"update one key", writes(object("k", 0)), writes(object("k", 1)), "k", 2},
		{"create one key", writes(object("other", 0)), writes(object("k", 0)), "k", 1},
		{"delete one key", writes(object("k", 0)), storage.Batch{Deletes: []storage.KeyVersion{item("k", 1)}}, "k", 0},
		{"delete one key whatever its version", writes(object("k", 0)), storage.Batch{Deletes: []storage.KeyVersion{item("k", -1)}}, "k", 0},
		{"move the global version", writes(object("k", 0)), storage.Batch{GlobalVersion: at(0)}, storage.GlobalVersionKey, 1},
		{"update one of many keys", writes(object("k", 0), object("l", 0)), writes(object("new", -1), object("l", -1), object("k", 1)), "k", 2},
	}
	for _, race := range races {
		s.alone(t, "of two that waited to "+race.name+" one wins", func(t *testing.T, c client) {
			c.wantPut(nil, race.prepare)
			for range 5 {
				c := c.in(keyspace(t))
				c.wantPut(nil, race.prepare)
				release := c.hold()
				ctx, cancel := c.ctx()
				one, two := c.via(0).start(ctx, race.put), c.via(1).start(ctx, race.put)
				c.waiting(2)
				release()
				first, second := c.await(one), c.await(two)
				cancel()
				if c.won("put", first) == c.won("put", second) {
					t.Fatalf("one put ended with %v, the other with %v: want one winner", first, second)
				}
				c.wantVersion(race.key, race.version)
				c.wantCounted()
			}
		})
	}

	s.alone(t, "a delete that waited decides by what it finds then", func(t *testing.T, c client) {
		c.writeTo("k", 1)
		release := c.hold()
		ctx, cancel := c.ctx()
		defer cancel()
		update := c.via(0).start(ctx, writes(object("k", 1)))
		c.waiting(1)
		deleted := make(chan error, 1)
		go func() { deleted <- c.via(1).delBy(ctx, "k", 1) }()
		c.waiting(2)
		release()
		wantErr(t, nil, c.await(deleted))
		switch err := c.await(update); {
		case err == nil:
			c.wantVersion("k", 2) // the delete came second and found version 2
		case errors.Is(err, storage.ErrConflict):
			c.wantVersion("k", 0) // the update came second and found nothing
		default:
			t.Fatal(err)
		}
		c.wantCounted()
	})

	s.alone(t, "of many that waited to create one key one wins, and the counters know", func(t *testing.T, c client) {
		c.write("other")
		release := c.hold()
		ctx, cancel := c.ctx()
		defer cancel()
		var puts []<-chan error
		for i := range 20 {
			puts = append(puts, c.via(i%2).start(ctx, writes(object("k", 0), object(fmt.Sprint(i), 0))))
		}
		time.Sleep(200 * time.Millisecond) // how many of them get as far as the lock is the store's business
		release()
		wins := 0
		for _, put := range puts {
			if c.won("put", c.await(put)) {
				wins++
			}
		}
		if wins != 1 {
			t.Fatalf("%d puts won", wins)
		}
		if n := c.wantCounted(); n.Objects != 3 {
			t.Fatalf("%d objects, want 3", n.Objects)
		}
	})

	s.alone(t, "a put whose deadline passes while it waits returns in time and has no effect, then or later", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		release := c.hold()
		ctx, cancel := c.within(time.Second)
		defer cancel()
		began := time.Now()
		puts := []<-chan error{
			c.via(0).start(ctx, writes(object("k", 3))),
			c.via(1).start(ctx, writes(object("k", -1), object("new", -1))),
			c.via(0).start(ctx, storage.Batch{Deletes: []storage.KeyVersion{item("k", 3)}}),
		}
		for _, put := range puts {
			wantTooLate(t, c.await(put))
		}
		if took := time.Since(began); took > time.Second+slack {
			t.Errorf("they returned after %s, of the 1 s they had", took)
		}
		release()
		c.stays("k", 3)
		c.wantVersion("new", 0)
	})

	s.alone(t, "a delete whose deadline passes while it waits returns in time and has no effect", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		release := c.hold()
		ctx, cancel := c.within(time.Second)
		defer cancel()
		began := time.Now()
		wantTooLate(t, c.delBy(ctx, "k", 3))
		if took := time.Since(began); took > time.Second+slack {
			t.Errorf("it returned after %s, of the 1 s it had", took)
		}
		release()
		c.stays("k", 3)
	})

	s.alone(t, "a short deadline behind a long one is kept", func(t *testing.T, c client) {
		c.write("k")
		release := c.hold()
		long, cancel := c.ctx()
		defer cancel()
		patient := c.start(long, writes(object("patient", 0)))
		c.waiting(1)
		short, cancel := c.within(time.Second)
		defer cancel()
		began := time.Now()
		wantTooLate(t, c.await(c.start(short, writes(object("hasty", 0)))))
		if took := time.Since(began); took > time.Second+slack {
			t.Errorf("it returned after %s, of the 1 s it had", took)
		}
		release()
		wantErr(t, nil, c.await(patient))
		c.stays("hasty", 0)
		c.wantVersion("patient", 1)
	})

	// The lock comes free just before, at and just after the deadline.
	s.alone(t, "a put that gets its lock about its deadline took effect if it said so and only then", func(t *testing.T, c client) {
		c.write("k")
		for i := range 16 {
			const deadline = 200 * time.Millisecond
			key := fmt.Sprint(i)
			release := c.hold()
			ctx, cancel := c.within(deadline)
			put := c.via(i%2).start(ctx, writes(object(key, 0)))
			time.Sleep(deadline + time.Duration(i-10)*4*time.Millisecond)
			release()
			err := c.await(put)
			cancel()
			var version int64
			switch {
			case err == nil:
				version = 1
			case errors.Is(err, storage.ErrAmbiguous):
				continue
			default:
				wantTooLate(t, err)
			}
			c.wantVersion(key, version)
			time.Sleep(50 * time.Millisecond)
			c.wantVersion(key, version)
		}
		c.wantCounted()
	})

	s.alone(t, "a put that is cancelled while it waits has no effect, then or later", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		for i := range 2 {
			release := c.hold()
			ctx, cancel := c.ctx()
			put := c.via(i).start(ctx, writes(object("k", 3), object("new", -1)))
			c.waiting(1)
			cancel()
			wantEnded(t, c.await(put))
			// It has ended with no effect, so it waits for nothing that the release could give it.
			release()
			c.stays("k", 3)
			c.wantVersion("new", 0)
		}
		c.waiting(0)
	})

	// The harder case: the lock comes free at once, before anyone can have noticed that the caller has gone.
	s.alone(t, "a put that is cancelled just before it gets its lock has no effect", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		for i := range 10 {
			release := c.hold()
			ctx, cancel := c.ctx()
			put := c.via(i%2).start(ctx, writes(object("k", 3), object("new", -1)))
			c.waiting(1)
			cancel()
			time.Sleep(time.Duration(i/4) * 100 * time.Millisecond)
			release()
			wantEnded(t, c.await(put))
			c.wantVersion("k", 3)
		}
		c.stays("k", 3)
		c.wantVersion("new", 0)
	})

	s.alone(t, "a put whose instance is killed while it waits has no effect, then or later", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		release := c.hold()
		ctx, cancel := c.ctx()
		defer cancel()
		put := c.via(0).start(ctx, writes(object("k", 3), object("new", -1)))
		c.waiting(1)
		c.place.Kill(t, 0)
		died := time.Now()
		c.waiting(0) // found out without anyone's help
		if took := time.Since(died); took > slack {
			t.Errorf("the database noticed after %s that the writer is gone", took)
		}
		release()
		c = c.via(1)
		c.stays("k", 3)
		c.wantVersion("new", 0)
		c.wantPut(nil, writes(object("k", 3))) // the other instance works on
		cancel()
		select {
		case err := <-put: // it may as well hang: its process is dead
			wantEnded(t, err)
		case <-time.After(time.Second):
		}
		c.wantVersion("k", 4)
	})

	s.alone(t, "a put whose instance is killed just before it gets its lock has no effect", func(t *testing.T, c client) {
		c.writeTo("k", 3)
		release := c.hold()
		ctx, cancel := c.ctx()
		defer cancel()
		c.via(0).start(ctx, writes(object("k", 3), object("new", -1)))
		c.waiting(1)
		c.place.Kill(t, 0)
		release()
		c = c.via(1)
		c.stays("k", 3)
		c.wantVersion("new", 0)
	})

	s.alone(t, "an instance that is killed takes no lock with it", func(t *testing.T, c client) {
		c.write("k")
		ctx, cancel := c.ctx()
		defer cancel()
		for i := range 50 {
			c.via(0).start(ctx, writes(object("k", -1), object(fmt.Sprint(i), -1)))
		}
		c.place.Kill(t, 0)
		c = c.via(1)
		c.write("k")
		c.wantVersion("k", 1)
		c.wantCounted()
	})

	s.alone(t, "a lock that is held keeps no reader waiting", func(t *testing.T, c client) {
		c.wantPut(nil, storage.Batch{GlobalVersion: at(0), Writes: []storage.Object{
			object("k", 0), {Key: "large", Value: random(1 << 20)}}})
		release := c.hold()
		defer release() // a second time does nothing
		ctx, cancel := c.ctx()
		defer cancel()
		put := c.start(ctx, writes(object("k", 1)))
		c.waiting(1)
		for i := range 2 {
			c := c.via(i)
			c.wantVersion("k", 1)
			c.wantVersion("large", 1)
			c.wantVersion("missing", 0)
			c.wantGlobal(1)
			c.wantKeys("", "large", "k")
		}
		release()
		wantErr(t, nil, c.await(put))
		c.wantVersion("k", 2)
	})

	// The many are more than an instance has connections.
	for waiters, sentence := range map[int]string{
		1: "a lock that is held delays no other store", 40: "a lock that many wait for delays no other store",
	} {
		s.alone(t, sentence, func(t *testing.T, c client) {
			sibling := c.in(keyspaceOf(t, c.ks.Owner(), "sibling"))
			sibling.write("k")
			c.write("k")
			release := c.hold()
			defer release() // a second time does nothing
			ctx, cancel := c.ctx()
			defer cancel()
			var puts []<-chan error
			for i := range 2 * waiters {
				puts = append(puts, c.via(i%2).start(ctx, writes(object(fmt.Sprint(i), 0))))
			}
			time.Sleep(200 * time.Millisecond) // how many of them get as far as the lock is the store's business
			began := time.Now()
			for i := range 2 {
				sibling := sibling.via(i)
				sibling.write("k", fmt.Sprint(i))
				sibling.wantDelete(fmt.Sprint(i), 1)
				sibling.wantKeys("", "k")
				newborn := c.via(i).in(keyspaceOf(t, c.ks.Owner(), fmt.Sprint("newborn", i)))
				newborn.write("k")
				stranger := c.via(i).in(keyspace(t))
				stranger.write("k")
				stranger.wantPut(nil, writes(object("k", 1)))
				stranger.wantVersion("k", 2)
			}
			if took := time.Since(began); took > slack {
				t.Errorf("the others took %s", took)
			}
			for i, put := range puts {
				select {
				case err := <-put:
					t.Fatalf("put %d did not wait: %v", i, err)
				default:
				}
			}
			release()
			for _, put := range puts {
				wantErr(t, nil, c.await(put))
			}
		})
	}
}
