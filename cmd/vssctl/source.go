package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

type sourceCmd struct {
	Add    sourceAddCmd    `cmd:"" help:"Add a way in which a tenant's wallets prove who they are."`
	List   sourceListCmd   `cmd:"" help:"List a tenant's credential sources, removed ones too."`
	Set    sourceSetCmd    `cmd:"" help:"Change a source. What is not named stays as it is."`
	Remove sourceRemoveCmd `cmd:"" help:"Remove a source. Its wallets' data stays, and so do its name and namespace."`
}

// egressFlags are those of commands that take or fetch tenants' URLs.
type egressFlags struct {
	EgressAllowPrivate bool `env:"VSS_EGRESS_ALLOW_PRIVATE" help:"For development, as of the API: take URLs of private addresses, on any port and without TLS."`
}

func (f egressFlags) client() *egress.Client {
	return egress.New(egress.Config{AllowPrivate: f.EgressAllowPrivate})
}

type sourceAddCmd struct {
	tenantFlags
	masterKeyFlags
	egressFlags
	confirm
	Tenant string `arg:"" help:"The tenant."`
	Name   string `arg:"" help:"The source's name, for ever: one DNS label."`

	Kind        tenants.Kind `enum:"signature,jwt,lnurl" required:"" placeholder:"KIND" help:"signature, jwt or lnurl. A tenant has at most one of the first and of the last."`
	NamespaceOf string       `placeholder:"SOURCE" help:"Share this source's wallets, to move users over: who proves the same subject to either is the same wallet, for ever. Unset: wallets of its own."`

	Preset    string   `enum:"standard,reference" default:"standard" placeholder:"PRESET" help:"jwt: standard, or reference: as the reference server, with its one PEM (RS256, no aud, no look at iss and nbf)."`
	Issuer    *string  `placeholder:"TEXT" help:"jwt: what iss must be. Unset: it is not looked at."`
	Audience  []string `sep:"none" xor:"audience" placeholder:"TEXT" help:"jwt: what aud must have, or one of several such flags. Unset: it is not looked at."`
	NoAud     bool     `name:"no-audience" xor:"audience" help:"jwt: refuse tokens with an aud."`
	IgnoreNBF bool     `name:"ignore-nbf" help:"jwt: do not look at nbf."`
	Algorithm []string `placeholder:"ALG" help:"jwt: take these only. Unset: all, but none and HMAC never."`
	Claim     claims   `placeholder:"NAME=TEXT" help:"jwt: a claim that tokens must have, and the text that it must be, as client_id=app1 where tokens have no aud. Several such flags: all of them."`
	ByKid     bool     `help:"jwt: where tokens have no iss that could tell them from those of other sources, the kids of the uploaded keys do."`
	JWKSURL   string   `name:"jwks-url" xor:"keys" placeholder:"URL" help:"jwt: where the issuer publishes its keys."`
	Keys      string   `xor:"keys" placeholder:"FILE" help:"jwt: its public keys, as JWKS, JWK or PEM; - is standard input."`

	Host            string `placeholder:"HOST" help:"lnurl: host of the auth URL, for ever, since wallets derive their keys from it: the tenant's sub-domain or a verified domain."`
	AllowSharedHost bool   `help:"lnurl, for development: without --host, use the one that all tenants share."`
}

func (c sourceAddCmd) Run(ctx context.Context, out output) error {
	n := tenants.NewSource{Name: c.Name, Kind: c.Kind, NamespaceOf: c.NamespaceOf, JWKSURL: c.JWKSURL, ByKeyID: c.ByKid, Host: c.Host}
	var err error
	if n.Rules, err = c.rules(); err != nil {
		return err
	}
	if c.Keys != "" {
		if n.Keys, err = readKeys(c.Keys); err != nil {
			return err
		}
	}
	if c.Preset == "reference" {
		if err := checkReferenceKey(n.Keys); err != nil {
			return err
		}
	}
	cfg := tenants.ServiceConfig{Egress: c.client(), SharedLogins: c.AllowSharedHost}
	if c.Kind == tenants.LNURL {
		if cfg.MasterKey, err = c.load(c.database); err != nil {
			return err
		}
	}
	return c.sure(func(by audit.Actor) error {
		return c.withConfig(ctx, cfg, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.AddSource(ctx, by, c.Tenant, n)
			if err != nil {
				return err
			}
			return printSource(out, t, c.Name)
		})
	})
}

