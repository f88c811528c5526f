package usage

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota"
)

// RecorderConfig says what a [Recorder] records and how often.
type RecorderConfig struct {
	// Meter is emptied; no one else takes from it. Required.
	Meter *Meter

	// KeySets are those at URLs of tenants, as this instance has them. Nil: there are none.
	KeySets func() []KeySet

	// Tenants are those whose totals are compared with their ceilings. Nil: there are none.
	Tenants func() []Limited

	// Heard is told how many instances live, each time that was read. Nil: nobody is.
	Heard func(live int)

	// Host and Version are for those who look at the instances.
	Host, Version string

	// Interval is the time between two flushes, and twice that between two beats; 0: 10 s. A crash loses what
	// was counted in one. An instance is taken for dead 15 s after its last beat, so it should not be longer.
	Interval time.Duration

	Now func() time.Time // for the hours of samples, roll-ups and what is too old; nil: time.Now

	// Log hears when an outage of the database begins and ends; nil: slog.Default().
	Log *slog.Logger
}

// Deadlines of single statements. A connection that is given up is closed, which the server notices within 500 ms
// (db.Open), and what it did not commit by then it undoes.
const (
	beatTimeout  = 3 * time.Second
	flushTimeout = 20 * time.Second // and
	rowTimeout   = time.Millisecond // for each row: a batch that can't be stored in time is never stored
	readTimeout  = 5 * time.Second
	endTimeout   = 20 * time.Second // for the last flushes
	leaveTimeout = 2 * time.Second
)

// Recorder records. It is safe for concurrent use; the methods that are called for every request wait for nothing.
type Recorder struct {
	pool     *pgxpool.Pool
	cfg      RecorderConfig
	instance uuid.UUID // of this run, in the table instances
	outage   outage
	events   *Events
	reader   *Reader

	totals atomic.Pointer[map[uuid.UUID]Totals]

	// Of whoever flushes.
	limited, unenrolled *sustained
}

// NewRecorder makes a recorder over a pool of db.RoleAPI, of which it uses up to five connections at once, two of them for as
// long as a flush and maintenance take: with three or more the rest is done in time. The pool should not be the one of
// the wallets' calls: where that has none free, instances would count each other out.
func NewRecorder(pool *pgxpool.Pool, cfg RecorderConfig) *Recorder {
	if cfg.KeySets == nil {
		cfg.KeySets = func() []KeySet { return nil }
	}
	if cfg.Tenants == nil {
		cfg.Tenants = func() []Limited { return nil }
	}
	if cfg.Heard == nil {
		cfg.Heard = func(int) {}
	}
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	r := &Recorder{
		pool: pool, cfg: cfg, instance: uuid.New(),
		limited:    newSustained(10, 3),
		unenrolled: newSustained(0, 1),
	}
	r.outage.log = cfg.Log
	r.events, r.reader = newEvents(pool, cfg.Log), NewReader(pool)
	r.totals.Store(&map[uuid.UUID]Totals{})
	return r
}

// Totals are the tenant's as of the last minutes, or false if it had no wallet then or nothing has been read yet.
func (r *Recorder) Totals(tenant uuid.UUID) (Totals, bool) {
	t, ok := (*r.totals.Load())[tenant]
	return t, ok
}

// ActiveWallets are those that were active last, in the days for which it is kept who was: at most so many, the last
// ones first.
func (r *Recorder) ActiveWallets(ctx context.Context, most int32) (wallets []quota.Key, err error) {
	err = within(ctx, readTimeout, func(ctx context.Context) error {
		ids, err := dbgen.New().ActiveWallets(ctx, r.pool, most)
		for _, id := range ids {
			wallets = append(wallets, quota.Key(id))
		}
		return err
	})
	return wallets, err
}

// Measured is when what tenants have was last measured, as far as has been read; zero: never, or there is no tenant.
func (r *Recorder) Measured() (last time.Time) {
	for _, t := range *r.totals.Load() {
		if t.MeasuredAt.After(last) {
			last = t.MeasuredAt
		}
	}
	return last
}

// Events are where to tell what people should hear of.
func (r *Recorder) Events() *Events { return r.events }

