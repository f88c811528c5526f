package quota

import (
	"fmt"
	"maps"
	"slices"
)

// Limits are what a tenant may have and do: those of its plan, but for what is set for the tenant alone. They
// are made by [Effective].
type Limits struct {
	Wallets         int64 // of the tenant
	StoresPerWallet int64
	ObjectsPerStore int64
	BytesPerStore   int64 // of keys and values, as the store counts them
	BytesPerTenant  int64
	ValueSize       int64 // in bytes
	BodySize        int64 // in bytes

	// SoftPercent of a ceiling is its soft line; ReservePercent of it is what lies beyond its hard line for
	// stores that exist (CONTRACT section 5). See [Limits.Ceilings].
	SoftPercent    int64
	ReservePercent int64

	Wallet [kinds]Allowance // of each wallet, by the [Kind] of call
	Tenant [kinds]Allowance // of all its wallets together

	Enrolments        Allowance // new wallets of the tenant
	AddressEnrolments Allowance // of them, from one address
}

// Allowance is a rate as people set it.
type Allowance struct{ PerMinute, Burst int64 }

// Rate is the allowance as arithmetic has it.
func (a Allowance) Rate() Rate { return PerMinute(a.PerMinute, a.Burst) }

// Values are limits by name, as they are stored and shown. A plan has all of them; a tenant has those in which
// it differs from its plan.
type Values map[string]int64

// limit describes one of the limits.
type limit struct {
	name        string
	least, most int64
	of          func(*Limits) *int64
}

const (
	maxCount  = 1_000_000_000
	maxBytes  = 1 << 50
	maxMinute = 60_000_000 // a million a second
	maxBurst  = 10_000_000
	maxBody   = 256 << 20 // CONTRACT section 2
)

// Zero is not allowed for any: it would mean "none" to one reader and "no limit" to the next. Enrolment is
// closed and a tenant made read-only by its state.
var allLimits = slices.Concat([]limit{
	{"wallets", 1, maxCount, func(l *Limits) *int64 { return &l.Wallets }},
	{"stores_per_wallet", 1, 1_000_000, func(l *Limits) *int64 { return &l.StoresPerWallet }},
	{"objects_per_store", 1, maxCount, func(l *Limits) *int64 { return &l.ObjectsPerStore }},
	{"bytes_per_store", 1, maxBytes, func(l *Limits) *int64 { return &l.BytesPerStore }},
	{"bytes_per_tenant", 1, maxBytes, func(l *Limits) *int64 { return &l.BytesPerTenant }},
	// A full channel monitor can have tens of MiB (CONTRACT section 2). Nobody saves by refusing one.
	{"value_size", 1 << 10, maxBody, func(l *Limits) *int64 { return &l.ValueSize }},
	{"body_size", 1 << 10, maxBody, func(l *Limits) *int64 { return &l.BodySize }},
	{"soft_percent", 1, 100, func(l *Limits) *int64 { return &l.SoftPercent }},
	{"reserve_percent", 1, 1000, func(l *Limits) *int64 { return &l.ReservePercent }},
},
	allowance("wallet_writes", func(l *Limits) *Allowance { return &l.Wallet[Write] }),
	allowance("wallet_reads", func(l *Limits) *Allowance { return &l.Wallet[Read] }),
	allowance("wallet_lists", func(l *Limits) *Allowance { return &l.Wallet[List] }),
	allowance("tenant_writes", func(l *Limits) *Allowance { return &l.Tenant[Write] }),
	allowance("tenant_reads", func(l *Limits) *Allowance { return &l.Tenant[Read] }),
	allowance("tenant_lists", func(l *Limits) *Allowance { return &l.Tenant[List] }),
	allowance("enrolments", func(l *Limits) *Allowance { return &l.Enrolments }),
	allowance("address_enrolments", func(l *Limits) *Allowance { return &l.AddressEnrolments }),
)

