package teeth

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tools/torture/faults"
)

// Bugs are the mistakes that are looked for. None is the platform as it is, in which nothing may be found.
var Bugs = []Bug{
	{Name: "stale read", wrap: on(func(b *buggy) { b.get = b.staleRead })},
	{Name: "false not-found", wrap: on(func(b *buggy) { b.get = b.falseNotFound })},
	{Name: "lost write", wrap: on(func(b *buggy) { b.put = b.lostWrite })},
	{Name: "zombie write after the deadline", wrap: on(func(b *buggy) { b.put = b.zombie }), slow: true},
	{Name: "refused, and done all the same", wrap: on(func(b *buggy) { b.put = b.refusedAndDone })},
	{Name: "conflict without a cause", wrap: on(func(b *buggy) { b.put = b.falseConflict })},
	{Name: "split batch", wrap: on(func(b *buggy) { b.put = b.splitBatch })},
	{Name: "global version not compared", wrap: on(func(b *buggy) { b.put = b.globalUnchecked })},
	{Name: "delete that ignores the version", wrap: on(func(b *buggy) { b.del = b.deleteAnyVersion })},
	{Name: "list without one of its keys", wrap: on(func(b *buggy) { b.list = b.listOmits })},
	{Name: "wildcards in a prefix", wrap: on(func(b *buggy) { b.list = b.wildcards })},
	{Name: "versions from the locking statement's snapshot", wrap: oneStatement},
	{Name: "saved after an ambiguous commit", wrap: on(func(b *buggy) { b.put = b.ambiguousIsSaved }), lose: true},
	{Name: "run again after an ambiguous commit", wrap: on(func(b *buggy) { b.put = b.ambiguousAgain }), lose: true},
}

// None is no bug at all, under the same faults: it is not to be found.
var None = Bug{Name: "none", lose: true}

// Crossing is the bug that [FindCrossing] looks for.
var Crossing = Bug{Name: "a read in the store of the call before", wrap: on(func(b *buggy) { b.get = b.anothersStore })}

// buggy is a store with some of its methods replaced. Most bugs show once in some dozen calls.
type buggy struct {
	storage.Store
	get  func(context.Context, storage.Keyspace, string, storage.Admit) (storage.Object, error)
	put  func(context.Context, storage.Keyspace, storage.Batch) error
	del  func(context.Context, storage.Keyspace, storage.KeyVersion) error
	list func(context.Context, storage.Keyspace, storage.ListRequest) (storage.Page, error)

	mu    sync.Mutex
	other storage.Keyspace          // of the call before
	seen  map[string]storage.Object // what this instance last read of a key
}

func on(set func(*buggy)) func(storage.Store, *pgxpool.Pool) storage.Store {
	return func(s storage.Store, _ *pgxpool.Pool) storage.Store {
		b := &buggy{Store: s, get: s.Get, list: s.List, seen: make(map[string]storage.Object)}
		b.put, b.del = b.save, b.remove
		set(b)
		return b
	}
}

func (b *buggy) Get(ctx context.Context, ks storage.Keyspace, key string, admit storage.Admit) (storage.Object, error) {
	return b.get(ctx, ks, key, admit)
}
func (b *buggy) Put(ctx context.Context, ks storage.Keyspace, batch storage.Batch, _ storage.Limits) (storage.Written, error) {
	return storage.Written{}, b.put(ctx, ks, batch)
}

// save is the store's own put, without limits.
func (b *buggy) save(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	_, err := b.Store.Put(ctx, ks, batch, storage.Limits{})
	return err
}

// remove is the store's own delete.
func (b *buggy) remove(ctx context.Context, ks storage.Keyspace, item storage.KeyVersion) error {
	_, err := b.Store.Delete(ctx, ks, item)
	return err
}
func (b *buggy) Delete(ctx context.Context, ks storage.Keyspace, item storage.KeyVersion) (storage.Written, error) {
	return storage.Written{}, b.del(ctx, ks, item)
}
func (b *buggy) List(ctx context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error) {
	return b.list(ctx, ks, req)
}

// rarely is true once in some dozen times.
func rarely() bool { return rand.IntN(40) == 0 }

// staleRead answers, at times, what this instance last read, as a replica or a cache would.
func (b *buggy) staleRead(ctx context.Context, ks storage.Keyspace, key string, admit storage.Admit) (storage.Object, error) {
	b.mu.Lock()
	old, ok := b.seen[ks.Store().String()+key]
	b.mu.Unlock()
	if ok && rarely() {
		return old, nil
	}
	o, err := b.Store.Get(ctx, ks, key, admit)
	if err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen[ks.Store().String()+key] = o
	}
	return o, err
}

// falseNotFound takes, at times, an error of the database's for the absence of the key.
func (b *buggy) falseNotFound(ctx context.Context, ks storage.Keyspace, key string, admit storage.Admit) (storage.Object, error) {
	if key != storage.GlobalVersionKey && rarely() {
		return storage.Object{}, storage.ErrNoSuchKey
	}
	return b.Store.Get(ctx, ks, key, admit)
}

// anothersStore reads, at times, in the store of the call before.
func (b *buggy) anothersStore(ctx context.Context, ks storage.Keyspace, key string, admit storage.Admit) (storage.Object, error) {
	b.mu.Lock()
	other := b.other
	b.other = ks
	b.mu.Unlock()
	if other != (storage.Keyspace{}) && rarely() {
		ks = other
	}
	return b.Store.Get(ctx, ks, key, admit)
}

