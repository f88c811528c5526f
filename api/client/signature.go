package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// signingConstant begins what a signature token signs (CONTRACT section 4.1).
const signingConstant = "VSS Signature Authorizer Signing Salt Constant.................."

// SignatureAuth makes signature tokens (CONTRACT section 4.1): knowledge of a secp256k1 key is the identity.
//
// A token binds neither tenant, nor call, nor body: whoever sees one can use it for 24 hours.
type SignatureAuth struct {
	key    *secp256k1.PrivateKey
	public [secp256k1.PubKeyBytesLenCompressed]byte
}

// NewSignatureAuth takes a secret key, big-endian. It fails for zero and for what is not below the order of
// the group.
func NewSignatureAuth(secretKey [32]byte) (*SignatureAuth, error) {
	scalar, err := scalarOf(secretKey)
	if err != nil {
		return nil, err
	}
	key := secp256k1.NewPrivateKey(scalar)
	return &SignatureAuth{key: key, public: [33]byte(key.PubKey().SerializeCompressed())}, nil
}

// Subject is how the server names the wallet: the compressed public key in lower-case hex.
func (a *SignatureAuth) Subject() string { return hex.EncodeToString(a.public[:]) }

// String is the subject, so that printing a SignatureAuth does not show its key.
func (a *SignatureAuth) String() string { return "signature of " + a.Subject() }

// GoString is String, for %#v.
func (a *SignatureAuth) GoString() string { return a.String() }

// Authorization is the public key, the compact signature, both in hex, and the unix time in seconds. The
// signature is RFC 6979's with a low s, so equal within one second. It fails for a time before 1970.
func (a *SignatureAuth) Authorization(_ context.Context, now time.Time) (string, error) {
	if now.Unix() < 0 {
		return "", errors.New("the clock is before 1970")
	}
	seconds := strconv.FormatInt(now.Unix(), 10)
	digest := sha256.Sum256(append(append([]byte(signingConstant), a.public[:]...), seconds...))
	signature := ecdsa.Sign(a.key, digest[:])
	r, s := signature.R(), signature.S()
	rBytes, sBytes := r.Bytes(), s.Bytes()
	return a.Subject() + hex.EncodeToString(rBytes[:]) + hex.EncodeToString(sBytes[:]) + seconds, nil
}
