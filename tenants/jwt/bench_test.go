package jwt

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// A cold verification: nothing of the token was seen before.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range Algorithms() {
		i := issuerOf(alg).named("k1")
		b.Run(alg, func(b *testing.B) {
			set, rules := i.set(), Standard()
			token := i.token(`{"iss":"https://issuer.example","sub":"alice","aud":"vss","iat":1700000000,"nbf":1700000000,"exp":1700003600,"jti":"0c5f"}`)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := set.Verify(token, rules, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a verification costs against its price. Between kinds of keys the ratio should be about the same.
func BenchmarkPrice(b *testing.B) {
	measure := func(name, alg string, k Key, sig []byte) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				VerifySignature(alg, k.public, []byte("x.y"), sig)
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(k.price), "cost/price")
		})
	}
	for _, alg := range []string{"ES256", "ES384", "ES512", "ES256K", "EdDSA"} {
		measure(alg+"/good", alg, issuerOf(alg).key, issuerOf(alg).sign([]byte("x.y")))
		measure(alg+"/forged", alg, issuerOf(alg).key, strangerOf(alg).sign([]byte("x.y")))
	}
	for _, size := range []int{2048, 3072, 4096} {
		for _, e := range []string{"Aw", "AQAB", "f____w"} {
			key, err := ParseKey([]byte(strings.Replace(rsaOf(size, ""), "AQAB", e, 1)))
			if err != nil {
				b.Fatal(err)
			}
			sig := bytes.Repeat([]byte{0x5a}, size/8)
			measure(fmt.Sprintf("RS256/%d/e=%s", size, e), "RS256", key, sig)
			measure(fmt.Sprintf("PS256/%d/e=%s", size, e), "PS256", key, sig)
		}
	}
}

// Of what is refused before any arithmetic.
func BenchmarkRefuse(b *testing.B) {
	i := issuerOf("ES256").named("k1")
	for name, token := range map[string]string{
		"unknown-kid": i.named("k2").token(goodClaims),
		"expired":     i.token(`{"sub":"alice","exp":1}`),
		"too-long":    strings.Repeat("x", 1<<20),
		"32-KiB":      i.raw(`{"alg":"ES256"}`, `{"sub":"alice","exp":1700003600`+manyClaims(2400)+`,"1":0}`),
	} {
		b.Run(name, func(b *testing.B) {
			set, rules := i.set(), Standard()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := set.Verify(token, rules, now); err == nil {
					b.Fatal("taken")
				}
			}
		})
	}
}

func BenchmarkParseKeys(b *testing.B) {
	text := []byte(document(issuerOf("RS256").named("1"), issuerOf("ES256").named("2"), issuerOf("EdDSA").named("3")))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseKeys(text); err != nil {
			b.Fatal(err)
		}
	}
}
