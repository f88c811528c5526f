package lnurl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Guard decides about one login whose challenge is ours. Where it fails with an [*Error] that is told to the wallet.
type Guard interface {
	// Admit is asked before any arithmetic. Nothing is proven yet: the subject is who it says it is, in the form that
	// [VerifyLogin] has it where it is a key at all.
	Admit(ctx context.Context, k1 K1, subject string) error

	// Use says whether this is the first use of k1, of all on every instance, and remembers it at least until
	// it expires by the slowest of their clocks. Of many calls at once, one is the first. It is asked only after the
	// subject's signature was verified, so that an anonymous GET writes nothing.
	Use(ctx context.Context, k1 K1, subject string, expires time.Time) (first bool, err error)
}

// ErrUsed refuses a challenge that was used before.
var ErrUsed = &Error{reasonUsed}

// Site is an auth URL and what its wallets get.
type Site struct {
	Tenant uuid.UUID

	// Scheme, Host and Path are of the auth URL as wallets see it, whatever a request was sent to. The host
	// is in lower case, has a port only if one is needed, and never changes: wallets derive their keys from
	// it. The path is as in a URL, without a query.
	Scheme, Host, Path string

	Key    *SigningKey   // signs the tokens
	Issuer string        // of the tokens; may be empty
	Life   time.Duration // of the tokens, see [SigningKey.Sign]

	Guard Guard // of the login that the request may be
}

var errNoKey = errors.New("lnurl: there is no key to sign tokens with")

// url is the auth URL. It fails for one that clients would read differently from each other, or from how it
// is written, and for a site without a key.
func (s *Site) url() (string, error) {
	if s.Key == nil {
		return "", errNoKey
	}
	u := s.Scheme + "://" + s.Host + s.Path
	strange := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(".-:[]", r)
	}
	parsed, err := url.Parse(u)
	if err != nil || s.Scheme != "https" && s.Scheme != "http" ||
		strings.ContainsFunc(s.Host, strange) || parsed.Hostname() == "" || strings.HasSuffix(parsed.Hostname(), ".") ||
		!strings.HasPrefix(s.Path, "/") || strings.ContainsAny(s.Path, "?#") || parsed.EscapedPath() != s.Path {
		return "", fmt.Errorf("lnurl: %q is no auth URL", u)
	}
	return u, nil
}

// Config says how [Handler] works.
type Config struct {
	// Site says whose auth URL the request was sent to. An [*Error] is told to the wallet; any other error is
	// a fault of ours.
	Site func(*http.Request) (*Site, error)

	Challenges *Challenger

	// Timeout bounds the work for a request: clients before 0.6 wait for ever. 0: 5 s.
	Timeout time.Duration

	// Report is told of each request, before it is answered. It may be nil.
	Report func(*http.Request, Outcome)
}

// Outcome is what became of a request.
type Outcome struct {
	// Subject is whose signature was verified, also if the login failed afterwards. A wallet's name: for the
	// log only as a digest.
	Subject string

	// Forged: the challenge was ours, and the signature over it none.
	Forged bool

	// Err is nil if the answer was a challenge or a token, an [*Error] if the request was refused, and else a
	// fault of ours, which the wallet is not told.
	Err error
}

// maxQuery is the longest query that is looked into, in bytes. A login has about 300.
const maxQuery = 1 << 10

// Handler is the auth URL.
//
//   - GET without k1, sig and key is answered the auth URL with a new challenge, as plain text;
//   - GET with all three is answered {"status":"OK","token":"..."} or {"status":"ERROR","reason":"..."}.
//
// Other parameters, and all headers, say nothing. HEAD is answered as a GET without parameters is, and uses
// nothing up.
//
// A refusal has status 200. LUD-01 gives the status no meaning, and vss-client 0.3, 0.4 and 0.6 look at the body
// alone, for "token" and "reason"; but some other clients, and proxies with error pages, never get to the
// reason with any other one. Only what is no wallet's doing has one: 405 for other methods, since nothing but
// a call that was done may answer 2xx to a POST, and 503 for a fault of ours.
func Handler(cfg Config) http.Handler {
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Report == nil {
		cfg.Report = func(*http.Request, Outcome) {}
	}
	return &handler{cfg}
}

