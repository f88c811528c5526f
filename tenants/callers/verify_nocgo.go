//go:build !cgo

package callers

import "crypto/sha256"

// verifyECDSA is the [verifier] of this build: there is no C compiler for libsecp256k1.
func verifyECDSA(key *[keySize]byte, digest *[sha256.Size]byte, sig *[signatureSize]byte) bool {
	return verifyDecred(key, digest, sig)
}
