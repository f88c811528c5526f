package callers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/tenants"
)

// Tokens made by another implementation (plain integers, nonces by RFC 6979) for the private keys 1, 2 and
// order-1, at 1700000000.
const (
	keyOne        = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	sigOne        = "8f4f1d10a1b1872035dfe81b73c1c4b5ce4f436a4113c856d4b32570292d6ada2aa28a4d10d0dd040d1fed3f4b37ae0dfcc32759168a628e3601abb5759b839e"
	keyTwo        = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
	sigTwo        = "d43aae5d78919b13d6554e3fbb95a6cfdc4b5df8d7cd3173c15950acdedf7bbd002160aeb7f4a822e1aa4651a96e90a1eb15597035e7b4395c652c1c6b8ea81a"
	keyLast       = "0379be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
	sigLast       = "e6469369df7584618b191ae402646a5667f6864484626e47faeaa807e0f9e5761d8586265e79ee8c98612651e906f0a67cca4661a73a9a7380de75039d86c5cf"
	vectorTime    = "1700000000"
	vectorSeconds = 1700000000
)

const groupOrder = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"

var verifiers = map[string]verifier{"of this build": verifyECDSA, "in Go": verifyDecred}

// authenticatorAt verifies as the given build does, and thinks it is then.
func authenticatorAt(then time.Time, verify verifier) *Authenticator {
	a := NewAuthenticator(AuthenticatorConfig{Now: func() time.Time { return then }})
	a.ecdsa = verify
	return a
}

func signingTenant(window time.Duration) *Tenant {
	return prepared(tenants.Source{Name: "signature", Kind: tenants.Signature, Namespace: "sig", Window: window})
}

// prepared is a tenant of these sources, as a directory hands it out.
func prepared(sources ...tenants.Source) *Tenant {
	t := &Tenant{Tenant: &tenants.Tenant{State: tenants.Active, Sources: sources, Gate: tenants.Gate{State: tenants.GateOff}}}
	t.schemes = prepare(t.Tenant, nil, slog.Default())
	return t
}

// with are headers with these credentials.
func with(authorization ...string) http.Header {
	if authorization == nil {
		return http.Header{}
	}
	return http.Header{"Authorization": authorization}
}

// signToken is what a wallet sends that signs at this time.
func signToken(key *secp256k1.PrivateKey, seconds uint64) string {
	t := signatureToken{key: [keySize]byte(key.PubKey().SerializeCompressed()), seconds: seconds}
	digest := t.digest()
	sig := ecdsa.Sign(key, digest[:])
	r, s := sig.R(), sig.S()
	rb, sb := r.Bytes(), s.Bytes()
	return hex.EncodeToString(t.key[:]) + hex.EncodeToString(rb[:]) + hex.EncodeToString(sb[:]) + strconv.FormatUint(seconds, 10)
}

func privateKey(n byte) *secp256k1.PrivateKey { return secp256k1.PrivKeyFromBytes([]byte{n}) }

// highS is the other signature that the same key, digest and r allow.
func highS(sig string) string {
	raw, err := hex.DecodeString(sig[64:])
	if err != nil {
		panic(err)
	}
	var s secp256k1.ModNScalar
	s.SetByteSlice(raw)
	b := s.Negate().Bytes()
	return sig[:64] + hex.EncodeToString(b[:])
}

func flip(s string, i int) string {
	c := byte('0')
	if s[i] == '0' {
		c = '1'
	}
	return s[:i] + string(c) + s[i+1:]
}

func mixedCase(s string) string {
	b := []byte(s)
	for i := range b {
		if i%3 == 0 {
			b[i] = strings.ToUpper(s)[i]
		}
	}
	return string(b)
}

