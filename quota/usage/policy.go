package usage

import (
	"slices"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
)

// What makes an event, besides refusals that go on (sustained.go).

// KeySet is a tenant's key set at a URL, as an instance has it.
type KeySet struct {
	Tenant uuid.UUID
	Source uuid.UUID
	Name   string // of the source
	Err    error  // of the last fetch; nil: it succeeded
}

// tellOfKeySets makes events of the key sets that some instance cannot fetch. If each instance told only what it sees
// itself, two that differ would raise and end the same event in turns.
func (r *Recorder) tellOfKeySets(sets []KeySet, failing []uuid.UUID) {
	for _, set := range sets {
		state, detail := OK, map[string]any{}
		if slices.Contains(failing, set.Source) {
			state = Raised
		}
		if set.Err != nil {
			detail["error"] = set.Err.Error()
		}
		r.events.Raise(set.Tenant, JWKSFailing, set.Name, state, detail)
	}
}

// Limited is a tenant and its ceilings.
type Limited struct {
	Tenant   uuid.UUID
	Ceilings quota.Ceilings
}

// tellOfTenants makes events of tenants that are beyond their lines, as the next new wallet would find it.
func (r *Recorder) tellOfTenants() {
	for _, t := range r.cfg.Tenants() {
		if has, ok := r.Totals(t.Tenant); ok {
			c := quota.Ceilings{Wallets: t.Ceilings.Wallets, TenantBytes: t.Ceilings.TenantBytes}
			r.events.Lines(t.Tenant, "", c.Decide(quota.Usage{Wallets: has.Wallets, TenantBytes: has.Bytes}, quota.Change{NewWallet: true}))
		}
	}
}

// Lines makes events of the lines that a store is beyond after a write; without a subject it is the tenant itself. It
// may be called after every put and delete: mostly there is no news, and that costs a look into a map.
func (e *Events) Lines(tenant uuid.UUID, subject string, d quota.Decision) {
	tell := func(kind EventKind, line quota.Line) {
		state := OK
		switch {
		case d.Line >= line:
			state = Raised
		case d.Near >= line:
			return // as it was
		}
		if e.news(tenant, kind, subject, state) {
			e.Raise(tenant, kind, subject, state, map[string]any{"limit": d.Limit, "used": d.Used, "allowed": d.Allowed})
		}
	}
	tell(StorageSoft, quota.BeyondSoft)
	tell(StorageHard, quota.BeyondHard)
}
