package quota

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
)

// The texts of these errors are shown to wallets. Trying again later may help.
var (
	// ErrQueueFull: too many of the tenant's calls wait already.
	ErrQueueFull = errors.New("too many calls of this tenant are waiting")

	// ErrQueueTimeout: the call's time was over before its turn came.
	ErrQueueTimeout = errors.New("the call's turn did not come in time")
)

// QueueConfig says what a [Queue] shares out.
type QueueConfig struct {
	// Places is how many calls may be in the store at once: the connections of its pool.
	Places int

	// WritePlaces is how many of them may be writes, which wait for locks and for a standby that may be gone;
	// 0: three quarters, which is how many may be reads and lists.
	WritePlaces int

	// Depth is how many writes of one tenant's known wallets may wait, and how many of its strangers', and as many
	// reads and lists; 0: 1024. Of lists no more than half as many: where it is tight they go first and writes
	// last (CONTRACT section 5).
	Depth int

	Now func() time.Time // nil: time.Now
}

// Entrant is whose call it is that asks for a place.
type Entrant struct {
	Tenant uuid.UUID

	// Weight is the tenant's share next to others', in quarters of an ordinary one; 0: [OrdinaryWeight]. It has to
	// grow with a tenant's ordinary load: who asks for more than its share of a full store waits, however many
	// small tenants it is that fill it.
	Weight int

	// Stranger: the call is of a wallet that is not known, such as anybody can make (see [Limiter.Known]).
	Stranger bool
}

// OrdinaryWeight is that of an [Entrant] whose tenant is like most.
const OrdinaryWeight = 4

// Queue shares the places in front of the store between tenants. Each tenant's calls wait in a line of its own
// for writes and in another for reads. A place that becomes free goes to the line of the tenant that holds the
// fewest for its weight, and between equals in turn: so tenants share the store's time and not its calls, and
// one whose calls are slow gets no more of it. Who sends much waits for itself, and beyond its line is refused.
//
// In a line strangers wait beside the wallets that are known, and get at least every fourth of its places: a flood of
// them neither fills the line for the others nor has them wait for it, and a wallet that is enrolled, as all are that
// are strangers after a restart, is served however many others are known.
//
// While there are others, no tenant holds more than three quarters of the places. One with calls that wait for
// locks, or are large, would else have all of them by the time that somebody else comes, who would wait for as
// long as those calls take.
//
// Its memory is that of the calls that wait or hold a place. It is safe for concurrent use.
type Queue struct {
	cfg QueueConfig

	mu    sync.Mutex // for all below, held for a few steps
	lanes [2]lane    // reads and lists; writes
	busy  int        // places held
	turn  int        // the lane that is asked first for the next place
}

// lane is what reads and writes have each.
type lane struct {
	places int // that may be held
	busy   int
	lines  map[uuid.UUID]*line // of tenants that wait or hold places
	levels []list.List         // the lines in which somebody waits, by their level; next one first
	seen   [2]visit            // the last tenant that came, and the last one that was another
}

type visit struct {
	tenant uuid.UUID
	at     time.Time
}

// others is how long after a call its tenant still counts as somebody for whom places are left.
const others = time.Minute

type line struct {
	lane      *lane
	tenant    uuid.UUID
	weight    int
	held      int           // places
	known     list.List     // of *ticket that wait, in order of arrival
	strangers list.List     // likewise
	passed    int           // places that known wallets got since a stranger did
	place     *list.Element // in its level; nil where nobody waits
	level     int           // held, for its weight: for an ordinary one 4 a place
	credit    int           // places that it may still take before it is its equals' turn
}

// ticket is one call's.
type ticket struct {
	line     *line
	in       *list.List // of the line's
	state    state
	deadline time.Time     // zero: there is none
	waits    *list.Element // in it
	called   chan struct{} // closed when it does not wait any more; nil where it never did
}

type state uint8

const (
	waiting state = iota
	inside
	expired
	gone
)

// NewQueue makes a queue with all places free.
func NewQueue(cfg QueueConfig) *Queue {
	cfg.Places = max(cfg.Places, 1)
	if cfg.WritePlaces == 0 {
		cfg.WritePlaces = max(cfg.Places*3/4, 1)
	}
	if cfg.Depth == 0 {
		cfg.Depth = 1024
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	q := &Queue{cfg: cfg}
	for i, places := range []int{max(cfg.Places*3/4, 1), min(cfg.WritePlaces, cfg.Places)} {
		q.lanes[i] = lane{places: places, lines: map[uuid.UUID]*line{}, levels: make([]list.List, places*OrdinaryWeight+1)}
	}
	return q
}

// Enter waits for a place, at most until ctx ends. The caller gives it back by leave; a second time does nothing.
// It fails with [ErrQueueFull], with the error of ctx, or with [ErrQueueTimeout]: a call whose deadline has passed
// never gets a place, even if nobody has noticed yet.
func (q *Queue) Enter(ctx context.Context, who Entrant, kind Kind) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := &ticket{}
	t.deadline, _ = ctx.Deadline()
	leave = func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.leave(t, q.cfg.Now())
	}

	s, err := q.ask(t, who, kind)
	if err != nil {
		return nil, err
	}
	if s == waiting {
		select {
		case <-t.called:
			s = t.state // which nobody changes any more
		case <-ctx.Done():
		}
	}
	switch err := ctx.Err(); {
	case s == expired, errors.Is(err, context.DeadlineExceeded): // by our clock, which may be ahead of the context's timer
		leave() // the line, or the place that it got at the last moment
		return nil, ErrQueueTimeout
	case err != nil:
		leave()
		return nil, err
	}
	return leave, nil
}

