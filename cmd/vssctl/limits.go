package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// sizes are what bytes may be given in.
var sizes = []struct {
	suffix string
	shift  int
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// isBytes says whether a limit is one of bytes.
func isBytes(limit string) bool {
	return strings.HasPrefix(limit, "bytes_") || strings.HasSuffix(limit, "_size")
}

// parseLimits reads arguments like wallets=10 and value_size=20MiB. One without a value is nil.
func parseLimits(args []string) (map[string]*int64, error) {
	limits := map[string]*int64{}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		_, twice := limits[name]
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: %q is no limit=value, as wallets=1000 is", cli.ErrUsage, arg)
		case !slices.Contains(quota.Names(), name):
			return nil, &tenants.InvalidError{Field: printable(name), Reason: "is no limit: 'plan show standard' has the names of all"}
		case twice:
			return nil, &tenants.InvalidError{Field: name, Reason: "is given twice"}
		case text == "":
			limits[name] = nil
			continue
		}
		n, err := parseLimit(name, text)
		if err != nil {
			return nil, err
		}
		limits[name] = &n
	}
	return limits, nil
}

func parseLimit(name, text string) (int64, error) {
	digits, shift := text, 0
	if isBytes(name) {
		for _, size := range sizes {
			if rest, ok := strings.CutSuffix(text, size.suffix); ok {
				digits, shift = rest, size.shift
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case err != nil && isBytes(name):
		return 0, &tenants.InvalidError{Field: name, Reason: fmt.Sprintf("%q is not a whole number of bytes, or of KiB, MiB, GiB or TiB, as 20MiB is", text)}
	case err != nil:
		return 0, &tenants.InvalidError{Field: name, Reason: fmt.Sprintf("%q is not a whole number", text)}
	case n > math.MaxInt64>>shift:
		return 0, &tenants.InvalidError{Field: name, Reason: fmt.Sprintf("%q is too large", text)}
	}
	return n << shift, nil
}

// showLimit is a limit's value for people.
func showLimit(name string, n int64) string {
	text := strconv.FormatInt(n, 10)
	if isBytes(name) {
		for _, size := range sizes {
			if unit := int64(1) << size.shift; n >= unit && n%unit == 0 {
				return fmt.Sprintf("%s (%d %s)", text, n/unit, size.suffix)
			}
		}
	}
	return text
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

// inUse is how much there is of what a limit counts, if anybody counts it.
func inUse(limit string, totals *usage.Totals) (int64, bool) {
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

// refuses says what a limit refuses, as things are, or nothing. Of what is there none is taken away.
func refuses(limit string, value, used int64) string {
	switch {
	case limit == "wallets" && used >= value:
		return fmt.Sprintf("new wallets: %d are there, and they go on", used)
	case limit == "bytes_per_tenant" && used > value:
		return fmt.Sprintf("new wallets and new stores: %d bytes are stored, and stores that exist go on", used)
	}
	return ""
}

// lowered says of the limits that go down, and may then be below what is in use, what they will refuse. There is
// nothing to say of limits that are out of bounds: the service refuses them.
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
			if used, ok := inUse(name, totals); ok {
				what = refuses(name, is, used)
			} else {
				what = "what begins once it is reached; how much is in use was not measured yet"
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
			what = fmt.Sprintf("calls of more than %d bytes, also those that make nothing grow", is)
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

// danger is why lower limits are asked about.
const danger = "A wallet whose write is refused can lose a channel."

type tenantLimitsCmd struct {
	tenantFlags
	confirm
	Tenant string   `arg:"" help:"The tenant."`
	Limits []string `arg:"" optional:"" name:"limit=value" sep:"none" help:"Limits to be the tenant's own, as in wallets=1000 or value_size=20MiB; 'wallets=' takes one back, and the plan's holds again."`
}

func (c tenantLimitsCmd) Run(ctx context.Context, out output) error {
	changes, err := parseLimits(c.Limits)
	if err != nil {
		return err
	}
	var warnings []string
	if len(changes) > 0 {
		if err := c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.Get(ctx, c.Tenant)
			if err != nil {
				return err
			}
			own := limitsOf(t.Overrides, nil)
			for name, value := range changes {
				if value == nil {
					delete(own, name)
				} else {
					own[name] = *value
				}
			}
			warnings, err = warnOf(ctx, s, t, t.Plan, own)
			return err
		}); err != nil {
			return err
		}
		if len(warnings) > 0 {
			if err := c.ask("Tenant %s: %s %s", c.Tenant, strings.Join(warnings, " "), danger); err != nil {
				return err
			}
		}
	}
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, c.Tenant)
		if err == nil && len(changes) > 0 {
			t, err = s.Set(ctx, actor(), c.Tenant, tenants.Change{Limits: changes})
		}
		if err != nil {
			return err
		}
		return printLimits(ctx, out, s, t, warnings)
	})
}

