// Package campaign is a run: the platform under load, in rounds, with faults on a schedule that follows from a
// seed, and the judgement of everything that was seen.
package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/faults"
	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/ledger"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/report"
	"github.com/vss-cloud/vss-cloud/tools/torture/secrets"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

// Deadline is how long after it was sent a write may take effect (CONTRACT section 3).
const Deadline = 9 * time.Second

// Database is the name of a campaign's database.
const Database = "torture"

const (
	tenant    = "torture"
	clients   = 4           // of a store, with one more to read it out
	wallets   = 6           // that want to see no error
	patience  = time.Minute // with a store that is to be read out
	recovery  = 2 * time.Minute
	keepUntil = 40 // settled stores that are read again after a crash
	tries     = 8  // of a fault that another one prevents
)

// Config of a campaign.
type Config struct {
	Seed     uint64
	Database *platform.Database
	Out      string // where histories of failures are kept
	Binary   string // of vss-api
	Previous string // of the commit before; empty: none can be had
	Stores   int    // under test at a time

	Operations, Crashes int // go on until there were so many
	Departures          int // how often clients leave a stopped instance

	// Only one round, by its number; 0: all.
	Only int

	Secrets *secrets.Watch // reads all there is
	Traces  []string       // environment of an instance that sends its traces to be read
	Report  *report.Report
}

// Campaign is a run under way.
type Campaign struct {
	cfg       Config
	clock     workload.Clock
	field     *faults.Field
	instances []*workload.Instance // through the front of each
	previous  *faults.Instance     // of the commit before; nil: none can be had
	balancer  *faults.Proxy
	wallets   []*workload.Wallet
	report    *report.Report

	operations, crashes, acknowledged atomic.Int64

	judging sync.WaitGroup
	slots   chan struct{} // judgements at a time

	mu      sync.Mutex
	settled []*settled
	faults  []history.Fault
	judged  map[model.Verdict]int
	beside  int // operations through the commit before
	slowest time.Duration
	again   int // settled stores that were read again
}

// settled is a store that nobody writes to any more.
type settled struct {
	store    *workload.Store
	contents string
}

