package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/storage"
)

// A fence keeps what a deposed primary says from being answered. README.md has the proof; it rests on the order of the
// steps in tryTake.
//
// A commit that waits for the synchronous standby is one that a deposed primary cannot do. So a read counts only if the
// server that answered it has done such a commit which began no longer than term before. And a server is not written
// to while an instance may count on reads from another one: each leaves word in the table leases, and the database
// refuses the commit (commit_in_time). The rows of instances that are gone are removed when their term is over.
type fence struct {
	pool     *pgxpool.Pool
	queries  *dbgen.Queries
	instance uuid.UUID

	lease   atomic.Pointer[lease] // nil: none
	renewal atomic.Pointer[renewal]

	// Of the renewal under way.
	conn  *pgx.Conn
	life  time.Time // of the server that is expected behind conn
	since time.Time // by our clock: when life was first seen
	away  bool      // the last server did not answer in time

	wentBack atomic.Bool // as keep last heard

	mu    sync.Mutex
	stuck map[int64]bool // servers, by their life, that owe the answer to a commit: none is sent another
}

// lease is the right to count on a server.
type lease struct {
	life     time.Time // the server's
	begun    time.Time // by our clock: before its commit was sent
	open     bool      // nobody may count on another server, so this one may be written to
	standbys string
}

// renewal is a commit under way.
type renewal struct {
	done chan struct{}
	err  error // written before done is closed
}

const (
	// term is how long a lease lasts.
	term = 2 * time.Second

	// wait is how long others wait for one to end. That is longer, by what their clocks may differ in pace: 5 %.
	wait = term + term/20

	// beat is how old a lease gets before it is renewed.
	beat = 300 * time.Millisecond

	// patience is how long a server may take for the commit before another one is looked for.
	patience = time.Second
)

// errDeposed: another server has shown that it is the primary, or this one did not.
var errDeposed = fmt.Errorf("%w: the server that answered is not known to be the primary of now", storage.ErrUnavailable)

func newFence(pool *pgxpool.Pool) *fence {
	return &fence{pool: pool, queries: dbgen.New(), instance: uuid.New(), stuck: make(map[int64]bool)}
}

// age is how long ago t was. The monotonic clock stands still while a machine is suspended, and the wall clock may be
// put back: the one of them that says more is nearer the truth.
func age(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// confirm says that a server, known by its life, was the primary when it answered just now, over a connection that was
// made at met. It asks nothing while the lease is good.
func (f *fence) confirm(ctx context.Context, life, met time.Time) error {
	if !db.Fenced() {
		return nil
	}
	for {
		l := f.lease.Load()
		// A lease from before the connection was made may be from before a crash of the server's, after which it shows
		// commits that no standby has.
		if l != nil && l.life.Equal(life) && l.begun.After(met) {
			if since := age(l.begun); since < term {
				if since > beat {
					f.renew()
				}
				return nil
			}
		}
		asked := time.Now()
		if err := f.await(ctx); err != nil {
			return err
		}
		if l := f.lease.Load(); l != nil && !l.life.Equal(life) && l.begun.After(asked) {
			return fmt.Errorf("%w: %w", errDeposed, errAgain)
		}
	}
}

// begin waits until a write can be begun.
func (f *fence) begin(ctx context.Context) error {
	if !db.Fenced() {
		return nil
	}
	for {
		if l := f.lease.Load(); l != nil && l.open {
			if since := age(l.begun); since < term {
				if since > beat {
					f.renew()
				}
				return nil
			}
		}
		if err := f.await(ctx); err != nil {
			return err
		}
		if l := f.lease.Load(); l == nil || !l.open {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return translate(ctx.Err())
			}
		}
	}
}

// await waits for a renewal to end.
func (f *fence) await(ctx context.Context) error {
	r := f.renew()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return translate(ctx.Err())
	}
}

// renew begins a renewal where none is under way.
func (f *fence) renew() *renewal {
	r := &renewal{done: make(chan struct{})}
	for !f.renewal.CompareAndSwap(nil, r) {
		if under := f.renewal.Load(); under != nil {
			return under
		}
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), term+patience)
		defer cancel()
		r.err = f.take(ctx)
		f.renewal.Store(nil)
		close(r.done)
	}()
	return r
}

// take takes the lease, or says why it cannot.
func (f *fence) take(ctx context.Context) error {
	kept := f.conn != nil
	err := f.tryTake(ctx)
	if kept && f.conn == nil && !f.away { // it broke while nobody looked
		err = f.tryTake(ctx)
	}
	return err
}

