package record

import (
	"log/slog"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Kind is what an event is about.
type Kind string

// What happens, and what its subject, states and details are.
const (
	// StorageSoft: a store, by its wallet and name, or the tenant (no subject) is past the share of its ceiling at
	// which people are to hear of it. States: Raised, OK.
	StorageSoft Kind = "storage_soft"

	// StorageHard: the same past the ceiling itself.
	StorageHard Kind = "storage_hard"

	// RateLimited: calls are refused for a rate, by the reason, again and again. The recorder raises it, from what
	// the meter counted.
	RateLimited Kind = "rate_limited"

	// EnrolmentRefused: new wallets are, by the reason. The recorder raises it, from what the meter counted.
	EnrolmentRefused Kind = "enrolment_refused"

	// JWKSFailing: the URL of a credential source, by its name, has no keys. States: Raised, OK.
	JWKSFailing Kind = "jwks_failing"

	// KeysChanged: the keys of a credential source, by its name, are others. The state is what tells key sets
	// apart, so that several instances that see the same change raise it once.
	KeysChanged Kind = "keys_changed"
)

// States of most kinds. OK is also the state of what was never raised, and is not written then.
const (
	OK     = "ok"
	Raised = "raised"
)

// Events takes what people should hear of. A nil Events hears nothing. It is safe for concurrent use, and neither
// method ever waits.
type Events struct {
	pool *pgxpool.Pool
	log  *slog.Logger
}

func newEvents(pool *pgxpool.Pool, log *slog.Logger) *Events { return &Events{pool: pool, log: log} }

// Raise tells a state of the subject; one that it had already costs nothing. The detail is what becomes JSON, or nil.
func (e *Events) Raise(tenant uuid.UUID, kind Kind, subject, state string, detail map[string]any) {}

// Happened tells what has no state. It may be written twice where the answer to a commit was lost.
func (e *Events) Happened(tenant uuid.UUID, kind Kind, subject string, detail map[string]any) {}
