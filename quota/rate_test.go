package quota

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// log is the naive model of a rate: it remembers all that was admitted, and when it was due. In no stretch of
// time from one call to a later one may more be due than a burst and one for each interval in it.
type log struct {
	rate Rate
	due  []time.Duration // never falling
}

func (l *log) take(now, patience time.Duration) Verdict {
	earliest := now
	for i, first := range l.due {
		count := int64(len(l.due) - i + 1) // from this one to the one that asks
		if over := count - l.rate.Burst; over > 0 {
			earliest = max(earliest, first+time.Duration(over)*l.rate.Interval)
		}
	}
	if earliest-now > patience {
		return Verdict{RetryAfter: earliest - now}
	}
	l.due = append(l.due, earliest)
	return Verdict{OK: true, Wait: earliest - now}
}

var (
	anyInterval = rapid.Custom(func(t *rapid.T) time.Duration {
		return rapid.SampledFrom([]time.Duration{1, 7, time.Microsecond, 33333333, 100 * time.Millisecond, time.Second, time.Minute}).Draw(t, "interval")
	})
	anyRate = rapid.Custom(func(t *rapid.T) Rate {
		return Rate{Interval: anyInterval.Draw(t, "interval"), Burst: rapid.Int64Range(1, 12).Draw(t, "burst")}
	})
)

// step is a time that is now and then a boundary of the rate.
func step(t *rapid.T, r Rate) time.Duration {
	return rapid.OneOf(
		rapid.Just(time.Duration(0)),
		rapid.Custom(func(t *rapid.T) time.Duration {
			return max(0, r.Interval*time.Duration(rapid.IntRange(0, 15).Draw(t, "intervals"))/2+
				time.Duration(rapid.IntRange(-1, 1).Draw(t, "off by")))
		}),
	).Draw(t, "step")
}

func TestARateAdmitsExactlyWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate.Draw(t, "rate")
		model := log{rate: r}
		now, b := time.Hour, Bucket(0)
		for range rapid.IntRange(1, 60).Draw(t, "calls") {
			now += step(t, r)
			patience := min(rapid.SampledFrom([]time.Duration{0, 0, r.Interval / 2, r.Interval, 3 * r.Interval, MaxDelay}).Draw(t, "patience"), MaxDelay)
			var got Verdict
			b, got = r.Take(b, now, patience)
			if want := model.take(now, patience); got != want {
				t.Fatalf("at %v with patience %v: %+v, the model says %+v", now-time.Hour, patience, got, want)
			}
		}
	})
}

func TestACallThatComesBackAfterRetryAfterIsAdmittedAndNotBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate.Draw(t, "rate")
		now, b := time.Hour, Bucket(0)
		var v Verdict
		for v.OK = true; v.OK; b, v = r.Take(b, now, 0) {
			now += rapid.SampledFrom([]time.Duration{0, 0, 0, 0, r.Interval / 3}).Draw(t, "step")
		}
		if _, early := r.Take(b, now+v.RetryAfter-1, 0); early.OK {
			t.Fatalf("admitted 1 ns before its Retry-After of %v", v.RetryAfter)
		}
		if _, late := r.Take(b, now+v.RetryAfter, 0); !late.OK || late.Wait != 0 {
			t.Fatalf("after its Retry-After of %v: %+v", v.RetryAfter, late)
		}
	})
}

func TestNobodyOwesMoreThanABurstOfANewRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRate.Draw(t, "the new rate")
		now := time.Hour
		b := Bucket(now + time.Duration(rapid.Int64Range(0, int64(forever)).Draw(t, "debt at the old rate")))
		b, v := r.Take(b, now, 0)
		if most := r.Interval + MaxDelay; v.RetryAfter > most {
			t.Fatalf("has to wait %v after the change, at most %v is right", v.RetryAfter, most)
		}
		if _, again := r.Take(b, now+v.RetryAfter, 0); !v.OK && !again.OK {
			t.Fatalf("refused again after its Retry-After: %+v", again)
		}
	})
}

func TestACallRefusedOrGivenBackCostsNothing(t *testing.T) {
	r := Rate{Interval: time.Second, Burst: 2}
	now, b := time.Hour, Bucket(0)
	for range 2 {
		b, _ = r.Take(b, now, 0)
	}
	for range 100 {
		b, _ = r.Take(b, now, 0)
	}
	if b != Bucket(now+2*time.Second) {
		t.Errorf("after 100 refused calls the bucket is full in %v, not in 2 s", time.Duration(b)-now)
	}
	b = r.giveBack(b)
	if b, v := r.Take(b, now, 0); !v.OK || b != Bucket(now+2*time.Second) {
		t.Errorf("the call given back could not be had again: %+v", v)
	}
}

func TestOnlyWritesWaitAndOnlyForAPartOfTheTimeTheyHave(t *testing.T) {
	tests := []struct {
		kind Kind
		left time.Duration
		want time.Duration
	}{
		{Write, 8500 * time.Millisecond, MaxDelay},
		{Write, 2 * time.Second, 500 * time.Millisecond},
		{Write, 0, 0},
		{Write, -time.Second, 0},
		{Read, 8500 * time.Millisecond, 0},
		{List, 8500 * time.Millisecond, 0},
	}
	for _, test := range tests {
		if got := Patience(test.kind, test.left); got != test.want {
			t.Errorf("a %v with %v left waits up to %v, want %v", test.kind, test.left, got, test.want)
		}
	}
}

func TestNoRateOverflows(t *testing.T) {
	for _, r := range []Rate{
		{Interval: time.Minute * maxInstances, Burst: math.MaxInt64},
		{Interval: forever, Burst: math.MaxInt64},
		{Interval: 1, Burst: math.MinInt64},
	} {
		b, v := r.Take(0, 100*365*24*time.Hour, MaxDelay)
		if !v.OK || v.Wait != 0 {
			t.Errorf("%+v: the first call gets %+v", r, v)
		}
		if _, v = r.Take(b, 0, 0); v.Wait < 0 || v.RetryAfter < 0 {
			t.Errorf("%+v: after the clock went back: %+v", r, v)
		}
	}
	if b, v := (Rate{}).Take(5, 0, 0); !v.OK || b != 5 {
		t.Errorf("no limit refused: %+v", v)
	}
}

func TestRetryAfterIsInWholeSecondsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90} {
		if got := Seconds(d); got != want {
			t.Errorf("%v is %d s, want %d", d, got, want)
		}
	}
}
