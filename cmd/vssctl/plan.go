package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

type planCmd struct {
	List   planListCmd   `cmd:"" help:"List all plans."`
	Show   planShowCmd   `cmd:"" help:"Show a plan's limits."`
	Set    planSetCmd    `cmd:"" help:"Create a plan, or change one. It holds on every instance within 5 seconds."`
	Delete planDeleteCmd `cmd:"" help:"Delete a plan that no tenant has."`
}

type planListCmd struct{ tenantFlags }

func (c planListCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		plans, err := s.Plans(ctx)
		if err != nil {
			return err
		}
		having, err := havePlans(ctx, s)
		if err != nil {
			return err
		}
		views := make([]planView, 0, len(plans))
		for _, name := range slices.Sorted(maps.Keys(plans)) {
			views = append(views, planView{name, len(having[name]), plans[name]})
		}
		return out.print(views, func(w io.Writer) {
			tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "PLAN\tTENANTS\tWALLETS\tBYTES PER STORE\tBYTES PER TENANT")
			for _, v := range views {
				fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%s\n", v.Name, v.Tenants, v.Limits["wallets"],
					showLimit("bytes_per_store", v.Limits["bytes_per_store"]), showLimit("bytes_per_tenant", v.Limits["bytes_per_tenant"]))
			}
			tw.Flush()
		})
	})
}

type planShowCmd struct {
	tenantFlags
	Name string `arg:"" help:"The plan."`
}

func (c planShowCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error { return printPlan(ctx, out, s, c.Name) })
}

type planSetCmd struct {
	tenantFlags
	confirm
	Name   string   `arg:"" help:"The plan: one DNS label."`
	Limits []string `arg:"" optional:"" name:"limit=value" sep:"none" help:"Limits that are to be others, as in wallets=1000 or value_size=20MiB."`
	From   string   `placeholder:"PLAN" help:"Plan that a new one has the other limits of (standard)."`
}

func (c planSetCmd) Run(ctx context.Context, out output) error {
	limits, err := parseLimits(c.Limits)
	if err != nil {
		return err
	}
	changes := quota.Values{}
	for name, value := range limits {
		if value == nil {
			return &tenants.InvalidError{Field: name, Reason: "a plan has every limit: give a number"}
		}
		changes[name] = *value
	}
	if len(changes) == 0 && c.From == "" {
		err := c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			_, err := s.Plan(ctx, c.Name)
			return err
		})
		if err == nil {
			return fmt.Errorf("%w: say which limits of plan %s are to be others, as in wallets=1000", cli.ErrUsage, c.Name)
		}
	}
	return c.sure(func(by audit.Actor) error {
		return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			if err := s.SavePlan(ctx, by, c.Name, c.From, changes); err != nil {
				return err
			}
			return printPlan(ctx, out, s, c.Name)
		})
	})
}

type planDeleteCmd struct {
	tenantFlags
	Name string `arg:"" help:"The plan."`
}

func (c planDeleteCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		if err := s.DeletePlan(ctx, actor(), c.Name); err != nil {
			return err
		}
		return out.print(struct{}{}, func(w io.Writer) { fmt.Fprintf(w, "deleted plan %s\n", c.Name) })
	})
}

// havePlans are the tenants by their plans.
func havePlans(ctx context.Context, s *tenants.Service) (map[string][]*tenants.Tenant, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	having := map[string][]*tenants.Tenant{}
	for _, t := range all {
		having[t.Plan] = append(having[t.Plan], t)
	}
	return having, nil
}

// planView is a plan as JSON; scripts rely on its names.
type planView struct {
	Name    string       `json:"name"`
	Tenants int          `json:"tenants"` // how many have it
	Limits  quota.Values `json:"limits"`
}

func printPlan(ctx context.Context, out output, s *tenants.Service, name string) error {
	limits, err := s.Plan(ctx, name)
	if err != nil {
		return err
	}
	having, err := havePlans(ctx, s)
	if err != nil {
		return err
	}
	v := planView{name, len(having[name]), limits}
	return out.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "plan %s, which %d tenants have\n\n", v.Name, v.Tenants)
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, limit := range quota.Names() {
			fmt.Fprintf(tw, "%s\t%s\n", limit, showLimit(limit, v.Limits[limit]))
		}
		tw.Flush()
	})
}
