package quota

import (
	"math"
	"math/bits"
)

// The least reserve of a store, however small its plan is: what a wallet of 40 channels in LDK's incremental
// persistence writes until all of them are closed, when none of its updates had been folded into a full monitor
// yet. A fifth of a small ceiling would be less, and would leave channels that can't be closed.
const (
	reserveChannels = 40
	reserveKeys     = reserveChannels * (100 + 28) // 100 updates between full monitors; archive, sweeper and the like
	reserveBytes    = reserveKeys * (4 << 10)      // our estimate: an update with hundreds of HTLCs is larger, one with few is smaller
)

// Ceiling has the three lines of a limit. What is at a line has not crossed it. The zero Ceiling is no limit:
// who forgets to fill one must not refuse a monitor.
type Ceiling struct {
	Soft int64 // beyond it people are told
	Hard int64 // beyond it nothing new begins: no wallet, no store
	Last int64 // beyond it no store that exists grows
}

// Ceilings are the storage limits of a tenant, as they travel to the store with a write.
type Ceilings struct {
	Wallets     Ceiling // of the tenant
	TenantBytes Ceiling
	Stores      Ceiling // of the wallet
	Objects     Ceiling // of the store
	Bytes       Ceiling // of the store
	Value       Ceiling
}

// Ceilings are the lines of the limits. A value may use the reserve in a new store too: its size says nothing of how
// much there is.
func (l *Limits) Ceilings() Ceilings {
	value := l.ceiling(l.ValueSize, 0)
	value.Hard = value.Last
	return Ceilings{
		Wallets:     l.ceiling(l.Wallets, 0),
		TenantBytes: l.ceiling(l.BytesPerTenant, 0),
		Stores:      l.ceiling(l.StoresPerWallet, 0),
		Objects:     l.ceiling(l.ObjectsPerStore, reserveKeys),
		Bytes:       l.ceiling(l.BytesPerStore, reserveBytes),
		Value:       value,
	}
}

func (l *Limits) ceiling(hard, leastReserve int64) Ceiling {
	if hard <= 0 {
		return Ceiling{}
	}
	return Ceiling{
		Soft: max(percent(hard, l.SoftPercent), 1), // what there is one of is not beyond it
		Hard: hard,
		Last: add(hard, max(percent(hard, l.ReservePercent), leastReserve)),
	}
}

// Usage is what there is before a write. Those of the store are exact; the others may lag.
type Usage struct {
	Wallets     int64
	TenantBytes int64
	Stores      int64
	Objects     int64
	Bytes       int64
}

// Change is what a write would add, net of what it overwrites and deletes. A new wallet's first write is a new
// store's too.
type Change struct {
	NewWallet bool
	NewStore  bool
	Objects   int64
	Bytes     int64
	Value     int64 // the size of the largest value that is new or grows; 0: there is none
}

// Line is how far up something is.
type Line uint8

const (
	BelowSoft Line = iota
	BeyondSoft
	BeyondHard // within the reserve
	BeyondLast // nothing that grows gets there; a limit that was lowered may leave a store there
)

// Decision is the answer to a write. When it is refused, nothing of it is done.
type Decision struct {
	Refused bool

	// Line is the highest that anything of the store and the wallet is at, after the write if it is done.
	Line Line

	// Near is the highest that any of these is beyond, or below by no more than a tenth. Who tells of a line says that
	// it is crossed up to Line, and that it is no longer only above Near: what goes to and fro at it is told once.
	Near Line

	// The limit that refuses, or that is at Line: its name (empty at BelowSoft), how much there would be, and
	// how much may be.
	Limit   string
	Used    int64
	Allowed int64
}

// Decide says whether a write may be done, in the order of CONTRACT section 5:
//
//   - a write that does not grow its store is never refused, wherever anything is;
//   - a store that exists grows up to its own last lines, whatever the wallet's and the tenant's counts are;
//   - a new store needs room below the hard lines of its wallet, of the tenant's bytes and for what it holds;
//   - a new wallet needs room below the hard line of the tenant's wallets too.
//
// It knows an answer for any numbers. Deletes that create no store need not ask.
func (c *Ceilings) Decide(u Usage, ch Change) Decision {
	begins := ch.NewStore || ch.NewWallet
	checks := [...]struct {
		name    string
		ceiling Ceiling
		used    int64
		asked   bool // whether the write adds to it
		begins  bool // whether only what begins is refused
		shown   bool // whether it counts for Line
	}{
		{"wallets", c.Wallets, grown(u.Wallets, ch.NewWallet), ch.NewWallet, true, ch.NewWallet},
		{"bytes_per_tenant", c.TenantBytes, add(u.TenantBytes, max(ch.Bytes, 0)), begins, true, begins},
		{"stores_per_wallet", c.Stores, grown(u.Stores, begins), begins, true, true},
		{"objects_per_store", c.Objects, add(u.Objects, ch.Objects), ch.Objects > 0, false, true},
		{"bytes_per_store", c.Bytes, add(u.Bytes, ch.Bytes), ch.Bytes > 0, false, true},
		{"value_size", c.Value, ch.Value, ch.Bytes > 0 && ch.Value > 0, false, true},
	}
	var d Decision
	for _, check := range checks {
		allowed := check.ceiling.Last
		if begins || check.begins {
			allowed = check.ceiling.Hard
		}
		if check.ceiling == (Ceiling{}) {
			continue
		}
		line, near := check.ceiling.line(check.used), max(d.Near, check.ceiling.near(check.used))
		if check.asked && check.used > allowed {
			return Decision{Refused: true, Line: line, Near: near, Limit: check.name, Used: check.used, Allowed: allowed}
		}
		if !check.shown {
			continue
		}
		d.Near = near
		if line > d.Line {
			d.Line, d.Limit, d.Used, d.Allowed = line, check.name, check.used, allowed
		}
	}
	return d
}

func (c Ceiling) line(used int64) Line {
	switch {
	case used > c.Last:
		return BeyondLast
	case used > c.Hard:
		return BeyondHard
	case used > c.Soft:
		return BeyondSoft
	default:
		return BelowSoft
	}
}

// near is the highest line that something is beyond, or below by no more than a tenth. Nothing is near no line.
func (c Ceiling) near(used int64) Line {
	// What is not below nine tenths of a line is beyond the number before them.
	below := func(line int64) int64 { return max(line-line/10-1, 0) }
	return Ceiling{Soft: below(c.Soft), Hard: below(c.Hard), Last: below(c.Last)}.line(used)
}

func grown(n int64, by bool) int64 {
	if by {
		return add(n, 1)
	}
	return n
}

// add stops at the ends of the numbers.
func add(a, b int64) int64 {
	sum := a + b
	switch {
	case a > 0 && b > 0 && sum < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && sum >= 0:
		return math.MinInt64
	default:
		return sum
	}
}

// percent is that many hundredths of n, rounded down; neither is negative.
func percent(n, hundredths int64) int64 {
	high, low := bits.Mul64(uint64(n), uint64(hundredths))
	if high >= 100 {
		return math.MaxInt64
	}
	quotient, _ := bits.Div64(high, low, 100)
	return int64(min(quotient, math.MaxInt64))
}
