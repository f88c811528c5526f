package jwt

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// rsaOf is the JWK of a modulus of so many bits; no one has its factors.
func rsaOf(bits int, more string) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	n.Add(n, big.NewInt(12345))
	return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"%s}`, encoding.EncodeToString(n.Bytes()), more)
}

const (
	certificate = `-----BEGIN CERTIFICATE-----
MIIBdjCCAR2gAwIBAgIUBQF47hGJ8Fxe3gM4wLjjiwuq9AAwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGaXNzdWVyMB4XDTI2MTEyNDEwNDAyMVoXDTI2MTEyNTEwNDAy
MVowETEPMA0GA1UEAwwGaXNzdWVyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
q/HNawjGaxh6c4SM7FTFmgukuxT6SBxJJa6OLskGDZzEmKJOW0A7WMwtM5rT7pXd
ikYB8qiR4BbOG/wscdDaP6NTMFEwHQYDVR0OBBYEFMjy9MdyLSBkuHzx8Qw7su1N
kuIpMB8GA1UdIwQYMBaAFMjy9MdyLSBkuHzx8Qw7su1NkuIpMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgSjvLTSx1NWsuwN5/EvN8DAh3aEwg4YW3
MRTvAO5PNdECIBoOG4/TFNq8pLmF2D8kqP2EK/fmFZAFK8e1K/FIrYIC
-----END CERTIFICATE-----
`
	certified = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEq/HNawjGaxh6c4SM7FTFmgukuxT6
SBxJJa6OLskGDZzEmKJOW0A7WMwtM5rT7pXdikYB8qiR4BbOG/wscdDaPw==
-----END PUBLIC KEY-----
`
	p224 = `-----BEGIN PUBLIC KEY-----
ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAEV9VLxKdc874QtjWslmNF566GCHzBCkZe
lOHFz7vy81VMIWh/LRH7tDN4/8uSF5WqqKYpAsWLo3c=
-----END PUBLIC KEY-----
`
	compressedSecp256k1 = `-----BEGIN PUBLIC KEY-----
MDYwEAYHKoZIzj0CAQYFK4EEAAoDIgACOAv4y2Hk89x9Hp3yN7I1VRx5UF9C3kT+
AMzbh+nx0fI=
-----END PUBLIC KEY-----
`
	x25519 = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAJX2UazkRPrUIMvWzuGk1IVMLvEjX85fllgS7dQvK53Q=
-----END PUBLIC KEY-----
`
)