func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	const zero = "0000000000000000000000000000000000000000000000000000000000000000"
	vectors := []struct {
		name, token, reason, subject string
	}{
		{name: "valid, key 1", token: keyOne + sigOne + vectorTime, subject: keyOne},
		{name: "valid, key 2", token: keyTwo + sigTwo + vectorTime, subject: keyTwo},
		{name: "valid, last key", token: keyLast + sigLast + vectorTime, subject: keyLast},
		{name: "upper-case hex", token: strings.ToUpper(keyOne+sigOne) + vectorTime, subject: keyOne},
		{name: "mixed-case hex", token: mixedCase(keyOne+sigOne) + vectorTime, subject: keyOne},

		{name: "another key's", token: keyTwo + sigOne + vectorTime, reason: reasonMismatch},
		{name: "the same x, the other y", token: keyLast + sigOne + vectorTime, reason: reasonMismatch},
		{name: "another time's", token: keyOne + sigOne + "1700000001", reason: reasonMismatch},
		{name: "a digit of the key changed", token: flip(keyOne, 20) + sigOne + vectorTime, reason: reasonMismatch},
		{name: "a digit of r changed", token: keyOne + flip(sigOne, 7) + vectorTime, reason: reasonMismatch},
		{name: "a digit of s changed", token: keyOne + flip(sigOne, 100) + vectorTime, reason: reasonMismatch},
		{name: "high s", token: keyOne + highS(sigOne) + vectorTime, reason: reasonHighS},
		{name: "r is zero", token: keyOne + zero + sigOne[64:] + vectorTime, reason: reasonMismatch},
		{name: "s is zero", token: keyOne + sigOne[:64] + zero + vectorTime, reason: reasonMismatch},
		{name: "r and s are zero", token: keyOne + zero + zero + vectorTime, reason: reasonMismatch},
		{name: "r is the order", token: keyOne + groupOrder + sigOne[64:] + vectorTime, reason: reasonMismatch},
		{name: "r is all ones", token: keyOne + strings.Repeat("f", 64) + sigOne[64:] + vectorTime, reason: reasonMismatch},
		{name: "s is the order", token: keyOne + sigOne[:64] + groupOrder + vectorTime, reason: reasonHighS},
		{name: "s is half the order", token: keyOne + sigOne[:64] + hex.EncodeToString(halfOrder[:]) + vectorTime, reason: reasonMismatch},
		{name: "s is half the order and one", token: keyOne + sigOne[:64] + hex.EncodeToString(halfOrder[:31]) + "a1" + vectorTime, reason: reasonHighS},
		{name: "x is not on the curve", token: "02" + zero[:62] + "05" + sigOne + vectorTime, reason: reasonMismatch},
		{name: "x is not in the field", token: "02" + strings.Repeat("f", 64) + sigOne + vectorTime, reason: reasonMismatch},
		{name: "prefix of an uncompressed key", token: "04" + keyOne[2:] + sigOne + vectorTime, reason: reasonKey},
		{name: "prefix of a hybrid key", token: "06" + keyOne[2:] + sigOne + vectorTime, reason: reasonKey},
		{name: "prefix zero", token: "00" + keyOne[2:] + sigOne + vectorTime, reason: reasonKey},
		{name: "x-only key", token: keyOne[2:] + sigOne + vectorTime, reason: reasonKey},
		{name: "uncompressed key", token: "04" + keyOne[2:] + strings.Repeat("1", 64) + sigOne + vectorTime, reason: reasonKey},

		{name: "empty", token: "", reason: reasonForm},
		{name: "the key alone", token: keyOne, reason: reasonForm},
		{name: "no time", token: keyOne + sigOne, reason: reasonForm},
		{name: "a digit too few", token: keyOne + sigOne[1:] + vectorTime, reason: reasonWindow},
		{name: "trailing garbage", token: keyOne + sigOne + vectorTime + "x", reason: reasonTime},
		{name: "trailing space", token: keyOne + sigOne + vectorTime + " ", reason: reasonTime},
		{name: "trailing newline", token: keyOne + sigOne + vectorTime + "\n", reason: reasonTime},
		{name: "trailing NUL", token: keyOne + sigOne + vectorTime + "\x00", reason: reasonTime},
		{name: "leading space", token: " " + keyOne + sigOne + vectorTime, reason: reasonForm},
		{name: "a space between key and signature", token: keyOne + " " + sigOne + vectorTime, reason: reasonForm},
		{name: "a space before the time", token: keyOne + sigOne + " " + vectorTime, reason: reasonTime},
		{name: "0x before the key", token: "0x" + keyOne + sigOne + vectorTime, reason: reasonForm},
		{name: "two tokens in one header", token: keyOne + sigOne + vectorTime + ", " + keyOne + sigOne + vectorTime, reason: reasonTime},
		{name: "a letter that is no hex", token: "g" + keyOne[1:] + sigOne + vectorTime, reason: reasonForm},
		{name: "full-width digits", token: keyOne + sigOne + "１７００００００００", reason: reasonTime},
		{name: "Arabic digits", token: keyOne + sigOne + "١٧٠٠٠٠٠٠٠٠", reason: reasonTime},
		{name: "a leading zero", token: keyOne + sigOne + "0" + vectorTime, reason: reasonTime},
		{name: "a plus sign", token: keyOne + sigOne + "+" + vectorTime, reason: reasonTime},
		{name: "a minus sign", token: keyOne + sigOne + "-" + vectorTime, reason: reasonTime},
		{name: "a fraction", token: keyOne + sigOne + vectorTime + ".0", reason: reasonTime},
		{name: "an exponent", token: keyOne + sigOne + "17e8", reason: reasonTime},
		{name: "an underscore", token: keyOne + sigOne + "1_700_000_000", reason: reasonTime},
		{name: "milliseconds", token: keyOne + sigOne + vectorTime + "000", reason: reasonWindow},
		{name: "time zero", token: keyOne + sigOne + "0", reason: reasonWindow},
		{name: "the last time of 63 bits", token: keyOne + sigOne + "9223372036854775807", reason: reasonWindow},
		{name: "one later", token: keyOne + sigOne + "9223372036854775808", reason: reasonWindow},
		{name: "the last time of 64 bits", token: keyOne + sigOne + "18446744073709551615", reason: reasonWindow},
		{name: "one later", token: keyOne + sigOne + "18446744073709551616", reason: reasonTime},
		{name: "20 nines", token: keyOne + sigOne + strings.Repeat("9", 20), reason: reasonTime},
		{name: "21 digits", token: keyOne + sigOne + strings.Repeat("1", 21), reason: reasonTime},

		{name: "32 KiB", token: strings.Repeat("1", maxAuthorization), reason: reasonKey},
		{name: "a byte more", token: strings.Repeat("1", maxAuthorization+1), reason: reasonLong},
		{name: "1 MiB", token: strings.Repeat("1", 1<<20), reason: reasonLong},
		{name: "a bearer token", token: "Bearer eyJhbGciOiJub25lIn0.e30.", reason: reasonNoSource},
		{name: "a bearer token that is one of ours", token: "bearer " + keyOne + sigOne + vectorTime, reason: reasonNoSource},
		{name: "basic authentication", token: "Basic " + keyOne + sigOne + vectorTime, reason: reasonForm},
	}
	for name, verify := range verifiers {
		a := authenticatorAt(time.Unix(vectorSeconds, 0), verify)
		for _, v := range vectors {
			t.Run(name+"/"+v.name, func(t *testing.T) {
				tenant := signingTenant(tenants.MaxSignatureWindow)
				caller, err := a.Authenticate(context.Background(), tenant, with(v.token), netip.Addr{})
				if v.reason != "" {
					wantAuthError(t, err, v.reason)
					if caller != (Caller{}) {
						t.Errorf("a refused credential names the caller %+v", caller)
					}
					return
				}
				if want := (Caller{tenant, &tenant.Sources[0], v.subject}); err != nil || caller != want {
					t.Errorf("got %+v, %v; want %+v", caller, err, want)
				}
			})
		}
	}
}

