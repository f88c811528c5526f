package jwt

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxToken   = 32 << 10
	maxSubject = 255 // characters

	maxClaims = 20  // that rules ask for
	maxClaim  = 500 // bytes of the name, and of the text, of one

	// leeway is how far clocks may differ. The platform's, in whole seconds as the reference server reads
	// it, may be this much past exp, and this much before nbf.
	leeway = time.Minute
)

// lastTime is the latest that a token's times are taken for: what is later could not be written as RFC 3339.
var lastTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Token is what [Parse] read. Nothing in it is proven.
type Token struct {
	Algorithm string // alg, by the name that it has in Algorithms
	KeyID     string // kid; "" where there is none
	Issuer    string // iss; "" where there is none, or no text
	Subject   string // sub

	Verifier Verifier // for tests, to count; nil: VerifySignature

	expires                     time.Time
	notBefore, issuer, audience []byte // in JSON; nil where they are not there
	payload                     []byte

	signed    []byte // header and payload, with their dot
	signature []byte
}

// Parse reads a token strictly and without any arithmetic on keys, so that its source can be chosen by its
// issuer or kid. What it refuses, [Set.Verify] does under any rules. It fails with an [*Error].
//
// Of the header, alg and kid count. Keys that a token brings along or points at (jwk, jku, x5c, x5u) are not
// looked at, however good they look: honest issuers send some of them, and to trust them would be to let
// everybody sign. cty and names that are not known mean nothing either; a typ that says that the token is not for access
// is believed.
func Parse(token string) (*Token, error) {
	t := new(Token)
	if reason := t.parse(token); reason != "" {
		return nil, &Error{reason}
	}
	return t, nil
}

func (t *Token) parse(token string) Reason {
	if len(token) > maxToken {
		return TooLong
	}
	switch strings.Count(token, ".") {
	case 2:
	case 4:
		return Encrypted
	default:
		return BadForm
	}
	text := []byte(token)
	first, last := bytes.IndexByte(text, '.'), bytes.LastIndexByte(text, '.')
	t.signed = text[:last]
	decoded := make([]byte, len(text))
	header, okHeader := decode(decoded, text[:first])
	payload, okPayload := decode(decoded[len(header):], text[first+1:last])
	var okSignature bool
	t.signature, okSignature = decode(decoded[len(header)+len(payload):], text[last+1:])
	if !okHeader || !okPayload || !okSignature {
		return BadForm
	}
	if reason := t.parseHeader(header); reason != "" {
		return reason
	}
	return t.parsePayload(payload)
}

func (t *Token) parseHeader(header []byte) Reason {
	var room [8]member
	members, ok := readObject(header, room[:0])
	if !ok {
		return BadHeader
	}
	for _, m := range members {
		switch string(m.name) {
		case "alg":
			alg, ok := unquote(m.value)
			if !ok {
				return BadHeader
			}
			t.Algorithm = canonical(string(alg))
		case "kid":
			kid, ok := unquote(m.value)
			if !ok {
				return BadHeader
			}
			t.KeyID = string(kid)
		case "typ":
			if typ, ok := unquote(m.value); ok && isOtherType(string(typ)) {
				return BadType
			}
		case "crit", "b64":
			return Extension
		}
	}
	if t.Algorithm == "" {
		return BadHeader
	}
	return ""
}

// isOtherType says whether a typ is of tokens with a purpose of their own, as of logout+jwt, secevent+jwt and dpop+jwt
// (RFC 8725 section 3.11). JWT says nothing, nor does a word that is no type of a JWT.
func isOtherType(typ string) bool {
	typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
	return strings.HasSuffix(typ, "+jwt") && typ != "at+jwt"
}

func (t *Token) parsePayload(payload []byte) Reason {
	var room [16]member
	members, ok := readObject(payload, room[:0])
	if !ok {
		return BadPayload
	}
	t.payload = payload
	var subject, expires []byte
	for _, m := range members {
		switch string(m.name) {
		case "sub":
			subject = m.value
		case "exp":
			expires = m.value
		case "nbf":
			t.notBefore = m.value
		case "iss":
			t.issuer = m.value
		case "aud":
			t.audience = m.value
		}
	}
	issuer, _ := unquote(t.issuer)
	t.Issuer = string(issuer)

	sub, ok := unquote(subject)
	if !ok || len(sub) == 0 || utf8.RuneCount(sub) > maxSubject || bytes.IndexByte(sub, 0) >= 0 {
		return BadSubject
	}
	t.Subject = string(sub)
	if expires == nil {
		return NoExpiry
	}
	if t.expires, ok = seconds(expires); !ok {
		return BadTime
	}
	return ""
}

