package jwt

// Error says why a token was not accepted. No part of the token is in it.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return texts[e.Reason] }

// Is makes errors of one reason the same, as in errors.Is(err, ErrUnknownKey).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// ErrUnknownKey: the keys at hand have not signed the token, and ones that are newer may have. It tells apart
// what a look at the source of the keys could change.
var ErrUnknownKey error = &Error{UnknownKey}

var errBadSignature error = &Error{BadSignature}

// ErrUnavailable: whether the token is good cannot be said now, since the URL of the keys did not answer, or
// not with keys. It is not the wallet's fault.
var ErrUnavailable error = &Error{Unavailable}

// Reason is one of a fixed set, fit for a metric's label.
type Reason string

const (
	TooLong      Reason = "too_long"
	Encrypted    Reason = "encrypted"
	BadForm      Reason = "form"
	BadHeader    Reason = "header"
	Extension    Reason = "extension"
	BadType      Reason = "type"
	BadAlgorithm Reason = "algorithm"
	BadPayload   Reason = "payload"
	BadSubject   Reason = "subject"
	NoExpiry     Reason = "no_expiry"
	BadTime      Reason = "time"
	Expired      Reason = "expired"
	NotYetValid  Reason = "not_yet_valid"
	BadIssuer    Reason = "issuer"
	BadAudience  Reason = "audience"
	BadClaim     Reason = "claim"
	UnknownKey   Reason = "unknown_key"
	NoKeyID      Reason = "no_kid"
	WrongKeyType Reason = "key_type"
	KeyStandby   Reason = "key_standby"
	KeyRetired   Reason = "key_retired"
	KeyRevoked   Reason = "key_revoked"
	BadSignature Reason = "signature"
	Unavailable  Reason = "unavailable"
)

var texts = map[Reason]string{
	TooLong:      "the token is too long",
	Encrypted:    "the token is encrypted (it has five parts): only signed ones are taken",
	BadForm:      "the token is not three parts of unpadded base64url, with dots between them",
	BadHeader:    "the token's header is not a JSON object with an alg, whose members are all distinct and well-formed",
	Extension:    `the token's header asks for an extension ("crit" or "b64"), and none are taken`,
	BadType:      `the token is of a type (typ) that is not for access, as "logout+jwt" is: the app has to send an access token`,
	BadAlgorithm: "the token's algorithm (alg) is not one that its source takes",
	BadPayload:   "the token's payload is not a JSON object whose members are all distinct",
	BadSubject:   "the token's subject (sub) is not a text of 1 to 255 characters",
	NoExpiry:     "the token does not say when it expires (exp)",
	BadTime:      "a time in the token (exp, nbf) is not a number of seconds since 1970",
	Expired:      "the token has expired (exp): is the device's clock, or the issuer's, right?",
	NotYetValid:  "the token is not valid yet (nbf): is the issuer's clock right?",
	BadIssuer:    "the token's issuer (iss) is not the one of its source",
	BadAudience:  "the token's audience (aud) is not one that its source takes",
	BadClaim:     "a claim that the token's source asks for is not in the token, or is another text",
	UnknownKey:   "the token is signed by none of the keys of its source",
	NoKeyID:      "the token does not name its key (kid), and its source has many that it could be",
	WrongKeyType: "the token names a key (kid) that is not for its algorithm (alg)",
	KeyStandby:   "the token names a key (kid) that is on standby",
	KeyRetired:   "the token names a key (kid) that is retired",
	KeyRevoked:   "the token names a key (kid) that is revoked",
	BadSignature: "the token's signature is not one by the key that it names (kid), or the token was changed",
	Unavailable:  "the keys of the token's source cannot be had at the moment",
}

// asError is nil for no reason.
func asError(reason Reason) error {
	if reason == "" {
		return nil
	}
	return &Error{reason}
}