func wantAuthError(t *testing.T, err error, reason string) {
	t.Helper()
	if e, ok := errors.AsType[*AuthError](err); !ok || e.Reason != reason {
		t.Errorf("got %v, want the AuthError %q", err, reason)
	}
}

func TestAVerifierTakesAnRWhosePointLiesBeyondTheOrder(t *testing.T) {
	t.Parallel()
	// The point of the nonce has the x coordinate order+2, so r is 2. Nobody knows the nonce: s and the digest
	// were chosen, and the key computed from them.
	key, err := hex.DecodeString("03995afa7d4dec8b0d3ff46caf4c4a15972c0f7722f343b9b0f8d6d0ea7b5bb81a")
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("x"))
	sig := [signatureSize]byte{31: 2, 62: 12345 >> 8, 63: 12345 & 0xff}
	for name, verify := range verifiers {
		if !verify((*[keySize]byte)(key), &digest, &sig) {
			t.Errorf("%s: refused", name)
		}
	}
}

func TestBothVerifiersAgreeOnDamagedSignatures(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 2000 {
		token, err := parseSignatureToken(signToken(privateKey(byte(1+rng.IntN(255))), rng.Uint64()>>rng.IntN(40)))
		if err != nil {
			t.Fatal(err)
		}
		switch rng.IntN(4) {
		case 0:
			token.key[1+rng.IntN(32)] ^= 1 << rng.IntN(8)
		case 1:
			token.sig[rng.IntN(64)] ^= 1 << rng.IntN(8)
		case 2:
			token.seconds ^= 1 << rng.IntN(64)
		}
		ours, decreds := token.verify(verifyECDSA), token.verify(verifyDecred)
		if fmt.Sprint(ours) != fmt.Sprint(decreds) {
			t.Fatalf("%+v: of this build %v, in Go %v", token, ours, decreds)
		}
		if ours == nil {
			accepted++
		}
	}
	if accepted < 300 || accepted > 700 {
		t.Errorf("%d of 2000 were accepted, and about 500 were not damaged", accepted)
	}
}

