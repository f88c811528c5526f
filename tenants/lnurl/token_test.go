package lnurl

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"
)

// verified is the claims of a token, which must be one that is made of what the set of keys publishes, and
// have the form that clients ask for.
func verified(t *testing.T, jwks []byte, token string) map[string]any {
	t.Helper()
	decode := func(s string) []byte {
		b, err := base64.RawURLEncoding.Strict().DecodeString(s)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return b
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q has %d parts", token, len(parts))
	}
	var header map[string]string
	if err := json.Unmarshal(decode(parts[0]), &header); err != nil {
		t.Fatal(err)
	}
	if len(header) != 3 || header["alg"] != "ES256" || header["typ"] != "JWT" {
		t.Errorf("header %v", header)
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(jwks, &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		if k["kid"] != header["kid"] {
			continue
		}
		if k["kty"] != "EC" || k["crv"] != "P-256" || k["alg"] != "ES256" || k["use"] != "sig" || len(k) != 7 {
			t.Errorf("key %v", k)
		}
		point := bytes.Join([][]byte{{4}, decode(k["x"]), decode(k["y"])}, nil)
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		sig := decode(parts[2])
		if len(sig) != 64 || !ecdsa.Verify(public, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
			t.Errorf("the signature of %s is wrong", token)
		}
		var claims map[string]any
		d := json.NewDecoder(bytes.NewReader(decode(parts[1])))
		d.UseNumber() // as they are written
		if err := d.Decode(&claims); err != nil {
			t.Fatal(err)
		}
		return claims
	}
	t.Fatalf("no key %q in %s", header["kid"], jwks)
	return nil
}

func wantClaims(t *testing.T, claims map[string]any, want map[string]any) {
	t.Helper()
	if got, want := fmt.Sprint(claims), fmt.Sprint(want); got != want {
		t.Errorf("claims %v, want %v", got, want)
	}
}

func TestATokenSaysWhoAndHowLong(t *testing.T) {
	t.Parallel()
	k := NewSigningKey()
	now := time.Unix(1700000000, 999_999_999)
	for _, v := range []struct {
		life    time.Duration
		expires int64
	}{
		{0, 1700003600},
		{2 * time.Hour, 1700007200},
		{MinTokenLife, 1700000300},
		{MinTokenLife + 1500*time.Millisecond, 1700000301}, // whole seconds
		{MinTokenLife - 1, 1700000300},
		{time.Second, 1700000300},
		{-time.Hour, 1700000300},
	} {
		claims := verified(t, JWKS(k.Public()), k.Sign(keyOne, "", now, v.life))
		wantClaims(t, claims, map[string]any{"sub": keyOne, "iat": 1700000000, "exp": v.expires})
	}
	claims := verified(t, JWKS(k.Public()), k.Sign(keyOne, `https://a"<b>`, now, 0))
	wantClaims(t, claims, map[string]any{"iss": `https://a"<b>`, "sub": keyOne, "iat": 1700000000, "exp": 1700003600})
}

func TestATokenOfAnOldKeyVerifiesWhileItIsPublished(t *testing.T) {
	t.Parallel()
	old, next := NewSigningKey(), NewSigningKey()
	tokens := []string{old.Sign(keyOne, "", time.Now(), 0), next.Sign(keyOne, "", time.Now(), 0)}
	for _, token := range tokens {
		verified(t, JWKS(next.Public(), old.Public()), token)
	}
	if old.ID() == next.ID() {
		t.Error("two keys have one id")
	}
	if bytes.Contains(JWKS(next.Public()), []byte(old.ID())) {
		t.Error("the old key is published on")
	}
	if got := string(JWKS()); got != `{"keys":[]}` {
		t.Errorf("no keys are published as %s", got)
	}
}

// The key of RFC 7515, appendix A.3. Its thumbprint was made by another implementation.
const (
	rfcX          = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	rfcY          = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	rfcD          = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
	rfcThumbprint = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
)

func rfcKey(t *testing.T) *SigningKey {
	t.Helper()
	d, err := base64.RawURLEncoding.DecodeString(rfcD)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseSigningKey(pkcs8(t, private))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestThePublicKeyOfRFC7515(t *testing.T) {
	t.Parallel()
	k := rfcKey(t)
	want := `{"keys":[{"kty":"EC","crv":"P-256","x":"` + rfcX + `","y":"` + rfcY + `","alg":"ES256","use":"sig","kid":"` + rfcThumbprint + `"}]}`
	if got := string(JWKS(k.Public())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	verified(t, []byte(want), k.Sign(keyOne, "", time.Now(), 0))
}

func TestASigningKeyIsStoredAndReadAgain(t *testing.T) {
	t.Parallel()
	k := NewSigningKey()
	again, err := ParseSigningKey(k.PKCS8())
	if err != nil {
		t.Fatal(err)
	}
	if again.Public() != k.Public() || again.ID() != k.ID() || again.ID() != k.Public().ID {
		t.Errorf("%v was read as %v", k, again)
	}
	verified(t, JWKS(k.Public()), again.Sign(keyOne, "", time.Now(), 0))

	// The public half alone, as it is stored for when the private one is gone.
	stored, err := json.Marshal(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	var public JWK
	if err := json.Unmarshal(stored, &public); err != nil || public != k.Public() {
		t.Errorf("%s was read as %+v, %v", stored, public, err)
	}
}

func TestOtherKeysAreNoSigningKeys(t *testing.T) {
	t.Parallel()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"nothing": nil,
		"text":    []byte("-----BEGIN PRIVATE KEY-----"),
		"P-384":   pkcs8(t, p384),
		"Ed25519": pkcs8(t, edwards),
		"SEC 1":   sec1,
		"cut":     pkcs8(t, p256)[1:],
	} {
		if k, err := ParseSigningKey(der); err == nil {
			t.Errorf("%s: read as %v", name, k)
		}
	}
}

func TestASigningKeyIsNeverPrinted(t *testing.T) {
	t.Parallel()
	k := rfcKey(t)
	d, err := k.private().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	site := Site{Key: k}
	inside := struct{ k SigningKey }{*k} // unexported, so that fmt cannot call its methods
	var printed strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%o", "%b", "%U", "%t"} {
		for _, v := range []any{k, *k, []*SigningKey{k}, site, &site, inside, &inside} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&printed, nil), slog.NewJSONHandler(&printed, nil)} {
		slog.New(h).Info("key", "k", k, "v", *k, "s", site, "i", inside)
	}
	if err := json.NewEncoder(&printed).Encode([]any{k, *k, site, inside}); err != nil {
		t.Fatal(err)
	}
	private := new(big.Int).SetBytes(d)
	for _, secret := range []string{
		rfcD, fmt.Sprintf("%x", d)[8:24], strings.Trim(fmt.Sprintf("%d", d[:6]), "[]"), private.String()[:16],
		fmt.Sprint(private.Bits()[0]), fmt.Sprintf("%x", private.Bits()[0]),
	} {
		if strings.Contains(strings.ToLower(printed.String()), strings.ToLower(secret)) {
			t.Errorf("printed with %q:\n%s", secret, &printed)
		}
	}
	if got, want := fmt.Sprint(k), "signing key "+rfcThumbprint; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func BenchmarkSign(b *testing.B) {
	k := NewSigningKey()
	b.ReportAllocs()
	for b.Loop() {
		k.Sign(keyOne, "https://auth.example.com", time.Now(), 0)
	}
}
