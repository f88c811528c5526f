package quota

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAStaleCountOfInstancesServesKnownWalletsAtTheWholeRate(t *testing.T) {
	read := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name             string
		fleet            Fleet
		after            time.Duration
		known, strangers int
	}{
		{"fresh", Fleet{3, read}, 0, 3, 3},
		{"nearly stale", Fleet{3, read}, staleAfter - 1, 3, 3},
		{"stale", Fleet{3, read}, staleAfter, 1, 3},
		{"very stale", Fleet{3, read}, 24 * time.Hour, 1, 3},
		{"never read", Fleet{}, 0, 1, 1},
		{"nobody lives, not even who asks", Fleet{0, read}, 0, 1, 1},
		{"nonsense", Fleet{-5, read}, 0, 1, 1},
		{"more nonsense", Fleet{1 << 40, read}, 0, maxInstances, maxInstances},
	}
	for _, test := range tests {
		if got := test.fleet.Known(read.Add(test.after)); got != test.known {
			t.Errorf("%s: known wallets get 1/%d, want 1/%d", test.name, got, test.known)
		}
		if got := test.fleet.Strangers(); got != test.strangers {
			t.Errorf("%s: strangers get 1/%d, want 1/%d", test.name, got, test.strangers)
		}
	}
}

// Whatever the count was and is, and whoever has gone: the shares of those who live add up to the rate or
// more, from the time at which the count is read again or has become stale.
func TestTheSharesOfAStaleFleetAreNeverLessThanTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate.Draw(t, "rate")
		read := time.Unix(1e9, 0)
		counted := rapid.IntRange(1, 50).Draw(t, "counted")
		live := rapid.IntRange(1, counted).Draw(t, "live")
		n := Fleet{counted, read}.Known(read.Add(staleAfter + time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "age"))))
		if share := r.Over(n); share.Interval > r.Interval*time.Duration(live) {
			t.Fatalf("%d instances give out one each %v together, the rate is one each %v", live, share.Interval/time.Duration(live), r.Interval)
		}
	})
}

func TestTheSharesOfAllInstancesAddUpToTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate.Draw(t, "rate")
		n := rapid.IntRange(1, 20).Draw(t, "instances")
		if got := r.Over(n); got.Interval != r.Interval*time.Duration(n) || got.Burst != r.Burst {
			t.Fatalf("a share of %+v is %+v", r, got)
		}
		got := r.Split(n)
		if got.Interval != r.Interval*time.Duration(n) {
			t.Fatalf("a part of %+v is %+v", r, got)
		}
		if all := got.Burst * int64(n); all < r.Burst || all >= r.Burst+int64(n) {
			t.Fatalf("the bursts of %d instances add up to %d, that of the rate is %d", n, all, r.Burst)
		}
	})
}
