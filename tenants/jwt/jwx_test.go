package jwt

import (
	"crypto"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Whole tokens and whole keys as jwx itself reads them: what is taken here, others take too.
func TestTokensAndKeysAreThoseOfJWX(t *testing.T) {
	t.Parallel()
	for _, alg := range Algorithms() {
		i := issuerOf(alg).named("k1")
		payload, err := jws.Verify([]byte(i.token(goodClaims)), jws.WithKey(jwa.SignatureAlgorithm(alg), i.key.public))
		if err != nil || string(payload) != goodClaims {
			t.Errorf("%s: %s, %v", alg, payload, err)
		}
		if alg == "ES256K" { // whose keys jwx reads only if it is built with a tag
			continue
		}
		key, err := jwk.ParseKey(i.key.JWK())
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		thumbprint, err := key.Thumbprint(crypto.SHA256)
		if err != nil || encoding.EncodeToString(thumbprint) != i.key.Thumbprint() || key.KeyID() != i.key.ID() {
			t.Errorf("%s: %v", alg, err)
		}
	}
}
