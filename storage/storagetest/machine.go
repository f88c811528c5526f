package storagetest

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vss-cloud/vss-cloud/storage"
)

// testModel runs random sequences of calls through both instances and compares every answer with the model's.
func testModel(t *testing.T, s *suite) {
	t.Run("a store answers any sequence of calls as the model does", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(rt *rapid.T) {
			m := machine{model: new(Model), c: client{t: t, place: s.shared, ks: keyspace(t)}}
			rt.Repeat(map[string]func(*rapid.T){
				"put":    m.put,
				"get":    m.get,
				"delete": m.delete,
				"list":   m.list,
				"count":  m.count,
			})
		})
	})
}

type machine struct {
	model *Model
	c     client
}

var (
	anyInstance = rapid.IntRange(0, 1)
	// Few keys, so that calls meet; some are prefixes of others; two are invalid.
	anyKey = rapid.SampledFrom([]string{
		"a", "ab", "a_", "a%", "b", "b/1", "b/2", "b/3", "é", "\U0010ffff", storage.GlobalVersionKey, ""})
	anyPrefix = rapid.SampledFrom([]string{"", "a", "a_", "b", "b/", "c", "\U0010ffff", "\xff"})
	anyValue  = rapid.Map(rapid.IntRange(0, 5), func(n int) []byte { return make([]byte, n*n*200) })
)

// version is most often the one that matches.
func (m machine) version(t *rapid.T, current int64) int64 {
	if rapid.IntRange(0, 9).Draw(t, "match") < 7 {
		return current
	}
	return rapid.Int64Range(-2, 4).Draw(t, "version")
}

func (m machine) current(key string) int64 {
	o, _ := m.model.Get(key)
	return o.Version
}

func (m machine) put(t *rapid.T) {
	var b storage.Batch
	keys := rapid.SliceOfNDistinct(anyKey, 0, 5, rapid.ID).Draw(t, "keys")
	if len(keys) > 1 && rapid.IntRange(0, 19).Draw(t, "twice") == 0 {
		keys[1] = keys[0]
	}
	for _, key := range keys {
		// Invalid keys would spoil most batches.
		if (key == "" || key == storage.GlobalVersionKey) && rapid.IntRange(0, 9).Draw(t, "invalid") > 0 {
			continue
		}
		version := m.version(t, m.current(key))
		if rapid.IntRange(0, 2).Draw(t, "delete") == 0 && (m.current(key) > 0 || rapid.Bool().Draw(t, "missing")) {
			b.Deletes = append(b.Deletes, item(key, version))
		} else {
			b.Writes = append(b.Writes, storage.Object{Key: key, Version: version, Value: anyValue.Draw(t, "value")})
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "global") == 0 {
		b.GlobalVersion = at(m.version(t, m.current(storage.GlobalVersionKey)))
	}
	l := limits(t, m.model)
	want, wantErr := m.model.Put(b, l)
	got, err := m.c.via(anyInstance.Draw(t, "instance")).putWithin(b, l)
	same(t, wantErr, err)
	got.NewWallet = false // not the model's
	if err == nil && got != want {
		t.Fatalf("put = %+v, want %+v", got, want)
	}
}

// limits are most often none, and else about what the store has.
func limits(t *rapid.T, m *Model) (l storage.Limits) {
	if rapid.IntRange(0, 3).Draw(t, "limited") > 0 {
		return l
	}
	objects, bytes := m.Count()
	ceiling := func(name string, about, off int64) (c storage.Ceiling) {
		if rapid.Bool().Draw(t, name) {
			c.Hard = max(1, about+rapid.Int64Range(-off, off).Draw(t, name+" hard"))
			c.Last = c.Hard + rapid.Int64Range(0, off).Draw(t, name+" reserve")
		}
		return c
	}
	l.Objects, l.Bytes = ceiling("objects", objects, 4), ceiling("bytes", bytes, 3000)
	if rapid.Bool().Draw(t, "value") {
		l.Value = rapid.Int64Range(1, 4000).Draw(t, "largest value")
	}
	return l
}

func (m machine) get(t *rapid.T) {
	key := anyKey.Draw(t, "key")
	want, wantErr := m.model.Get(key)
	got, err := m.c.via(anyInstance.Draw(t, "instance")).get(key)
	same(t, wantErr, err)
	if err == nil && (got.Key != want.Key || got.Version != want.Version || !slices.Equal(got.Value, want.Value)) {
		t.Fatalf("get %q = version %d with %s, want %d with %s", key, got.Version, brief(got.Value), want.Version, brief(want.Value))
	}
}

func (m machine) delete(t *rapid.T) {
	key := anyKey.Draw(t, "key")
	d := item(key, m.version(t, m.current(key)))
	want, wantErr := m.model.Delete(d)
	got, err := m.c.via(anyInstance.Draw(t, "instance")).deleted(d)
	same(t, wantErr, err)
	if got != want {
		t.Fatalf("delete of %q at version %d = %+v, want %+v", d.Key, d.Version, got, want)
	}
}

func (m machine) list(t *rapid.T) {
	req := storage.ListRequest{Prefix: anyPrefix.Draw(t, "prefix"), PageSize: rapid.IntRange(-1, 12).Draw(t, "page size")}
	c := m.c.via(anyInstance.Draw(t, "instance"))
	if err := req.Check(); err != nil {
		_, got := c.list(req)
		same(t, err, got)
		return
	}
	want, got := m.model.List(req.Prefix), c.walk(req.Prefix, req.PageSize)
	if !slices.Equal(want, got) {
		t.Fatalf("list %q by %d = %v, want %v", req.Prefix, req.PageSize, got, want)
	}
}

func (m machine) count(t *rapid.T) {
	objects, bytes := m.model.Count()
	if got := m.c.recount(); got.Objects != objects || got.Bytes != bytes {
		t.Fatalf("counters %+v, want %d objects of %d bytes", got, objects, bytes)
	}
}

// same expects that an error is of the kind that the model answered.
func same(t *rapid.T, want, got error) {
	kind := func(err error) error {
		if invalid := (*storage.InvalidError)(nil); errors.As(err, &invalid) {
			return storage.ErrBadToken // stands for all of them
		}
		return err
	}
	if exceeded := (*storage.ExceededError)(nil); errors.As(want, &exceeded) {
		if e := (*storage.ExceededError)(nil); !errors.As(got, &e) || *e != *exceeded {
			t.Fatalf("error %v, want %v", got, want)
		}
		return
	}
	if want, got := kind(want), kind(got); !errors.Is(got, want) {
		t.Fatalf("error %v, want %v", got, want)
	}
}
