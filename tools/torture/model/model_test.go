package model_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/storagetest"
	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
)

var rules = model.Rules{Deadline: 9 * time.Second}

func at(version int64) *int64 { return &version }

// during gives an operation its times, in seconds.
func during(call, end float64, client int, o history.Op) history.Op {
	o.Client = client
	o.Call, o.Return = time.Duration(call*1e9), time.Duration(end*1e9)
	return o
}

func put(version int64, value history.Value, outcome history.Outcome) history.Op {
	return history.Op{Kind: history.Put, Writes: []history.Item{{Key: "k", Version: version, Value: value}}, Outcome: outcome}
}

func got(version int64, value history.Value) history.Op {
	return history.Op{Kind: history.Get, Item: history.Item{Key: "k"}, Outcome: history.OK, Answer: history.Answer{Version: version, Value: value}}
}

var missing = history.Op{Kind: history.Get, Item: history.Item{Key: "k"}, Outcome: history.NoSuchKey}

func listed(page, size int, prefix string, more bool, global *int64, keys ...history.Item) history.Op {
	return history.Op{Kind: history.List, Prefix: prefix, PageSize: size, Page: page, Outcome: history.OK,
		Answer: history.Answer{Keys: keys, More: more, Global: global}}
}

func TestHistoriesAreJudged(t *testing.T) {
	two := history.Op{Kind: history.Put, Writes: []history.Item{{Key: "a", Version: -1, Value: 1}, {Key: "b", Version: -1, Value: 2}}, Outcome: history.OK}
	a, b := history.Item{Key: "a", Version: 1}, history.Item{Key: "b", Version: 1}
	get := func(key string, value history.Value) history.Op {
		o := got(1, value)
		o.Item.Key = key
		return o
	}
	for name, test := range map[string]struct {
		want model.Verdict
		ops  []history.Op
	}{
		"nothing happened": {model.Linearizable, nil},
		"a write is read": {model.Linearizable, []history.Op{
			during(1, 2, 0, put(0, 1, history.OK)), during(3, 4, 1, got(1, 1)),
		}},
		"a write is not there": {model.Violated, []history.Op{
			during(1, 2, 0, put(0, 1, history.OK)), during(3, 4, 1, missing),
		}},
		"a read shows what was replaced": {model.Violated, []history.Op{
			during(1, 2, 0, put(0, 1, history.OK)), during(3, 4, 0, put(1, 2, history.OK)), during(5, 6, 1, got(1, 1)),
		}},
		"a read during a write may show either": {model.Linearizable, []history.Op{
			during(1, 2, 0, put(0, 1, history.OK)), during(3, 6, 0, put(1, 2, history.OK)),
			during(4, 5, 1, got(1, 1)), during(4, 5, 2, got(2, 2)),
		}},
		"but not the older one after the newer": {model.Violated, []history.Op{
			during(1, 2, 0, put(0, 1, history.OK)), during(3, 9, 0, put(1, 2, history.OK)),
			during(4, 5, 1, got(2, 2)), during(6, 7, 2, got(1, 1)),
		}},
		"two writers of one version both won": {model.Violated, []history.Op{
			during(1, 4, 0, put(0, 1, history.OK)), during(1, 4, 1, put(0, 2, history.OK)),
		}},
		"a conflict without a cause": {model.Violated, []history.Op{during(1, 2, 0, put(0, 1, history.Conflict))}},
		"a conflict with one": {model.Linearizable, []history.Op{
			during(1, 4, 0, put(0, 1, history.OK)), during(2, 3, 1, put(0, 2, history.Conflict)),
		}},
		"a write that ended with an error may have happened": {model.Linearizable, []history.Op{
			during(1, 2, 0, put(0, 1, history.Unknown)), during(3, 4, 1, missing), during(5, 6, 1, got(1, 1)),
		}},
		"or not": {model.Linearizable, []history.Op{
			during(1, 2, 0, put(0, 1, history.Unknown)), during(3, 4, 1, missing), during(11, 12, 1, missing),
		}},
		"but it does not happen after its deadline": {model.Violated, []history.Op{
			during(1, 2, 0, put(0, 1, history.Unknown)), during(10.5, 11, 1, missing), during(12, 13, 1, got(1, 1)),
		}},
		"nor twice": {model.Violated, []history.Op{
			during(1, 2, 0, put(-1, 1, history.Unknown)), during(2, 3, 1, got(1, 1)),
			during(4, 5, 1, put(-1, 2, history.OK)), during(6, 7, 1, got(1, 1)),
		}},
		"a refused write shows": {model.Violated, []history.Op{
			during(1, 2, 0, put(0, 1, history.Refused)), during(3, 4, 1, got(1, 1)),
		}},
		"a batch is seen whole": {model.Linearizable, []history.Op{
			during(1, 5, 0, two), during(2, 3, 1, listed(0, 0, "", false, at(0), b, a)),
		}},
		"half a batch is seen": {model.Violated, []history.Op{
			during(1, 5, 0, two), during(2, 3, 1, listed(0, 0, "", false, at(0), a)),
		}},
		"half a batch is seen by key": {model.Violated, []history.Op{
			during(1, 8, 0, two), during(2, 3, 1, get("a", 1)), during(4, 5, 1, history.Op{
				Kind: history.Get, Item: history.Item{Key: "b"}, Outcome: history.NoSuchKey}),
		}},
		"a list in the wrong order": {model.Violated, []history.Op{
			during(1, 2, 0, two), during(3, 4, 1, listed(0, 0, "", false, at(0), a, b)),
		}},
		"a list without the last page's mark": {model.Violated, []history.Op{
			during(1, 2, 0, two), during(3, 4, 1, listed(0, 0, "", true, at(0), b, a)),
		}},
		"a page goes on after an entry that was deleted": {model.Linearizable, []history.Op{
			during(1, 2, 0, two), during(3, 4, 1, listed(0, 1, "", true, at(0), b)),
			during(5, 6, 0, history.Op{Kind: history.Delete, Item: b, Outcome: history.OK}),
			during(7, 8, 0, history.Op{Kind: history.Put, Writes: []history.Item{{Key: "b", Value: 3}}, Outcome: history.OK}),
			during(9, 10, 1, listed(1, 1, "", false, nil, a)),
		}},
		"a page shows what was created after the first": {model.Violated, []history.Op{
			during(1, 2, 0, two), during(3, 4, 1, listed(0, 1, "", true, at(0), b)),
			during(5, 6, 0, history.Op{Kind: history.Put, Writes: []history.Item{{Key: "c", Value: 3}}, Outcome: history.OK}),
			during(9, 10, 1, listed(1, 2, "", false, nil, history.Item{Key: "c", Version: 1}, a)),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			history.Sort(test.ops)
			v, err := model.Check(test.ops, rules)
			if err != nil || v != test.want {
				t.Errorf("%v (%v), want %v", v, err, test.want)
			}
		})
	}
}

