package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/storage"
)

// How a write travels.
//
// It first takes its turn among the writes of this instance to its store (turns.go).
//
// First try, the usual case: one round trip that carries a whole transaction, [bound it, lock the stores'
// rows that are free, decide and apply]. The lock is a statement of its own, since a statement's snapshot
// is taken before it waits: only a later one sees what the last writer committed. Nothing waits in it, so
// one store's lock holds up no other store of the group.
//
// A write whose row is held, or that may begin its store, is then tried alone, in three trips: [bound,
// create what is missing, wait for the lock], [decide and apply], [commit]. While it waits, nothing of it
// has been said that could change anything: if its caller leaves or its process dies, the transaction
// ends with its connection. No cancel request is sent or needed for that (db.Open).
//
// A write that may not begin a store that does not exist ends with what there is of its wallet. Who sent it decides,
// and sends it again as one that may: that goes straight to the second way.
//
// Both end with an outcome, with an error that proves that nothing was committed, or with the commit's
// answer lost. Then the store's row is asked for the id of its last write.

// write is one put on its way.
type write struct {
	ks       storage.Keyspace
	batch    storage.Batch
	limits   storage.Limits
	id       uuid.UUID // random; kept in the store's row as last_write
	notAfter time.Time // by our clock

	// serverNotAfter is the same instant by the server's clock. It is said once: our clock may stand still while
	// a machine is suspended, and a later reading would then move it past the moment the client gave up.
	serverNotAfter time.Time
}

// An outcome of ApplyWrites.
type outcome string

const (
	applied  outcome = "ok"
	conflict outcome = "conflict"
	late     outcome = "late"
	busy     outcome = "busy"
	absent   outcome = "absent"
	blocked  outcome = "blocked"

	objects outcome = "objects" // too many
	bytes   outcome = "bytes"   // likewise
	value   outcome = "value"   // too large
)

// Put implements storage.Store.
func (s *Store) Put(ctx context.Context, ks storage.Keyspace, batch storage.Batch, limits storage.Limits) (storage.Written, error) {
	if err := batch.Check(); err != nil {
		return storage.Written{}, err
	}
	// Of a batch that only deletes, there is nothing in a store that was never written, and that begins none.
	begins := len(batch.Deletes) == 0 || len(batch.Writes) > 0 || batch.GlobalVersion != nil
	got, err := s.put(ctx, ks, batch, limits, begins)
	if err == nil && (got.outcome == conflict || got.outcome == absent && !begins) {
		err = storage.ErrConflict
	}
	if err == nil && got.outcome != applied {
		err = fmt.Errorf("%w: the write ended as %q", storage.ErrUnavailable, got.outcome)
	}
	if err != nil {
		return storage.Written{}, err
	}
	return got.written, nil
}

// Delete implements storage.Store. It is a put of one item to delete that is content with a conflict and
// creates no store.
func (s *Store) Delete(ctx context.Context, ks storage.Keyspace, item storage.KeyVersion) (storage.Written, error) {
	if err := item.Check(); err != nil {
		return storage.Written{}, err
	}
	got, err := s.put(ctx, ks, storage.Batch{Deletes: []storage.KeyVersion{item}}, storage.Limits{}, false)
	switch {
	case err != nil:
		return storage.Written{}, err
	case got.outcome == applied:
		return got.written, nil
	case got.outcome == conflict || got.outcome == absent:
		return unknown, nil
	}
	return storage.Written{}, fmt.Errorf("%w: the delete ended as %q", storage.ErrUnavailable, got.outcome)
}

// unknown is a write after which nobody counted.
var unknown = storage.Written{Objects: -1, Bytes: -1}

