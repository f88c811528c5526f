package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
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
	return c.sure(func(by audit.Actor) error {
		return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.Get(ctx, c.Tenant)
			if err == nil && len(changes) > 0 {
				t, err = s.Set(ctx, by, c.Tenant, tenants.Change{Limits: changes})
			}
			if err != nil {
				return err
			}
			return printLimits(ctx, out, s, t)
		})
	})
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

func printLimits(ctx context.Context, out output, s *tenants.Service, t *tenants.Tenant) error {
	plans, err := s.Plans(ctx)
	if err != nil {
		return err
	}
	totals, err := s.Usage().TotalsOf(ctx, t.ID)
	if err != nil {
		return err
	}
	v := struct {
		Tenant     string      `json:"tenant"`
		Plan       string      `json:"plan"`
		MeasuredAt *time.Time  `json:"measured_at,omitempty"` // what is in use
		Limits     []limitView `json:"limits"`
	}{Tenant: t.Slug, Plan: t.Plan}
	if totals != nil {
		v.MeasuredAt = &totals.MeasuredAt
	}
	for _, name := range quota.Names() {
		l := limitView{Name: name, Value: plans[t.Plan][name], From: "plan", Plan: plans[t.Plan][name]}
		if own, ok := t.Overrides[name]; ok {
			l.Value, l.From = own, "tenant"
		}
		if used, ok := tenants.InUse(name, totals); ok {
			l.InUse, l.Refuses = &used, tenants.Refuses(name, l.Value, used)
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
	})
}
