package model

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// Writes of unknown outcome are what makes a history hard to judge: each may have taken effect at any time of
// a long window, or never, and porcupine, asked to find a place for them all, tries out their combinations.
// So it is not asked. It orders the attempts that were answered, and an unknown write is applied in between,
// as a possibility, where an answer calls for it. That needs no more than the places which it shares with
// others: a write may be thought of as late as its keys are next looked at, although it took effect before.
//
// What is found that way is a proper sequence. Where none is found, the search is made again, thoroughly: it
// then also tries what no answer calls for, wherever afterwards it would be too late.

// maxUnknown bounds the writes of unknown outcome in a history.
const maxUnknown = 256

// places are what a call looks at or changes: a bit for each key, and two more.
type places uint16

const (
	global    places = 1 << (MaxKeys + iota) // the store's version
	order                                    // the age of the youngest key
	allPlaces = MaxKeys + 2
)

// belief is one possibility: what the store holds, and how that came.
type belief struct {
	State
	applied [maxUnknown / 64]uint64  // unknown writes that took effect
	touched [allPlaces]time.Duration // the earliest that the last of those can have been that touched a place
	latest  time.Duration            // and of those that were answered
	written time.Duration            // and of those that changed the store
}

func (b belief) has(u int) bool { return b.applied[u/64]&(1<<(u%64)) != 0 }

// earliest is when something can be that touches these places, and not before call.
func (b belief) earliest(p places, call time.Duration) time.Duration {
	for i, at := range b.touched {
		if p&(1<<i) != 0 {
			call = max(call, at)
		}
	}
	return call
}

func (b *belief) touch(p places, at time.Duration) {
	for i := range b.touched {
		if p&(1<<i) != 0 {
			b.touched[i] = at
		}
	}
}

// covers reports whether whatever can follow c can follow b.
func (b belief) covers(c belief) bool {
	if b.State != c.State || b.latest > c.latest || b.written > c.written {
		return false
	}
	for i := range b.applied {
		if b.applied[i]&^c.applied[i] != 0 {
			return false
		}
	}
	for i := range b.touched {
		if b.touched[i] > c.touched[i] {
			return false
		}
	}
	return true
}

// beliefs are all possibilities at a time; none covers another.
type beliefs []belief

func (all beliefs) with(b belief) (_ beliefs, isNew bool) {
	for _, other := range all {
		if other.covers(b) {
			return all, false
		}
	}
	return append(slices.DeleteFunc(all, b.covers), b), true
}

// mostBeliefs bounds the possibilities at a time; past it the question is left undecided.
const mostBeliefs = 5_000

// inquiry is a history that is being judged.
type inquiry struct {
	keys     Keys
	unknown  []unknown // by when they began, and so by when their time is up
	stalled  bool
	thorough bool
	work     int  // that is left
	lost     bool // some possibility was not followed
}

// spent counts a possibility that is looked at, and the n others that it is held against. Once the work is used
// up nothing is explained any more, and the search soon ends.
func (q *inquiry) spent(n int) bool {
	if q.work -= 1 + n; q.work < 0 {
		q.lost = true
	}
	return q.work < 0
}

type unknown struct {
	history.Op
	until  time.Duration
	places places // but for order
}

// step is what may be after o was answered as it was.
func (q *inquiry) step(before beliefs, o history.Op) (after beliefs) {
	places := q.places(o)
	for _, b := range before {
		if q.spent(len(after)) {
			return nil
		}
		starts := beliefs{b}
		if q.thorough {
			changes := o.Mutates() && o.Outcome == history.OK
			starts = q.closure(b, o.Return, func(b belief, u unknown) bool {
				over := u.until < max(b.latest, b.earliest(places, o.Call))
				return (changes || over) && q.meets(b, u, unknown{Op: o, places: places}) || changes && over && q.stalled
			})
		}
		for _, b := range starts {
			for _, b := range q.explain(b, o) {
				after, _ = after.with(b)
			}
		}
		if len(after) > mostBeliefs {
			q.lost = true
			return after
		}
	}
	return after
}

