package storage

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/uuid"
)

// Owner is the wallet that a verified credential names. The three together are its identity, fixed from
// the first byte on (CONTRACT section 4).
type Owner struct {
	Tenant    uuid.UUID
	Namespace string // of the credential source, so that no scheme can name another scheme's wallet
	Subject   string // within the namespace: a public key in lower-case hex, or a token's sub
}

// WalletID identifies a wallet: the first 16 bytes of the SHA-256 of its owner.
type WalletID uuid.UUID

// StoreID identifies a store of a wallet: the first 16 bytes of the SHA-256 of the wallet and the
// contract's store_id. It is the first column of every hot table, so no look-up precedes a read or a write.
type StoreID uuid.UUID

func (id WalletID) String() string { return uuid.UUID(id).String() }
func (id StoreID) String() string  { return uuid.UUID(id).String() }

// Wallet names the owner's wallet without naming the owner.
func (o Owner) Wallet() WalletID {
	return WalletID(digest(o.Tenant[:], []byte(o.Namespace), []byte(o.Subject)))
}

// Keyspace is the scope of every call: one store of one wallet of one tenant. It is made from an
// authenticated caller only; no unscoped method exists.
type Keyspace struct {
	owner   Owner
	storeID string
	wallet  WalletID
	store   StoreID
}

// NewKeyspace is the keyspace of the owner's store that the contract calls storeID, which may be empty.
// It fails with an [*InvalidError] for a storeID or an owner that the contract forbids.
func NewKeyspace(owner Owner, storeID string) (Keyspace, error) {
	if err := checkText("store_id", storeID, 0, MaxStoreIDLength); err != nil {
		return Keyspace{}, err
	}
	if err := checkText("user id", owner.Subject, 1, MaxSubjectLength); err != nil {
		return Keyspace{}, err
	}
	if err := checkText("namespace", owner.Namespace, 1, MaxNamespaceLength); err != nil {
		return Keyspace{}, err
	}
	wallet := owner.Wallet()
	return Keyspace{
		owner:   owner,
		storeID: storeID,
		wallet:  wallet,
		store:   StoreID(digest(wallet[:], []byte(storeID))),
	}, nil
}

func (ks Keyspace) Owner() Owner     { return ks.owner }
func (ks Keyspace) StoreID() string  { return ks.storeID } // as the contract's requests name it
func (ks Keyspace) Wallet() WalletID { return ks.wallet }
func (ks Keyspace) Store() StoreID   { return ks.store }

// digest hashes the parts length-prefixed, so that no two lists of parts collide by where they are cut.
func digest(parts ...[]byte) [16]byte {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return [16]byte(h.Sum(nil))
}
