package quota

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"
)

var (
	acme = uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff")
	bolt = uuid.MustParse("10112233-4455-6677-8899-aabbccddeeff")
	home = netip.MustParseAddr("192.0.2.1")
)

// clock is one that is moved by hand.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func limiter() (*Limiter, *clock) {
	c := &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	return NewLimiter(LimiterConfig{Wallets: 1000, Tenants: 10, Now: c.now}), c
}

// admitted is how many of n calls are, without waiting.
func admitted(n int, ask func() Admission) (ok int) {
	for range n {
		if a := ask(); a.OK && a.Wait == 0 {
			ok++
		}
	}
	return ok
}

func TestAWalletBeyondItsRateTakesNothingFromItsTenant(t *testing.T) {
	l, _ := limiter()
	const burst = fullRead/pageKeys + 1
	limits := effective(t, Values{"tenant_lists_burst": 4 * burst})
	call := func(wallet int) func() Admission {
		l.Know(nth(wallet))
		return func() Admission {
			return l.Admit(Call{Tenant: acme, Wallet: nth(wallet), Kind: List, Limits: limits})
		}
	}
	if n := admitted(2*burst, call(1)); n != burst {
		t.Errorf("a burst of %d let %d through", burst, n)
	}
	if a := call(1)(); a.Reason != WalletRate || a.RetryAfter != time.Second || !a.Known {
		t.Errorf("the wallet beyond its rate gets %+v", a)
	}
	for wallet := 2; wallet <= 4; wallet++ {
		if n := admitted(2*burst, call(wallet)); n != burst {
			t.Errorf("wallet %d got %d of %d", wallet, n, burst)
		}
	}
	if a := call(5)(); a.Reason != TenantRate || a.OK {
		t.Errorf("the tenant's burst is gone, and a wallet gets %+v", a)
	}
}

func TestAWalletOwesNothingForWhatItsTenantsRateRefused(t *testing.T) {
	l, c := limiter()
	limits := effective(t, Values{"tenant_writes_burst": 1, "tenant_writes_per_minute": 60, "wallet_writes_per_minute": 1})
	l.Know(nth(1))
	ask := func() Admission {
		return l.Admit(Call{Tenant: acme, Wallet: nth(1), Kind: Write, Limits: limits})
	}
	if n := admitted(2*reserveKeys, ask); n != 1 {
		t.Fatalf("the tenant's burst of 1 let %d through", n)
	}
	c.t = c.t.Add(time.Second) // the tenant's bucket is full again
	if a := ask(); !a.OK {
		t.Errorf("after more refusals by its tenant's rate than it has in its burst the wallet gets %+v", a)
	}
}

func TestAWalletIsAStrangerUntilItIsKnownAndOwesThenWhatItOwed(t *testing.T) {
	l, _ := limiter()
	limits := effective(t, nil)
	ask := func() Admission {
		return l.Admit(Call{Tenant: acme, Wallet: nth(1), Kind: Write, Limits: limits})
	}
	if a := ask(); !a.OK || a.Known {
		t.Errorf("a wallet that nobody knows gets %+v", a)
	}
	l.Know(nth(1))
	if a := ask(); !a.OK || !a.Known {
		t.Errorf("one that is known gets %+v", a)
	}
	limits = effective(t, Values{"tenant_writes_burst": 2 * reserveKeys})
	if n := admitted(2*reserveKeys, ask); n != reserveKeys-2 {
		t.Errorf("after 2 calls of a burst of %d it could make %d", reserveKeys, n)
	}
}

func TestAnEmptySetOfLimitsRefusesNothing(t *testing.T) {
	l, _ := limiter()
	for n := range 1000 {
		for k := range Kind(kinds) {
			if a := l.Admit(Call{Tenant: acme, Wallet: nth(n % 3), Kind: k, Limits: &Limits{}}); !a.OK {
				t.Fatalf("%+v", a)
			}
		}
	}
	if a := l.Enrol(acme, home, &Limits{}); !a.OK {
		t.Fatalf("%+v", a)
	}
	c := (&Limits{}).Ceilings()
	if d := c.Decide(Usage{Objects: 1e9, Bytes: 1e12}, Change{Objects: 1, Bytes: 1, Value: 1}); d.Refused {
		t.Fatalf("%+v", d)
	}
}