func TestASignatureHoldsForTheTenantsWindowEitherWay(t *testing.T) {
	t.Parallel()
	const second = time.Second
	for _, window := range []time.Duration{tenants.MinSignatureWindow, time.Hour, tenants.MaxSignatureWindow} {
		for _, tc := range []struct {
			distance time.Duration // of the token's time from now
			reason   string
		}{
			{0, ""},
			{window - second, ""}, {window, ""}, {window + second, reasonWindow},
			{-window + second, ""}, {-window, ""}, {-window - second, reasonWindow},
			{200 * 365 * 24 * time.Hour, reasonWindow}, {-50 * 365 * 24 * time.Hour, reasonWindow},
		} {
			// Parts of a second are not looked at.
			now := time.Unix(vectorSeconds, 999_999_999)
			a := authenticatorAt(now, verifyECDSA)
			token := signToken(privateKey(7), uint64(vectorSeconds+int64(tc.distance/second)))
			_, err := a.Authenticate(context.Background(), signingTenant(window), with(token), netip.Addr{})
			if tc.reason != "" {
				wantAuthError(t, err, tc.reason)
			} else if err != nil {
				t.Errorf("window %v, token's time %v from now: %v", window, tc.distance, err)
			}
		}
	}
}

func TestATimeOutsideTheWindowCostsNoCurveArithmetic(t *testing.T) {
	t.Parallel()
	a := authenticatorAt(time.Unix(vectorSeconds+86401, 0), func(*[keySize]byte, *[sha256.Size]byte, *[signatureSize]byte) bool {
		t.Error("the signature was verified")
		return true
	})
	_, err := a.Authenticate(context.Background(), signingTenant(tenants.MaxSignatureWindow), with(keyOne+sigOne+vectorTime), netip.Addr{})
	wantAuthError(t, err, reasonWindow)
}

func TestExactlyOneAuthorizationHeaderIsTaken(t *testing.T) {
	t.Parallel()
	a := authenticatorAt(time.Unix(vectorSeconds, 0), verifyECDSA)
	valid := keyOne + sigOne + vectorTime
	for reason, headers := range map[string][][]string{
		reasonMissing: {nil, {}},
		reasonSeveral: {{valid, valid}, {valid, ""}, {"", valid}, {"", ""}, {valid, valid, valid}},
	} {
		for _, h := range headers {
			_, err := a.Authenticate(context.Background(), signingTenant(time.Hour), with(h...), netip.Addr{})
			wantAuthError(t, err, reason)
		}
	}
}

func TestASignatureIsRefusedByATenantWithoutASourceForIt(t *testing.T) {
	t.Parallel()
	a := authenticatorAt(time.Unix(vectorSeconds, 0), verifyECDSA)
	for _, sources := range [][]tenants.Source{nil, {{Name: "lnurl", Kind: tenants.LNURL, Namespace: "sig", Window: time.Hour, Rules: loginRules(uuid.New())}}} {
		_, err := a.Authenticate(context.Background(), prepared(sources...), with(keyOne+sigOne+vectorTime), netip.Addr{})
		wantAuthError(t, err, reasonNoSource)
	}
}

func FuzzParseSignatureToken(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		token, err := parseSignatureToken(s)
		if err != nil {
			if _, ok := errors.AsType[*AuthError](err); !ok {
				t.Errorf("%v is no AuthError", err)
			}
			return
		}
		// There is one text for a token, but for the case of its hex.
		canonical := token.subject() + hex.EncodeToString(token.sig[:]) + strconv.FormatUint(token.seconds, 10)
		if strings.ToLower(s) != canonical {
			t.Errorf("%q was read as %q", s, canonical)
		}
		if len(token.subject()) != 66 {
			t.Errorf("subject %q", token.subject())
		}
	})
}

func BenchmarkRefuseSignature(b *testing.B) {
	tenant := signingTenant(tenants.MaxSignatureWindow)
	a := authenticatorAt(time.Unix(vectorSeconds, 0), verifyECDSA)
	for name, token := range map[string]string{
		"stale":  keyOne + sigOne + "1600000000",
		"1MiB":   strings.Repeat("1", 1<<20),
		"high-s": keyOne + highS(sigOne) + vectorTime,
	} {
		b.Run(name, func(b *testing.B) {
			header := with(token)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Authenticate(context.Background(), tenant, header, netip.Addr{}); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