// round makes beliefs equal that differ in nothing that matters: of a time that is past for what is answered, all
// that counts is which unknown writes it is too late for.
func (q *inquiry) round(b *belief) {
	round := func(at *time.Duration) {
		if *at > b.latest {
			return
		}
		passed, _ := slices.BinarySearchFunc(q.unknown, *at, func(u unknown, at time.Duration) int { return cmp.Compare(u.until, at) })
		*at = 0
		if passed > 0 {
			*at = q.unknown[passed-1].until + 1
		}
	}
	for i := range b.touched {
		round(&b.touched[i])
	}
	round(&b.written)
}

// closure is b and all that may be after any of the writes that which selects, and those that make way for
// them, have taken effect.
func (q *inquiry) closure(b belief, end time.Duration, which func(belief, unknown) bool) beliefs {
	found := beliefs{b}
	for next := found; len(next) > 0; {
		var level beliefs
		for _, b := range next {
			if q.spent(len(found) + len(q.unknown)) {
				return found
			}
			for _, i := range q.candidates(b, end, nil, which) {
				if b, ok := q.apply(b, i); ok {
					var isNew bool
					if found, isNew = found.with(b); isNew {
						level = append(level, b)
					}
				}
			}
		}
		if next = level; len(found) > mostBeliefs {
			q.lost = true
			break
		}
	}
	return found
}

// explain is what may be after o was answered in b, once as few writes as will do have taken effect before.
func (q *inquiry) explain(b belief, o history.Op) (after beliefs) {
	seen := beliefs{b}
	for level, depth := seen, 0; len(level) > 0; depth++ {
		var next beliefs
		for _, b := range level {
			if q.spent(len(seen) + len(q.unknown)) {
				return nil
			}
			places := q.places(o)
			if q.creates(b, o) {
				places |= order
			}
			at := max(b.latest, b.earliest(places, o.Call))
			if is, ok := b.Answers(q.keys, o); ok && at <= o.Return {
				if is != b.State && o.Mutates() {
					b.written = at
				}
				b.State, b.latest = is, at
				b.touch(places, at)
				q.round(&b)
				after, _ = after.with(b)
				continue
			}
			for _, i := range q.candidates(b, o.Return, q.lacks(b.State, o), none) {
				if b, ok := q.apply(b, i); ok {
					var isNew bool
					if seen, isNew = seen.with(b); isNew {
						next = append(next, b)
					}
				}
			}
		}
		level = next
		if len(seen) > mostBeliefs || !q.thorough && depth == 4 {
			q.lost = true
			break
		}
	}
	return after
}

func none(belief, unknown) bool { return false }

// candidates are the unknown writes that may take effect in b before that end and that which selects, or that
// bring about what is wanted; and where such a one would be a conflict, those that bring about what it wants.
// A thorough search adds those that would leave something else behind if they came before one of these.
func (q *inquiry) candidates(b belief, end time.Duration, wanted []want, which func(belief, unknown) bool) (us []int) {
	taken := make([]bool, len(q.unknown))
	for again := true; again; {
		again = false
		for i, u := range q.unknown {
			if u.Call > end {
				break
			}
			before := func(j int) bool { return q.meets(b, u, q.unknown[j]) }
			asked := which(b, u) || slices.ContainsFunc(wanted, u.brings) || q.thorough && slices.ContainsFunc(us, before)
			if !asked || taken[i] || b.has(i) || q.tooLate(b, u, u.places) {
				continue
			}
			us, taken[i] = append(us, i), true
			again = again || q.thorough
			u.Outcome = history.OK
			if more := q.lacks(b.State, u.Op); len(more) > 0 {
				wanted = append(slices.Clip(wanted), more...)
				again = true
			}
		}
	}
	return us
}

