// Package teeth proves that the harness bites: it serves the platform with one deliberate bug at a time and
// counts how many operations it takes until the model objects. The bugs live here, around the storage.Store
// of a server in this process: nothing of them is in what is shipped.
package teeth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
	"github.com/vss-cloud/vss-cloud/tools/torture/faults"
	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/isolation"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

// Bug is a mistake that a server could make.
type Bug struct {
	Name string

	// wrap makes the store of an instance have the bug.
	wrap func(s storage.Store, pool *pgxpool.Pool) storage.Store

	// lose makes one commit in some lose its way to the database, or its answer the way back.
	lose bool

	// slow is a bug that shows only after the deadline of a write.
	slow bool
}

// Found says how a bug was found.
type Found struct {
	Bug        string
	Operations int           // until the first history that cannot be explained, that one included
	Took       time.Duration // for them
	By         string        // what objected
	Err        error         // it was not found
}

// Slug is the tenant that the database of [Find] must have.
const Slug = "teeth"

const (
	deadline = 400 * time.Millisecond // of a write: the platform's, in short
	clients  = 5
)

// Find looks for a bug until it is found or ctx ends.
func Find(ctx context.Context, bug Bug, databaseURL string, seed uint64) (found Found) {
	found.Bug = bug.Name
	begin := time.Now()
	defer func() { found.Took = time.Since(begin) }()
	s, err := serve(ctx, bug, databaseURL)
	if err != nil {
		found.Err = err
		return found
	}
	defer s.close()
	clock, written := workload.Clock(begin), false
	for episode := 0; ; episode++ {
		if ctx.Err() != nil {
			found.Err = fmt.Errorf("not found in %d operations", found.Operations)
			return found
		}
		store, err := workload.NewStore(fmt.Sprintf("%s %d %d", bug.Name, seed, episode), clock, s.instances)
		if err != nil {
			found.Err = err
			return found
		}
		lasts := 250 * time.Millisecond
		if bug.slow {
			lasts = 3 * deadline
		}
		running, stop := context.WithTimeout(ctx, lasts)
		var all sync.WaitGroup
		for c := range clients {
			rng := rand.New(rand.NewPCG(seed, uint64(episode)<<8|uint64(c)))
			all.Go(func() { store.Run(running, c, rng, 5*time.Millisecond) })
		}
		all.Wait()
		stop()
		_, err = store.ReadOut(context.WithoutCancel(ctx), clients)
		ops := store.History()
		found.Operations += len(ops)
		written = written || slices.ContainsFunc(ops, func(o history.Op) bool { return o.Kind == history.Put && o.Outcome == history.OK })
		if err == nil && !written && episode == 20 {
			err = errors.New("nothing can be written, so nothing can be found")
		}
		if err != nil {
			found.Err = err
			return found
		}
		if wrong := store.Wrong(); len(wrong) > 0 {
			found.By = "an answer: " + wrong[0].Error()
			return found
		}
		v, err := model.Check(ops, model.Rules{Deadline: deadline + 100*time.Millisecond})
		switch {
		case err != nil:
			found.Err = err
			return found
		case v == model.Violated:
			found.By = "the model"
			return found
		}
	}
}

// FindCrossing looks for what crosses from a tenant to another. The database must have the tenants.
func FindCrossing(ctx context.Context, bug Bug, databaseURL string, tenants []string, seed uint64) (found Found) {
	found.Bug = bug.Name
	begin := time.Now()
	defer func() { found.Took = time.Since(begin) }()
	s, err := serve(ctx, bug, databaseURL)
	if err != nil {
		found.Err = err
		return found
	}
	defer s.close()
	var crossed []error
	if found.Operations, crossed, found.Err = isolation.Run(ctx, isolation.Config{Origins: s.origins, Tenants: tenants, Calls: 2000, Seed: seed}); found.Err != nil {
		return found
	}
	if len(crossed) == 0 {
		found.Err = fmt.Errorf("not found in %d operations", found.Operations)
		return found
	}
	found.By = "the models of the stores"
	return found
}

// server is two instances of the API in this process, over one database.
type server struct {
	instances []*workload.Instance
	origins   []string
	stop      context.CancelFunc
	running   sync.WaitGroup
	pools     []*pgxpool.Pool
	proxies   []io.Closer
}

func serve(ctx context.Context, bug Bug, databaseURL string) (_ *server, err error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &server{stop: stop}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	log := slog.New(slog.DiscardHandler)
	known, err := db.Open(ctx, databaseURL, db.RoleAPI, 2)
	if err != nil {
		return nil, err
	}
	s.pools = append(s.pools, known)
	directory, err := callers.NewDirectory(known, callers.DirectoryConfig{Log: log})
	if err != nil {
		return nil, err
	}
	if err := directory.Refresh(ctx); err != nil {
		return nil, err
	}
	for _, name := range []string{"a", "b"} {
		url := databaseURL
		if bug.lose {
			proxy, err := faults.NewDatabaseProxy(databaseURL)
			if err != nil {
				return nil, err
			}
			proxy.Inspect(lose)
			s.proxies = append(s.proxies, proxy)
			url = proxy.URL()
		}
		pool, err := db.Open(ctx, url, db.RoleAPI, 10)
		if err != nil {
			return nil, err
		}
		s.pools = append(s.pools, pool)
		var store storage.Store = postgres.New(pool, postgres.Config{Timeout: deadline, AllowDataLoss: true})
		if bug.wrap != nil {
			store = bug.wrap(store, pool)
		}
		edge, err := api.New(api.Config{
			Store: store, Tenants: directory, Auth: callers.NewAuthenticator(callers.AuthenticatorConfig{}),
			Timeout: deadline, Log: log,
		})
		if err != nil {
			return nil, err
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		s.running.Go(func() { _ = edge.Serve(ctx, ln) })
		s.origins = append(s.origins, "http://"+ln.Addr().String())
		s.instances = append(s.instances, workload.NewInstance(name, "http://"+ln.Addr().String()+"/t/"+Slug+"/vss", nil))
	}
	return s, nil
}

func (s *server) close() {
	for _, i := range s.instances {
		i.HTTP.CloseIdleConnections()
	}
	s.stop()
	s.running.Wait()
	for _, p := range s.pools {
		p.Close()
	}
	for _, p := range s.proxies {
		_ = p.Close()
	}
}
