package callers

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
)

// flushInterval is how long a refusal may be unseen by other processes.
const flushInterval = 5 * time.Second

// failures counts refused credentials by tenant, source and reason, for "why does my app get 401". Tenants,
// sources and reasons are finite, and so are the counts. What was counted since the last flush is lost with the
// process, and what was flushed while the connection broke may be counted twice: they are for people.
type failures struct {
	mu      sync.Mutex
	pending map[failure]tally
}

type failure struct {
	tenant uuid.UUID
	source string // its name; "" where the credential named none
	reason string
}

type tally struct {
	count int64
	last  time.Time
}

func (f *failures) count(tenant uuid.UUID, source, reason string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending == nil {
		f.pending = map[failure]tally{}
	}
	k := failure{tenant, source, reason}
	f.pending[k] = tally{f.pending[k].count + 1, now}
}

// flush adds what was counted to the database's. After an error it stays, for the next time.
func (f *failures) flush(ctx context.Context, pool *pgxpool.Pool) error {
	f.mu.Lock()
	taken := f.pending
	f.pending = nil
	f.mu.Unlock()
	if len(taken) == 0 {
		return nil
	}
	var p dbgen.AddAuthFailuresParams
	for k, t := range taken {
		p.TenantIds = append(p.TenantIds, k.tenant)
		p.Sources = append(p.Sources, k.source)
		p.Reasons = append(p.Reasons, k.reason)
		p.Counts = append(p.Counts, t.count)
		p.LastAts = append(p.LastAts, t.last)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := dbgen.New().AddAuthFailures(ctx, pool, p)
	if err == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending == nil {
		f.pending = map[failure]tally{}
	}
	for k, t := range taken {
		now := f.pending[k]
		if now.last.Before(t.last) {
			now.last = t.last
		}
		f.pending[k] = tally{now.count + t.count, now.last}
	}
	return err
}

// run flushes until the context ends, and then once more.
func (f *failures) run(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) {
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := f.flush(context.WithoutCancel(ctx), pool); err != nil {
				log.Warn("refused credentials were not counted", "error", err)
			}
			return
		case <-ticker.C:
			if err := f.flush(ctx, pool); err != nil && ctx.Err() == nil {
				log.Warn("refused credentials are not counted yet", "error", err)
			}
		}
	}
}