func TestKeysAreReadInEveryFormThatIsTaken(t *testing.T) {
	t.Parallel()
	ec, ed := issuerOf("ES256").key, issuerOf("EdDSA").key
	with := func(k Key, more string) string { return strings.TrimSuffix(string(k.JWK()), "}") + more + "}" }
	spki := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(ec.public))}))
	padded := func(k Key) string {
		f := k.fields
		for _, field := range []*string{&f.N, &f.X, &f.Y} {
			for len(*field)%4 != 0 {
				*field += "="
			}
		}
		return string(f.json())
	}
	zeroN := strings.Replace(rsaOf(2048, ""), `"n":"`, `"n":"AAAA`, 1)
	for name, tc := range map[string]struct {
		text string
		want []Key
	}{
		"a JWK":                       {string(ec.JWK()), []Key{ec}},
		"a JWKS":                      {`{"keys":[` + string(ec.JWK()) + "," + string(ed.JWK()) + `]}`, []Key{ec, ed}},
		"with white space and a BOM":  {"\ufeff\r\n " + string(ec.JWK()) + "\n", []Key{ec}},
		"with members of no meaning":  {with(ec, `,"use":"sig","key_ops":["sign","verify"],"x5c":["AAAA"],"x5t":"x","ext":true,"iat":1`), []Key{ec}},
		"with keys for encryption":    {`{"keys":[` + with(ec, `,"use":"enc"`) + "," + with(ed, `,"key_ops":["deriveKey"]`) + "," + string(ec.JWK()) + `]}`, []Key{ec}},
		"with a kid":                  {with(ec, `,"kid":"k \u00e9<&>"`), []Key{withKid(ec, "k é<&>")}},
		"with a kid that is empty":    {with(ec, `,"kid":""`), []Key{ec}},
		"EC with padding":             {padded(ec), []Key{ec}},
		"Ed25519 with padding":        {padded(ed), []Key{ed}},
		"RSA with padding":            {padded(must(ParseKey([]byte(rsaOf(2048, ""))))), must(ParseKeys([]byte(rsaOf(2048, ""))))},
		"with zeros before n":         {zeroN, must(ParseKeys([]byte(rsaOf(2048, ""))))},
		"of 4096 bits":                {rsaOf(4096, ""), must(ParseKeys([]byte(rsaOf(4096, ""))))},
		"for Ed25519 by its own name": {with(ed, `,"alg":"Ed25519"`), must(ParseKeys([]byte(with(ed, `,"alg":"EdDSA"`))))},
		"SPKI":                        {spki, []Key{ec}},
		"SPKI with text around":       {"my key:\n" + spki + "that was it\n", []Key{ec}},
		"SPKI with \\n for line ends": {strings.ReplaceAll(spki, "\n", `\n`), []Key{ec}},
		"SPKI of Windows":             {strings.ReplaceAll(spki, "\n", "\r\n"), []Key{ec}},
		"SPKI, indented":              {strings.ReplaceAll("\n"+spki, "\n", "\n    "), []Key{ec}},
		"two SPKIs":                   {spki + certified, append([]Key{ec}, must(ParseKeys([]byte(certified)))...)},
		"a certificate":               {certificate, must(ParseKeys([]byte(certified)))},
	} {
		keys, err := ParseKeys([]byte(tc.text))
		if err != nil || len(keys) != len(tc.want) {
			t.Errorf("%s: got %d keys, %v", name, len(keys), err)
			continue
		}
		for n, k := range keys {
			want := tc.want[n]
			if k.id != want.id || k.thumbprint != want.thumbprint || string(k.JWK()) != string(want.JWK()) || k.State != Standby {
				t.Errorf("%s: got %s, want %s", name, k.JWK(), want.JWK())
			}
		}
	}
	if _, err := ParseKeys([]byte(compressedSecp256k1)); err != nil {
		t.Errorf("a compressed point: %v", err)
	}
}

func TestAKeyIsTheSameAfterItWasStored(t *testing.T) {
	t.Parallel()
	for _, alg := range Algorithms() {
		for _, k := range []Key{issuerOf(alg).key, issuerOf(alg).named("kid <&>").key} {
			again, err := ParseKey(k.JWK())
			if err != nil {
				t.Fatal(err)
			}
			if again.id != k.id || again.Named() != k.Named() || again.thumbprint != k.thumbprint ||
				string(again.JWK()) != string(k.JWK()) || again.Describe() != k.Describe() || again.State != Standby {
				t.Errorf("%s: got %s, want %s", alg, again.JWK(), k.JWK())
			}
			if !json.Valid(k.JWK()) {
				t.Errorf("%s is no JSON", k.JWK())
			}
		}
	}
	if _, err := ParseKey([]byte(`{"keys":[` + string(issuerOf("ES256").key.JWK()) + "," + string(issuerOf("EdDSA").key.JWK()) + `]}`)); err == nil {
		t.Error("two keys were taken for one")
	}
}

func TestKeysThatCannotBeTakenAreRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	ec, ed, rsa := string(issuerOf("ES256").key.JWK()), string(issuerOf("EdDSA").key.JWK()), rsaOf(2048, "")
	with := func(jwk, more string) string { return strings.TrimSuffix(jwk, "}") + more + "}" }
	set := func(jwks ...string) string { return `{"keys":[` + strings.Join(jwks, ",") + `]}` }
	replace := func(jwk, member, value string) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(jwk), &m); err != nil {
			t.Fatal(err)
		}
		m[member] = value
		return string(must(json.Marshal(m)))
	}
	spki := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	edPoint := func(text string) string {
		return replace(ed, "x", encoding.EncodeToString(must(hex.DecodeString(text))))
	}
	many := make([]string, maxKeys+1)
	for i := range many {
		many[i] = with(ec, fmt.Sprintf(`,"kid":"%d"`, i))
	}
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0" // in a private part
	for _, tc := range []struct{ name, text, reason string }{
		{"nothing", "", "is empty"},
		{"white space", " \r\n\ufeff", "neither"},
		{"words", "please use our key", "neither"},
		{"a URL", "https://issuer.example/jwks.json", "neither"},
		{"HTML", "<!doctype html>", "neither"},
		{"an array", "[" + ec + "]", "neither"},
		{"SSH", "ssh-rsa AAAAB3NzaC1yc2E me@host", "ssh-keygen"},
		{"SSH, elliptic", "ecdsa-sha2-nistp256 AAAA me@host", "ssh-keygen"},
		{"2 MiB", strings.Repeat("x", 2<<20), "too long"},
		{"JSON that is cut off", ec[:len(ec)-1], "not JSON"},
		{"two members", with(ec, `,"kty":"EC"`), "two members"},
		{"two members of a key in a set", set(ec, with(ed, `,"x":"AAAA"`)), "key 2 is not an object, or has two members"},
		{"two keys members", `{"keys":[],"keys":[` + ec + `]}`, "two members"},
		{"no UTF-8", with(ec, ",\"kid\":\"\xff\""), "not JSON"},
		{"an object of nothing", "{}", "neither a JWKS nor a JWK"},
		{"an issuer's configuration", `{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/jwks"}`, "jwks_uri"},
		{"a configuration of keys", `{"keys":{"k1":` + ec + `}}`, "not an array"},
		{"keys that is null", `{"keys":null}`, "not an array"},
		{"a set of nothing", set(), "no key for signatures"},
		{"a set of encryption", set(with(ec, `,"use":"enc"`)), "no key for signatures"},
		{"a set of texts", set(`"x"`), "key 1 is not an object"},
		{"a set of null", set("null"), "key 1 is not an object"},
		{"101 keys", set(many...), "more than 100 keys"},
		{"a set in a set", set(set(ec)), "type (kty)"},

		{"symmetric", `{"kty":"oct","k":"` + secret + `"}`, "symmetric"},
		{"symmetric among others", set(ec, `{"kty":"oct","k":"`+secret+`","kid":"1"}`), "key 2 is symmetric"},
		{"private EC", with(ec, `,"d":"`+secret+`"`), "private"},
		{"private Ed25519", set(ec, with(ed, `,"d":"`+secret+`"`)), "key 2 is a private"},
		{"private RSA", with(rsa, `,"d":"`+secret+`","p":"`+secret+`"`), "private"},
		{"private RSA by its primes", with(rsa, `,"p":"`+secret+`","q":"`+secret+`"`), "private"},
		{"private by an escaped name", with(ec, `,"\u0064":"`+secret+`"`), "private"},
		{"private that is null", with(ec, `,"d":null`), "private"},
		{"private for encryption", with(ec, `,"use":"enc","d":"`+secret+`"`), "private"},
		{"private in PEM", spki("PRIVATE KEY", []byte(secret)), "private"},
		{"private in PKCS#1", spki("RSA PRIVATE KEY", []byte(secret)), "private"},
		{"private in SEC 1, behind its parameters", spki("EC PARAMETERS", []byte{6, 1, 1}) + spki("EC PRIVATE KEY", []byte(secret)), "private"},
		{"private of OpenSSH", spki("OPENSSH PRIVATE KEY", []byte(secret)), "private"},
		{"private and encrypted", spki("ENCRYPTED PRIVATE KEY", []byte(secret)), "private"},
		{"private behind a public one", certified + spki("PRIVATE KEY", []byte(secret)), "private"},

		{"no kty", `{"kid":"1","crv":"P-256"}`, "neither a JWKS nor a JWK"},
		{"no kty in a set", set(`{"kid":"1"}`), "type (kty)"},
		{"unknown kty", `{"kty":"AKP","alg":"ML-DSA-44","pub":"AAAA"}`, "type (kty)"},
		{"kty in small letters", replace(ec, "kty", "ec"), "type (kty)"},
		{"kty that is a number", `{"kty":1}`, "not a text: kty"},
		{"kid that is a number", with(ec, `,"kid":1`), "not a text: kid"},
		{"kid that is half a character", with(ec, `,"kid":"\ud800"`), "not a text: kid"},
		{"kid of 256 characters", with(ec, `,"kid":"`+strings.Repeat("k", 256)+`"`), "255"},
		{"kid with a NUL", with(ec, `,"kid":"k\u0000"`), "NUL"},
		{"two keys of one kid", set(with(ec, `,"kid":"1"`), with(ed, `,"kid":"1"`)), `two keys of one kid, "1"`},
		{"one key twice", set(ec, ec), "one key twice"},
		{"one certificate's key twice", certified + certified, "one key twice"},

		{"RSA of 2047 bits", rsaOf(2047, ""), "fewer than 2048"},
		{"RSA of 1024 bits", rsaOf(1024, ""), "fewer than 2048"},
		{"RSA of 512 bits and many zeros", strings.Replace(rsaOf(512, ""), `"n":"`, `"n":"`+strings.Repeat("AAAA", 100), 1), "fewer than 2048"},
		{"RSA of 4097 bits", rsaOf(4097, ""), "more than 4096"},
		{"RSA of 100000 bits", rsaOf(100000, ""), "more than 4096"},
		{"RSA with an even modulus", strings.Replace(rsaOf(2048, ""), "OQ\"", "OA\"", 1), "impossible"},
		{"RSA with exponent 1", replace(rsa, "e", "AQ"), "impossible"},
		{"RSA with exponent 2", replace(rsa, "e", "Ag"), "impossible"},
		{"RSA with exponent 65536", replace(rsa, "e", "AQAA"), "impossible"},
		{"RSA with a huge exponent", replace(rsa, "e", "AQAAAAAB"), "exponent has more than 31 bits"},
		{"RSA with an exponent of 32 bits", replace(rsa, "e", "gAAAAQ"), "exponent has more than 31 bits"},
		{"RSA with exponent 0", replace(rsa, "e", "AA"), "impossible"},
		{"RSA without e", strings.Replace(rsa, `,"e":"AQAB"`, "", 1), "lacks n or e"},
		{"RSA with padding that is too much", replace(rsa, "e", "AQAB="), "not base64url"},
		{"RSA with padding that is a whole group", replace(rsa, "e", "AQAB===="), "not base64url"},
		{"RSA with padding that is too little", replace(rsa, "e", "AQ="), "not base64url"},
		{"OKP with padding inside", replace(ed, "x", "AA=="+strings.Repeat("A", 40)), "not base64url"},
		{"RSA with another base64", strings.Replace(rsa, `"n":"`, `"n":"+/`, 1), "not base64url"},
		{"RSA for ES256", with(rsa, `,"alg":"ES256"`), "algorithm"},
		{"RSA for encryption, by its alg", with(rsa, `,"alg":"RSA-OAEP"`), "algorithm"},
		{"RSA for HS256", with(rsa, `,"alg":"HS256"`), "algorithm"},
		{"RSA for none", with(rsa, `,"alg":"none"`), "algorithm"},

		{"EC on P-224", replace(ec, "crv", "P-224"), "curve (crv)"},
		{"EC on no curve", `{"kty":"EC","x":"AAAA","y":"AAAA"}`, "curve (crv)"},
		{"EC on Ed25519", replace(ec, "crv", "Ed25519"), "curve (crv)"},
		{"EC on another curve of its length", replace(ec, "crv", "secp256k1"), "not on its curve"},
		{"EC on another curve", replace(ec, "crv", "P-384"), "curve's length"},
		{"EC for another curve", with(ec, `,"alg":"ES384"`), "algorithm"},
		{"EC for secp256k1", with(ec, `,"alg":"ES256K"`), "algorithm"},
		{"EC without y", strings.Replace(ec, `"y"`, `"z"`, 1), "lacks x or y"},
		{"EC with a short x", replace(ec, "x", "AAAA"), "curve's length"},
		{"EC at zero", replace(replace(ec, "x", strings.Repeat("A", 43)), "y", strings.Repeat("A", 43)), "not on its curve"},
		{"EC beyond the field", replace(ec, "x", encoding.EncodeToString([]byte(strings.Repeat("\xff", 32)))), "not on its curve"},
		{"secp256k1 off the curve", replace(replace(ec, "crv", "secp256k1"), "x", encoding.EncodeToString([]byte(strings.Repeat("\x01", 32)))), "not on its curve"},

		{"OKP on X25519", replace(ed, "crv", "X25519"), "curve (crv)"},
		{"OKP on Ed448", replace(ed, "crv", "Ed448"), "curve (crv)"},
		{"OKP without x", `{"kty":"OKP","crv":"Ed25519"}`, "lacks x"},
		{"OKP of 31 bytes", edPoint(strings.Repeat("01", 31)), "32 bytes"},
		{"OKP for ES256", with(ed, `,"alg":"ES256"`), "algorithm"},
		{"OKP for Ed448", with(ed, `,"alg":"Ed448"`), "algorithm"},
		{"EC for Ed25519", with(ec, `,"alg":"Ed25519"`), "algorithm"},
		{"OKP off the curve", edPoint("0200000000000000000000000000000000000000000000000000000000000000"), "weak point"},
		{"OKP of zeros, of order 4", edPoint(strings.Repeat("00", 32)), "weak point"},
		{"OKP of zeros and a sign, of order 4", edPoint(strings.Repeat("00", 31) + "80"), "weak point"},
		{"OKP of order 1", edPoint("01" + strings.Repeat("00", 31)), "weak point"},
		{"OKP of order 2", edPoint("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), "weak point"},
		{"OKP of order 8", edPoint("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "weak point"},
		{"OKP of order 8, the other", edPoint("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "weak point"},
		{"OKP of order 8, the other sign", edPoint("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"), "weak point"},
		{"OKP beyond the field", edPoint("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), "weak point"},

		{"PEM that is cut off", certified[:100], "cut off"},
		{"PEM that is cut off behind a good one", certified + certified[:100], "key 2 is PEM that is cut off"},
		{"PEM that is damaged", strings.Replace(certified, "MFkw", "MF*w", 1), "damaged"},
		{"PEM with another end", strings.Replace(certified, "END PUBLIC KEY", "END RSA PUBLIC KEY", 1), "cut off"},
		{"PEM of nothing", spki("PUBLIC KEY", nil), "not PEM of a public key"},
		{"PEM with bytes behind the key", spki("PUBLIC KEY", append(must(x509.MarshalPKIXPublicKey(issuerOf("ES256").key.public)), 0)), "not PEM of a public key"},
		{"PEM of a request", spki("CERTIFICATE REQUEST", []byte("x")), "not PEM of a public key"},
		{"PEM on P-224", p224, "curve (crv)"},
		{"PEM of X25519", x25519, "type (kty)"},
		{"a chain of certificates", certificate + certificate, "more than one certificate"},
		{"a key and a certificate", certified + certificate, "more than one certificate"},
		{"a certificate and a key", certificate + certified, "more than one certificate"},
		{"101 PEMs", strings.Repeat(certified, 101), "more than 100 keys"},
	} {
		keys, err := ParseKeys([]byte(tc.text))
		e, ok := errors.AsType[*KeyError](err)
		if !ok || !strings.Contains(e.Error(), tc.reason) || keys != nil {
			t.Errorf("%s: got %v, %v; want %q", tc.name, keys, err, tc.reason)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte(secret))[:12])) {
			t.Errorf("%s: %v gives the secret away", tc.name, err)
		}
	}
}

func TestWhatIsFetchedIsReadPastKeysThatCannotBeTaken(t *testing.T) {
	t.Parallel()
	ec, ed := string(issuerOf("ES256").key.JWK()), string(issuerOf("EdDSA").key.JWK())
	document := `{"keys":[` + strings.Join([]string{
		ed, `{"kty":"oct","k":"c2VjcmV0"}`, rsaOf(1024, ""), rfc7517EC, `{"kty":"AKP"}`, "null", strings.TrimSuffix(ec, "}") + `,"d":"c2VjcmV0"}`, ec, ed,
	}, ",") + `]}`
	keys, skipped, err := readDocument([]byte(document))
	if err != nil || len(keys) != 2 || len(skipped) != 6 {
		t.Fatalf("got %d keys, %v, %v", len(keys), skipped, err)
	}
	if !skipped[2].unfit || skipped[3].unfit || skipped[5].Position != 7 {
		t.Errorf("got %+v", skipped)
	}
	written := writeDocument(keys)
	if strings.Contains(string(written), "c2VjcmV0") {
		t.Errorf("%s has a secret", written)
	}
	again, skipped, err := readDocument(written)
	if err != nil || len(skipped) > 0 || string(writeDocument(again)) != string(written) {
		t.Errorf("read again: %v, %v, %v", again, skipped, err)
	}
	other, _, err := readDocument([]byte(`{"keys":[` + ec + "," + ed + `]}`))
	if err != nil || string(writeDocument(other)) != string(written) {
		t.Errorf("the same keys in another order: %s, %v", writeDocument(other), err)
	}
}