// seconds reads a NumericDate of RFC 7519: a number that need not be whole, and is not negative here. Up to
// lastTime a float64 is exact to 31 microseconds; the rest of it is lastTime.
func seconds(value []byte) (time.Time, bool) {
	if len(value) == 0 || value[0] < '0' || value[0] > '9' {
		return time.Time{}, false
	}
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil { // too large for one
		return time.Time{}, false
	}
	if n >= float64(lastTime.Unix()) {
		return lastTime, true
	}
	whole, part := math.Modf(n)
	return time.Unix(int64(whole), int64(part*1e9)).UTC(), true
}

// Rules are what a source asks of tokens besides a good signature. The zero value takes none.
type Rules struct {
	Issuer       *string      // what iss must be, byte for byte; nil: it is not looked at
	AudienceRule AudienceRule // what aud must be
	Audiences    []string     // for OneOf

	// CheckNotBefore makes nbf count, where a token has one.
	CheckNotBefore bool

	// Grace is how long past exp a token is taken, beside what clocks may differ: for an issuer whose clients go by their
	// own clocks to replace it.
	Grace time.Duration

	// Algorithms that are taken, of [Algorithms].
	Algorithms []string

	// Claims that a token must have besides, and the text that each must be, byte for byte.
	Claims map[string]string
}

// AudienceRule is what a token's aud must be.
type AudienceRule string

const (
	AnyAudience AudienceRule = "any"    // it is not looked at
	OneOf       AudienceRule = "one_of" // one of it, or it, is one of Rules.Audiences
	NoAudience  AudienceRule = "none"   // there is none
)

// Algorithms are all that can be taken: RS, PS and ES 256 to 512, ES256K and EdDSA.
func Algorithms() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = a.name
	}
	return names
}

// Standard are the rules for an issuer like most.
func Standard() Rules {
	return Rules{AudienceRule: AnyAudience, CheckNotBefore: true, Algorithms: Algorithms()}
}

// ReferenceServer are the rules of the reference server (CONTRACT section 4.2), which takes RS256 with one key
// in PEM, for tenants who come from there.
func ReferenceServer() Rules {
	return Rules{AudienceRule: NoAudience, Algorithms: []string{"RS256"}}
}

// Check says, for a person, what is wrong with rules that could take no token, or nil.
func (r Rules) Check() error {
	refuse := func(reason string) error { return &RulesError{reason} }
	if len(r.Algorithms) == 0 {
		return refuse("no algorithm is taken")
	}
	for _, name := range r.Algorithms {
		if algorithmNamed(name) == nil {
			return refuse("an algorithm is not one of " + strings.Join(Algorithms(), ", "))
		}
	}
	switch {
	case r.Issuer != nil && *r.Issuer == "":
		return refuse("the issuer is empty")
	case r.AudienceRule != AnyAudience && r.AudienceRule != OneOf && r.AudienceRule != NoAudience:
		return refuse("the audience rule is not one of any, one_of, none")
	case (r.AudienceRule == OneOf) != (len(r.Audiences) > 0), slices.Contains(r.Audiences, ""):
		return refuse("audiences are to be given with the audience rule one_of, and with no other")
	case len(r.Claims) > maxClaims:
		return refuse("more than " + strconv.Itoa(maxClaims) + " claims are asked for")
	}
	for name, text := range r.Claims {
		switch {
		case name == "iss", name == "aud", name == "exp", name == "nbf", name == "sub":
			return refuse("the claim " + name + " has a rule of its own, and no other can be made for it")
		case name == "" || text == "" || len(name) > maxClaim || len(text) > maxClaim || !utf8.ValidString(name+text) || strings.ContainsRune(name+text, 0):
			return refuse("a claim that is asked for has a name and a text, each of 1 to " + strconv.Itoa(maxClaim) + " bytes in UTF-8")
		}
	}
	return nil
}

// Takes says whether some algorithm of the rules is for this key.
func (r Rules) Takes(k Key) bool {
	return slices.ContainsFunc(r.Algorithms, func(name string) bool {
		a := algorithmNamed(name)
		return a != nil && k.fields.fit(a)
	})
}

// RulesError says what is wrong with rules that somebody gave, for them to read.
type RulesError struct{ Reason string }

func (e *RulesError) Error() string { return e.Reason }

