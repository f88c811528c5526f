package quota

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Wallets is how many known ones a [Limiter] remembers, unless it is told otherwise.
const Wallets = 1 << 18

// LimiterConfig says how much a [Limiter] remembers. The zero value is usable.
type LimiterConfig struct {
	// Wallets is how many known ones have buckets of their own; 0: [Wallets], in 14 MiB. Around as many as are active
	// within an hour is right; with fewer, those that were least recently used share (see [Table]).
	Wallets int

	// Tenants is the same for tenants; 0: 2^13.
	Tenants int

	Now func() time.Time // nil: time.Now
}

// Limiter asks the buckets that a call must pass, on one instance. Its memory is bounded, 36 MiB by default. It
// is safe for concurrent use.
//
// Known wallets: after a call that found its wallet enrolled, [Limiter.Know] it. That costs a look-up, and only
// needs to be done where [Admission].Known was false.
type Limiter struct {
	wallets, tenants, addresses *Table
	strangers                   *Table // by tenant, of its wallets that are not known

	now   func() time.Time
	start time.Time // the origin of the buckets' clock
	fleet atomic.Pointer[Fleet]
}

// NewLimiter makes a limiter on which nobody owes anything.
func NewLimiter(cfg LimiterConfig) *Limiter {
	if cfg.Wallets == 0 {
		cfg.Wallets = Wallets
	}
	if cfg.Tenants == 0 {
		cfg.Tenants = 1 << 13
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	l := &Limiter{
		wallets:   NewTable(cfg.Wallets, 1<<16),
		tenants:   NewTable(cfg.Tenants, 1<<10),
		strangers: NewTable(cfg.Tenants, 1<<10),
		addresses: NewTable(0, 1<<16), // nobody's address is better known than another's
		now:       cfg.Now,
		start:     cfg.Now().Add(-time.Second), // a clock of 0 would be a free place's
	}
	l.fleet.Store(&Fleet{})
	return l
}

// SetFleet tells how many instances live, as just read from their heartbeats. It is to be called each time
// they are read, whether the number changed or not: see [Fleet].
func (l *Limiter) SetFleet(live int) { l.fleet.Store(&Fleet{Live: live, Read: l.now()}) }

// Call is one that asks for admission.
type Call struct {
	Tenant uuid.UUID
	Wallet Key
	From   netip.Addr // the client's
	Kind   Kind
	Limits *Limits       // the tenant's
	Left   time.Duration // to the call's deadline
}

// Admission is the answer to a [Call].
type Admission struct {
	Verdict
	Reason Reason // which limit refuses
	Known  bool   // whether the wallet has buckets of its own
}

// strangersRates are those of wallets that are not known, whatever their tenants' plans are: they share buckets. After
// a restart all are strangers until they are found to be enrolled, and then a wallet reads all it has.
var strangersRates = [kinds]Rate{Write: PerMinute(1200, reserveKeys), Read: PerMinute(60_000, fullRead), List: PerMinute(600, fullRead/pageKeys)}

// addressRates are those of strangers at one address. An address may be that of a whole mobile network, of whose wallets
// each makes one call as a stranger.
var addressRates = [kinds]Rate{Write: PerMinute(6000, 10_000), Read: PerMinute(60_000, fullRead), List: PerMinute(6000, fullRead/pageKeys)}

// Admit asks the wallet's rate and then its tenant's: of strangers, whose keys anybody can make, their address's and then
// another bucket of the tenant, so that they take nothing from wallets that are known, and who makes many from one place
// takes little from other strangers. A call that is refused by any takes from none, so that
// a wallet beyond its rate takes nothing from the others and an exhausted tenant puts no wallet into debt (but for
// strangers and addresses, who share what they owe). A write may have to wait: the caller sleeps, and then does it.
func (l *Limiter) Admit(c Call) (a Admission) {
	wall, now := l.clock()
	patience := Patience(c.Kind, c.Left)
	slot := int(c.Kind)

	ofWallet := c.Limits.WalletRate(c.Kind)
	if a.Verdict, a.Known = l.wallets.takeOr(c.Wallet, slot, ofWallet, strangersRates[c.Kind], now, patience); !a.OK {
		a.Reason = WalletRate
		return a
	}
	ofTenant := c.Limits.TenantRate(c.Kind, l.fleet.Load().Known(wall))
	tenants := l.tenants
	if !a.Known {
		tenants = l.strangers
		v, _ := l.addresses.take(AddressKey(c.From), slot, addressRates[c.Kind], now, patience)
		if !v.OK {
			return Admission{Verdict: v, Reason: AddressRate}
		}
		a.Wait = max(a.Wait, v.Wait)
	}
	v := takeTenant(tenants, c.Tenant, slot, ofTenant, now, patience)
	if !v.OK {
		l.wallets.giveBack(c.Wallet, slot, ofWallet)
		return Admission{Verdict: v, Reason: TenantRate, Known: a.Known}
	}
	a.Wait = max(a.Wait, v.Wait)
	return a
}

// Know gives a wallet buckets of its own. It is for wallets that are enrolled: to be known must cost something.
func (l *Limiter) Know(wallet Key) {
	_, now := l.clock()
	l.wallets.Own(wallet, now)
}

// Known says whether a wallet has buckets of its own.
func (l *Limiter) Known(wallet Key) bool { return l.wallets.owns(wallet) }

// Evicted is how many wallets were known and are not any more, since as many others were.
func (l *Limiter) Evicted() int64 { return l.wallets.evicted.Load() }

// Enrol asks whether the tenant may have a new wallet now, from this address. It is not for wallets that are
// enrolled already, which nothing here holds up (CONTRACT section 4).
func (l *Limiter) Enrol(tenant uuid.UUID, from netip.Addr, limits *Limits) Admission {
	_, now := l.clock()
	n := l.fleet.Load().Strangers()
	ofTenant := limits.Enrolments.Rate().Split(n)
	if v := takeTenant(l.tenants, tenant, enrolments, ofTenant, now, 0); !v.OK {
		return Admission{Verdict: v, Reason: EnrolmentRate}
	}
	v, _ := l.addresses.take(AddressKey(from).of(tenant), enrolments, limits.AddressEnrolments.Rate().Split(n), now, 0)
	if !v.OK {
		// One address must not use up what all have.
		l.tenants.giveBack(Key(tenant), enrolments, ofTenant)
		return Admission{Verdict: v, Reason: AddressRate}
	}
	return Admission{Verdict: v}
}

// loginsPerEnrolment is how many logins a stranger is taken to need: the first calls of a wallet race, and each logs in by
// itself (CONTRACT section 4.3).
const loginsPerEnrolment = 4

// Login asks whether a wallet may log in now. A login of one that is known writes a row, and is limited as its writes are.
// Those of strangers are limited as enrolments are: by address, then by tenant, in buckets that are not the known
// wallets'.
func (l *Limiter) Login(tenant uuid.UUID, wallet Key, from netip.Addr, limits *Limits) Admission {
	wall, now := l.clock()
	fleet := l.fleet.Load()
	if l.Known(wallet) {
		ofWallet := limits.WalletRate(Write)
		if v, _ := l.wallets.take(wallet, logins, ofWallet, now, 0); !v.OK {
			return Admission{Verdict: v, Reason: WalletRate, Known: true}
		}
		v := takeTenant(l.tenants, tenant, logins, limits.TenantRate(Write, fleet.Known(wall)), now, 0)
		if !v.OK {
			l.wallets.giveBack(wallet, logins, ofWallet)
			return Admission{Verdict: v, Reason: TenantRate, Known: true}
		}
		return Admission{Verdict: v, Known: true}
	}
	rate := func(a Allowance) Rate {
		return PerMinute(a.PerMinute*loginsPerEnrolment, a.Burst*loginsPerEnrolment).Split(fleet.Strangers())
	}
	if v, _ := l.addresses.take(AddressKey(from).of(tenant), logins, rate(limits.AddressEnrolments), now, 0); !v.OK {
		return Admission{Verdict: v, Reason: AddressRate}
	}
	v := takeTenant(l.strangers, tenant, logins, rate(limits.Enrolments), now, 0)
	if !v.OK {
		return Admission{Verdict: v, Reason: LoginRate}
	}
	return Admission{Verdict: v}
}

// takeTenant gives each tenant buckets of its own: there are as many as people made.
func takeTenant(tenants *Table, tenant uuid.UUID, slot int, r Rate, now, patience time.Duration) Verdict {
	v, own := tenants.take(Key(tenant), slot, r, now, patience)
	if !own {
		tenants.Own(Key(tenant), now)
	}
	return v
}

func (l *Limiter) clock() (time.Time, time.Duration) {
	now := l.now()
	return now, now.Sub(l.start)
}
