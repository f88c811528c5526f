package callers

import (
	"crypto/sha256"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// verifyDecred is a [verifier] in Go alone. It is compiled with cgo too, so that tests can hold the two
// against each other.
func verifyDecred(key *[keySize]byte, digest *[sha256.Size]byte, sig *[signatureSize]byte) bool {
	pub, err := secp256k1.ParsePubKey(key[:])
	if err != nil {
		return false
	}
	var r, s secp256k1.ModNScalar
	if r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) { // not below the order
		return false
	}
	return ecdsa.NewSignature(&r, &s).Verify(digest[:], pub)
}
