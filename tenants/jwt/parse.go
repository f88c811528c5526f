package jwt

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

const (
	maxDocument = 1 << 20 // bytes of keys in any form
	maxKeys     = 100
)

// KeyError says what is wrong with keys that somebody gave, for them to read. No part of a key is in it.
type KeyError struct {
	Position int    // of the key in what was given, from 1; 0 where it is not about one
	Reason   string // a sentence without its subject

	// unfit: the key says itself that it is not for signatures, so nobody misses it.
	unfit bool
}

func (e *KeyError) Error() string {
	if e.Position == 0 {
		return "it " + e.Reason
	}
	return fmt.Sprintf("key %d %s", e.Position, e.Reason)
}

const (
	isPrivate   refusal = "is a private or secret key: give only public ones. It was not kept, but has left its place: better make a new one"
	isSymmetric refusal = "is symmetric (kty oct): whoever can verify with it can sign, so it is not taken"
	isUnfit     refusal = "is not for signatures (use, key_ops)"

	noKeys = "has no key for signatures in it"
)

// ParseKeys reads the public keys that a person gives: a JWKS, a JWK, or PEM (PKCS#1, PKCS#8's SPKI, or one
// certificate, which is but an envelope here: its dates and names are not looked at).
//
// It takes all or nothing, and fails with a [*KeyError]: had a key been left out silently, it could be the one
// that the wallets' tokens are signed by. Only keys that say themselves that they are not for signatures are
// passed over. (What is fetched is read otherwise: nobody is there to mend it.)
func ParseKeys(text []byte) ([]Key, error) {
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff")))
	refuse := func(reason string) ([]Key, error) { return nil, &KeyError{Reason: reason} }
	var keys []Key
	var problems []*KeyError
	var err error
	switch {
	case len(text) == 0:
		return refuse("is empty")
	case len(text) > maxDocument:
		return refuse("is too long")
	case text[0] == '{':
		keys, problems, err = readJSON(text)
	case bytes.Contains(text, []byte(pemBegin)):
		keys, err = readPEM(text)
	case bytes.HasPrefix(text, []byte("ssh-")), bytes.HasPrefix(text, []byte("ecdsa-")):
		return refuse("is an SSH key: convert it with ssh-keygen -e -m PKCS8 -f FILE")
	default:
		return refuse("is neither a JWKS, nor a JWK, nor PEM")
	}
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		if !p.unfit {
			return nil, p
		}
	}
	if len(keys) == 0 {
		return refuse(noKeys)
	}
	seen := map[string]bool{}
	for _, k := range keys {
		if seen[k.id] && k.Named() {
			return refuse(fmt.Sprintf("has two keys of one kid, %.260q", k.id))
		} else if seen[k.id] {
			return refuse("has one key twice")
		}
		seen[k.id] = true
	}
	return keys, nil
}

// ParseKey reads what [Key.JWK] wrote.
func ParseKey(jwk []byte) (Key, error) {
	keys, err := ParseKeys(jwk)
	if err == nil && len(keys) != 1 {
		err = &KeyError{Reason: "is not one key"}
	}
	if err != nil {
		return Key{}, err
	}
	return keys[0], nil
}

