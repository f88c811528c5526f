package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/storage"
)

// patience bounds every wait of the suite. No promise of speed is meant by it.
var patience = 30 * time.Second

// maxPage is the most keys of a page (CONTRACT section 2) where no operator raised it.
const maxPage = 100

// client calls one keyspace through one instance, and fails its test where an answer is wrong.
type client struct {
	t        testing.TB
	place    Place
	instance int
	ks       storage.Keyspace
}

// keyspace is a store that nobody has used, of a wallet that nobody has used.
func keyspace(t testing.TB) storage.Keyspace {
	t.Helper()
	return keyspaceOf(t, storage.Owner{Tenant: uuid.New(), Namespace: "sig", Subject: "wallet"}, "store")
}

func keyspaceOf(t testing.TB, owner storage.Owner, storeID string) storage.Keyspace {
	t.Helper()
	ks, err := storage.NewKeyspace(owner, storeID)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

func (c client) via(instance int) client        { c.instance = instance; return c }
func (c client) in(ks storage.Keyspace) client  { c.ks = ks; return c }
func (c client) store() storage.Store           { return c.place.Stores()[c.instance] }
func (c client) recount() Count                 { c.t.Helper(); return c.place.Recount(c.t, c.ks) }
func (c client) ctx() (context.Context, func()) { return context.WithTimeout(c.t.Context(), patience) }
func at(version int64) *int64                   { return &version }
func object(k string, v int64) storage.Object {
	return storage.Object{Key: k, Version: v, Value: []byte(k)}
}
func item(k string, v int64) storage.KeyVersion   { return storage.KeyVersion{Key: k, Version: v} }
func writes(objs ...storage.Object) storage.Batch { return storage.Batch{Writes: objs} }

// put and those after it are the calls themselves.
func (c client) put(b storage.Batch) error {
	ctx, cancel := c.ctx()
	defer cancel()
	return c.putBy(ctx, b)
}

// putBy puts without limits.
func (c client) putBy(ctx context.Context, b storage.Batch) error {
	_, err := c.store().Put(ctx, c.ks, b, storage.Limits{})
	return err
}

// putWithin puts within limits.
func (c client) putWithin(b storage.Batch, l storage.Limits) (storage.Written, error) {
	ctx, cancel := c.ctx()
	defer cancel()
	return c.store().Put(ctx, c.ks, b, l)
}

func (c client) del(key string, version int64) error {
	ctx, cancel := c.ctx()
	defer cancel()
	return c.delBy(ctx, key, version)
}

func (c client) delBy(ctx context.Context, key string, version int64) error {
	_, err := c.store().Delete(ctx, c.ks, item(key, version))
	return err
}

// deleted deletes, and says what is there then.
func (c client) deleted(d storage.KeyVersion) (storage.Written, error) {
	ctx, cancel := c.ctx()
	defer cancel()
	return c.store().Delete(ctx, c.ks, d)
}

func (c client) get(key string) (storage.Object, error) {
	ctx, cancel := c.ctx()
	defer cancel()
	return c.store().Get(ctx, c.ks, key, nil)
}

func (c client) list(req storage.ListRequest) (storage.Page, error) {
	ctx, cancel := c.ctx()
	defer cancel()
	return c.store().List(ctx, c.ks, req)
}

// wantPut puts and expects the error, or success for nil.
func (c client) wantPut(want error, b storage.Batch) {
	c.t.Helper()
	wantErr(c.t, want, c.put(b))
}

// write stores the keys in order, each with its name as its value and whatever was there before.
func (c client) write(keys ...string) {
	c.t.Helper()
	for len(keys) > 0 {
		n := min(len(keys), storage.MaxBatchItems)
		var b storage.Batch
		for _, k := range keys[:n] {
			b.Writes = append(b.Writes, object(k, storage.Unconditional))
		}
		c.wantPut(nil, b)
		keys = keys[n:]
	}
}

// writeTo brings a key to a version by writing it that often.
func (c client) writeTo(key string, version int64) {
	c.t.Helper()
	c.write(key)
	for v := int64(1); v < version; v++ {
		c.wantPut(nil, writes(object(key, v)))
	}
}

func (c client) wantDelete(key string, version int64) {
	c.t.Helper()
	wantErr(c.t, nil, c.del(key, version))
}

func (c client) wantObject(key string, version int64, value []byte) {
	c.t.Helper()
	got, err := c.get(key)
	if err != nil {
		c.t.Fatalf("get %.40q: %v, want version %d", key, err, version)
	}
	if got.Key != key || got.Version != version || !bytes.Equal(got.Value, value) {
		c.t.Fatalf("get %.40q = %.40q version %d with %s, want version %d with %s",
			key, got.Key, got.Version, brief(got.Value), version, brief(value))
	}
}

// wantVersion expects a version of the key, 0 for "does not exist".
func (c client) wantVersion(key string, version int64) {
	c.t.Helper()
	got, err := c.get(key)
	if version == 0 {
		wantErr(c.t, storage.ErrNoSuchKey, err)
		return
	}
	wantErr(c.t, nil, err)
	if got.Version != version {
		c.t.Fatalf("%.40q is at version %d, want %d", key, got.Version, version)
	}
}

func (c client) wantGlobal(version int64) {
	c.t.Helper()
	c.wantObject(storage.GlobalVersionKey, version, nil)
	page, err := c.list(storage.ListRequest{PageSize: 1})
	wantErr(c.t, nil, err)
	if page.GlobalVersion == nil || *page.GlobalVersion != version {
		c.t.Fatalf("first page says global version %v, want %d", show(page.GlobalVersion), version)
	}
}

// wantKeys expects exactly these keys under the prefix, in this order.
func (c client) wantKeys(prefix string, keys ...string) {
	c.t.Helper()
	var got []string
	for _, kv := range c.walk(prefix, 0) {
		got = append(got, kv.Key)
	}
	if !equal(got, keys) {
		c.t.Fatalf("keys under %.40q:\n got %.600q\nwant %.600q", prefix, got, keys)
	}
}

// walk reads all pages and holds each to what is true of every page of a list that nobody changes meanwhile.
func (c client) walk(prefix string, size int) []storage.KeyVersion {
	c.t.Helper()
	var all []storage.KeyVersion
	req := storage.ListRequest{Prefix: prefix, PageSize: size}
	for {
		page := c.page(req)
		all = append(all, page.Keys...)
		if page.NextToken == "" {
			return all
		}
		if len(page.Keys) == 0 {
			c.t.Fatalf("list %.40q by %d: an empty page is not the last", prefix, size)
		}
		req.Token = page.NextToken
	}
}

// page reads one page and holds it to what is true of every page.
func (c client) page(req storage.ListRequest) storage.Page {
	c.t.Helper()
	page, err := c.list(req)
	wantErr(c.t, nil, err)
	most := req.PageSize
	if most == 0 || most > maxPage {
		most = maxPage
	}
	if len(page.Keys) > most {
		c.t.Fatalf("list %.40q by %d: %d keys on a page", req.Prefix, req.PageSize, len(page.Keys))
	}
	if first := req.Token == ""; first != (page.GlobalVersion != nil) {
		c.t.Fatalf("list %.40q: first page %t, global version %v", req.Prefix, first, show(page.GlobalVersion))
	}
	return page
}

// state is all that can be seen of a store.
type state struct {
	Global  int64
	Objects []storage.Object // newest first
	Count   Count
}

func (c client) state() state {
	c.t.Helper()
	g, err := c.get(storage.GlobalVersionKey)
	wantErr(c.t, nil, err)
	s := state{Global: g.Version, Count: c.recount()}
	for _, kv := range c.walk("", 0) {
		o, err := c.get(kv.Key)
		wantErr(c.t, nil, err)
		if o.Version != kv.Version {
			c.t.Fatalf("%.40q is at version %d, listed as %d", kv.Key, o.Version, kv.Version)
		}
		s.Objects = append(s.Objects, o)
	}
	c.wantCounted()
	return s
}

// unchanged expects that f changes nothing that can be seen of the store.
func (c client) unchanged(f func()) {
	c.t.Helper()
	before := c.state()
	f()
	if after := c.state(); !reflect.DeepEqual(before, after) {
		c.t.Fatalf("the store has changed:\nbefore %.1000v\nafter  %.1000v", before, after)
	}
}

// wantCounted expects that the store's counters say what a recount says.
func (c client) wantCounted() Count {
	c.t.Helper()
	n := c.recount()
	if n.Objects != n.CountedObjects || n.Bytes != n.CountedBytes {
		c.t.Errorf("counters say %d objects of %d bytes, a recount says %d of %d",
			n.Objects, n.Bytes, n.CountedObjects, n.CountedBytes)
	}
	return n
}

// start puts in the background.
func (c client) start(ctx context.Context, b storage.Batch) <-chan error {
	done := make(chan error, 1)
	go func() { done <- c.putBy(ctx, b) }()
	return done
}

// await waits for the answer of a call that was started.
func (c client) await(done <-chan error) error {
	c.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		c.t.Fatal("the call does not return")
		return nil
	}
}

// waiting waits until so many writers wait for a lock.
func (c client) waiting(want int) {
	c.t.Helper()
	for end := time.Now().Add(patience); ; {
		got := c.place.Waiting(c.t)
		if got == want {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%d writers wait for a lock, want %d", got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// hold takes the lock of the store's row once nobody waits for one: a writer that has been given up may
// still be there, and would be taken for the one that the test goes on to start.
func (c client) hold() (release func()) {
	c.t.Helper()
	c.waiting(0)
	return c.place.Hold(c.t, c.ks)
}

func wantErr(t testing.TB, want, got error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("error %v, want %v", got, want)
	}
}

func wantInvalid(t testing.TB, got error) {
	t.Helper()
	if invalid := (*storage.InvalidError)(nil); !errors.As(got, &invalid) {
		t.Fatalf("error %v, want an InvalidError", got)
	}
}

func equal(a, b []string) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

func show(v *int64) string {
	if v == nil {
		return "none"
	}
	return fmt.Sprint(*v)
}

func brief(value []byte) string {
	if len(value) > 32 {
		return fmt.Sprintf("%q... (%d bytes)", value[:32], len(value))
	}
	return fmt.Sprintf("%q", value)
}
