package jwt

// algorithm is a way to sign, and the one kind of key that does: a key that is used as of another kind is how
// tokens were forged elsewhere.
type algorithm struct {
	name     string // as in alg
	kty, crv string // of its keys; RSA has no curve
}

// algorithms of CONTRACT section 4. There is no way to have "none" or an HMAC: they are not here.
var algorithms = []algorithm{
	{"RS256", "RSA", ""},
	{"RS384", "RSA", ""},
	{"RS512", "RSA", ""},
	{"PS256", "RSA", ""},
	{"PS384", "RSA", ""},
	{"PS512", "RSA", ""},
	{"ES256", "EC", "P-256"},
	{"ES384", "EC", "P-384"},
	{"ES512", "EC", "P-521"},
	{"ES256K", "EC", "secp256k1"},
	{"EdDSA", "OKP", "Ed25519"},
}

// canonical is the name that an algorithm has here. RFC 9864 gave EdDSA on Ed25519 a second one.
func canonical(name string) string {
	if name == "Ed25519" {
		return "EdDSA"
	}
	return name
}

// algorithmNamed is nil for one that there is not.
func algorithmNamed(name string) *algorithm {
	for i := range algorithms {
		if algorithms[i].name == name {
			return &algorithms[i]
		}
	}
	return nil
}