// put ends with applied, conflict, or, where the batch begins no store, absent.
func (s *Store) put(ctx context.Context, ks storage.Keyspace, batch storage.Batch, limits storage.Limits, begins bool) (result, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	w := &write{ks: ks, batch: batch, limits: limits, id: uuid.New()}
	w.notAfter, _ = ctx.Deadline()
	if limits.Begin != nil {
		w.serverNotAfter = limits.Begin.NotAfter
	}
	w.say(&s.clock)
	done, err := s.turns.take(ctx, ks.Store())
	if err != nil {
		return result{}, translate(err)
	}
	defer done()
	if err := s.fence.begin(ctx); err != nil { // before it has a place that others want
		return result{}, err
	}
	kind := Write
	if size(batch) >= large {
		kind = LargeWrite
	}
	leave, err := s.enter(ctx, ks, kind)
	if err != nil {
		return result{}, err
	}
	defer leave()

	asks := begins && limits.Known && limits.Begin == nil
	return again(ctx, func() (result, error) {
		if asks && kind == LargeWrite { // what is refused or sent again need not travel
			if err := s.neverWritten(ctx, w); err != nil {
				return result{}, err
			}
		}
		got := result{outcome: absent}
		if !begins || limits.Begin == nil {
			results, err := s.together(ctx, []*write{w})
			if err != nil {
				return result{}, err
			}
			got = results[0]
		}
		first := begins && got.outcome == absent
		if first && asks {
			if err := s.neverWritten(ctx, w); err != nil {
				return result{}, err
			}
			first, got.outcome = false, busy // another instance has begun it since
		}
		if first || got.outcome == busy {
			var err error
			if got, err = s.alone(ctx, w, first); err != nil {
				return result{}, err
			}
		}
		if got.err == nil {
			got.err = got.refusal(w)
		}
		return got, got.err
	})
}

// refusal is the error of an outcome that means one.
func (r *result) refusal(w *write) error {
	exceeded := func(limit string, used int64, c storage.Ceiling) error {
		allowed := c.Last
		if r.fresh {
			allowed = c.Hard
		}
		return &storage.ExceededError{Limit: limit, Used: used, Allowed: allowed}
	}
	switch r.outcome {
	case late:
		return storage.ErrTooLate // and not tried again where there seems to be time: our clock may have stood still
	case blocked:
		return storage.ErrBlocked
	case objects:
		return exceeded("objects_per_store", r.written.Objects, w.limits.Objects)
	case bytes:
		return exceeded("bytes_per_store", r.written.Bytes, w.limits.Bytes)
	case value:
		return &storage.ExceededError{Limit: "value_size", Used: r.largest, Allowed: w.limits.Value}
	}
	return nil
}

// say fixes the deadline in the server's time, as soon as that is known.
func (w *write) say(c *clock) {
	if w.serverNotAfter.IsZero() && c.known() {
		w.serverNotAfter = c.at(w.notAfter)
	}
}

// size is what a batch takes on its way, in bytes.
func size(b storage.Batch) (n int) {
	for _, w := range b.Writes {
		n += len(w.Key) + len(w.Value)
	}
	return n
}

// result is what became of one write.
type result struct {
	outcome outcome
	written storage.Written // or what it would have been
	largest int64           // of the values that are new or grow
	fresh   bool            // the store was just created
	err     error
}

// settled is a write of which no more is known than that it is saved.
func settled(err error) result {
	return result{outcome: applied, written: unknown, err: err}
}

// together tries writes to different stores in one transaction and one round trip. The error is of all of
// them and proves that nothing was committed.
func (s *Store) together(ctx context.Context, writes []*write) ([]result, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, translate(err)
	}
	defer conn.Release()
	// From here on the transaction is on its way, whoever leaves.
	sent, cancel := uncancelled(ctx)
	defer cancel()
	if err := s.acquaint(sent, conn); err != nil {
		return nil, err
	}
	for _, w := range writes {
		w.say(&s.clock)
	}

	var b pgx.Batch
	bound(&b, writes[0])
	results, err := s.apply(sent, conn, &b, writes)
	shrink(sent, conn, writes...)
	switch {
	case err == nil && db.TakeWarning(conn.Conn()) == "":
		for i := range results {
			if results[i].outcome != applied { // then nothing had to wait for a standby, so it is no more than a read
				return results, s.primary(sent, conn.Conn(), false, db.ServerOf(conn.Conn()).Life, nil)
			}
		}
		return results, nil
	case err != nil && refused(err):
		return nil, translate(err)
	}
	conn.Release() // it may be the last of the pool, and settling takes one
	for i := range writes {
		if err == nil && results[i].outcome != applied {
			continue // changed nothing, so there is nothing to settle
		}
		results[i] = settled(s.settle(ctx, writes[i], err))
	}
	return results, nil
}

