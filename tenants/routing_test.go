package tenants

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

// anyToken is the source that takes every token.

// Issuers and kids of random sources and tokens: few, so that they meet. Two issuers are those of LNURL sources.
var (
	logins      = []uuid.UUID{uuid.MustParse("00000000-0000-4000-8000-000000000001"), uuid.MustParse("00000000-0000-4000-8000-000000000002")}
	someIssuers = []string{"", "https://a.example", "https://b.example", logins[0].URN(), logins[1].URN()}
	someKids    = []string{"", "k1", "k2", "k3"}
)

func anySource(t *rapid.T, name string) Source {
	src := Source{
		ID: uuid.NewSHA1(uuid.Nil, []byte(name)), Name: name, Kind: JWT,
		Namespace: rapid.SampledFrom([]string{"jwt:x", "jwt:y"}).Draw(t, "namespace"),
	}
	switch rapid.SampledFrom([]string{"signature", "lnurl", "issuer", "issuer", "kid", "any"}).Draw(t, "kind") {
	case "signature":
		src.Kind, src.Namespace = Signature, "sig"
	case "lnurl":
		src.ID = rapid.SampledFrom(logins).Draw(t, "login")
		src.Kind, src.Namespace, src.Rules = LNURL, "lnurl", loginRules(src.ID)
	case "issuer":
		src.Rules = from(rapid.SampledFrom(someIssuers[1:]).Draw(t, "issuer"))
	case "kid":
		src.ByKeyID = true
		for _, kid := range rapid.SliceOfNDistinct(rapid.SampledFrom(someKids[1:]), 1, 2, rapid.ID).Draw(t, "kids") {
			src.Keys = append(src.Keys, SourceKey{ID: kid, State: jwt.Active})
		}
	}
	return src
}

func anySources(t *rapid.T, label string, most int) []Source {
	all := make([]Source, rapid.IntRange(0, most).Draw(t, label))
	for i := range all {
		all[i] = anySource(t, fmt.Sprint(label, i))
	}
	return all
}

// allLooks are all credentials of these issuers and kids, and one of others.
func allLooks() []Look {
	all := []Look{{Signature: true}}
	for _, issuer := range append([]string{"https://other.example"}, someIssuers...) {
		for _, kid := range append([]string{"other"}, someKids...) {
			all = append(all, Look{Issuer: issuer, KeyID: kid})
		}
	}
	return all
}

// takers are the sources that would take a credential if each were alone, by what each looks at.
func takers(sources, removed []Source, l Look) (found []*Source) {
	ours := func(s Source) bool { return s.Kind == LNURL && *s.Rules.Issuer == l.Issuer }
	issued := slices.ContainsFunc(sources, ours) || slices.ContainsFunc(removed, ours)
	for i := range sources {
		s := &sources[i]
		var takes bool
		switch {
		case l.Signature || s.Kind == Signature:
			takes = l.Signature && s.Kind == Signature
		case s.Rules.Issuer != nil:
			takes = *s.Rules.Issuer == l.Issuer
		case s.ByKeyID:
			takes = !issued && s.key(l.KeyID) != nil
		default:
			takes = !issued
		}
		if takes {
			found = append(found, s)
		}
	}
	return found
}

func TestEveryCredentialIsRoutedToAtMostOneSource(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sources, removed := anySources(t, "source", 5), anySources(t, "removed", 2)
		table := NewRouting(sources, removed)
		shuffled := slices.Clone(rapid.Permutation(sources).Draw(t, "shuffled"))
		for i := range shuffled {
			shuffled[i].Name = fmt.Sprint("name", i)
		}
		again := NewRouting(shuffled, rapid.Permutation(removed).Draw(t, "shuffled removed"))
		ambiguous := false
		for _, l := range allLooks() {
			got, err := table.Route(l)
			ambiguous = ambiguous || err != nil
			candidates := takers(sources, removed, l)
			switch {
			case err != nil && !errors.Is(err, ErrAmbiguousSource), err != nil && got != nil:
				t.Fatalf("%+v: got %+v, %v", l, got, err)
			case got == nil && err == nil && len(candidates) > 0:
				t.Fatalf("%+v: nobody's, though %s takes it", l, candidates[0].Name)
			case got != nil && !slices.Contains(candidates, got):
				t.Fatalf("%+v: goes to %s, which does not take it", l, got.Name)
			}
			for _, other := range candidates {
				if got != nil && (other.Namespace != got.Namespace || other != got && other.mode() == got.mode()) {
					t.Fatalf("%+v: goes to %s, and %s would take it as well", l, got.Name, other.Name)
				}
			}
			same, err2 := again.Route(l)
			if (err == nil) != (err2 == nil) || (got == nil) != (same == nil) || got != nil && got.ID != same.ID {
				t.Fatalf("%+v: in another order and by other names it goes to %+v (%v), not to %+v (%v)", l, same, err2, got, err)
			}
		}
		if err := table.Ambiguous(NewRouting(nil, nil)); (err != nil) != ambiguous {
			t.Fatalf("of the whole is said %v, and of some credential: %v", err, ambiguous)
		}
	})
}

