package jwt

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A token that is wrong in form, header, payload or claims is refused for that before any arithmetic: the trap
// below has no key to do any with, and would panic.
func TestHostileTokensAreRefusedBeforeAnyArithmetic(t *testing.T) {
	t.Parallel()
	i := issuerOf("ES256").named("k1")
	trap := i.key
	trap.public = nil
	good := i.token(goodClaims)
	first, last := strings.IndexByte(good, '.'), strings.LastIndexByte(good, '.')
	header, payload, signature := good[:first], good[first+1:last], good[last+1:]
	const alg = `{"alg":"ES256","kid":"k1"`
	hmacOf := func(secret []byte) string {
		signed := part(`{"alg":"HS256","kid":"k1"}`) + "." + payload
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return signed + "." + encoding.EncodeToString(mac.Sum(nil))
	}
	der := must(x509.MarshalPKIXPublicKey(i.key.public))
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	h := func(header string) string { return i.raw(header, goodClaims) }
	p := func(payload string) string { return i.raw(alg+"}", payload) }
	claim := func(more string) string { return p(`{"sub":"alice","exp":1700003600,` + more + `}`) }

	for _, tc := range []struct {
		name, token string
		reason      Reason
	}{
		// Form.
		{"empty", "", BadForm},
		{"no dots", "abc", BadForm},
		{"two parts", header + "." + payload, BadForm},
		{"four parts", good + ".", BadForm},
		{"encrypted: five parts", "eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d", Encrypted},
		{"dots alone", "..", BadHeader},
		{"six parts", ".....", BadForm},
		{"padded header", header + "=." + payload + "." + signature, BadForm},
		{"padded payload", header + "." + payload + "==." + signature, BadForm},
		{"padded signature", good + "==", BadForm},
		{"the other base64", header + "." + payload + "." + strings.Repeat("+/", 43), BadForm},
		{"spare bits set", good[:len(good)-1] + string(next(good[len(good)-1])), BadForm},
		{"spare bits set in the payload", header + ".e31." + signature, BadForm},
		{"a line end inside", header + "." + payload[:8] + "\n" + payload[8:] + "." + signature, BadForm},
		{"a line end of Windows inside", header + "." + payload + "." + signature[:4] + "\r\n" + signature[4:], BadForm},
		{"a line end behind", good + "\n", BadForm},
		{"a space before", " " + good, BadForm},
		{"a space behind", good + " ", BadForm},
		{"a NUL", good + "\x00", BadForm},
		{"its scheme before it", "Bearer " + good, BadForm},
		{"no ASCII", "ä." + payload + "." + signature, BadForm},
		{"32 KiB and a byte", header + "." + strings.Repeat("A", 32<<10-len(header)), TooLong},
		{"1 MiB", strings.Repeat("A", 1<<20), TooLong},
		{"1 MiB of dots", strings.Repeat(".", 1<<20), TooLong},
		{"32 KiB of dots", strings.Repeat(".", 32<<10), BadForm},

		// Header.
		{"no header", "." + payload + "." + signature, BadHeader},
		{"header is null", h("null"), BadHeader},
		{"header is an array", h(`[{"alg":"ES256"}]`), BadHeader},
		{"header is a text", h(`"ES256"`), BadHeader},
		{"header is two objects", h(alg + "}{}"), BadHeader},
		{"header is cut off", h(alg), BadHeader},
		{"header with a byte order mark", h("\ufeff" + alg + "}"), BadHeader},
		{"header is not UTF-8", h(alg + ",\"x\":\"\xff\"}"), BadHeader},
		{"header in UTF-16", h("{\x00\"\x00}\x00"), BadHeader},
		{"two algs", h(alg + `,"alg":"none"}`), BadHeader},
		{"two algs, one escaped", h(alg + `,"\u0061lg":"none"}`), BadHeader},
		{"two kids", h(alg + `,"kid":"k2"}`), BadHeader},
		{"two of anything", h(alg + `,"x":1,"x":1}`), BadHeader},
		{"no alg", h(`{"kid":"k1"}`), BadHeader},
		{"alg in capitals", h(`{"ALG":"ES256","kid":"k1"}`), BadHeader},
		{"alg is null", h(`{"alg":null}`), BadHeader},
		{"alg is a number", h(`{"alg":256}`), BadHeader},
		{"alg is an array", h(`{"alg":["ES256"]}`), BadHeader},
		{"alg is empty", h(`{"alg":""}`), BadHeader},
		{"kid is a number", h(`{"alg":"ES256","kid":1}`), BadHeader},
		{"kid is null", h(`{"alg":"ES256","kid":null}`), BadHeader},
		{"kid is an object", h(`{"alg":"ES256","kid":{"k1":1}}`), BadHeader},
		{"kid is half a character", h(`{"alg":"ES256","kid":"\ud800"}`), BadHeader},
		{"crit", h(alg + `,"crit":["exp"],"exp":1}`), Extension},
		{"crit is empty", h(alg + `,"crit":[]}`), Extension},
		{"crit is null", h(alg + `,"crit":null}`), Extension},
		{"b64 is false", h(alg + `,"crit":["b64"],"b64":false}`), Extension},
		{"b64 is false and not critical", h(alg + `,"b64":false}`), Extension},
		{"b64 is true", h(alg + `,"b64":true}`), Extension},
		{"typ of a logout token", h(alg + `,"typ":"logout+jwt"}`), BadType},
		{"typ of a security event", h(alg + `,"typ":"secevent+jwt"}`), BadType},
		{"typ of a proof of possession", h(alg + `,"typ":"dpop+jwt"}`), BadType},
		{"typ of a request, in full and capitals", h(alg + `,"typ":"Application/OAuth-Authz-Req+JWT"}`), BadType},
		{"typ of a logout token, escaped", h(alg + `,"typ":"logout\u002bjwt"}`), BadType},

		// Algorithm.
		{"alg none", part(`{"alg":"none"}`) + "." + payload + ".", BadAlgorithm},
		{"alg none, with kid", part(`{"alg":"none","kid":"k1"}`) + "." + payload + ".", BadAlgorithm},
		{"alg none, with a signature", h(`{"alg":"none","kid":"k1"}`), BadAlgorithm},
		{"alg None", part(`{"alg":"None","kid":"k1"}`) + "." + payload + ".", BadAlgorithm},
		{"alg NONE", part(`{"alg":"NONE","kid":"k1"}`) + "." + payload + ".", BadAlgorithm},
		{"alg nOnE", part(`{"alg":"nOnE","kid":"k1"}`) + "." + payload + ".", BadAlgorithm},
		{"HS256 with the public key in PEM as secret", hmacOf(asPEM), BadAlgorithm},
		{"HS256 with the public key in DER as secret", hmacOf(der), BadAlgorithm},
		{"HS256 with the public key's JWK as secret", hmacOf(i.key.JWK()), BadAlgorithm},
		{"HS256 with nothing as secret", hmacOf(nil), BadAlgorithm},
		{"HS384", h(`{"alg":"HS384","kid":"k1"}`), BadAlgorithm},
		{"HS512", h(`{"alg":"HS512","kid":"k1"}`), BadAlgorithm},
		{"alg es256", h(`{"alg":"es256","kid":"k1"}`), BadAlgorithm},
		{"alg with a space", h(`{"alg":"ES256 ","kid":"k1"}`), BadAlgorithm},
		{"alg with a NUL", h(`{"alg":"ES256\u0000","kid":"k1"}`), BadAlgorithm},
		{"alg of encryption", h(`{"alg":"RSA-OAEP","kid":"k1"}`), BadAlgorithm},
		{"alg of no key here", h(`{"alg":"ES512","kid":"k1"}`), WrongKeyType},
		{"alg of a key of another kind", h(`{"alg":"RS256","kid":"k1"}`), WrongKeyType},
		{"alg of another curve of the same length", h(`{"alg":"ES256K","kid":"k1"}`), WrongKeyType},
		{"alg EdDSA", h(`{"alg":"EdDSA","kid":"k1"}`), WrongKeyType},

		// Key.
		{"kid is a path", h(`{"alg":"ES256","kid":"../../../../dev/null"}`), UnknownKey},
		{"kid is SQL", h(`{"alg":"ES256","kid":"k1' OR '1'='1"}`), UnknownKey},
		{"kid is a command", h(`{"alg":"ES256","kid":"k1; sleep 10"}`), UnknownKey},
		{"kid is a URL", h(`{"alg":"ES256","kid":"https://evil.example/jwks.json"}`), UnknownKey},
		{"kid with a NUL", h(`{"alg":"ES256","kid":"k1\u0000"}`), UnknownKey},
		{"kid in capitals", h(`{"alg":"ES256","kid":"K1"}`), UnknownKey},
		{"kid with a space", h(`{"alg":"ES256","kid":" k1"}`), UnknownKey},
		{"kid of 4 KiB", h(`{"alg":"ES256","kid":"` + strings.Repeat("k", 4<<10) + `"}`), UnknownKey},

		// Payload.
		{"no payload", header + ".." + signature, BadPayload},
		{"payload is null", p("null"), BadPayload},
		{"payload is an array", p("[" + goodClaims + "]"), BadPayload},
		{"payload is a text", p(`"alice"`), BadPayload},
		{"payload is two objects", p(goodClaims + goodClaims), BadPayload},
		{"payload is another token", p(good), BadPayload},
		{"payload is compressed", p("\x78\x9c\x03\x00"), BadPayload},
		{"payload with a byte order mark", p("\ufeff" + goodClaims), BadPayload},
		{"payload is not UTF-8", p("{\"sub\":\"alice\xff\",\"exp\":1700003600}"), BadPayload},
		{"payload with surrogates in UTF-8", p("{\"sub\":\"\xed\xa0\x80\",\"exp\":1700003600}"), BadPayload},
		{"payload is deep", p(`{"a":` + strings.Repeat("[", 3000)), BadPayload},
		{"two subs", claim(`"sub":"bob"`), BadPayload},
		{"two subs, one escaped", claim(`"\u0073ub":"bob"`), BadPayload},
		{"two exps", claim(`"exp":9999999999`), BadPayload},
		{"two of anything", claim(`"x":1,"x":2`), BadPayload},
		{"a name that is half a character", claim(`"\ud800":1`), BadPayload},

		// Subject.
		{"no sub", p(`{"exp":1700003600}`), BadSubject},
		{"sub in capitals", p(`{"Sub":"alice","exp":1700003600}`), BadSubject},
		{"sub is null", p(`{"sub":null,"exp":1700003600}`), BadSubject},
		{"sub is a number", p(`{"sub":1,"exp":1700003600}`), BadSubject},
		{"sub is true", p(`{"sub":true,"exp":1700003600}`), BadSubject},
		{"sub is an array", p(`{"sub":["alice"],"exp":1700003600}`), BadSubject},
		{"sub is an object", p(`{"sub":{"alice":1},"exp":1700003600}`), BadSubject},
		{"sub is empty", p(`{"sub":"","exp":1700003600}`), BadSubject},
		{"sub of 256 characters", p(`{"sub":"` + strings.Repeat("a", 256) + `","exp":1700003600}`), BadSubject},
		{"sub with a NUL", p(`{"sub":"alice\u0000","exp":1700003600}`), BadSubject},
		{"sub is half a character", p(`{"sub":"\ud834","exp":1700003600}`), BadSubject},
		{"sub is two halves the wrong way", p(`{"sub":"\udd1e\ud834","exp":1700003600}`), BadSubject},

		// Times.
		{"no exp", p(`{"sub":"alice"}`), NoExpiry},
		{"exp in capitals", p(`{"sub":"alice","EXP":1700003600}`), NoExpiry},
		{"exp is null", p(`{"sub":"alice","exp":null}`), BadTime},
		{"exp is a text", p(`{"sub":"alice","exp":"1700003600"}`), BadTime},
		{"exp is a date", p(`{"sub":"alice","exp":"2099-01-01T00:00:00Z"}`), BadTime},
		{"exp is true", p(`{"sub":"alice","exp":true}`), BadTime},
		{"exp is an array", p(`{"sub":"alice","exp":[1700003600]}`), BadTime},
		{"exp is an object", p(`{"sub":"alice","exp":{}}`), BadTime},
		{"exp is negative", p(`{"sub":"alice","exp":-1}`), BadTime},
		{"exp is minus zero", p(`{"sub":"alice","exp":-0}`), BadTime},
		{"exp is a negative float", p(`{"sub":"alice","exp":-1.5e9}`), BadTime},
		{"exp is beyond a float", p(`{"sub":"alice","exp":1e400}`), BadTime},
		{"exp is NaN", p(`{"sub":"alice","exp":NaN}`), BadPayload},
		{"exp has a leading zero", p(`{"sub":"alice","exp":01700003600}`), BadPayload},
		{"exp has a plus", p(`{"sub":"alice","exp":+1700003600}`), BadPayload},
		{"exp is hexadecimal", p(`{"sub":"alice","exp":0x6553F100}`), BadPayload},
		{"exp is zero", p(`{"sub":"alice","exp":0}`), Expired},
		{"exp was long ago", p(`{"sub":"alice","exp":1}`), Expired},
		{"exp was 61 s ago", p(`{"sub":"alice","exp":1699999939}`), Expired},
		{"exp was 60.5 s ago", p(`{"sub":"alice","exp":1699999939.5}`), Expired},
		{"nbf is null", claim(`"nbf":null`), BadTime},
		{"nbf is a text", claim(`"nbf":"1700000000"`), BadTime},
		{"nbf is negative", claim(`"nbf":-1`), BadTime},
		{"nbf is in 61 s", claim(`"nbf":1700000061`), NotYetValid},
		{"nbf is in 60.5 s", claim(`"nbf":1700000060.5`), NotYetValid},
		{"nbf is never", claim(`"nbf":1e300`), NotYetValid},
	} {
		_, err := NewSet([]Key{trap}).Verify(tc.token, Standard(), now)
		wantReason(t, tc.name, err, tc.reason)
		if len(tc.token) > 3 && err != nil {
			for _, secret := range []string{payload, signature, "alice", "dev/null"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s: %v repeats the token", tc.name, err)
				}
			}
		}
	}
}

