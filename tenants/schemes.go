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
	signature  *Source
	tokens     []*tokenSource          // all of the next three
	byIssuer   map[string]*tokenSource // those that are told by iss
	byKeyID    map[string]*tokenSource // those that are told by kid
	anyIssuer  *tokenSource            // the one that takes every token, or nil
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
	for i := range t.Sources {
		src := &t.Sources[i]
		if src.Kind != JWT && src.Kind != LNURL {
			continue // a signature names none, and what a newer program made is not ours to guess
		}
		s := &tokenSource{Source: src, issuer: issuers[src.ID]}
		if s.issuer == nil {
			keys, err := src.parseKeys()
			if err != nil {
				log.Error("a key in the database is none", "tenant", t.Slug, "source", src.Name, "error", err)
			}
			s.keys = jwt.NewSet(keys)
		}
		v.tokens = append(v.tokens, s)
		switch {
		case src.Rules.Issuer != nil:
			v.byIssuer[*src.Rules.Issuer] = s
		case src.ByKeyID:
			for _, k := range src.Keys {
				v.byKeyID[k.ID] = s
			}
		default:
			v.anyIssuer = s
		}
	}
	return v
}

// choose is the source that a token belongs to, by its iss or else its kid, or nil. [checkUnambiguous] sees to it
// that there are not two, but for ones that name the same wallets.
func (v *schemes) choose(t *jwt.Token) *tokenSource {
	if s := v.byIssuer[t.Issuer]; s != nil {
		return s
	}
	if s := v.byKeyID[t.KeyID]; s != nil {
		return s
	}
	return v.anyIssuer
}

// checkUnambiguous says with an [*InvalidError] which sources a token could belong to at once. It is asked
// before anything is saved, since a token that changes its source changes its wallet.
//
// JWT sources that name different wallets are all told apart by their issuers, or all by the kids of their keys.
// One that looks at neither takes every token, so it is the only one. Those of one namespace may be mixed, but for
// two that one token fits in the same way. The tokens of LNURL sources have an issuer that is nobody else's.
func checkUnambiguous(sources []Source) error {
	byIssuer, byKeyID := map[string]string{}, map[string]string{}
	var before []*Source
	for i := range sources {
		src := &sources[i]
		if src.Kind != JWT {
			continue
		}
		for _, other := range before {
			if src.mode() != other.mode() && src.Namespace != other.Namespace {
				return &InvalidError{"issuer", fmt.Sprintf("tokens of source %q are told apart by %s, and those of %q by %s: a token could belong to both, and would name two wallets", other.Name, other.mode(), src.Name, src.mode())}
			}
			if src.mode() == byNothing && other.mode() == byNothing {
				return &InvalidError{"issuer", fmt.Sprintf("source %q looks at no issuer, and nor does %q: a token could belong to both; give each its issuer, or let the kids of their keys tell", other.Name, src.Name)}
			}
		}
		before = append(before, src)
		switch src.mode() {
		case byIssuers:
			issuer := *src.Rules.Issuer
			if byIssuer[issuer] != "" {
				return &InvalidError{"issuer", fmt.Sprintf("sources %q and %q would both take tokens of the issuer %.200q", byIssuer[issuer], src.Name, issuer)}
			}
			byIssuer[issuer] = src.Name
		case byKeyIDs:
			keys, err := src.parseKeys()
			if err != nil {
				return err
			}
			for _, k := range keys {
				switch {
				case !k.Named():
					return &InvalidError{"keys", fmt.Sprintf("source %q is told by the kids of its keys, and has one without a kid", src.Name)}
				case byKeyID[k.ID()] != "":
					return &InvalidError{"keys", fmt.Sprintf("sources %q and %q both have a key with the kid %.200q", byKeyID[k.ID()], src.Name, k.ID())}
				}
				byKeyID[k.ID()] = src.Name
			}
		}
	}
	return nil
}

// mode is how tokens of a JWT source are told from those of others, in words.
func (s *Source) mode() string {
	switch {
	case s.Rules.Issuer != nil:
		return byIssuers
	case s.ByKeyID:
		return byKeyIDs
	default:
		return byNothing
	}
}

const (
	byIssuers = "their issuer"
	byKeyIDs  = "the kids of their keys"
	byNothing = "nothing"
)

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
