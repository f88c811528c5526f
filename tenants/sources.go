package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

const (
	// MinSignatureWindow and MaxSignatureWindow are the bounds of a source's window: the 24 hours of
	// CONTRACT section 4.1, which a tenant may narrow.
	MinSignatureWindow = time.Minute
	MaxSignatureWindow = 24 * time.Hour

	// MinTokenLife and MaxTokenLife are the bounds of the life of a token that we issue (CONTRACT section 4.3).
	MinTokenLife = 5 * time.Minute
	MaxTokenLife = 24 * time.Hour

	// maxSources is how many sources a tenant can have, also removed ones: each is a look-up at every change.
	maxSources = 50

	// maxFormerIssuers is how many issuers a source can have had: they are remembered.
	maxFormerIssuers = 20
)

// NewSource is a credential source to be added.
type NewSource struct {
	Name string // one DNS label
	Kind Kind

	// NamespaceOf is the source whose namespace, and so whose wallets, the new one shares, to move users over; it
	// may be a removed one. Empty: a namespace of its own. It is for ever.
	NamespaceOf string

	// Of JWT sources: what tokens must say, and where the keys are: at a URL, or given here, in any form that
	// [jwt.ParseKeys] takes.
	Rules   jwt.Rules
	JWKSURL string
	Keys    []byte
	ByKeyID bool // see [Source.ByKeyID]

	// Host, of LNURL sources, is that of the auth URL, for ever: the tenant's sub-domain or a verified domain of
	// its own. Empty: the one that tenants share, where that is allowed.
	Host string
}

// AddSource adds a credential source, with its first keys active. It fails with [audit.ErrNoActor], [ErrNotFound] or an
// [*InvalidError], as for sources that a token could belong to both of. Keys at a URL are fetched before ([Source.Found]).
func (s *Service) AddSource(ctx context.Context, actor audit.Actor, slug string, n NewSource) (*Tenant, error) {
	src, keys, err := s.newSource(n)
	if err != nil {
		return nil, err
	}
	if src.JWKSURL != "" {
		if src.Found, err = s.lookBefore(ctx, actor, "source.add", slug, func(*Tenant) *Source { return src }); err != nil {
			return nil, err
		}
	}
	after, err := s.changeTenant(ctx, actor, "source.add", slug, func(tx pgx.Tx, t *Tenant) error {
		all := slices.Concat(t.Sources, t.Removed)
		if len(all) >= maxSources {
			return &InvalidError{"name", fmt.Sprintf("is one too many: a tenant can have %d sources, removed ones included", maxSources)}
		}
		if taken := named(all, n.Name); taken != nil {
			return &InvalidError{"name", fmt.Sprintf("is taken by a source of kind %s, which this tenant has or had: names are not used again", taken.Kind)}
		}
		if t.Source(src.Kind) != nil && src.Kind != JWT {
			return &InvalidError{"kind", fmt.Sprintf("a tenant can have one source of kind %s, and this one has %q", src.Kind, t.Source(src.Kind).Name)}
		}
		if n.NamespaceOf != "" {
			from := named(all, n.NamespaceOf)
			if from == nil {
				return &InvalidError{"namespace_of", fmt.Sprintf("this tenant has and had no source %.80q", n.NamespaceOf)}
			}
			src.Namespace = from.Namespace
		}
		if src.Kind == LNURL {
			if err := s.checkLoginHost(t, src.Host); err != nil {
				return err
			}
			// Wallets' keys, and with them their names, follow from the host.
			for _, was := range t.Removed {
				if was.Kind == LNURL && was.Namespace == src.Namespace && was.Host != src.Host {
					return &InvalidError{"host", fmt.Sprintf("%q was the host of source %q, whose wallets this one names: at another host all of them have other keys", was.Host, was.Name)}
				}
			}
		}
		for _, k := range keys {
			src.Keys = append(src.Keys, SourceKey{ID: k.ID(), Public: k.JWK(), State: jwt.Active})
		}
		if err := src.checkKeys(); err != nil {
			return err
		}
		return s.insertWithKeys(ctx, tx, t.ID, src)
	}, src.Found.ask(src)...)
	if err != nil {
		return nil, err
	}
	named(after.Sources, n.Name).Found = src.Found
	return after, nil
}

