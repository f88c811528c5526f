package storagetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

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
			Objects: storage.Ceiling{Hard: 1, Last: 1}, Bytes: storage.Ceiling{Hard: 1, Last: 1}, Value: 1, Stores: 1,
			Begin: func(context.Context, bool) error { return errors.New("asked though the store is known") },
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

	s.that(t, "a wallet has as many stores as it may, and those grow on", func(t *testing.T, c client) {
		l := storage.Limits{Stores: 2}
		stores := make([]client, 3)
		for i := range stores {
			ks, err := storage.NewKeyspace(c.ks.Owner(), fmt.Sprint("store ", i))
			if err != nil {
				t.Fatal(err)
			}
			stores[i] = c.in(ks)
		}
		stores[0].wantWritten(storage.Written{Objects: 1, Bytes: 2, NewWallet: true}, writes(object("a", 0)), l)
		stores[1].wantWritten(storage.Written{Objects: 1, Bytes: 2}, writes(object("a", 0)), l)
		stores[2].wantExceeded("stores_per_wallet", 3, 2, writes(object("a", 0)), l)
		if stores[2].recount().Revision != 0 {
			t.Error("the refused store is on record")
		}
		stores[0].wantWritten(storage.Written{Objects: 2, Bytes: 4}, writes(object("b", 0)), l)
		// One that would have been refused is content with nothing.
		stores[2].wantDelete("a", -1)
	})

	s.that(t, "a store that has never been written is asked for, once, and leaves nothing where it is refused", func(t *testing.T, c client) {
		var asked []bool
		closed := errors.New("enrolment is closed")
		answer := closed
		l := storage.Limits{Begin: func(_ context.Context, newWallet bool) error { asked = append(asked, newWallet); return answer }}
		_, err := c.putWithin(writes(object("a", 0)), l)
		wantErr(t, closed, err)
		if c.recount().Known {
			t.Error("the refused wallet is on record")
		}
		c.wantDelete("a", -1)
		_, err = c.putWithin(storage.Batch{Deletes: []storage.KeyVersion{item("a", -1)}}, l)
		wantErr(t, storage.ErrConflict, err)
		if c.recount().Known {
			t.Error("a put of deletes alone enrolled a wallet")
		}
		_, err = c.get("a")
		wantErr(t, storage.ErrNoSuchKey, err)
		answer = nil
		c.wantWritten(storage.Written{Objects: 1, Bytes: 2, NewWallet: true}, writes(object("a", 0)), l)
		c.wantWritten(storage.Written{Objects: 2, Bytes: 4}, writes(object("b", 0)), l)
		ks, err := storage.NewKeyspace(c.ks.Owner(), "another store")
		if err != nil {
			t.Fatal(err)
		}
		c.in(ks).wantWritten(storage.Written{Objects: 1, Bytes: 2}, writes(object("a", 0)), l)
		if want := []bool{true, true, false}; !slices.Equal(asked, want) {
			t.Errorf("asked of new wallets: %v, want %v", asked, want)
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
