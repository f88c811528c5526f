package client_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/vss-cloud/vss-cloud/api/client"
)

func secret(t *testing.T, fill func(i int) byte) [32]byte {
	t.Helper()
	var key [32]byte
	for i := range key {
		key[i] = fill(i)
	}
	return key
}

// The tokens are those of libsecp256k1, which vss-client uses, for the secret key 01 02 .. 20.
func TestTokensAreByteForByteThoseOfVSSClient(t *testing.T) {
	const public = "0284bf7562262bbd6940085748f3be6afa52ae317155181ece31b66351ccffa4b0"
	auth, err := client.NewSignatureAuth(secret(t, func(i int) byte { return byte(i + 1) }))
	if err != nil {
		t.Fatal(err)
	}
	if auth.Subject() != public {
		t.Errorf("subject %s, want %s", auth.Subject(), public)
	}
	for seconds, signature := range map[int64]string{
		0: "e86e3a985d939e3755f37c4d2649187aab19d7068f0dd96b2af2ff85c024da16" +
			"3f9853287879dfe376824e9f1d0dceeebe9c67e5e30a728ff2c75cbf57a24547",
		1700000000: "8b2b511b1e3bbaa5002ebce9e8c4ad41ec03a69c0739938577105c883f2897d9" +
			"42803c36c06f808785ad273c1e5fa615f1fbf6142229a2b74f43a752b2f89dab",
		1764000000: "452a9a648c6c84c8d50e431dca1d41125b8291e1f8d056700ace83899062e7c2" +
			"5aeb13ca740511fc9ad60848b10125273f5f4d06fb6a0f15af33f4e262ddb37c",
	} {
		token, err := auth.Authorization(t.Context(), time.Unix(seconds, 999))
		if want := fmt.Sprint(public, signature, seconds); err != nil || token != want {
			t.Errorf("token %s, %v, want %s", token, err, want)
		}
	}
}

func TestATokenSignsTheConstantTheKeyAndTheTimeWithALowS(t *testing.T) {
	const constant = "VSS Signature Authorizer Signing Salt Constant.................."
	if len(constant) != 64 || strings.TrimRight(constant, ".") != constant[:46] {
		t.Fatal("not 46 characters padded with dots to 64")
	}
	for n := range 50 {
		auth, err := client.NewSignatureAuth(secret(t, func(i int) byte { return byte(n*37 + i*11) }))
		if err != nil {
			t.Fatal(err)
		}
		token, err := auth.Authorization(t.Context(), time.Unix(1_700_000_000+int64(n), 0))
		if err != nil {
			t.Fatal(err)
		}
		fields, err := hex.DecodeString(token[:2*(33+64)])
		if err != nil || strings.ToLower(token) != token {
			t.Fatalf("token %s: %v", token, err)
		}
		key, err := secp256k1.ParsePubKey(fields[:33])
		if err != nil {
			t.Fatal(err)
		}
		var r, s secp256k1.ModNScalar
		if r.SetByteSlice(fields[33:65]) || s.SetByteSlice(fields[65:]) || s.IsOverHalfOrder() {
			t.Errorf("token %s has r or s out of range", token)
		}
		digest := sha256.Sum256([]byte(constant + string(fields[:33]) + token[2*(33+64):]))
		if !ecdsa.NewSignature(&r, &s).Verify(digest[:], key) {
			t.Errorf("token %s does not verify", token)
		}
	}
}

func TestASecretKeyOutOfRangeIsRefused(t *testing.T) {
	order, err := hex.DecodeString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][32]byte{{}, [32]byte(order), secret(t, func(int) byte { return 0xff })} {
		if _, err := client.NewSignatureAuth(bad); err == nil {
			t.Errorf("%x was taken", bad)
		}
	}
	below := [32]byte(order)
	below[31]--
	if _, err := client.NewSignatureAuth(below); err != nil {
		t.Errorf("the highest key: %v", err)
	}
}

func TestATimeBefore1970IsRefused(t *testing.T) {
	auth, err := client.NewSignatureAuth(secret(t, func(int) byte { return 1 }))
	if err != nil {
		t.Fatal(err)
	}
	if token, err := auth.Authorization(t.Context(), time.Unix(-1, 0)); err == nil {
		t.Errorf("token %s", token)
	}
}

func TestPrintingASignatureAuthDoesNotShowItsKey(t *testing.T) {
	auth, err := client.NewSignatureAuth(secret(t, func(int) byte { return 0xab }))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, auth); s != "signature of "+auth.Subject() {
			t.Errorf("%s prints %s", format, s)
		}
	}
}
