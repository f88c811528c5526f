package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/storage"
)

func sized(key string, version int64, size int) storage.Object {
	return storage.Object{Key: key, Version: version, Value: make([]byte, size)}
}

// wantExceeded puts, and expects to be refused by a limit with nothing changed.
func (c client) wantExceeded(limit string, used, allowed int64, b storage.Batch, l storage.Limits) {
	c.t.Helper()
	before, keys := c.recount(), c.walk("", 0)
	_, err := c.putWithin(b, l)
	var got *storage.ExceededError
	if want := (storage.ExceededError{Limit: limit, Used: used, Allowed: allowed}); !errors.As(err, &got) || *got != want {
		c.t.Fatalf("error %v, want %v", err, &want)
	}
	if after := c.recount(); after != before {
		c.t.Fatalf("counts %+v after a refusal, before %+v", after, before)
	}
	if after := c.walk("", 0); !reflect.DeepEqual(keys, after) {
		c.t.Fatalf("keys %v after a refusal, before %v", after, keys)
	}
}

func (c client) wantWritten(want storage.Written, b storage.Batch, l storage.Limits) {
	c.t.Helper()
	if got, err := c.putWithin(b, l); err != nil || got != want {
		c.t.Fatalf("put = %+v, %v, want %+v", got, err, want)
	}
}

// wantNeverWritten puts, to a store that has never been written, without leave to begin it.
func (c client) wantNeverWritten(newWallet bool, stores int64, b storage.Batch) *storage.NeverWrittenError {
	c.t.Helper()
	_, err := c.putWithin(b, storage.Limits{Known: true})
	var got *storage.NeverWrittenError
	if !errors.As(err, &got) || got.NewWallet != newWallet || got.Stores != stores {
		c.t.Fatalf("error %v (%+v), want one of a wallet with %d stores, new: %t", err, got, stores, newWallet)
	}
	return got
}

