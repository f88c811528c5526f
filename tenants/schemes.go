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

// schemes is a tenant's credential sources as an [Authenticator] asks them. They are one tenant's, and never changed:
// where they would be others, there are new ones, and what was verified by the old ones is void.
type schemes struct {
	routing    *routing
	tokens     map[*Source]*tokenSource // of every source that the routing names for a token
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
// not parse, which the [Service] would not have taken, is logged and left out; so are sources that a credential could
// belong to both of, whose other credentials are served on.
func prepare(t *Tenant, issuers map[uuid.UUID]*jwt.Source, log *slog.Logger) *schemes {
	v := &schemes{
		routing:    newRouting(t.Sources, t.Removed),
		tokens:     map[*Source]*tokenSource{},
		clientKeys: make(map[[32]byte]*ClientKey, len(t.ClientKeys)),
	}
	if err := v.routing.ambiguous(newRouting(nil, nil)); err != nil {
		log.Error("a tenant's credential sources contradict each other: what could belong to two is answered 503 until one of them is changed or removed",
			"tenant", t.Slug, "error", err)
	}
	for i := range t.ClientKeys {
		v.clientKeys[t.ClientKeys[i].Hash] = &t.ClientKeys[i]
	}
	for i := range t.Sources {
		src := &t.Sources[i]
		if src.Kind != JWT && src.Kind != LNURL {
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
		v.tokens[src] = s
	}
	return v
}

// follow says whether the sources with URLs have these key sets.
func (v *schemes) follow(issuers map[uuid.UUID]*jwt.Source) bool {
	for src, s := range v.tokens {
		if s.issuer != issuers[src.ID] {
			return false
		}
	}
	return true
}

// choose is the source that a token belongs to; nil: none. It fails with [ErrAmbiguousSource].
func (v *schemes) choose(t *jwt.Token) (*tokenSource, error) {
	src, err := v.routing.route(look{issuer: t.Issuer, kid: t.KeyID})
	if src == nil {
		return nil, err
	}
	return v.tokens[src], nil
}

// checkKeys says with an [*InvalidError] what makes the keys of a JWT source useless, or too many to try.
func (s *Source) checkKeys() error {
	if s.Kind != JWT || s.JWKSURL != "" {
		return nil
	}
	keys, err := s.parseKeys()
	if err != nil {
		return err
	}
	unnamed := 0
	for _, k := range keys {
		if k.State == jwt.Revoked {
			continue
		}
		if s.ByKeyID && !k.Named() {
			return &InvalidError{"keys", fmt.Sprintf("source %q is told by the kids of its keys, and has one without a kid", s.Name)}
		}
		if !s.Rules.Takes(k) {
			return &InvalidError{"keys", fmt.Sprintf("no algorithm that source %q takes is for its key %.200q (%s)", s.Name, k.ID(), k.Describe())}
		}
		if !k.Named() && k.State != jwt.Standby {
			unnamed++
		}
	}
	if unnamed > jwt.MaxUnnamed {
		return &InvalidError{"keys", fmt.Sprintf("source %q would have %d keys without a kid that verify, and a token is tried with %d at most: revoke old ones first", s.Name, unnamed, jwt.MaxUnnamed)}
	}
	return nil
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
