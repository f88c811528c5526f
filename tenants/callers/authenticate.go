package callers

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/maypok86/otter/v2"

	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// Caller is an authenticated wallet. (Tenant.ID, Source.Namespace, Subject) is its identity, fixed from its
// first byte on (CONTRACT section 4).
type Caller struct {
	Tenant  *Tenant
	Source  *tenants.Source // the tenant's, that the credential belongs to
	Subject string          // for signatures and LNURL the public key in lower-case hex, else the token's sub
}

// Owner is the identity, as [storage] has it.
func (c Caller) Owner() storage.Owner {
	return c.Source.Owner(c.Tenant.ID, c.Subject)
}

// AuthError says why a credential was refused. The reason is one of a fixed set of texts, so it can be
// counted, logged and shown: no part of a credential is ever in it.
type AuthError struct {
	Source string // the name of the source that the credential belongs to, "" where that is not known
	Reason string
}

func (e *AuthError) Error() string { return e.Reason }

func refuse(reason string) error { return &AuthError{Reason: reason} }

// refuseBy is the refusal of a source.
func refuseBy(s *tenants.Source, err error) error {
	if e, ok := errors.AsType[*AuthError](err); ok && e.Source == "" {
		return &AuthError{Source: s.Name, Reason: e.Reason}
	}
	return err
}

const (
	reasonMissing  = "there is no Authorization header"
	reasonSeveral  = "there is more than one Authorization header"
	reasonLong     = "the Authorization header is too long"
	reasonForm     = "the Authorization header is not a public key and a signature in hex, followed by the time"
	reasonKey      = "the public key is not in the compressed form"
	reasonTime     = "the time of the signature is not in plain decimal unix seconds"
	reasonNoSource = "this tenant takes no credentials of this kind"
	reasonNoIssuer = "this tenant takes no tokens of this issuer (iss), or with this key (kid)"
	reasonWindow   = "the time of the signature is too far from now: is the device's clock right?"
	reasonHighS    = "the signature is not the one with the low s"
	reasonMismatch = "the signature is not one by this key over this time"

	reasonNoClientKey    = "there is no client key, or more than one"
	reasonClientKey      = "the client key is not one of this tenant"
	reasonClientKeyEnded = "the client key was revoked, or has expired"
	observed             = "only observed: " // before one of the three
)

// The texts of these errors are shown to wallets.
var (
	// ErrKeysUnavailable: whether a token is good cannot be said, since its issuer's keys cannot be had.
	ErrKeysUnavailable = errors.New("the keys of the token's issuer cannot be had at the moment, try again")

	// ErrSuspect: the credential was not looked at, since many from its network were bad lately.
	ErrSuspect = errors.New("many credentials from this network were bad lately, try again")
)

const (
	// maxAuthorization is the longest Authorization header that is looked into, in bytes: the longest token, and Bearer.
	maxAuthorization = 32<<10 + 16

	// DefaultCacheSize is how many verified credentials are kept, unless configured: some 40 MB.
	DefaultCacheSize = 100_000
)

// AuthenticatorConfig says how an [Authenticator] works.
type AuthenticatorConfig struct {
	// Pool is where refusals are counted; nil: nowhere.
	Pool *pgxpool.Pool

	CacheSize int              // of verified credentials; 0: DefaultCacheSize
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger     // nil: slog.Default()
}

// Authenticator finds out which wallet sent a request. It is safe for concurrent use.
//
// What was verified is cached under (tenant, its schemes, SHA-256 of the credential): when that has changed which
// credentials depend on, as by a key that was revoked, they are verified anew. All else of a tenant, as its state and its
// limits, is the caller's as of now, and voids nothing. Only what is good is cached, and what is used once does not push
// out what is used often, so a flood of bad or of fresh credentials leaves the rest alone.
type Authenticator struct {
	pool     *pgxpool.Pool
	now      func() time.Time
	log      *slog.Logger
	ecdsa    verifier
	cache    *otter.Cache[cacheKey, *verified]
	tokens   jwt.Verifier
	known    *otter.Cache[storage.WalletID, *standing] // wallets that were verified, see suspects
	suspects *suspects
	failures failures
}

type cacheKey struct {
	tenant     uuid.UUID
	schemes    *schemes
	credential [sha256.Size]byte
}

// NewAuthenticator makes an authenticator.
func NewAuthenticator(cfg AuthenticatorConfig) *Authenticator {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = DefaultCacheSize
	}
	return &Authenticator{
		pool:     cfg.Pool,
		now:      cfg.Now,
		log:      cfg.Log,
		ecdsa:    verifyECDSA,
		cache:    otter.Must(&otter.Options[cacheKey, *verified]{MaximumSize: cfg.CacheSize}),
		tokens:   jwt.VerifySignature,
		known:    otter.Must(&otter.Options[storage.WalletID, *standing]{MaximumSize: cfg.CacheSize}),
		suspects: newSuspects(),
	}
}