// readJSON reads a JWKS, or a JWK. Each key is in keys or in problems.
func readJSON(text []byte) (keys []Key, problems []*KeyError, err error) {
	members, ok := readObject(text, nil)
	if !ok {
		return nil, nil, &KeyError{Reason: "is not JSON, or has two members of one name"}
	}
	i := slices.IndexFunc(members, func(m member) bool { return string(m.name) == "keys" })
	read := func(members []member, ok bool) {
		k, bad := Key{}, refusal("is not an object, or has two members of one name")
		if ok {
			k, bad = readJWK(members)
		}
		if bad == "" {
			keys = append(keys, k)
		} else {
			problems = append(problems, &KeyError{len(keys) + len(problems) + 1, string(bad), bad == isUnfit})
		}
	}
	has := func(name string) bool {
		return slices.ContainsFunc(members, func(m member) bool { return string(m.name) == name })
	}
	switch {
	case i >= 0:
	case has("kty"):
		read(members, true)
		return keys, problems, nil
	case has("jwks_uri"):
		return nil, nil, &KeyError{Reason: `is the configuration of an issuer, whose keys are at its "jwks_uri"`}
	default:
		return nil, nil, &KeyError{Reason: "is JSON, but neither a JWKS nor a JWK"}
	}
	set := members[i].value
	if !isArray(set) {
		return nil, nil, &KeyError{Reason: `has "keys" that is not an array`}
	}
	for element := range elements(set) {
		if len(keys)+len(problems) == maxKeys {
			return nil, nil, &KeyError{Reason: fmt.Sprintf("has more than %d keys", maxKeys)}
		}
		read(readObject(element, nil))
	}
	return keys, problems, nil
}

func readJWK(members []member) (Key, refusal) {
	var f fields
	var use string
	into := map[string]*string{
		"alg": &f.Alg, "crv": &f.Crv, "e": &f.E, "kid": &f.Kid, "kty": &f.Kty, "n": &f.N, "x": &f.X, "y": &f.Y, "use": &use,
	}
	private, unfit := false, false
	for _, m := range members {
		switch name := string(m.name); name {
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k":
			private = true
		case "key_ops":
			unfit = true
			for op := range elements(m.value) {
				unfit = unfit && string(op) != `"verify"`
			}
		default:
			if field := into[name]; field != nil {
				text, ok := unquote(m.value)
				if !ok {
					return Key{}, refusal("has a member that is not a text: " + name)
				}
				*field = string(text)
			}
		}
	}
	switch {
	case f.Kty == "oct":
		return Key{}, isSymmetric
	case private:
		return Key{}, isPrivate
	case unfit, use != "" && use != "sig":
		return Key{}, isUnfit
	}
	return newKey(f)
}

const (
	pemBegin = "-----BEGIN "
	pemEnd   = "-----END "
	pemDash  = "-----"
)

// readPEM reads what encoding/pem does and what it skips in silence: a block that is cut off or damaged is an
// error here. A block may be on one line, and line ends may be written as \n, as they are in environment
// variables and JSON.
func readPEM(text []byte) ([]Key, error) {
	if bytes.Contains(text, []byte("PRIVATE KEY"+pemDash)) {
		return nil, &KeyError{Reason: string(isPrivate)}
	}
	var keys []Key
	certificates := 0
	for {
		_, rest, found := bytes.Cut(text, []byte(pemBegin))
		if !found {
			return keys, nil
		}
		if len(keys) == maxKeys {
			return nil, &KeyError{Reason: fmt.Sprintf("has more than %d keys", maxKeys)}
		}
		refuse := func(bad refusal) ([]Key, error) {
			return nil, &KeyError{Position: len(keys) + 1, Reason: string(bad)}
		}
		label, rest, _ := bytes.Cut(rest, []byte(pemDash))
		body, rest, found := bytes.Cut(rest, []byte(pemEnd+string(label)+pemDash))
		der, err := decodePEM(body)
		if !found || err != nil {
			return refuse("is PEM that is cut off or damaged")
		}
		if string(label) == "CERTIFICATE" {
			certificates++
		}
		if certificates > 0 && len(keys) > 0 {
			return refuse("is more than one certificate: give only the one of the key that signs, and none of those that certify it")
		}
		public := publicKey(string(label), der)
		if public == nil {
			return refuse("is not PEM of a public key that is taken (RSA, EC on P-256, P-384, P-521 or secp256k1, Ed25519)")
		}
		k, bad := newKey(fieldsOf(public))
		if bad != "" {
			return refuse(bad)
		}
		keys, text = append(keys, k), rest
	}
}

func decodePEM(body []byte) ([]byte, error) {
	for _, end := range []string{`\r`, `\n`, "\r", "\n", " ", "\t"} {
		body = bytes.ReplaceAll(body, []byte(end), nil)
	}
	return base64.StdEncoding.Strict().DecodeString(string(body))
}

