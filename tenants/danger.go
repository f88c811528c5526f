package tenants

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/quota/usage"
)

// ConfirmError is a change that wallets will feel: calls are refused that were served, or credentials name other wallets
// than before. It is made for an actor who has confirmed it. The text is meant for the caller.
type ConfirmError struct {
	Will []string // what happens, each a sentence
}

func (e *ConfirmError) Error() string { return strings.Join(e.Will, " ") }

// canLose is why refused writes are asked about.
const canLose = "A wallet that cannot save can lose its channels."

// refusals says, a sentence each, what is refused after a change of a tenant that was not before, whatever the change
// was. What becomes of credentials is said by [moves]. The totals are nil where nothing was measured yet.
func refusals(before, after *Tenant, plans map[string]quota.Values, totals *usage.Totals) (will []string) {
	say := func(format string, args ...any) { will = append(will, fmt.Sprintf(format, args...)) }
	// Whatever a state is, that it refuses is asked of the state itself: a new one needs no line here.
	switch refuses := after.Refuses(true); {
	case refuses == nil || after.State == before.State:
	case after.Refuses(false) != nil && before.Refuses(false) == nil:
		say("Every call of the wallets of tenant %s (%s) is refused. %s", after.Slug, countWallets(totals), canLose)
	case before.Refuses(true) == nil:
		say("Every write of the wallets of tenant %s (%s) is refused; they still read. %s", after.Slug, countWallets(totals), canLose)
	}
	switch e := after.Enrolment; {
	case e == before.Enrolment || before.Enrolment == EnrolmentClosed:
	case e == EnrolmentListed:
		say("New wallets of tenant %s that are not on its list are refused; enrolled ones go on.", after.Slug)
	case e != EnrolmentOpen:
		say("New wallets of tenant %s are refused; enrolled ones go on.", after.Slug)
	}
	if after.Gate.State == GateRequired && before.Gate.State != GateRequired {
		say("Every call to tenant %s without a good client key is refused (%s): apps released without one cannot save. 'auth failures' counts such calls while the gate is observed.", after.Slug, countWallets(totals))
	}
	for _, k := range before.ClientKeys {
		if now := after.clientKey(k.Prefix); k.Good(time.Now()) && now != nil && !now.RevokedAt.IsZero() {
			say("The client key %s... never works again: where the gate is required, apps with it are refused.", k.Prefix)
		}
	}
	for _, d := range before.Domains {
		now := after.domain(d.Host)
		if served := d.State == Verified || d.State == Lost; served && (now == nil || now.State == Pending) {
			say("Wallets that call tenant %s at %s are refused.", after.Slug, d.Host)
		}
	}
	if lower := lowered(limitsOf(plans[before.Plan], before.Overrides), limitsOf(plans[after.Plan], after.Overrides), totals); len(lower) > 0 {
		say("Tenant %s: %s %s", after.Slug, strings.Join(lower, " "), canLose)
	}
	return will
}

// countWallets is how many wallets a tenant has, for people.
func countWallets(totals *usage.Totals) string {
	switch {
	case totals == nil:
		return "its wallets were not counted yet"
	case totals.Wallets == 1:
		return "1 wallet"
	}
	return fmt.Sprintf("%d wallets", totals.Wallets)
}

// totalsOf are the totals of tenants, as last measured.
func totalsOf(ctx context.Context, tx pgx.Tx) (of func(*Tenant) *usage.Totals, _ error) {
	rows, err := dbgen.New().Totals(ctx, tx)
	return func(t *Tenant) *usage.Totals {
		for _, row := range rows {
			if row.TenantID == t.ID {
				return &usage.Totals{Wallets: row.Wallets, Stores: row.Stores, Objects: row.Objects, Bytes: row.Bytes, MeasuredAt: row.MeasuredAt}
			}
		}
		return nil
	}, err
}

// limitsOf are a plan's limits with those that a tenant has of its own.
func limitsOf(plan, own quota.Values) quota.Values {
	all := maps.Clone(plan)
	if all == nil {
		all = quota.Values{}
	}
	maps.Copy(all, own)
	return all
}

// InUse is how much there is of what a limit counts, if it is counted.
func InUse(limit string, totals *usage.Totals) (int64, bool) {
	switch {
	case totals == nil:
		return 0, false
	case limit == "wallets":
		return totals.Wallets, true
	case limit == "bytes_per_tenant":
		return totals.Bytes, true
	}
	return 0, false
}

// Refuses says what a limit refuses with so much in use, or "". Nothing that exists is taken away.
func Refuses(limit string, value, used int64) string {
	switch {
	case limit == "wallets" && used >= value:
		return fmt.Sprintf("new wallets: there are %d, which go on", used)
	case limit == "bytes_per_tenant" && used > value:
		return fmt.Sprintf("new wallets and new stores: %d bytes are stored, and existing stores go on", used)
	}
	return ""
}

// lowered says what the limits that go down will refuse, where they may then be below what is in use. It says nothing
// of limits that are out of bounds: the service refuses them.
func lowered(before, after quota.Values, totals *usage.Totals) (will []string) {
	l, err := quota.Effective(after, nil)
	if err != nil {
		return nil
	}
	c := l.Ceilings()
	for _, name := range quota.Names() {
		was, is := before[name], after[name]
		if is >= was {
			continue
		}
		what := ""
		switch name {
		case "wallets", "bytes_per_tenant":
			if used, ok := InUse(name, totals); ok {
				what = Refuses(name, is, used)
			} else {
				what = "new wallets or stores once it is reached; how much is in use was not measured yet"
			}
		case "stores_per_wallet":
			what = fmt.Sprintf("new stores of wallets that have %d or more; those that they have go on", is)
		case "objects_per_store":
			what = fmt.Sprintf("new keys of stores that have %d or more", c.Objects.Last)
		case "bytes_per_store":
			what = fmt.Sprintf("what makes a store grow beyond %d bytes", c.Bytes.Last)
		case "reserve_percent":
			what = fmt.Sprintf("what makes a store grow beyond %d keys or %d bytes", c.Objects.Last, c.Bytes.Last)
		case "value_size":
			what = fmt.Sprintf("values that grow beyond %d bytes", c.Value.Last)
		case "body_size":
			what = fmt.Sprintf("calls of more than %d bytes, even those that make nothing grow", is)
		case "wallet_writes_burst":
			what = fmt.Sprintf("writes beyond %d at once, for a while", l.WalletRate(quota.Write).Burst)
		case "wallet_writes_per_minute", "tenant_writes_per_minute", "tenant_writes_burst":
			what = "writes beyond it, for a while"
		}
		if what != "" {
			will = append(will, fmt.Sprintf("%s %d instead of %d refuses %s.", name, is, was, what))
		}
	}
	return will
}
