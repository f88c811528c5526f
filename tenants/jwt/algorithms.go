package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secp256k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// algorithm is a way to sign, and the one kind of key that does: a key that is used as of another kind is how
// tokens were forged elsewhere.
type algorithm struct {
	name     string // as in alg
	kty, crv string // of its keys; RSA has no curve
	verify   func(key crypto.PublicKey, signed, sig []byte) bool
}

// algorithms of CONTRACT section 4. There is no way to have "none" or an HMAC: they are not here.
var algorithms = []algorithm{
	{"RS256", "RSA", "", pkcs1(crypto.SHA256)},
	{"RS384", "RSA", "", pkcs1(crypto.SHA384)},
	{"RS512", "RSA", "", pkcs1(crypto.SHA512)},
	{"PS256", "RSA", "", pss(crypto.SHA256)},
	{"PS384", "RSA", "", pss(crypto.SHA384)},
	{"PS512", "RSA", "", pss(crypto.SHA512)},
	{"ES256", "EC", "P-256", nist(crypto.SHA256, 32)},
	{"ES384", "EC", "P-384", nist(crypto.SHA384, 48)},
	{"ES512", "EC", "P-521", nist(crypto.SHA512, 66)},
	{"ES256K", "EC", "secp256k1", verifySecp256k1},
	{"EdDSA", "OKP", "Ed25519", func(key crypto.PublicKey, signed, sig []byte) bool {
		return ed25519.Verify(key.(ed25519.PublicKey), signed, sig)
	}},
}

// canonical is the name that an algorithm has here. RFC 9864 gave EdDSA on Ed25519 a second one.
func canonical(name string) string {
	if name == "Ed25519" {
		return "EdDSA"
	}
	return name
}

// algorithmNamed is nil for one that there is not.
func algorithmNamed(name string) *algorithm {
	for i := range algorithms {
		if algorithms[i].name == name {
			return &algorithms[i]
		}
	}
	return nil
}

// Verifier says whether sig is the signature of signed by this algorithm and key, which is a key for it.
type Verifier func(alg string, key crypto.PublicKey, signed, sig []byte) bool

// VerifySignature is the [Verifier] of tokens that name no other.
func VerifySignature(alg string, key crypto.PublicKey, signed, sig []byte) bool {
	return algorithmNamed(alg).verify(key, signed, sig)
}

func digest(hash crypto.Hash, signed []byte) []byte {
	h := hash.New()
	h.Write(signed)
	return h.Sum(nil)
}

func pkcs1(hash crypto.Hash) func(crypto.PublicKey, []byte, []byte) bool {
	return func(key crypto.PublicKey, signed, sig []byte) bool {
		return rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), hash, digest(hash, signed), sig) == nil
	}
}

func pss(hash crypto.Hash) func(crypto.PublicKey, []byte, []byte) bool {
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash} // RFC 7518 section 3.5
	return func(key crypto.PublicKey, signed, sig []byte) bool {
		return rsa.VerifyPSS(key.(*rsa.PublicKey), hash, digest(hash, signed), sig, options) == nil
	}
}

// nist verifies r and s, each of size bytes (RFC 7518 section 3.4).
func nist(hash crypto.Hash, size int) func(crypto.PublicKey, []byte, []byte) bool {
	return func(key crypto.PublicKey, signed, sig []byte) bool {
		if len(sig) != 2*size {
			return false
		}
		r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
		return ecdsa.Verify(key.(*ecdsa.PublicKey), digest(hash, signed), r, s)
	}
}

// verifySecp256k1 takes a high s too, since RFC 8812 does. That a token can then be written in two ways harms
// nobody: it names one wallet either way.
func verifySecp256k1(key crypto.PublicKey, signed, sig []byte) bool {
	if len(sig) != 64 {
		return false
	}
	var r, s secp256k1.ModNScalar
	if r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) { // not below the order
		return false
	}
	return secp256k1ecdsa.NewSignature(&r, &s).Verify(digest(crypto.SHA256, signed), key.(*secp256k1.PublicKey))
}