type handler struct{ Config }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), h.Timeout)
	defer cancel()
	r = r.WithContext(ctx)
	a, outcome := h.serve(r)
	h.Report(r, outcome)

	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", a.contentType)
	header.Set("Content-Length", strconv.Itoa(len(a.body)))
	switch a.status {
	case http.StatusMethodNotAllowed:
		header.Set("Allow", "GET, HEAD")
	case http.StatusServiceUnavailable:
		header.Set("Retry-After", "1")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may have gone
}

func (h *handler) serve(r *http.Request) (answer, Outcome) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		a, outcome := failed("", refuse(reasonMethod))
		a.status = http.StatusMethodNotAllowed
		return a, outcome
	}
	site, err := h.Site(r)
	if err != nil {
		return failed("", err)
	}
	authURL, err := site.url()
	if err != nil {
		return failed("", err)
	}
	var l *login
	if r.Method == http.MethodGet {
		if l, err = parseQuery(r.URL.RawQuery); err != nil {
			return failed("", err)
		}
	}
	if l == nil {
		k1 := h.Challenges.New(site.Tenant, site.Host)
		return answer{http.StatusOK, textPlain, []byte(authURL + "?tag=login&k1=" + k1.String())}, Outcome{}
	}
	subject, forged, err := h.verify(r.Context(), site, l)
	if err != nil {
		a, outcome := failed(subject, err)
		outcome.Forged = forged
		return a, outcome
	}
	token := site.Key.Sign(subject, site.Issuer, h.Challenges.now(), site.Life)
	return answerJSON(http.StatusOK, message{Status: "OK", Token: token}), Outcome{Subject: subject}
}

// verify says who logs in. The cheap checks come first, and what writes comes last. It names the subject also
// where only that failed.
func (h *handler) verify(ctx context.Context, site *Site, l *login) (subject string, forged bool, err error) {
	expires, err := h.Challenges.Check(l.k1, site.Tenant, site.Host)
	if err != nil {
		return "", false, err
	}
	if err := site.Guard.Admit(ctx, l.k1, strings.ToLower(l.key)); err != nil {
		return "", false, err
	}
	subject, err = VerifyLogin(l.k1, l.sig, l.key)
	if err != nil {
		return "", true, err
	}
	first, err := site.Guard.Use(ctx, l.k1, subject, expires)
	if err != nil {
		return subject, false, fmt.Errorf("lnurl: used challenges: %w", err)
	}
	if !first {
		return subject, false, ErrUsed
	}
	return subject, false, nil
}

// login is what a wallet sends.
type login struct {
	k1       K1
	sig, key string
}

// parseQuery reads the query of a GET; nil is one that asks for a challenge. It fails with an [*Error].
func parseQuery(query string) (*login, error) {
	if len(query) > maxQuery {
		return nil, refuse(reasonLong)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, refuse(reasonQuery)
	}
	names := []string{"k1", "sig", "key"}
	if !slices.ContainsFunc(names, values.Has) {
		return nil, nil
	}
	for _, name := range names {
		switch len(values[name]) {
		case 0:
			return nil, refuse(name + reasonMissing)
		case 1:
		default:
			return nil, refuse(name + reasonTwice)
		}
	}
	k1, err := parseK1(values.Get("k1"))
	if err != nil {
		return nil, err
	}
	return &login{k1: k1, sig: values.Get("sig"), key: values.Get("key")}, nil
}

// answer is what a request is answered.
type answer struct {
	status      int
	contentType string
	body        []byte
}

const (
	textPlain       = "text/plain; charset=utf-8"
	applicationJSON = "application/json"
)

// message is LUD-04's answer, and the token that vss-client looks for beside it.
type message struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	Token  string `json:"token,omitempty"`
}

func answerJSON(status int, m message) answer { return answer{status, applicationJSON, mustJSON(m)} }

func failed(subject string, err error) (answer, Outcome) {
	a := answerJSON(http.StatusServiceUnavailable, message{Status: "ERROR", Reason: reasonOurFault})
	if e, ok := errors.AsType[*Error](err); ok {
		a = answerJSON(http.StatusOK, message{Status: "ERROR", Reason: e.Reason})
	}
	return a, Outcome{Subject: subject, Err: err}
}