// alone waits for the row of one write's store, which it may have to create, and applies the write.
func (s *Store) alone(ctx context.Context, w *write, first bool) (result, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return result{}, translate(err)
	}
	defer conn.Release()
	if err := s.acquaint(ctx, conn); err != nil {
		return result{}, err
	}
	w.say(&s.clock)

	var b pgx.Batch
	b.BeginTx(pgx.TxOptions{})
	bound(&b, w)
	store := uuid.UUID(w.ks.Store())
	enrolled := false
	if first {
		owner, wallet := w.ks.Owner(), uuid.UUID(w.ks.Wallet())
		b.Queue(dbgen.EnrolWallet, wallet, owner.Tenant, owner.Namespace, owner.Subject).Exec(func(tag pgconn.CommandTag) error {
			enrolled = tag.RowsAffected() == 1
			return nil
		})
		b.Queue(dbgen.CreateStore, store, w.ks.StoreID(), wallet)
	}
	b.Queue(dbgen.LockStore, store)
	// Under the caller's context: when it ends, the connection does, and with it the transaction.
	begun := conn.SendBatch(ctx, &b)
	err = begun.Close()
	tx := begun.Tx()
	sent, cancel := uncancelled(ctx)
	defer cancel()
	if tx != nil {
		defer func() { _ = tx.Rollback(sent) }() // does nothing once it is committed or the connection gone
	}
	if err != nil {
		return result{}, translate(err)
	}

	b = pgx.Batch{}
	bound(&b, w) // again, by the time that remains
	results, err := s.apply(sent, conn, &b, []*write{w})
	if err != nil {
		return result{}, translate(err) // no commit was sent
	}
	got := results[0]
	got.written.NewWallet = enrolled
	if got.outcome != applied {
		return got, s.primary(sent, conn.Conn(), false, db.ServerOf(conn.Conn()).Life, nil)
	}
	if ctx.Err() != nil {
		return result{}, translate(ctx.Err())
	}
	err = tx.Commit(sent)
	shrink(sent, conn, w)
	switch {
	case err == nil && db.TakeWarning(conn.Conn()) == "":
		return got, nil
	case err != nil && (refused(err) || errors.Is(err, pgx.ErrTxCommitRollback)):
		return result{}, translate(err)
	}
	conn.Release()
	if err := s.settle(ctx, w, err); err != nil {
		return result{}, err
	}
	return settled(nil), nil
}

// neverWritten fails with what there is of the wallet, if the write's store was never written.
func (s *Store) neverWritten(ctx context.Context, w *write) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Release()
	if err := s.acquaint(ctx, conn); err != nil {
		return err
	}
	w.say(&s.clock)
	has, err := s.queries.Standing(ctx, conn, dbgen.StandingParams{Wallet: uuid.UUID(w.ks.Wallet()), Store: uuid.UUID(w.ks.Store())})
	if err := s.primary(ctx, conn.Conn(), has.Standby, db.ServerOf(conn.Conn()).Life, err); err != nil || has.Begun {
		return err
	}
	return &storage.NeverWrittenError{NewWallet: !has.Known, Stores: has.Stores, NotAfter: w.serverNotAfter}
}

// shrink gives up a connection that has sent a large write: pgx keeps the buffer for as long as it lives.
func shrink(ctx context.Context, conn *pgxpool.Conn, writes ...*write) {
	for _, w := range writes {
		if size(w.batch) >= large {
			_ = conn.Conn().Close(ctx)
		}
	}
}

// bound queues the statement that makes the server refuse what comes after the deadline, by its own clock.
func bound(b *pgx.Batch, w *write) {
	b.Queue(dbgen.BoundTransaction,
		strconv.FormatInt(max(1, time.Until(w.notAfter).Milliseconds()), 10),
		w.serverNotAfter.UTC().Format("2006-01-02T15:04:05.999999Z07:00"))
}