func (s *Service) insertWithKeys(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, src *Source) error {
	if src.Kind == LNURL {
		src.Keys = []SourceKey{s.newSigningKey(tenant)}
	}
	if err := insertSource(ctx, tx, tenant, src); err != nil {
		return err
	}
	for i := range src.Keys {
		if err := insertKey(ctx, tx, src.ID, &src.Keys[i]); err != nil {
			return err
		}
	}
	return nil
}

// newSource is the source in its own namespace, and its keys.
func (s *Service) newSource(n NewSource) (*Source, []jwt.Key, error) {
	src := &Source{Name: n.Name, Kind: n.Kind}
	if reason := checkLabel(n.Name); reason != "" {
		return nil, nil, &InvalidError{"name", reason}
	}
	if n.Kind != Signature && n.Kind != JWT && n.Kind != LNURL {
		return nil, nil, &InvalidError{"kind", fmt.Sprintf("must be %s, %s or %s", Signature, JWT, LNURL)}
	}
	if n.Kind != JWT && (n.JWKSURL != "" || n.Keys != nil) {
		return nil, nil, &InvalidError{"keys", "are of sources of kind jwt"}
	}
	if n.Kind != JWT && (len(n.Rules.Algorithms) > 0 || len(n.Rules.Claims) > 0 || n.Rules.Issuer != nil || n.ByKeyID) {
		return nil, nil, &InvalidError{"rules", "are of sources of kind jwt"}
	}
	if n.Kind != LNURL && n.Host != "" {
		return nil, nil, &InvalidError{"host", "is of sources of kind lnurl"}
	}
	switch n.Kind {
	case Signature:
		src.Namespace = "sig"
	case LNURL:
		if s.cfg.MasterKey == nil {
			return nil, nil, &InvalidError{"kind", "needs the master key, for the keys that sign its tokens: name its file"}
		}
		src.Namespace = "lnurl"
		src.Host = asStored(n.Host)
	case JWT:
		src.Namespace = "jwt:" + n.Name
		src.Rules, src.JWKSURL, src.ByKeyID = n.Rules, egress.URL(n.JWKSURL), n.ByKeyID
		if err := checkRules(n.Rules); err != nil {
			return nil, nil, err
		}
		if (n.JWKSURL == "") == (n.Keys == nil) {
			return nil, nil, &InvalidError{"keys", "give either the URL of a JWKS or the keys themselves"}
		}
		if n.ByKeyID && (n.JWKSURL != "" || n.Rules.Issuer != nil) {
			return nil, nil, &InvalidError{"by_key_id", "is for tokens without an issuer, and uploaded keys: those at a URL are not known beforehand"}
		}
		if n.JWKSURL != "" {
			return src, nil, s.checkURL(n.JWKSURL)
		}
		keys, err := jwt.ParseKeys(n.Keys)
		if err != nil {
			return nil, nil, &InvalidError{"keys", err.Error()}
		}
		return src, keys, nil
	}
	return src, nil, nil
}