// Claims are what a verified token says.
type Claims struct {
	Subject   string
	Expires   time.Time // with the rules' grace
	NotBefore time.Time // zero where the rules do not ask for it, or the token has none
	KeyID     string    // of the key that signed it, see [Key.ID]
	KeyUntil  time.Time // when that key, if it is retired, ceases to verify; else zero
}

// Check says with an [*Error] why the token is not good at this time: for claims that are kept, since a
// verified signature stays one, and a time does not.
func (c *Claims) Check(now time.Time) error {
	switch {
	case expired(c.Expires, now):
		return &Error{Expired}
	case early(c.NotBefore, now):
		return &Error{NotYetValid}
	case !c.KeyUntil.IsZero() && !now.Before(c.KeyUntil):
		return &Error{KeyRetired}
	}
	return nil
}

func expired(expires, now time.Time) bool {
	return now.Truncate(time.Second).After(expires.Add(leeway))
}

func early(notBefore, now time.Time) bool { return now.Before(notBefore.Add(-leeway)) }

// rules are all that is asked of a token but its signature, in the order in which it is.
var rules = []struct {
	name    string
	refuses func(*Token, Rules, time.Time) Reason
}{
	{"alg", (*Token).refuseAlgorithm},
	{"exp", (*Token).refuseExpired},
	{"nbf", (*Token).refuseEarly},
	{"iss", (*Token).refuseIssuer},
	{"aud", (*Token).refuseAudience},
	{"claims", (*Token).refuseClaims},
}

// refusal says why the token is not good, whoever signed it, or "".
func (t *Token) refusal(r Rules, now time.Time) Reason {
	for _, rule := range rules {
		if reason := rule.refuses(t, r, now); reason != "" {
			return reason
		}
	}
	return ""
}

func (t *Token) refuseAlgorithm(r Rules, _ time.Time) Reason {
	if !slices.Contains(r.Algorithms, t.Algorithm) || algorithmNamed(t.Algorithm) == nil {
		return BadAlgorithm
	}
	return ""
}

func (t *Token) refuseExpired(r Rules, now time.Time) Reason {
	if expired(t.expires.Add(r.Grace), now) {
		return Expired
	}
	return ""
}

func (t *Token) refuseEarly(r Rules, now time.Time) Reason {
	if !r.CheckNotBefore || t.notBefore == nil {
		return ""
	}
	notBefore, ok := seconds(t.notBefore)
	switch {
	case !ok:
		return BadTime
	case early(notBefore, now):
		return NotYetValid
	}
	return ""
}

func (t *Token) refuseIssuer(r Rules, _ time.Time) Reason {
	if r.Issuer == nil {
		return ""
	}
	if issuer, ok := unquote(t.issuer); !ok || string(issuer) != *r.Issuer {
		return BadIssuer
	}
	return ""
}

func (t *Token) refuseAudience(r Rules, _ time.Time) Reason {
	switch {
	case r.AudienceRule == AnyAudience,
		r.AudienceRule == NoAudience && (t.audience == nil || isNull(t.audience)),
		r.AudienceRule == OneOf && t.isFor(r.Audiences):
		return ""
	}
	return BadAudience
}

// isFor says whether aud, a text or an array of texts, has one of the audiences.
func (t *Token) isFor(audiences []string) bool {
	if aud, ok := unquote(t.audience); ok {
		return slices.Contains(audiences, string(aud))
	}
	found := false
	for element := range elements(t.audience) {
		aud, ok := unquote(element)
		if !ok {
			return false
		}
		found = found || slices.Contains(audiences, string(aud))
	}
	return found
}

// refuseClaims reads the payload again, which only sources pay for that ask for claims.
func (t *Token) refuseClaims(r Rules, _ time.Time) Reason {
	if len(r.Claims) == 0 {
		return ""
	}
	var room [16]member
	members, _ := readObject(t.payload, room[:0]) // whose names are distinct
	found := 0
	for _, m := range members {
		if want, asked := r.Claims[string(m.name)]; asked {
			if text, ok := unquote(m.value); ok && string(text) == want {
				found++
			}
		}
	}
	if found < len(r.Claims) {
		return BadClaim
	}
	return ""
}

// claims of a token that its rules do not refuse.
func (t *Token) claims(r Rules) Claims {
	c := Claims{Subject: t.Subject, Expires: t.expires.Add(r.Grace)}
	if r.CheckNotBefore && t.notBefore != nil {
		c.NotBefore, _ = seconds(t.notBefore)
	}
	return c
}
