// Package model judges histories: it is CONTRACT section 2 for one store, in sequence, and the question
// (put to porcupine) whether what concurrent clients saw is what some sequence would have shown them.
package model

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// A store under test has few keys and few clients, so that a state is a small value that == compares.
const (
	MaxKeys    = 8
	MaxClients = 8
)

// State is what a store holds. Its zero value is a store never written. Which key an index stands for is the
// [Keys] of the history.
type State struct {
	global  int64
	objects [MaxKeys]object
	after   [MaxClients]uint8 // where each client's list goes on: below this rank; 0: nowhere
}

// object is a key of the store. Ranks number the objects and the places where lists go on by age, without
// gaps: two states that will answer alike are equal.
type object struct {
	version int64 // 0: the key does not exist
	value   history.Value
	rank    uint8
}

// Keys are the keys of a history.
type Keys []string

// KeysOf collects the keys of a history. It fails if there are more than a state has room for.
func KeysOf(ops []history.Op) (Keys, error) {
	var keys Keys
	for _, o := range ops {
		for _, items := range [][]history.Item{{o.Item}, o.Writes, o.Deletes, o.Answer.Keys} {
			for _, i := range items {
				if i.Key != "" && i.Key != history.GlobalKey && !slices.Contains(keys, i.Key) {
					keys = append(keys, i.Key)
				}
			}
		}
	}
	slices.Sort(keys)
	if len(keys) > MaxKeys {
		return nil, fmt.Errorf("%d keys in one history, %d are the most", len(keys), MaxKeys)
	}
	return keys, nil
}

// Answers reports whether a store in state s may answer o as it did, and what it holds then. It is not for
// outcomes that say nothing of the state.
func (s State) Answers(keys Keys, o history.Op) (State, bool) {
	switch o.Kind {
	case history.Get, history.Seen:
		return s, s.showsGet(keys, o)
	case history.List:
		return s.showList(keys, o)
	case history.Put:
		next, ok := s.put(keys, o)
		return next, ok == (o.Outcome == history.OK)
	case history.Delete:
		next, _ := s.put(keys, history.Op{Deletes: []history.Item{o.Item}})
		return next, o.Outcome == history.OK // also where there was nothing to delete
	}
	panic("model: no such kind: " + string(o.Kind))
}

func (s State) showsGet(keys Keys, o history.Op) bool {
	var is object
	switch i := slices.Index(keys, o.Item.Key); {
	case o.Item.Key == history.GlobalKey:
		return o.Outcome == history.OK && o.Answer.Version == s.global
	case i >= 0:
		is = s.objects[i]
	}
	if o.Outcome == history.NoSuchKey {
		return is.version == 0
	}
	return o.Answer.Version == is.version && (o.Kind == history.Seen || o.Answer.Value == is.value)
}

func (s State) showList(keys Keys, o history.Op) (State, bool) {
	a := o.Answer
	before := uint8(0xff)
	if o.Page > 0 {
		before = s.after[o.Client]
	}
	if o.Page == 0 && (a.Global == nil || *a.Global != s.global) || o.Page > 0 && a.Global != nil {
		return s, false
	}
	shown := 0
	for ; ; shown++ {
		newest := -1
		for i, k := range keys {
			if is := s.objects[i]; is.version > 0 && is.rank < before && strings.HasPrefix(k, o.Prefix) &&
				(newest < 0 || is.rank > s.objects[newest].rank) {
				newest = i
			}
		}
		if newest < 0 || o.PageSize > 0 && shown == o.PageSize {
			if shown != len(a.Keys) || a.More != (newest >= 0) {
				return s, false
			}
			break
		}
		if shown == len(a.Keys) || a.Keys[shown].Key != keys[newest] || a.Keys[shown].Version != s.objects[newest].version {
			return s, false
		}
		before = s.objects[newest].rank
	}
	s.after[o.Client] = 0
	if a.More {
		s.after[o.Client] = before
	}
	return s.ranked(), true
}

