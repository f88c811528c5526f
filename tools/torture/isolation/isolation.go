// Package isolation asks whether anything crosses from one tenant, wallet or store to another: many tenants have
// the same wallets, which have the same stores, which have the same keys, and each store is held against a model
// of its own.
package isolation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

// Config of a run.
type Config struct {
	Origins []string // of instances: http://host:port
	Tenants []string // slugs
	Calls   int      // random ones, over all tenants
	Seed    uint64

	// Wrap sees all that goes over HTTP; nil: nobody does.
	Wrap func(*http.Transport) http.RoundTripper
}

const (
	wallets = 2 // of a tenant
	stores  = 2 // of a wallet
	callers = 8
)

// Run makes random calls and then lists every store. It returns how many calls there were and what crossed.
func Run(ctx context.Context, cfg Config) (calls int, crossed []error, err error) {
	all, err := open(cfg)
	if err != nil {
		return 0, nil, err
	}
	var calling sync.WaitGroup
	for c := range callers {
		rng := rand.New(rand.NewPCG(cfg.Seed, uint64(c)))
		calling.Go(func() {
			last := make([]history.Op, len(all))
			for range cfg.Calls / callers {
				s := rng.IntN(len(all)/callers)*callers + c // of its own
				if ctx.Err() != nil {
					return
				}
				last[s] = all[s].Once(ctx, 0, rng, last[s])
			}
			for s := c; s < len(all) && ctx.Err() == nil; s += callers {
				all[s].List(ctx, 0)
			}
		})
	}
	calling.Wait()
	if ctx.Err() != nil {
		return 0, nil, ctx.Err()
	}
	for _, s := range all {
		ops := s.History()
		calls += len(ops)
		crossed = append(crossed, s.Wrong()...)
		switch v, err := model.Check(ops, model.Rules{Deadline: time.Minute}); {
		case err != nil:
			return calls, crossed, err
		case v != model.Linearizable:
			crossed = append(crossed, fmt.Errorf("store %s, which one client has called: %v, such as %v", s.Name, v, model.Smallest(ops, model.Rules{Deadline: time.Minute})))
		}
	}
	return calls, crossed, nil
}

func open(cfg Config) (all []*workload.Store, err error) {
	clock := workload.Clock(time.Now())
	origins := make([]*workload.Instance, len(cfg.Origins)) // their connections are shared by all tenants
	for i, o := range cfg.Origins {
		origins[i] = workload.NewInstance(o, o, cfg.Wrap)
	}
	for w := range wallets {
		auth, err := workload.NewAuth(fmt.Sprint("isolated wallet ", w))
		if err != nil {
			return nil, err
		}
		for _, tenant := range cfg.Tenants {
			instances := make([]*workload.Instance, len(origins))
			for i, o := range origins {
				instances[i] = &workload.Instance{Name: o.Name, BaseURL: o.BaseURL + "/t/" + tenant + "/vss", HTTP: o.HTTP}
			}
			for s := range stores {
				store, err := workload.NewStoreOf(auth, fmt.Sprint("store ", s), fmt.Sprintf("%s wallet %d store %d", tenant, w, s), clock, instances)
				if err != nil {
					return nil, err
				}
				all = append(all, store)
			}
		}
	}
	return all, nil
}
