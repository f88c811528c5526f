package usage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
)

const (
	measureEvery = 5 * time.Minute
	keepHours    = 90 // days
	keepBatches  = 90 // days, in ForgetBatches

	// A wallet that was active on a day is counted up to two days later, and its row stays for one more, by which
	// instances' clocks may differ: whatever is late, none counts twice.
	countActive = 2 // days
	keepActive  = countActive + 1

	reportTimeout = 2 * time.Minute  // of what reads everything
	pieceTimeout  = 10 * time.Second // of what removes a piece
	piece         = 5000             // rows
)

// maintain does what one instance does for all, if it is due and no other instance is at it. Each step is a
// transaction of its own, and can be done again: whoever comes next goes on where this instance was stopped.
func (r *Recorder) maintain(ctx context.Context) error {
	age, err := r.totalsAge(ctx)
	if err != nil || age < measureEvery {
		return err
	}
	now := r.cfg.Now().UTC()
	for _, step := range []func() (ours bool, err error){
		// The age of the totals says when this was last done, so they come after it.
		func() (bool, error) { return r.rollUp(ctx, now, age) },
		func() (bool, error) { return r.measure(ctx, now) },
		func() (bool, error) { return r.prune(ctx, now) },
		func() (bool, error) { return r.forget(ctx, now) },
	} {
		if ours, err := step(); err != nil || !ours {
			return err
		}
	}
	return nil
}

// totalsAge is for how long nobody has measured; very long if nobody ever did.
func (r *Recorder) totalsAge(ctx context.Context) (age time.Duration, err error) {
	err = within(ctx, readTimeout, func(ctx context.Context) error {
		seconds, err := dbgen.New().TotalsAge(ctx, r.pool)
		age = time.Duration(seconds * float64(time.Second))
		return err
	})
	return age, err
}

// alone does something in a transaction, within this time, unless another instance does something for all right now.
func (r *Recorder) alone(ctx context.Context, timeout time.Duration, do func(context.Context, pgx.Tx) error) (ours bool, err error) {
	err = r.transact(ctx, timeout, func(ctx context.Context, tx pgx.Tx) (err error) {
		if ours, err = dbgen.New().TryMaintenance(ctx, tx); err != nil || !ours {
			return err
		}
		return do(ctx, tx)
	})
	return ours && err == nil, err
}

// transact is a transaction that the server ends too when its time is over.
func (r *Recorder) transact(ctx context.Context, timeout time.Duration, do func(context.Context, pgx.Tx) error) error {
	return within(ctx, timeout, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
			if err := dbgen.New().Bound(ctx, tx, strconv.FormatInt(timeout.Milliseconds(), 10)); err != nil {
				return err
			}
			return do(ctx, tx)
		})
	})
}

// rollUp makes days and months of the hours since the day before the last time, at least since yesterday: a flush may
// bring hours of the day before, and what is later than that rolls up itself (see store). The last time began some
// time before its totals were measured.
func (r *Recorder) rollUp(ctx context.Context, now time.Time, age time.Duration) (ours bool, err error) {
	since := now.Add(-age - time.Hour)
	return r.alone(ctx, reportTimeout, func(ctx context.Context, tx pgx.Tx) error {
		return rollUpSince(ctx, tx, now, day(since, -1), month(now, -1))
	})
}

// rollUpSince makes days and months of what is there since then. Its transaction is the only one that does.
func rollUpSince(ctx context.Context, tx pgx.Tx, now, days, months time.Time) error {
	// Of days before that some hours may be gone.
	if oldest := day(now, -keepHours+2); days.Before(oldest) {
		days = oldest
	}
	if first := month(days, 0); first.Before(months) {
		months = first
	}
	if err := dbgen.New().RollUpDays(ctx, tx, days); err != nil {
		return err
	}
	return dbgen.New().RollUpMonths(ctx, tx, months)
}

// measure counts what every tenant has, and takes the hour's sample of it if there is none. It reads the wallets in
// slices of some 20,000, each in a snapshot of its own: one of all would take a fifth of the time, and keep the old
// versions of every store's row for as long, so that writes leave their pages. What changes meanwhile may be in or not.
//
// All of it is one transaction, so that no other instance comes in between and has it start over. Between two slices it
// has the lock of maintenance and else neither a snapshot nor a lock, so no vacuum and no migration waits for it.
func (r *Recorder) measure(ctx context.Context, now time.Time) (ours bool, err error) {
	var wallets int64 // as last measured
	for _, t := range *r.totals.Load() {
		wallets += t.Wallets
	}
	parts := min(16+uint64(wallets)/20_000, 1<<16)
	return r.alone(ctx, time.Duration(parts)*reportTimeout, func(ctx context.Context, tx pgx.Tx) error {
		// What bounds all of it is too long for a statement.
		if err := dbgen.New().Bound(ctx, tx, strconv.FormatInt(reportTimeout.Milliseconds(), 10)); err != nil {
			return err
		}
		all, err := measureSlices(ctx, tx, parts)
		if err != nil {
			return err
		}
		return within(ctx, reportTimeout, func(ctx context.Context) error {
			if err := dbgen.New().StoreTotals(ctx, tx, totals(all)); err != nil {
				return err
			}
			_, err := dbgen.New().SampleStored(ctx, tx, now.Truncate(time.Hour))
			return err
		})
	})
}

