// Package tenants says who a tenant is, by which hosts and paths it is reached, and who its wallets are.
//
//   - [Directory] answers, from memory, whose request it is;
//   - [Authenticator] answers which wallet of that tenant sent it;
//   - [Service] is the one door for every change: it takes the actor and writes the audit row.
//
// A request belongs to one tenant and one wallet of that tenant, and nothing crosses it (CONTRACT
// section 4): where it is not plain whose a request is, the answer is an error and never some tenant.
package tenants

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// Tenant is a wallet company. Those that a [Directory] hands out are shared by all requests: nobody
// changes them.
type Tenant struct {
	ID        uuid.UUID
	Slug      string // in base URLs and host names, for ever (see [CheckSlug])
	Name      string // for people
	State     State
	BodyLimit int64    // the largest request body, in bytes
	Domains   []string // its own host names, normalized, in byte order
	Sources   []Source // what proves who its wallets are, by name
	CreatedAt time.Time
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

// Source is one way in which wallets of a tenant prove who they are.
type Source struct {
	ID   uuid.UUID
	Name string // unique within the tenant
	Kind Kind

	// Namespace is part of the identity of every wallet that this source names, and never changes
	// (CONTRACT section 4). Two sources of a tenant have the same one only where that was asked for.
	Namespace string

	// Window is how far the time of a signature may lie from now, either way, in whole seconds.
	Window time.Duration
}

// Kind is the form of the credentials of a [Source].
type Kind string

// Signature is the kind of CONTRACT section 4.1. A signature names no source, so a tenant has at most one.
const Signature Kind = "signature"

// source is the tenant's first source of the kind, or nil.
func (t *Tenant) source(kind Kind) *Source {
	for i := range t.Sources {
		if t.Sources[i].Kind == kind {
			return &t.Sources[i]
		}
	}
	return nil
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