// next is the letter after c in base64url, whose last bit differs.
func next(c byte) byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return letters[strings.IndexByte(letters, c)^1]
}

func TestUnusualTokensThatAreGoodAreTaken(t *testing.T) {
	t.Parallel()
	i := issuerOf("ES256").named("k1")
	h := func(header string) string { return i.raw(header, goodClaims) }
	p := func(payload string) string { return i.raw(`{"alg":"ES256","kid":"k1"}`, payload) }
	for _, tc := range []struct{ name, token, subject string }{
		{"plain", i.token(goodClaims), "alice"},
		{"without typ", h(`{"alg":"ES256","kid":"k1"}`), "alice"},
		{"without kid", h(`{"alg":"ES256"}`), "alice"},
		{"with an empty kid", h(`{"alg":"ES256","kid":""}`), "alice"},
		{"with an escaped header", h(`{"\u0061lg":"\u0045S256","kid":"\u006b1"}`), "alice"},
		{"with typ of an access token", h(`{"typ":"at+jwt","cty":"x","alg":"ES256","kid":"k1"}`), "alice"},
		{"with typ of an access token, in full", h(`{"typ":"application/at+jwt","alg":"ES256","kid":"k1"}`), "alice"},
		{"with typ in small letters", h(`{"typ":"jwt","alg":"ES256","kid":"k1"}`), "alice"},
		{"with typ that is no text", h(`{"typ":{},"alg":"ES256","kid":"k1"}`), "alice"},
		{"with white space", i.raw(" { \"alg\" : \"ES256\",\r\n\t\"kid\": \"k1\" }\n", " {\"sub\" :\"alice\" ,\n\"exp\": 1700003600 } "), "alice"},
		{"with what points at other keys", h(`{"alg":"ES256","kid":"k1","jku":"https://evil.example/","x5u":"https://evil.example/","jwk":{"kty":"oct"},"x5c":["AAAA"],"x5t":"x"}`), "alice"},
		{"with a nested duplicate", p(`{"sub":"alice","exp":1700003600,"a":{"x":1,"x":2}}`), "alice"},
		{"with half a character where nobody looks", p(`{"sub":"alice","exp":1700003600,"name":"\ud800"}`), "alice"},
		{"with sub of 255 characters of four bytes", p(`{"sub":"` + strings.Repeat("𝄞", 255) + `","exp":1700003600}`), strings.Repeat("𝄞", 255)},
		{"with an escaped sub", p(`{"sub":"\ud834\udd1e\u00e9\n\/","exp":1700003600}`), "𝄞é\n/"},
		{"with sub that is U+FFFD", p(`{"sub":"\ufffd","exp":1700003600}`), "\ufffd"},
		{"with sub in another composition", p(`{"sub":"e\u0301","exp":1700003600}`), "e\u0301"},
		{"with sub that is a path", p(`{"sub":"../bob","exp":1700003600}`), "../bob"},
		{"with sub that has spaces around", p(`{"sub":" alice ","exp":1700003600}`), " alice "},
		{"with sub and Sub", p(`{"Sub":"bob","sub":"alice","SUB":"bob","exp":1700003600}`), "alice"},
		{"with exp as a float", p(`{"sub":"alice","exp":1700003600.75}`), "alice"},
		{"with exp in exponents", p(`{"sub":"alice","exp":1.7000036E9}`), "alice"},
		{"with exp 60 s ago", p(`{"sub":"alice","exp":1699999940}`), "alice"},
		{"with exp in year 9999", p(`{"sub":"alice","exp":253402300799}`), "alice"},
		{"with exp in milliseconds", p(`{"sub":"alice","exp":1700003600000}`), "alice"},
		{"with the last exp of 64 bits", p(`{"sub":"alice","exp":18446744073709551615}`), "alice"},
		{"with nbf in 60 s", p(`{"sub":"alice","exp":1700003600,"nbf":1700000060}`), "alice"},
		{"with iat tomorrow", p(`{"sub":"alice","exp":1700003600,"iat":1700086400}`), "alice"},
		{"with iss and aud that are no texts", p(`{"sub":"alice","exp":1700003600,"iss":1,"aud":{}}`), "alice"},
		{"of 32 KiB", padded(i, 32<<10), "alice"},
		{"with 2000 claims", p(`{"sub":"alice","exp":1700003600` + manyClaims(2000) + `}`), "alice"},
	} {
		claims, err := i.set().Verify(tc.token, Standard(), now)
		if err != nil || claims.Subject != tc.subject || claims.KeyID != "k1" {
			t.Errorf("%s: got %+v, %v", tc.name, claims, err)
		}
		if claims.Expires.After(lastTime) {
			t.Errorf("%s: expires %v", tc.name, claims.Expires)
		}
	}
}