func named(sources []Source, name string) *Source {
	i := slices.IndexFunc(sources, func(s Source) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &sources[i]
}

func checkRules(r jwt.Rules) error {
	if err := r.Check(); err != nil {
		return &InvalidError{"rules", err.Error()}
	}
	for _, text := range append(slices.Clone(r.Audiences), orZero(r.Issuer)) {
		if len(text) > 500 {
			return &InvalidError{"rules", "an issuer or audience is longer than 500 bytes"}
		}
	}
	if len(r.Audiences) > 50 {
		return &InvalidError{"rules", "more than 50 audiences"}
	}
	return nil
}

func (s *Service) checkURL(url string) error {
	if len(url) > 2000 {
		return &InvalidError{"jwks_url", "is longer than 2000 bytes"}
	}
	if err := s.cfg.Egress.Check(url); err != nil {
		return &InvalidError{"jwks_url", err.Error()}
	}
	return nil
}

// checkLoginHost says whether the tenant can have this host in its auth URL.
func (s *Service) checkLoginHost(t *Tenant, host string) error {
	own := func(d Domain) bool { return d.Host == host && d.State == Verified }
	switch {
	case host == "" && s.cfg.SharedLogins,
		s.cfg.BaseDomain != "" && host == t.Slug+"."+s.cfg.BaseDomain,
		slices.ContainsFunc(t.Domains, own):
		return nil
	case host == "":
		return &InvalidError{"host", "wallets derive their keys from the host of the auth URL, for ever: give one of this tenant's own, its sub-domain or a verified domain"}
	}
	return &InvalidError{"host", fmt.Sprintf("%.260q is neither this tenant's sub-domain nor a verified domain of its own", host)}
}

// SourceChange is what [Service.SetSource] changes; nil leaves as it is.
type SourceChange struct {
	Window    *time.Duration // of signature sources, in whole seconds
	TokenLife *time.Duration // of LNURL sources, in whole seconds

	// Of JWT sources.
	Issuer         *string // empty: it is not looked at
	AudienceRule   *jwt.AudienceRule
	Audiences      []string // empty, not nil: none
	CheckNotBefore *bool
	Algorithms     []string
	Claims         map[string]string // empty, not nil: none
	ByKeyID        *bool
	JWKSURL        *string // of a source that has its keys at one
}

// SetSource changes a source. It fails with [audit.ErrNoActor], [ErrNotFound] or an [*InvalidError]. Keys at a URL are
// fetched before a change of the URL or of the algorithms ([Source.Found]).
func (s *Service) SetSource(ctx context.Context, actor audit.Actor, slug, name string, c SourceChange) (*Tenant, error) {
	var found *KeySet
	var ask []string
	if c.JWKSURL != nil || c.Algorithms != nil {
		var src *Source
		var err error
		found, err = s.lookBefore(ctx, actor, "source.set", slug, func(t *Tenant) *Source {
			src = named(t.Sources, name)
			if src == nil || s.applyChange(src, c) != nil { // which is said below
				return nil
			}
			return src
		})
		if err != nil {
			return nil, err
		}
		ask = found.ask(src)
	}
	after, err := s.changeTenant(ctx, actor, "source.set", slug, func(tx pgx.Tx, t *Tenant) error {
		src := named(t.Sources, name)
		if src == nil {
			return noSource(name)
		}
		if err := s.applyChange(src, c); err != nil {
			return err
		}
		if err := src.checkKeys(); err != nil {
			return err
		}
		return updateSource(ctx, tx, src, false)
	}, ask...)
	if err != nil {
		return nil, err
	}
	named(after.Sources, name).Found = found
	return after, nil
}

// applyChange changes the source in place.
func (s *Service) applyChange(src *Source, c SourceChange) error {
	if w := c.Window; w != nil {
		if src.Kind != Signature {
			return &InvalidError{"window", "is of sources of kind signature"}
		}
		if !inWholeSeconds(*w, MinSignatureWindow, MaxSignatureWindow) {
			return &InvalidError{"window", fmt.Sprintf("must be %s to %s, in whole seconds", MinSignatureWindow, MaxSignatureWindow)}
		}
		src.Window = *w
	}
	if l := c.TokenLife; l != nil {
		if src.Kind != LNURL {
			return &InvalidError{"token_life", "is of sources of kind lnurl"}
		}
		if !inWholeSeconds(*l, MinTokenLife, MaxTokenLife) {
			return &InvalidError{"token_life", fmt.Sprintf("must be %s to %s, in whole seconds", MinTokenLife, MaxTokenLife)}
		}
		src.TokenLife = *l
	}
	if c.Issuer == nil && c.AudienceRule == nil && c.Audiences == nil && c.CheckNotBefore == nil && c.Algorithms == nil && c.Claims == nil && c.ByKeyID == nil && c.JWKSURL == nil {
		return nil
	}
	if src.Kind != JWT {
		return &InvalidError{"rules", "are of sources of kind jwt"}
	}
	r := &src.Rules
	if c.Issuer != nil && *c.Issuer != orZero(r.Issuer) {
		if had := orZero(r.Issuer); !slices.Contains(src.FormerIssuers, had) {
			if len(src.FormerIssuers) >= maxFormerIssuers {
				return &InvalidError{"issuer", fmt.Sprintf("was changed to %d others before: add another source, in this one's namespace", maxFormerIssuers)}
			}
			src.FormerIssuers = append(src.FormerIssuers, had)
		}
		r.Issuer = orNil(*c.Issuer)
	}
	if c.AudienceRule != nil {
		r.AudienceRule = *c.AudienceRule
		if r.AudienceRule != jwt.OneOf {
			r.Audiences = nil
		}
	}
	if c.Audiences != nil {
		r.Audiences = c.Audiences
	}
	if c.CheckNotBefore != nil {
		r.CheckNotBefore = *c.CheckNotBefore
	}
	if c.Algorithms != nil {
		r.Algorithms = c.Algorithms
	}
	if c.Claims != nil {
		r.Claims = c.Claims
	}
	if c.ByKeyID != nil {
		src.ByKeyID = *c.ByKeyID
	}
	if src.ByKeyID && (src.JWKSURL != "" || r.Issuer != nil) {
		return &InvalidError{"by_key_id", "is for tokens without an issuer, and uploaded keys"}
	}
	if c.JWKSURL != nil {
		if src.JWKSURL == "" {
			return &InvalidError{"jwks_url", "this source's keys are uploaded: add another source for those at a URL, in this one's namespace"}
		}
		if err := s.checkURL(*c.JWKSURL); err != nil {
			return err
		}
		src.JWKSURL = egress.URL(*c.JWKSURL)
	}
	return checkRules(*r)
}

func inWholeSeconds(d, least, most time.Duration) bool {
	return d >= least && d <= most && d%time.Second == 0
}

// RemoveSource removes a source: from then on none of its wallets can prove who it is by it. What they stored
// stays, and so do its name and its namespace, which another source can share ([NewSource.NamespaceOf]). It fails
// with [audit.ErrNoActor] or [ErrNotFound].
func (s *Service) RemoveSource(ctx context.Context, actor audit.Actor, slug, name string) (*Tenant, error) {
	return s.changeTenant(ctx, actor, "source.remove", slug, func(tx pgx.Tx, t *Tenant) error {
		src := named(t.Sources, name)
		if src == nil {
			return noSource(name)
		}
		return updateSource(ctx, tx, src, true)
	})
}

func noSource(name string) error { return fmt.Errorf("%w: it has no source %.80q", errNoSuch, name) }

// errNoSuch is ErrNotFound of what a tenant has.
var errNoSuch = notFound{errors.New("not found")}

type notFound struct{ error }

func (notFound) Is(target error) bool { return target == ErrNotFound }

// insertSource inserts the source and sets its id.
func insertSource(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, src *Source) (err error) {
	r := src.Rules
	if src.Kind != JWT {
		r = jwt.Rules{AudienceRule: jwt.AnyAudience}
	}
	src.ID, err = dbgen.New().InsertCredentialSource(ctx, tx, dbgen.InsertCredentialSourceParams{
		TenantID: tenant, Name: src.Name, Kind: string(src.Kind), Namespace: src.Namespace,
		Issuer: r.Issuer, AudienceRule: string(r.AudienceRule), Audiences: orEmpty(r.Audiences),
		CheckNotBefore: r.CheckNotBefore, Algorithms: orEmpty(r.Algorithms), Claims: claimsOf(r), ByKid: src.ByKeyID,
		JwksUrl: orNil(string(src.JWKSURL)), Host: orNil(src.Host),
	})
	return err
}

func updateSource(ctx context.Context, tx pgx.Tx, src *Source, remove bool) error {
	r := src.Rules
	if src.Kind != JWT {
		r = jwt.Rules{AudienceRule: jwt.AnyAudience}
	}
	window, life := src.Window, src.TokenLife
	if src.Kind != Signature {
		window = MaxSignatureWindow
	}
	if src.Kind != LNURL {
		life = time.Hour
	}
	return dbgen.New().UpdateCredentialSource(ctx, tx, dbgen.UpdateCredentialSourceParams{
		ID: src.ID, WindowSeconds: int32(window / time.Second), TokenSeconds: int32(life / time.Second),
		Issuer: r.Issuer, AudienceRule: string(r.AudienceRule), Audiences: orEmpty(r.Audiences),
		CheckNotBefore: r.CheckNotBefore, Algorithms: orEmpty(r.Algorithms), Claims: claimsOf(r), ByKid: src.ByKeyID, JwksUrl: orNil(string(src.JWKSURL)),
		FormerIssuers: orEmpty(src.FormerIssuers), Removed: remove,
	})
}

// claimsOf are the claims that rules ask for, in JSON.
func claimsOf(r jwt.Rules) []byte {
	if len(r.Claims) == 0 {
		return []byte("{}")
	}
	text, err := json.Marshal(r.Claims)
	if err != nil {
		panic(err) // texts are JSON
	}
	return text
}

// orEmpty is s, or an empty one: a nil slice would be NULL.
func orEmpty(s []string) []string { return append([]string{}, s...) }

// orNil is a pointer to s, or nil for an empty one.
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