func allowance(name string, of func(*Limits) *Allowance) []limit {
	return []limit{
		{name + "_per_minute", 1, maxMinute, func(l *Limits) *int64 { return &of(l).PerMinute }},
		{name + "_burst", 1, maxBurst, func(l *Limits) *int64 { return &of(l).Burst }},
	}
}

// Names are those of all limits, in the order in which they are shown.
func Names() []string {
	names := make([]string, len(allLimits))
	for i, l := range allLimits {
		names[i] = l.name
	}
	return names
}

// InvalidError is a limit that no plan may have. Its text is meant for the caller.
type InvalidError struct {
	Field  string // the limit's name
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

// Known are the values that are limits of this program: those of a newer one are for it.
func Known(v Values) Values {
	known := Values{}
	for _, l := range allLimits {
		if value, ok := v[l.name]; ok {
			known[l.name] = value
		}
	}
	return known
}

// Effective are the limits of a tenant: the plan's values, but where the tenant has its own. It fails with an
// [*InvalidError] for the first limit that is missing, unknown or out of bounds. A limit may be below what is
// in use: it then refuses what [Ceilings.Decide] says, and nothing that is there is touched.
func Effective(plan, tenant Values) (Limits, error) {
	all := maps.Clone(plan)
	if all == nil {
		all = Values{}
	}
	maps.Copy(all, tenant)
	var effective Limits
	for _, l := range allLimits {
		v, ok := all[l.name]
		switch {
		case !ok:
			return Limits{}, &InvalidError{l.name, "is missing"}
		case v < l.least || v > l.most:
			return Limits{}, &InvalidError{l.name, fmt.Sprintf("is %d, allowed are %d to %d", v, l.least, l.most)}
		}
		*l.of(&effective) = v
		delete(all, l.name)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		return Limits{}, &InvalidError{name, "is no limit"}
	}
	if effective.ValueSize > effective.BodySize {
		return Limits{}, &InvalidError{"value_size", fmt.Sprintf("is %d, but a body_size of %d holds no such value", effective.ValueSize, effective.BodySize)}
	}
	return effective, nil
}

// WalletRate is the rate of one wallet's calls. It isn't divided between instances: a wallet keeps one
// connection, so it would get one instance's share of what its plan promises. A wallet that does spread its
// calls over n instances gets up to n times its rate, within the tenant's.
//
// A wallet that starts reads all it has, so the burst of reads is no smaller than the store's object count, and that of
// lists than the pages of it (CONTRACT section 5). That is not known before the call is read, so it is the most that
// the limits let a store have, and at least fullRead. And what a store has a reserve for can be written at once: the
// burst of writes is at least what a wallet of 40 channels writes until all of them are closed.
func (l *Limits) WalletRate(k Kind) Rate {
	r := l.rate(&l.Wallet, k)
	if k == Write {
		r = r.AtLeast(reserveKeys)
	}
	return r
}

// TenantRate is the rate of all the tenant's calls together, on one of n instances.
func (l *Limits) TenantRate(k Kind, n int) Rate { return l.rate(&l.Tenant, k).Over(n) }

// Weight is the tenant's share of a store that has more to do than it can, by how much it may write: see [Entrant].
func (l *Limits) Weight() int {
	const ordinary = 60_000 // writes a minute, as in the plan that tenants get
	return int(min(max(l.Tenant[Write].PerMinute*OrdinaryWeight/ordinary, 1), 1000))
}

func (l *Limits) rate(of *[kinds]Allowance, k Kind) Rate {
	r, objects := of[k].Rate(), max(fullRead, l.ceiling(l.ObjectsPerStore, reserveKeys).Last)
	switch k {
	case Read:
		r = r.AtLeast(objects)
	case List:
		r = r.AtLeast(objects/pageKeys + 1)
	}
	return r
}

// fullRead is how many objects any store is taken to have: a limit that was lowered says nothing of what is there.
const fullRead = 1_000_000

// pageKeys is how many keys a page of a list has (CONTRACT section 2).
const pageKeys = 100
