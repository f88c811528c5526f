package callers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/maypok86/otter/v2"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

// LoginPath is that of a tenant's auth URL on its own host (CONTRACT section 4.3), and KeysPath that of the keys
// by which others can verify its tokens. On the host that tenants share, both follow /t/{slug}.
const (
	LoginPath = "/lnurl/auth"
	KeysPath  = "/lnurl/jwks.json"
)

// LoginsConfig says how [Logins] work.
type LoginsConfig struct {
	// Pool is the logins' own, so that no flood of them takes a connection of the calls. Few are enough.
	Pool *pgxpool.Pool

	Limiter *quota.Limiter // of rates; nil: none

	// MasterKey opens the keys that tokens are signed with. Nil: nobody can log in.
	MasterKey *masterkey.Key

	// SharedURL is the scheme and the host of the auth URLs of sources without a host of their own, as
	// "http://localhost:8080", for development: on a host that tenants share, they share linking keys too.
	// Empty: there are none.
	SharedURL string

	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: slog.Default()
}

// Logins are LNURL-auth for the tenants that have it: what [lnurl.Handler] needs to know of them. It is safe for
// concurrent use.
type Logins struct {
	cfg        LoginsConfig
	auth       *Authenticator
	shared     *url.URL          // nil: none
	challenges *lnurl.Challenger // nil: no master key
	opened     sync.Map          // signing keys by openedKey

	places *quota.Queue                     // in front of the pool
	used   *otter.Cache[lnurl.K1, struct{}] // challenges that are known to be
}

// ErrNoMasterKey: there are tenants with LNURL-auth, and nothing to open their signing keys with.
var ErrNoMasterKey = errors.New("tenants use LNURL-auth, and there is no master key file to open their signing keys with: name it with --master-key-file (VSS_MASTER_KEY_FILE)")

// NewLogins makes logins whose gate, limits and counts are the authenticator's. It fails for a shared URL that
// is none.
func NewLogins(auth *Authenticator, cfg LoginsConfig) (*Logins, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	l := &Logins{
		cfg: cfg, auth: auth,
		used: otter.Must(&otter.Options[lnurl.K1, struct{}]{
			MaximumSize: usedMemory, ExpiryCalculator: otter.ExpiryWriting[lnurl.K1, struct{}](lnurl.DefaultChallengeLife),
		}),
	}
	if cfg.Pool != nil {
		places := int(cfg.Pool.Config().MaxConns)
		l.places = quota.NewQueue(quota.QueueConfig{Places: places, WritePlaces: places})
	}
	if cfg.SharedURL != "" {
		u, err := url.Parse(cfg.SharedURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Host != strings.ToLower(u.Host) ||
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return nil, fmt.Errorf("shared LNURL %q is not a scheme and a host in lower case, as https://vss.example.com", cfg.SharedURL)
		}
		l.shared = u
	}
	if cfg.MasterKey != nil {
		var err error
		l.challenges, err = lnurl.NewChallenger(lnurl.ChallengerConfig{
			Keys: cfg.MasterKey.DeriveAll("lnurl challenge"),
			Now:  cfg.Now,
		})
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Run forgets challenges that have long expired, until the context ends.
func (l *Logins) Run(ctx context.Context) {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := l.forget(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("old LNURL challenges were not removed", "error", err)
		}
	}
}

func (l *Logins) forget(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		n, err := dbgen.New().ForgetChallenges(ctx, l.cfg.Pool)
		if err != nil || n == 0 {
			return err
		}
	}
}

// Check opens every signing key of these tenants. It fails with [ErrNoMasterKey], or says which cannot be opened
// and why: an instance that cannot sign must not begin to serve.
func (l *Logins) Check(all []*Tenant) error {
	for _, t := range all {
		src := t.Source(tenants.LNURL)
		if src == nil {
			continue
		}
		if l.cfg.MasterKey == nil {
			return ErrNoMasterKey
		}
		for i := range src.Keys {
			if k := &src.Keys[i]; k.State == jwt.Revoked || k.State == jwt.Retired && !l.cfg.Now().Before(k.Until) {
				continue // no harm if it cannot be
			}
			if _, err := l.open(t, &src.Keys[i]); err != nil {
				return fmt.Errorf("the signing key %s of tenant %s: %w: is this the right master key file?", src.Keys[i].ID, t.Slug, err)
			}
		}
	}
	return nil
}

// Challenges makes and checks k1; nil where there is no master key, and [Logins.Site] fails.
func (l *Logins) Challenges() *lnurl.Challenger { return l.challenges }

// The texts of these are shown to wallets.
const (
	reasonNoLogin  = "this tenant has no LNURL-auth"
	reasonNoShared = "this tenant has no host of its own for LNURL-auth"
	reasonNoHost   = "the host of this tenant's LNURL-auth is no longer its own"
)