// apply is the belief that the unknown write took effect, if it can and that makes a difference.
func (q *inquiry) apply(b belief, i int) (belief, bool) {
	u := q.unknown[i]
	u.Outcome = history.OK
	places := u.places
	if q.creates(b, u.Op) {
		places |= order
	}
	next, ok := b.Answers(q.keys, u.Op)
	if !ok || next == b.State || q.tooLate(b, u, places) {
		return b, false
	}
	at := b.earliest(places, u.Call)
	b.State, b.written = next, at
	b.applied[i/64] |= 1 << (i % 64)
	b.touch(places, at)
	return b, true
}

// tooLate reports whether the write can no longer take effect in b.
func (q *inquiry) tooLate(b belief, u unknown, p places) bool {
	return b.earliest(p, u.Call) > u.until && (!q.stalled || b.written > u.until)
}

func (q *inquiry) place(key string) places {
	if key == history.GlobalKey {
		return global
	}
	if i := slices.Index(q.keys, key); i >= 0 {
		return 1 << i
	}
	return 0
}

// places are what o looks at or changes, but for order.
func (q *inquiry) places(o history.Op) (p places) {
	switch o.Kind {
	case history.Put:
		for _, items := range [][]history.Item{o.Writes, o.Deletes} {
			for _, i := range items {
				p |= q.place(i.Key)
			}
		}
		if o.Global != nil {
			p |= global
		}
	case history.List:
		for i, k := range q.keys {
			if strings.HasPrefix(k, o.Prefix) {
				p |= 1 << i
			}
		}
		if o.Page == 0 {
			p |= global
		}
	default:
		p = q.place(o.Item.Key)
	}
	return p
}

// meets reports whether it may matter which of two writes comes first.
func (q *inquiry) meets(b belief, u, o unknown) bool {
	return u.places&o.places != 0 || q.creates(b, u.Op) && q.creates(b, o.Op)
}

// creates reports whether o, applied to b, creates a key.
func (q *inquiry) creates(b belief, o history.Op) bool {
	return slices.ContainsFunc(o.Writes, func(i history.Item) bool {
		return b.objects[slices.Index(q.keys, i.Key)].version == 0
	})
}

// want is what a key, or the store's version, would have to be.
type want struct {
	key     string
	version int64         // 0: absent; some: whatever, but not absent
	value   history.Value // 0: whatever
}

// some is any version.
const some = -1

// brings reports whether the write leaves what is wanted.
func (u unknown) brings(w want) bool {
	switch {
	case w.key == history.GlobalKey:
		return u.Global != nil && (w.version == some || after(*u.Global) == w.version)
	case w.version == 0 && u.Kind == history.Delete:
		return u.Item.Key == w.key
	case w.version == 0:
		return slices.ContainsFunc(u.Deletes, func(i history.Item) bool { return i.Key == w.key })
	}
	return slices.ContainsFunc(u.Writes, func(i history.Item) bool {
		return i.Key == w.key && (w.version == some || after(i.Version) == w.version) && (w.value == 0 || w.value == i.Value)
	})
}