// A source is saved if and only if every credential still has one owner, whatever kinds of sources there are.
func TestWhatIsSavedIsWhatIsUnambiguous(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	keys := map[string]*lnurl.SigningKey{}
	kids := make([]string, 3)
	for i := range kids {
		k := lnurl.NewSigningKey()
		kids[i], keys[k.ID()] = k.ID(), k
	}
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		slug := fmt.Sprint("t", n)
		p.create(t, slug)
		tenant := p.addSource(t, slug, NewSource{Name: "lnurl", Kind: LNURL, Host: slug + ".vss.example"})
		ours := *tenant.Source(LNURL).Rules.Issuer
		if rapid.Bool().Draw(rt, "removed") {
			tenant = done(t)(p.service.RemoveSource(t.Context(), root, slug, "lnurl"))
		}
		for i := range 4 {
			add := NewSource{Name: fmt.Sprint("s", i), Kind: JWT, Rules: from("")}
			switch rapid.SampledFrom([]string{"issuer", "issuer", "kid", "any"}).Draw(rt, "by") {
			case "issuer":
				add.Rules = from(rapid.SampledFrom([]string{"https://a.example", "https://b.example", ours}).Draw(rt, "issuer"))
				add.Keys = jwks(keys[kids[0]])
			case "kid":
				kid := rapid.SampledFrom(kids).Draw(rt, "kid")
				add.ByKeyID, add.Keys = true, jwks(keys[kid])
			case "any":
				add.Keys = jwks(keys[kids[0]])
			}
			namespace := "jwt:" + add.Name
			if jwts := slices.DeleteFunc(slices.Clone(tenant.Sources), func(s Source) bool { return s.Kind != JWT }); len(jwts) > 0 && rapid.Bool().Draw(rt, "shared") {
				add.NamespaceOf, namespace = jwts[0].Name, jwts[0].Namespace
			}
			would := Source{Name: add.Name, Kind: JWT, Namespace: namespace, Rules: add.Rules, ByKeyID: add.ByKeyID}
			for kid := range keys {
				if bytes.Contains(add.Keys, []byte(kid)) {
					would.Keys = append(would.Keys, SourceKey{ID: kid})
				}
			}
			table := NewRouting(append(slices.Clone(tenant.Sources), would), tenant.Removed)
			unambiguous := true
			for _, issuer := range []string{"", "https://a.example", "https://b.example", ours} {
				for _, kid := range append([]string{""}, kids...) {
					_, err := table.Route(Look{Issuer: issuer, KeyID: kid})
					unambiguous = unambiguous && err == nil
				}
			}
			after, err := p.service.AddSource(t.Context(), root, slug, add)
			if (err == nil) != unambiguous {
				rt.Fatalf("unambiguous: %v, and saved: %v, for %+v beside %+v", unambiguous, err, add, tenant.Sources)
			}
			if err == nil {
				tenant = after
			} else if _, ok := errors.AsType[*InvalidError](err); !ok {
				rt.Fatal(err)
			}
		}
	})
}

