// Package tenants is what a tenant is: its names, what proves who its wallets are, its limits. [Service] is the one door
// for every change, through package audit. Who calls is for package callers.
package tenants

import (
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// Tenant is a wallet company.
type Tenant struct {
	ID         uuid.UUID
	Slug       string // in base URLs and host names, for ever (see [CheckSlug])
	Name       string // for people
	State      State
	Plan       string
	Overrides  quota.Values // limits in which it differs from its plan
	Limits     quota.Limits // those of both
	Enrolment  Enrolment    // who may become a wallet
	Domains    []Domain     // its own host names, by name
	Sources    []Source     // what proves who its wallets are, by name; without those that were removed
	Removed    []Source     // those
	Gate       Gate         // what a call needs in addition
	ClientKeys []ClientKey  // for the gate, oldest first
	CreatedAt  time.Time

	// Fault is why Limits are not those of the plan; "" where they are.
	Fault string
}

// State is what a tenant's wallets may do. Every step is taken by a person and can be taken back
// (CONTRACT section 5).
type State string

const (
	Active   State = "active"
	ReadOnly State = "read_only" // reads are served, writes are not
	Closed   State = "closed"    // nothing is served; nothing is deleted either
)

func (s State) valid() bool { return s == Active || s == ReadOnly || s == Closed }

// Enrolment is who may become a wallet of a tenant by a first write. Who is one already stays one.
type Enrolment string

const (
	EnrolmentOpen   Enrolment = "open"   // anybody, up to the limit of wallets
	EnrolmentClosed Enrolment = "closed" // nobody
	EnrolmentListed Enrolment = "listed" // whoever is on the tenant's list
)

// Source is one way in which wallets of a tenant prove who they are.
type Source struct {
	ID   uuid.UUID
	Name string // unique within the tenant, also among the removed
	Kind Kind

	// Namespace is part of the identity of every wallet that this source names, and never changes
	// (CONTRACT section 4). Two sources of a tenant have the same one only where that was asked for.
	Namespace string

	// Window is how far the time of a signature may lie from now, either way, in whole seconds.
	Window time.Duration

	// Rules are what tokens of a JWT source must say.
	Rules jwt.Rules

	// FormerIssuers are those that a JWT source had before, "" for none: their tokens named wallets of its namespace.
	FormerIssuers []string

	// ByKeyID: a JWT source's tokens are told from those of others by the kid of its keys, where they have no
	// issuer that could.
	ByKeyID bool

	// JWKSURL is where the keys of a JWT source are; empty: they are Keys.
	JWKSURL egress.URL

	// Found is what JWKSURL answered, in the result of the change that saved it; nil otherwise.
	Found *KeySet

	// Host is that of an LNURL source's auth URL, for ever: wallets derive their keys from it. Empty: the one
	// that tenants share, for development.
	Host string

	// TokenLife is that of the tokens of an LNURL source, in whole seconds.
	TokenLife time.Duration

	// Keys are, newest first, those of a JWT source that were uploaded or, where it has a URL, those of the URL
	// that must not verify; of an LNURL source those that we sign with.
	Keys []SourceKey
}

// SourceKey is a key of a [Source].
type SourceKey struct {
	ID        string // its kid, or its thumbprint where it has none
	Public    []byte // a JWK, see [jwt.ParseKey]
	Sealed    []byte // the private key under the master key, of our own alone
	State     jwt.State
	Until     time.Time // of a retired key
	CreatedAt time.Time
}

// Kind is the form of the credentials of a [Source].
type Kind string

const (
	Signature Kind = "signature" // CONTRACT section 4.1. It names no source, so a tenant has at most one
	JWT       Kind = "jwt"       // CONTRACT section 4.2
	LNURL     Kind = "lnurl"     // CONTRACT section 4.3. A tenant has at most one
)

// Source is the tenant's first source of the kind, or nil.
func (t *Tenant) Source(kind Kind) *Source {
	for i := range t.Sources {
		if t.Sources[i].Kind == kind {
			return &t.Sources[i]
		}
	}
	return nil
}

// Owner is the identity of the wallet that a subject of the source names (CONTRACT section 4).
func (s *Source) Owner(tenant uuid.UUID, subject string) storage.Owner {
	return storage.Owner{Tenant: tenant, Namespace: s.Namespace, Subject: subject}
}

// Domain is a host name of a tenant, or one that it claims.
type Domain struct {
	Host      string // normalized, in punycode
	State     DomainState
	Challenge string    // what its DNS record has to say
	Vouched   bool      // by an operator: DNS is not asked
	CheckedAt time.Time // when DNS was last asked; zero: never
}

// DomainState is whether a host is a tenant's.
type DomainState string

const (
	Pending  DomainState = "pending"  // claimed; not served
	Verified DomainState = "verified" // served
	Lost     DomainState = "lost"     // no longer proved; served on until another tenant proves that it is theirs
)

// Gate is what is done about client keys (CONTRACT section 4.4).
type Gate struct {
	State  GateState
	Header string // the name of the header that has the key
}

// GateState is what a call without a good client key gets.
type GateState string

const (
	GateOff      GateState = "off"      // no look at it
	GateObserved GateState = "observed" // served, and counted
	GateRequired GateState = "required" // refused
)

// ClientKey is a publishable key of an app. The key itself is kept nowhere.
type ClientKey struct {
	Prefix    string // of the key, unique within the tenant
	Name      string // for people
	Hash      [32]byte
	ExpiresAt time.Time // zero: never
	RevokedAt time.Time // zero: it is not
	CreatedAt time.Time
}

// Good says whether the key opens the gate.
func (k *ClientKey) Good(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

// The texts of these errors are shown to wallets.
var (
	// ErrClosed: the tenant is closed to every call.
	ErrClosed = errors.New("this tenant is closed")

	// ErrReadOnly: the tenant takes no writes for now.
	ErrReadOnly = errors.New("this tenant is read-only")
)

// Refuses says why the tenant's state does not allow a call, or nil. A state that this program does not
// know, written by a newer one, allows none: clients try again, and to serve could be worse.
func (t *Tenant) Refuses(write bool) error {
	switch {
	case t.State == Active, t.State == ReadOnly && !write:
		return nil
	case t.State == ReadOnly:
		return ErrReadOnly
	default:
		return ErrClosed
	}
}

// InvalidError is input that no state of the platform would accept. Its text is meant for the caller.
type InvalidError struct {
	Field  string // as in "slug" or "add_domains"
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }
