package jwt

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"
)

func TestTokensThatOthersSignedVerify(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, v := range vectors() {
		keys, err := ParseKeys(v.JWK)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		last := strings.LastIndexByte(v.Token, '.')
		sig, ok := decode(make([]byte, len(v.Token)), []byte(v.Token[last+1:]))
		if !ok {
			t.Fatalf("%s: the signature is no base64url", v.Name)
		}
		// The payloads of the RFCs are not all claims, so this is about the signatures.
		verifies := func(signed, sig []byte) bool {
			return keys[0].fields.fit(algorithmNamed(v.Alg)) && VerifySignature(v.Alg, keys[0].public, signed, sig)
		}
		signed := []byte(v.Token[:last])
		if !verifies(signed, sig) {
			t.Errorf("%s: refused", v.Name)
		}
		seen[v.Alg] = true

		for i := range signed {
			changed := bytes.Clone(signed)
			changed[i] ^= 1
			if i%7 == 0 && verifies(changed, sig) {
				t.Errorf("%s: verifies with byte %d changed", v.Name, i)
			}
		}
		for i := range sig {
			changed := bytes.Clone(sig)
			changed[i] ^= 1
			if i%7 == 0 && verifies(signed, changed) {
				t.Errorf("%s: verifies with byte %d of the signature changed", v.Name, i)
			}
		}
		for name, other := range map[string][]byte{
			"none":     nil,
			"cut off":  sig[:len(sig)-1],
			"longer":   append(bytes.Clone(sig), 0),
			"zeros":    make([]byte, len(sig)),
			"ones":     bytes.Repeat([]byte{0xff}, len(sig)),
			"zero s":   append(bytes.Clone(sig[:len(sig)/2]), make([]byte, len(sig)/2)...),
			"twice":    append(bytes.Clone(sig), sig...),
			"one":      append(make([]byte, len(sig)-1), 1),
			"00, r, s": slices.Concat([]byte{0}, sig),
			"r, 00, s": slices.Concat(sig[:len(sig)/2], []byte{0}, sig[len(sig)/2:]),
		} {
			if verifies(signed, other) {
				t.Errorf("%s: verifies with another signature: %s", v.Name, name)
			}
		}
	}
	for _, alg := range Algorithms() {
		if !seen[alg] {
			t.Errorf("there is no vector of %s", alg)
		}
	}
}

func TestTokensThatOthersSignedNameTheirSubject(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		if v.PEM == "" {
			continue // of an RFC
		}
		for form, text := range map[string]string{"JWK": string(v.JWK), "PEM": v.PEM, "PKCS#1": v.PKCS1} {
			if text == "" {
				continue
			}
			keys, err := ParseKeys([]byte(text))
			if err != nil {
				t.Fatalf("%s, %s: %v", v.Name, form, err)
			}
			keys[0].State = Active
			claims, err := NewSet(keys).Verify(v.Token, Standard(), now)
			if err != nil || claims.Subject != "wallet-1" || claims.Expires.Unix() != 4102444800 || claims.KeyID != keys[0].Thumbprint() {
				t.Errorf("%s, %s: got %+v, %v", v.Name, form, claims, err)
			}
		}
	}
}

func TestTheKeysOfRFC7517AreRead(t *testing.T) {
	t.Parallel()
	keys, err := ParseKeys([]byte(rfc7517Set))
	if err != nil {
		t.Fatal(err)
	}
	// Its elliptic curve key is for encryption.
	if len(keys) != 1 || keys[0].ID() != "2011-04-29" || keys[0].Type() != "RSA" || keys[0].Algorithm() != "RS256" || keys[0].Describe() != "RSA, 2048 bits" {
		t.Errorf("got %+v", keys)
	}
	// RFC 7638 section 3.1, of the same key.
	if got := keys[0].Thumbprint(); got != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Errorf("thumbprint %s", got)
	}
	// RFC 8037 appendix A.3.
	i := slices.IndexFunc(vectors(), func(v vector) bool { return v.Name == "RFC 8037 A.4" })
	keys, err = ParseKeys(vectors()[i].JWK)
	if err != nil || keys[0].Thumbprint() != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("got %+v, %v", keys, err)
	}
}

const (
	rfc7517EC  = `{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc","kid":"1"}`
	rfc7517RSA = `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`
	rfc7517Set = `{"keys":[` + rfc7517EC + `,` + rfc7517RSA + `]}`
)

func TestASaltIsAsLongAsTheHash(t *testing.T) {
	t.Parallel()
	signed := []byte("x")
	for length, want := range map[int]bool{32: true, 20: false, 31: false, 33: false} {
		sig := must(rsa.SignPSS(rand.Reader, issuersRSA(), crypto.SHA256, digest(crypto.SHA256, signed), &rsa.PSSOptions{SaltLength: length}))
		if got := VerifySignature("PS256", &issuersRSA().PublicKey, signed, sig); got != want {
			t.Errorf("a salt of %d bytes: %v", length, got)
		}
	}
}
