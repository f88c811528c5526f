package jwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"math/bits"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Key is a public key that tokens are verified with. All but its state is fixed when it is read.
type Key struct {
	State State
	Until time.Time // of a retired key: it verifies before then

	fields     fields
	id         string
	thumbprint string
	public     crypto.PublicKey
	price      time.Duration // about what a verification costs
}

// State is what a key may do. A key that was just read is on standby.
type State string

const (
	Standby State = "standby" // known, but verifies nothing yet
	Active  State = "active"
	Retired State = "retired" // verifies until a time
	Revoked State = "revoked" // never verifies again
)

// ID is the key's kid or, where it has none, its thumbprint.
func (k Key) ID() string { return k.id }

// Named says whether the key has a kid of its own. One that has not, as every key in PEM, may be meant by any
// kid that names no other.
func (k Key) Named() bool { return k.fields.Kid != "" }

// Thumbprint is the key's by RFC 7638: the same for the same key, whatever its kid is.
func (k Key) Thumbprint() string { return k.thumbprint }

// Type is the key's kty: RSA, EC or OKP.
func (k Key) Type() string { return k.fields.Kty }

// Algorithm is the only one that the key is for, or "" for all that its type allows.
func (k Key) Algorithm() string { return k.fields.Alg }

// Describe is what kind of key it is, for people.
func (k Key) Describe() string {
	if key, ok := k.public.(*rsa.PublicKey); ok {
		return fmt.Sprintf("RSA, %d bits", key.N.BitLen())
	}
	return k.fields.Kty + ", " + k.fields.Crv
}

// sameAs says whether both are one key, whatever they are called and for.
func (k *Key) sameAs(other *Key) bool { return k.thumbprint == other.thumbprint }

// JWK is the key in JSON, one text for one key, which [ParseKey] reads: nothing in it is secret.
func (k Key) JWK() []byte { return k.fields.json() }

// refuses says why the key does not verify tokens with this algorithm now, or "".
func (k Key) refuses(a *algorithm, now time.Time) Reason {
	switch {
	case !k.fields.fit(a):
		return WrongKeyType
	case k.State == Active, k.State == Retired && now.Before(k.Until):
		return ""
	case k.State == Retired:
		return KeyRetired
	case k.State == Standby || k.State == "":
		return KeyStandby
	default:
		return KeyRevoked
	}
}