// What a change of sources does not ask about leaves each credential with the wallet that it named.
func TestWhatIsNotAskedAboutMovesNoWallet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		before := &Tenant{Sources: anySources(t, "source", 4), Removed: anySources(t, "removed", 1)}
		after := before.frozen()
		switch i := rapid.IntRange(0, 4).Draw(t, "which"); {
		case i < len(after.Sources) && rapid.Bool().Draw(t, "remove"):
			after.Removed = append(after.Removed, after.Sources[i])
			after.Sources = slices.Delete(after.Sources, i, i+1)
		case i < len(after.Sources):
			was := after.Sources[i]
			after.Sources[i] = anySource(t, "changed")
			after.Sources[i].ID, after.Sources[i].Kind, after.Sources[i].Namespace = was.ID, was.Kind, was.Namespace
		default:
			after.Sources = append(after.Sources, anySource(t, "added"))
		}
		was, is := NewRouting(before.Sources, before.Removed), NewRouting(after.Sources, after.Removed)
		ids := map[uuid.UUID]bool{}
		for _, src := range slices.Concat(after.Sources, after.Removed) {
			ids[src.ID] = true
		}
		if is.Ambiguous(was) != nil || len(ids) < len(after.Sources)+len(after.Removed) {
			return // refused anyway, by the service or by the database
		}
		will := moves(before, after)
		for _, l := range allLooks() {
			from, err := was.Route(l)
			to, err2 := is.Route(l)
			if to != nil && to.Kind == LNURL && !before.hasSource(to.ID) {
				continue // nobody has a token of an issuer that is made just now
			}
			if err == nil && err2 == nil && from != nil && (to == nil || to.Namespace != from.Namespace || to.ID != from.ID) && len(will) == 0 {
				t.Fatalf("%+v goes from %+v to %+v, and nobody is asked", l, from, to)
			}
		}
		if again := moves(after, after.frozen()); len(again) > 0 {
			t.Fatalf("no change, and it is asked: %q", again)
		}
	})
}

// Two sources with the same keys: b gives its issuer up, and a is given it. Each wallet of b would find nothing.
func TestAnIssuerIsNotGivenToOtherWalletsUnasked(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	unasked := root
	unasked.Confirmed = false
	const issuerA, issuerB = "https://a.example", "https://b.example"
	p.create(t, "acme")
	key := jwks(lnurl.NewSigningKey())
	p.addSource(t, "acme", NewSource{Name: "a", Kind: JWT, Rules: from(issuerA), Keys: key})
	p.addSource(t, "acme", NewSource{Name: "b", Kind: JWT, Rules: from(issuerB), Keys: key})
	p.create(t, "open")
	p.addSource(t, "open", NewSource{Name: "all", Kind: JWT, Rules: from(""), Keys: key})

	asked := func(slug string, change func(audit.Actor) (*Tenant, error), what ...string) {
		t.Helper()
		before := done(t)(p.service.Get(t.Context(), slug))
		_, err := change(unasked)
		e, ok := errors.AsType[*ConfirmError](err)
		if !ok || slices.ContainsFunc(what, func(text string) bool { return !strings.Contains(err.Error(), text) }) {
			t.Errorf("got %v, want to be asked: %q", err, what)
			return
		}
		if len(e.Will) == 0 || !reflect.DeepEqual(before, done(t)(p.service.Get(t.Context(), slug))) {
			t.Errorf("%v: it was done nevertheless", err)
		}
		done(t)(change(root))
	}
	set := func(slug, name string, c SourceChange) func(audit.Actor) (*Tenant, error) {
		return func(by audit.Actor) (*Tenant, error) { return p.service.SetSource(t.Context(), by, slug, name, c) }
	}
	add := func(slug string, n NewSource) func(audit.Actor) (*Tenant, error) {
		return func(by audit.Actor) (*Tenant, error) { return p.service.AddSource(t.Context(), by, slug, n) }
	}
	remove := func(slug, name string) func(audit.Actor) (*Tenant, error) {
		return func(by audit.Actor) (*Tenant, error) { return p.service.RemoveSource(t.Context(), by, slug, name) }
	}
	asked("acme", set("acme", "b", SourceChange{Issuer: ptr("https://c.example")}), issuerB, "jwt:b", "refused")
	asked("acme", set("acme", "a", SourceChange{Issuer: ptr(issuerB)}), issuerA, "refused", "jwt:b", "jwt:a", "finds nothing")
	asked("acme", remove("acme", "b"), "https://c.example", "jwt:b", "refused")
	asked("acme", add("acme", NewSource{Name: "c", Kind: JWT, Rules: from("https://c.example"), Keys: key}), "jwt:b", "jwt:c", "finds nothing")
	asked("acme", remove("acme", "signature"), "Signatures", "sig", "refused")

	asked("open", set("open", "all", SourceChange{Issuer: ptr(issuerA)}), "All other tokens", "jwt:all", "refused")
	asked("open", add("open", NewSource{Name: "more", Kind: JWT, Rules: from(issuerB), Keys: key}), "jwt:all", "jwt:more", "finds nothing")
	asked("open", add("open", NewSource{Name: "kin", Kind: JWT, Rules: from("https://d.example"), Keys: key, NamespaceOf: "all"}), "same subject of source \"all\"")
	for _, c := range []SourceChange{
		{AudienceRule: ptr(jwt.OneOf), Audiences: []string{"x"}}, {AudienceRule: ptr(jwt.OneOf), Audiences: []string{"y"}},
		{AudienceRule: ptr(jwt.NoAudience)}, {Algorithms: []string{"ES256"}}, {Claims: map[string]string{"a": "b"}},
		{Claims: map[string]string{"a": "c"}},
	} {
		asked("open", set("open", "all", c), "refused")
	}
	asked("open", set("open", "signature", SourceChange{Window: ptr(time.Hour)}), "1h0m0s", "refused")
	// And what takes nothing away is not asked about.
	for _, change := range []func(audit.Actor) (*Tenant, error){
		set("open", "signature", SourceChange{Window: ptr(2 * time.Hour)}),
		set("open", "all", SourceChange{AudienceRule: ptr(jwt.AnyAudience), Algorithms: jwt.Algorithms(), Claims: map[string]string{}, CheckNotBefore: ptr(false)}),
		add("acme", NewSource{Name: "lnurl", Kind: LNURL, Host: "acme.vss.example"}),
		add("acme", NewSource{Name: "fresh", Kind: JWT, Rules: from("https://fresh.example"), Keys: key}),
		func(by audit.Actor) (*Tenant, error) {
			return p.service.RotateKey(t.Context(), by, "acme", "lnurl", false)
		},
		func(by audit.Actor) (*Tenant, error) {
			return p.service.AddKeys(t.Context(), by, "open", "all", jwks(lnurl.NewSigningKey()), jwt.Active)
		},
	} {
		done(t)(change(unasked))
	}
	asked("acme", func(by audit.Actor) (*Tenant, error) {
		return p.service.RotateKey(t.Context(), by, "acme", "lnurl", true)
	}, "logs in again")
}

