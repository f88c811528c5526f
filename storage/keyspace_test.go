package storage_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/storage"
)

var alice = storage.Owner{
	Tenant:    uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"),
	Namespace: "sig",
	Subject:   "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
}

func keyspace(t testing.TB, owner storage.Owner, storeID string) storage.Keyspace {
	t.Helper()
	ks, err := storage.NewKeyspace(owner, storeID)
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

func isInvalid(err error) bool {
	invalid := (*storage.InvalidError)(nil)
	return errors.As(err, &invalid)
}

// Every stored byte is found under these. A change of them is a false "not found" for every wallet.
func TestIdentityIsFixed(t *testing.T) {
	tests := []struct{ storeID, wallet, store string }{
		{"", "8cd23fce-1dea-7301-0b5c-a086fc8ff541", "20a2a084-f930-ec34-7257-8fa041ae2f3b"},
		{"LDK_store-1", "8cd23fce-1dea-7301-0b5c-a086fc8ff541", "a3d77b61-5951-6c69-731d-aabfafc47008"},
	}
	for _, test := range tests {
		ks := keyspace(t, alice, test.storeID)
		if got := ks.Wallet().String(); got != test.wallet {
			t.Errorf("wallet %s, want %s", got, test.wallet)
		}
		if got := ks.Store().String(); got != test.store {
			t.Errorf("store %q is %s, want %s", test.storeID, got, test.store)
		}
		if ks.Owner() != alice || ks.StoreID() != test.storeID {
			t.Errorf("keyspace says owner %v and store_id %q", ks.Owner(), ks.StoreID())
		}
	}
}

// The same in the words of the comments: SHA-256 of the parts, each after its length.
func TestIdentityIsAsDescribed(t *testing.T) {
	hash := func(parts ...string) string {
		var b []byte
		for _, p := range parts {
			b = append(binary.BigEndian.AppendUint64(b, uint64(len(p))), p...)
		}
		sum := sha256.Sum256(b)
		return string(sum[:16])
	}
	ks := keyspace(t, alice, "store")
	wallet := hash(string(alice.Tenant[:]), alice.Namespace, alice.Subject)
	if got := ks.Wallet(); string(got[:]) != wallet {
		t.Errorf("wallet %s, want %x", got, wallet)
	}
	if got := ks.Store(); string(got[:]) != hash(wallet, "store") {
		t.Errorf("store %s, want %x", got, hash(wallet, "store"))
	}
}

func TestNeighboursAreStrangers(t *testing.T) {
	tenant, other := uuid.New(), uuid.New()
	wallets := make(map[storage.WalletID]storage.Owner)
	stores := make(map[storage.StoreID]string)
	for _, owner := range []storage.Owner{
		{Tenant: tenant, Namespace: "sig", Subject: "a"},
		{Tenant: other, Namespace: "sig", Subject: "a"},
		{Tenant: tenant, Namespace: "jwt:x", Subject: "a"},
		{Tenant: tenant, Namespace: "sig", Subject: "A"},
		{Tenant: tenant, Namespace: "sig", Subject: "a "},
		{Tenant: tenant, Namespace: "siga", Subject: "a"},
		{Tenant: tenant, Namespace: "si", Subject: "ga"},
		{Tenant: tenant, Namespace: "s", Subject: "iga"},
		{Tenant: tenant, Namespace: "sig", Subject: "é"},
		{Tenant: tenant, Namespace: "sig", Subject: "e\u0301"},
	} {
		for _, storeID := range []string{"", "s", "S", "s ", "ss", "a"} {
			ks := keyspace(t, owner, storeID)
			if twin, ok := wallets[ks.Wallet()]; ok && twin != owner {
				t.Errorf("%v is %v", owner, twin)
			}
			if twin, ok := stores[ks.Store()]; ok {
				t.Errorf("store %q of %v is %s", storeID, owner, twin)
			}
			wallets[ks.Wallet()] = owner
			stores[ks.Store()] = owner.Subject + "/" + storeID
		}
	}
}

func TestKeyspaceLimits(t *testing.T) {
	tests := []struct {
		what             string
		subject, storeID string
		valid            bool
	}{
		{"no store_id", "a", "", true},
		{"the longest store_id", "a", strings.Repeat("a", 120), true},
		{"the longest store_id of 4-byte characters", "a", strings.Repeat("😀", 120), true},
		{"a store_id too long", "a", strings.Repeat("a", 121), false},
		{"a store_id with NUL", "a", "a\x00", false},
		{"a store_id that is no text", "a", "\xff", false},
		{"the longest subject", strings.Repeat("a", 255), "s", true},
		{"the longest subject of 4-byte characters", strings.Repeat("😀", 255), "s", true},
		{"a subject too long", strings.Repeat("a", 256), "s", false},
		{"no subject", "", "s", false},
		{"a subject with NUL", "\x00", "s", false},
		{"a subject that is no text", "a\xc3", "s", false},
	}
	for _, test := range tests {
		owner := alice
		owner.Subject = test.subject
		ks, err := storage.NewKeyspace(owner, test.storeID)
		if (err == nil) != test.valid || err != nil && !isInvalid(err) {
			t.Errorf("%s: error %v, want valid %t", test.what, err, test.valid)
		}
		if err != nil && ks != (storage.Keyspace{}) {
			t.Errorf("%s: a keyspace besides the error", test.what)
		}
	}
}

func FuzzNewKeyspace(f *testing.F) {
	f.Add("subject", "store")
	f.Add("a", "")
	f.Add("\x00", "\xff")
	f.Add(strings.Repeat("😀", 255), strings.Repeat("é", 121))
	f.Fuzz(func(t *testing.T, subject, storeID string) {
		owner := alice
		owner.Subject = subject
		ks, err := storage.NewKeyspace(owner, storeID)
		if want := isText(subject, 1, 255) && isText(storeID, 0, 120); (err == nil) != want {
			t.Fatalf("error %v for subject %q and store_id %q", err, subject, storeID)
		}
		if err != nil {
			if !isInvalid(err) {
				t.Fatalf("error %v is not an InvalidError", err)
			}
			return
		}
		if again := keyspace(t, ks.Owner(), ks.StoreID()); again != ks {
			t.Fatalf("%v, then %v", ks, again)
		}
		if ks.Store() == keyspace(t, owner, "another store, of a name that is not fuzzed").Store() {
			t.Fatal("two stores are one")
		}
	})
}
