package tenants

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// Egress is the way to what tenants' URLs name: an [egress.Client].
type Egress interface {
	Check(rawURL string) error
	GetFor(ctx context.Context, tenant uuid.UUID, rawURL string, header http.Header) (egress.Response, error)
}

// lookTimeout is how long whoever saves a URL waits for its answer, the wait for a turn to ask included.
const lookTimeout = 8 * time.Second

// KeySet is what the URL of a source's keys answered, for whoever saves it.
type KeySet struct {
	Problem      string     `json:"problem,omitempty"`  // why no token can be verified by it; empty: some can
	Redirect     string     `json:"redirect,omitempty"` // where the URL redirects to, which is not followed
	Bytes        int        `json:"bytes,omitempty"`
	FreshSeconds int        `json:"fresh_seconds,omitempty"` // after which it is fetched again
	Keys         []FoundKey `json:"keys,omitempty"`
	Skipped      []string   `json:"skipped,omitempty"` // what is wrong with entries that are no keys to verify with, one each
}

// FoundKey is a key of a [KeySet].
type FoundKey struct {
	KID       string `json:"kid"`
	Kind      string `json:"kind"` // for people, as "RSA, 2048 bits"
	Algorithm string `json:"algorithm,omitempty"`
	Refused   string `json:"refused,omitempty"` // why it verifies no token of the source; empty: it does
}

// lookBefore fetches the keys of the source that the change will make, for an actor who may make it. It holds no lock and no
// connection meanwhile. It is nil where there is no such source, or its keys are at no URL.
func (s *Service) lookBefore(ctx context.Context, actor audit.Actor, action audit.Action, slug string, source func(*Tenant) *Source) (*KeySet, error) {
	if err := actor.Authorize(action); err != nil {
		return nil, err
	}
	t, err := s.Get(ctx, slug)
	if err != nil {
		return nil, err
	}
	src := source(t)
	if src == nil || src.JWKSURL == "" {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	answer, err := jwt.Fetch(limited, jwt.SourceConfig{
		URL: string(src.JWKSURL),
		Get: func(ctx context.Context, url string, header http.Header) (egress.Response, error) {
			return s.cfg.Egress.GetFor(ctx, t.ID, url, header)
		},
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return src.found(answer, err), nil
}

// found is what an answer, or why there is none, means for the source.
func (s *Source) found(a jwt.Answer, err error) *KeySet {
	f := &KeySet{Bytes: a.Size, Skipped: a.Skipped}
	switch refused, ok := errors.AsType[*egress.Error](err); {
	case errors.Is(err, context.DeadlineExceeded):
		f.Problem = "too many other URLs are being fetched: try again"
	case err != nil:
		f.Problem = err.Error()
		if ok {
			f.Redirect = refused.Location.String()
		}
	default:
		f.FreshSeconds = int(a.Fresh / time.Second)
	}
	used, revoked := 0, s.Revoked()
	for _, k := range a.Keys {
		found := FoundKey{KID: k.ID(), Kind: k.Describe(), Algorithm: k.Algorithm()}
		switch {
		case slices.Contains(revoked, k.Thumbprint()):
			found.Refused = "is revoked"
		case !s.Rules.Takes(k):
			found.Refused = "is for no algorithm that the source takes"
		default:
			used++
		}
		f.Keys = append(f.Keys, found)
	}
	if err == nil && used == 0 {
		k := f.Keys[0]
		f.Problem = fmt.Sprintf("the URL answered, but none of its keys can be used: key %.200q (%s) %s", k.KID, k.Kind, k.Refused)
	}
	return f
}

// ask is what to ask before the source is saved.
func (f *KeySet) ask(src *Source) []string {
	if f == nil || f.Problem == "" {
		return nil
	}
	text := fmt.Sprintf("%s gives source %q no key to verify tokens with: %s.", src.JWKSURL, src.Name, f.Problem)
	if f.Redirect != "" {
		text += fmt.Sprintf(" It leads to %.500q.", f.Redirect)
	}
	return []string{text}
}

// Notes are what whoever saves the source should know of it, a sentence each.
func (s *Source) Notes() (notes []string) {
	if s.Kind == JWT && s.Rules.AudienceRule == jwt.AnyAudience && len(s.Rules.Claims) == 0 {
		notes = append(notes, fmt.Sprintf("Source %q looks at no audience (aud): tokens that the same issuer made for another service are taken too, and whoever runs that service can act as the wallets that they name. Require an audience, or a claim that says whom tokens are for.", s.Name))
	}
	return notes
}
