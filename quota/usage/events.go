package usage

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
)

// EventKind is what an event is about.
type EventKind string

// What has states, and what its subject and its states are. There is one more kind, keys_changed, which has none: what
// proves who the wallets of a credential source are, its subject, is another. It is written with the change itself.
const (
	// StorageSoft: a store, by its wallet and name, or the tenant (no subject) is past the share of its ceiling at
	// which people are to hear of it. States: Raised, OK.
	StorageSoft EventKind = "storage_soft"

	// StorageHard: the same past the ceiling itself.
	StorageHard EventKind = "storage_hard"

	// RateLimited: more than ten calls a minute are refused for a rate, the subject, for three minutes, on any one
	// instance. The recorder raises it, from what the meter counted, and ends it when there was none in this hour
	// and the last.
	RateLimited EventKind = "rate_limited"

	// EnrolmentRefused: a new wallet is, for the reason that is the subject. Raised and ended as RateLimited.
	EnrolmentRefused EventKind = "enrolment_refused"

	// JWKSFailing: some instance cannot fetch keys from the URL of a credential source, by its name. States: Raised, OK.
	JWKSFailing EventKind = "jwks_failing"
)

// States of most kinds. OK is also the state of what was never raised.
const (
	OK     = "ok"
	Raised = "raised"
)

const (
	eventTimeout = 3 * time.Second
	drainTimeout = 3 * time.Second // when the recorder ends

	mostQueued = 1 << 10 // events
	mostRaised = 1 << 16 // states that are not OK, in about 200 bytes each
)

// Events takes what people should hear of and writes it, a state once, whichever and how many instances see it. What
// is raised is read from the database at every interval, so a state that stays costs no statement. Where more than
// 65,536 are, one that is not among the newest costs a statement an interval, and its end may be missed.
//
// A nil Events hears nothing. It is safe for concurrent use, and its methods never wait for the database. What is more
// than 1,024 behind, and more than as many changes of states in an interval, is dropped, which is logged once; a state
// is told again by whoever raises it again.
type Events struct {
	pool *pgxpool.Pool
	log  *slog.Logger
	wake chan struct{} // there is something in the queue

	states atomic.Pointer[states] // never changed in place: to look takes no lock

	mu    sync.Mutex // for those below, and to replace states
	queue []event    // written from the front, by one goroutine
	full  bool       // and was logged
}

// states is what is known of those that are not OK.
type states struct {
	read  map[about]string // from the database
	since map[about]string // told since, of this instance: at most what a queue holds
}

type about struct {
	tenant  uuid.UUID
	kind    EventKind
	subject string
}

type event struct {
	about
	state  string
	detail []byte // JSON
}

func (s *states) of(a about) string {
	if state, ok := s.since[a]; ok {
		return state
	}
	if state, ok := s.read[a]; ok {
		return state
	}
	return OK
}

func newEvents(pool *pgxpool.Pool, log *slog.Logger) *Events {
	e := &Events{pool: pool, log: log, wake: make(chan struct{}, 1)}
	e.states.Store(&states{})
	return e
}

// news says whether Raise of this state would tell anything, so that nobody makes a detail that is not read.
func (e *Events) news(tenant uuid.UUID, kind EventKind, subject, state string) bool {
	return e != nil && e.states.Load().of(about{tenant, kind, subject}) != state
}

// Raise tells the state of a subject. One that it has already costs a look into a map; another is written, with the
// detail, and is seen by the other instances' Raise within an interval.
func (e *Events) Raise(tenant uuid.UUID, kind EventKind, subject, state string, detail map[string]any) {
	if e.news(tenant, kind, subject, state) {
		e.tell(event{about{tenant, kind, subject}, state, encode(detail)})
	}
}

// encode never fails: an event without its detail is better than none.
func encode(detail map[string]any) []byte {
	encoded, err := json.Marshal(detail)
	if err != nil || detail == nil {
		return []byte("{}")
	}
	return encoded
}

func (e *Events) tell(v event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.states.Load()
	if s.of(v.about) == v.state {
		return // another call was first
	}
	if len(e.queue) >= mostQueued || len(s.since) >= mostQueued {
		if !e.full {
			e.log.Error("more events than are written are dropped", "kind", v.kind, "tenant", v.tenant)
		}
		e.full = true
		return
	}
	e.queue = append(e.queue, v)
	since := maps.Clone(s.since)
	if since == nil {
		since = map[about]string{}
	}
	since[v.about] = v.state
	e.states.Store(&states{read: s.read, since: since})
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run writes events as they come, and reads the states of all at every interval, until the context ends.
func (e *Events) run(ctx context.Context, interval time.Duration, report func(error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for due := true; ; {
		err := e.write(ctx)
		if err == nil && due {
			err = e.refresh(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		report(err)
		wake := e.wake
		if err != nil {
			wake = nil // not before the next interval
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			due = true
		case <-wake:
			due = false
		}
	}
}

// write writes what is queued, in order, up to the first that the database does not take. Only one goroutine at a
// time calls it.
func (e *Events) write(ctx context.Context) error {
	for {
		e.mu.Lock()
		if len(e.queue) == 0 {
			e.queue, e.full = nil, false
			e.mu.Unlock()
			return nil
		}
		v := e.queue[0]
		e.mu.Unlock()
		if err := e.writeOne(ctx, v); refused(err) {
			e.log.Error("an event that the database refuses is dropped", "kind", v.kind, "tenant", v.tenant, "error", err)
		} else if err != nil {
			return err
		}
		e.mu.Lock()
		e.queue = e.queue[1:]
		e.mu.Unlock()
	}
}

func (e *Events) writeOne(ctx context.Context, v event) error {
	return within(ctx, eventTimeout, func(ctx context.Context) error {
		subject := strings.ToValidUTF8(strings.ReplaceAll(v.subject, "\x00", "\uFFFD"), "\uFFFD")
		_, err := dbgen.New().RaiseEvent(ctx, e.pool, dbgen.RaiseEventParams{
			TenantID: v.tenant, Kind: string(v.kind), Subject: subject, State: v.state, Detail: v.detail,
		})
		return err
	})
}

// refused: another attempt would end the same way, as the data are no data (class 22) or break an invariant (23).
func refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23"))
}

// refresh reads what is raised. It is called by whoever writes, so that what is not in the queue is in the database.
func (e *Events) refresh(ctx context.Context) error {
	return within(ctx, readTimeout, func(ctx context.Context) error {
		rows, err := dbgen.New().RaisedStates(ctx, e.pool, mostRaised)
		if err != nil {
			return err
		}
		next := states{read: make(map[about]string, len(rows)), since: map[about]string{}}
		for _, s := range rows {
			next.read[about{s.TenantID, EventKind(s.Kind), s.Subject}] = s.State
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, v := range e.queue {
			next.since[v.about] = v.state
		}
		e.states.Store(&next)
		return nil
	})
}