func manyClaims(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d":0`, i)
	}
	return b.String()
}

// padded is a token of just this many bytes.
func padded(i issuer, size int) string {
	for n := size / 2; ; n++ {
		for _, header := range []string{`{"alg":"ES256","kid":"k1"}`, `{"alg":"ES256","kid":"k1" }`, `{"alg":"ES256","kid":"k1"  }`} {
			token := i.raw(header, `{"sub":"alice","exp":1700003600,"x":"`+strings.Repeat("x", n)+`"}`)
			if len(token) == size {
				return token
			}
		}
	}
}

func TestAForgedSignatureIsRefusedWhateverKeyItBrings(t *testing.T) {
	t.Parallel()
	for _, alg := range Algorithms() {
		i := issuerOf(alg).named("k1")
		forger := strangerOf(alg)
		good := i.token(goodClaims)
		last := strings.LastIndexByte(good, '.')
		jwk := string(forger.key.JWK())
		x5c := base64.StdEncoding.EncodeToString([]byte("certificate"))
		for name, tc := range map[string]struct {
			token  string
			reason Reason
		}{
			"another payload":      {good[:strings.IndexByte(good, '.')] + "." + part(`{"sub":"bob","exp":1700003600}`) + good[last:], BadSignature},
			"another key":          {forger.raw(fmt.Sprintf(`{"alg":%q,"kid":"k1"}`, alg), goodClaims), BadSignature},
			"another key, jwk":     {forger.raw(fmt.Sprintf(`{"alg":%q,"kid":"k1","jwk":%s}`, alg, jwk), goodClaims), BadSignature},
			"another key, jku":     {forger.raw(fmt.Sprintf(`{"alg":%q,"kid":"k1","jku":"http://127.0.0.1/"}`, alg), goodClaims), BadSignature},
			"another key, x5c":     {forger.raw(fmt.Sprintf(`{"alg":%q,"kid":"k1","x5c":[%q]}`, alg, x5c), goodClaims), BadSignature},
			"another key and kid":  {forger.raw(fmt.Sprintf(`{"alg":%q,"kid":%q,"jwk":%s}`, alg, forger.key.id, jwk), goodClaims), UnknownKey},
			"another key, no kid":  {forger.raw(fmt.Sprintf(`{"alg":%q,"jwk":%s}`, alg, jwk), goodClaims), UnknownKey},
			"no signature":         {good[:last+1], BadSignature},
			"half a signature":     {good[:last+1] + part(strings.Repeat("x", 16)), BadSignature},
			"a signature of zeros": {good[:last+1] + encoding.EncodeToString(make([]byte, len(i.sign(nil)))), BadSignature},
			"a signature in ASN.1": {good[:last+1] + "MEUCIQDx", BadSignature},
			"a signature too long": {good[:last+1] + strings.Repeat("A", 2000), BadSignature},
			"none of this":         {good, ""},
		} {
			_, err := i.set().Verify(tc.token, Standard(), now)
			wantReason(t, alg+": "+name, err, tc.reason)
		}
	}
}

