// Package lnurl lets wallets log in with a key of their own and issues them tokens: LNURL-auth (LUD-04,
// LUD-05) with the platform as issuer (CONTRACT section 4.3).
//
// A wallet GETs the auth URL and is answered that URL with a challenge, k1. It signs k1 and GETs what it was
// given with the signature and its key added; the answer has a JSON Web Token whose subject is the key.
//
//   - [Handler] is the auth URL;
//   - [Challenger] makes challenges and knows its own again, without storing them;
//   - [VerifyLogin] verifies the signature;
//   - [SigningKey] signs tokens, and [JWKS] publishes what verifies them.
//
// The wallet derives its key from the host of the URL it is answered (LUD-05): a tenant answers one host, in
// one spelling, for ever, or its wallets lose what they stored.
package lnurl

// Error says why a login was refused. The reason is one of a fixed set of texts, so it can be counted,
// logged and shown: no part of a request is ever in it. The wallet is told it.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

func refuse(reason string) error { return &Error{Reason: reason} }

// The reasons have no quotes, since clients escape those when they report one.
const (
	reasonMethod   = "every call of LNURL-auth is a GET"
	reasonLong     = "the query is too long"
	reasonQuery    = "the query is malformed"
	reasonMissing  = " is missing" // after the name of a parameter
	reasonTwice    = " is there more than once"
	reasonK1       = "k1 is not 32 bytes in hex"
	reasonForeign  = "k1 is not a challenge of this host"
	reasonExpired  = "k1 has expired, begin again"
	reasonUsed     = "k1 was used already, begin again"
	reasonSigHex   = "sig is not a signature in hex"
	reasonSigDER   = "sig is not an ECDSA signature in strict DER"
	reasonSigHighS = "sig is not the signature with the low s"
	reasonKeyHex   = "key is not 33 bytes in hex"
	reasonKeyForm  = "key is not in the compressed form"
	reasonKeyCurve = "key is not a point of secp256k1"
	reasonMismatch = "sig is not a signature by this key over k1"
)

// reasonOurFault is what a wallet is told of errors that are no [Error].
const reasonOurFault = "temporarily unavailable, try again"
