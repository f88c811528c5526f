package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secp256k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is when most tests happen.
var now = time.Unix(1_700_000_000, 0)

const goodClaims = `{"sub":"alice","exp":1700003600}`

// issuer is a key pair, with its public half as an active key.
type issuer struct {
	alg  string
	key  Key
	sign func(signed []byte) []byte
}

// named is the same issuer with a kid.
func (i issuer) named(kid string) issuer {
	i.key = withKid(i.key, kid)
	return i
}

func withKid(k Key, kid string) Key {
	f := k.fields
	f.Kid = kid
	named, bad := newKey(f)
	if bad != "" {
		panic(bad)
	}
	named.State, named.Until = k.State, k.Until
	return named
}

func (i issuer) set() *Set { return NewSet([]Key{i.key}) }

func part(text string) string { return encoding.EncodeToString([]byte(text)) }

// raw is a token of this header and payload, whatever they are.
func (i issuer) raw(header, payload string) string {
	signed := part(header) + "." + part(payload)
	return signed + "." + encoding.EncodeToString(i.sign([]byte(signed)))
}

// token is one as the issuer makes them.
func (i issuer) token(payload string) string {
	header := fmt.Sprintf(`{"typ":"JWT","alg":%q}`, i.alg)
	if i.key.Named() {
		header = fmt.Sprintf(`{"typ":"JWT","alg":%q,"kid":%q}`, i.alg, i.key.id)
	}
	return i.raw(header, payload)
}

// newIssuer makes a key pair, of an algorithm other than RSA's.
func newIssuer(alg string) issuer {
	var public crypto.PublicKey
	var sign func([]byte) []byte
	switch alg {
	case "EdDSA":
		pub, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		public = pub
		sign = func(signed []byte) []byte { return ed25519.Sign(private, signed) }
	case "ES256K":
		private := must(secp256k1.GeneratePrivateKey())
		public = private.PubKey()
		sign = func(signed []byte) []byte {
			sig := secp256k1ecdsa.Sign(private, digest(crypto.SHA256, signed))
			r, s := sig.R(), sig.S()
			rb, sb := r.Bytes(), s.Bytes()
			return append(rb[:], sb[:]...)
		}
	default:
		curve := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}[alg]
		private := must(ecdsa.GenerateKey(curve, rand.Reader))
		public = &private.PublicKey
		sign = func(signed []byte) []byte {
			r, s, err := ecdsa.Sign(rand.Reader, private, digest(hashOf(alg), signed))
			if err != nil {
				panic(err)
			}
			size := (curve.Params().BitSize + 7) / 8
			sig := make([]byte, 2*size)
			r.FillBytes(sig[:size])
			s.FillBytes(sig[size:])
			return sig
		}
	}
	return issuer{alg, activeKey(public), sign}
}

func rsaIssuer(alg string, private *rsa.PrivateKey) issuer {
	hash := hashOf(alg)
	i := issuer{alg: alg, key: activeKey(&private.PublicKey)}
	if alg[0] == 'P' {
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		i.sign = func(signed []byte) []byte {
			return must(rsa.SignPSS(rand.Reader, private, hash, digest(hash, signed), options))
		}
	} else {
		i.sign = func(signed []byte) []byte { return must(rsa.SignPKCS1v15(nil, private, hash, digest(hash, signed))) }
	}
	return i
}

func hashOf(alg string) crypto.Hash {
	return map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[strings.Trim(alg, "RSPEK")]
}

func activeKey(public crypto.PublicKey) Key {
	key, bad := newKey(fieldsOf(public))
	if bad != "" {
		panic(bad)
	}
	key.State = Active
	return key
}

// RSA keys are slow to make, so tests have two: that of the issuers, and a stranger's.
var (
	issuersRSA   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	strangersRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
)

var made = sync.OnceValue(func() map[string]issuer {
	all := map[string]issuer{}
	for _, alg := range Algorithms() {
		if isRSA(alg) {
			all[alg] = rsaIssuer(alg, issuersRSA())
		} else {
			all[alg] = newIssuer(alg)
		}
	}
	return all
})

func isRSA(alg string) bool { return alg[0] == 'R' || alg[0] == 'P' }

// strangerOf is an issuer whose key nobody knows.
func strangerOf(alg string) issuer {
	if isRSA(alg) {
		return rsaIssuer(alg, strangersRSA())
	}
	return newIssuer(alg)
}

// issuerOf is the one issuer of the algorithm that tests share.
func issuerOf(alg string) issuer { return made()[alg] }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func wantReason(t *testing.T, what string, err error, want Reason) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("%s: refused: %v", what, err)
		}
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Reason != want {
		t.Errorf("%s: got %#v (%v), want %q", what, err, err, want)
		return
	}
	if e.Error() == "" {
		t.Errorf("%q has no text", e.Reason)
	}
}

// vector is a token that somebody else made.
type vector struct {
	Name, Alg, Token, PEM, PKCS1 string
	JWK                          json.RawMessage
}

// vectors are those of RFC 7515, 7520 and 8037, and, since RFC 8812 and others have none, ones by OpenSSL.
var vectors = sync.OnceValue(func() []vector {
	var all []vector
	if err := json.Unmarshal(must(os.ReadFile("testdata/vectors.json")), &all); err != nil {
		panic(err)
	}
	return all
})