// lostWrite says "saved" without saving, at times.
func (b *buggy) lostWrite(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	if rarely() {
		return nil
	}
	return b.save(ctx, ks, batch)
}

// zombie holds a write up, at times, and does it when its deadline is past.
func (b *buggy) zombie(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	if !rarely() {
		return b.save(ctx, ks, batch)
	}
	go func() {
		time.Sleep(deadline + deadline/2)
		_ = b.save(context.WithoutCancel(ctx), ks, batch)
	}()
	return storage.ErrAmbiguous
}

// refusedAndDone loses the answer of a write and takes that for a refusal.
func (b *buggy) refusedAndDone(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	err := b.save(ctx, ks, batch)
	if rarely() {
		return storage.ErrUnavailable
	}
	return err
}

// falseConflict refuses a write, at times, whatever its versions.
func (b *buggy) falseConflict(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	if rarely() {
		return storage.ErrConflict
	}
	return b.save(ctx, ks, batch)
}

// splitBatch writes the items of a batch one after the other.
func (b *buggy) splitBatch(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	parts := make([]storage.Batch, 0, len(batch.Writes)+len(batch.Deletes))
	for i := range batch.Writes {
		parts = append(parts, storage.Batch{Writes: batch.Writes[i : i+1]})
	}
	for i := range batch.Deletes {
		parts = append(parts, storage.Batch{Deletes: batch.Deletes[i : i+1]})
	}
	for i, part := range parts {
		if i == 0 {
			part.GlobalVersion = batch.GlobalVersion
		}
		if err := b.save(ctx, ks, part); err != nil {
			return err
		}
	}
	return nil
}

// globalUnchecked does not compare the store's version.
func (b *buggy) globalUnchecked(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	batch.GlobalVersion = nil
	return b.save(ctx, ks, batch)
}

// deleteAnyVersion deletes whatever the version.
func (b *buggy) deleteAnyVersion(ctx context.Context, ks storage.Keyspace, item storage.KeyVersion) error {
	item.Version = storage.Unconditional
	return b.remove(ctx, ks, item)
}

// listOmits leaves out the last key of a page, at times.
func (b *buggy) listOmits(ctx context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error) {
	page, err := b.Store.List(ctx, ks, req)
	if len(page.Keys) > 1 && rarely() {
		page.Keys = page.Keys[:len(page.Keys)-1]
	}
	return page, err
}

// wildcards takes an underscore at the end of a prefix for anything.
func (b *buggy) wildcards(ctx context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error) {
	req.Prefix = strings.TrimSuffix(req.Prefix, "_")
	return b.Store.List(ctx, ks, req)
}

// ambiguousIsSaved hopes for the best.
func (b *buggy) ambiguousIsSaved(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	err := b.save(ctx, ks, batch)
	if errors.Is(err, storage.ErrAmbiguous) {
		return nil
	}
	return err
}

// ambiguousAgain runs a write again that may have been saved.
func (b *buggy) ambiguousAgain(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
	err := b.save(ctx, ks, batch)
	if errors.Is(err, storage.ErrAmbiguous) {
		return b.save(ctx, ks, batch)
	}
	return err
}

// lose cuts the connection of one commit in some, before the database has it or before its answer arrives,
// and that of the question that would settle it.
func lose(statements []string) faults.Action {
	for _, s := range statements {
		switch {
		case strings.Contains(s, "LastWrite") && rand.IntN(2) == 0:
			return faults.CutBefore
		case strings.Contains(s, "ApplyWrites") || s == "commit":
			switch rand.IntN(60) {
			case 0:
				return faults.CutBefore
			case 1:
				return faults.CutAfter
			}
		}
	}
	return faults.Pass
}

// oneStatement decides a write of one item by one statement that locks the store's row, looks at the version
// and writes. If it waits for the lock, it sees the row as it is by then and the versions as they were
// before: of two writers, both win.
func oneStatement(s storage.Store, pool *pgxpool.Pool) storage.Store {
	return on(func(b *buggy) {
		b.put = func(ctx context.Context, ks storage.Keyspace, batch storage.Batch) error {
			if err := batch.Check(); err != nil {
				return err
			}
			if len(batch.Writes) != 1 || len(batch.Deletes) > 0 || batch.GlobalVersion != nil || batch.Writes[0].Version < 1 {
				return b.save(ctx, ks, batch)
			}
			w := batch.Writes[0]
			var done int
			err := pool.QueryRow(ctx, `
				WITH locked AS MATERIALIZED (SELECT store FROM stores WHERE store = $1 FOR NO KEY UPDATE),
				     matching AS MATERIALIZED (SELECT 1 FROM locked, objects o WHERE o.store = $1 AND o.key = $2 AND o.version = $3),
				     written AS (INSERT INTO objects (store, key, version, position, value)
				                 SELECT $1, $2, $3 + 1, 0, $4 FROM matching
				                 ON CONFLICT (store, key) DO UPDATE SET version = excluded.version, value = excluded.value
				                 RETURNING 1)
				SELECT count(*) FROM written`,
				uuid.UUID(ks.Store()), w.Key, w.Version, w.Value).Scan(&done)
			switch {
			case err != nil && !errors.Is(err, pgx.ErrNoRows):
				return storage.ErrAmbiguous
			case done == 0:
				return storage.ErrConflict
			}
			return nil
		}
	})(s, pool)
}