// Site is the tenant's auth URL, to which somebody sent a request. One that is refused before it is looked at fails with
// an [*lnurl.Error].
func (l *Logins) Site(tenant *Tenant, header http.Header, from netip.Addr) (*lnurl.Site, error) {
	if err := l.admit(tenant, header); err != nil {
		return nil, err
	}
	src := tenant.Source(tenants.LNURL)
	if src == nil {
		return nil, &lnurl.Error{Reason: reasonNoLogin}
	}
	if l.cfg.MasterKey == nil {
		return nil, ErrNoMasterKey
	}
	if d := tenant.Domain(src.Host); d != nil && d.State == tenants.Pending {
		return nil, &lnurl.Error{Reason: reasonNoHost}
	}
	key, err := l.signer(tenant, src)
	if err != nil {
		return nil, err
	}
	site := &lnurl.Site{
		Tenant: tenant.ID, Scheme: "https", Host: src.Host, Path: LoginPath,
		Key: key, Issuer: *src.Rules.Issuer, Life: src.TokenLife,
		Guard: &visit{Logins: l, tenant: tenant, from: from},
	}
	if src.Host == "" {
		if l.shared == nil {
			return nil, &lnurl.Error{Reason: reasonNoShared}
		}
		site.Scheme, site.Host, site.Path = l.shared.Scheme, l.shared.Host, "/t/"+tenant.Slug+LoginPath
	}
	return site, nil
}

// admit is what the four calls ask too.
func (l *Logins) admit(tenant *Tenant, header http.Header) error {
	if err := tenant.Refuses(false); err != nil {
		return &lnurl.Error{Reason: err.Error()}
	}
	if err := l.auth.gate(tenant, header, l.cfg.Now()); err != nil {
		return &lnurl.Error{Reason: err.Error()}
	}
	return nil
}

// Refused counts a refused login. The tenant is nil where there is none.
func (l *Logins) Refused(tenant *Tenant, refusal *lnurl.Error) {
	if tenant == nil {
		return
	}
	source := ""
	if src := tenant.Source(tenants.LNURL); src != nil {
		source = src.Name
	}
	l.auth.failures.count(tenant.ID, source, refusal.Reason, l.cfg.Now())
}

// Forged counts a signature that was none, for the limits of its address.
func (l *Logins) Forged(from netip.Addr) { l.auth.suspects.failed(from, l.cfg.Now()) }

// Owner is the wallet whose key has logged in.
func (l *Logins) Owner(tenant *Tenant, subject string) storage.Owner {
	return Caller{tenant, tenant.Source(tenants.LNURL), subject}.Owner()
}

// signer is the key that signs now: the newest active one that every instance knows. Until there is one, the key that
// was retired for it signs on, as long as its tokens would live, and where there is none either, the active one does.
func (l *Logins) signer(t *Tenant, src *tenants.Source) (*lnurl.SigningKey, error) {
	now := l.cfg.Now()
	var active, retired *tenants.SourceKey
	for i := range src.Keys { // newest first
		k := &src.Keys[i]
		settled := now.Sub(k.CreatedAt) >= tenants.KeySettles
		switch {
		case k.Sealed == nil:
		case k.State == jwt.Active && settled:
			return l.open(t, k)
		case k.State == jwt.Active && active == nil:
			active = k
		case k.State == jwt.Retired && retired == nil && now.Add(src.TokenLife+tenants.LoginGrace+time.Minute).Before(k.Until):
			retired = k
		}
	}
	switch {
	case retired != nil:
		return l.open(t, retired)
	case active != nil:
		return l.open(t, active)
	}
	return nil, errors.New("the tenant has no key to sign tokens with")
}

// openedKey names a signing key in its place.
type openedKey struct {
	tenant uuid.UUID
	kid    string
}

func (l *Logins) open(t *Tenant, k *tenants.SourceKey) (*lnurl.SigningKey, error) {
	id := openedKey{t.ID, k.ID}
	if key, ok := l.opened.Load(id); ok {
		return key.(*lnurl.SigningKey), nil
	}
	der, err := l.cfg.MasterKey.Open(k.Sealed, tenants.SigningContext(t.ID, k.ID))
	if err != nil {
		return nil, err
	}
	key, err := lnurl.ParseSigningKey(der)
	if err != nil {
		return nil, err
	}
	if key.ID() != k.ID {
		return nil, masterkey.ErrDamaged
	}
	l.opened.Store(id, key)
	return key, nil
}

// Keys are the public keys of the tenant's tokens, as a JWKS: those that verify, and those that are to. It fails
// with [tenants.ErrNotFound] for a tenant without LNURL-auth.
func (l *Logins) Keys(tenant *Tenant) ([]byte, error) {
	src := tenant.Source(tenants.LNURL)
	if src == nil {
		return nil, tenants.ErrNotFound
	}
	now := l.cfg.Now()
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{[]json.RawMessage{}}
	for _, k := range src.Keys {
		if k.State == jwt.Active || k.State == jwt.Retired && now.Before(k.Until) {
			set.Keys = append(set.Keys, k.Public)
		}
	}
	return json.Marshal(set)
}
