package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

type tenantCmd struct {
	Create tenantCreateCmd `cmd:"" help:"Create a tenant whose wallets sign."`
	List   tenantListCmd   `cmd:"" help:"List all tenants."`
	Show   tenantShowCmd   `cmd:"" help:"Show a tenant."`
	Set    tenantSetCmd    `cmd:"" help:"Change a tenant. It holds on every instance within 5 seconds."`

	Suspend tenantSuspendCmd `cmd:"" help:"Serve a tenant's wallets reads, and no writes."`
	Resume  tenantResumeCmd  `cmd:"" help:"Serve a tenant's wallets again after 'suspend' or 'close'."`
	Close   tenantCloseCmd   `cmd:"" help:"Serve a tenant's wallets nothing. Nothing is deleted."`

	Limits tenantLimitsCmd `cmd:"" help:"Show a tenant's limits and what is in use, or change limits that are to be its own."`
	Usage  tenantUsageCmd  `cmd:"" help:"Show what a tenant did, by hour, day or month (UTC)."`
	Events tenantEventsCmd `cmd:"" help:"List what came into another state at a tenant, the last first."`
}

// tenantFlags are those of every command about tenants.
type tenantFlags struct {
	database
	BaseDomain string `env:"VSS_BASE_DOMAIN" placeholder:"HOST" help:"The API's base domain, which no tenant can have as its own."`
}

// with calls do with the service that all changes go through.
func (f tenantFlags) with(ctx context.Context, do func(context.Context, *tenants.Service) error) error {
	return f.withConfig(ctx, tenants.ServiceConfig{}, do)
}

// withConfig is with for a service that needs more than a base domain.
func (f tenantFlags) withConfig(ctx context.Context, cfg tenants.ServiceConfig, do func(context.Context, *tenants.Service) error) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	url, err := f.url()
	if err != nil {
		return err
	}
	pool, err := db.Open(ctx, url, db.RoleAdmin, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := db.Check(ctx, pool); err != nil {
		return err
	}
	cfg.BaseDomain = f.BaseDomain
	s, err := tenants.NewService(pool, cfg)
	if err != nil {
		return err
	}
	if cfg.MasterKey != nil {
		if err := checkMasterKey(ctx, s, cfg.MasterKey); err != nil {
			return err
		}
	}
	return do(ctx, s)
}

// actor is whoever runs this, for the audit log.
func actor() audit.Actor {
	name := "uid " + fmt.Sprint(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return audit.Actor{Role: audit.Operator, Name: name + "@" + cmp.Or(host, "localhost")}
}

type tenantCreateCmd struct {
	tenantFlags
	Slug string `arg:"" help:"Its name in URLs, for ever: one DNS label."`
	Name string `help:"Its name for people (the slug)."`
	Plan string `placeholder:"PLAN" help:"Its plan (standard)."`
}

func (c tenantCreateCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Create(ctx, actor(), tenants.NewTenant{Slug: c.Slug, Name: cmp.Or(c.Name, c.Slug), Plan: c.Plan})
		if err != nil {
			return err
		}
		return printTenant(out, t)
	})
}

type tenantListCmd struct{ tenantFlags }

func (c tenantListCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		all, err := s.List(ctx)
		if err != nil {
			return err
		}
		views := make([]tenantView, len(all))
		for i, t := range all {
			views[i] = viewTenant(t)
		}
		return out.print(views, func(w io.Writer) {
			tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "SLUG\tSTATE\tNAME\tDOMAINS")
			for _, v := range views {
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", v.Slug, v.State, v.Name, strings.Join(v.hosts(), ", "))
			}
			tw.Flush()
		})
	})
}

type tenantShowCmd struct {
	tenantFlags
	Slug string `arg:"" help:"The tenant."`
}

func (c tenantShowCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, c.Slug)
		if err != nil {
			return err
		}
		return printTenant(out, t)
	})
}

