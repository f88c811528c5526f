package usage

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
)

// wallet is the i-th of a tenant: a hash.
func wallet(i int) quota.Key {
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return quota.Key(hash[:16])
}

// activate has the wallets from..to-1 active at this time, and returns what a flush of them takes.
func activate(b *testing.B, r *Recorder, at time.Time, from, to int) time.Duration {
	b.Helper()
	r.cfg.Meter = NewMeter(MeterConfig{Wallets: 1 << 19}) // shards are not filled evenly
	for i := from; i < to; i++ {
		r.cfg.Meter.Record(at, Request{Tenant: uuid.UUID{1}, Wallet: wallet(i), Known: true, In: 1, Out: 1})
	}
	if n := len(r.cfg.Meter.Take().Active); n != to-from {
		b.Fatalf("%d wallets are active, want %d", n, to-from)
	}
	began := time.Now()
	if err := r.flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// A flush of 100,000 active wallets: their first of the month, of a day, and the second on a day.
func BenchmarkFlush(b *testing.B) {
	d := newDatabase(b)
	r, _ := newRecorder(open(b, d.url), RecorderConfig{Now: func() time.Time { return time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC) }})
	const wallets = 100_000
	for i := 0; b.Loop(); i++ {
		at := time.Date(2031, time.Month(1+i), 1, 12, 0, 0, 0, time.UTC)
		b.ReportMetric(activate(b, r, at, 0, wallets).Seconds()*1e3, "ms/first-of-month")
		b.ReportMetric(activate(b, r, at.AddDate(0, 0, 1), 0, wallets).Seconds()*1e3, "ms/first-of-day")
		b.ReportMetric(activate(b, r, at.AddDate(0, 0, 1), 0, wallets).Seconds()*1e3, "ms/again")
	}
}

// A tenant of a million wallets that are active on the first of a month and on the day after.
func BenchmarkMonthOfAMillionWallets(b *testing.B) {
	for b.Loop() {
		d := newDatabase(b)
		at := time.Date(2031, 1, 1, 12, 0, 0, 0, time.UTC)
		r, _ := newRecorder(open(b, d.url), RecorderConfig{Now: func() time.Time { return at }})
		const wallets, batch = 1_000_000, 1 << 18
		size := func(when string) {
			b.Helper()
			b.Log(when, query[string](b, d, `SELECT format('%s rows: table %s, index %s', count(*),
				pg_size_pretty(pg_table_size('active_wallets')), pg_size_pretty(pg_indexes_size('active_wallets'))) FROM active_wallets`))
		}
		for day := range 2 {
			var took []string
			for from := 0; from < wallets; from += batch {
				took = append(took, fmt.Sprintf("%.1f s", activate(b, r, at, from, min(from+batch, wallets)).Seconds()))
			}
			b.Logf("day %d, flushes of 2^18, 2^18, 2^18 and the rest: %v", day+1, took)
			size(fmt.Sprintf("after day %d:", day+1))
			at = at.AddDate(0, 0, 1)
		}
		at = at.AddDate(0, 0, keepActive-1)
		began := time.Now()
		if _, err := r.prune(b.Context(), at); err != nil { // a day goes
			b.Fatal(err)
		}
		b.Logf("a day of a million rows goes, %d at a time, in %.1f s", piece, time.Since(began).Seconds())
		d.sql(b, "VACUUM active_wallets")
		size("after a day went:")
	}
}
