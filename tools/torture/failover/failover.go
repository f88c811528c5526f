// Package failover puts the platform over a cluster whose primary changes, and looks for what a wallet must never see: a
// write that is gone, a value that was replaced, a "not found" of what was saved.
package failover

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/ledger"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/report"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

const (
	tenant   = "torture"
	stores   = 3 // of a way to connect
	clients  = 4 // of a store
	deadline = 9 * time.Second
	recovery = 90 * time.Second
)

// Config of the failovers over one cluster.
type Config struct {
	Root, Binary, Dir string
	Patroni           string   // program
	Name              string   // of its version
	Only              []string // faults; none: all
	Teeth             bool     // the binary has no fence, so that something is to be found
	Out               string   // where histories of failures are kept
	Report            *report.Report
}

// fault is one that happens to the leader. It returns when that is over.
type fault struct {
	name    string
	stalled bool
	do      func(ctx context.Context, c *cluster, leader *node) error
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func freeze(d time.Duration, server, patroni bool) func(context.Context, *cluster, *node) error {
	return func(ctx context.Context, _ *cluster, leader *node) error {
		var pids []int
		if server {
			var err error
			if pids, err = leader.server(); err != nil {
				return err
			}
		}
		if patroni {
			pids = append(pids, leader.patroni.cmd.Process.Pid)
		}
		signal(syscall.SIGSTOP, pids...)
		pause(ctx, d)
		signal(syscall.SIGCONT, pids...)
		return nil
	}
}

var all = []fault{
	{"kill -9 of the leader's postmaster", false, func(ctx context.Context, _ *cluster, leader *node) error {
		pid, err := leader.postmaster()
		signal(syscall.SIGKILL, pid)
		pause(ctx, 15*time.Second)
		return err
	}},
	{"death of its whole node", false, func(ctx context.Context, _ *cluster, leader *node) error {
		pids, err := leader.server()
		leader.patroni.end(syscall.SIGKILL, time.Second)
		signal(syscall.SIGKILL, pids...)
		pause(ctx, 30*time.Second)
		if err == nil {
			leader.patroni, err = leader.start()
		}
		return err
	}},
	{"switchover", false, func(ctx context.Context, c *cluster, leader *node) error {
		err := c.switchover(ctx, leader)
		pause(ctx, 15*time.Second)
		return err
	}},
	{"leader cut off for 40 s", false, func(ctx context.Context, _ *cluster, leader *node) error {
		for _, p := range leader.proxies() {
			p.Freeze()
		}
		pause(ctx, 40*time.Second)
		for _, p := range leader.proxies() {
			p.Cut() // nothing that was on its way arrives
			p.Thaw()
		}
		return nil
	}},
	{"whole node frozen for 30 s", true, freeze(30*time.Second, true, true)},
	{"leader's Patroni frozen for 40 s", false, freeze(40*time.Second, false, true)},
	{"leader's PostgreSQL alone frozen for 30 s", true, freeze(30*time.Second, true, false)},
}

// way is a way to connect, with two instances of its own.
type way struct {
	name      string
	instances []*platform.Process
	reached   []*workload.Instance
	stores    []*workload.Store
}

type nobody struct{}

func (nobody) Heard(string, []byte) {}

// Run makes each failover once, with both ways to connect side by side, and writes a line for each into the report.
func Run(ctx context.Context, cfg Config) error {
	cfg.Report.Status("a cluster under Patroni %s", cfg.Name)
	c, err := startCluster(ctx, cfg.Root, cfg.Dir, cfg.Patroni)
	if err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, cfg.Dir)
	}
	defer c.stop()
	if err := c.schema(ctx); err != nil {
		return err
	}
	ways := []*way{{name: "HAProxy"}, {name: "several hosts"}}
	for i, w := range ways {
		for n := range 2 {
			p := platform.NewProcess(fmt.Sprint(w.name, " ", n), cfg.Binary, nobody{}, "DATABASE_URL="+c.url(platform.Login, dbName, i == 0))
			defer func() { _ = p.End(context.WithoutCancel(ctx), syscall.SIGKILL) }()
			if err := p.Serve(ctx); err != nil {
				return err
			}
			w.instances = append(w.instances, p)
			w.reached = append(w.reached, w.reach(p))
		}
	}
	clock := workload.Clock(time.Now())
	for _, f := range all {
		if len(cfg.Only) > 0 && !slices.ContainsFunc(cfg.Only, func(s string) bool { return strings.Contains(f.name, s) }) || ctx.Err() != nil {
			continue
		}
		if err := failover(ctx, cfg, c, clock, ways, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return ctx.Err()
}

func failover(ctx context.Context, cfg Config, c *cluster, clock workload.Clock, ways []*way, f fault) error {
	cfg.Report.Status("%s, Patroni %s", f.name, cfg.Name)
	if err := c.whole(ctx); err != nil {
		return err
	}
	for _, w := range ways {
		if w.wentBack(ctx) {
			if err := w.accept(ctx); err != nil {
				return err
			}
		}
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var load sync.WaitGroup
	for _, w := range ways {
		w.stores = nil
		for s := range stores {
			store, err := workload.NewStore(fmt.Sprintf("%s, %s, %s %d", cfg.Name, f.name, w.name, s), clock, w.reached)
			if err != nil {
				return err
			}
			w.stores = append(w.stores, store)
			for id := range clients {
				rng := rand.New(rand.NewPCG(uint64(s), uint64(id)))
				load.Go(func() { store.Run(loading, id, rng, 20*time.Millisecond) })
			}
		}
	}
	begin := clock.Now()
	pause(ctx, 3*time.Second)
	leader, err := c.leader(ctx)
	if err == nil {
		err = f.do(ctx, c, leader)
	}
	pause(ctx, 10*time.Second)
	end := clock.Now()
	stop()
	load.Wait()
	if err != nil {
		return err
	}
	var judging sync.WaitGroup
	for _, w := range ways {
		judging.Go(func() { w.judge(context.WithoutCancel(ctx), cfg, f, begin, end) })
	}
	judging.Wait()
	return nil
}

// judge reads the stores out and says what their clients saw.
func (w *way) judge(ctx context.Context, cfg Config, f fault, begin, end time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	time.Sleep(deadline) // until nothing can take effect any more
	var sum struct{ acknowledged, lost, stale, absent, violated int }
	var written []time.Duration
	back := w.wentBack(ctx)
	for _, s := range w.stores {
		reading, cancel := ctx, context.CancelFunc(func() {})
		if back {
			reading, cancel = context.WithTimeout(ctx, 3*time.Second) // to see that nothing is served
		}
		_, err := s.ReadOut(reading, clients)
		cancel()
		if err != nil && !back {
			cfg.Report.Violation("a store cannot be read", err)
		}
		ops := s.History()
		acknowledged, lost := ledger.Audit(ops)
		if err != nil {
			lost = nil // nobody was shown that, and what the ledger goes by is a last read
		}
		sum.acknowledged, sum.lost = sum.acknowledged+acknowledged, sum.lost+len(lost)
		for _, o := range ops {
			if o.Mutates() && o.Outcome == history.OK {
				written = append(written, o.Return)
			}
		}
		stale, absent := reads(ops)
		sum.stale, sum.absent = sum.stale+stale, sum.absent+absent
		rules := model.Rules{Deadline: deadline, Stalled: f.stalled}
		if v, err := model.Check(ops, rules); err != nil || v == model.Violated {
			sum.violated++
			name := filepath.Join(cfg.Out, strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(s.Name)+".json")
			_ = history.File{Store: s.Name, Deadline: deadline, Stalled: f.stalled, Ops: ops}.Write(name)
		}
	}
	ok := sum.lost+sum.stale+sum.absent+sum.violated == 0
	after := ""
	if back {
		after = "; THE CLUSTER WENT BACK to an older timeline, which was found, and nothing is served of it"
	}
	promise := "a failover shows nothing old and loses nothing, or nothing is served after it"
	if cfg.Teeth {
		promise = "without the fence it does"
	}
	cfg.Report.Check(promise, f.name+", Patroni "+cfg.Name, w.name, ok,
		"%d acknowledged, %d lost, %d stale, %d false not-found, %d of %d histories violated, %.1f s without a write%s",
		sum.acknowledged, sum.lost, sum.stale, sum.absent, sum.violated, stores, gap(written, begin, end).Seconds(), after)
}

// wentBack says whether the instances serve nothing, since only an older server than they have seen is left.
func (w *way) wentBack(ctx context.Context) bool {
	for _, p := range w.instances {
		page, err := p.Ops(ctx, "/metrics")
		if err != nil || !strings.Contains(string(page), "vss_fence -1") {
			return false
		}
	}
	return true
}

// accept restarts the instances, as a person does who goes on with what is left.
func (w *way) accept(ctx context.Context) error {
	w.reached = nil
	for _, p := range w.instances {
		if err := p.Stop(ctx); err != nil {
			return err
		}
		if err := p.Serve(ctx); err != nil {
			return err
		}
		w.reached = append(w.reached, w.reach(p))
	}
	return nil
}

func (w *way) reach(p *platform.Process) *workload.Instance {
	return workload.NewInstance(p.Name, "http://"+p.Address()+"/t/"+tenant+"/vss", nil)
}

// gap is the longest time without an acknowledged write.
func gap(at []time.Duration, begin, end time.Duration) (longest time.Duration) {
	slices.Sort(at)
	last := begin
	for _, t := range append(at, end) {
		longest, last = max(longest, t-last), t
	}
	return longest
}

// reads counts those that show a value, or none, although a later write of the key had been acknowledged before they
// were sent. The model judges more; these are for people.
func reads(ops []history.Op) (stale, absent int) {
	until := func(o history.Op) time.Duration {
		if o.Outcome == history.Unknown {
			return o.Call + deadline
		}
		return o.Return
	}
	type change struct {
		op      history.Op
		deletes bool
	}
	of := make(map[string][]change)
	wrote := make(map[history.Value]history.Op)
	for _, o := range ops {
		if !o.Mutates() || o.Outcome != history.OK && o.Outcome != history.Unknown {
			continue
		}
		for _, i := range o.Writes {
			wrote[i.Value] = o
			of[i.Key] = append(of[i.Key], change{o, false})
		}
		for _, i := range append(slices.Clone(o.Deletes), o.Item) {
			if i.Key != "" {
				of[i.Key] = append(of[i.Key], change{o, true})
			}
		}
	}
	for _, o := range ops {
		if o.Kind != history.Get || o.Item.Key == history.GlobalKey {
			continue
		}
		before := func(from time.Duration) (last change, found bool) { // acknowledged write that began after from and ended before o
			for _, c := range of[o.Item.Key] {
				if !c.deletes && c.op.Outcome == history.OK && c.op.Call > from && c.op.Return < o.Call && c.op.Call >= last.op.Call {
					last, found = c, true
				}
			}
			return last, found
		}
		switch o.Outcome {
		case history.OK:
			if w, known := wrote[o.Answer.Value]; known {
				if _, found := before(until(w)); found {
					stale++
				}
			}
		case history.NoSuchKey:
			last, found := before(-1)
			if found && !slices.ContainsFunc(of[o.Item.Key], func(c change) bool {
				return c.deletes && until(c.op) >= last.op.Call && c.op.Call <= o.Return
			}) {
				absent++
			}
		}
	}
	return stale, absent
}
