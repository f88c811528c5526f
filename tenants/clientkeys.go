package tenants

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

const (
	// maxClientKeys is how many client keys a tenant can have, ended ones included.
	maxClientKeys = 1000

	// MaxOverlap is how long a client key can go on after its rotation: apps in users' hands are replaced slowly.
	MaxOverlap = 10 * 365 * 24 * time.Hour
)

// clientKeyMark begins every client key, so that one is known for what it is wherever it is found.
const clientKeyMark = "vck_"

// newClientKey is a random key, and what it begins with.
func newClientKey() (key, prefix string) {
	text := strings.ToLower(rand.Text()) // 26 characters of base32, 130 bits
	prefix = clientKeyMark + text[:6]
	return clientKeyMark + text, prefix
}

// AddClientKey makes a client key of the name, which has 1 to 200 characters. It is returned, and kept nowhere. It
// fails with [audit.ErrNoActor], [ErrNotFound] or an [*InvalidError].
func (s *Service) AddClientKey(ctx context.Context, actor audit.Actor, slug, name string) (*Tenant, string, error) {
	if err := checkName(name); err != nil {
		return nil, "", err
	}
	key, prefix := newClientKey()
	t, err := s.changeTenant(ctx, actor, "client_key.add", slug, func(tx pgx.Tx, t *Tenant) error {
		return insertClientKey(ctx, tx, t, key, prefix, name)
	})
	if err != nil {
		return nil, "", err
	}
	return t, key, nil
}

func insertClientKey(ctx context.Context, tx pgx.Tx, t *Tenant, key, prefix, name string) error {
	if len(t.ClientKeys) >= maxClientKeys {
		return &InvalidError{"client_key", fmt.Sprintf("is one too many: a tenant can have %d, ended ones included", maxClientKeys)}
	}
	hash := sha256.Sum256([]byte(key))
	return dbgen.New().InsertClientKey(ctx, tx, dbgen.InsertClientKeyParams{
		TenantID: t.ID, Prefix: prefix, Name: name, Hash: hash[:],
	})
}

// RotateClientKey makes a client key in the place of the one with this prefix, which goes on for the overlap. It
// fails with [audit.ErrNoActor], [ErrNotFound] or an [*InvalidError].
func (s *Service) RotateClientKey(ctx context.Context, actor audit.Actor, slug, prefix string, overlap time.Duration) (*Tenant, string, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return nil, "", &InvalidError{"overlap", fmt.Sprintf("must be 0s to %s", MaxOverlap)}
	}
	key, fresh := newClientKey()
	t, err := s.changeTenant(ctx, actor, "client_key.rotate", slug, func(tx pgx.Tx, t *Tenant) error {
		old := t.clientKey(prefix)
		switch {
		case old == nil:
			return noClientKey(prefix)
		case !old.Good(time.Now()):
			return &InvalidError{"client_key", "was revoked, or has expired: add a new one"}
		}
		until := time.Now().Add(overlap)
		if !old.ExpiresAt.IsZero() && old.ExpiresAt.Before(until) {
			until = old.ExpiresAt
		}
		err := dbgen.New().EndClientKey(ctx, tx, dbgen.EndClientKeyParams{TenantID: t.ID, Prefix: prefix, ExpiresAt: &until})
		if err != nil {
			return err
		}
		return insertClientKey(ctx, tx, t, key, fresh, old.Name)
	})
	if err != nil {
		return nil, "", err
	}
	return t, key, nil
}

// RevokeClientKey ends the client key with this prefix at once. It fails with [audit.ErrNoActor], [ErrNotFound], or an
// [*InvalidError] for the last one that opens a gate.
func (s *Service) RevokeClientKey(ctx context.Context, actor audit.Actor, slug, prefix string) (*Tenant, error) {
	return s.changeTenant(ctx, actor, "client_key.revoke", slug, func(tx pgx.Tx, t *Tenant) error {
		k := t.clientKey(prefix)
		switch {
		case k == nil:
			return noClientKey(prefix)
		case !k.RevokedAt.IsZero():
			return nil
		case t.Gate.State == GateRequired && !t.opens(prefix):
			return &InvalidError{"client_key", "is the last one that is good, and the gate would refuse every call: set it to observed or off first"}
		}
		p := dbgen.EndClientKeyParams{TenantID: t.ID, Prefix: prefix, Revoked: true}
		if !k.ExpiresAt.IsZero() {
			p.ExpiresAt = &k.ExpiresAt
		}
		return dbgen.New().EndClientKey(ctx, tx, p)
	})
}

// opens says whether the tenant has a good client key besides the one with this prefix.
func (t *Tenant) opens(but string) bool {
	return slices.ContainsFunc(t.ClientKeys, func(k ClientKey) bool { return k.Prefix != but && k.Good(time.Now()) })
}

func (t *Tenant) clientKey(prefix string) *ClientKey {
	i := slices.IndexFunc(t.ClientKeys, func(k ClientKey) bool { return k.Prefix == prefix })
	if i < 0 {
		return nil
	}
	return &t.ClientKeys[i]
}

func noClientKey(prefix string) error {
	return fmt.Errorf("%w: it has no client key that begins with %.80q", errNoSuch, prefix)
}

func checkHeader(name string) error {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	}
	switch {
	case name == "" || len(name) > 64 || strings.ContainsFunc(name, bad):
		return &InvalidError{"client_key_header", `must have 1 to 64 letters, digits and "-"`}
	case hasOtherUse(name):
		return &InvalidError{"client_key_header", fmt.Sprintf("cannot be %s: HTTP, browsers or proxies use, change or remove it, so keys in it would not arrive. Choose a name of your own, as X-Client-Key", name)}
	}
	return nil
}

// hasOtherUse says whether HTTP, browsers, proxies or tracing give this header another meaning (RFC 9110 and the like).
func hasOtherUse(name string) bool {
	name = strings.ToLower(name)
	for _, family := range []string{"accept", "access-control-", "content-", "forwarded", "if-", "proxy-", "sec-", "x-envoy-", "x-forwarded-"} {
		if strings.HasPrefix(name, family) {
			return true
		}
	}
	switch name {
	case "age", "allow", "alt-svc", "alt-used", "authorization", "cache-control", "connection", "cookie", "cookie2", "date", "dnt",
		"early-data", "etag", "expect", "expires", "from", "host", "http2-settings", "keep-alive", "last-modified", "location",
		"max-forwards", "origin", "pragma", "prefer", "priority", "range", "referer", "retry-after", "server", "set-cookie", "te",
		"trailer", "transfer-encoding", "upgrade", "upgrade-insecure-requests", "user-agent", "vary", "via", "warning",
		"www-authenticate", "x-http-method-override", "x-real-ip", "x-request-id",
		"baggage", "traceparent", "tracestate":
		return true
	}
	return false
}