// Run records until the context ends, then stores what was counted up to then and leaves, which takes at most 25 s
// while the database does not answer. What still answers requests must have stopped before the context ends, or its
// last ones are not counted. It is to be run once.
func (r *Recorder) Run(ctx context.Context) {
	var running sync.WaitGroup
	// Loops of their own, so that a flush that waits does not keep the others from being done in time.
	running.Go(func() { r.every(ctx, r.cfg.Interval/2, "beat", r.beat) })
	running.Go(func() { r.every(ctx, r.cfg.Interval, "flush", r.flush) })
	running.Go(func() { r.every(ctx, r.cfg.Interval, "totals", r.readTotals) })
	running.Go(func() { r.every(ctx, 3*r.cfg.Interval, "maintenance", r.maintain) })
	running.Go(func() { r.events.run(ctx, r.cfg.Interval, func(err error) { r.outage.report("events", err) }) })
	running.Wait()
	r.end(context.WithoutCancel(ctx))
}

// end stores what is left.
func (r *Recorder) end(ctx context.Context) {
	// There are two batches if the last flush failed: that one's, and what was counted since.
	if err := within(ctx, endTimeout, func(ctx context.Context) error {
		if err := r.flush(ctx); err != nil {
			return err
		}
		return r.flush(ctx)
	}); err != nil {
		r.cfg.Log.Error("what tenants did since the last flush is lost", "error", err)
	}
	if err := within(ctx, drainTimeout, r.events.write); err != nil {
		r.cfg.Log.Error("the last events are lost", "error", err)
	}
	if err := within(ctx, leaveTimeout, func(ctx context.Context) error {
		return dbgen.New().Leave(ctx, r.pool, r.instance)
	}); err != nil {
		r.cfg.Log.Warn("this instance counts as running for 15 s more", "error", err)
	}
}

// every does a job at once and then every interval, until the context ends.
func (r *Recorder) every(ctx context.Context, interval time.Duration, name string, job func(context.Context) error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := job(ctx); ctx.Err() == nil {
			r.outage.report(name, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// beat tells the others that this instance lives, and hears of them.
func (r *Recorder) beat(ctx context.Context) error {
	return within(ctx, beatTimeout, func(ctx context.Context) error {
		sets := r.cfg.KeySets()
		var failing []uuid.UUID
		for _, set := range sets {
			if set.Err != nil {
				failing = append(failing, set.Source)
			}
		}
		others, err := dbgen.New().Beat(ctx, r.pool, dbgen.BeatParams{
			ID: r.instance, Host: r.cfg.Host, Version: r.cfg.Version, Failing: append([]uuid.UUID{}, failing...), // nil would be NULL
		})
		if err != nil {
			return err
		}
		// This instance, and the others from their second beat on. One that crashes at its start, over and over, is
		// another each time, and would have those that serve divide rates by all of them. So for one interval a new one
		// is not counted, and more is let through.
		r.cfg.Heard(int(others.Live))
		r.tellOfKeySets(sets, slices.Concat(failing, others.Failing))
		return nil
	})
}

// flush stores what was counted since the last flush. After an error, whether it was stored or not, the meter keeps
// the batch, and the next flush is of the same one.
func (r *Recorder) flush(ctx context.Context) error {
	batch := r.cfg.Meter.Take()
	if batch == nil {
		return nil
	}
	now := r.cfg.Now().UTC()
	if err := r.store(ctx, now, batch); err != nil {
		return err
	}
	r.cfg.Meter.Acknowledge(batch.Sequence)
	if batch.Lost > 0 {
		r.cfg.Log.Warn("requests were not counted, for want of memory", "requests", batch.Lost)
	}
	r.raise(now, batch)
	return nil
}

// store stores a batch, unless it is stored. One with hours before yesterday, which nobody rolls up any more, rolls
// them up in its own transaction: after an outage of days, or of this instance's connection alone.
func (r *Recorder) store(ctx context.Context, now time.Time, b *Batch) error {
	p := params(now, b)
	oldest := now
	for i := range b.Hours {
		if b.Hours[i].Start.Before(oldest) {
			oldest = b.Hours[i].Start
		}
	}
	timeout := flushTimeout + time.Duration(len(p.Values)+len(p.ActiveWallets))*rowTimeout
	if !oldest.Before(day(now, -1)) {
		return within(ctx, timeout, func(ctx context.Context) error {
			_, err := dbgen.New().StoreMeterBatch(ctx, r.pool, p)
			return err
		})
	}
	return r.transact(ctx, timeout, func(ctx context.Context, tx pgx.Tx) error {
		if err := dbgen.New().AwaitMaintenance(ctx, tx); err != nil {
			return err
		}
		if _, err := dbgen.New().StoreMeterBatch(ctx, tx, p); err != nil {
			return err
		}
		return rollUpSince(ctx, tx, now, day(oldest, 0), month(now, -1))
	})
}

// raise tells of refusals that go on.
func (r *Recorder) raise(now time.Time, b *Batch) {
	r.limited.forget(now)
	r.unenrolled.forget(now)
	for i := range b.Hours {
		h := &b.Hours[i]
		for reason, n := range h.Refused {
			if n == 0 || h.Tenant == (uuid.UUID{}) {
				continue
			}
			of := refusal{h.Tenant, quota.Reason(reason)}
			detail := map[string]any{"instance": r.instance, "host": r.cfg.Host, "refused": n}
			switch of.reason {
			case quota.WalletRate, quota.TenantRate, quota.AddressRate:
				if r.limited.add(now, of, n) {
					r.events.Raise(of.tenant, RateLimited, of.reason.String(), Raised, detail)
				}
			case quota.Enrolment, quota.EnrolmentRate:
				if r.unenrolled.add(now, of, n) {
					r.events.Raise(of.tenant, EnrolmentRefused, of.reason.String(), Raised, detail)
				}
			}
		}
	}
}

// params are a batch as rows of the tables usage and active_wallets.
func params(now time.Time, b *Batch) dbgen.StoreMeterBatchParams {
	p := dbgen.StoreMeterBatchParams{Instance: b.Instance, Sequence: b.Sequence}
	for i := range b.Hours {
		h := &b.Hours[i]
		counted(&h.Counts, func(metric string, value int64) {
			p.Tenants = append(p.Tenants, h.Tenant)
			p.Starts = append(p.Starts, h.Start)
			p.Metrics = append(p.Metrics, metric)
			p.Values = append(p.Values, value)
		})
	}
	first := day(now, -countActive)
	for _, a := range b.Active {
		if a.Day.Before(first) {
			continue // whether it was counted is not known any more
		}
		p.ActiveTenants = append(p.ActiveTenants, a.Tenant)
		p.ActiveDays = append(p.ActiveDays, date(a.Day))
		p.ActiveWallets = append(p.ActiveWallets, uuid.UUID(a.Wallet))
	}
	return p
}

// counted calls f for each count that is not zero, with the name that it has in the table usage.
func counted(c *Counts, f func(metric string, value int64)) {
	some := func(metric string, value int64) {
		if value != 0 {
			f(metric, value)
		}
	}
	for o := range c.Requests {
		for e, n := range c.Requests[o] {
			some(requestMetrics[o][e], n)
		}
	}
	for reason, n := range c.Refused {
		some(refusalMetrics[reason], n)
	}
	some("bytes_in", c.In)
	some("bytes_out", c.Out)
	some("new_wallets", c.Enrolled)
}

// The names of metrics, by the indices of [Counts]. They are made once: a batch has up to a million rows.
var requestMetrics, refusalMetrics = names()

func names() (requests [operations][outcomes]string, refusals [quota.Reasons]string) {
	for o := range requests {
		for e := range requests[o] {
			requests[o][e] = fmt.Sprintf("requests.%v.%v", Operation(o), Outcome(e))
		}
	}
	for r := range refusals {
		refusals[r] = "refused." + quota.Reason(r).String()
	}
	return requests, refusals
}

// readTotals brings what every tenant has into memory.
func (r *Recorder) readTotals(ctx context.Context) error {
	return within(ctx, readTimeout, func(ctx context.Context) error {
		all, err := r.reader.Totals(ctx)
		if err != nil {
			return err
		}
		r.totals.Store(&all)
		r.tellOfTenants()
		return nil
	})
}

// within does something that has a deadline.
func within(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return f(ctx)
}

// outage logs once when the first of several jobs begins to fail, and once when none fails any more.
type outage struct {
	log *slog.Logger

	mu      sync.Mutex
	failing map[string]struct{}
	began   time.Time
}

func (o *outage) report(job string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := len(o.failing)
	switch {
	case err == nil:
		delete(o.failing, job)
		if before == 1 && len(o.failing) == 0 {
			o.log.Info("recorder: the database is there again", "outage_seconds", time.Since(o.began).Seconds())
		}
	case before == 0:
		o.failing, o.began = map[string]struct{}{job: {}}, time.Now()
		o.log.Error("recorder: the database fails; what is to be recorded waits in memory", "job", job, "error", err)
	default:
		o.failing[job] = struct{}{}
	}
}
