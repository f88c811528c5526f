package lnurl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

const (
	// DefaultTokenLife is the life of a token, unless configured.
	DefaultTokenLife = time.Hour

	// MinTokenLife is the shortest life that a token gets, whatever is configured. Clients log in again when
	// a token has less than a minute to live by their own clock: at each request, if that is always so.
	MinTokenLife = 5 * time.Minute
)

const coordinateSize = 32 // of P-256, in bytes

// SigningKey signs tokens, with ES256 (RFC 7518 section 3.4). It is safe for concurrent use, and prints as
// its id.
type SigningKey struct {
	private func() *ecdsa.PrivateKey // in a function, since fmt prints fields
	public  JWK
	header  string // of its tokens, encoded
}

// NewSigningKey makes a random key.
func NewSigningKey() *SigningKey {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // only from a source that fails, and crypto/rand does not
	}
	key, err := newSigningKey(private)
	if err != nil {
		panic(err) // only for keys that are none
	}
	return key
}

// ParseSigningKey takes a private key as [SigningKey.PKCS8] gives it. Its errors have no part of it.
func ParseSigningKey(pkcs8 []byte) (*SigningKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errors.New("lnurl: the signing key is not PKCS#8")
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, errors.New("lnurl: the signing key is not one of ECDSA on P-256")
	}
	return newSigningKey(private)
}

func newSigningKey(private *ecdsa.PrivateKey) (*SigningKey, error) {
	point, err := private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, fmt.Errorf("lnurl: the signing key: %w", err)
	}
	public := JWK{
		KeyType:   "EC",
		Curve:     "P-256",
		X:         encode(point[1 : 1+coordinateSize]),
		Y:         encode(point[1+coordinateSize:]),
		Algorithm: "ES256",
		Use:       "sig",
	}
	public.ID = public.thumbprint()
	header := mustJSON(struct {
		Algorithm string `json:"alg"`
		Type      string `json:"typ"`
		KeyID     string `json:"kid"`
	}{public.Algorithm, "JWT", public.ID})
	return &SigningKey{private: func() *ecdsa.PrivateKey { return private }, public: public, header: encode(header)}, nil
}

// PKCS8 is the private key in DER (RFC 5958), to be stored sealed.
func (k *SigningKey) PKCS8() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k.private())
	if err != nil {
		panic(err) // only for keys of other kinds
	}
	return der
}

// Public is what verifies the key's tokens. It may outlive the key, until the last of them has expired.
func (k *SigningKey) Public() JWK { return k.public }

// ID is the key's thumbprint (RFC 7638), its kid.
func (k *SigningKey) ID() string { return k.public.ID }

// Sign makes a token (RFC 7519) of the issuer, if there is one, for the subject: issued now, in whole
// seconds, and expiring after its life, which is [DefaultTokenLife] if 0 and at least [MinTokenLife].
func (k *SigningKey) Sign(subject, issuer string, now time.Time, life time.Duration) string {
	if life == 0 {
		life = DefaultTokenLife
	}
	life = max(life, MinTokenLife)
	claims := mustJSON(struct {
		Issuer  string `json:"iss,omitempty"`
		Subject string `json:"sub"`
		Issued  int64  `json:"iat"`
		Expires int64  `json:"exp"`
	}{issuer, subject, now.Unix(), now.Unix() + int64(life/time.Second)})

	signed := k.header + "." + encode(claims)
	sig, err := jwt.SignES256(k.private(), []byte(signed))
	if err != nil {
		panic(err) // as for a new key
	}
	return signed + "." + encode(sig)
}

// String is the id, as for every other way of printing a key.
func (k SigningKey) String() string { return "signing key " + k.public.ID }

// Format prints the id, whatever the verb; the fields of a Stringer are printed by some.
func (k SigningKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is the id.
func (k SigningKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// JWK is a public key (RFC 7517, RFC 7518 section 6.2), in JSON as it is published.
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	Y         string `json:"y"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
	ID        string `json:"kid"`
}

// JSON is the key as it is published.
func (k JWK) JSON() []byte { return mustJSON(k) }

// thumbprint is the one of RFC 7638: SHA-256 over the required members, in the order of their names.
func (k *JWK) thumbprint() string {
	sum := sha256.Sum256(mustJSON(struct {
		Curve   string `json:"crv"`
		KeyType string `json:"kty"`
		X       string `json:"x"`
		Y       string `json:"y"`
	}{k.Curve, k.KeyType, k.X, k.Y}))
	return encode(sum[:])
}

// JWKS is a set of keys (RFC 7517 section 5), in JSON; an empty one for none.
func JWKS(keys ...JWK) []byte {
	return mustJSON(struct {
		Keys []JWK `json:"keys"`
	}{append([]JWK{}, keys...)})
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only for types that JSON has no form for
	}
	return b
}
