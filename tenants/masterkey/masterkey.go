// Package masterkey keeps the platform's secrets sealed in the database, under a key that is in a file.
//
// The file holds one key, or several while the master key is being replaced: the first seals, any of them opens. The
// order is [Add], the file to every machine and a restart there, so that all can open what the new key seals;
// [Promote] and [Key.Reseal] of everything; and only then [Retire].
package masterkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

var (
	// ErrWrongKey: what is to be opened was sealed under a master key that the file does not hold.
	ErrWrongKey = errors.New("sealed under another master key")

	// ErrDamaged: what is to be opened was changed, was sealed for another context, or was never sealed.
	ErrDamaged = errors.New("damaged, or sealed for something else")
)

const (
	secretSize = 32
	idSize     = 8
	format     = 1 // the first byte of what is sealed
	headerSize = 1 + idSize
)

// Uses of a secret, told apart by the info of HKDF. None begins with another.
const (
	infoID     = "vss-cloud master key: id"
	infoSeal   = "vss-cloud master key: seal"
	infoDerive = "vss-cloud master key: derive for "
)

// Key is what a master key file holds. It is safe for concurrent use, and prints as its id.
type Key struct {
	secrets []*secret // the one that seals first, at least one
}

// secret is one of the keys of a file.
type secret struct {
	// reveal is the key. In a function, since fmt shows the fields of a Key that is in another struct's
	// unexported field, and of what they point to.
	reveal func() [secretSize]byte

	id   [idSize]byte // a function of the key, which it does not tell
	aead cipher.AEAD
}

func newSecret(b [secretSize]byte) *secret {
	s := &secret{reveal: func() [secretSize]byte { return b }}
	copy(s.id[:], s.derive(infoID, idSize))
	block, err := aes.NewCipher(s.derive(infoSeal, 32))
	if err != nil {
		panic(err) // only for other sizes
	}
	if s.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		panic(err) // only for other blocks
	}
	return s
}

func randomSecret() *secret {
	var b [secretSize]byte
	_, _ = rand.Read(b[:]) // never fails
	return newSecret(b)
}

// derive is HKDF with SHA-256 (RFC 5869), without a salt: the secret is random already.
func (s *secret) derive(info string, size int) []byte {
	b := s.reveal()
	key, err := hkdf.Key(sha256.New, b[:], nil, info, size)
	if err != nil {
		panic(err) // only for sizes over 8160
	}
	return key
}

func (s *secret) name() string { return hex.EncodeToString(s.id[:]) }

// ID names the key that seals. It is no secret: recorded beside what is sealed, it tells at start-up whether
// the file is the right one.
func (k *Key) ID() string { return k.secrets[0].name() }

// IDs name all keys of the file, the one that seals first and the one that was added last at the end.
func (k *Key) IDs() []string {
	ids := make([]string, len(k.secrets))
	for i, s := range k.secrets {
		ids[i] = s.name()
	}
	return ids
}

// Holds says whether the file has the key of this id, to open with at least.
func (k *Key) Holds(id string) bool {
	return slices.ContainsFunc(k.secrets, func(s *secret) bool { return s.name() == id })
}

// SealedBy is the id of the key that sealed this, or "" for what was not sealed.
func SealedBy(sealed []byte) string {
	if len(sealed) < headerSize || sealed[0] != format {
		return ""
	}
	return hex.EncodeToString(sealed[1:headerSize])
}

// Seal encrypts and authenticates the plaintext, and binds it to the context: who owns it and what it is for
// (see [Context]), so that it cannot be opened in another one's place. The result is 37 bytes longer.
//
// AES-256-GCM with random nonces: good for four thousand million seals a key, of at most 64 GiB each.
func (k *Key) Seal(plaintext, context []byte) []byte {
	s := k.secrets[0]
	sealed := make([]byte, headerSize, headerSize+len(plaintext)+s.aead.Overhead())
	sealed[0] = format
	copy(sealed[1:], s.id[:])
	return s.aead.Seal(sealed, nil, plaintext, additional(sealed, context))
}

// Open returns what was sealed for the context. It fails with [ErrWrongKey] or [ErrDamaged].
func (k *Key) Open(sealed, context []byte) ([]byte, error) {
	s, err := k.opener(sealed)
	if err != nil {
		return nil, err
	}
	header, rest := sealed[:headerSize], sealed[headerSize:]
	plaintext, err := s.aead.Open(nil, nil, rest, additional(header, context))
	if err != nil {
		return nil, ErrDamaged
	}
	return plaintext, nil
}

// Reseal is what was sealed, under the key that seals now. It is the same bytes where that did it already.
// It fails as [Key.Open] does.
func (k *Key) Reseal(sealed, context []byte) ([]byte, error) {
	plaintext, err := k.Open(sealed, context)
	if err != nil {
		return nil, err
	}
	if [idSize]byte(sealed[1:headerSize]) == k.secrets[0].id {
		return sealed, nil
	}
	return k.Seal(plaintext, context), nil
}

// opener is the secret that sealed this.
func (k *Key) opener(sealed []byte) (*secret, error) {
	if len(sealed) < headerSize || sealed[0] != format {
		return nil, ErrDamaged
	}
	id := [idSize]byte(sealed[1:headerSize])
	for _, s := range k.secrets {
		if s.id == id {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: %x, where the file has %s", ErrWrongKey, id, k.ID())
}

// additional is the additional data of GCM.
func additional(header, context []byte) []byte {
	return slices.Concat(header[:headerSize], context)
}

// Context makes a context of parts, such as a purpose, a tenant's id and a key's. Different parts, or the
// same ones cut or ordered in another way, make different contexts.
func Context(parts ...string) []byte {
	var c []byte
	for _, p := range parts {
		c = binary.AppendUvarint(c, uint64(len(p)))
		c = append(c, p...)
	}
	return c
}

// Derive is a key of its own for each purpose, as for a MAC, from the key that seals. It changes when the
// master key does; [Key.DeriveAll] has the former ones.
func (k *Key) Derive(purpose string) [32]byte { return k.DeriveAll(purpose)[0] }

// DeriveAll is the purpose's keys from every key of the file, that of the one that seals first.
func (k *Key) DeriveAll(purpose string) [][32]byte {
	all := make([][32]byte, len(k.secrets))
	for i, s := range k.secrets {
		all[i] = [32]byte(s.derive(infoDerive+purpose, 32))
	}
	return all
}

// String is the id, as for every other way of printing a key.
func (k Key) String() string {
	if len(k.secrets) == 0 {
		return "no master key"
	}
	return "master key " + k.ID()
}

// Format prints the id, whatever the verb; the fields of a Stringer are printed by some.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is the id.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
