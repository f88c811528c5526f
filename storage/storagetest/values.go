package storagetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func testValues(t *testing.T, s *suite) {
	s.that(t, "a value of any size and content comes back as it was", func(t *testing.T, c client) {
		sizes := []int{
			0, 1, 2, 3, 100, 126, 127, 128, 1023, 1990, 1996, 2000, 2004, 2016, 2030, 2032, 2033, 2040, 2047, 2048, 2049,
			4096, 8159, 8160, 8191, 8192, 8193, 65535, 65536, 65537, 1 << 20,
		}
		for _, n := range sizes {
			noise, zeros := random(n), make([]byte, n)
			key := fmt.Sprint(n)
			c.wantPut(nil, writes(
				storage.Object{Key: key, Value: noise}, storage.Object{Key: key + " zeros", Value: zeros}))
			c.wantObject(key, 1, noise)
			c.wantObject(key+" zeros", 1, zeros)
		}
		c.wantCounted()
	})

	s.that(t, "every byte can be in a value", func(t *testing.T, c client) {
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		c.wantPut(nil, writes(storage.Object{Key: "k", Value: every}, storage.Object{Key: "x", Value: []byte(`\x00`)}))
		c.wantObject("k", 1, every)
		c.wantObject("x", 1, []byte(`\x00`))
	})

	s.that(t, "no value is an empty value", func(t *testing.T, c client) {
		c.wantPut(nil, writes(storage.Object{Key: "nil"}, storage.Object{Key: "empty", Value: []byte{}}))
		c.wantObject("nil", 1, nil)
		c.wantObject("empty", 1, nil)
		c.wantKeys("", "empty", "nil")
		if n := c.wantCounted(); n.Bytes != int64(len("nil")+len("empty")) {
			t.Fatalf("%d bytes, want those of the keys", n.Bytes)
		}
	})

	s.that(t, "a value grows and shrinks, and the counters with it", func(t *testing.T, c client) {
		for i, n := range []int{10, 3000, 0, 1 << 20, 1, 2000, 70000, 0} {
			value := random(n)
			c.wantPut(nil, writes(storage.Object{Key: "k", Version: int64(i), Value: value}))
			c.wantObject("k", int64(i)+1, value)
			if got := c.wantCounted(); got.Objects != 1 || got.Bytes != int64(len("k")+n) {
				t.Fatalf("%+v, want 1 object of %d bytes", got, len("k")+n)
			}
		}
		c.wantDelete("k", -1)
		if got := c.wantCounted(); got.Objects != 0 || got.Bytes != 0 {
			t.Fatalf("%+v, want nothing", got)
		}
	})

	s.that(t, "values of one put do not get mixed up", func(t *testing.T, c client) {
		var b storage.Batch
		for i := range 200 {
			b.Writes = append(b.Writes, storage.Object{Key: fmt.Sprint(i), Value: random(i * 37 % 5000)})
		}
		c.wantPut(nil, b)
		for _, w := range b.Writes {
			c.wantObject(w.Key, 1, w.Value)
		}
	})

	s.that(t, "a large value is admitted with its size", func(t *testing.T, c client) {
		value := random(1 << 20)
		c.wantPut(nil, writes(storage.Object{Key: "large", Value: value}))
		ctx, cancel := c.ctx()
		defer cancel()
		var asked []int64
		got, err := c.store().Get(ctx, c.ks, "large", func(size int64) error { asked = append(asked, size); return nil })
		wantErr(t, nil, err)
		if !bytes.Equal(got.Value, value) || len(asked) != 1 || asked[0] != int64(len(value)) {
			t.Fatalf("read %d bytes, admitted %v", len(got.Value), asked)
		}
	})

	s.that(t, "a refusal of a large value comes back as it is", func(t *testing.T, c client) {
		c.wantPut(nil, writes(storage.Object{Key: "large", Value: random(1 << 20)}))
		ctx, cancel := c.ctx()
		defer cancel()
		for _, refusal := range []error{errors.New("no room"), storage.ErrUnavailable, context.DeadlineExceeded} {
			for range 20 { // more often than there are connections to leak
				got, err := c.store().Get(ctx, c.ks, "large", func(int64) error { return refusal })
				if err != refusal || got.Value != nil { //nolint:errorlint // untouched, not only wrapped
					t.Fatalf("error %v with %s, want %v", err, brief(got.Value), refusal)
				}
			}
		}
		c.wantVersion("large", 1)
	})

	s.that(t, "nobody is asked about a small value or a missing one", func(t *testing.T, c client) {
		c.wantPut(nil, storage.Batch{GlobalVersion: at(0), Writes: []storage.Object{
			{Key: "empty"}, {Key: "small", Value: random(1000)}}})
		ctx, cancel := c.ctx()
		defer cancel()
		never := func(size int64) error { return fmt.Errorf("asked about %d bytes", size) }
		for _, key := range []string{"empty", "small", storage.GlobalVersionKey} {
			_, err := c.store().Get(ctx, c.ks, key, never)
			wantErr(t, nil, err)
		}
		_, err := c.store().Get(ctx, c.ks, "missing", never)
		wantErr(t, storage.ErrNoSuchKey, err)
	})

	s.that(t, "a value that grows after it was admitted is not read at its new size", func(t *testing.T, c client) {
		put := func(n int) {
			t.Helper()
			c.via(1).wantPut(nil, writes(storage.Object{Key: "k", Version: -1, Value: make([]byte, n)}))
		}
		put(1 << 20)
		for _, grown := range []int{3 << 20, 1<<20 + 1} {
			put(1 << 20)
			var admitted int64
			ctx, cancel := c.ctx()
			got, err := c.store().Get(ctx, c.ks, "k", func(size int64) error {
				if admitted == 0 {
					put(grown)
				}
				admitted = size
				return nil
			})
			cancel()
			if err != nil && !errors.Is(err, storage.ErrUnavailable) {
				t.Fatal(err)
			}
			if int64(len(got.Value)) > admitted {
				t.Fatalf("%d bytes read, %d admitted", len(got.Value), admitted)
			}
		}
	})

	s.that(t, "a value that goes after it was admitted is read as it was or is gone", func(t *testing.T, c client) {
		value := random(1 << 20)
		for _, then := range []func(c client){
			func(c client) { c.wantDelete("k", -1) },
			func(c client) { c.write("k") },
		} {
			c.wantPut(nil, writes(storage.Object{Key: "k", Version: -1, Value: value}))
			ctx, cancel := c.ctx()
			got, err := c.store().Get(ctx, c.ks, "k", func(int64) error { then(c.via(1)); return nil })
			cancel()
			switch {
			case err == nil && !bytes.Equal(got.Value, value) && string(got.Value) != "k":
				t.Fatalf("read %s", brief(got.Value))
			case err != nil && !errors.Is(err, storage.ErrNoSuchKey) && !errors.Is(err, storage.ErrUnavailable):
				t.Fatal(err)
			}
		}
	})
}

func testLargeValues(t *testing.T, s *suite) {
	t.Run("a value of 100 MiB comes back as it was", func(t *testing.T) {
		c := client{t: t, place: s.shared, ks: keyspace(t)}
		n := 100 << 20
		if testing.Short() {
			n = 8 << 20
		}
		value := random(n)
		// A busy machine may need more than a call's time for it. Then nothing was written, and a client tries again.
		put := func(want error) {
			t.Helper()
			err := storage.ErrTooLate
			for try := 0; try < 5 && (errors.Is(err, storage.ErrTooLate) || errors.Is(err, storage.ErrUnavailable)); try++ {
				err = c.put(writes(storage.Object{Key: "monitor", Value: value}))
			}
			wantErr(t, want, err)
		}
		put(nil)
		c.via(1).wantObject("monitor", 1, value)
		if got := c.wantCounted(); got.Bytes != int64(len("monitor")+n) {
			t.Fatalf("%d bytes counted", got.Bytes)
		}
		put(storage.ErrConflict)
		c.wantPut(nil, writes(object("monitor", 1)))
		c.wantObject("monitor", 2, []byte("monitor"))
	})
}