// testLimits is CONTRACT section 5, as far as it is decided in a write's own transaction.
func testLimits(t *testing.T, s *suite) {
	within := func(hard, last int64) storage.Limits {
		return storage.Limits{Objects: storage.Ceiling{Hard: hard, Last: last}}
	}
	bytes := func(hard, last int64) storage.Limits {
		return storage.Limits{Bytes: storage.Ceiling{Hard: hard, Last: last}}
	}

	s.that(t, "a put says what the store has then, and whether it was the wallet's first", func(t *testing.T, c client) {
		c.wantWritten(storage.Written{Objects: 2, Bytes: 4, NewWallet: true}, writes(object("a", 0), object("b", 0)), storage.Limits{})
		c.wantWritten(storage.Written{Objects: 2, Bytes: 13}, writes(sized("a", -1, 10)), storage.Limits{})
		c.wantWritten(storage.Written{Objects: 1, Bytes: 11}, storage.Batch{Deletes: []storage.KeyVersion{item("b", 1)}}, storage.Limits{})
	})

	s.that(t, "a delete says what the store has then, and one that found nothing that it does not know", func(t *testing.T, c client) {
		c.write("a", "b")
		for _, step := range []struct {
			item storage.KeyVersion
			want storage.Written
		}{
			{item("a", 7), storage.Written{Objects: -1, Bytes: -1}},
			{item("a", 1), storage.Written{Objects: 1, Bytes: 2}},
			{item("a", -1), storage.Written{Objects: -1, Bytes: -1}},
			{item("b", -1), storage.Written{}},
		} {
			if got, err := c.deleted(step.item); err != nil || got != step.want {
				t.Errorf("delete of %+v = %+v, %v, want %+v", step.item, got, err, step.want)
			}
		}
	})

	s.that(t, "a store begins below the hard line and grows up to the last", func(t *testing.T, c client) {
		c.wantExceeded("objects_per_store", 3, 2, writes(object("a", 0), object("b", 0), object("c", 0)), within(2, 4))
		c.wantWritten(storage.Written{Objects: 2, Bytes: 4, NewWallet: true}, writes(object("a", 0), object("b", 0)), within(2, 4))
		c.wantWritten(storage.Written{Objects: 4, Bytes: 8}, writes(object("c", 0), object("d", 0)), within(2, 4))
		c.wantExceeded("objects_per_store", 5, 4, writes(object("e", 0)), within(2, 4))
		c.wantExceeded("bytes_per_store", 9, 8, writes(sized("a", 1, 2)), bytes(4, 8))
	})

	s.that(t, "a store begins below the hard line of bytes", func(t *testing.T, c client) {
		c.wantExceeded("bytes_per_store", 11, 10, writes(sized("a", 0, 10)), bytes(10, 100))
		c.wantWritten(storage.Written{Objects: 1, Bytes: 10, NewWallet: true}, writes(sized("a", 0, 9)), bytes(10, 100))
	})

	s.that(t, "what does not grow the store is never refused, however far beyond everything it is", func(t *testing.T, c client) {
		c.wantPut(nil, writes(sized("a", 0, 100), sized("b", 0, 100), sized("c", 0, 100)))
		l := storage.Limits{
			Objects: storage.Ceiling{Hard: 1, Last: 1}, Bytes: storage.Ceiling{Hard: 1, Last: 1}, Value: 1,
			Known: true,
		}
		for _, put := range []struct {
			what string
			storage.Batch
		}{
			{"an overwrite of the same size", writes(sized("a", -1, 100))},
			{"an overwrite that is smaller", writes(sized("b", -1, 99))},
			{"a new key in the place of a deleted one", storage.Batch{Writes: []storage.Object{sized("d", 0, 100)}, Deletes: []storage.KeyVersion{item("c", -1)}}},
			{"a larger value beside a smaller one", writes(sized("a", -1, 101), sized("b", -1, 50))},
			{"the global version alone", storage.Batch{GlobalVersion: at(-1)}},
		} {
			if _, err := c.putWithin(put.Batch, l); err != nil {
				t.Errorf("%s: %v", put.what, err)
			}
		}
		c.wantPut(nil, storage.Batch{Deletes: []storage.KeyVersion{item("a", -1)}})
		c.wantDelete("b", -1)
		c.wantVersion("d", 1)
	})

	s.that(t, "a value is limited where it is new or grows", func(t *testing.T, c client) {
		l := storage.Limits{Value: 10}
		c.wantWritten(storage.Written{Objects: 1, Bytes: 11, NewWallet: true}, writes(sized("a", 0, 10)), l)
		c.wantExceeded("value_size", 12, 10, writes(sized("a", -1, 11), sized("b", -1, 12)), l)
		c.wantPut(nil, writes(sized("a", -1, 20)))
		c.wantWritten(storage.Written{Objects: 2, Bytes: 32}, writes(sized("a", -1, 20), sized("b", -1, 10)), l)
	})

	s.that(t, "a conflict is one, whatever else would refuse the put", func(t *testing.T, c client) {
		c.write("a")
		_, err := c.putWithin(writes(object("a", 7), object("b", 0)), within(1, 1))
		wantErr(t, storage.ErrConflict, err)
	})

	s.that(t, "a store that has never been written begins with leave alone, and leaves nothing without", func(t *testing.T, c client) {
		known := storage.Limits{Known: true}
		never := c.wantNeverWritten(true, 0, writes(object("a", 0)))
		_ = c.wantNeverWritten(true, 0, storage.Batch{GlobalVersion: at(0)})
		_ = c.wantNeverWritten(true, 0, writes(sized("a", 0, 9<<20))) // a large one is not another matter
		c.wantDelete("a", -1)
		_, err := c.putWithin(storage.Batch{Deletes: []storage.KeyVersion{item("a", -1)}}, known)
		wantErr(t, storage.ErrConflict, err) // there is nothing to delete, and that begins no store
		_, err = c.get("a")
		wantErr(t, storage.ErrNoSuchKey, err)
		_, err = c.putWithin(writes(object("a", 7)), storage.Limits{Begin: never})
		wantErr(t, storage.ErrConflict, err)
		if c.recount().Known {
			t.Error("the wallet is on record")
		}

		c.wantWritten(storage.Written{Objects: 1, Bytes: 2, NewWallet: true}, writes(object("a", 0)), storage.Limits{Known: true, Begin: never})
		c.wantWritten(storage.Written{Objects: 2, Bytes: 4}, writes(object("b", 0)), known)
		for n := range int64(2) {
			ks, err := storage.NewKeyspace(c.ks.Owner(), fmt.Sprint("store ", n))
			if err != nil {
				t.Fatal(err)
			}
			other := c.in(ks)
			never := other.wantNeverWritten(false, n+1, writes(object("a", 0)))
			if other.recount().Revision != 0 {
				t.Error("the store is on record")
			}
			other.wantWritten(storage.Written{Objects: 1, Bytes: 2}, writes(object("a", 0)), storage.Limits{Begin: never})
		}
	})

	s.that(t, "leave to begin a large put is as good as that of a small one", func(t *testing.T, c client) {
		b := writes(sized("a", 0, 9<<20))
		never := c.wantNeverWritten(true, 0, b)
		c.wantWritten(storage.Written{Objects: 1, Bytes: 9<<20 + 1, NewWallet: true}, b, storage.Limits{Begin: never})
		c.wantWritten(storage.Written{Objects: 1, Bytes: 9<<20 + 1}, writes(sized("a", 1, 9<<20)), storage.Limits{Known: true})
	})

	s.that(t, "a put with leave begins below the hard lines", func(t *testing.T, c client) {
		l := within(1, 4)
		l.Begin = c.wantNeverWritten(true, 0, writes(object("a", 0)))
		c.wantExceeded("objects_per_store", 2, 1, writes(object("a", 0), object("b", 0)), l)
	})

	s.that(t, "a put that is asked for has no more time than it had", func(t *testing.T, c client) {
		never := c.wantNeverWritten(true, 0, writes(object("a", 0)))
		if left := time.Until(never.NotAfter); left <= 0 || left > patience {
			t.Errorf("its time is up in %v, of %v", left, patience)
		}
		never.NotAfter = never.NotAfter.Add(-patience)
		_, err := c.putWithin(writes(object("a", 0)), storage.Limits{Begin: never})
		wantErr(t, storage.ErrTooLate, err)
		if c.recount().Known {
			t.Error("the wallet is on record")
		}
	})

	s.that(t, "of several first writes that have leave one begins the store, and the others go on", func(t *testing.T, c client) {
		never := c.wantNeverWritten(true, 0, writes(object("a", 0)))
		var mu sync.Mutex
		began := 0
		c.each(func(c client, writer int) {
			w, err := c.putWithin(writes(object(fmt.Sprint("k", writer), 0)), storage.Limits{Begin: never})
			if err != nil {
				t.Errorf("put: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if w.NewWallet {
				began++
			}
		})
		if got := c.recount(); began != 1 || got.Objects != 2*writersPerInstance {
			t.Errorf("it was the wallet's first write %d times, and there is %+v", began, got)
		}
		// And what begins is nothing to a put that comes after all of them.
		l := within(1, 1<<20)
		l.Begin = never
		if _, err := c.putWithin(writes(object("last", 0)), l); err != nil {
			t.Error(err)
		}
	})

	s.that(t, "leave does not help a wallet that was blocked meanwhile", func(t *testing.T, c client) {
		c.write("a")
		ks, err := storage.NewKeyspace(c.ks.Owner(), "another store")
		if err != nil {
			t.Fatal(err)
		}
		other := c.in(ks)
		never := other.wantNeverWritten(false, 1, writes(object("a", 0)))
		c.place.Block(t, c.ks, true)
		_, err = other.putWithin(writes(object("a", 0)), storage.Limits{Begin: never})
		wantErr(t, storage.ErrBlocked, err)
		if other.recount().Revision != 0 {
			t.Error("the store is on record")
		}
	})

	s.that(t, "a blocked wallet reads and does not write, in none of its stores, until that ends", func(t *testing.T, c client) {
		c.write("a")
		other, err := storage.NewKeyspace(c.ks.Owner(), "another store")
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := storage.NewKeyspace(c.ks.Owner(), "a new store")
		if err != nil {
			t.Fatal(err)
		}
		c.in(other).write("a")
		c.place.Block(t, c.ks, true)
		for _, c := range []client{c, c.in(other), c.in(fresh)} {
			c.wantPut(storage.ErrBlocked, writes(object("a", -1)))
			c.wantPut(storage.ErrBlocked, writes(object("a", 7))) // which would be a conflict
		}
		wantErr(t, storage.ErrBlocked, c.del("a", -1))
		c.wantVersion("a", 1)
		c.wantKeys("", "a")
		if c.in(fresh).recount().Revision != 0 {
			t.Error("the new store is on record")
		}
		c.place.Block(t, c.ks, false)
		c.wantPut(nil, writes(object("a", 1)))
		c.in(fresh).write("a")
	})

	s.that(t, "a long list of keys counts each", func(t *testing.T, c client) {
		keys := make([]string, 300)
		for i := range keys {
			keys[i] = fmt.Sprint(strings.Repeat("k", i), i)
		}
		c.write(keys...)
		got := c.recount()
		if got.Objects != 300 || got.Objects != got.CountedObjects || got.Bytes != got.CountedBytes {
			t.Errorf("counts are %+v", got)
		}
		c.wantExceeded("objects_per_store", 301, 300, writes(object("one more", 0)), within(1, 300))
	})
}
