package callers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// The signature scheme of CONTRACT section 4.1: vss-client's SigsAuthProvider.

// signingConstant begins what is signed.
const signingConstant = "VSS Signature Authorizer Signing Salt Constant.................."

const (
	keySize       = 33 // compressed: 2 or 3, and the x coordinate
	signatureSize = 64 // compact: r and s, big-endian
	keyEnd        = 2 * keySize
	signatureEnd  = keyEnd + 2*signatureSize
	maxDigits     = 20 // of 2^64 - 1
)

// halfOrder is half the order of the curve's group, rounded down: the highest s that is low.
var halfOrder = [32]byte{
	0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
}

// verifier says whether sig is an ECDSA signature over the digest by the key, on secp256k1. It refuses keys
// that are no point of the curve, and r and s that are zero or not below the group's order.
type verifier func(key *[keySize]byte, digest *[sha256.Size]byte, sig *[signatureSize]byte) bool

// signatureToken is a credential that has the form of one; nothing else is known of it yet.
type signatureToken struct {
	key     [keySize]byte
	sig     [signatureSize]byte
	seconds uint64 // unix time
}

// parseSignatureToken takes hex (of either case), hex, and canonical decimal, and nothing around or between.
// It fails with an [*AuthError].
func parseSignatureToken(s string) (signatureToken, error) {
	var t signatureToken
	if len(s) <= signatureEnd {
		return t, refuse(reasonForm)
	}
	// A copy on the stack, since hex does not decode strings in place.
	var text [signatureEnd]byte
	copy(text[:], s)
	if _, err := hex.Decode(t.key[:], text[:keyEnd]); err != nil {
		return t, refuse(reasonForm)
	}
	if _, err := hex.Decode(t.sig[:], text[keyEnd:]); err != nil {
		return t, refuse(reasonForm)
	}
	if t.key[0] != 2 && t.key[0] != 3 {
		return t, refuse(reasonKey)
	}
	var ok bool
	if t.seconds, ok = parseSeconds(s[signatureEnd:]); !ok {
		return t, refuse(reasonTime)
	}
	return t, nil
}

// parseSeconds takes digits, without leading zeros.
func parseSeconds(s string) (uint64, bool) {
	if len(s) > maxDigits || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64) // no sign, no space, no other digits than ASCII
	return n, err == nil
}

// within says whether the token's time is at most the window away from now, in whole seconds, either way.
func (t *signatureToken) within(window time.Duration, now time.Time) bool {
	n := uint64(max(now.Unix(), 0))
	return max(n, t.seconds)-min(n, t.seconds) <= uint64(window/time.Second)
}

// verify fails with an [*AuthError] unless the signature is the key's, over the token's time. It is the
// costly part of a token.
func (t *signatureToken) verify(verify verifier) error {
	// Whoever saw a signature could make a second one of it, with order-s.
	if bytes.Compare(t.sig[32:], halfOrder[:]) > 0 {
		return refuse(reasonHighS)
	}
	digest := t.digest()
	if !verify(&t.key, &digest, &t.sig) {
		return refuse(reasonMismatch)
	}
	return nil
}

func (t *signatureToken) digest() [sha256.Size]byte {
	signed := make([]byte, 0, len(signingConstant)+keySize+maxDigits)
	signed = append(signed, signingConstant...)
	signed = append(signed, t.key[:]...)
	signed = strconv.AppendUint(signed, t.seconds, 10) // as it was sent, since that was canonical
	return sha256.Sum256(signed)
}

// subject is one for one key, however it was sent.
func (t *signatureToken) subject() string { return hex.EncodeToString(t.key[:]) }
