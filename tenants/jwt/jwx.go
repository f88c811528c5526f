package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
	"errors"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secp256k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// All that is jwx is in this file, so that a later major version, or another library, has one place to come to. It is
// asked about signatures alone: what a token says was read before it, more strictly than it reads.

// Verifier says whether sig is the signature of signed by this algorithm and key, which is a key for it.
type Verifier func(alg string, key crypto.PublicKey, signed, sig []byte) bool

// VerifySignature is the [Verifier] of tokens that name no other.
func VerifySignature(alg string, key crypto.PublicKey, signed, sig []byte) bool {
	v := verifiers[alg]
	return v != nil && v.Verify(signed, sig, key) == nil
}

// SignES256 is the signature of a token's header and payload.
func SignES256(key *ecdsa.PrivateKey, signed []byte) ([]byte, error) {
	signer, err := jws.NewSigner(jwa.ES256)
	if err != nil {
		return nil, err
	}
	return signer.Sign(signed, key)
}

// verifiers are jwx's by alg. The registry is the whole process's, so this happens once, as the program begins: jwx has
// ES256K only if it is built with a tag, and takes a PSS salt of any length, where RFC 7518 section 3.5 wants the hash's.
var verifiers = func() map[string]jws.Verifier {
	register := func(alg jwa.SignatureAlgorithm, v verifierFunc) {
		jws.RegisterVerifier(alg, jws.VerifierFactoryFn(func() (jws.Verifier, error) { return v, nil }))
	}
	register(jwa.ES256K, verifySecp256k1)
	register(jwa.PS256, verifyPSS(crypto.SHA256))
	register(jwa.PS384, verifyPSS(crypto.SHA384))
	register(jwa.PS512, verifyPSS(crypto.SHA512))
	byName := make(map[string]jws.Verifier, len(algorithms))
	for _, a := range algorithms {
		v, err := jws.NewVerifier(jwa.SignatureAlgorithm(a.name))
		if err != nil {
			panic(err) // an algorithm that jwx no longer has
		}
		byName[a.name] = v
	}
	return byName
}()

// verifierFunc is a [jws.Verifier].
type verifierFunc func(signed, sig []byte, key any) error

func (f verifierFunc) Verify(signed, sig []byte, key any) error { return f(signed, sig, key) }

var errForged = errors.New("the signature is not by this key")

func digest(hash crypto.Hash, signed []byte) []byte {
	h := hash.New()
	h.Write(signed)
	return h.Sum(nil)
}

func verifyPSS(hash crypto.Hash) verifierFunc {
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	return func(signed, sig []byte, key any) error {
		return rsa.VerifyPSS(key.(*rsa.PublicKey), hash, digest(hash, signed), sig, options)
	}
}

// verifySecp256k1 takes a high s too, since RFC 8812 does. That a token can then be written in two ways harms
// nobody: it names one wallet either way.
func verifySecp256k1(signed, sig []byte, key any) error {
	var r, s secp256k1.ModNScalar
	if len(sig) != 64 || r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) || // not below the order
		!secp256k1ecdsa.NewSignature(&r, &s).Verify(digest(crypto.SHA256, signed), key.(*secp256k1.PublicKey)) {
		return errForged
	}
	return nil
}
