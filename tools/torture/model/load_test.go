package model

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// concurrent makes the history of some clients of a store that is right, of whose writes that many in a
// hundred have no answer and take effect at any time until their deadline, or never.
func concurrent(seed uint64, clients, n, lost int, deadline time.Duration) []history.Op {
	rng := rand.New(rand.NewPCG(seed, 9))
	keys := []string{"a", "a/1", "a/2", "a_", "b"}
	type event struct {
		at time.Duration
		op *history.Op
	}
	var (
		ops    []*history.Op
		events []event
		known  = map[string]int64{}
		all    = Keys(keys)
	)
	for c := range clients {
		now := time.Duration(0)
		for range n / clients {
			o := &history.Op{Client: c, Via: "a", Call: now}
			took := time.Duration(1+rng.IntN(20)) * time.Millisecond
			o.Return = now + took
			switch r := rng.IntN(10); {
			case r < 5:
				o.Kind = history.Put
				for _, k := range rng.Perm(len(keys))[:1+rng.IntN(3)/2] {
					o.Writes = append(o.Writes, history.Item{Key: keys[k], Version: -2, Value: history.Value(len(ops) + 1)})
				}
			case r < 6:
				o.Kind, o.Item = history.Delete, history.Item{Key: keys[rng.IntN(len(keys))], Version: -1}
			case r < 9:
				o.Kind, o.Item.Key = history.Get, keys[rng.IntN(len(keys))]
			default:
				o.Kind, o.Prefix = history.List, []string{"", "a", "a/"}[rng.IntN(3)]
			}
			at := now + time.Duration(rng.Int64N(int64(took)))
			if o.Mutates() && rng.IntN(100) < lost {
				o.Outcome = history.Unknown
				o.Return = now + min(200*time.Millisecond, deadline)
				if rng.IntN(5) == 0 {
					at = now + time.Duration(rng.Int64N(int64(deadline)))
				}
			}
			ops = append(ops, o)
			if o.Outcome != history.Unknown || rng.IntN(2) == 0 {
				events = append(events, event{at, o})
			}
			now = o.Return + time.Duration(rng.IntN(10))*time.Millisecond
		}
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	var s State
	for _, e := range events {
		o := e.op
		for i := range o.Writes { // the writer knows the version, mostly
			o.Writes[i].Version = []int64{-1, known[o.Writes[i].Key], known[o.Writes[i].Key]}[rng.IntN(3)]
		}
		unknown := o.Outcome == history.Unknown
		s = s.Answer(all, o)
		if unknown {
			o.Outcome = history.Unknown
		} else {
			for _, w := range o.Writes {
				known[w.Key] = max(1, w.Version+1)
			}
		}
	}
	done := make([]history.Op, len(ops))
	for i, o := range ops {
		for w := range o.Writes {
			o.Writes[w].Version = max(-1, o.Writes[w].Version)
		}
		done[i] = *o
	}
	history.Sort(done)
	return done
}

func TestHistoriesWithManyUnknownOutcomesAreDecided(t *testing.T) {
	for _, lost := range []int{0, 5, 10, 20, 40} {
		t.Run(fmt.Sprint(lost, " in a hundred"), func(t *testing.T) {
			var worst time.Duration
			verdicts := make(map[Verdict]int)
			for seed := range uint64(5) {
				ops := concurrent(seed, 4, 400, lost, 9*time.Second)
				begin := time.Now()
				v, err := Check(ops, Rules{Deadline: 9 * time.Second})
				worst = max(worst, time.Since(begin))
				verdicts[v]++
				if err != nil || v != Linearizable && v != KeyByKey {
					t.Errorf("seed %d: %v (%v) after %v", seed, v, err, time.Since(begin))
				}
			}
			t.Logf("%v, at most %v", verdicts, worst)
		})
	}
}

// porcupine, asked to find a place for every write of unknown outcome, is right and slow. On small histories
// both must agree, whether they are right or not.
func TestUnknownWritesAreJudgedAsPorcupineJudgesThem(t *testing.T) {
	verdicts := make(map[Verdict]int)
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		deadline := time.Duration(20+rng.IntN(200)) * time.Millisecond
		ops := concurrent(seed, 2+rng.IntN(3), 8+rng.IntN(12), 35, deadline)
		if o := &ops[rng.IntN(len(ops))]; seed%3 > 0 && o.Outcome != history.Unknown {
			switch {
			case o.Kind == history.List && len(o.Answer.Keys) > 1:
				o.Answer.Keys[0], o.Answer.Keys[1] = o.Answer.Keys[1], o.Answer.Keys[0]
			case o.Kind == history.Get && rng.IntN(2) == 0:
				o.Outcome, o.Answer = history.NoSuchKey, history.Answer{}
			case o.Kind == history.Get: // what some other write left
				for _, w := range ops[rng.IntN(len(ops))].Writes {
					o.Outcome, o.Answer, o.Item.Key = history.OK, history.Answer{Version: max(1, w.Version+1), Value: w.Value}, w.Key
				}
			case o.Kind == history.Put && o.Outcome == history.OK:
				o.Outcome = history.Conflict
			case o.Kind == history.Put:
				o.Outcome = history.OK
			}
		}
		q, err := newQuestion(ops, deadline)
		if err != nil {
			t.Fatal(err)
		}
		want := verdict(porcupine.CheckOperationsTimeout(q.model, q.ops, 10*time.Second))
		got, err := Check(ops, Rules{Deadline: deadline})
		if want == Undecided {
			continue
		}
		verdicts[want]++
		if err != nil || got != want {
			for _, o := range ops {
				t.Log(o)
			}
			t.Fatalf("seed %d: %v (%v), and porcupine says %v; deadline %v", seed, got, err, want, deadline)
		}
	}
	if verdicts[Linearizable] < 300 || verdicts[Violated] < 300 {
		t.Errorf("that was no test: %v", verdicts)
	}
	t.Log(verdicts)
}