// fields are the members of a JWK that matter here, by name, as RFC 7638 wants them for a thumbprint.
type fields struct {
	Alg string `json:"alg,omitempty"`
	Crv string `json:"crv,omitempty"`
	E   string `json:"e,omitempty"`
	Kid string `json:"kid,omitempty"`
	Kty string `json:"kty"`
	N   string `json:"n,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
}

func (f fields) json() []byte {
	text, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings alone
	}
	return text
}

// thumbprint is RFC 7638's.
func (f fields) thumbprint() string {
	f.Alg, f.Kid = "", ""
	sum := sha256.Sum256(f.json())
	return encoding.EncodeToString(sum[:])
}

func (f fields) fit(a *algorithm) bool {
	return f.Kty == a.kty && (a.crv == "" || f.Crv == a.crv) && (f.Alg == "" || f.Alg == a.name)
}

const (
	minRSABits = 2048
	maxRSABits = 4096 // beyond, a verification costs too much
)

// refusal says what is wrong with a key, for whoever gave it: a sentence whose subject is the key.
type refusal string

// newKey makes a key of its fields and checks it: whatever form it came in.
func newKey(f fields) (Key, refusal) {
	if n := utf8.RuneCountInString(f.Kid); n > 255 || strings.ContainsRune(f.Kid, 0) {
		return Key{}, "has a kid of more than 255 characters or with a NUL"
	}
	f.Alg = canonical(f.Alg)
	var public crypto.PublicKey
	var bad refusal
	switch f.Kty {
	case "RSA":
		f.Crv, f.X, f.Y = "", "", ""
		public, bad = newRSA(&f)
	case "EC":
		f.E, f.N = "", ""
		public, bad = newEC(&f)
	case "OKP":
		f.E, f.N, f.Y = "", "", ""
		public, bad = newOKP(&f)
	default:
		bad = "is of a type (kty) that is not taken: RSA, EC and OKP are"
	}
	if bad != "" {
		return Key{}, bad
	}
	if a := algorithmNamed(f.Alg); f.Alg != "" && (a == nil || !f.fit(a)) {
		return Key{}, "has an algorithm (alg) that is not taken, or is not for keys of its type"
	}
	k := Key{State: Standby, fields: f, id: f.Kid, thumbprint: f.thumbprint(), public: public, price: priceOf(public, f.Crv)}
	if k.id == "" {
		k.id = k.thumbprint
	}
	return k, ""
}

// priceOf is about what a verification with the key costs, whether the signature is good or not: twice what was
// measured on a server of 2024. What matters is how the prices compare: see BenchmarkPrice.
func priceOf(public crypto.PublicKey, curve string) time.Duration {
	if key, ok := public.(*rsa.PublicKey); ok {
		size := float64(key.N.BitLen()) / 2048
		products := bits.Len(uint(key.E)) + bits.OnesCount(uint(key.E)) // to square and multiply
		return time.Duration(size * size * size * float64(30+3*products) * float64(time.Microsecond))
	}
	return curvePrices[curve]
}

var curvePrices = map[string]time.Duration{
	"P-256":     200 * time.Microsecond,
	"P-384":     1200 * time.Microsecond,
	"P-521":     5300 * time.Microsecond,
	"secp256k1": 270 * time.Microsecond,
	"Ed25519":   120 * time.Microsecond,
}

func newRSA(f *fields) (crypto.PublicKey, refusal) {
	n, okN := decodeField(f.N)
	e, okE := decodeField(f.E)
	if !okN || !okE {
		return nil, "lacks n or e, or has one that is not base64url"
	}
	// Some programs write a zero before the modulus, as for a signed number.
	n, e = bytes.TrimLeft(n, "\x00"), bytes.TrimLeft(e, "\x00")
	f.N, f.E = encoding.EncodeToString(n), encoding.EncodeToString(e)
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	switch size := modulus.BitLen(); {
	case size < minRSABits:
		return nil, "is an RSA key of fewer than 2048 bits, which is too weak"
	case size > maxRSABits:
		return nil, "is an RSA key of more than 4096 bits, which is too slow: use one of 2048 to 4096 bits"
	case exponent.BitLen() > 31:
		return nil, "is an RSA key whose exponent has more than 31 bits, which is too slow: use the usual one, 65537"
	case modulus.Bit(0) == 0, exponent.Bit(0) == 0, exponent.BitLen() < 2:
		return nil, "is an RSA key with an impossible modulus or exponent"
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, ""
}

func newEC(f *fields) (crypto.PublicKey, refusal) {
	var curve elliptic.Curve
	size := 32
	switch f.Crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve, size = elliptic.P384(), 48
	case "P-521":
		curve, size = elliptic.P521(), 66
	case "secp256k1":
	default:
		return nil, "is on a curve (crv) that is not taken: P-256, P-384, P-521 and secp256k1 are"
	}
	x, okX := decodeField(f.X)
	y, okY := decodeField(f.Y)
	if !okX || !okY || len(x) != size || len(y) != size {
		return nil, "lacks x or y, or has one that is not base64url of the curve's length"
	}
	f.X, f.Y = encoding.EncodeToString(x), encoding.EncodeToString(y)
	point := append(append([]byte{4}, x...), y...)
	var public crypto.PublicKey
	var err error
	if curve == nil {
		public, err = secp256k1.ParsePubKey(point)
	} else {
		public, err = ecdsa.ParseUncompressedPublicKey(curve, point)
	}
	if err != nil {
		return nil, "is not on its curve"
	}
	return public, ""
}

func newOKP(f *fields) (crypto.PublicKey, refusal) {
	if f.Crv != "Ed25519" {
		return nil, "is on a curve (crv) that is not taken: of OKP keys, Ed25519 is"
	}
	x, ok := decodeField(f.X)
	if !ok || len(x) != ed25519.PublicKeySize {
		return nil, "lacks x, or has one that is not base64url of 32 bytes"
	}
	f.X = encoding.EncodeToString(x)
	if !soundEd25519(x) {
		return nil, "is not on its curve, or a weak point of it"
	}
	return ed25519.PublicKey(x), ""
}

// decodeField wants a field's text to be there, and canonical but for the padding that some issuers write.
func decodeField(text string) ([]byte, bool) {
	if len(text)%4 == 0 && strings.HasSuffix(text, "=") {
		text = strings.TrimSuffix(strings.TrimSuffix(text, "="), "=")
	}
	value, ok := decode(make([]byte, len(text)), []byte(text))
	return value, ok && len(value) > 0
}

// The field and the constant of Ed25519's curve, -x² + y² = 1 + dx²y².
var (
	edPrime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	edD     = func() *big.Int {
		d := new(big.Int).ModInverse(big.NewInt(121666), edPrime)
		return d.Mul(d, big.NewInt(-121665)).Mod(d, edPrime)
	}()
)

// soundEd25519 says whether the key is a point of the curve, written in the one canonical way, and not one of
// the eight whose order is small: anybody can sign for those, and one of them is 32 zero bytes.
func soundEd25519(key []byte) bool {
	b := bytes.Clone(key)
	b[31] &= 0x7f // the sign of x
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	y := new(big.Int).SetBytes(b)
	if y.Cmp(edPrime) >= 0 {
		return false
	}
	one := big.NewInt(1)
	y2 := new(big.Int).Mul(y, y)
	u := new(big.Int).Sub(y2, one)                        // x² = u/v,
	v := new(big.Int).Add(new(big.Int).Mul(edD, y2), one) // which is a square where uv is one
	uv := new(big.Int).Mul(u, v)
	if big.Jacobi(uv.Mod(uv, edPrime), edPrime) < 0 {
		return false
	}
	// Of order 1 or 2: y² = 1. Of order 4: y = 0. Of order 8, where doubling gives y = 0: x² = -y².
	w := new(big.Int).Mul(y2, v) // -x² = y² means u + y²v = 0
	w.Add(w, u)
	w.Mul(w, u).Mul(w, y)
	return w.Mod(w, edPrime).Sign() != 0
}

// encoding is base64url as JOSE has it.
var encoding = base64.RawURLEncoding.Strict()

// decode reads base64url into dst, which must be long enough. Of all texts for the same bytes it takes one.
func decode(dst, src []byte) ([]byte, bool) {
	n, err := encoding.Decode(dst, src)
	return dst[:n], err == nil && encoding.EncodedLen(n) == len(src) // it leaves out line ends
}
