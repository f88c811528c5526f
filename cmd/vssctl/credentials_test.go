package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

var base64url = base64.RawURLEncoding

// issuer signs tokens, as a wallet company's server does.
type issuer struct {
	kid string // "": it names none
	key crypto.Signer
}

func newIssuer(t *testing.T, kid string) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{kid, key}
}

// jwks is its public key.
func (i *issuer) jwks(t *testing.T) string {
	t.Helper()
	point, err := i.key.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`,
		i.kid, base64url.EncodeToString(point[1:33]), base64url.EncodeToString(point[33:]))
}

func (i *issuer) pem(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// token is one that says this and lives for an hour.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	header := map[string]any{"alg": "ES256"}
	if _, ok := i.key.(*rsa.PrivateKey); ok {
		header["alg"] = "RS256"
	}
	if i.kid != "" {
		header["kid"] = i.kid
	}
	if claims["exp"] == nil {
		claims["exp"] = time.Now().Add(time.Hour).Unix()
	}
	var parts []string
	for _, part := range []any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, base64url.EncodeToString(text))
	}
	digest := sha256.Sum256([]byte(strings.Join(parts, ".")))
	var signature []byte
	switch key := i.key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case *rsa.PrivateKey:
		var err error
		if signature, err = key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(append(parts, base64url.EncodeToString(signature)), ".")
}

// answers waits until a wallet with this token, and these header fields, gets this status.
func answers(t *testing.T, status int, base, token string, fields ...string) {
	t.Helper()
	eventually(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/listKeyVersions", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		for i := 0; i < len(fields); i += 2 {
			req.Header.Set(fields[i], fields[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode == status
	})
}

func TestTheOperatorRunsCredentialSourcesAndTheirKeys(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	p := s.dev()
	first, second := newIssuer(t, "first"), newIssuer(t, "second")
	wallet := func(i *issuer) string { return i.token(t, map[string]any{"sub": "wallet 1", "iss": "https://id.test"}) }

	s.want(2, "--kind", "source", "add", "demo", "app")
	s.want(2, "either the URL of a JWKS or the keys", "source", "add", "demo", "app", "--kind", "jwt")
	s.with("my key").want(2, "neither a JWKS", "source", "add", "demo", "app", "--kind", "jwt", "--keys", "-")
	s.want(3, "no such tenant", "source", "list", "nobody")
	add := []string{"source", "add", "demo", "app", "--kind", "jwt", "--issuer", "https://id.test", "--keys", "-"}
	s.with(first.jwks(t)).want(0, `app +jwt +jwt:app +iss "https://id.test", any aud, keys: 1`, add...)
	s.with(first.jwks(t)).want(2, "name: is taken", add...)
	answers(t, 200, p.base, wallet(first))
	answers(t, 401, p.base, wallet(second))

	s.with(second.jwks(t)).want(0, `(?s)first +active.*second +standby|second +standby.*first +active`, "key", "add", "demo", "app", "-", "--standby")
	s.with(second.jwks(t)).want(2, "already", "key", "add", "demo", "app", "-")
	s.with(second.jwks(t)).want(3, "no source", "key", "add", "demo", "none", "-")
	s.want(0, "second +active", "key", "set", "demo", "app", "second", "--state", "active")
	answers(t, 200, p.base, wallet(second))
	s.want(2, "--for is of", "key", "set", "demo", "app", "second", "--state", "active", "--for", "1h")
	s.want(3, "no key", "key", "set", "demo", "app", "third", "--state", "active")
	s.want(2, "refused from .* on. If that is wanted, say --yes", "key", "set", "demo", "app", "first", "--state", "retired")
	s.want(0, "first +retired, verifies until", "key", "set", "demo", "app", "first", "--state", "retired", "--for", "1h", "--yes")
	answers(t, 200, p.base, wallet(first))
	s.want(2, "refused at once.*say --yes", "key", "set", "demo", "app", "first", "--state", "revoked")
	s.want(0, `"state": "revoked"`, "key", "set", "demo", "app", "first", "--state", "revoked", "--yes", "--json")
	answers(t, 401, p.base, wallet(first))
	s.want(2, "a revoked key stays so", "key", "set", "demo", "app", "first", "--state", "active")
	answers(t, 200, p.base, wallet(second))

	s.want(2, "gets the data .*say --yes", "source", "add", "demo", "next", "--kind", "jwt", "--namespace-of", "app", "--issuer", "https://next.test", "--jwks-url", "https://next.test/keys")
	s.want(0, `next +jwt +jwt:app +iss "https://next.test", any aud, keys at https://next.test/keys`,
		"source", "add", "demo", "next", "--kind", "jwt", "--namespace-of", "app", "--issuer", "https://next.test", "--jwks-url", "https://next.test/keys", "--yes")
	s.want(2, "jwks_url", "source", "add", "demo", "local", "--kind", "jwt", "--issuer", "x", "--jwks-url", "http://127.0.0.1/keys")

	s.want(2, "are refused from now on. If that is wanted, say --yes", "source", "remove", "demo", "app")
	s.want(0, "removed source app", "source", "remove", "demo", "app", "--yes")
	s.want(3, "no source", "source", "remove", "demo", "app", "--yes")
	answers(t, 401, p.base, wallet(second))
	s.want(0, `(?s)signature +signature +sig +within 24h.*app +jwt +jwt:app +removed`, "source", "list", "demo")
}
