package storagetest

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/vss-cloud/vss-cloud/storage"
)

// Model is CONTRACT section 2 for one store, in memory and in sequence. What a store answers to a sequence of
// calls is what its model answers. The zero value is a store never written.
type Model struct {
	global  int64
	written bool
	created int64 // keys so far
	objects map[string]modelled
}

type modelled struct {
	version  int64
	value    []byte
	position int64 // how many keys were created before
}

// Get is [storage.Store.Get].
func (m *Model) Get(key string) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, err
	}
	if key == storage.GlobalVersionKey {
		return storage.Object{Key: key, Version: m.global}, nil
	}
	o, ok := m.objects[key]
	if !ok {
		return storage.Object{}, storage.ErrNoSuchKey
	}
	return storage.Object{Key: key, Version: o.version, Value: o.value}, nil
}

// Put is [storage.Store.Put], but for what limits say of a wallet.
func (m *Model) Put(b storage.Batch, l storage.Limits) (storage.Written, error) {
	if err := m.check(b); err != nil {
		return storage.Written{}, err
	}
	if err := m.within(b, l); err != nil {
		return storage.Written{}, err
	}
	m.apply(b)
	objects, bytes := m.Count()
	return storage.Written{Objects: objects, Bytes: bytes}, nil
}

// within compares what would be with the limits, in the order of CONTRACT section 5.
func (m *Model) within(b storage.Batch, l storage.Limits) error {
	after := Model{written: m.written, created: m.created, objects: maps.Clone(m.objects)}
	after.apply(b)
	oldObjects, oldBytes := m.Count()
	objects, bytes := after.Count()
	exceeded := func(limit string, before, used int64, c storage.Ceiling) error {
		allowed := c.Last
		if !m.written {
			allowed = c.Hard
		}
		if c == (storage.Ceiling{}) || used <= before || used <= allowed {
			return nil
		}
		return &storage.ExceededError{Limit: limit, Used: used, Allowed: allowed}
	}
	if err := exceeded("objects_per_store", oldObjects, objects, l.Objects); err != nil {
		return err
	}
	if err := exceeded("bytes_per_store", oldBytes, bytes, l.Bytes); err != nil {
		return err
	}
	var largest int64
	for _, w := range b.Writes {
		if size := int64(len(w.Value)); size > int64(len(m.objects[w.Key].value)) {
			largest = max(largest, size)
		}
	}
	if l.Value != 0 && bytes > oldBytes && largest > l.Value {
		return &storage.ExceededError{Limit: "value_size", Used: largest, Allowed: l.Value}
	}
	return nil
}

// check says why the batch cannot be applied.
func (m *Model) check(b storage.Batch) error {
	if err := b.Check(); err != nil {
		return err
	}
	if g := b.GlobalVersion; g != nil && *g != storage.Unconditional && *g != m.global {
		return storage.ErrConflict
	}
	for _, w := range b.Writes {
		if w.Version != storage.Unconditional && w.Version != m.objects[w.Key].version {
			return storage.ErrConflict
		}
	}
	for _, d := range b.Deletes {
		if !m.has(d) {
			return storage.ErrConflict
		}
	}
	return nil
}

// apply applies a batch that can be.
func (m *Model) apply(b storage.Batch) {
	m.written = true
	if g := b.GlobalVersion; g != nil {
		m.global = next(*g)
	}
	for _, w := range b.Writes {
		o, ok := m.objects[w.Key]
		if !ok {
			o.position = m.created
			m.created++
		}
		o.version, o.value = next(w.Version), w.Value
		if m.objects == nil {
			m.objects = make(map[string]modelled)
		}
		m.objects[w.Key] = o
	}
	for _, d := range b.Deletes {
		delete(m.objects, d.Key)
	}
}

// Delete is [storage.Store.Delete].
func (m *Model) Delete(item storage.KeyVersion) (storage.Written, error) {
	if err := item.Check(); err != nil {
		return storage.Written{}, err
	}
	if !m.has(item) {
		return storage.Written{Objects: -1, Bytes: -1}, nil
	}
	delete(m.objects, item.Key)
	objects, bytes := m.Count()
	return storage.Written{Objects: objects, Bytes: bytes}, nil
}

// List is all pages of [storage.Store.List] in one.
func (m *Model) List(prefix string) []storage.KeyVersion {
	type placed struct {
		storage.KeyVersion
		position int64
	}
	var found []placed
	for k, o := range m.objects {
		if strings.HasPrefix(k, prefix) {
			found = append(found, placed{storage.KeyVersion{Key: k, Version: o.version}, o.position})
		}
	}
	slices.SortFunc(found, func(a, b placed) int { return cmp.Compare(b.position, a.position) })
	keys := make([]storage.KeyVersion, len(found))
	for i, f := range found {
		keys[i] = f.KeyVersion
	}
	return keys
}

// Count is what the store's counters have to say.
func (m *Model) Count() (objects, bytes int64) {
	for k, o := range m.objects {
		bytes += int64(len(k) + len(o.value))
	}
	return int64(len(m.objects)), bytes
}

func (m *Model) has(item storage.KeyVersion) bool {
	o, ok := m.objects[item.Key]
	return ok && (item.Version == storage.Unconditional || item.Version == o.version)
}

// next is the version that a write leaves: after [storage.Unconditional] it is 1.
func next(expected int64) int64 {
	if expected == storage.Unconditional {
		return 1
	}
	return expected + 1
}
