package ledger_test

import (
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/ledger"
)

func put(call, end time.Duration, version int64, value history.Value, outcome history.Outcome) history.Op {
	return history.Op{Call: call, Return: end, Kind: history.Put, Outcome: outcome,
		Writes: []history.Item{{Key: "k", Version: version, Value: value}}}
}

func remove(call, end time.Duration, outcome history.Outcome) history.Op {
	return history.Op{Call: call, Return: end, Kind: history.Put, Outcome: outcome, Deletes: []history.Item{{Key: "k", Version: -1}}}
}

func read(version int64, value history.Value) history.Op {
	o := history.Op{Call: 100, Return: 101, Kind: history.Get, Item: history.Item{Key: "k"}, Outcome: history.OK,
		Answer: history.Answer{Version: version, Value: value}}
	if version == 0 {
		o.Outcome = history.NoSuchKey
	}
	return o
}

func TestWhatWasAcknowledgedIsThereOrReplaced(t *testing.T) {
	for name, test := range map[string]struct {
		lost int
		ops  []history.Op
	}{
		"there":                           {0, []history.Op{put(1, 2, 0, 1, history.OK), read(1, 1)}},
		"gone":                            {1, []history.Op{put(1, 2, 0, 1, history.OK), read(0, 0)}},
		"replaced by a later one":         {0, []history.Op{put(1, 2, 0, 1, history.OK), put(3, 4, 1, 2, history.OK), read(2, 2)}},
		"replaced by an earlier one":      {1, []history.Op{put(1, 2, 0, 1, history.OK), put(3, 4, 1, 2, history.OK), read(1, 1)}},
		"replaced by one at the time":     {0, []history.Op{put(1, 5, -1, 1, history.OK), put(2, 4, -1, 2, history.OK), read(1, 1)}},
		"replaced by an unknown one":      {0, []history.Op{put(1, 2, -1, 1, history.Unknown), put(3, 4, -1, 2, history.OK), read(1, 1)}},
		"there at another version":        {1, []history.Op{put(1, 2, 0, 1, history.OK), read(2, 1)}},
		"deleted":                         {0, []history.Op{put(1, 2, 0, 1, history.OK), remove(3, 4, history.OK), read(0, 0)}},
		"deleted, and there":              {1, []history.Op{put(1, 2, 0, 1, history.OK), remove(3, 4, history.OK), read(1, 1)}},
		"deleted before it was written":   {1, []history.Op{remove(1, 2, history.OK), put(3, 4, 0, 1, history.OK), read(0, 0)}},
		"a refused one is not missed":     {0, []history.Op{put(1, 2, 0, 1, history.Refused), read(0, 0)}},
		"replaced by a value nobody sent": {1, []history.Op{put(1, 2, 0, 1, history.OK), read(2, 7)}},
	} {
		if _, lost := ledger.Audit(test.ops); len(lost) != test.lost {
			t.Errorf("%s: %d lost, want %d: %v", name, len(lost), test.lost, lost)
		}
	}
}
