package failover

import (
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

func TestReadsOfWhatWasReplacedAreCounted(t *testing.T) {
	t.Parallel()
	put := func(call, ret time.Duration, v history.Value, out history.Outcome) history.Op {
		return history.Op{Kind: history.Put, Call: call, Return: ret, Outcome: out, Writes: []history.Item{{Key: "k", Version: -1, Value: v}}}
	}
	get := func(call time.Duration, v history.Value) history.Op {
		o := history.Op{Kind: history.Get, Call: call, Return: call + 1, Item: history.Item{Key: "k"}, Outcome: history.OK}
		if o.Answer.Value = v; v == 0 {
			o.Outcome = history.NoSuchKey
		}
		return o
	}
	remove := history.Op{Kind: history.Delete, Call: 50, Return: 60, Outcome: history.OK, Item: history.Item{Key: "k", Version: -1}}
	for _, test := range []struct {
		name          string
		ops           []history.Op
		stale, absent int
	}{
		{"the last one", []history.Op{put(1, 2, 1, history.OK), put(3, 4, 2, history.OK), get(5, 2)}, 0, 0},
		{"one before", []history.Op{put(1, 2, 1, history.OK), put(3, 4, 2, history.OK), get(5, 1)}, 1, 0},
		{"one beside", []history.Op{put(1, 4, 1, history.OK), put(3, 4, 2, history.OK), get(5, 1)}, 0, 0},
		{"one that may come late", []history.Op{put(1, 2, 1, history.Unknown), put(3, 4, 2, history.OK), get(5, 1)}, 0, 0},
		{"none yet", []history.Op{get(1, 0), put(3, 4, 2, history.OK)}, 0, 0},
		{"none any more", []history.Op{put(3, 4, 2, history.OK), get(5, 0)}, 0, 1},
		{"deleted", []history.Op{put(3, 4, 2, history.OK), remove, get(70, 0)}, 0, 0},
		{"deleted before", []history.Op{remove, put(61, 62, 2, history.OK), get(70, 0)}, 0, 1},
	} {
		if stale, absent := reads(test.ops); stale != test.stale || absent != test.absent {
			t.Errorf("%s: %d stale, %d absent", test.name, stale, absent)
		}
	}
}

func TestTheLongestGapIsFound(t *testing.T) {
	t.Parallel()
	if got := gap([]time.Duration{9, 2, 5}, 1, 10); got != 4 {
		t.Errorf("%d", got)
	}
	if got := gap([]time.Duration{2}, 1, 10); got != 8 {
		t.Errorf("%d at the end", got)
	}
	if got := gap(nil, 1, 10); got != 9 {
		t.Errorf("%d without a write", got)
	}
}
