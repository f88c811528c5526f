package model

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// Verdict is what a history comes to.
type Verdict int

// The verdicts. KeyByKey: of the whole it was not found out (too many writes had no answer), but every key by
// itself, and the store's version, is linearizable. Undecided: not even that is known.
const (
	Linearizable Verdict = iota
	KeyByKey
	Violated
	Undecided
)

func (v Verdict) String() string {
	return [...]string{"linearizable", "linearizable key by key", "VIOLATED", "undecided"}[v]
}

// Rules say how a history is judged.
type Rules struct {
	// Deadline is how long after its call a write of unknown outcome may take effect.
	Deadline time.Duration

	// Stalled says that processes of the database stood still. One that did so in the midst of a commit, past
	// every check, ends it whenever it is let go on. All that can be asked then is that such a write replaces
	// nothing: past its deadline it may show as long as nothing else was written to the store since.
	Stalled bool

	// Work bounds a search by its steps and not by time, so that a verdict is the same on any machine. Zero:
	// enough for the histories of a run; a second or two.
	Work int
}

const enough = 2_000_000

// Check judges the history of one store that began empty. An attempt with outcome Unknown may have taken
// effect or not. One that was Refused must not have: it is left out, so that whatever shows its effect cannot
// be explained.
func Check(ops []history.Op, r Rules) (Verdict, error) {
	keys, err := check(ops)
	if err != nil {
		return Undecided, err
	}
	// As it mostly is; then key by key, where what is wrong is soon found; then as a whole.
	v, err := judge(keys, ops, r, false)
	if v == Linearizable || v == Violated && !unknowns(ops) || err != nil {
		return v, err
	}
	byKey := r
	byKey.Work = 50 * cmp.Or(r.Work, enough) // half a minute, if need be: it is the least that must be known
	for _, k := range append(keys, history.GlobalKey) {
		if v, err := judge(keys, only(ops, k), byKey, true); v != Linearizable || err != nil {
			return v, err
		}
	}
	if v, err = judge(keys, ops, r, true); v == Undecided && err == nil {
		v = KeyByKey
	}
	return v, err
}

func unknowns(ops []history.Op) bool {
	return slices.ContainsFunc(ops, func(o history.Op) bool { return o.Outcome == history.Unknown && o.Mutates() })
}

// check finds the keys of a history, and says whether it is one that can be judged.
func check(ops []history.Op) (Keys, error) {
	for _, o := range ops {
		if o.Client >= MaxClients {
			return nil, fmt.Errorf("client %d in a history, %d are the most", o.Client, MaxClients)
		}
	}
	return KeysOf(ops)
}

func verdict(r porcupine.CheckResult) Verdict {
	switch r {
	case porcupine.Ok:
		return Linearizable
	case porcupine.Illegal:
		return Violated
	}
	return Undecided
}

// question is a history as porcupine shows it, unknown writes and all.
type question struct {
	model porcupine.Model
	ops   []porcupine.Operation
}

func newQuestion(ops []history.Op, deadline time.Duration) (q question, err error) {
	keys, err := check(ops)
	if err != nil {
		return q, err
	}
	for _, o := range ops {
		ends := o.Return
		switch {
		case o.Outcome == history.Refused, o.Outcome == history.Unknown && !o.Mutates():
			continue
		case o.Outcome == history.Unknown:
			ends = o.Call + deadline
		}
		q.ops = append(q.ops, porcupine.Operation{
			ClientId: o.Client, Input: o, Call: int64(o.Call), Return: int64(ends), Metadata: o,
		})
	}
	seed := maphash.MakeSeed()
	q.model = (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{State{}} },
		Step: func(state, input, _ any) []any {
			s, o := state.(State), input.(history.Op)
			if o.Outcome != history.Unknown {
				if next, ok := s.Answers(keys, o); ok {
					return []any{next}
				}
				return nil
			}
			o.Outcome = history.OK
			if next, ok := s.Answers(keys, o); ok && next != s {
				return []any{s, next}
			}
			return []any{s}
		},
		Hash:              func(state any) uint64 { return maphash.Comparable(seed, state.(State)) },
		DescribeOperation: func(input, _ any) string { return input.(history.Op).Describe() },
		DescribeState:     func(state any) string { return state.(State).Describe(keys) },
		DescribeOperationMetadata: func(o any) string {
			return fmt.Sprintf("%s %s", o.(history.Op).Via, o.(history.Op).Note)
		},
	}).ToModel()
	return q, nil
}

