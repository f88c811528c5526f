package client

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// LinkingKey says by which secp256k1 key, big-endian, a wallet logs in at a host. The same host must always get
// the same key: its public half is who the wallet is there.
type LinkingKey func(host string) (secretKey [32]byte, err error)

// FixedLinkingKey is one key for every host.
func FixedLinkingKey(secretKey [32]byte) LinkingKey {
	return func(string) ([32]byte, error) { return secretKey, nil }
}

// LUD05 derives a key for each host as LUD-05 has it, from the seed of a BIP-32 wallet: its parent key is
// m/138'.
func LUD05(seed []byte) LinkingKey {
	return func(host string) ([32]byte, error) {
		master, err := masterKey(seed)
		if err != nil {
			return [32]byte{}, err
		}
		parent, err := master.child(hardened + 138)
		if err != nil {
			return [32]byte{}, err
		}
		return parent.linkingKey(host)
	}
}

// LUD05FromParent derives a key for each host from the parent key itself: an extended key of BIP-32, as
// vss-client's LnurlAuthToJwtProvider takes it.
func LUD05FromParent(secretKey, chainCode [32]byte) LinkingKey {
	return func(host string) ([32]byte, error) {
		return extendedKey{secretKey, chainCode}.linkingKey(host)
	}
}

// extendedKey is a private key of BIP-32.
type extendedKey struct{ key, chain [32]byte }

const hardened = 1 << 31

var errNoKey = errors.New("no key can be derived from this one")

func masterKey(seed []byte) (extendedKey, error) {
	if len(seed) < 16 || len(seed) > 64 {
		return extendedKey{}, errors.New("a seed has 16 to 64 bytes")
	}
	h := hmacSHA512([]byte("Bitcoin seed"), seed)
	k := extendedKey{[32]byte(h[:32]), [32]byte(h[32:])}
	_, err := scalarOf(k.key)
	return k, err
}

// child is BIP-32's CKDpriv.
func (k extendedKey) child(index uint32) (extendedKey, error) {
	scalar, err := scalarOf(k.key)
	if err != nil {
		return extendedKey{}, err
	}
	data := append([]byte{0}, k.key[:]...)
	if index < hardened {
		data = secp256k1.NewPrivateKey(scalar).PubKey().SerializeCompressed()
	}
	h := hmacSHA512(k.chain[:], binary.BigEndian.AppendUint32(data, index))
	var sum secp256k1.ModNScalar
	if sum.SetByteSlice(h[:32]) || sum.Add(scalar).IsZero() { // about one in 2^127
		return extendedKey{}, errNoKey
	}
	return extendedKey{sum.Bytes(), [32]byte(h[32:])}, nil
}

// linkingKey is LUD-05's: below the parent, at the path that the hashing key and the host make. Each of its four
// numbers is hardened or not as it comes.
func (k extendedKey) linkingKey(host string) ([32]byte, error) {
	hashing, err := k.child(0)
	if err != nil {
		return [32]byte{}, err
	}
	for _, index := range linkingPath(hashing.key, host) {
		if k, err = k.child(index); err != nil {
			return [32]byte{}, err
		}
	}
	return k.key, nil
}

func linkingPath(hashing [32]byte, host string) (path [4]uint32) {
	h := hmac.New(sha256.New, hashing[:])
	h.Write([]byte(host))
	sum := h.Sum(nil)
	for i := range path {
		path[i] = binary.BigEndian.Uint32(sum[4*i:])
	}
	return path
}

func scalarOf(key [32]byte) (*secp256k1.ModNScalar, error) {
	var scalar secp256k1.ModNScalar
	if scalar.SetBytes(&key) != 0 || scalar.IsZero() {
		return nil, errors.New("not a secp256k1 secret key: zero, or not below the order of the group")
	}
	return &scalar, nil
}

func hmacSHA512(key, data []byte) []byte {
	h := hmac.New(sha512.New, key)
	h.Write(data)
	return h.Sum(nil)
}