func TestATokenIsVerifiedByTheRulesOfItsSource(t *testing.T) {
	t.Parallel()
	i := issuerOf("ES256").named("k1")
	issuer := "https://issuer.example/"
	with := func(change func(*Rules)) Rules {
		r := Standard()
		change(&r)
		return r
	}
	oneOf := func(audiences ...string) Rules {
		return with(func(r *Rules) { r.AudienceRule, r.Audiences = OneOf, audiences })
	}
	none := with(func(r *Rules) { r.AudienceRule = NoAudience })
	asking := with(func(r *Rules) { r.Claims = map[string]string{"client_id": "app1", "token_use": "access"} })
	for _, tc := range []struct {
		name  string
		rules Rules
		claim string
		want  Reason
	}{
		{"no rules at all", Rules{}, `"x":1`, BadAlgorithm},
		{"another algorithm", with(func(r *Rules) { r.Algorithms = []string{"RS256", "ES384"} }), `"x":1`, BadAlgorithm},
		{"algorithms that are none", with(func(r *Rules) { r.Algorithms = []string{"none", "HS256", ""} }), `"x":1`, BadAlgorithm},
		{"its algorithm", with(func(r *Rules) { r.Algorithms = []string{"ES256"} }), `"x":1`, ""},

		{"nbf tomorrow", Standard(), `"nbf":1700086400`, NotYetValid},
		{"nbf tomorrow, not asked for", with(func(r *Rules) { r.CheckNotBefore = false }), `"nbf":1700086400`, ""},
		{"nbf of no form, not asked for", with(func(r *Rules) { r.CheckNotBefore = false }), `"nbf":"soon"`, ""},

		{"issuer", with(func(r *Rules) { r.Issuer = &issuer }), `"iss":"https://issuer.example/"`, ""},
		{"issuer, escaped", with(func(r *Rules) { r.Issuer = &issuer }), `"iss":"https:\/\/issuer.example\/"`, ""},
		{"issuer without its slash", with(func(r *Rules) { r.Issuer = &issuer }), `"iss":"https://issuer.example"`, BadIssuer},
		{"issuer in capitals", with(func(r *Rules) { r.Issuer = &issuer }), `"iss":"https://ISSUER.example/"`, BadIssuer},
		{"issuers", with(func(r *Rules) { r.Issuer = &issuer }), `"iss":["https://issuer.example/"]`, BadIssuer},
		{"issuer null", with(func(r *Rules) { r.Issuer = &issuer }), `"iss":null`, BadIssuer},
		{"no issuer", with(func(r *Rules) { r.Issuer = &issuer }), `"x":1`, BadIssuer},
		{"any issuer", Standard(), `"iss":"https://evil.example/"`, ""},

		{"any audience", Standard(), `"aud":"somebody else"`, ""},
		{"one audience", oneOf("a", "b"), `"aud":"b"`, ""},
		{"one audience in an array", oneOf("a", "b"), `"aud":["c","\u0061"]`, ""},
		{"none of the audiences", oneOf("a", "b"), `"aud":["c","d"]`, BadAudience},
		{"another audience", oneOf("a", "b"), `"aud":"c"`, BadAudience},
		{"audience in capitals", oneOf("a"), `"aud":"A"`, BadAudience},
		{"part of an audience", oneOf("ab"), `"aud":"a"`, BadAudience},
		{"no audience", oneOf("a"), `"x":1`, BadAudience},
		{"no audiences", oneOf("a"), `"aud":[]`, BadAudience},
		{"audience null", oneOf("a"), `"aud":null`, BadAudience},
		{"audience of no form", oneOf("a"), `"aud":{"a":"a"}`, BadAudience},
		{"audiences of no form", oneOf("a"), `"aud":["a",1]`, BadAudience},
		{"audiences inside audiences", oneOf("a"), `"aud":[["a"]]`, BadAudience},
		{"one of no audiences", oneOf(), `"aud":""`, BadAudience},
		{"an audience where none may be", none, `"aud":"a"`, BadAudience},
		{"audiences where none may be", none, `"aud":["a"]`, BadAudience},
		{"no audiences where none may be", none, `"aud":[]`, BadAudience},
		{"audience null where none may be", none, `"aud":null`, ""},
		{"no audience where none may be", none, `"x":1`, ""},
		{"the claims that are asked for", asking, `"client_id":"app1","token_use":"\u0061ccess"`, ""},
		{"one of two claims", asking, `"client_id":"app1"`, BadClaim},
		{"a claim of another text", asking, `"client_id":"app2","token_use":"access"`, BadClaim},
		{"a claim that begins alike", asking, `"client_id":"app12","token_use":"access"`, BadClaim},
		{"a claim in capitals", asking, `"client_id":"APP1","token_use":"access"`, BadClaim},
		{"a claim by a name in capitals", asking, `"Client_ID":"app1","token_use":"access"`, BadClaim},
		{"a claim in an array", asking, `"client_id":["app1"],"token_use":"access"`, BadClaim},
		{"a claim that is a number", with(func(r *Rules) { r.Claims = map[string]string{"v": "1"} }), `"v":1`, BadClaim},
		{"a claim that is null", asking, `"client_id":null,"token_use":"access"`, BadClaim},
		{"a claim inside another", asking, `"a":{"client_id":"app1"},"token_use":"access"`, BadClaim},
		{"a rule that is none", with(func(r *Rules) { r.AudienceRule = "" }), `"x":1`, BadAudience},
	} {
		token := i.token(`{"sub":"alice","exp":1700003600,` + tc.claim + `}`)
		_, err := i.set().Verify(token, tc.rules, now)
		wantReason(t, tc.name, err, tc.want)
	}
}

