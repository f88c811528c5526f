package callers

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// schemes is a tenant's credential sources as an [Authenticator] asks them. They are one tenant's, and never changed:
// where they would be others, there are new ones, and what was verified by the old ones is void.
type schemes struct {
	routing    *tenants.Routing
	tokens     map[*tenants.Source]*tokenSource // of every source that the routing names for a token
	clientKeys map[[32]byte]*tenants.ClientKey
}

// tokenSource is a source of JWTs: the tenant's, or ours after a login.
type tokenSource struct {
	*tenants.Source
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
// not parse, which the [tenants.Service] would not have taken, is logged and left out; so are sources that a credential could
// belong to both of, whose other credentials are served on.
func prepare(t *tenants.Tenant, issuers map[uuid.UUID]*jwt.Source, log *slog.Logger) *schemes {
	v := &schemes{
		routing:    tenants.NewRouting(t.Sources, t.Removed),
		tokens:     map[*tenants.Source]*tokenSource{},
		clientKeys: make(map[[32]byte]*tenants.ClientKey, len(t.ClientKeys)),
	}
	if err := v.routing.Ambiguous(tenants.NewRouting(nil, nil)); err != nil {
		log.Error("a tenant's credential sources contradict each other: what could belong to two is answered 503 until one of them is changed or removed",
			"tenant", t.Slug, "error", err)
	}
	for i := range t.ClientKeys {
		v.clientKeys[t.ClientKeys[i].Hash] = &t.ClientKeys[i]
	}
	for i := range t.Sources {
		src := &t.Sources[i]
		if src.Kind != tenants.JWT && src.Kind != tenants.LNURL {
			continue
		}
		s := &tokenSource{Source: src, issuer: issuers[src.ID]}
		if s.issuer == nil {
			keys, err := src.ParseKeys()
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

// choose is the source that a token belongs to; nil: none. It fails with [tenants.ErrAmbiguousSource].
func (v *schemes) choose(t *jwt.Token) (*tokenSource, error) {
	src, err := v.routing.Route(tenants.Look{Issuer: t.Issuer, KeyID: t.KeyID})
	if src == nil {
		return nil, err
	}
	return v.tokens[src], nil
}