// apply queues LockStores and ApplyWrites, sends the batch and reads an outcome for each write.
func (s *Store) apply(ctx context.Context, conn *pgxpool.Conn, b *pgx.Batch, writes []*write) ([]result, error) {
	items := 0
	for _, w := range writes {
		items += len(w.batch.Writes) + len(w.batch.Deletes)
	}
	p := dbgen.ApplyWritesParams{
		Stores:        make([]uuid.UUID, len(writes)),
		WriteIds:      make([]uuid.UUID, len(writes)),
		NotAfter:      make([]time.Time, len(writes)),
		HardObjects:   make([]int64, len(writes)),
		LastObjects:   make([]int64, len(writes)),
		HardBytes:     make([]int64, len(writes)),
		LastBytes:     make([]int64, len(writes)),
		LargestValues: make([]int64, len(writes)),
		Keys:          make([]string, 0, items),
		ItemWrites:    make([]int32, 0, items),
		Versions:      make([]int64, 0, items),
		Deletes:       make([]bool, 0, items),
		Values:        make([][]byte, 0, items),
	}
	global := make([]*int64, len(writes)) // sqlc knows no arrays with NULLs
	for i, w := range writes {
		p.Stores[i], p.WriteIds[i], global[i] = uuid.UUID(w.ks.Store()), w.id, w.batch.GlobalVersion
		p.NotAfter[i] = w.serverNotAfter
		p.HardObjects[i], p.LastObjects[i] = lines(w.limits.Objects)
		p.HardBytes[i], p.LastBytes[i] = lines(w.limits.Bytes)
		p.LargestValues[i] = cmp.Or(w.limits.Value, math.MaxInt64)
		add := func(key string, version int64, deletes bool, value []byte) {
			p.Keys = append(p.Keys, key)
			p.ItemWrites = append(p.ItemWrites, int32(i)+1)
			p.Versions = append(p.Versions, version)
			p.Deletes = append(p.Deletes, deletes)
			p.Values = append(p.Values, value)
		}
		for _, o := range w.batch.Writes {
			if o.Value == nil {
				o.Value = []byte{} // nil would be NULL
			}
			add(o.Key, o.Version, false, o.Value)
		}
		for _, d := range w.batch.Deletes {
			add(d.Key, d.Version, true, nil)
		}
	}

	db.TakeWarning(conn.Conn())
	began := time.Now()
	b.Queue(dbgen.LockStores, p.Stores)
	results := make([]result, len(writes))
	b.Queue(dbgen.ApplyWrites, p.Stores, p.WriteIds, global, p.NotAfter,
		p.HardObjects, p.LastObjects, p.HardBytes, p.LastBytes, p.LargestValues,
		p.Keys, p.ItemWrites, p.Versions, p.Deletes, p.Values).
		Query(func(rows pgx.Rows) error {
			var row dbgen.ApplyWritesRow
			_, err := pgx.ForEachRow(rows, []any{&row.N, &row.Outcome, &row.Now, &row.Objects, &row.Bytes, &row.Largest, &row.Fresh}, func() error {
				results[row.N-1] = result{
					outcome: outcome(row.Outcome),
					written: storage.Written{Objects: row.Objects, Bytes: row.Bytes},
					largest: row.Largest,
					fresh:   row.Fresh,
				}
				s.clock.refine(row.Now, began)
				return nil
			})
			return err
		})
	err := conn.SendBatch(ctx, b).Close()
	return results, err
}

// lines are those of a ceiling, or none.
func lines(c storage.Ceiling) (hard, last int64) {
	if c == (storage.Ceiling{}) {
		return math.MaxInt64, math.MaxInt64
	}
	return c.Hard, c.Last
}

// settle finds out whether a write whose commit was not answered, or answered with a warning, is saved: nil
// if it is, storage.ErrAmbiguous if that cannot be proved. It does not prove that it is not: the lost
// transaction may yet be on its way (so it asks three times), and a later write may have taken its place.
func (s *Store) settle(ctx context.Context, w *write, cause error) error {
	if cause == nil {
		// The warning that a commit did not wait for its standby: it is there to be read, and may yet go.
		return fmt.Errorf("%w: the server warned of the commit", storage.ErrAmbiguous)
	}
	for asked := 0; asked < 3 && ctx.Err() == nil; {
		last, err := s.lastWrite(ctx, w)
		switch {
		case err == nil && last != nil && *last == w.id:
			return nil
		case err == nil, errors.Is(err, pgx.ErrNoRows):
			asked++
		default: // the database is restarting or failing over
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("%w: %w", storage.ErrAmbiguous, cause)
}

// lastWrite reads the id of the last write of the write's store, after whoever holds the store's row.
func (s *Store) lastWrite(ctx context.Context, w *write) (*uuid.UUID, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	sent, cancel := uncancelled(ctx)
	defer cancel()
	if err := s.acquaint(sent, conn); err != nil {
		return nil, err
	}
	db.TakeWarning(conn.Conn())
	var b pgx.Batch
	bound(&b, w)
	var last *uuid.UUID
	b.Queue(dbgen.LastWrite, uuid.UUID(w.ks.Store())).QueryRow(func(r pgx.Row) error { return r.Scan(&last) })
	if err := conn.SendBatch(sent, &b).Close(); err != nil {
		return nil, err
	}
	if warning := db.TakeWarning(conn.Conn()); warning != "" {
		return nil, fmt.Errorf("the server warned: %s", warning) // nobody waited for the standby: no proof
	}
	return last, nil
}
