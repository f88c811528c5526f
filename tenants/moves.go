package tenants

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// moves says, a sentence each, which credentials that named a wallet of the tenant name another after a change, or none.
// It compares what the sources route and ask for before and after, whatever the change was.
func moves(before, after *Tenant) (will []string) {
	say := func(format string, args ...any) { will = append(will, fmt.Sprintf(format, args...)) }
	was, is := NewRouting(before.Sources, before.Removed), NewRouting(after.Sources, after.Removed)

	type step struct{ from, to *Source }
	moved := map[step][]Look{}
	var steps []step
	stays, takesMore := map[*Source]bool{}, map[*Source]bool{}
	for _, l := range looks(was, is) {
		from, err := was.Route(l)
		to, err2 := is.Route(l)
		switch {
		case err != nil, err2 != nil: // named no wallet; is not saved
		case from == nil && to != nil:
			takesMore[to] = true
		case from == nil:
		case to != nil && from.ID == to.ID:
			stays[from] = true
		case to != nil && to.Kind == LNURL && !before.hasSource(to.ID): // nobody has a token of an issuer that is made just now
		default:
			if moved[step{from, to}] == nil {
				steps = append(steps, step{from, to})
			}
			moved[step{from, to}] = append(moved[step{from, to}], l)
		}
	}
	for _, s := range steps {
		what := describe(s.from, moved[s], stays[s.from])
		switch {
		case s.to == nil:
			say("%s, which name wallets of the namespace %q, are refused from now on.", what, s.from.Namespace)
		case s.to.Namespace != s.from.Namespace:
			say("%s, which name wallets of the namespace %q, name other wallets from now on, of the namespace %q: they find nothing of what they stored.", what, s.from.Namespace, s.to.Namespace)
		default:
			say("%s are verified by source %q from now on, and no longer by %q.", what, s.to.Name, s.from.Name)
		}
	}
	for i := range after.Sources {
		to := &after.Sources[i]
		if !takesMore[to] {
			continue
		}
		for _, from := range slices.Concat(before.Sources, before.Removed) {
			removed := named(before.Removed, from.Name) != nil
			if from.ID != to.ID && from.Namespace != to.Namespace && from.formerly(to, removed) {
				say("Tokens that source %q took before name wallets of the namespace %q, and those that source %q takes name others, of the namespace %q: who comes back by such a token finds nothing of what it stored, unless the new source shares that namespace.", from.Name, from.Namespace, to.Name, to.Namespace)
			}
		}
	}
	known := map[uuid.UUID]*Source{}
	for i := range before.Sources {
		known[before.Sources[i].ID] = &before.Sources[i]
	}
	for i := range after.Sources {
		src := &after.Sources[i]
		if was := known[src.ID]; was != nil {
			will = append(will, src.narrows(was)...)
			continue
		}
		for _, other := range slices.Concat(before.Sources, before.Removed) {
			if other.Namespace == src.Namespace && (other.Kind != src.Kind || src.Kind == JWT) {
				say("Whoever proves to source %q that it is a subject gets the data that the same subject of source %q stored. This is for ever.", src.Name, other.Name)
			}
		}
	}
	return will
}

// hasSource says whether the tenant has or had the source.
func (t *Tenant) hasSource(id uuid.UUID) bool {
	is := func(s Source) bool { return s.ID == id }
	return slices.ContainsFunc(t.Sources, is) || slices.ContainsFunc(t.Removed, is)
}

// describe names the credentials of a source that look like this; some says that it has others, which stay its own.
func describe(from *Source, like []Look, some bool) string {
	switch {
	case from.Kind == Signature:
		return "Signatures"
	case from.Kind == JWT && from.Rules.Issuer != nil:
		return fmt.Sprintf("Tokens of the issuer %.200q", *from.Rules.Issuer)
	case !some:
		return fmt.Sprintf("Tokens of source %q", from.Name)
	}
	issuers, kids := map[string]bool{}, map[string]bool{}
	for _, l := range like {
		issuers[l.Issuer], kids[l.KeyID] = true, true
	}
	if issuers[""] && kids[""] {
		return fmt.Sprintf("All other tokens of source %q", from.Name)
	}
	list := func(of map[string]bool) string {
		var some []string
		for text := range maps.Keys(of) {
			some = append(some, fmt.Sprintf("%.200q", text))
		}
		slices.Sort(some)
		if len(some) > 3 {
			some = append(some[:3], fmt.Sprintf("%d more", len(some)-3))
		}
		return strings.Join(some, ", ")
	}
	if issuers[""] {
		return "Tokens with keys (kid) as " + list(kids)
	}
	return "Tokens of the issuer " + list(issuers)
}

