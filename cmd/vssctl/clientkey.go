package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

type clientKeyCmd struct {
	Add    clientKeyAddCmd    `cmd:"" help:"Make a publishable key for an app, and show it this once."`
	List   clientKeyListCmd   `cmd:"" help:"List a tenant's client keys, oldest first, by what they begin with."`
	Rotate clientKeyRotateCmd `cmd:"" help:"Make a key in the place of one, which goes on for a while."`
	Revoke clientKeyRevokeCmd `cmd:"" help:"End a key, on every instance within 5 seconds."`
	Gate   clientKeyGateCmd   `cmd:"" help:"Say what a call without a good client key gets."`
}

type clientKeyAddCmd struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
	Name   string `arg:"" help:"What the key is for, for people."`
}

func (c clientKeyAddCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, key, err := s.AddClientKey(ctx, actor(), c.Tenant, c.Name)
		if err != nil {
			return err
		}
		return printNewClientKey(out, t, key)
	})
}

type clientKeyListCmd struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
}

func (c clientKeyListCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, c.Tenant)
		if err != nil {
			return err
		}
		return printClientKeys(out, t)
	})
}

type clientKeyRotateCmd struct {
	tenantFlags
	Tenant  string        `arg:"" help:"The tenant."`
	Prefix  string        `arg:"" help:"What the key begins with, as 'client-key list' shows it."`
	Overlap time.Duration `default:"720h" placeholder:"DURATION" help:"How long the old key goes on: until users have updated their apps (${default})."`
}

func (c clientKeyRotateCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, key, err := s.RotateClientKey(ctx, actor(), c.Tenant, c.Prefix, c.Overlap)
		if err != nil {
			return err
		}
		return printNewClientKey(out, t, key)
	})
}

type clientKeyRevokeCmd struct {
	tenantFlags
	confirm
	Tenant string `arg:"" help:"The tenant."`
	Prefix string `arg:"" help:"What the key begins with, as 'client-key list' shows it."`
}

func (c clientKeyRevokeCmd) Run(ctx context.Context, out output) error {
	return c.sure(func(by audit.Actor) error {
		return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.RevokeClientKey(ctx, by, c.Tenant, c.Prefix)
			if err != nil {
				return err
			}
			return printClientKeys(out, t)
		})
	})
}

type clientKeyGateCmd struct {
	tenantFlags
	confirm
	Tenant string            `arg:"" help:"The tenant."`
	State  tenants.GateState `arg:"" enum:"off,observed,required" help:"off, observed (served, and counted: see 'auth failures') or required (refused)."`
	Header *string           `placeholder:"NAME" help:"Header that has the key."`
}

func (c clientKeyGateCmd) Run(ctx context.Context, out output) error {
	return c.sure(func(by audit.Actor) error {
		return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.Set(ctx, by, c.Tenant, tenants.Change{Gate: &c.State, Header: c.Header})
			if err != nil {
				return err
			}
			v := viewTenant(t).gateView
			return out.print(v, func(w io.Writer) { fmt.Fprintf(w, "client keys %s, in the header %s\n", v.State, v.Header) })
		})
	})
}

// gateView is a tenant's gate as JSON; scripts rely on its names.
type gateView struct {
	State  tenants.GateState `json:"client_key_gate"`
	Header string            `json:"client_key_header"`
}

// clientKeyView is a client key as JSON; scripts rely on its names.
type clientKeyView struct {
	Prefix    string     `json:"prefix"`
	Name      string     `json:"name"`
	State     string     `json:"state"` // active, expired or revoked
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
}

func viewClientKey(k *tenants.ClientKey) clientKeyView {
	v := clientKeyView{Prefix: k.Prefix, Name: k.Name, State: "active", CreatedAt: k.CreatedAt}
	if !k.ExpiresAt.IsZero() {
		v.ExpiresAt = &k.ExpiresAt
		if !time.Now().Before(k.ExpiresAt) {
			v.State = "expired"
		}
	}
	if !k.RevokedAt.IsZero() {
		v.RevokedAt, v.State = &k.RevokedAt, "revoked"
	}
	return v
}

func printClientKeys(out output, t *tenants.Tenant) error {
	views := make([]clientKeyView, len(t.ClientKeys))
	for i := range t.ClientKeys {
		views[i] = viewClientKey(&t.ClientKeys[i])
	}
	return out.print(views, func(w io.Writer) {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "PREFIX\tSTATE\tNAME\tADDED")
		for _, v := range views {
			state := v.State
			if v.State == "active" && v.ExpiresAt != nil {
				state += " until " + v.ExpiresAt.Format(time.RFC3339)
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", v.Prefix, state, v.Name, v.CreatedAt.Format(time.RFC3339))
		}
		tw.Flush()
	})
}

// printNewClientKey shows a key that was just made.
func printNewClientKey(out output, t *tenants.Tenant, key string) error {
	var v struct {
		Key string `json:"key"`
		clientKeyView
		Header string `json:"client_key_header"`
	}
	v.Key, v.Header = key, t.Gate.Header
	for i := range t.ClientKeys {
		if strings.HasPrefix(key, t.ClientKeys[i].Prefix) {
			v.clientKeyView = viewClientKey(&t.ClientKeys[i])
		}
	}
	return out.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s\n\nThe client key of %s, for the header %s. It is kept nowhere and not shown again.\n", v.Key, cmp.Or(v.Name, t.Slug), v.Header)
	})
}