// rules are those of the preset and the flags. It refuses flags that would mean nothing.
func (c sourceAddCmd) rules() (jwt.Rules, error) {
	given := c.Issuer != nil || c.Audience != nil || c.NoAud || c.IgnoreNBF || c.ByKid || c.Algorithm != nil || c.Claim != nil
	switch {
	case c.Kind != tenants.JWT && (given || c.Preset != "standard"):
		return jwt.Rules{}, fmt.Errorf("%w: --preset, --issuer, --audience, --no-audience, --ignore-nbf, --by-kid, --algorithm and --claim are of sources of kind jwt", cli.ErrUsage)
	case c.Kind != tenants.JWT:
		return jwt.Rules{}, nil
	case c.Preset == "reference" && (given || c.JWKSURL != ""):
		return jwt.Rules{}, fmt.Errorf("%w: --preset reference is the reference server's rules and no others: for rules of your own or keys at a URL, leave it out", cli.ErrUsage)
	case c.Preset == "reference":
		return jwt.ReferenceServer(), nil
	}
	r := jwt.Standard()
	r.Issuer, r.CheckNotBefore = c.Issuer, !c.IgnoreNBF
	switch {
	case c.NoAud:
		r.AudienceRule = jwt.NoAudience
	case c.Audience != nil:
		r.AudienceRule, r.Audiences = jwt.OneOf, c.Audience
	}
	if c.Algorithm != nil {
		r.Algorithms = c.Algorithm
	}
	r.Claims = c.Claim
	return r, nil
}

// claims are what flags of the form NAME=TEXT ask for. The text may have any character, "=" and "," as well.
type claims map[string]string

func (c *claims) Decode(ctx *kong.DecodeContext) error {
	var flag string
	if err := ctx.Scan.PopValueInto("NAME=TEXT", &flag); err != nil {
		return err
	}
	name, text, ok := strings.Cut(flag, "=")
	if !ok {
		return errors.New("must be NAME=TEXT, as client_id=app1")
	}
	if _, twice := (*c)[name]; twice {
		return fmt.Errorf("asks for the claim %s twice, and a claim is one text", name)
	}
	if *c == nil {
		*c = claims{}
	}
	(*c)[name] = text
	return nil
}

// checkReferenceKey wants what the reference server takes.
func checkReferenceKey(text []byte) error {
	keys, err := jwt.ParseKeys(text)
	switch {
	case text == nil:
		return fmt.Errorf("%w: --preset reference needs --keys FILE, with the reference server's PEM", cli.ErrUsage)
	case err != nil:
		return &tenants.InvalidError{Field: "keys", Reason: err.Error()}
	case !bytes.Contains(text, []byte("-----BEGIN")) || len(keys) != 1 || keys[0].Type() != "RSA":
		return &tenants.InvalidError{Field: "keys", Reason: `"as the reference server" is one RSA key in PEM, and nothing else: leave --preset out for other keys`}
	}
	return nil
}

// readKeys reads a file, or standard input. What is no key is refused later.
func readKeys(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, 2<<20))
	}
	return os.ReadFile(path)
}

type sourceListCmd struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
}

func (c sourceListCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, c.Tenant)
		if err != nil {
			return err
		}
		views := viewSources(t.Sources)
		for _, v := range viewSources(t.Removed) {
			v.Removed = true
			views = append(views, v)
		}
		return out.print(views, func(w io.Writer) { tableSources(w, views) })
	})
}

type sourceSetCmd struct {
	tenantFlags
	egressFlags
	confirm
	Tenant string `arg:"" help:"The tenant."`
	Name   string `arg:"" help:"The source."`

	Window    *time.Duration `placeholder:"DURATION" help:"signature: how far a signature's time may be from now, 1m to 24h."`
	TokenLife *time.Duration `placeholder:"DURATION" help:"lnurl: how long its tokens live, 5m to 24h."`
	Issuer    *string        `placeholder:"TEXT" help:"jwt: what iss must be; empty: it is not looked at."`
	Audience  []string       `sep:"none" xor:"audience" placeholder:"TEXT" help:"jwt: what aud must have, or one of several such flags, in the place of all before."`
	AnyAud    bool           `name:"any-audience" xor:"audience" help:"jwt: do not look at aud."`
	NoAud     bool           `name:"no-audience" xor:"audience" help:"jwt: refuse tokens with an aud."`
	NBF       bool           `name:"nbf" xor:"nbf" help:"jwt: refuse tokens before their nbf."`
	IgnoreNBF bool           `name:"ignore-nbf" xor:"nbf" help:"jwt: do not look at nbf."`
	ByKid     *bool          `negatable:"" help:"jwt: tell tokens from those of other sources by the kids of the uploaded keys."`
	Algorithm []string       `placeholder:"ALG" help:"jwt: take these only, in the place of all before."`
	Claim     claims         `xor:"claims" placeholder:"NAME=TEXT" help:"jwt: a claim that tokens must have, and the text that it must be. All such flags are in the place of all before."`
	NoClaims  bool           `xor:"claims" help:"jwt: ask for no claims."`
	JWKSURL   *string        `name:"jwks-url" placeholder:"URL" help:"jwt, of a source with its keys at a URL: the new URL."`
}

