package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"text/tabwriter"
	"time"

	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

type domainCmd struct {
	Add    domainAddCmd    `cmd:"" help:"Claim a host name for a tenant, and show the DNS record that proves it."`
	List   domainListCmd   `cmd:"" help:"List a tenant's host names and their states."`
	Check  domainCheckCmd  `cmd:"" help:"Ask DNS for the records of a tenant's host names, or of one."`
	Remove domainRemoveCmd `cmd:"" help:"Take a host name from a tenant."`
}

type domainAddCmd struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
	Host   string `arg:"" help:"The host name, without scheme and port."`
	Vouch  bool   `help:"Serve it at once: you know that it is the tenant's, and DNS is not asked."`
}

func (c domainAddCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.AddDomain(ctx, actor(), c.Tenant, c.Host, c.Vouch)
		if err != nil {
			return err
		}
		v := viewDomain(t.Domain(c.Host))
		return out.print(v, func(w io.Writer) {
			if v.State != tenants.Pending {
				tableDomains(w, []domainView{v})
				return
			}
			fmt.Fprintf(w, "Claimed %s. It is served once DNS has this record and 'domain check %s' has seen it:\n\n  %s  TXT  %q\n",
				v.Host, c.Tenant, v.RecordName, v.RecordText)
		})
	})
}

type domainListCmd struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
}

func (c domainListCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, c.Tenant)
		if err != nil {
			return err
		}
		views := viewDomains(t)
		return out.print(views, func(w io.Writer) { tableDomains(w, views) })
	})
}

type domainCheckCmd struct {
	tenantFlags
	Tenant    string  `arg:"" help:"The tenant."`
	Host      *string `arg:"" optional:"" help:"The host name. Unset: all of the tenant's."`
	DNSServer string  `name:"dns-server" placeholder:"HOST:PORT" help:"Ask this server, as one of the domain's own, and not those of this machine."`
}

// Run checks all and then says which are not proved, so that one does not hide another.
func (c domainCheckCmd) Run(ctx context.Context, out output) error {
	cfg := tenants.ServiceConfig{Resolver: c.resolver()}
	var hosts []string
	err := c.withConfig(ctx, cfg, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, c.Tenant)
		if err != nil {
			return err
		}
		for _, d := range t.Domains {
			hosts = append(hosts, d.Host)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.Host != nil {
		hosts = []string{*c.Host}
	}
	views := []domainView{}
	var failed []error
	for _, host := range hosts {
		err := c.withConfig(ctx, cfg, func(ctx context.Context, s *tenants.Service) error { // each in its own time
			t, err := s.CheckDomain(ctx, actor(), c.Tenant, host)
			if err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", host, err))
			}
			if t == nil {
				if t, err = s.Get(ctx, c.Tenant); err != nil {
					return err
				}
			}
			if d := t.Domain(host); d != nil {
				views = append(views, viewDomain(d))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(views) > 0 || c.Host == nil {
		if err := out.print(views, func(w io.Writer) { tableDomains(w, views) }); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

func (c domainCheckCmd) resolver() tenants.Resolver {
	if c.DNSServer == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, c.DNSServer)
	}}
}

type domainRemoveCmd struct {
	tenantFlags
	confirm
	Tenant string `arg:"" help:"The tenant."`
	Host   string `arg:"" help:"The host name."`
}

func (c domainRemoveCmd) Run(ctx context.Context, out output) error {
	return c.sure(func(by audit.Actor) error {
		return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.RemoveDomain(ctx, by, c.Tenant, c.Host)
			if err != nil {
				return err
			}
			views := viewDomains(t)
			return out.print(views, func(w io.Writer) { tableDomains(w, views) })
		})
	})
}

// domainView is a domain as JSON; scripts rely on its names.
type domainView struct {
	Host       string              `json:"host"` // in punycode
	State      tenants.DomainState `json:"state"`
	Vouched    bool                `json:"vouched"`
	RecordName string              `json:"record_name"`
	RecordText string              `json:"record_text"`
	CheckedAt  *time.Time          `json:"checked_at,omitempty"`
}

func viewDomain(d *tenants.Domain) domainView {
	v := domainView{Host: d.Host, State: d.State, Vouched: d.Vouched}
	v.RecordName, v.RecordText = d.Record()
	if !d.CheckedAt.IsZero() {
		v.CheckedAt = &d.CheckedAt
	}
	return v
}

func viewDomains(t *tenants.Tenant) []domainView {
	views := make([]domainView, len(t.Domains))
	for i := range t.Domains {
		views[i] = viewDomain(&t.Domains[i])
	}
	return views
}

func tableDomains(w io.Writer, views []domainView) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "HOST\tSTATE\tCHECKED\tTXT RECORD")
	for _, v := range views {
		checked := "never"
		if v.CheckedAt != nil {
			checked = v.CheckedAt.Format(time.RFC3339)
		}
		if v.Vouched {
			checked = "vouched for"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s %q\n", v.Host, v.State, checked, v.RecordName, v.RecordText)
	}
	tw.Flush()
}
