package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

type keyCmd struct {
	Add          keyAddCmd       `cmd:"" help:"Add public keys to a jwt source, active or on standby."`
	List         keyListCmd      `cmd:"" help:"List a source's keys and their states."`
	Set          keySetCmd       `cmd:"" help:"Put a key of a jwt source into a state. It holds on every instance within 5 seconds."`
	Rotate       keyRotateCmd    `cmd:"" help:"Give an lnurl source a new key to sign tokens with. Tokens of the old one stay good until they end."`
	CreateMaster createMasterCmd `cmd:"" help:"Make a master key file, which the API needs for LNURL-auth. 'vssctl dev' makes its own."`
	RotateMaster rotateMasterCmd `cmd:"" help:"Replace the master key, in three steps."`
}

type keyAddCmd struct {
	tenantFlags
	confirm
	Tenant  string `arg:"" help:"The tenant."`
	Source  string `arg:"" help:"The source."`
	File    string `arg:"" help:"The keys, as JWKS, JWK or PEM; - is standard input."`
	Standby bool   `help:"Let them verify nothing yet."`
}

func (c keyAddCmd) Run(ctx context.Context, out output) error {
	text, err := readKeys(c.File)
	if err != nil {
		return err
	}
	state := jwt.Active
	if c.Standby {
		state = jwt.Standby
	}
	return c.sure(func(by audit.Actor) error {
		return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.AddKeys(ctx, by, c.Tenant, c.Source, text, state)
			if err != nil {
				return err
			}
			return printKeys(out, t, c.Source)
		})
	})
}

type keyListCmd struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
	Source string `arg:"" help:"The source."`
}

func (c keyListCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		fetched, skipped, err := s.FetchedKeys(ctx, c.Tenant, c.Source) // first: it says that there is no such source
		if err != nil {
			return err
		}
		t, err := s.Get(ctx, c.Tenant)
		if err != nil {
			return err
		}
		src := sourceOf(t, c.Source)
		if src == nil { // removed since
			return tenants.ErrNotFound
		}
		views := viewFetched(fetched)
		for _, v := range viewKeys(src.Keys) {
			if !slices.ContainsFunc(views, func(f sourceKeyView) bool { return f.Thumbprint == v.Thumbprint }) {
				views = append(views, v)
			}
		}
		for _, reason := range skipped {
			views = append(views, sourceKeyView{State: "skipped", Reason: reason})
		}
		return out.print(views, func(w io.Writer) {
			switch {
			case src.JWKSURL != "" && len(fetched) == 0:
				fmt.Fprintf(w, "No instance of the API has got keys from %s yet. Of those that it had before:\n\n", src.JWKSURL)
			case src.JWKSURL != "":
				fmt.Fprintf(w, "As the API last got them, now from %s, and those that were revoked:\n\n", src.JWKSURL)
			}
			tableKeys(w, views)
		})
	})
}

type keySetCmd struct {
	tenantFlags
	confirm
	Tenant string         `arg:"" help:"The tenant."`
	Source string         `arg:"" help:"The source."`
	KID    string         `arg:"" name:"kid" help:"The key, by its kid or, if it has none, its thumbprint: see 'key list'. Put -- before one that begins with -."`
	State  jwt.State      `enum:"standby,active,retired,revoked" required:"" placeholder:"STATE" help:"standby (verifies nothing yet), active, retired (verifies for a while) or revoked (never again)."`
	For    *time.Duration `placeholder:"DURATION" help:"How long a retired key still verifies (24h)."`
}

func (c keySetCmd) Run(ctx context.Context, out output) error {
	var until time.Time
	switch {
	case c.State == jwt.Retired:
		still := 24 * time.Hour
		if c.For != nil {
			still = *c.For
		}
		until = time.Now().Add(still)
	case c.For != nil:
		return fmt.Errorf("%w: --for is of --state retired", cli.ErrUsage)
	}
	return c.sure(func(by audit.Actor) error {
		return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.SetKey(ctx, by, c.Tenant, c.Source, c.KID, c.State, until)
			if err != nil {
				return err
			}
			return printKeys(out, t, c.Source)
		})
	})
}

type keyRotateCmd struct {
	tenantFlags
	masterKeyFlags
	confirm
	Tenant string `arg:"" help:"The tenant."`
	Source string `arg:"" help:"The source."`
	Revoke bool   `help:"Refuse the tokens of all former keys at once."`
}

func (c keyRotateCmd) Run(ctx context.Context, out output) error {
	key, err := c.load(c.database)
	if err != nil {
		return err
	}
	return c.sure(func(by audit.Actor) error {
		return c.withConfig(ctx, tenants.ServiceConfig{MasterKey: key}, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.RotateKey(ctx, by, c.Tenant, c.Source, c.Revoke)
			if err != nil {
				return err
			}
			return printKeys(out, t, c.Source)
		})
	})
}

// sourceKeyView is a source's key as JSON; scripts rely on its names.
type sourceKeyView struct {
	KID        string     `json:"kid"`
	Thumbprint string     `json:"thumbprint"` // of RFC 7638
	Kind       string     `json:"kind"`       // for people, as "RSA, 2048 bits"
	Algorithm  string     `json:"algorithm,omitempty"`
	State      jwt.State  `json:"state"`            // or skipped
	Reason     string     `json:"reason,omitempty"` // of an entry of a URL's set that was skipped
	Until      *time.Time `json:"until,omitempty"`  // of a retired key
	CreatedAt  *time.Time `json:"created_at,omitempty"`
}

func viewKeys(keys []tenants.SourceKey) []sourceKeyView {
	views := make([]sourceKeyView, len(keys))
	for i := range keys {
		k := &keys[i]
		v := sourceKeyView{KID: k.ID}
		if key, err := jwt.ParseKey(k.Public); err == nil {
			v = viewKey(key)
		}
		v.State, v.CreatedAt = k.State, &k.CreatedAt
		if !k.Until.IsZero() {
			v.Until = &k.Until
		}
		views[i] = v
	}
	return views
}

func viewFetched(keys []jwt.Key) []sourceKeyView {
	views := make([]sourceKeyView, len(keys))
	for i, k := range keys {
		views[i] = viewKey(k)
	}
	return views
}

func viewKey(k jwt.Key) sourceKeyView {
	return sourceKeyView{KID: k.ID(), Thumbprint: k.Thumbprint(), Kind: k.Describe(), Algorithm: k.Algorithm(), State: k.State}
}

func printKeys(out output, t *tenants.Tenant, source string) error {
	views := viewKeys(sourceOf(t, source).Keys)
	return out.print(views, func(w io.Writer) { tableKeys(w, views) })
}

func tableKeys(w io.Writer, views []sourceKeyView) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "KID\tSTATE\tKIND\tADDED")
	for _, v := range views {
		state, added := string(v.State), ""
		if v.Reason != "" {
			fmt.Fprintf(tw, "-\t%s: %s\t\t\n", v.State, v.Reason)
			continue
		}
		if v.Until != nil {
			state += ", verifies until " + v.Until.Format(time.RFC3339)
		}
		if v.CreatedAt != nil {
			added = v.CreatedAt.Format(time.RFC3339)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", printable(v.KID), state, v.Kind, added)
	}
	tw.Flush()
}

// printable is a text of somebody else's, as a kid is, fit for a terminal.
func printable(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }) {
		return strconv.Quote(s)
	}
	return s
}