// put is the state after the put, or s and false for a conflict.
func (s State) put(keys Keys, o history.Op) (State, bool) {
	before := s
	if g := o.Global; g != nil && *g != -1 && *g != s.global {
		return before, false
	}
	for _, w := range o.Writes {
		if w.Version != -1 && w.Version != s.objects[slices.Index(keys, w.Key)].version {
			return before, false
		}
	}
	for _, d := range o.Deletes {
		if is := s.objects[slices.Index(keys, d.Key)]; is.version == 0 || d.Version != -1 && d.Version != is.version {
			return before, false
		}
	}
	if o.Global != nil {
		s.global = after(*o.Global)
	}
	youngest := max(0, slices.Max(s.after[:]))
	for _, is := range s.objects {
		youngest = max(youngest, is.rank)
	}
	for _, w := range o.Writes {
		is := &s.objects[slices.Index(keys, w.Key)]
		if is.version == 0 {
			youngest++
			is.rank = youngest
		}
		is.version, is.value = after(w.Version), w.Value
	}
	for _, d := range o.Deletes {
		s.objects[slices.Index(keys, d.Key)] = object{}
	}
	return s.ranked(), true
}

// after is the version that a write leaves.
func after(expected int64) int64 {
	if expected == -1 {
		return 1
	}
	return expected + 1
}

// ranked closes the gaps between ranks.
func (s State) ranked() State {
	var used [256]bool
	for _, is := range s.objects {
		used[is.rank] = true
	}
	for _, r := range s.after {
		used[r] = true
	}
	var rank [256]uint8
	next := uint8(1)
	for r := 1; r < len(used); r++ {
		if used[r] {
			rank[r] = next
			next++
		}
	}
	for i := range s.objects {
		s.objects[i].rank = rank[s.objects[i].rank]
	}
	for i := range s.after {
		s.after[i] = rank[s.after[i]]
	}
	return s
}

// Describe is the state in words: oldest key first.
func (s State) Describe(keys Keys) string {
	var b strings.Builder
	for rank := uint8(1); rank <= MaxKeys+MaxClients; rank++ {
		for i, k := range keys {
			if is := s.objects[i]; is.version > 0 && is.rank == rank {
				fmt.Fprintf(&b, "%s@%d #%d  ", k, is.version, is.value)
			}
		}
	}
	fmt.Fprintf(&b, "global %d", s.global)
	return b.String()
}

// Answer gives o the outcome and the answer of a store in state s, and returns what that holds then. It is for
// making histories up.
func (s State) Answer(keys Keys, o *history.Op) State {
	o.Outcome, o.Answer = history.OK, history.Answer{}
	switch o.Kind {
	case history.Get:
		i := slices.Index(keys, o.Item.Key)
		switch {
		case o.Item.Key == history.GlobalKey:
			o.Answer.Version = s.global
		case i < 0 || s.objects[i].version == 0:
			o.Outcome = history.NoSuchKey
		default:
			o.Answer.Version, o.Answer.Value = s.objects[i].version, s.objects[i].value
		}
		return s
	case history.List:
		global := s.global
		o.Answer.Global = &global
		for i, k := range keys {
			if s.objects[i].version > 0 && strings.HasPrefix(k, o.Prefix) {
				o.Answer.Keys = append(o.Answer.Keys, history.Item{Key: k, Version: s.objects[i].version})
			}
		}
		slices.SortFunc(o.Answer.Keys, func(a, b history.Item) int {
			return int(s.objects[slices.Index(keys, b.Key)].rank) - int(s.objects[slices.Index(keys, a.Key)].rank)
		})
		return s
	case history.Put:
		next, ok := s.put(keys, *o)
		if !ok {
			o.Outcome = history.Conflict
		}
		return next
	default:
		next, _ := s.put(keys, history.Op{Deletes: []history.Item{o.Item}})
		return next
	}
}
