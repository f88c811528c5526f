package lnurl

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// client is LnurlAuthToJwtProvider of one release of vss-client, as its source has it (lnurl_auth_jwt.rs),
// but for the derivation of the key from the domain.
type client struct {
	name string

	// sign parses what the server answered, returns what it signs and what the key is derived from, and adds
	// the signature and the key.
	sign func(lnurl string, sign func(k1 []byte) (sig, key string)) (signed, domain string, err error)
}

var clients = []client{
	{"vss-client 0.3.1", signWithURL},    // reqwest 0.11 and url 2
	{"vss-client-ng 0.4.1", signWithURL}, // the same source; reqwest 0.12
	{"vss-client-ng 0.6.0", signWithBitreq},
}

func invalidLNURL(s string) error { return fmt.Errorf("invalid lnurl: %s", s) }

// signWithURL reads a URL as the crate url does: white space around it is cut, the host is made lower-case,
// and there is no domain if the host is an IP address.
func signWithURL(lnurl string, sign func([]byte) (string, string)) (string, string, error) {
	u, err := url.Parse(strings.TrimSpace(lnurl))
	if err != nil || u.Scheme == "" {
		return "", "", invalidLNURL(lnurl)
	}
	domain := strings.ToLower(u.Hostname())
	if domain == "" || net.ParseIP(domain) != nil {
		return "", "", invalidLNURL(lnurl)
	}
	k1, err := hex.DecodeString(u.Query().Get("k1"))
	if err != nil || len(k1) != 32 {
		return "", "", invalidLNURL(lnurl)
	}
	sig, key := sign(k1)
	u.RawQuery += "&sig=" + sig + "&key=" + key
	return u.String(), domain, nil
}

// signWithBitreq reads a URL as bitreq does: the host is taken as it is, whatever it is, and there is nothing
// but printable ASCII.
func signWithBitreq(lnurl string, sign func([]byte) (string, string)) (string, string, error) {
	s := strings.TrimSpace(lnurl)
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", "", invalidLNURL(lnurl)
	}
	_, rest, ok := strings.Cut(s, "://")
	if !ok {
		return "", "", invalidLNURL(lnurl)
	}
	authority, _, _ := strings.Cut(rest, "/")
	domain, _, _ := strings.Cut(authority, ":")
	if domain == "" {
		return "", "", invalidLNURL(lnurl)
	}
	_, query, _ := strings.Cut(rest, "?")
	var k1 []byte
	for pair := range strings.SplitSeq(query, "&") {
		if name, value, _ := strings.Cut(pair, "="); name == "k1" {
			k1, _ = hex.DecodeString(value)
			break
		}
	}
	if len(k1) != 32 {
		return "", "", invalidLNURL(lnurl)
	}
	sig, key := sign(k1)
	return s + "&sig=" + sig + "&key=" + key, domain, nil
}

// signer signs as libsecp256k1 does: nonces by RFC 6979, a low s, DER.
func signer(private *secp256k1.PrivateKey) func(k1 []byte) (sig, key string) {
	return func(k1 []byte) (sig, key string) {
		return hex.EncodeToString(ecdsa.Sign(private, k1).Serialize()), hex.EncodeToString(private.PubKey().SerializeCompressed())
	}
}

// wallet is a client with what its app gave it.
type wallet struct {
	client
	http    *http.Client
	key     *secp256k1.PrivateKey
	headers map[string]string
	between func() // happens between the two calls; may be nil
}

// get is how all of them call: the fixed headers, any status, the body.
func (w *wallet) get(u string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range w.headers {
		req.Header.Set(name, value)
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// fetchToken is fetch_jwt_token: the token, when it expires, and what the key is derived from. Its errors
// are what an app reads.
func (w *wallet) fetchToken(authURL string) (token string, expires time.Time, domain string, err error) {
	fail := func(err error) (string, time.Time, string, error) { return "", time.Time{}, domain, err }
	lnurl, err := w.get(authURL)
	if err != nil {
		return fail(err)
	}
	signed, domain, err := w.sign(string(lnurl), signer(w.key))
	if err != nil {
		return fail(err)
	}
	if w.between != nil {
		w.between()
	}
	body, err := w.get(signed)
	if err != nil {
		return fail(err)
	}
	var answer struct{ Reason, Token *string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return fail(fmt.Errorf("failed to parse LNURL Auth response as JSON: %w", err))
	}
	switch {
	case answer.Token != nil:
		token = *answer.Token
	case answer.Reason != nil:
		return fail(fmt.Errorf("LNURL Auth failed, reason is: %s", *answer.Reason))
	default:
		return fail(errors.New("LNURL Auth response did not contain a token nor an error"))
	}

	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fail(fmt.Errorf("invalid JWT token: %s", token))
	}
	var decoded [3][]byte
	for i := range parts {
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(parts[i]); err != nil {
			return fail(fmt.Errorf("invalid JWT token: %s", token))
		}
	}
	var claims struct {
		Exp *uint64 // an integer, or it is no token; absent, it never expires
	}
	if err := json.Unmarshal(decoded[1], &claims); err != nil || claims.Exp == nil {
		return fail(fmt.Errorf("invalid JWT token: %s", token))
	}
	return token, time.Unix(int64(*claims.Exp), 0), domain, nil
}