// Run writes down the refusals, until the context ends.
func (a *Authenticator) Run(ctx context.Context) {
	if a.pool != nil {
		a.failures.run(ctx, a.pool, a.log)
	}
}

// Authenticate verifies a request's credentials for the tenant, which must be of a [Directory]. The form of
// Authorization, and of a token its iss or kid, decide which of the tenant's sources it is verified against, so
// that no scheme can name another scheme's wallet (CONTRACT section 4). What cannot be accepted fails with an
// [*AuthError]; what cannot be decided now with [ErrKeysUnavailable], [tenants.ErrAmbiguousSource] or [ErrSuspect].
func (a *Authenticator) Authenticate(ctx context.Context, tenant *Tenant, header http.Header, from netip.Addr) (Caller, error) {
	now := a.now()
	v, err := a.authenticate(ctx, tenant, header, from, now)
	if err != nil {
		if e, ok := errors.AsType[*AuthError](err); ok {
			a.failures.count(tenant.ID, e.Source, e.Reason, now)
		}
		return Caller{}, err
	}
	return Caller{tenant, v.source, v.subject}, nil
}

func (a *Authenticator) authenticate(
	ctx context.Context, tenant *Tenant, header http.Header, from netip.Addr, now time.Time,
) (*verified, error) {
	if err := a.gate(tenant, header, now); err != nil {
		return nil, err
	}
	credential, err := authorization(header)
	if err != nil {
		return nil, err
	}
	var room [1 << 10]byte // most fit, and need no memory of their own
	key := cacheKey{tenant.ID, tenant.schemes, sha256.Sum256(append(room[:0], credential...))}
	if v, ok := a.cache.GetIfPresent(key); ok {
		if v.current() {
			return v, v.check(now)
		}
		a.cache.Invalidate(key)
	}
	c, err := read(tenant, credential)
	if err != nil {
		return nil, err
	}
	// All that is refused below this line costs arithmetic, if only a little.
	wallet := Caller{tenant, c.source(), c.claimed()}.Owner().Wallet()
	if a.suspects.suspect(from, now) && !a.admit(ctx, c, wallet, now) {
		return nil, ErrSuspect
	}
	// Of several at once with one credential, one verifies it, and not only for itself: not under its deadline.
	v, err := a.cache.Get(ctx, key, otter.LoaderFunc[cacheKey, *verified](func(ctx context.Context, _ cacheKey) (*verified, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
		defer cancel()
		return c.verify(ctx, a, now)
	}))
	if err != nil {
		if e, ok := errors.AsType[*forgedError](err); ok {
			err = e.err
			a.suspects.failed(from, now)
			if s, known := a.known.GetIfPresent(wallet); known {
				s.forged(now)
			}
		}
		return nil, refuseBy(c.source(), err)
	}
	a.known.SetIfAbsent(wallet, new(standing))
	return v, nil
}

// admit says whether a credential of a suspect network is verified. Those of wallets that were verified before are; while
// forgeries name the wallet, it may wait in line with them.
func (a *Authenticator) admit(ctx context.Context, c credential, wallet storage.WalletID, now time.Time) bool {
	switch s, known := a.known.GetIfPresent(wallet); {
	case !known:
		return a.suspects.spend(c.cost(now), now)
	case s.disputed(now):
		return a.suspects.wait(ctx, c.cost(now), now)
	}
	return true
}

// verifyTimeout bounds what a verification may wait for: newer keys of an issuer.
const verifyTimeout = 3 * time.Second

// authorization is the request's one credential.
func authorization(header http.Header) (string, error) {
	switch values := header["Authorization"]; {
	case len(values) == 0:
		return "", refuse(reasonMissing)
	case len(values) > 1:
		return "", refuse(reasonSeveral)
	case len(values[0]) > maxAuthorization:
		return "", refuse(reasonLong)
	default:
		return values[0], nil
	}
}

// gate asks for a client key where the tenant wants one.
func (a *Authenticator) gate(tenant *Tenant, header http.Header, now time.Time) error {
	if tenant.Gate.State == tenants.GateOff {
		return nil
	}
	err := tenant.checkClientKey(header, now)
	if e, ok := errors.AsType[*AuthError](err); ok && tenant.Gate.State == tenants.GateObserved {
		a.failures.count(tenant.ID, "", observed+e.Reason, now)
		return nil
	}
	return err
}

func (t *Tenant) checkClientKey(header http.Header, now time.Time) error {
	values := header.Values(t.Gate.Header)
	if len(values) != 1 || values[0] == "" {
		return refuse(reasonNoClientKey)
	}
	switch k := t.schemes.clientKeys[sha256.Sum256([]byte(values[0]))]; {
	case k == nil:
		return refuse(reasonClientKey)
	case !k.Good(now):
		return refuse(reasonClientKeyEnded)
	}
	return nil
}

