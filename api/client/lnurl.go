package client

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// LNURLConfig says where a wallet logs in by LNURL-auth, and by which key. URL and Key are required.
type LNURLConfig struct {
	// URL is where challenges are asked for, as https://acme.example.com/lnurl/auth.
	URL string

	// Key is who the wallet is; see [LUD05].
	Key LinkingKey

	// Header is sent with every request of a login.
	Header http.Header

	// HTTPClient carries the requests. Nil: one with a pool of its own. Its redirect policy is not used.
	HTTPClient *http.Client
}

// LNURLAuth logs in by LNURL-auth (CONTRACT section 4.3) and makes bearer tokens of what it gets. A token is
// kept in memory, for that is where a restart may lose it, and another is fetched 60 s before its end. Of
// calls that need one at the same time, one logs in and the others wait for it.
type LNURLAuth struct {
	url    *url.URL
	key    LinkingKey
	header http.Header
	http   http.Client

	turn    chan struct{} // holds one: whose turn it is to look at what follows, and to log in
	token   string
	expires time.Time // of the token; zero: never
}

const (
	// renewal is how long before its end a token is replaced, as in vss-client.
	renewal = 60 * time.Second

	// maxLogin is what is read of an answer, in bytes.
	maxLogin = 64 << 10
)

// NewLNURLAuth fails for a URL that is none. It connects to nothing.
func NewLNURLAuth(cfg LNURLConfig) (*LNURLAuth, error) {
	u, err := parseHTTP(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("auth URL: %w", err)
	}
	if cfg.Key == nil {
		return nil, errors.New("LNURL-auth needs a linking key")
	}
	a := &LNURLAuth{url: u, key: cfg.Key, header: cfg.Header.Clone(), turn: make(chan struct{}, 1)}
	if cfg.HTTPClient != nil {
		a.http = *cfg.HTTPClient
	} else {
		a.http.Transport = newTransport()
	}
	a.http.CheckRedirect = neverRedirect
	return a, nil
}

// parseHTTP reads an http or https URL. Its error does not show the URL.
func parseHTTP(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which may have a password in it
	}
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		err = errors.New("it must begin with http:// or https:// and a host")
	}
	return u, err
}

// CloseIdleConnections closes the connections that no login is using.
func (a *LNURLAuth) CloseIdleConnections() { a.http.CloseIdleConnections() }

// String shows neither key nor token.
func (a *LNURLAuth) String() string { return "LNURL-auth at " + a.url.Host }

// GoString is String, for %#v.
func (a *LNURLAuth) GoString() string { return a.String() }

// Authorization is the token that is there, or that of a new login.
func (a *LNURLAuth) Authorization(ctx context.Context, now time.Time) (string, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for a login: %w", ctx.Err())
	}
	if a.token == "" || !a.expires.IsZero() && !now.Add(renewal).Before(a.expires) {
		token, expires, err := a.login(ctx)
		if err != nil {
			return "", fmt.Errorf("LNURL-auth: %w", err)
		}
		a.token, a.expires = token, expires
	}
	return bearerHeader(a.token)
}

// login asks for a challenge and answers it.
func (a *LNURLAuth) login(ctx context.Context) (token string, expires time.Time, err error) {
	challenge, err := a.get(ctx, a.url)
	if err != nil {
		return "", time.Time{}, err
	}
	signed, err := a.sign(strings.TrimSpace(string(challenge)))
	if err != nil {
		// An auth URL that refuses answers as if it were asked with a signature.
		if reason := parseLogin(challenge).Reason; reason != "" {
			err = refusedLogin(reason)
		}
		return "", time.Time{}, err
	}
	body, err := a.get(ctx, signed)
	if err != nil {
		return "", time.Time{}, err
	}
	answer := parseLogin(body)
	switch {
	case answer.Token != "":
	case answer.Reason != "":
		return "", time.Time{}, refusedLogin(answer.Reason)
	default:
		return "", time.Time{}, errors.New("the answer has neither a token nor a reason")
	}
	expires, err = expiryOf(answer.Token)
	return answer.Token, expires, err
}

func refusedLogin(reason string) error {
	return fmt.Errorf("refused: %s", strings.ToValidUTF8(reason, "\uFFFD"))
}

// loginAnswer is LUD-04's answer, with the token that vss-client looks for beside it.
type loginAnswer struct{ Token, Reason string }

// parseLogin is empty for what is no such answer.
func parseLogin(body []byte) (answer loginAnswer) {
	if json.Unmarshal(body, &answer) != nil {
		return loginAnswer{}
	}
	return answer
}

// sign adds signature and key to a challenge: a URL with k1.
func (a *LNURLAuth) sign(challenge string) (*url.URL, error) {
	u, err := parseHTTP(challenge)
	if err != nil {
		return nil, errors.New("the auth URL does not answer with a challenge: is it the right one?")
	}
	if a.url.Scheme == "https" && u.Scheme != "https" {
		return nil, errors.New("the challenge's URL is not https, as the auth URL is")
	}
	k1, err := hex.DecodeString(u.Query().Get("k1"))
	if err != nil || len(k1) != 32 {
		return nil, errors.New("the challenge has no k1 of 32 bytes in hex")
	}
	secretKey, err := a.key(strings.ToLower(u.Hostname()))
	if err != nil {
		return nil, fmt.Errorf("linking key: %w", err)
	}
	scalar, err := scalarOf(secretKey)
	if err != nil {
		return nil, fmt.Errorf("linking key: %w", err)
	}
	key := secp256k1.NewPrivateKey(scalar)
	u.RawQuery += "&sig=" + hex.EncodeToString(ecdsa.Sign(key, k1).Serialize()) +
		"&key=" + hex.EncodeToString(key.PubKey().SerializeCompressed())
	return u, nil
}

// get reads an answer, whatever its status: LUD-01 gives that no meaning.
func (a *LNURLAuth) get(ctx context.Context, u *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("no request can be made to this URL")
	}
	for name, values := range a.header {
		req.Header[name] = values
	}
	resp, err := a.http.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which has the signature in it
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxLogin+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer (HTTP %d): %w", resp.StatusCode, err)
	}
	if len(body) > maxLogin || resp.StatusCode/100 != 2 && parseLogin(body) == (loginAnswer{}) {
		return nil, fmt.Errorf("HTTP %d, and no answer that a login has", resp.StatusCode)
	}
	return body, nil
}

// expiryOf is when a token ends; zero if it never does. Nothing of it is verified: that is the server's to do.
func expiryOf(token string) (time.Time, error) {
	parts := strings.Split(token, ".")
	var claims struct {
		Exp *int64 `json:"exp"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err = cmp.Or(err, json.Unmarshal(payload, &claims)); err != nil || len(parts) != 3 {
		return time.Time{}, errors.New("the answer has a token that is no JWT")
	}
	if claims.Exp == nil {
		return time.Time{}, nil
	}
	return time.Unix(*claims.Exp, 0), nil
}
