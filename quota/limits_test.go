package quota

import (
	"errors"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// plan is a small one.
func plan() Values {
	return Values{
		"wallets": 1000, "stores_per_wallet": 4, "objects_per_store": 5000, "bytes_per_store": 32 << 20,
		"bytes_per_tenant": 4 << 30, "value_size": 16 << 20, "body_size": 100 << 20, "soft_percent": 80, "reserve_percent": 20,
		"wallet_writes_per_minute": 600, "wallet_writes_burst": 200,
		"wallet_reads_per_minute": 1200, "wallet_reads_burst": 100,
		"wallet_lists_per_minute": 60, "wallet_lists_burst": 60,
		"tenant_writes_per_minute": 60_000, "tenant_writes_burst": 2000,
		"tenant_reads_per_minute": 120_000, "tenant_reads_burst": 2000,
		"tenant_lists_per_minute": 6000, "tenant_lists_burst": 600,
		"enrolments_per_minute": 60, "enrolments_burst": 100,
		"address_enrolments_per_minute": 1, "address_enrolments_burst": 10,
	}
}

func effective(t testing.TB, tenant Values) *Limits {
	t.Helper()
	l, err := Effective(plan(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	return &l
}

func TestATenantsOwnLimitReplacesItsPlans(t *testing.T) {
	l := effective(t, Values{"wallets": 7, "wallet_lists_burst": 9})
	want := Limits{
		Wallets: 7, StoresPerWallet: 4, ObjectsPerStore: 5000, BytesPerStore: 32 << 20, BytesPerTenant: 4 << 30,
		ValueSize: 16 << 20, BodySize: 100 << 20, SoftPercent: 80, ReservePercent: 20,
		Wallet:            [kinds]Allowance{{600, 200}, {1200, 100}, {60, 9}},
		Tenant:            [kinds]Allowance{{60_000, 2000}, {120_000, 2000}, {6000, 600}},
		Enrolments:        Allowance{60, 100},
		AddressEnrolments: Allowance{1, 10},
	}
	if *l != want {
		t.Errorf("got %+v\nwant %+v", *l, want)
	}
}

func TestBadLimitsAreRefusedByName(t *testing.T) {
	for _, name := range Names() {
		for what, value := range map[string]int64{"negative": -1, "zero": 0, "enormous": math.MaxInt64, "most negative": math.MinInt64} {
			for who, merged := range map[string]func(Values) (Limits, error){
				"plan":   func(bad Values) (Limits, error) { p := plan(); maps.Copy(p, bad); return Effective(p, nil) },
				"tenant": func(bad Values) (Limits, error) { return Effective(plan(), bad) },
			} {
				_, err := merged(Values{name: value})
				if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) || invalid.Field != name {
					t.Errorf("%s %s in a %s: %v", what, name, who, err)
				}
			}
		}
		missing := plan()
		delete(missing, name)
		_, err := Effective(missing, nil)
		if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) || *invalid != (InvalidError{name, "is missing"}) {
			t.Errorf("a plan without %s: %v", name, err)
		}
	}
	for _, test := range []struct {
		tenant Values
		want   string
	}{
		{Values{"walets": 5}, "walets: is no limit"},
		{Values{"value_size": 200 << 20}, "value_size: is 209715200, but a body_size of 104857600 holds no such value"},
		{Values{"wallets": 1_000_000_001}, "wallets: is 1000000001, allowed are 1 to 1000000000"},
	} {
		if _, err := Effective(plan(), test.tenant); err == nil || err.Error() != test.want {
			t.Errorf("%v: %v, want %s", test.tenant, err, test.want)
		}
	}
	if _, err := Effective(nil, nil); err == nil {
		t.Error("no plan at all is accepted")
	}
}

func TestEveryLimitIsNamedOnce(t *testing.T) {
	names := Names()
	slices.Sort(names)
	if len(slices.Compact(names)) != len(plan()) {
		t.Errorf("%d names, a plan has %d values", len(names), len(plan()))
	}
	seen := map[*int64]string{}
	var l Limits
	for _, limit := range allLimits {
		if other, twice := seen[limit.of(&l)]; twice {
			t.Errorf("%s and %s are the same field", limit.name, other)
		}
		seen[limit.of(&l)] = limit.name
	}
}

// Merging changes neither set, and a limit at either of its bounds is fine in any combination.
func TestAnyLimitsWithinBoundsAreEffective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, own := Values{}, Values{}
		for _, l := range allLimits {
			value := rapid.OneOf(rapid.SampledFrom([]int64{l.least, l.most}), rapid.Int64Range(l.least, l.most))
			p[l.name] = value.Draw(t, l.name)
			if rapid.Bool().Draw(t, "own") {
				own[l.name] = value.Draw(t, "own "+l.name)
			}
		}
		p["body_size"], own["body_size"] = maxBody, maxBody
		before := maps.Clone(p)
		got, err := Effective(p, own)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(p, before) {
			t.Fatal("the plan was changed")
		}
		for _, l := range allLimits {
			want, ok := own[l.name]
			if !ok {
				want = p[l.name]
			}
			if *l.of(&got) != want {
				t.Fatalf("%s is %d, want %d", l.name, *l.of(&got), want)
			}
		}
		for name, c := range map[string]Ceiling{"objects": got.Ceilings().Objects, "bytes": got.Ceilings().Bytes, "wallets": got.Ceilings().Wallets} {
			if c.Soft < 0 || c.Soft > c.Hard || c.Hard > c.Last {
				t.Fatalf("the lines of %s are out of order: %+v", name, c)
			}
		}
	})
}

// CONTRACT section 5: "a read burst is never smaller than the store's object count, since start-up reads
// everything".
func TestAReadBurstIsNeverSmallerThanTheStoresObjectCount(t *testing.T) {
	for objects, want := range map[int64]int64{50: fullRead, 5_000_000: 6_000_000} { // the reserve included
		l := effective(t, Values{"objects_per_store": objects})
		for who, r := range map[string]Rate{"wallet": l.WalletRate(Read), "tenant": l.TenantRate(Read, 7)} {
			if r.Burst != want {
				t.Errorf("where a store may have %d objects a %s's burst of reads is %d, want %d", objects, who, r.Burst, want)
			}
			b, now := Bucket(0), time.Hour
			for n := range want {
				var v Verdict
				if b, v = r.Take(b, now, 0); !v.OK || v.Wait > 0 {
					t.Fatalf("read %d of %d by a %s that starts: %+v", n, want, who, v)
				}
			}
		}
	}
	l := effective(t, nil)
	if r := l.WalletRate(Write); r != (Rate{100 * time.Millisecond, reserveKeys}) {
		t.Errorf("the rate of writes is %+v", r)
	}
}

func TestATenantsWeightGrowsWithWhatItMayWrite(t *testing.T) {
	for perMinute, want := range map[int64]int{1: 1, 15_000: 1, 60_000: OrdinaryWeight, 600_000: 10 * OrdinaryWeight, maxMinute: 1000} {
		if got := effective(t, Values{"tenant_writes_per_minute": perMinute}).Weight(); got != want {
			t.Errorf("at %d writes a minute it is %d, want %d", perMinute, got, want)
		}
	}
}
