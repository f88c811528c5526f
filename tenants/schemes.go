package tenants

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// schemes is a tenant's credential sources as an [Authenticator] asks them.
type schemes struct {
	signature  *Source
	login      *tokenSource            // the LNURL source
	byIssuer   map[string]*tokenSource // those that look at iss
	anyIssuer  *tokenSource            // the one that does not, or nil
	byKeyID    map[string]*tokenSource // those that do not, where there are several
	clientKeys map[[32]byte]*ClientKey
}

// tokenSource is a source of JWTs: the tenant's, or ours after a login.
type tokenSource struct {
	*Source
	keys   *jwt.Set    // where they are not at a URL
	issuer *jwt.Source // where they are
}

func (s *tokenSource) set() *jwt.Set {
	if s.issuer != nil {
		return s.issuer.Set()
	}
	return s.keys
}

func (s *tokenSource) verify(ctx context.Context, t *jwt.Token, now time.Time) (jwt.Claims, error) {
	if s.issuer != nil {
		return s.issuer.VerifyToken(ctx, t, s.Rules)
	}
	return s.keys.VerifyToken(t, s.Rules, now)
}

// prepare makes a tenant's schemes. The issuers are those of its sources that have a URL. A key that does
// not parse, which the [Service] would not have taken, is logged and left out.
func prepare(t *Tenant, issuers map[uuid.UUID]*jwt.Source, log *slog.Logger) *schemes {
	v := &schemes{
		signature:  t.source(Signature),
		byIssuer:   map[string]*tokenSource{},
		byKeyID:    map[string]*tokenSource{},
		clientKeys: make(map[[32]byte]*ClientKey, len(t.ClientKeys)),
	}
	for i := range t.ClientKeys {
		v.clientKeys[t.ClientKeys[i].Hash] = &t.ClientKeys[i]
	}
	var open []*tokenSource
	for i := range t.Sources {
		src := &t.Sources[i]
		if src.Kind == Signature {
			continue
		}
		s := &tokenSource{Source: src, issuer: issuers[src.ID]}
		if s.issuer == nil {
			keys, err := src.parseKeys()
			if err != nil {
				log.Error("a key in the database is none", "tenant", t.Slug, "source", src.Name, "error", err)
			}
			s.keys = jwt.NewSet(keys)
		}
		if src.Kind == LNURL {
			v.login = s
		}
		if src.Rules.Issuer != nil {
			v.byIssuer[*src.Rules.Issuer] = s
		} else {
			open = append(open, s)
		}
	}
	if len(open) == 1 {
		v.anyIssuer = open[0]
		return v
	}
	for _, s := range open {
		for _, k := range s.Keys {
			v.byKeyID[k.ID] = s
		}
	}
	return v
}

// choose is the source that a token belongs to, by its iss or else its kid, or nil. [checkUnambiguous] sees to it
// that there are not two.
func (v *schemes) choose(t *jwt.Token) *tokenSource {
	if s := v.byIssuer[t.Issuer]; s != nil {
		return s
	}
	if v.anyIssuer != nil {
		return v.anyIssuer
	}
	return v.byKeyID[t.KeyID]
}

// checkUnambiguous says with an [*InvalidError] which sources a token could belong to at once. It is asked
// before anything is saved.
func checkUnambiguous(sources []Source) error {
	byIssuer, byKeyID := map[string]string{}, map[string]string{}
	var open []*Source
	for i := range sources {
		src := &sources[i]
		switch issuer := src.Rules.Issuer; {
		case src.Kind == Signature:
		case src.Kind == LNURL && issuer == nil: // it is being added, and its issuer will be its own
		case issuer == nil:
			open = append(open, src)
		case byIssuer[*issuer] != "":
			return &InvalidError{"issuer", fmt.Sprintf("sources %q and %q would both take tokens of the issuer %.200q", byIssuer[*issuer], src.Name, *issuer)}
		default:
			byIssuer[*issuer] = src.Name
		}
	}
	if len(open) < 2 {
		return nil
	}
	for _, src := range open {
		if src.JWKSURL != "" {
			return &InvalidError{"issuer", fmt.Sprintf("source %q has its keys at a URL and looks at no issuer, so tokens could be its own or those of %q: give each its issuer", src.Name, other(open, src).Name)}
		}
		keys, err := src.parseKeys()
		if err != nil {
			return err
		}
		for _, k := range keys {
			switch {
			case !k.Named():
				return &InvalidError{"keys", fmt.Sprintf("source %q has a key without a kid and looks at no issuer, so tokens could be its own or those of %q: give each its issuer", src.Name, other(open, src).Name)}
			case byKeyID[k.ID()] != "":
				return &InvalidError{"keys", fmt.Sprintf("sources %q and %q look at no issuer, and both have a key with the kid %.200q", byKeyID[k.ID()], src.Name, k.ID())}
			}
			byKeyID[k.ID()] = src.Name
		}
	}
	return nil
}

func other(sources []*Source, than *Source) *Source {
	if sources[0] != than {
		return sources[0]
	}
	return sources[1]
}

// parseKeys are the source's keys, in the states they have there. Those that do not parse are left out, and said
// in the error.
func (s *Source) parseKeys() (keys []jwt.Key, err error) {
	for _, stored := range s.Keys {
		k, bad := jwt.ParseKey(stored.Public)
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", stored.ID, bad))
			continue
		}
		k.State, k.Until = stored.State, stored.Until
		if s.Kind == LNURL && k.State == jwt.Standby {
			k.State = jwt.Active // ours: another instance may sign with it already
		}
		keys = append(keys, k)
	}
	return keys, err
}

// revoked are the thumbprints of the source's keys that must not verify.
func (s *Source) revoked() (thumbprints []string) {
	keys, _ := s.parseKeys()
	for _, k := range keys {
		if k.State == jwt.Revoked {
			thumbprints = append(thumbprints, k.Thumbprint())
		}
	}
	return thumbprints
}