func TestAStalledDatabaseMayShowAWriteLateIfItReplacesNothing(t *testing.T) {
	late := []history.Op{
		during(1, 2, 0, put(0, 1, history.OK)), during(3, 12, 0, put(-1, 2, history.Unknown)),
		during(13, 14, 1, got(1, 1)), during(15, 16, 1, got(1, 2)),
	}
	between := append([]history.Op{}, late[:3]...)
	between = append(between, during(14.1, 14.2, 1, history.Op{Kind: history.Put, Outcome: history.OK,
		Writes: []history.Item{{Key: "other", Version: -1, Value: 3}}}), during(14.3, 14.4, 1, got(1, 1)), late[3])
	for name, test := range map[string]struct {
		ops     []history.Op
		stalled bool
		want    model.Verdict
	}{
		"it runs":                       {late, false, model.Violated},
		"it stood still":                {late, true, model.Linearizable},
		"it did, and there was another": {between, true, model.Violated},
	} {
		r := rules
		r.Stalled = test.stalled
		if v, err := model.Check(test.ops, r); err != nil || v != test.want {
			t.Errorf("%s: %v (%v), want %v", name, v, err, test.want)
		}
	}
}

// sequence makes a random history of one client from the answers of the other model that the project has.
func sequence(rng *rand.Rand, n int) (ops []history.Op) {
	keys := []string{"a", "a/1", "a/2", "a_", "b"}
	var (
		m     storagetest.Model
		pages []history.Item // what is left of the list that is being read
		last  history.Op
	)
	for i := range n {
		o := history.Op{Client: 1, Call: time.Duration(2 * i), Return: time.Duration(2*i + 1), Outcome: history.OK}
		version := func(key string) int64 {
			is, _ := m.Get(key)
			return []int64{-1, is.Version, is.Version, is.Version, rng.Int64N(4)}[rng.IntN(5)]
		}
		answer := func(err error) {
			switch {
			case errors.Is(err, storage.ErrConflict):
				o.Outcome = history.Conflict
			case errors.Is(err, storage.ErrNoSuchKey):
				o.Outcome = history.NoSuchKey
			case err != nil:
				panic(err)
			}
		}
		switch rng.IntN(4) {
		case 0:
			o.Kind, o.Item.Key = history.Get, append(keys, history.GlobalKey)[rng.IntN(6)]
			is, err := m.Get(o.Item.Key)
			answer(err)
			o.Answer.Version = is.Version
			for _, b := range is.Value {
				o.Answer.Value = o.Answer.Value<<8 | history.Value(b)
			}
		case 1:
			o.Kind = history.Put
			var b storage.Batch
			for _, k := range rng.Perm(len(keys))[:rng.IntN(4)] {
				key := keys[k]
				if rng.IntN(3) == 0 {
					o.Deletes = append(o.Deletes, history.Item{Key: key, Version: version(key)})
					b.Deletes = append(b.Deletes, storage.KeyVersion{Key: key, Version: o.Deletes[len(o.Deletes)-1].Version})
					continue
				}
				w := history.Item{Key: key, Version: version(key), Value: history.Value(len(ops) + 1)}
				o.Writes = append(o.Writes, w)
				b.Writes = append(b.Writes, storage.Object{Key: key, Version: w.Version, Value: []byte{byte(w.Value >> 8), byte(w.Value)}})
			}
			if rng.IntN(4) == 0 {
				o.Global = at(version(history.GlobalKey))
				b.GlobalVersion = o.Global
			}
			_, err := m.Put(b, storage.Limits{})
			answer(err)
		case 2:
			o.Kind = history.Delete
			o.Item.Key = keys[rng.IntN(len(keys))]
			o.Item.Version = version(o.Item.Key)
			_, err := m.Delete(storage.KeyVersion{Key: o.Item.Key, Version: o.Item.Version})
			answer(err)
		case 3:
			o.Kind = history.List
			o.Prefix, o.PageSize = []string{"", "a", "a/", "a_", "c"}[rng.IntN(5)], rng.IntN(4)
			if i > 0 && last.Kind == history.List && last.Answer.More {
				o.Prefix, o.Page = last.Prefix, last.Page+1
			} else {
				pages = nil
				for _, kv := range m.List(o.Prefix) {
					pages = append(pages, history.Item{Key: kv.Key, Version: kv.Version})
				}
				global, _ := m.Get(history.GlobalKey)
				o.Answer.Global = &global.Version
			}
			shown := len(pages)
			if o.PageSize > 0 {
				shown = min(shown, o.PageSize)
			}
			o.Answer.Keys, pages = pages[:shown], pages[shown:]
			o.Answer.More = len(pages) > 0
		}
		ops, last = append(ops, o), o
	}
	return ops
}