func (c sourceSetCmd) Run(ctx context.Context, out output) error {
	cfg := tenants.ServiceConfig{Egress: c.client()}
	return c.sure(func(by audit.Actor) error {
		return c.withConfig(ctx, cfg, func(ctx context.Context, s *tenants.Service) error {
			t, err := s.SetSource(ctx, by, c.Tenant, c.Name, c.change())
			if err != nil {
				return err
			}
			return printSource(out, t, c.Name)
		})
	})
}

func (c sourceSetCmd) change() tenants.SourceChange {
	change := tenants.SourceChange{
		Window: c.Window, TokenLife: c.TokenLife,
		Issuer: c.Issuer, Audiences: c.Audience, Algorithms: c.Algorithm, ByKeyID: c.ByKid, JWKSURL: c.JWKSURL,
	}
	rule := func(r jwt.AudienceRule) { change.AudienceRule = &r }
	switch {
	case c.Audience != nil:
		rule(jwt.OneOf)
	case c.AnyAud:
		rule(jwt.AnyAudience)
	case c.NoAud:
		rule(jwt.NoAudience)
	}
	change.Claims = c.Claim
	if c.NoClaims {
		change.Claims = map[string]string{}
	}
	if c.NBF || c.IgnoreNBF {
		change.CheckNotBefore = &c.NBF
	}
	return change
}

type sourceRemoveCmd struct {
	tenantFlags
	confirm
	Tenant string `arg:"" help:"The tenant."`
	Name   string `arg:"" help:"The source."`
}

func (c sourceRemoveCmd) Run(ctx context.Context, out output) error {
	return c.sure(func(by audit.Actor) error {
		return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
			if _, err := s.RemoveSource(ctx, by, c.Tenant, c.Name); err != nil {
				return err
			}
			return out.print(map[string]string{"removed": c.Name}, func(w io.Writer) {
				fmt.Fprintf(w, "removed source %s; what its wallets stored stays, and another source can take them over with --namespace-of\n", c.Name)
			})
		})
	})
}

// sourceView is a source as JSON; scripts rely on its names. What is not of its kind is left out.
type sourceView struct {
	Name      string       `json:"name"`
	Kind      tenants.Kind `json:"kind"`
	Namespace string       `json:"namespace"`
	Removed   bool         `json:"removed,omitempty"`

	WindowSeconds int `json:"window_seconds,omitempty"`

	Issuer         *string          `json:"issuer,omitempty"`
	AudienceRule   jwt.AudienceRule `json:"audience_rule,omitempty"`
	Audiences      []string         `json:"audiences,omitempty"`
	CheckNotBefore *bool            `json:"check_not_before,omitempty"`
	Algorithms     []string         `json:"algorithms,omitempty"`
	Claims         claims           `json:"claims,omitempty"`
	ByKid          bool             `json:"by_kid,omitempty"`
	JWKSURL        string           `json:"jwks_url,omitempty"`

	Host         *string `json:"host,omitempty"` // "": the one that tenants share
	TokenSeconds int     `json:"token_seconds,omitempty"`

	Keys []sourceKeyView `json:"keys,omitempty"`

	Found *tenants.KeySet `json:"found,omitempty"` // at the URL, when it was saved
	Notes []string        `json:"notes,omitempty"`
}