// tryTake does it once. Its steps are in the order that the proof needs.
func (f *fence) tryTake(ctx context.Context) error {
	var err error
	if f.conn == nil || f.conn.IsClosed() {
		if f.conn, err = db.Connect(ctx, f.pool, f.away); err != nil {
			f.conn = nil
			return translate(err)
		}
		f.away = false
		f.expect(db.ServerOf(f.conn).Life)
	}
	for tries := 0; tries < 3; tries++ { // behind a pooler the server may be another one each time
		if f.owes(f.life) {
			f.leave(true)
			return fmt.Errorf("%w: the primary waits for its synchronous standby", storage.ErrUnavailable)
		}
		begun := time.Now()
		row, err := f.commit(ctx, f.conn, f.life)
		switch {
		case errors.Is(err, errSlow):
			f.conn = nil // whoever waits for the answer closes it
			f.away = true
			return err
		case err != nil:
			f.leave(false)
			return err
		case !row.Life.Equal(f.life):
			f.expect(row.Life)
			continue
		}
		if row.Closed && age(f.since) > wait {
			if err := f.queries.EndLeases(ctx, f.conn); err != nil {
				f.leave(false)
				return translate(err)
			}
			row.Closed = false
		}
		f.lease.Store(&lease{life: f.life, begun: begun, open: !row.Closed, standbys: row.Standbys})
		return nil
	}
	return fmt.Errorf("%w: another server answers each time", storage.ErrUnavailable)
}

// expect prepares for the lease on a server. One on another server is given up first: from then on nothing that it
// said is answered, which the row in leases is about to say to all.
func (f *fence) expect(life time.Time) {
	if life.Equal(f.life) {
		return
	}
	f.lease.Store(nil)
	if !f.life.IsZero() {
		f.pool.Reset() // its connections are to the other server
	}
	f.life, f.since = life, time.Now()
}

// errSlow: the commit was sent, and is not answered in time.
var errSlow = fmt.Errorf("%w: the primary does not end a commit in time: its synchronous standby may be gone, or it is no primary any more", storage.ErrUnavailable)

// commit does the commit of a lease. When it takes too long, it is left to itself: what is abandoned waits on the
// server all the same, and would pile up there.
func (f *fence) commit(ctx context.Context, conn *pgx.Conn, life time.Time) (dbgen.KeepLeaseRow, error) {
	// What the goroutine finds is its own until done is closed: this may have returned by then.
	var found struct {
		row dbgen.KeepLeaseRow
		err error
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
		defer cancel()
		db.TakeWarning(conn)
		found.row, found.err = f.queries.KeepLease(waiting, conn, dbgen.KeepLeaseParams{Instance: f.instance, Life: life})
		if warning := db.TakeWarning(conn); found.err == nil && warning != "" {
			found.err = fmt.Errorf("%w: the server warned: %s", storage.ErrUnavailable, warning)
		}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return found.row, translate(found.err)
	case <-timer.C:
	}
	f.owe(life, true)
	go func() {
		<-done
		_ = conn.Close(context.Background())
		f.owe(life, false)
	}()
	return dbgen.KeepLeaseRow{}, errSlow
}

func (f *fence) owe(life time.Time, owes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if owes {
		f.stuck[life.UnixMicro()] = true
	} else {
		delete(f.stuck, life.UnixMicro())
	}
}

func (f *fence) owes(life time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stuck[life.UnixMicro()]
}

// leave closes the connection. away: so as to look for another server.
func (f *fence) leave(away bool) {
	f.away = away
	closing, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = f.conn.Close(closing)
	f.conn = nil
}

// keep renews the lease until ctx ends, and then gives it back. tell hears the error when it ran out, and nil when there is one again.
func (f *fence) keep(ctx context.Context, tell func(error)) {
	if !db.Fenced() {
		return
	}
	failing := false
	for ctx.Err() == nil {
		err := f.await(ctx)
		f.wentBack.Store(errors.Is(err, db.ErrWentBack))
		if lost := f.expired() && err != nil && ctx.Err() == nil; lost != failing && (lost || err == nil) {
			failing = lost
			tell(err)
		}
		pause := beat
		if l := f.lease.Load(); err != nil || l == nil || !l.open {
			pause = beat / 3
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	ended := &renewal{done: make(chan struct{}), err: fmt.Errorf("%w: the instance has ended", storage.ErrUnavailable)}
	close(ended.done)
	for !f.renewal.CompareAndSwap(nil, ended) { // and nobody renews it again
		if under := f.renewal.Load(); under != nil {
			<-under.done
		}
	}
	f.lease.Store(nil)
	if f.conn != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = f.queries.LeaveLease(last, f.conn, f.instance)
		f.leave(false)
	}
}

// expired says whether there is no lease that is good.
func (f *fence) expired() bool {
	l := f.lease.Load()
	return l == nil || age(l.begun) >= term
}

// standbys is what the last lease says of them.
func (f *fence) standbys() string {
	if l := f.lease.Load(); l != nil {
		return l.standbys
	}
	return ""
}