func TestATenantOfTheReferenceServerOnlyPastesItsPEM(t *testing.T) {
	t.Parallel()
	i := issuerOf("RS256")
	der := must(x509.MarshalPKIXPublicKey(i.key.public))
	text := base64.StdEncoding.EncodeToString(der)
	pkcs1 := base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(&issuersRSA().PublicKey))
	for form, pasted := range map[string]string{
		"PEM":                         string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"on one line, as it takes it": "-----BEGIN PUBLIC KEY-----" + text + "-----END PUBLIC KEY-----",
		"PKCS#1":                      "-----BEGIN RSA PUBLIC KEY-----\n" + pkcs1 + "\n-----END RSA PUBLIC KEY-----",
		"PKCS#1 under SPKI's label":   "-----BEGIN PUBLIC KEY-----\n" + pkcs1 + "\n-----END PUBLIC KEY-----\n",
		"SPKI under PKCS#1's label":   "-----BEGIN RSA PUBLIC KEY-----\n" + text + "\n-----END RSA PUBLIC KEY-----\n",
	} {
		keys, err := ParseKeys([]byte(pasted))
		if err != nil || len(keys) != 1 {
			t.Fatalf("%s: got %v, %v", form, keys, err)
		}
		keys[0].State = Active
		set := NewSet(keys)
		const sub = `"sub":"valid_user_id"`
		h := func(header string) string { return i.raw(header, `{`+sub+`,"exp":1700003600}`) }
		p := func(payload string) string { return i.raw(`{"typ":"JWT","alg":"RS256"}`, payload) }
		for _, tc := range []struct {
			name, token string
			want        Reason
		}{
			{"its tokens", p(`{` + sub + `,"exp":1700003600}`), ""},
			{"kid, which it does not look at", h(`{"alg":"RS256","kid":"2024-01"}`), ""},
			{"many claims", p(`{` + sub + `,"iat":1700000000,"nbf":1700000000,"exp":1700000000}`), ""},
			{"nbf in the future", p(`{` + sub + `,"nbf":1800000000,"exp":1700003600}`), ""},
			{"nbf of no form", p(`{` + sub + `,"nbf":"x","exp":1700003600}`), ""},
			{"any issuer", p(`{` + sub + `,"iss":"anybody","exp":1700003600}`), ""},
			{"audience null", p(`{` + sub + `,"aud":null,"exp":1700003600}`), ""},
			{"an audience", p(`{` + sub + `,"aud":"audience","exp":1700003600}`), BadAudience},
			{"an empty audience", p(`{` + sub + `,"aud":"","exp":1700003600}`), BadAudience},
			{"audiences", p(`{` + sub + `,"aud":["audience"],"exp":1700003600}`), BadAudience},
			{"no audiences", p(`{` + sub + `,"aud":[],"exp":1700003600}`), BadAudience},
			{"the last exp of 64 bits", p(`{` + sub + `,"exp":18446744073709551615}`), ""},
			{"exp in its leeway", p(`{` + sub + `,"exp":1699999940}`), ""},
			{"exp out of its leeway", p(`{` + sub + `,"exp":1699999939}`), Expired},
			{"exp zero", p(`{` + sub + `,"exp":0}`), Expired},
			{"no exp", p(`{` + sub + `}`), NoExpiry},
			{"no sub", p(`{"exp":1700003600}`), BadSubject},
			{"RS384", h(`{"alg":"RS384"}`), BadAlgorithm},
			{"PS256", h(`{"alg":"PS256"}`), BadAlgorithm},
			{"HS256", h(`{"alg":"HS256"}`), BadAlgorithm},
			{"none", h(`{"alg":"none"}`), BadAlgorithm},
			{"another key's", rsaIssuer("RS256", strangersRSA()).token(`{` + sub + `,"exp":1700003600}`), UnknownKey},
		} {
			claims, err := set.Verify(tc.token, ReferenceServer(), now.Add(999*time.Millisecond))
			wantReason(t, form+": "+tc.name, err, tc.want)
			if err == nil && claims.Subject != "valid_user_id" {
				t.Errorf("%s: %s: got %+v", form, tc.name, claims)
			}
		}
	}
}

