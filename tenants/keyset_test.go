package tenants

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// offline is an egress client for which no host is there.
type offline struct{ *egress.Client }

func (offline) GetFor(context.Context, uuid.UUID, string, http.Header) (egress.Response, error) {
	return egress.Response{}, &egress.Error{Reason: egress.NoHost}
}

// p256 is a JWK for ES256 with these members besides.
func p256(t *testing.T, members string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jwt.ParseKeys(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(keys[0].JWK()), "}") + members + "}"
}

func TestAKeyURLThatCannotWorkIsSavedOnlyIfConfirmed(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	s, err := NewService(open(t, p.url, db.RoleAdmin), ServiceConfig{Egress: egress.New(egress.Config{AllowPrivate: true})})
	if err != nil {
		t.Fatal(err)
	}
	good, private := p256(t, `,"kid":"good"`), p256(t, `,"kid":"private","d":"c2VjcmV0"`)
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=600")
			_, _ = io.WriteString(w, text)
		}
	}
	only := jwt.Standard()
	only.Algorithms = []string{"RS256"}
	tests := map[string]struct {
		answer  http.HandlerFunc // nil: nothing listens
		rules   jwt.Rules
		problem string // part of it; "": it works
		check   func(*KeySet) bool
	}{
		"keys": {answer: body(`{"keys":[` + good + "," + private + `,{"kty":"x"}]}`), rules: jwt.Standard(), check: func(f *KeySet) bool {
			return len(f.Keys) == 1 && f.Keys[0].KID == "good" && f.Keys[0].Refused == "" && f.FreshSeconds == 600 && f.Bytes > 100 &&
				len(f.Skipped) == 2 && strings.Contains(f.Skipped[0], "key 2 is a private")
		}},
		"gzip": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			_, _ = io.WriteString(zip, `{"keys":[`+good+`]}`)
			_ = zip.Close()
		}, rules: jwt.Standard(), check: func(f *KeySet) bool { return len(f.Keys) == 1 }},
		"a redirect": {answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/new?key=hunter2", http.StatusMovedPermanently)
		}, rules: jwt.Standard(), problem: "redirect", check: func(f *KeySet) bool {
			return strings.HasPrefix(f.Redirect, "http://127.0.0.1:") && strings.HasSuffix(f.Redirect, "/new?key=***")
		}},
		"HTML":             {answer: body("<!doctype html><p>Sign in</p>"), rules: jwt.Standard(), problem: "is HTML"},
		"a configuration":  {answer: body(`{"issuer":"x","jwks_uri":"https://x.example/keys"}`), rules: jwt.Standard(), problem: "jwks_uri"},
		"nothing":          {answer: body(""), rules: jwt.Standard(), problem: "the URL answered, but"},
		"no keys":          {answer: body(`{"keys":[]}`), rules: jwt.Standard(), problem: "has no key for signatures"},
		"a status":         {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, rules: jwt.Standard(), problem: "status 500"},
		"no server":        {rules: jwt.Standard(), problem: "no connection"},
		"private keys":     {answer: body(`{"keys":[` + private + `]}`), rules: jwt.Standard(), problem: "key 1 is a private", check: func(f *KeySet) bool { return len(f.Skipped) == 1 }},
		"other algorithms": {answer: body(`{"keys":[` + good + `]}`), rules: only, problem: "no algorithm that the source takes", check: func(f *KeySet) bool { return f.Keys[0].Refused != "" }},
	}
	n := 0
	for name, tc := range tests {
		n++
		url := "http://127.0.0.1:1/keys"
		if tc.answer != nil {
			site := httptest.NewServer(tc.answer)
			defer site.Close()
			url = site.URL
		}
		asked := audit.Actor{Role: audit.Operator, Name: "root@host"}
		src := NewSource{Name: fmt.Sprintf("s%d", n), Kind: JWT, Rules: tc.rules, JWKSURL: url}
		src.Rules.Issuer = &name
		after, err := s.AddSource(t.Context(), asked, "acme", src)
		if tc.problem != "" {
			if wants, ok := errors.AsType[*ConfirmError](err); !ok || !strings.Contains(wants.Error(), tc.problem) || strings.Contains(wants.Error(), "hunter2") {
				t.Errorf("%s: got %v, want a question about %q", name, err, tc.problem)
			}
			if named(done(t)(s.Get(t.Context(), "acme")).Sources, src.Name) != nil {
				t.Errorf("%s was saved all the same", name)
			}
			after, err = s.AddSource(t.Context(), root, "acme", src)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := named(after.Sources, src.Name).Found
		if !strings.Contains(found.Problem, tc.problem) || (found.Problem == "") != (tc.problem == "") || tc.check != nil && !tc.check(found) {
			t.Errorf("%s: found %+v", name, found)
		}

		// The same of a source that has another URL, and of one whose algorithms change.
		set := src
		set.Name, set.JWKSURL, set.Rules.Issuer = src.Name+"-set", "http://127.0.0.1:1/", ptr(name+" set")
		done(t)(s.AddSource(t.Context(), root, "acme", set))
		_, err = s.SetSource(t.Context(), asked, "acme", set.Name, SourceChange{JWKSURL: &url})
		if wants, ok := errors.AsType[*ConfirmError](err); !ok || !strings.Contains(wants.Error(), tc.problem) || (len(wants.Will) > 1) != (tc.problem != "") {
			t.Errorf("%s: the change: got %v", name, err)
		}
		found = named(done(t)(s.SetSource(t.Context(), root, "acme", set.Name, SourceChange{JWKSURL: &url})).Sources, set.Name).Found
		if !strings.Contains(found.Problem, tc.problem) || tc.check != nil && !tc.check(found) {
			t.Errorf("%s: the change found %+v", name, found)
		}
		if name == "keys" {
			_, err = s.SetSource(t.Context(), asked, "acme", set.Name, SourceChange{Algorithms: only.Algorithms})
			if err == nil || !strings.Contains(err.Error(), "none of its keys can be used") {
				t.Errorf("algorithms for none of the keys: %v", err)
			}
		}
	}
}