// publicKey is nil where there is none. That a key in one of the two forms carries the other's label is common
// enough that the reference server takes it.
func publicKey(label string, der []byte) crypto.PublicKey {
	switch label {
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		if key, err := x509.ParsePKIXPublicKey(der); err == nil {
			return key
		}
		if key, err := x509.ParsePKCS1PublicKey(der); err == nil {
			return key
		}
		if key := parseSecp256k1(der); key != nil {
			return key
		}
	case "CERTIFICATE":
		if cert, err := x509.ParseCertificate(der); err == nil {
			return cert.PublicKey
		}
	}
	return nil
}

var (
	oidEC        = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
)

// parseSecp256k1 reads the SPKI of a curve that crypto/x509 does not know.
func parseSecp256k1(der []byte) *secp256k1.PublicKey {
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	var curve asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(der, &spki)
	if err != nil || len(rest) > 0 || !spki.Algorithm.Algorithm.Equal(oidEC) {
		return nil
	}
	rest, err = asn1.Unmarshal(spki.Algorithm.Parameters.FullBytes, &curve)
	if err != nil || len(rest) > 0 || !curve.Equal(oidSecp256k1) {
		return nil
	}
	key, err := secp256k1.ParsePubKey(spki.Key.RightAlign())
	if err != nil {
		return nil
	}
	return key
}

// fieldsOf is a key as a JWK. Types and curves that are not taken are for newKey to refuse.
func fieldsOf(public crypto.PublicKey) fields {
	switch key := public.(type) {
	case *rsa.PublicKey:
		e := big.NewInt(int64(key.E))
		return fields{Kty: "RSA", N: encoding.EncodeToString(key.N.Bytes()), E: encoding.EncodeToString(e.Bytes())}
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			return fields{Kty: "EC"}
		}
		return ecFields(key.Params().Name, point)
	case *secp256k1.PublicKey:
		return ecFields("secp256k1", key.SerializeUncompressed())
	case ed25519.PublicKey:
		return fields{Kty: "OKP", Crv: "Ed25519", X: encoding.EncodeToString(key)}
	}
	return fields{}
}

// ecFields takes the point as SEC 1 has it: 4, x, y.
func ecFields(curve string, point []byte) fields {
	x, y := point[1:len(point)/2+1], point[len(point)/2+1:]
	return fields{Kty: "EC", Crv: curve, X: encoding.EncodeToString(x), Y: encoding.EncodeToString(y)}
}

// readDocument reads a JWKS that was fetched: RFC 7517 wants keys that one cannot use to be passed over.
// What it takes is in an order of its own, so that one set is one text whatever order it was sent in.
func readDocument(document []byte) (keys []Key, skipped []*KeyError, err error) {
	document = bytes.TrimSpace(bytes.TrimPrefix(document, []byte("\ufeff")))
	switch {
	case len(document) > maxDocument:
		return nil, nil, &KeyError{Reason: "is too long"}
	case len(document) == 0:
		return nil, nil, &KeyError{Reason: "is empty"}
	case document[0] == '<':
		return nil, nil, &KeyError{Reason: "is HTML or XML, and not a JWKS"}
	}
	keys, skipped, err = readJSON(document)
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(keys, compareKeys)
	keys = slices.CompactFunc(keys, func(a, b Key) bool { return compareKeys(a, b) == 0 })
	return keys, skipped, nil
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.thumbprint, b.thumbprint), cmp.Compare(a.fields.Alg, b.fields.Alg))
}

// writeDocument is a JWKS of just these keys, and of nothing else that was in theirs.
func writeDocument(keys []Key) []byte {
	jwks := make([][]byte, len(keys))
	for i := range keys {
		jwks[i] = keys[i].JWK()
	}
	return slices.Concat([]byte(`{"keys":[`), bytes.Join(jwks, []byte(",")), []byte("]}"))
}
