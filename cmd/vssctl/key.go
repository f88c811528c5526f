package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

type keyCmd struct {
	Add keyAddCmd `cmd:"" help:"Add public keys to a jwt source, active or on standby."`
	Set keySetCmd `cmd:"" help:"Put a key of a jwt source into a state. It holds on every instance within 5 seconds."`
}

type keyAddCmd struct {
	tenantFlags
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
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.AddKeys(ctx, actor(), c.Tenant, c.Source, text, state)
		if err != nil {
			return err
		}
		return printKeys(out, t, c.Source)
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
	var err error
	switch {
	case c.State == jwt.Retired:
		still := 24 * time.Hour
		if c.For != nil {
			still = *c.For
		}
		until = time.Now().Add(still)
		err = c.ask("Wallets of tenant %s whose tokens key %s signed are refused from %s on.", c.Tenant, printable(c.KID), until.Format(time.RFC3339))
	case c.For != nil:
		err = fmt.Errorf("%w: --for is of --state retired", errUsage)
	case c.State == jwt.Revoked:
		err = c.ask("Wallets of tenant %s whose tokens key %s signed are refused at once, and the key can never be used again.", c.Tenant, printable(c.KID))
	}
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.SetKey(ctx, actor(), c.Tenant, c.Source, c.KID, c.State, until)
		if err != nil {
			return err
		}
		return printKeys(out, t, c.Source)
	})
}

// sourceKeyView is a source's key as JSON; scripts rely on its names.
type sourceKeyView struct {
	KID       string     `json:"kid"`
	Kind      string     `json:"kind"` // for people, as "RSA, 2048 bits"
	Algorithm string     `json:"algorithm,omitempty"`
	State     jwt.State  `json:"state"`
	Until     *time.Time `json:"until,omitempty"` // of a retired key
	CreatedAt *time.Time `json:"created_at,omitempty"`
}

func viewKeys(keys []tenants.SourceKey) []sourceKeyView {
	views := make([]sourceKeyView, len(keys))
	for i := range keys {
		k := &keys[i]
		v := sourceKeyView{KID: k.ID, State: k.State, CreatedAt: &k.CreatedAt}
		if key, err := jwt.ParseKey(k.Public); err == nil {
			v.Kind, v.Algorithm = key.Describe(), key.Algorithm()
		}
		if !k.Until.IsZero() {
			v.Until = &k.Until
		}
		views[i] = v
	}
	return views
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