func TestAURLIsFetchedOnlyForWhoMayChangeTheTenant(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	s, err := NewService(open(t, p.url, db.RoleAdmin), ServiceConfig{Egress: egress.New(egress.Config{AllowPrivate: true})})
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the URL was fetched") }))
	defer site.Close()
	src := NewSource{Name: "auth", Kind: JWT, Rules: jwt.Standard(), JWKSURL: site.URL}
	_, err = s.AddSource(t.Context(), audit.Actor{}, "acme", src)
	wantError(t, err, audit.ErrNoActor)
	_, err = s.AddSource(t.Context(), root, "nobody", src)
	wantError(t, err, ErrNotFound)
	_, err = s.SetSource(t.Context(), root, "acme", "none", SourceChange{JWKSURL: &site.URL})
	wantError(t, err, ErrNotFound)
}

func TestASourceThatLooksAtNoAudienceSaysSo(t *testing.T) {
	t.Parallel()
	every, one, claim := jwt.Standard(), jwt.Standard(), jwt.Standard()
	one.AudienceRule, one.Audiences = jwt.OneOf, []string{"vss"}
	claim.Claims = map[string]string{"client_id": "app1"}
	for name, tc := range map[string]struct {
		src   Source
		notes int
	}{
		"any audience": {Source{Kind: JWT, Rules: every}, 1},
		"one":          {Source{Kind: JWT, Rules: one}, 0},
		"none":         {Source{Kind: JWT, Rules: jwt.ReferenceServer()}, 0},
		"a claim":      {Source{Kind: JWT, Rules: claim}, 0},
		"signatures":   {Source{Kind: Signature}, 0},
	} {
		if notes := tc.src.Notes(); len(notes) != tc.notes {
			t.Errorf("%s: %q", name, notes)
		}
	}
}