// warnOf says what a tenant's wallets would be refused under a plan, with these limits of the tenant's own.
func warnOf(ctx context.Context, s *tenants.Service, t *tenants.Tenant, plan string, own quota.Values) ([]string, error) {
	plans, err := s.Plans(ctx)
	if err != nil {
		return nil, err
	}
	totals, err := totalsOf(ctx, s, t)
	if err != nil {
		return nil, err
	}
	return lowered(limitsOf(plans[t.Plan], t.Overrides), limitsOf(plans[plan], own), totals), nil
}

// totalsOf are a tenant's totals, or nil.
func totalsOf(ctx context.Context, s *tenants.Service, t *tenants.Tenant) (*usage.Totals, error) {
	all, err := s.Usage().Totals(ctx)
	if totals, ok := all[t.ID]; ok {
		return &totals, err
	}
	return nil, err
}

// limitView is a tenant's limit as JSON; scripts rely on its names.
type limitView struct {
	Name    string `json:"name"`
	Value   int64  `json:"value"`
	From    string `json:"from"` // plan, or tenant: its own
	Plan    int64  `json:"plan_value"`
	InUse   *int64 `json:"in_use,omitempty"`  // where it is measured
	Refuses string `json:"refuses,omitempty"` // what, as things are
}

func printLimits(ctx context.Context, out output, s *tenants.Service, t *tenants.Tenant, warnings []string) error {
	plans, err := s.Plans(ctx)
	if err != nil {
		return err
	}
	totals, err := totalsOf(ctx, s, t)
	if err != nil {
		return err
	}
	v := struct {
		Tenant     string      `json:"tenant"`
		Plan       string      `json:"plan"`
		MeasuredAt *time.Time  `json:"measured_at,omitempty"` // what is in use
		Limits     []limitView `json:"limits"`
		Warnings   []string    `json:"warnings,omitempty"` // of the change that was just made
	}{Tenant: t.Slug, Plan: t.Plan, Warnings: warnings}
	if totals != nil {
		v.MeasuredAt = &totals.MeasuredAt
	}
	for _, name := range quota.Names() {
		l := limitView{Name: name, Value: plans[t.Plan][name], From: "plan", Plan: plans[t.Plan][name]}
		if own, ok := t.Overrides[name]; ok {
			l.Value, l.From = own, "tenant"
		}
		if used, ok := inUse(name, totals); ok {
			l.InUse, l.Refuses = &used, refuses(name, l.Value, used)
		}
		v.Limits = append(v.Limits, l)
	}
	return out.print(v, func(w io.Writer) {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "LIMIT\tVALUE\tOF\tIN USE")
		for _, l := range v.Limits {
			of, used := "plan "+v.Plan, ""
			if l.From == "tenant" {
				of = fmt.Sprintf("the tenant (plan: %d)", l.Plan)
			}
			if l.InUse != nil {
				used = showLimit(l.Name, *l.InUse)
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", l.Name, showLimit(l.Name, l.Value), of, used)
		}
		tw.Flush()
		if v.MeasuredAt != nil {
			fmt.Fprintln(w, "\nIn use as of", v.MeasuredAt.Format(time.RFC3339))
		}
		for _, l := range v.Limits {
			if l.Refuses != "" {
				fmt.Fprintf(w, "\n%s refuses %s.\n", l.Name, l.Refuses)
			}
		}
		for _, warning := range v.Warnings {
			fmt.Fprintln(w, "\nChanged:", warning)
		}
	})
}