// Run makes a campaign. Its findings are in the report; an error says that it could not be made.
func Run(ctx context.Context, cfg Config) (err error) {
	c := &Campaign{cfg: cfg, clock: workload.Clock(time.Now()), report: cfg.Report,
		slots: make(chan struct{}, 1), judged: make(map[model.Verdict]int)}
	if err := c.start(ctx); err != nil {
		return errors.Join(err, c.stop())
	}
	defer func() { err = errors.Join(err, c.stop()) }()

	walking, stopWallets := context.WithCancel(ctx)
	defer stopWallets()
	var walks sync.WaitGroup
	for i, w := range c.wallets {
		rng := rand.New(rand.NewPCG(cfg.Seed, 1<<32|uint64(i)))
		walks.Go(func() { w.Run(walking, rng, 40*time.Millisecond) })
	}
	for n, plan := range c.plans() {
		if err := c.round(ctx, n, plan); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if cfg.Only == 0 && ctx.Err() == nil {
		if err := c.departed(ctx); err != nil {
			return err
		}
	}
	stopWallets()
	walks.Wait()
	c.judging.Wait()
	c.verify(context.WithoutCancel(ctx), true)
	c.checkWallets(context.WithoutCancel(ctx))
	c.conclude()
	if cfg.Only == 0 && ctx.Err() == nil {
		return c.complete()
	}
	return ctx.Err()
}

// complete fails if a kind of fault was never done: that run proves less than it says.
func (c *Campaign) complete() error {
	var errs []error
	for _, k := range append(slices.Clone(faults.Kinds), faults.Restarts...) {
		if times, why := c.report.Done(k.Name); times == 0 {
			errs = append(errs, fmt.Errorf("never done: %s: %w", k.Name, why))
		}
	}
	return errors.Join(errs...)
}

// conclude writes the campaign's lines of the table.
func (c *Campaign) conclude() {
	c.mu.Lock()
	defer c.mu.Unlock()
	none := func(kinds ...string) bool { return c.report.Violations(kinds...) == 0 }
	all := fmt.Sprintf("%d kinds of fault, alone and mixed", len(faults.Kinds))
	crashes := fmt.Sprintf("%d crashes", c.crashes.Load())
	c.report.Check("what clients see is what some sequence of calls shows; nothing takes effect past its deadline", all,
		"histories judged by the model", none("not linearizable", "undecided", "the model cannot judge") && len(c.judged) > 0,
		"%d linearizable, %d so key by key, %d violated, %d undecided; %d operations", c.judged[model.Linearizable],
		c.judged[model.KeyByKey], c.judged[model.Violated], c.judged[model.Undecided], c.operations.Load())
	c.report.Check("acknowledged is durable", crashes, "a ledger kept outside", none("lost"), "%d acknowledged writes, %d lost",
		c.acknowledged.Load(), c.report.Violations("lost"))
	c.report.Check("acknowledged is durable", crashes, "settled stores read again", none("changed", "a store cannot be read"),
		"%d read, %d changed", c.again, c.report.Violations("changed"))
	c.report.Check("no answer but the contract's", all, "status, code, header and body of each", none("an answer that the contract does not have"),
		"0 others; slowest answer %.2f s", c.slowest.Seconds())
	c.report.Check("the platform recovers by itself", all, "instances are watched", c.report.Violations("an instance ended by itself", "a fault showed") == 0,
		"no instance ended by itself or did not drain")
	const deploy = "old and new run side by side"
	switch {
	case c.beside > 0:
		c.report.Check(deploy, "the binary of the commit before", "histories judged by the model", none("not linearizable"), "%d operations through it", c.beside)
	case c.cfg.Only == 0:
		c.report.Skip(deploy, "the binary of the commit before", "histories judged by the model", "there is no git, or no commit before")
	}
}

func (c *Campaign) start(ctx context.Context) error {
	c.field = &faults.Field{Database: c.cfg.Database, Name: Database}
	url, err := c.cfg.Database.Create(ctx, Database, tenant)
	if err != nil {
		return err
	}
	// The second one's pool is soon exhausted.
	for name, conns := range map[string]int{"a": 20, "b": 4} {
		var env []string
		if name == "b" {
			env = c.cfg.Traces
		}
		i, err := faults.NewInstance(name, c.cfg.Binary, url, conns, c.cfg.Secrets, env...)
		if err != nil {
			return err
		}
		c.field.Instances = append(c.field.Instances, i)
	}
	slices.SortFunc(c.field.Instances, func(a, b *faults.Instance) int { return int(a.Name[0]) - int(b.Name[0]) })
	for _, i := range c.field.Instances {
		if err := i.Start(ctx); err != nil {
			return err
		}
		ready, cancel := context.WithTimeout(ctx, recovery)
		err := i.WaitReady(ready)
		cancel()
		if err != nil {
			return err
		}
		c.instances = append(c.instances, c.reach(i.Name, i.Front))
	}
	if c.cfg.Previous != "" {
		if c.previous, err = faults.NewInstance("previous", c.cfg.Previous, url, 4, c.cfg.Secrets); err != nil {
			return err
		}
		if err := c.previous.Start(ctx); err != nil {
			return err
		}
	}
	if c.balancer, err = c.field.Balancer(); err != nil {
		return err
	}
	all := c.reach("all", c.balancer)
	for n := range wallets {
		w, err := workload.NewWallet(fmt.Sprint("wallet ", n), c.clock, all)
		if err != nil {
			return err
		}
		c.wallets = append(c.wallets, w)
	}
	return nil
}

// reach is the way to an instance for clients.
func (c *Campaign) reach(name string, p *faults.Proxy) *workload.Instance {
	return workload.NewInstance(name, "http://"+p.Address()+"/t/"+tenant+"/vss", c.cfg.Secrets.Transport)
}

func (c *Campaign) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), recovery)
	defer cancel()
	var errs []error
	if c.balancer != nil {
		_ = c.balancer.Close()
	}
	instances := c.field.Instances
	if c.previous != nil {
		instances = append(slices.Clone(instances), c.previous)
	}
	for _, i := range instances {
		errs = append(errs, i.Close(ctx))
	}
	return errors.Join(errs...)
}

