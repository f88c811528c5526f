// Package history is what the clients of one store saw: each attempt, when it began and ended, and how. It is
// what a model judges, what a failure is kept as, and what a person reads.
package history

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Kind is a call of the contract.
type Kind string

// The four calls, and what is left of one when a history is cut down to a single key.
const (
	Get    Kind = "get"
	Put    Kind = "put"
	Delete Kind = "delete"
	List   Kind = "list"
	Seen   Kind = "seen" // a key with its version, or its absence, without its value
)

// Outcome is how an attempt ended, as far as its client can tell.
type Outcome string

// The outcomes. OK, Conflict and NoSuchKey are answers about the store's state. Refused is an answer that
// promises that nothing was done, now or later, or an attempt that was never sent. Unknown says nothing at
// all: the attempt may have taken effect, or may yet until its deadline.
const (
	OK        Outcome = "ok"
	Conflict  Outcome = "conflict"
	NoSuchKey Outcome = "no such key"
	Refused   Outcome = "refused"
	Unknown   Outcome = "unknown"
)

// GlobalKey is the reserved key that a get reads the store's global version by.
const GlobalKey = "global_version"

// Value names a value that was written once in its store. Zero: no value.
type Value uint64

// Item is a key with the version that a request expects or an answer has.
type Item struct {
	Key     string
	Version int64
	Value   Value `json:",omitempty"` // of a write
}

// Op is one attempt of one call.
type Op struct {
	Client int
	Via    string        // the instance that was asked
	Call   time.Duration // since the run began: before anything was sent
	Return time.Duration // after the answer had come, or was given up

	Kind    Kind
	Item    Item   // of a get, its key alone, and of a delete
	Writes  []Item `json:",omitempty"` // of a put
	Deletes []Item `json:",omitempty"`
	Global  *int64 `json:",omitempty"`

	Prefix   string `json:",omitempty"` // of a list
	PageSize int    `json:",omitempty"`
	Page     int    `json:",omitempty"` // 0: the first; otherwise the one after the client's last list

	Outcome Outcome
	Note    string `json:",omitempty"` // of an error, for people
	Answer  Answer
}

// Answer is what an attempt with outcome OK was told.
type Answer struct {
	Version int64  `json:",omitempty"` // of a get; 0 for Seen: absent
	Value   Value  `json:",omitempty"`
	Keys    []Item `json:",omitempty"` // of a list
	More    bool   `json:",omitempty"` // there is a page after this one
	Global  *int64 `json:",omitempty"` // on a first page
}

// Mutates reports whether the call may change the store.
func (o Op) Mutates() bool { return o.Kind == Put || o.Kind == Delete }

// Sort orders operations by when they began.
func Sort(ops []Op) {
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
}

func (o Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%10.4f %10.4f  client %d %-8s %s", o.Call.Seconds(), o.Return.Seconds(), o.Client, o.Via, o.Describe())
	if o.Note != "" {
		fmt.Fprintf(&b, "   (%s)", o.Note)
	}
	return b.String()
}

// Describe is the call and its answer.
func (o Op) Describe() string {
	var b strings.Builder
	b.WriteString(string(o.Kind))
	switch o.Kind {
	case Get, Seen:
		fmt.Fprintf(&b, " %s", o.Item.Key)
	case Delete:
		fmt.Fprintf(&b, " %s", o.Item.expecting())
	case Put:
		for _, w := range o.Writes {
			fmt.Fprintf(&b, " %s:=#%d", w.expecting(), w.Value)
		}
		for _, d := range o.Deletes {
			fmt.Fprintf(&b, " -%s", d.expecting())
		}
		if o.Global != nil {
			fmt.Fprintf(&b, " global@%d", *o.Global)
		}
	case List:
		fmt.Fprintf(&b, " %q by %d", o.Prefix, o.PageSize)
		if o.Page > 0 {
			fmt.Fprintf(&b, " page %d", o.Page)
		}
	}
	b.WriteString(" -> ")
	if o.Outcome != OK {
		b.WriteString(string(o.Outcome))
		return b.String()
	}
	switch a := o.Answer; o.Kind {
	case Get:
		fmt.Fprintf(&b, "version %d", a.Version)
		if a.Value != 0 {
			fmt.Fprintf(&b, " #%d", a.Value)
		}
	case Seen:
		fmt.Fprintf(&b, "version %d", a.Version)
	case List:
		b.WriteString("[")
		for i, k := range a.Keys {
			if i > 0 {
				b.WriteString(" ")
			}
			fmt.Fprintf(&b, "%s@%d", k.Key, k.Version)
		}
		b.WriteString("]")
		if a.More {
			b.WriteString(" and more")
		}
		if a.Global != nil {
			fmt.Fprintf(&b, " global %d", *a.Global)
		}
	default:
		b.WriteString("ok")
	}
	return b.String()
}

// expecting is the key and the version that a request expects of it.
func (i Item) expecting() string {
	if i.Version == -1 {
		return i.Key
	}
	return fmt.Sprintf("%s@%d", i.Key, i.Version)
}

// File is a history that is kept: of one store, with what a model has to know to judge it.
type File struct {
	Store    string
	Seed     uint64
	Deadline time.Duration // how long after its call an unknown write may take effect
	Stalled  bool          `json:",omitempty"` // processes of the database stood still
	Faults   []Fault       `json:",omitempty"` // that were at work meanwhile
	Ops      []Op
}

// Fault is something that was done to the platform.
type Fault struct {
	Name       string
	Begin, End time.Duration
}

// Write keeps the history.
func (f File) Write(path string) error {
	text, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// Read reads a history that was kept.
func Read(path string) (f File, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(text, &f)
}
