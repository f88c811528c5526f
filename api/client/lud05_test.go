package client

import (
	"encoding/hex"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func key32(t *testing.T, text string) [32]byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 32 {
		t.Fatalf("%q: %v", text, err)
	}
	return [32]byte(raw)
}

func TestChildrenAreThoseOfBIP32(t *testing.T) {
	seed, err := hex.DecodeString("000102030405060708090a0b0c0d0e0f") // its first test vector
	if err != nil {
		t.Fatal(err)
	}
	k, err := masterKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		index uint32
		want  string
	}{
		{hardened + 0, "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea"},
		{1, "3c6cb8d0f6a264c91ea8b5030fadaa8e538b020f0a387421a12de9319dc93368"},
		{hardened + 2, "cbce0d719ecf7431d88e6a89fa1483e02e35092af60c042b1df2ff59fa424dca"},
	} {
		if k, err = k.child(step.index); err != nil || k.key != key32(t, step.want) {
			t.Errorf("child %d is %x, %v, want %s", step.index, k.key, err, step.want)
		}
	}
}

func TestLinkingPathsAreThoseOfLUD05(t *testing.T) {
	hashing := key32(t, "7d417a6a5e9a6a4a879aeaba11a11838764c8fa2b959c242d43dea682b3e409b") // its test vector
	if path := linkingPath(hashing, "site.com"); path != [4]uint32{1588488367, 2659270754, 38110259, 4136336762} {
		t.Errorf("path %v", path)
	}
}

func TestLinkingKeysAreThoseOfVSSClient(t *testing.T) {
	seed := key32(t, "abababababababababababababababababababababababababababababababab")
	master, err := masterKey(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	got, err := LUD05FromParent(master.key, master.chain)("example.com")
	const want = "02d9eb1b467517d685e3b5439082c14bb1a2c9ae672df4d9046d208c193a5846e0"
	if public := hex.EncodeToString(secp256k1.PrivKeyFromBytes(got[:]).PubKey().SerializeCompressed()); err != nil || public != want {
		t.Errorf("%s, %v, want %s", public, err, want)
	}
	parent, err := master.child(hardened + 138)
	if err != nil {
		t.Fatal(err)
	}
	a, err1 := LUD05(seed[:])("example.com")
	b, err2 := LUD05FromParent(parent.key, parent.chain)("example.com")
	other, err3 := LUD05(seed[:])("example.org")
	if err1 != nil || err2 != nil || err3 != nil || a != b || a == other {
		t.Errorf("from the seed %x, %v; from m/138' %x, %v; of another host %x, %v", a, err1, b, err2, other, err3)
	}
}

func TestAKeyThatNothingDerivesFromIsRefused(t *testing.T) {
	for name, key := range map[string]LinkingKey{
		"a short seed": LUD05(make([]byte, 15)), "a long seed": LUD05(make([]byte, 65)), "a parent of zero": LUD05FromParent([32]byte{}, [32]byte{}),
	} {
		if _, err := key("example.com"); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
