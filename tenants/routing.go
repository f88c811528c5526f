package tenants

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrAmbiguousSource: the credential could belong to two of the tenant's sources, so whose wallet it names cannot be said.
// Wallets try again until somebody has mended the sources: whichever of the two it were taken for, its wallet could be
// told that it has no state. The text is shown to wallets.
var ErrAmbiguousSource = errors.New("this credential could belong to two credential sources of its tenant, whose operator has to tell them apart; try again")

// Routing says which of a tenant's sources a credential belongs to. It is the only thing that does: the directory
// serves by it, and the [Service] saves nothing by which a credential would belong to two.
type Routing struct {
	signature place
	byIssuer  map[string]place
	byKeyID   map[string]place
	any       place // of tokens, whatever they say
}

// place is who takes the credentials that look alike.
type place struct {
	source *Source // nil: nobody
	rival  *Source // who would take the same; nil: nobody
	ours   bool    // they are the platform's own tokens, of a login: no source that looks at something else takes them
	gone   bool    // source was removed, and only keeps others away
}

// NewRouting is that of these sources. The order they are in does not matter.
//
// A source takes the tokens of its issuer, or those with the kids of its keys, or all. A token that sources of two
// namespaces take is nobody's, and one that is taken by several of one namespace belongs to the one that looks most
// closely. The issuer of an LNURL source is made by the platform and is nobody else's, even when the source is removed.
func NewRouting(sources, removed []Source) *Routing {
	r := &Routing{byIssuer: map[string]place{}, byKeyID: map[string]place{}}
	for i := range removed {
		if src := &removed[i]; src.Kind == LNURL {
			r.byIssuer[*src.Rules.Issuer] = place{source: src, ours: true, gone: true}
		}
	}
	for i := range sources {
		switch src := &sources[i]; {
		case src.Kind == Signature:
			r.signature = r.signature.taken(src)
		case src.Kind != JWT && src.Kind != LNURL: // what a newer program made is not ours to guess
		case src.Rules.Issuer != nil:
			p := r.byIssuer[*src.Rules.Issuer].taken(src)
			p.ours = p.ours || src.Kind == LNURL
			r.byIssuer[*src.Rules.Issuer] = p
		case src.ByKeyID:
			for _, k := range src.Keys {
				r.byKeyID[k.ID] = r.byKeyID[k.ID].taken(src)
			}
		default:
			r.any = r.any.taken(src)
		}
	}
	return r
}

func (p place) taken(by *Source) place {
	switch {
	case p.source == nil:
		p.source = by
	case p.source != by && p.rival == nil:
		p.rival = by
	}
	return p
}

func (p place) one() (*Source, error) {
	switch {
	case p.rival != nil:
		return nil, &ambiguity{p.source, p.rival}
	case p.gone:
		return nil, nil
	}
	return p.source, nil
}

// Look is all of a credential that decides whose it is.
type Look struct {
	Signature     bool
	Issuer, KeyID string // of a token; "" where it has none
}

// Route is the source that a credential belongs to; nil: none. It fails with [ErrAmbiguousSource].
func (r *Routing) Route(l Look) (*Source, error) {
	if l.Signature {
		return r.signature.one()
	}
	issued := r.byIssuer[l.Issuer]
	if issued.ours {
		return issued.one()
	}
	var chosen *Source
	for _, p := range [...]place{issued, r.byKeyID[l.KeyID], r.any} {
		switch src, err := p.one(); {
		case err != nil:
			return nil, err
		case src == nil:
		case chosen == nil:
			chosen = src
		case chosen.Namespace != src.Namespace:
			return nil, &ambiguity{chosen, src}
		}
	}
	return chosen, nil
}

// TakesTokens says whether there is a source of tokens.
func (r *Routing) TakesTokens() bool {
	return len(r.byIssuer) > 0 || len(r.byKeyID) > 0 || r.any.source != nil
}

// looks stand for all credentials: any other is routed by these two tables as one of them is. Of kids that are alike in
// both there is one.
func looks(a, b *Routing) []Look {
	issuers := map[string]bool{"": true}
	kids := map[[2]place]string{{}: ""}
	for _, r := range []*Routing{a, b} {
		for issuer := range r.byIssuer {
			issuers[issuer] = true
		}
		for kid := range r.byKeyID {
			alike := [2]place{a.byKeyID[kid], b.byKeyID[kid]}
			if least, ok := kids[alike]; !ok || kid < least {
				kids[alike] = kid
			}
		}
	}
	all := []Look{{Signature: true}}
	for _, issuer := range slices.Sorted(maps.Keys(issuers)) {
		for _, kid := range slices.Sorted(maps.Values(kids)) {
			all = append(all, Look{Issuer: issuer, KeyID: kid})
		}
	}
	return all
}

// Ambiguous says with an [*ambiguity] that a credential could belong to two sources, or nil. What was so before is left
// out, so that what is wrong can be mended step by step.
func (r *Routing) Ambiguous(before *Routing) error {
	for _, l := range looks(before, r) {
		if _, err := r.Route(l); err != nil {
			if _, was := before.Route(l); was == nil {
				return err
			}
		}
	}
	return nil
}

// ambiguity is two sources that a credential could belong to.
type ambiguity struct{ a, b *Source }

func (*ambiguity) Is(target error) bool { return target == ErrAmbiguousSource }

func (e *ambiguity) Error() string {
	a, b := e.a, e.b
	if b.Kind == LNURL {
		a, b = b, a
	}
	switch {
	case a.Kind == Signature:
		return fmt.Sprintf("sources %q and %q would both take signatures", a.Name, b.Name)
	case a.mode() != b.mode():
		return fmt.Sprintf("tokens of source %q are told apart by %s, and those of %q by %s: a token could belong to both, and would name two wallets", a.Name, a.mode(), b.Name, b.mode())
	case a.Kind == LNURL:
		return fmt.Sprintf("%q is the issuer of the platform's own tokens of source %q, which no other source can take: source %q needs another", *a.Rules.Issuer, a.Name, b.Name)
	case a.mode() == byIssuers:
		return fmt.Sprintf("sources %q and %q would both take tokens of the issuer %.200q", a.Name, b.Name, *a.Rules.Issuer)
	case a.mode() == byKeyIDs:
		return fmt.Sprintf("sources %q and %q both have a key with the kid %.200q", a.Name, b.Name, commonKey(a, b))
	default:
		return fmt.Sprintf("source %q looks at no issuer, and nor does %q: a token could belong to both; give each its issuer, or let the kids of their keys tell", a.Name, b.Name)
	}
}

// invalid is the ambiguity as the fault of who would save it.
func (e *ambiguity) invalid() error {
	if e.a.Kind == JWT && e.a.mode() == byKeyIDs && e.b.mode() == byKeyIDs {
		return &InvalidError{"keys", e.Error()}
	}
	return &InvalidError{"issuer", e.Error()}
}

func commonKey(a, b *Source) string {
	for _, k := range a.Keys {
		if b.key(k.ID) != nil {
			return k.ID
		}
	}
	return ""
}

// mode is how tokens of a source are told from those of others, in words.
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