func TestClaimsThatAreKeptAreGoodForAsLongAsTheTokenIs(t *testing.T) {
	t.Parallel()
	i := issuerOf("EdDSA").named("k1")
	i.key.State, i.key.Until = Retired, now.Add(time.Hour)
	// From 50 s ago until 160 s from now, and until the key ends.
	token := i.token(`{"sub":"alice","nbf":1700000010,"exp":1700000100}`)
	late := i.token(`{"sub":"alice","exp":1700086400}`)
	claims := must(i.set().Verify(token, Standard(), now))
	lateClaims := must(i.set().Verify(late, Standard(), now))
	edges := []time.Duration{-50 * time.Second, 160 * time.Second, time.Hour, 24*time.Hour + time.Minute}
	for _, edge := range edges {
		for _, off := range []time.Duration{-time.Second, -1, 0, 1, 999 * time.Millisecond, time.Second} {
			at := now.Add(edge + off)
			for text, c := range map[string]Claims{token: claims, late: lateClaims} {
				_, want := i.set().Verify(text, Standard(), at)
				if got := c.Check(at); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%v from now: kept claims %v, token %v", edge+off, got, want)
				}
			}
		}
	}
	unasked := must(i.set().Verify(token, Rules{AudienceRule: AnyAudience, Algorithms: Algorithms()}, now.Add(-time.Hour)))
	if err := unasked.Check(now.Add(-time.Hour)); err != nil {
		t.Errorf("nbf counts where it is not asked for: %v", err)
	}
}