func TestTenantsTakeNothingFromEachOther(t *testing.T) {
	l, _ := limiter()
	limits := effective(t, nil)
	for n := range 5000 {
		l.Admit(Call{Tenant: acme, Wallet: nth(n), Kind: Write, Limits: limits})
	}
	if a := l.Admit(Call{Tenant: acme, Wallet: nth(9999), Kind: Write, Limits: limits}); a.OK {
		t.Error("the tenant's burst of 2000 let 5001 through")
	}
	if a := l.Admit(Call{Tenant: bolt, Wallet: nth(10_000), Kind: Write, Limits: limits}); !a.OK {
		t.Errorf("another tenant gets %+v", a)
	}
}

// CONTRACT section 5: "Rate limits first delay briefly ... then answer 429", but never a read.
func TestAWriteBeyondItsBurstIsDelayedThenRefused(t *testing.T) {
	l, _ := limiter()
	limits := effective(t, Values{"tenant_writes_burst": 2 * reserveKeys})
	l.Know(nth(1))
	call := Call{Tenant: acme, Wallet: nth(1), Kind: Write, Limits: limits, Left: 8 * time.Second}
	if n := admitted(reserveKeys, func() Admission { return l.Admit(call) }); n != reserveKeys {
		t.Fatalf("%d of a burst of %d", n, reserveKeys)
	}
	for n := range 10 { // 10 a second, and a second's patience
		want := time.Duration(n+1) * 100 * time.Millisecond
		if a := l.Admit(call); !a.OK || a.Wait != want {
			t.Fatalf("write %d after the burst gets %+v, want a wait of %v", n, a, want)
		}
	}
	if a := l.Admit(call); a.OK || a.Wait != 0 || a.RetryAfter != 1100*time.Millisecond || a.Reason != WalletRate {
		t.Errorf("then it gets %+v", a)
	}
	call.Kind = Read
	if n := admitted(2*fullRead, func() Admission { return l.Admit(call) }); n != fullRead {
		t.Errorf("the wallet that may not write for now could read %d times", n)
	}
	if a := l.Admit(call); a.OK || a.Wait != 0 {
		t.Errorf("a read beyond the burst gets %+v", a)
	}
}

func TestInstancesShareTheTenantsRate(t *testing.T) {
	l, c := limiter()
	limits := effective(t, Values{"tenant_writes_per_minute": 6000, "tenant_writes_burst": 1})
	calls := 0
	perSecond := func() (n int) { // from 2 s on, what is admitted in 10 s
		for s := range 12 {
			for range 200 {
				calls++
				a := l.Admit(Call{Tenant: acme, Wallet: nth(calls), Kind: Write, Limits: limits})
				if a.OK && s >= 2 {
					n++
				}
				c.t = c.t.Add(time.Second / 200)
			}
		}
		return n / 10
	}
	if n := perSecond(); n != 100 {
		t.Errorf("the only instance admits %d a second of 100", n)
	}
	l.SetFleet(4)
	if n := perSecond(); n != 25 {
		t.Errorf("one of 4 admits %d a second of 100", n)
	}
	c.t = c.t.Add(time.Minute)
	if n := perSecond(); n != 100 {
		t.Errorf("one of 4 or fewer, it does not know, admits %d a second of 100", n)
	}
}

func TestEnrolmentLimitsHoldUpNoEnrolledWallet(t *testing.T) {
	l, c := limiter()
	limits := effective(t, nil)
	from := func(a netip.Addr) func() Admission {
		return func() Admission { return l.Enrol(acme, a, limits) }
	}
	if n := admitted(1000, from(home)); n != 10 {
		t.Errorf("one address could enrol %d wallets at once, want 10", n)
	}
	if a := from(home)(); a.Reason != AddressRate || a.RetryAfter != time.Minute {
		t.Errorf("beyond it gets %+v", a)
	}
	subnet := netip.MustParseAddr("2001:db8::").As16()
	n := 0
	for i := range 1000 { // each address another /64
		subnet[7] = byte(i)
		subnet[6] = byte(i >> 8)
		if a := from(netip.AddrFrom16(subnet))(); a.OK {
			n++
		} else if a.Reason != EnrolmentRate && a.Reason != AddressRate {
			t.Fatalf("%+v", a)
		}
	}
	if n != 90 { // the first address's thousand cost the tenant only 10
		t.Errorf("1000 addresses could enrol %d wallets at once, want 90", n)
	}
	l.Know(nth(1))
	if a := l.Admit(Call{Tenant: acme, Wallet: nth(1), Kind: Write, Limits: limits}); !a.OK {
		t.Errorf("a wallet that is there gets %+v", a)
	}
	c.t = c.t.Add(time.Hour)
	l.SetFleet(4)
	c.t = c.t.Add(time.Hour) // stale: still a fourth
	if n := admitted(1000, from(home)); n != 3 {
		t.Errorf("with 4 instances one address could enrol %d wallets at once, want a fourth of 10, rounded up", n)
	}
}