// measureSlices is what every tenant has, in so many parts.
func measureSlices(ctx context.Context, tx pgx.Tx, parts uint64) (map[uuid.UUID]dbgen.MeasureSliceRow, error) {
	all := map[uuid.UUID]dbgen.MeasureSliceRow{}
	if _, err := tx.Exec(ctx, "SAVEPOINT slice"); err != nil {
		return nil, err
	}
	for i := range parts {
		if err := within(ctx, reportTimeout, func(ctx context.Context) error {
			rows, err := dbgen.New().MeasureSlice(ctx, tx, slice(i, parts))
			if err != nil {
				return err
			}
			for _, row := range rows {
				sum := all[row.TenantID]
				sum.Wallets += row.Wallets
				sum.Stores += row.Stores
				sum.Objects += row.Objects
				sum.Bytes += row.Bytes
				all[row.TenantID] = sum
			}
			_, err = tx.Exec(ctx, "ROLLBACK TO SAVEPOINT slice") // gives up the locks of the tables
			return err
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// totals are rows of the table, in the order of tenants.
func totals(all map[uuid.UUID]dbgen.MeasureSliceRow) (p dbgen.StoreTotalsParams) {
	for _, tenant := range slices.SortedFunc(maps.Keys(all), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }) {
		t := all[tenant]
		p.Tenants = append(p.Tenants, tenant)
		p.Wallets = append(p.Wallets, t.Wallets)
		p.Stores = append(p.Stores, t.Stores)
		p.Objects = append(p.Objects, t.Objects)
		p.Bytes = append(p.Bytes, t.Bytes)
	}
	return p
}

// slice is the i-th of n equal parts of all wallets, whose keys are hashes.
func slice(i, n uint64) (p dbgen.MeasureSliceParams) {
	const all = 1 << 32
	binary.BigEndian.PutUint32(p.First[:], uint32(i*all/n))
	for j := range p.Last {
		p.Last[j] = 0xff
	}
	binary.BigEndian.PutUint32(p.Last[:], uint32((i+1)*all/n-1))
	return p
}

// prune removes what is too old, a piece in each transaction. A day's hours go together, and only after they were
// rolled up. Pieces of different ages come in no order, so a day is rolled up no more from when its first goes.
func (r *Recorder) prune(ctx context.Context, now time.Time) (ours bool, err error) {
	for _, old := range []func(context.Context, pgx.Tx) (int64, error){
		func(ctx context.Context, tx pgx.Tx) (int64, error) {
			return dbgen.New().PruneHours(ctx, tx, dbgen.PruneHoursParams{Before: day(now, -keepHours), Most: piece})
		},
		func(ctx context.Context, tx pgx.Tx) (int64, error) {
			return dbgen.New().PruneActiveWallets(ctx, tx, dbgen.PruneActiveWalletsParams{
				Grain: "day", Before: date(day(now, -keepActive)), Most: piece,
			})
		},
		func(ctx context.Context, tx pgx.Tx) (int64, error) {
			return dbgen.New().PruneActiveWallets(ctx, tx, dbgen.PruneActiveWalletsParams{
				Grain: "month", Before: date(month(day(now, -keepActive), 0)), Most: piece,
			})
		},
		func(ctx context.Context, tx pgx.Tx) (int64, error) {
			return dbgen.New().PruneEvents(ctx, tx, piece)
		},
		func(ctx context.Context, tx pgx.Tx) (int64, error) {
			return dbgen.New().PruneStates(ctx, tx, piece)
		},
	} {
		for gone := int64(piece); gone == piece; {
			ours, err = r.alone(ctx, pieceTimeout, func(ctx context.Context, tx pgx.Tx) (err error) {
				gone, err = old(ctx, tx)
				return err
			})
			if err != nil || !ours {
				return ours, err
			}
		}
	}
	return true, nil
}

// forget removes what is known of instances that ended long ago, and ends the states of refusals that are over.
func (r *Recorder) forget(ctx context.Context, now time.Time) (ours bool, err error) {
	return r.alone(ctx, pieceTimeout, func(ctx context.Context, tx pgx.Tx) error {
		q := dbgen.New()
		_, err := q.SettleRefusals(ctx, tx, dbgen.SettleRefusalsParams{
			Kinds: []string{string(RateLimited), string(EnrolmentRefused)}, Since: now.Add(-time.Hour).Truncate(time.Hour),
		})
		return errors.Join(err, q.ForgetInstances(ctx, tx), q.ForgetBatches(ctx, tx))
	})
}

// day is 00:00 UTC of the time's day, or some days later.
func day(t time.Time, later int) time.Time {
	y, m, d := t.UTC().Date()
	return time.Date(y, m, d+later, 0, 0, 0, 0, time.UTC)
}

// month is 00:00 UTC on the first of the time's month, or some months later.
func month(t time.Time, later int) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m+time.Month(later), 1, 0, 0, 0, 0, time.UTC)
}

func date(t time.Time) pgtype.Date { return pgtype.Date{Time: t, Valid: true} }