// lacks is what would have to be otherwise in s for it to answer o as it was answered; nothing, if it would.
func (q *inquiry) lacks(s State, o history.Op) (wanted []want) {
	if _, ok := s.Answers(q.keys, o); ok {
		return nil
	}
	is := func(key string) int64 { return s.objects[slices.Index(q.keys, key)].version }
	lacks := func(w want) { wanted = append(wanted, w) }
	switch {
	case o.Outcome == history.NoSuchKey:
		lacks(want{key: o.Item.Key})
		return wanted
	case o.Kind == history.Get, o.Kind == history.Seen:
		lacks(want{o.Item.Key, o.Answer.Version, o.Answer.Value})
		return wanted
	case o.Kind == history.Put && o.Outcome == history.OK:
		if o.Global != nil && *o.Global != -1 && *o.Global != s.global {
			lacks(want{key: history.GlobalKey, version: *o.Global})
		}
		for _, w := range o.Writes {
			if w.Version != -1 && w.Version != is(w.Key) {
				lacks(want{key: w.Key, version: w.Version})
			}
		}
		for _, d := range o.Deletes {
			if is(d.Key) == 0 || d.Version != -1 && d.Version != is(d.Key) {
				lacks(want{key: d.Key, version: d.Version})
			}
		}
		return wanted
	case o.Kind == history.List && o.Page == 0 && o.Answer.Global != nil:
		if *o.Answer.Global != s.global {
			lacks(want{key: history.GlobalKey, version: *o.Answer.Global})
		}
		for i, k := range q.keys {
			if !strings.HasPrefix(k, o.Prefix) {
				continue
			}
			listed := slices.IndexFunc(o.Answer.Keys, func(i history.Item) bool { return i.Key == k })
			switch {
			case listed >= 0 && o.Answer.Keys[listed].Version != s.objects[i].version:
				lacks(want{key: k, version: o.Answer.Keys[listed].Version})
			case listed < 0 && !o.Answer.More && s.objects[i].version != 0:
				lacks(want{key: k})
			}
		}
		if len(wanted) > 0 {
			return wanted
		}
	}
	if o.Kind == history.List {
		// The order: what is older than it should be was deleted, and created again.
		for i, older := range o.Answer.Keys {
			if slices.ContainsFunc(o.Answer.Keys[i:], func(than history.Item) bool {
				return s.objects[slices.Index(q.keys, older.Key)].rank < s.objects[slices.Index(q.keys, than.Key)].rank
			}) {
				lacks(want{key: older.Key})
			}
		}
	}
	if o.Kind == history.List && len(wanted) > 0 {
		return wanted
	}
	// A conflict, or a later page: anything else may do.
	lacks(want{key: history.GlobalKey, version: some})
	for i, k := range q.keys {
		if q.places(o)&(1<<i) != 0 {
			lacks(want{key: k})
			lacks(want{key: k, version: some})
		}
	}
	return wanted
}

var errTooMany = errors.New("too many writes of unknown outcome in one history")

// judge asks porcupine about the attempts that were answered.
func judge(keys Keys, ops []history.Op, r Rules, thorough bool) (Verdict, error) {
	q := &inquiry{keys: keys, stalled: r.Stalled, thorough: thorough, work: cmp.Or(r.Work, enough)}
	var answered []porcupine.Operation
	for _, o := range ops {
		switch {
		case o.Outcome == history.Refused, o.Outcome == history.Unknown && !o.Mutates():
		case o.Outcome == history.Unknown:
			q.unknown = append(q.unknown, unknown{o, o.Call + r.Deadline, q.places(o)})
		default:
			answered = append(answered, porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call), Return: int64(o.Return)})
		}
	}
	if len(q.unknown) > maxUnknown {
		return Undecided, errTooMany
	}
	slices.SortFunc(q.unknown, func(a, b unknown) int { return cmp.Compare(a.Call, b.Call) })
	seed := maphash.MakeSeed()
	v := Violated
	if porcupine.CheckOperations(porcupine.Model{
		Init: func() any { return beliefs{{}} },
		StepContext: func(_ context.Context, state, input, _ any) (bool, any) {
			after := q.step(state.(beliefs), input.(history.Op))
			return len(after) > 0, after
		},
		Equal: func(a, b any) bool {
			x, y := a.(beliefs), b.(beliefs)
			return len(x) == len(y) && !slices.ContainsFunc(x, func(b belief) bool { return !slices.Contains(y, b) })
		},
		Hash: func(state any) (h uint64) {
			for _, b := range state.(beliefs) {
				h ^= maphash.Comparable(seed, b)
			}
			return h
		},
	}, answered) {
		v = Linearizable
	} else if q.lost {
		v = Undecided
	}
	return v, nil
}