// Waiting is how many writes wait, and how many reads and lists.
func (q *Queue) Waiting() (writes, reads int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var n [2]int
	for i := range q.lanes {
		for _, in := range q.lanes[i].lines {
			n[i] += in.waiting()
		}
	}
	return n[1], n[0]
}

// ask joins, and says whether to wait.
func (q *Queue) ask(t *ticket, who Entrant, kind Kind) (state, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.join(t, who, kind, q.cfg.Now())
	if err == nil && t.state == waiting {
		t.called = make(chan struct{})
	}
	return t.state, err
}

// join puts a call in line, and inside if there is a place. This and all below need the lock.
func (q *Queue) join(t *ticket, who Entrant, kind Kind, now time.Time) error {
	l, depth := &q.lanes[0], q.cfg.Depth
	switch kind {
	case Write:
		l = &q.lanes[1]
	case List:
		depth = (depth + 1) / 2
	}
	l.visit(who.Tenant, now)
	in := l.lines[who.Tenant]
	if in == nil {
		in = &line{lane: l, tenant: who.Tenant}
		l.lines[who.Tenant] = in
	}
	in.weight = max(cmp.Or(who.Weight, OrdinaryWeight), 1)
	part := &in.known
	if who.Stranger {
		part = &in.strangers
	}
	if part.Len() >= depth {
		expire(part, now)
	}
	if part.Len() >= depth {
		return ErrQueueFull
	}
	t.line, t.in, t.waits = in, part, part.PushBack(t)
	in.settle()
	q.dispatch(now)
	return nil
}

// leave gives a place back, or leaves the line.
func (q *Queue) leave(t *ticket, now time.Time) {
	switch t.state {
	case waiting:
		t.in.Remove(t.waits)
	case inside:
		t.line.held--
		t.line.lane.busy--
		q.busy--
	default:
		return
	}
	t.state = gone
	t.line.settle()
	q.dispatch(now)
}

// dispatch gives out the places that are free.
func (q *Queue) dispatch(now time.Time) {
	for q.busy < q.cfg.Places {
		t := q.lanes[q.turn].next(now)
		if t == nil {
			t = q.lanes[1-q.turn].next(now)
		} else {
			q.turn = 1 - q.turn
		}
		if t == nil {
			return
		}
		in := t.line
		in.held++
		in.lane.busy++
		q.busy++
		in.credit--
		in.passed++
		if t.in == &in.strangers {
			in.passed = 0
		}
		t.call(inside)
		in.settle()
		if in.place != nil && in.credit <= 0 {
			in.credit = in.turns()
			in.lane.levels[in.level].MoveToBack(in.place)
		}
	}
}

// next is the call whose turn it is, or nil. A line that holds as much as it may is passed over; there is at
// most one of those while a place is free.
func (l *lane) next(now time.Time) *ticket {
	if l.busy >= l.places {
		return nil
	}
	for i := range l.levels {
		for e := l.levels[i].Front(); e != nil; {
			in := e.Value.(*line)
			e = e.Next()
			if in.held >= l.most(in.tenant, now) {
				continue
			}
			expire(&in.known, now)
			expire(&in.strangers, now)
			if t := in.first(); t != nil {
				return t
			}
			in.settle()
		}
	}
	return nil
}

// most is how many places the tenant may hold.
func (l *lane) most(tenant uuid.UUID, now time.Time) int {
	other := l.seen[0]
	if other.tenant == tenant {
		other = l.seen[1]
	}
	if other.at.IsZero() || now.Sub(other.at) >= others {
		return l.places
	}
	return l.places - l.places/4
}

func (l *lane) visit(tenant uuid.UUID, now time.Time) {
	if l.seen[0].tenant != tenant {
		l.seen[1] = l.seen[0]
	}
	l.seen[0] = visit{tenant, now}
}

func (in *line) waiting() int { return in.known.Len() + in.strangers.Len() }

// first is whose turn it is in the line, or nil.
func (in *line) first() *ticket {
	e := in.known.Front()
	if s := in.strangers.Front(); e == nil || s != nil && in.passed >= 3 {
		e = s
	}
	if e == nil {
		return nil
	}
	return e.Value.(*ticket)
}

// turns is how many places a line gets in turn with its equals: few, as who holds nothing waits for as long.
func (in *line) turns() int { return min(max(in.weight/OrdinaryWeight, 1), 4) }

// expire drops those at the head of a part of a line whose deadline has passed: they must not be executed (CONTRACT
// section 3). Those behind them are dropped when they are at the head.
func expire(part *list.List, now time.Time) {
	for e := part.Front(); e != nil; e = part.Front() {
		t := e.Value.(*ticket)
		if t.deadline.IsZero() || now.Before(t.deadline) {
			return
		}
		t.call(expired)
	}
}

// call ends a ticket's wait.
func (t *ticket) call(s state) {
	t.in.Remove(t.waits)
	t.state = s
	if t.called != nil {
		close(t.called)
	}
}

// settle puts a line on its level after a change: on none where nobody waits, and a tenant that holds nothing
// either is forgotten.
func (in *line) settle() {
	level := min(in.held*OrdinaryWeight/in.weight, len(in.lane.levels)-1)
	waits := in.waiting() > 0
	if in.place != nil && (!waits || level != in.level) {
		in.lane.levels[in.level].Remove(in.place)
		in.place = nil
	}
	if waits && in.place == nil {
		in.level, in.credit = level, in.turns()
		in.place = in.lane.levels[level].PushBack(in)
	}
	if !waits && in.held == 0 {
		delete(in.lane.lines, in.tenant)
	}
}