func TestAdmitAllocatesNothing(t *testing.T) {
	l, c := limiter()
	limits, n := effective(t, nil), 0
	l.Know(nth(1))
	allocs := testing.AllocsPerRun(1000, func() {
		n++
		c.t = c.t.Add(time.Millisecond)
		l.Admit(Call{Tenant: acme, Wallet: nth(1), Kind: Write, Limits: limits, Left: time.Second})
		l.Admit(Call{Tenant: acme, Wallet: nth(n), Kind: Read, Limits: limits})
		l.Enrol(acme, home, limits)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkAdmit(b *testing.B) {
	const wallets = 100_000
	known := make([]Key, wallets)
	l := NewLimiter(LimiterConfig{})
	for n := range known {
		known[n] = nth(n)
		l.Know(known[n])
	}
	strangers := make([]Key, wallets)
	for n := range strangers {
		strangers[n] = nth(wallets + n)
	}
	limits := effective(b, Values{"wallet_writes_per_minute": maxMinute, "tenant_writes_per_minute": maxMinute})
	for _, bench := range []struct {
		name string
		keys []Key
	}{{"known", known}, {"strangers", strangers}} {
		run := func(next func() bool) {
			r := rand.New(rand.NewPCG(1, 2))
			for next() {
				l.Admit(Call{Tenant: acme, Wallet: bench.keys[r.IntN(wallets)], Kind: Write, Limits: limits, Left: 8 * time.Second})
			}
		}
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			run(b.Loop)
		})
		b.Run(bench.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) { run(pb.Next) })
		})
	}
}

func TestStrangersTakeNothingFromATenantsKnownWallets(t *testing.T) {
	l, _ := limiter()
	limits := effective(t, nil)
	call := func(wallet Key, kind Kind) Admission {
		return l.Admit(Call{Tenant: acme, Wallet: wallet, Kind: kind, Limits: limits, Left: time.Second})
	}
	l.Know(nth(1))
	refused := 0
	for n := range 100_000 {
		if !call(nth(1000+n), Write).OK {
			refused++
		}
	}
	if refused == 0 {
		t.Fatal("100000 strangers at once were all admitted")
	}
	if a := call(nth(1), Write); !a.OK || !a.Known {
		t.Errorf("a known wallet's write gets %+v", a)
	}
}

// Anybody can make any number of keys, but not of addresses.
func TestAFloodFromOneAddressTakesLittleFromOthers(t *testing.T) {
	l, _ := limiter()
	limits := effective(t, Values{"tenant_writes_burst": 60_000})
	call := func(wallet Key, from netip.Addr) Admission {
		return l.Admit(Call{Tenant: acme, Wallet: wallet, From: from, Kind: Write, Limits: limits, Left: time.Second})
	}
	flood := netip.MustParseAddr("2001:db8::1")
	for n := range 100_000 {
		call(nth(1000+n), flood)
	}
	if a := call(nth(1), flood); a.OK || a.Reason != AddressRate {
		t.Errorf("one stranger more at that address gets %+v", a)
	}
	if a := call(nth(1), home); !a.OK || a.Wait > 0 {
		t.Errorf("a stranger at another address gets %+v", a)
	}
	l.Know(nth(2))
	if a := call(nth(2), flood); !a.OK || a.Wait > 0 {
		t.Errorf("a known wallet at that address gets %+v", a)
	}
}

func TestNewWalletsOfATenantTakeNothingFromAnothers(t *testing.T) {
	l, _ := limiter()
	limits := effective(t, Values{"address_enrolments_burst": 10})
	if n := admitted(100, func() Admission { return l.Enrol(acme, home, limits) }); n != 10 {
		t.Errorf("a burst of 10 let %d enrol", n)
	}
	if a := l.Enrol(bolt, home, limits); !a.OK {
		t.Errorf("at another tenant the address gets %+v", a)
	}
}

func TestAPlanOfAnotherTenantPutsNoStrangerIntoDebt(t *testing.T) {
	l, _ := limiter()
	slow := effective(t, Values{"wallet_writes_per_minute": 1, "tenant_writes_per_minute": 60_000_000, "tenant_writes_burst": 10_000_000})
	for n := range 100_000 {
		l.Admit(Call{Tenant: acme, Wallet: nth(n), Kind: Write, Limits: slow})
	}
	refused := 0
	for n := range 1000 {
		if !l.Admit(Call{Tenant: uuid.New(), Wallet: nth(1_000_000 + n), From: home, Kind: Write, Limits: effective(t, nil)}).OK {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of 1000 wallets of other tenants are refused", refused)
	}
}