// round puts fresh stores under load while the faults of a plan are done, and hands them to be judged.
func (c *Campaign) round(ctx context.Context, n int, p plan) error {
	c.report.Status("round %d: %s", n, p)
	begin := c.clock.Now()
	c.lap()
	stores := make([]*workload.Store, c.cfg.Stores)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var load, doing sync.WaitGroup
	instances := c.instances
	if p.previous {
		instances = []*workload.Instance{c.instances[0], c.reach(c.previous.Name, c.previous.Front)}
	}
	for s := range stores {
		store, err := workload.NewStore(fmt.Sprintf("round %d store %d", n, s), c.clock, instances)
		if err != nil {
			return err
		}
		stores[s] = store
		for id := range clients {
			rng := rand.New(rand.NewPCG(c.cfg.Seed, uint64(n)<<32|uint64(s)<<16|uint64(id)))
			load.Go(func() { store.Run(loading, id, rng, 10*time.Millisecond) })
		}
	}
	var crashed atomic.Bool
	for i, planned := range p.faults {
		rng := rand.New(rand.NewPCG(c.cfg.Seed, 1<<48|uint64(n)<<16|uint64(i)))
		doing.Go(func() {
			time.Sleep(planned.at)
			if c.inflict(ctx, planned.kind, rng) && planned.kind.Crash {
				c.crashes.Add(1)
				crashed.Store(true)
			}
		})
	}
	// The load outlasts the faults, also those that were tried again.
	select {
	case <-time.After(p.lasts):
	case <-ctx.Done():
	}
	doing.Wait()
	stop()
	load.Wait()
	ctx = context.WithoutCancel(ctx) // an interrupted run is judged, too
	if err := c.heal(ctx); err != nil {
		return err
	}
	if p.view != "" {
		longest, errs := c.lap()
		c.report.Check("a wallet sees no error", p.view, "wallets with the retries of released clients", errs == 0,
			"%d errors; longest gap %.2f s", errs, longest.Seconds())
	}
	if crashed.Load() {
		c.verify(ctx, false)
	}
	rules := model.Rules{Deadline: Deadline, Stalled: p.stalls}
	if p.delays {
		rules.Deadline += faults.FrontDelay
	}
	for _, s := range stores {
		ops := int64(len(s.History()))
		c.operations.Add(ops)
		if p.previous {
			c.beside += through(s.History(), c.previous.Name)
		}
		c.judging.Go(func() { c.judge(context.WithoutCancel(ctx), n, s, rules) })
	}
	c.report.Count(c.operations.Load(), c.crashes.Load())
	c.report.Round(n, c.clock.Now()-begin)
	return nil
}

// inflict does a fault, again if another one was in its way, and says whether it was done.
func (c *Campaign) inflict(ctx context.Context, k faults.Kind, rng *rand.Rand) bool {
	for range tries {
		from := c.clock.Now()
		err := k.Do(ctx, c.field, rng)
		fault := history.Fault{Name: k.Name, Begin: from, End: c.clock.Now()}
		c.mu.Lock()
		c.faults = append(c.faults, fault)
		c.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		if found, ok := errors.AsType[faults.Finding](err); ok {
			c.report.Violation("a fault showed", found)
		}
		c.report.Fault(fault, err)
		if err == nil {
			return true
		}
		time.Sleep(2 * time.Second) // a recovery takes some
	}
	return false
}

// through counts the operations that went through an instance.
func through(ops []history.Op, instance string) (n int) {
	for _, o := range ops {
		if o.Via == instance && o.Outcome != history.Refused {
			n++
		}
	}
	return n
}

// heal waits until the platform is whole again, and says what of it is not.
func (c *Campaign) heal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	for _, i := range c.field.Instances {
		if how, exited := i.Exited(); exited {
			c.report.Violation("an instance ended by itself", fmt.Errorf("%s: %s", i.Name, how))
			if err := i.Start(ctx); err != nil {
				return err
			}
		}
		if err := i.WaitReady(ctx); err != nil {
			return err
		}
		for name, path := range map[string]string{secrets.Metrics: "/metrics", secrets.Profiles: "/debug/pprof/goroutine?debug=2"} {
			if page, err := i.Ops(ctx, path); err == nil {
				c.cfg.Secrets.Read(name, page)
			}
		}
	}
	return nil
}