type tenantSetCmd struct {
	tenantFlags
	confirm
	Slug      string             `arg:"" help:"The tenant."`
	Name      *string            `help:"Its name for people."`
	State     *tenants.State     `enum:"active,read_only,closed" placeholder:"STATE" help:"active, read_only (reads are served, writes are not) or closed (nothing is served; nothing is deleted)."`
	Plan      *string            `placeholder:"PLAN" help:"Its plan; see 'plan list'."`
	Enrolment *tenants.Enrolment `enum:"open,closed,listed" placeholder:"WHO" help:"Who may become a wallet by a first write: open (anybody), closed (nobody) or listed (see 'wallet allow'). Those who are one stay one."`
}

func (c tenantSetCmd) Run(ctx context.Context, out output) error {
	return c.setTenant(ctx, out, c.confirm, c.Slug, tenants.Change{Name: c.Name, State: c.State, Plan: c.Plan, Enrolment: c.Enrolment})
}

// setTenant changes a tenant and shows it.
func (f tenantFlags) setTenant(ctx context.Context, out output, ask confirm, slug string, change tenants.Change) error {
	return ask.sure(func(by audit.Actor) error {
		return f.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.Set(ctx, by, slug, change)
			if err != nil {
				return err
			}
			return printTenant(out, t)
		})
	})
}

// tenantStateCmd puts a tenant into the state of its command.
type tenantStateCmd struct {
	tenantFlags
	confirm
	Slug string `arg:"" help:"The tenant."`
}

type (
	tenantSuspendCmd struct{ tenantStateCmd }
	tenantResumeCmd  struct{ tenantStateCmd }
	tenantCloseCmd   struct{ tenantStateCmd }
)

func (c tenantStateCmd) set(ctx context.Context, out output, state tenants.State) error {
	return c.setTenant(ctx, out, c.confirm, c.Slug, tenants.Change{State: &state})
}

func (c tenantSuspendCmd) Run(ctx context.Context, out output) error {
	return c.set(ctx, out, tenants.ReadOnly)
}

func (c tenantResumeCmd) Run(ctx context.Context, out output) error {
	return c.set(ctx, out, tenants.Active)
}

func (c tenantCloseCmd) Run(ctx context.Context, out output) error {
	return c.set(ctx, out, tenants.Closed)
}

// tenantView is a tenant as JSON; scripts rely on its names.
type tenantView struct {
	ID        string            `json:"id"`
	Slug      string            `json:"slug"`
	Name      string            `json:"name"`
	State     tenants.State     `json:"state"`
	Plan      string            `json:"plan"`
	Enrolment tenants.Enrolment `json:"enrolment"`
	gateView
	Domains   []domainView `json:"domains"`
	Sources   []sourceView `json:"sources"`
	CreatedAt time.Time    `json:"created_at"`
}

// hosts are its domains, for people.
func (v tenantView) hosts() (hosts []string) {
	for _, d := range v.Domains {
		host := d.Host
		if d.State != tenants.Verified {
			host += fmt.Sprintf(" (%s)", d.State)
		}
		hosts = append(hosts, host)
	}
	return hosts
}

func viewTenant(t *tenants.Tenant) tenantView {
	return tenantView{
		ID: t.ID.String(), Slug: t.Slug, Name: t.Name, State: t.State, Plan: t.Plan, Enrolment: t.Enrolment,
		gateView: gateView{t.Gate.State, t.Gate.Header}, Domains: viewDomains(t), Sources: viewSources(t.Sources), CreatedAt: t.CreatedAt,
	}
}

func printTenant(out output, t *tenants.Tenant) error {
	v := viewTenant(t)
	return out.print(v, func(w io.Writer) {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(tw, "slug\t%s\nname\t%s\nstate\t%s\nplan\t%s, enrolment %s\nclient keys\t%s, in the header %s\ndomains\t%s\npath\t/t/%s/vss\ncreated\t%s\nid\t%s\n",
			v.Slug, v.Name, v.State, v.Plan, v.Enrolment, v.gateView.State, v.Header, cmp.Or(strings.Join(v.hosts(), ", "), "none"), v.Slug, v.CreatedAt.Format(time.RFC3339), v.ID)
		for _, s := range v.Sources {
			fmt.Fprintf(tw, "source\t%s (%s, namespace %s): %s\n", s.Name, s.Kind, s.Namespace, s.describe())
		}
		tw.Flush()
	})
}