// Visualize writes porcupine's page about the history to a file: the longest sequences that explain a part
// of it, with the state after each step.
func Visualize(f history.File, path string) error {
	q, err := newQuestion(f.Ops, f.Deadline)
	if err != nil {
		return err
	}
	_, info := porcupine.CheckOperationsVerbose(q.model, q.ops, time.Minute)
	first, last := time.Duration(math.MaxInt64), time.Duration(0)
	for _, o := range f.Ops {
		first, last = min(first, o.Call), max(last, o.Return)
	}
	var faults []porcupine.Annotation
	for _, fault := range f.Faults {
		if fault.End >= first && fault.Begin <= last {
			faults = append(faults, porcupine.Annotation{
				Tag: "faults", Description: fault.Name, Start: int64(max(first, fault.Begin)), End: int64(min(last, fault.End)),
			})
		}
	}
	info.AddAnnotations(faults)
	file, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := porcupine.Visualize(q.model, info, file); err != nil {
		return err
	}
	return file.Close()
}

// patience is how long it may take to cut a history down: what is left then is larger than it need be.
const patience = 20 * time.Second

// Smallest cuts a violated history down, to what a person can follow, and stays violated. It only ever takes
// away what could not have been the explanation of what is left.
func Smallest(ops []history.Op, r Rules) []history.Op {
	r.Work = cmp.Or(r.Work, enough) / 10
	ends := time.Now().Add(patience)
	violated := func(ops []history.Op) bool {
		if time.Now().After(ends) {
			return false
		}
		v, err := Check(ops, r)
		return err == nil && v == Violated
	}
	history.Sort(ops)

	// One key alone often shows it.
	keys, _ := KeysOf(ops)
	for _, k := range append(keys, history.GlobalKey) {
		if of := only(ops, k); violated(of) {
			ops = of
			break
		}
	}

	// The shortest beginning: the attempts that had begun when the first impossible answer came. An attempt
	// that had not ended then is one whose outcome is not known.
	times := make([]time.Duration, len(ops))
	for i, o := range ops {
		times[i] = o.Return
	}
	slices.Sort(times)
	if n, found := slices.BinarySearchFunc(times, true, func(t time.Duration, _ bool) int {
		if violated(until(ops, t)) {
			return 0
		}
		return -1
	}); found {
		ops = until(ops, times[n])
	}

	// Whatever is only an observation, in ever smaller pieces.
	for piece := max(1, len(ops)/2); piece >= 1; piece /= 2 {
		for from := 0; from < len(ops); {
			fewer := slices.Clone(ops[:from])
			for i, o := range ops[from:] {
				if i >= piece || o.Mutates() && o.Outcome != history.Conflict && o.Outcome != history.Refused {
					fewer = append(fewer, o)
				}
			}
			if len(fewer) < len(ops) && violated(fewer) {
				ops = fewer
				continue
			}
			from += piece
		}
	}
	return ops
}

// until is what was known at t.
func until(ops []history.Op, t time.Duration) (known []history.Op) {
	for _, o := range ops {
		if o.Call > t {
			continue
		}
		if o.Return > t {
			o.Outcome = history.Unknown
		}
		known = append(known, o)
	}
	return known
}

// only is what a history says about one key. Every explanation of the history explains this.
func only(ops []history.Op, key string) (about []history.Op) {
	pick := func(items []history.Item) []history.Item {
		return slices.DeleteFunc(slices.Clone(items), func(i history.Item) bool { return i.Key != key })
	}
	for _, o := range ops {
		switch o.Kind {
		case history.Get, history.Delete:
			if o.Item.Key != key {
				continue
			}
		case history.Put:
			all := len(o.Writes) + len(o.Deletes)
			if o.Global != nil {
				all++
			}
			o.Writes, o.Deletes = pick(o.Writes), pick(o.Deletes)
			if key != history.GlobalKey {
				o.Global = nil
			}
			left := len(o.Writes) + len(o.Deletes)
			if o.Global != nil {
				left++
			}
			if left == 0 || o.Outcome == history.Conflict && left < all {
				continue // the conflict may be another key's
			}
		case history.List:
			if o.Outcome != history.OK {
				continue
			}
			seen := o
			seen.Kind, seen.Item = history.Seen, history.Item{Key: key}
			listed := pick(o.Answer.Keys)
			switch {
			case key == history.GlobalKey && o.Answer.Global != nil:
				seen.Kind, seen.Answer = history.Get, history.Answer{Version: *o.Answer.Global}
			case len(listed) > 0:
				seen.Answer = history.Answer{Version: listed[0].Version}
			case key != history.GlobalKey && o.Page == 0 && !o.Answer.More && len(key) >= len(o.Prefix) && key[:len(o.Prefix)] == o.Prefix:
				seen.Outcome = history.NoSuchKey
			default:
				continue
			}
			o = seen
		}
		about = append(about, o)
	}
	return about
}