func TestRulesThatCouldTakeNoTokenAreRefusedWhenTheyAreMade(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Rules{"standard": Standard(), "reference server": ReferenceServer()} {
		if err := r.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty, some := "", "https://issuer.example"
	for name, change := range map[string]func(*Rules){
		"zero":                           func(r *Rules) { *r = Rules{} },
		"no algorithms":                  func(r *Rules) { r.Algorithms = nil },
		"none":                           func(r *Rules) { r.Algorithms = []string{"ES256", "none"} },
		"HMAC":                           func(r *Rules) { r.Algorithms = []string{"HS256"} },
		"an empty issuer":                func(r *Rules) { r.Issuer = &empty },
		"no audience rule":               func(r *Rules) { r.AudienceRule = "" },
		"another audience rule":          func(r *Rules) { r.AudienceRule = "all" },
		"one of no audiences":            func(r *Rules) { r.AudienceRule = OneOf },
		"one of empty audiences":         func(r *Rules) { r.AudienceRule, r.Audiences = OneOf, []string{"a", ""} },
		"a claim with a rule of its own": func(r *Rules) { r.Claims = map[string]string{"iss": "a"} },
		"a claim of no text":             func(r *Rules) { r.Claims = map[string]string{"client_id": ""} },
		"a claim of no name":             func(r *Rules) { r.Claims = map[string]string{"": "a"} },
		"audiences without a use":        func(r *Rules) { r.Audiences = []string{"a"} },
	} {
		r := Standard()
		r.Issuer = &some
		change(&r)
		if err := r.Check(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestATokenSaysWhichSourceItMayBeOf(t *testing.T) {
	t.Parallel()
	token, err := Parse(issuerOf("ES256").named("k1").token(`{"sub":"alice","exp":1,"iss":"https:\/\/issuer.example"}`))
	if err != nil || token.Issuer != "https://issuer.example" || token.KeyID != "k1" || token.Algorithm != "ES256" {
		t.Errorf("got %+v, %v", token, err)
	}
}

func TestExplainGoesOnAfterTheFirstFault(t *testing.T) {
	t.Parallel()
	i := issuerOf("ES256").named("k1")
	explain := func(token string, r Rules) []string {
		t.Helper()
		parsed, err := Parse(token)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, c := range i.set().Explain(parsed, r, now) {
			if e, ok := c.Err.(*Error); ok {
				all = append(all, c.Name+": "+string(e.Reason))
			} else {
				all = append(all, c.Name)
			}
		}
		return all
	}
	if got, want := explain(i.token(goodClaims), Standard()), []string{"alg", "exp", "nbf", "iss", "aud", "claims", "signature"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	issuer := "https://issuer.example"
	strict := Rules{Issuer: &issuer, AudienceRule: OneOf, Audiences: []string{"a"}, Algorithms: []string{"RS256"}, CheckNotBefore: true, Claims: map[string]string{"a": "b"}}
	bad := i.named("k2").token(`{"sub":"alice","exp":1,"nbf":1800000000}`)
	want := []string{"alg: algorithm", "exp: expired", "nbf: not_yet_valid", "iss: issuer", "aud: audience", "claims: claim", "signature: unknown_key"}
	if got := explain(bad, strict); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := explain(i.raw(`{"alg":"none"}`, goodClaims), Standard()); got[len(got)-1] != "signature: algorithm" {
		t.Errorf("got %q", got)
	}
}

func TestEveryReasonHasAText(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for reason, text := range texts {
		if text == "" || seen[text] || strings.Trim(string(reason), "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("%q: %q", reason, text)
		}
		seen[text] = true
	}
}