// credential is one that has been read and of which nothing is proven yet.
type credential interface {
	source() *tenants.Source
	claimed() string                  // the subject
	cost(now time.Time) time.Duration // of the arithmetic, about
	verify(ctx context.Context, a *Authenticator, now time.Time) (*verified, error)
}

// forgedError is around the refusal of a credential that cost arithmetic, or that nobody known has signed.
type forgedError struct{ err error }

func (e *forgedError) Error() string { return e.err.Error() }
func (e *forgedError) Unwrap() error { return e.err }

// verified is a credential that was good once. Its time is asked at each use. It outlives versions of its tenant, so
// it holds none.
type verified struct {
	source  *tenants.Source
	subject string

	signature *signatureToken // of a signature

	claims jwt.Claims // of a token
	keys   *jwt.Set   // that it was verified with
	tokens *tokenSource
}

// current says whether the keys at hand are still those that the credential was verified with.
func (v *verified) current() bool { return v.tokens == nil || v.tokens.set() == v.keys }

// check says why the credential is not good at this time.
func (v *verified) check(now time.Time) error {
	if v.tokens == nil {
		if !v.signature.within(v.source.Window, now) {
			return refuseBy(v.source, refuse(reasonWindow))
		}
		return nil
	}
	return refuseBy(v.source, refuseToken(v.claims.Check(now)))
}

// read finds out what a credential is and which source it belongs to.
func read(tenant *Tenant, text string) (credential, error) {
	if token, ok := cutBearer(text); ok {
		return readToken(tenant, token)
	}
	return readSignature(tenant, text)
}

func cutBearer(text string) (token string, ok bool) {
	scheme, token, found := strings.Cut(text, " ")
	return token, found && strings.EqualFold(scheme, "Bearer")
}

// signed is a credential of CONTRACT section 4.1.
type signed struct {
	token signatureToken
	by    *tenants.Source
}

func readSignature(tenant *Tenant, text string) (credential, error) {
	token, err := parseSignatureToken(text)
	if err != nil {
		return nil, err
	}
	by, err := tenant.schemes.routing.Route(tenants.Look{Signature: true})
	switch {
	case err != nil:
		return nil, err
	case by == nil:
		return nil, refuse(reasonNoSource)
	}
	return &signed{token, by}, nil
}

func (s *signed) source() *tenants.Source      { return s.by }
func (s *signed) claimed() string              { return s.token.subject() }
func (s *signed) cost(time.Time) time.Duration { return 250 * time.Microsecond }

func (s *signed) verify(_ context.Context, a *Authenticator, now time.Time) (*verified, error) {
	v := &verified{source: s.by, subject: s.token.subject(), signature: &s.token}
	if err := v.check(now); err != nil {
		return nil, err
	}
	if err := s.token.verify(a.ecdsa); err != nil {
		return nil, &forgedError{err}
	}
	return v, nil
}

// bearer is a credential of CONTRACT section 4.2 or 4.3.
type bearer struct {
	token *jwt.Token
	by    *tokenSource
}

func readToken(tenant *Tenant, text string) (credential, error) {
	v := tenant.schemes
	if !v.routing.TakesTokens() {
		return nil, refuse(reasonNoSource)
	}
	token, err := jwt.Parse(text)
	if err != nil {
		return nil, refuseToken(err)
	}
	by, err := v.choose(token)
	switch {
	case err != nil:
		return nil, err
	case by == nil:
		return nil, refuse(reasonNoIssuer)
	}
	return &bearer{token, by}, nil
}

func (b *bearer) source() *tenants.Source { return b.by.Source }
func (b *bearer) claimed() string         { return b.token.Subject }

// cost has a little for the reading, so that there is none that costs nothing.
func (b *bearer) cost(now time.Time) time.Duration {
	return 20*time.Microsecond + b.by.set().Price(b.token, b.by.Rules, now)
}

func (b *bearer) verify(ctx context.Context, a *Authenticator, now time.Time) (*verified, error) {
	b.token.Verifier = a.tokens
	keys := b.by.set() // before: what is verified with newer ones is merely verified again
	claims, err := b.by.verify(ctx, b.token, now)
	if err != nil {
		refusal := refuseToken(err)
		if errors.Is(err, &jwt.Error{Reason: jwt.BadSignature}) || errors.Is(err, jwt.ErrUnknownKey) {
			refusal = &forgedError{refusal}
		}
		return nil, refusal
	}
	return &verified{source: b.by.Source, subject: claims.Subject, claims: claims, keys: keys, tokens: b.by}, nil
}

// refuseToken is what package jwt says, in this package's errors.
func refuseToken(err error) error {
	if errors.Is(err, jwt.ErrUnavailable) {
		return ErrKeysUnavailable
	}
	if e, ok := errors.AsType[*jwt.Error](err); ok {
		return refuse(e.Error())
	}
	return err
}