func viewSource(s *tenants.Source) sourceView {
	v := sourceView{Name: s.Name, Kind: s.Kind, Namespace: s.Namespace, Keys: viewKeys(s.Keys), Found: s.Found, Notes: s.Notes()}
	switch s.Kind {
	case tenants.Signature:
		v.WindowSeconds = int(s.Window / time.Second)
	case tenants.JWT:
		r := &s.Rules
		v.Issuer, v.AudienceRule, v.Audiences = r.Issuer, r.AudienceRule, r.Audiences
		v.Claims = r.Claims
		v.CheckNotBefore, v.Algorithms, v.ByKid, v.JWKSURL = &r.CheckNotBefore, r.Algorithms, s.ByKeyID, s.JWKSURL.String()
	case tenants.LNURL:
		v.Issuer, v.Host, v.TokenSeconds = s.Rules.Issuer, &s.Host, int(s.TokenLife/time.Second)
	}
	return v
}

func viewSources(all []tenants.Source) []sourceView {
	views := make([]sourceView, len(all))
	for i := range all {
		views[i] = viewSource(&all[i])
	}
	return views
}

// describe is what the source takes, for people.
func (v sourceView) describe() string {
	var is []string
	say := func(format string, args ...any) { is = append(is, fmt.Sprintf(format, args...)) }
	if v.Removed {
		say("removed")
	}
	switch v.Kind {
	case tenants.Signature:
		say("within %s of now", time.Duration(v.WindowSeconds)*time.Second)
	case tenants.LNURL:
		if *v.Host == "" {
			say("on the host that tenants share")
		} else {
			say("https://%s%s", *v.Host, callers.LoginPath)
		}
		say("tokens live %s", time.Duration(v.TokenSeconds)*time.Second)
	case tenants.JWT:
		if v.Issuer == nil {
			say("any iss")
		} else {
			say("iss %q", *v.Issuer)
		}
		switch v.AudienceRule {
		case jwt.OneOf:
			say("aud %q", v.Audiences)
		case jwt.NoAudience:
			say("no aud")
		default:
			say("any aud")
		}
		for _, name := range slices.Sorted(maps.Keys(v.Claims)) {
			say("%s %q", printable(name), v.Claims[name])
		}
		if !*v.CheckNotBefore {
			say("nbf ignored")
		}
		if !slices.Equal(v.Algorithms, jwt.Algorithms()) {
			say("%s", strings.Join(v.Algorithms, " "))
		}
		if v.JWKSURL != "" {
			say("keys at %s", v.JWKSURL)
			if n := len(v.Keys); n > 0 {
				say("%d of them revoked", n)
			}
			return strings.Join(is, ", ")
		}
	}
	if n := len(v.Keys); n > 0 {
		say("keys: %d", n)
	}
	return strings.Join(is, ", ")
}

func tableSources(w io.Writer, views []sourceView) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tKIND\tNAMESPACE\tTAKES")
	for _, v := range views {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", v.Name, v.Kind, v.Namespace, v.describe())
	}
	tw.Flush()
}

func printSource(out output, t *tenants.Tenant, name string) error {
	v := viewSource(sourceOf(t, name))
	return out.print(v, func(w io.Writer) {
		tableSources(w, []sourceView{v})
		if v.Found != nil {
			tableFound(w, v.Found)
		}
		for _, note := range v.Notes {
			fmt.Fprintf(w, "\nNote: %s\n", note)
		}
	})
}

// tableFound is what the URL of a source's keys answered, key by key.
func tableFound(w io.Writer, f *tenants.KeySet) {
	if f.Problem != "" {
		fmt.Fprintf(w, "\nThe URL gives no key to verify tokens with: %s.\n", f.Problem)
	} else {
		fmt.Fprintf(w, "\nThe URL answered with %d bytes, and is asked again after about %s:\n", f.Bytes, time.Duration(f.FreshSeconds)*time.Second)
	}
	if f.Redirect != "" {
		fmt.Fprintf(w, "It leads to %q.\n", f.Redirect)
	}
	if len(f.Keys)+len(f.Skipped) == 0 {
		return
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "KID\tKIND\tUSE")
	for _, k := range f.Keys {
		use := "used"
		if k.Refused != "" {
			use = "refused: it " + k.Refused
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", printable(k.KID), k.Kind, use)
	}
	for _, reason := range f.Skipped {
		fmt.Fprintf(tw, "-\t-\trefused: %s\n", reason)
	}
	tw.Flush()
}

// sourceOf is the tenant's source of this name, or nil.
func sourceOf(t *tenants.Tenant, name string) *tenants.Source {
	for i := range t.Sources {
		if t.Sources[i].Name == name {
			return &t.Sources[i]
		}
	}
	return nil
}