// In one namespace too, a key's name decides which source's rules a token is held to.
func TestAKidThatChangesItsSourceIsAskedAbout(t *testing.T) {
	t.Parallel()
	key := func(kid string) SourceKey { return SourceKey{ID: kid, State: jwt.Active} }
	all := Source{ID: uuid.New(), Name: "all", Kind: JWT, Namespace: "jwt:x"}
	kin := Source{ID: uuid.New(), Name: "kin", Kind: JWT, Namespace: "jwt:x", ByKeyID: true, Keys: []SourceKey{key("k1")}}
	before := &Tenant{Sources: []Source{all, kin}}
	after := before.frozen()
	after.Sources[1].Keys = append(after.Sources[1].Keys, key("k2"))
	want := `Tokens with keys (kid) as "k2" are verified by source "kin" from now on, and no longer by "all".`
	if will := moves(before, after); !slices.Equal(will, []string{want}) {
		t.Errorf("got %q", will)
	}
}

func TestTheIssuerOfALoginIsNoOtherSources(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	tenant := p.addSource(t, "acme", NewSource{Name: "lnurl", Kind: LNURL, Host: "acme.vss.example"})
	ours := *tenant.Source(LNURL).Rules.Issuer
	steal := func(name string) {
		t.Helper()
		_, err := p.service.AddSource(t.Context(), root, "acme", NewSource{
			Name: name, Kind: JWT, Rules: from(ours), JWKSURL: "https://acme.vss.example/lnurl/jwks.json",
		})
		wantInvalid(t, err, "issuer")
	}
	steal("a") // before and after the other by name
	steal("z")
	p.addSource(t, "acme", NewSource{Name: "auth", Kind: JWT, Rules: from("https://a.example"), Keys: jwks(lnurl.NewSigningKey())})
	_, err := p.service.SetSource(t.Context(), root, "acme", "auth", SourceChange{Issuer: &ours})
	wantInvalid(t, err, "issuer")
	// Nor when it is gone: its tokens live on for a while, and its wallets for ever.
	done(t)(p.service.RemoveSource(t.Context(), root, "acme", "lnurl"))
	steal("b")
}