// formerly says whether tokens that another source takes may be such as this one took once: with an issuer that it had, or
// as it was when it was removed.
func (s *Source) formerly(to *Source, removed bool) bool {
	if s.Kind != JWT || to.Kind != JWT {
		return false
	}
	issuers := slices.Clone(s.FormerIssuers)
	switch {
	case !removed:
	case s.ByKeyID && to.ByKeyID:
		if commonKey(s, to) != "" {
			return true
		}
	default:
		issuers = append(issuers, orZero(s.Rules.Issuer))
	}
	return len(issuers) > 0 && (to.Rules.Issuer == nil || slices.Contains(issuers, "") || slices.Contains(issuers, *to.Rules.Issuer))
}

// narrows says which credentials the source refuses that it took as it was, and who else is believed now.
func (s *Source) narrows(was *Source) (will []string) {
	say := func(format string, args ...any) { will = append(will, fmt.Sprintf(format, args...)) }
	r, had := &s.Rules, &was.Rules
	if s.Window < was.Window {
		say("Signatures whose time is more than %s from now are refused from now on: is the clock of every device right?", s.Window)
	}
	var algorithms []string
	for _, a := range had.Algorithms {
		if !slices.Contains(r.Algorithms, a) {
			algorithms = append(algorithms, a)
		}
	}
	if len(algorithms) > 0 {
		say("Tokens of source %q with the algorithm %s are refused from now on.", s.Name, strings.Join(algorithms, ", "))
	}
	missing := func(audience string) bool { return !slices.Contains(r.Audiences, audience) }
	switch {
	case r.AudienceRule == jwt.NoAudience && had.AudienceRule != jwt.NoAudience:
		say("Tokens of source %q with an audience (aud) are refused from now on.", s.Name)
	case r.AudienceRule == jwt.OneOf && (had.AudienceRule != jwt.OneOf || slices.ContainsFunc(had.Audiences, missing)):
		say("Tokens of source %q without an audience (aud) of %q are refused from now on.", s.Name, r.Audiences)
	}
	if r.CheckNotBefore && !had.CheckNotBefore {
		say("Tokens of source %q are refused before the time in them (nbf).", s.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
		if had.Claims[name] != r.Claims[name] {
			say("Tokens of source %q without the claim %s %q are refused from now on.", s.Name, name, r.Claims[name])
		}
	}
	if s.JWKSURL != was.JWKSURL {
		say("From now on whoever answers for %s says who a wallet of source %q is. The keys that were got before verify until it has answered with keys, and then those that it does not have are refused.", s.JWKSURL, s.Name)
	}
	loggedOut := false
	for i := range s.Keys {
		k, had := &s.Keys[i], was.key(s.Keys[i].ID)
		verified := had == nil && s.JWKSURL != "" || had != nil && (had.State == jwt.Active || had.State == jwt.Retired)
		switch {
		case !verified, k.State == jwt.Active:
		case s.Kind == LNURL:
			loggedOut = loggedOut || k.State == jwt.Revoked
		case k.State == jwt.Revoked:
			say("Tokens that key %.200q of source %q signed are refused at once, and the key can never be used again.", k.ID, s.Name)
		case k.State == jwt.Standby:
			say("Tokens that key %.200q of source %q signed are refused from now on.", k.ID, s.Name)
		case had.State == jwt.Active || k.Until.Before(had.Until):
			say("Tokens that key %.200q of source %q signed are refused from %s on.", k.ID, s.Name, k.Until.Format(time.RFC3339))
		}
	}
	if loggedOut {
		say("Every wallet that logged in by source %q is refused until it logs in again, which some do only after a restart of the app.", s.Name)
	}
	return will
}