func TestAnySequenceThatTheStoresModelAnswersIsLinearizable(t *testing.T) {
	for seed := range uint64(300) {
		ops := sequence(rand.New(rand.NewPCG(seed, 0)), 60)
		if v, err := model.Check(ops, rules); err != nil || v != model.Linearizable {
			for _, o := range ops {
				t.Log(o)
			}
			t.Fatalf("seed %d: %v (%v)", seed, v, err)
		}
	}
}

func TestOneWrongAnswerIsAViolation(t *testing.T) {
	found := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		ops := sequence(rng, 60)
		o := &ops[rng.IntN(len(ops))]
		switch {
		case o.Outcome == history.NoSuchKey:
			o.Outcome, o.Answer = history.OK, history.Answer{Version: 1, Value: 1 << 20}
		case o.Kind == history.Get, len(o.Answer.Keys) == 0 && o.Kind == history.List:
			o.Answer.Version++
			o.Answer.More = !o.Answer.More
			if o.Kind == history.Get {
				o.Answer.More = false
			}
		case o.Kind == history.List:
			k := &o.Answer.Keys[rng.IntN(len(o.Answer.Keys))]
			k.Version++
		case o.Outcome == history.Conflict:
			o.Outcome = history.OK
		case o.Kind == history.Delete:
			o.Outcome = history.Conflict
		default:
			o.Outcome = history.Conflict
		}
		if v, err := model.Check(ops, rules); err != nil || v != model.Violated {
			t.Fatalf("seed %d: %v (%v) though %v is wrong", seed, v, err, *o)
		}
		found++
	}
	if found == 0 {
		t.Fatal("nothing was tried")
	}
}

func TestAViolationIsCutDownToWhatShowsIt(t *testing.T) {
	ops := sequence(rand.New(rand.NewPCG(7, 7)), 200)
	from := time.Duration(1000)
	ops = append(ops,
		history.Op{Client: 2, Call: from, Return: from + 1, Kind: history.Put, Outcome: history.OK,
			Writes: []history.Item{{Key: "zz", Version: -1, Value: 900}, {Key: "a", Version: -1, Value: 901}}},
		history.Op{Client: 2, Call: from + 2, Return: from + 3, Kind: history.Get, Item: history.Item{Key: "zz"}, Outcome: history.NoSuchKey},
		history.Op{Client: 2, Call: from + 4, Return: from + 5, Kind: history.Get, Item: history.Item{Key: "a"}, Outcome: history.OK,
			Answer: history.Answer{Version: 1, Value: 901}},
	)
	small := model.Smallest(ops, rules)
	if len(small) != 2 || small[0].Kind != history.Put || small[1].Outcome != history.NoSuchKey {
		for _, o := range small {
			t.Log(o)
		}
		t.Fatalf("%d operations are left", len(small))
	}
	path := filepath.Join(t.TempDir(), "history.html")
	if err := model.Visualize(history.File{Ops: small, Deadline: rules.Deadline}, path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() < 1000 {
		t.Fatalf("the page: %v, %v", info, err)
	}
}
