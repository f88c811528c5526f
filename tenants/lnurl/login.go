package lnurl

import (
	"encoding/hex"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

const (
	keySize    = secp256k1.PubKeyBytesLenCompressed
	maxSigSize = 72 // of a signature in DER: r and s of 33 bytes
)

// VerifyLogin verifies a login as LUD-04 has it: sig is a signature in DER over the 32 bytes of k1, which are
// not hashed, by the key in the compressed form; both are in hex of either case. The subject is the key in
// lower-case hex. What cannot be accepted fails with an [*Error].
//
// DER is taken as strictly as by BIP 66, without the byte for the type of hash, and s must be low. That is
// what libsecp256k1 writes and all it verifies, and so what LUD-04's wallets send: there is one text for a
// login, and nobody who saw it can make another one.
func VerifyLogin(k1 K1, sig, key string) (subject string, err error) {
	pub, err := parseKey(key)
	if err != nil {
		return "", err
	}
	signature, err := parseSignature(sig)
	if err != nil {
		return "", err
	}
	// In Go, where tenants verifies with libsecp256k1: a wallet logs in once an hour, and not at each request.
	if !signature.Verify(k1[:], pub) {
		return "", refuse(reasonMismatch)
	}
	return hex.EncodeToString(pub.SerializeCompressed()), nil
}

func parseKey(s string) (*secp256k1.PublicKey, error) {
	if len(s) != hex.EncodedLen(keySize) {
		return nil, refuse(reasonKeyHex)
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, refuse(reasonKeyHex)
	}
	if b[0] != secp256k1.PubKeyFormatCompressedEven && b[0] != secp256k1.PubKeyFormatCompressedOdd {
		return nil, refuse(reasonKeyForm)
	}
	key, err := secp256k1.ParsePubKey(b)
	if err != nil {
		return nil, refuse(reasonKeyCurve)
	}
	return key, nil
}

func parseSignature(s string) (*ecdsa.Signature, error) {
	if len(s) > hex.EncodedLen(maxSigSize) {
		return nil, refuse(reasonSigDER)
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, refuse(reasonSigHex)
	}
	sig, err := ecdsa.ParseDERSignature(b) // r and s are from 1 to the order-1
	if err != nil {
		return nil, refuse(reasonSigDER)
	}
	if low := sig.S(); low.IsOverHalfOrder() {
		return nil, refuse(reasonSigHighS)
	}
	return sig, nil
}
