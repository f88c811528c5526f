// Package ledger is the record of acknowledged writes that is kept outside of the platform. It asks less than
// the model does, and asks it of every write by itself: what was acknowledged is there, or a later write of
// its key is, with the version that this one leaves.
package ledger

import (
	"fmt"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// Audit compares a history's acknowledged writes with the last read of each key in it, which came after the
// last write. It returns how many there were.
func Audit(ops []history.Op) (acknowledged int, lost []error) {
	last := make(map[string]history.Op) // read of each key
	written := make(map[history.Value]change)
	changes := make(map[string][]change)
	for _, o := range ops {
		switch {
		case o.Kind == history.Get && (o.Outcome == history.OK || o.Outcome == history.NoSuchKey):
			if o.Call >= last[o.Item.Key].Call {
				last[o.Item.Key] = o
			}
		case o.Mutates() && (o.Outcome == history.OK || o.Outcome == history.Unknown):
			if o.Outcome == history.OK {
				acknowledged++
			}
			for _, w := range o.Writes {
				c := change{op: o, leaves: max(1, w.Version+1)}
				written[w.Value] = c
				changes[w.Key] = append(changes[w.Key], c)
			}
			deletes := o.Deletes
			if o.Kind == history.Delete {
				deletes = []history.Item{o.Item}
			}
			for _, d := range deletes {
				// One with a version may have found nothing to delete, which counts for nothing below.
				changes[d.Key] = append(changes[d.Key], change{op: o, idle: o.Kind == history.Delete})
			}
		}
	}
	for key, read := range last {
		if key == history.GlobalKey {
			continue
		}
		is, known := written[read.Answer.Value]
		switch {
		case read.Outcome == history.NoSuchKey:
			// Somebody must have deleted it, as late as possible.
			is = change{}
			for _, c := range changes[key] {
				if c.leaves == 0 && c.until() > is.until() {
					is, known = c, true
				}
			}
			if !known && len(changes[key]) == 0 {
				continue
			}
		case known && is.leaves != read.Answer.Version:
			lost = append(lost, fmt.Errorf("key %s has version %d, and its value was written to leave %d: %v", key, read.Answer.Version, is.leaves, is.op))
		}
		for _, c := range changes[key] {
			if c.op.Outcome == history.OK && !c.idle && (!known || is.until() < c.op.Call) {
				lost = append(lost, fmt.Errorf("acknowledged, and neither there nor replaced: %v; at the end %v", c.op, read))
			}
		}
	}
	return acknowledged, lost
}

// change is what a write does to one key.
type change struct {
	op     history.Op
	leaves int64 // version; 0: none, it deletes
	idle   bool  // it may rightly have done nothing
}

// until is when it had happened at the latest.
func (c change) until() time.Duration {
	if c.op.Outcome == history.Unknown {
		return 1<<63 - 1
	}
	return c.op.Return
}
