package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// governor limits the calls of one instance, shares the store between tenants, and records what they do.
type governor struct {
	pool      *db.Pool // of the calls
	directory *callers.Directory
	limiter   *quota.Limiter
	meter     *usage.Meter
	recorder  *usage.Recorder

	places *quota.Queue // in front of the pool
	large  *quota.Queue // for large writes, which hold none of those: one at a time

	live atomic.Int64 // instances, as last heard
}

// newGovernor records over a pool of its own, so that instances do not count each other out when calls hold theirs.
func newGovernor(pool, recordPool *db.Pool, directory *callers.Directory, log *slog.Logger) *governor {
	g := &governor{
		pool:      pool,
		directory: directory,
		limiter:   quota.NewLimiter(quota.LimiterConfig{}),
		meter:     usage.NewMeter(usage.MeterConfig{}),
		places:    quota.NewQueue(quota.QueueConfig{Places: int(pool.Config().MaxConns)}),
		large:     quota.NewQueue(quota.QueueConfig{Places: 1, WritePlaces: 1}),
	}
	host, _ := os.Hostname()
	g.recorder = usage.NewRecorder(recordPool, usage.RecorderConfig{
		Meter: g.meter, KeySets: g.keySets, Tenants: g.tenants, Heard: g.heard, Host: host, Version: version(), Log: log,
	})
	return g
}

// run records until the context ends.
func (g *governor) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { g.meet(ctx) })
	running.Go(func() { g.recorder.Run(ctx) })
	running.Wait()
}

// meet makes known the wallets that were active last. They are enrolled, and to a limiter that has just been made they
// are strangers: a wallet that is online makes no call but a monitor's write, which a flood of strangers must not refuse.
func (g *governor) meet(ctx context.Context) {
	for {
		wallets, err := g.recorder.ActiveWallets(ctx, quota.Wallets)
		if err == nil {
			for _, w := range slices.Backward(wallets) { // the last ones stay, where there is no room for all
				g.limiter.Know(w)
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// quota is what the API asks and tells.
func (g *governor) quota() api.Quota {
	return api.Quota{
		Limiter: g.limiter,
		Meter:   g.meter,
		Totals: func(tenant uuid.UUID) (wallets, bytes int64) {
			t, _ := g.recorder.Totals(tenant)
			return t.Wallets, t.Bytes
		},
		Standing: func(ctx context.Context, wallet storage.WalletID) (known, listed bool, err error) {
			return tenants.Standing(ctx, g.pool, wallet)
		},
		Stored: func(tenant uuid.UUID, store storage.StoreID, d quota.Decision) {
			g.recorder.Events().Lines(tenant, store.String(), d)
		},
	}
}

// kinds are the store's kinds of calls in the words of limits.
var kinds = map[postgres.Kind]quota.Kind{postgres.Write: quota.Write, postgres.Read: quota.Read, postgres.List: quota.List}

// enter takes a call's place in front of the store.
func (g *governor) enter(ctx context.Context, ks storage.Keyspace, kind postgres.Kind) (leave func(), err error) {
	who := quota.Entrant{Tenant: ks.Owner().Tenant, Stranger: !g.limiter.Known(quota.Key(ks.Wallet()))}
	if t := g.directory.ByID(who.Tenant); t != nil {
		who.Weight = t.Limits.Weight()
	}
	if kind == postgres.LargeWrite {
		return g.large.Enter(ctx, who, quota.Write)
	}
	return g.places.Enter(ctx, who, kinds[kind])
}

// keySets are those at URLs, as this instance has them.
func (g *governor) keySets() (sets []usage.KeySet) {
	for _, i := range g.directory.Issuers() {
		sets = append(sets, usage.KeySet{Tenant: i.Tenant, Source: i.Source, Name: i.Name, Err: i.LastError})
	}
	return sets
}

// tenants are all, with their ceilings.
func (g *governor) tenants() (all []usage.Limited) {
	for _, t := range g.directory.All() {
		all = append(all, usage.Limited{Tenant: t.ID, Ceilings: t.Limits.Ceilings()})
	}
	return all
}

// heard takes how many instances live.
func (g *governor) heard(live int) {
	g.live.Store(int64(live))
	g.limiter.SetFleet(live)
}

// observe makes metrics of what is in memory.
func (g *governor) observe(provider metric.MeterProvider) error {
	meter := provider.Meter("github.com/vss-cloud/vss-cloud/cmd/service")
	told := func(value func() int64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error { o.Observe(value()); return nil }
	}
	var errs [5]error
	_, errs[0] = meter.Int64ObservableGauge("vss.instances",
		metric.WithDescription("API instances that live, as this one last heard."), metric.WithInt64Callback(told(g.live.Load)))
	_, errs[1] = meter.Int64ObservableCounter("vss.quota.evictions",
		metric.WithDescription("Known wallets that became strangers, since as many others were known."),
		metric.WithInt64Callback(told(g.limiter.Evicted)))
	_, errs[2] = meter.Int64ObservableCounter("vss.usage.lost",
		metric.WithDescription("Requests that were not metered, for want of memory."), metric.WithInt64Callback(told(g.meter.Lost)))
	_, errs[3] = meter.Int64ObservableGauge("vss.quota.waiting",
		metric.WithDescription("Calls that wait for a place in front of the store, by kind (lists are reads)."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			writes, reads := g.places.Waiting()
			o.Observe(int64(writes), metric.WithAttributes(attribute.String("kind", "write")))
			o.Observe(int64(reads), metric.WithAttributes(attribute.String("kind", "read")))
			return nil
		}))
	_, errs[4] = meter.Float64ObservableGauge("vss.usage.age", metric.WithUnit("s"),
		metric.WithDescription("Time since what tenants have was last measured, by any instance."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			if at := g.recorder.Measured(); !at.IsZero() {
				o.Observe(time.Since(at).Seconds())
			}
			return nil
		}))
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