// judge waits until nothing can happen any more in a store, reads it out, and judges its history.
func (c *Campaign) judge(ctx context.Context, n int, s *workload.Store, rules model.Rules) {
	last := time.Duration(0)
	for _, o := range s.History() {
		if o.Outcome == history.Unknown && o.Mutates() {
			last = max(last, o.Call)
		}
	}
	if last > 0 {
		time.Sleep(last + rules.Deadline + 200*time.Millisecond - c.clock.Now())
	}
	reading, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	contents, err := s.ReadOut(reading, clients)
	if err != nil {
		c.report.Violation("a store cannot be read", err)
		return
	}
	for _, err := range s.Wrong() {
		c.report.Violation("an answer that the contract does not have", err)
	}
	c.mu.Lock()
	c.slowest = max(c.slowest, s.Slowest())
	c.mu.Unlock()
	ops := s.History()
	acknowledged, lost := ledger.Audit(ops)
	c.acknowledged.Add(int64(acknowledged))
	for _, err := range lost {
		c.report.Violation("lost", fmt.Errorf("store %s: %w", s.Name, err))
	}

	c.slots <- struct{}{}
	verdict, err := model.Check(ops, rules)
	<-c.slots
	c.mu.Lock()
	c.judged[verdict]++
	c.mu.Unlock()
	switch {
	case err != nil:
		c.report.Violation("the model cannot judge", err)
		return
	case verdict == model.Violated:
		c.fail(n, s, ops, rules)
		return
	case verdict == model.Undecided:
		f := history.File{Store: s.Name, Seed: c.cfg.Seed, Deadline: rules.Deadline, Stalled: rules.Stalled, Ops: ops}
		name := c.keep(s) + ".undecided.json"
		c.report.Violation("undecided", errors.Join(fmt.Errorf("store %s: %d operations, in %s", s.Name, len(ops), name), f.Write(name)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = append(c.settled, &settled{s, contents})
	s.Forget()
}

// keep is the path, without its ending, under which the history of a store is kept.
func (c *Campaign) keep(s *workload.Store) string {
	return filepath.Join(c.cfg.Out, strings.ReplaceAll(s.Name, " ", "-"))
}

// fail keeps what a person needs to see of a history that cannot be explained.
func (c *Campaign) fail(n int, s *workload.Store, ops []history.Op, rules model.Rules) {
	c.mu.Lock()
	f := history.File{Store: s.Name, Seed: c.cfg.Seed, Deadline: rules.Deadline, Stalled: rules.Stalled, Ops: ops, Faults: slices.Clone(c.faults)}
	c.mu.Unlock()
	name := c.keep(s)
	small := f
	small.Ops = model.Smallest(ops, rules)
	err := errors.Join(f.Write(name+".json"), small.Write(name+".smallest.json"), model.Visualize(small, name+".html"))
	c.report.History(n, small, name+".html")
	c.report.Violation("not linearizable", errors.Join(fmt.Errorf("store %s, %d of %d operations show it", s.Name, len(small.Ops), len(ops)), err))
}

// verify reads settled stores again, after a crash those of late and at the end all: nothing of them may have
// changed.
func (c *Campaign) verify(ctx context.Context, all bool) {
	c.mu.Lock()
	stores := slices.Clone(c.settled)
	c.mu.Unlock()
	if !all && len(stores) > keepUntil {
		stores = stores[len(stores)-keepUntil:]
	}
	ctx, cancel := context.WithTimeout(ctx, patience+time.Duration(len(stores))*time.Second/10)
	defer cancel()
	for _, s := range stores {
		contents, err := s.store.ReadOut(ctx, clients)
		s.store.Forget()
		switch {
		case err != nil:
			c.report.Violation("a store cannot be read", err)
		case contents != s.contents:
			c.report.Violation("changed", fmt.Errorf("store %s held\n%s\nand after a crash\n%s", s.store.Name, s.contents, contents))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again += len(stores)
}

// checkWallets tells what the wallets saw.
func (c *Campaign) checkWallets(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var all workload.Tally
	for _, w := range c.wallets {
		if err := w.Check(ctx); err != nil {
			c.report.Violation("a wallet's state", fmt.Errorf("wallet %s: %w", w.Name, err))
		}
		t := w.Tally()
		c.acknowledged.Add(int64(t.Saved))
		c.operations.Add(int64(t.Calls))
		for _, err := range t.Errors {
			c.report.Violation("a wallet saw an error", err)
		}
		for _, err := range t.Wrong {
			c.report.Violation("a wallet's state", err)
		}
		all.Calls += t.Calls
		all.Longest = max(all.Longest, t.Longest)
	}
	c.report.Check("a wallet sees no error and what it saved", fmt.Sprintf("%d kinds of fault, alone and mixed", len(faults.Kinds)),
		"wallets with the retries of released clients", c.report.Violations("a wallet's state", "a wallet saw an error") == 0,
		"%d calls of %d wallets, %d errors, %d wrong; longest call %.2f s", all.Calls, len(c.wallets),
		c.report.Violations("a wallet saw an error"), c.report.Violations("a wallet's state"), all.Longest.Seconds())
	c.report.Count(c.operations.Load(), c.crashes.Load())
}

// lap is what wallets saw since it was last asked: the longest call that ended, and errors.
func (c *Campaign) lap() (longest time.Duration, errs int) {
	for _, w := range c.wallets {
		l, e := w.Lap()
		longest, errs = max(longest, l), errs+e
	}
	return longest, errs
}
