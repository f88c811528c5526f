// Command torture puts the platform to the test: the real binaries under load, with faults injected by
// programs, and everything that clients saw judged by a model. README.md says what it promises and how.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vss-cloud/vss-cloud/tools/torture/campaign"
	"github.com/vss-cloud/vss-cloud/tools/torture/durability"
	"github.com/vss-cloud/vss-cloud/tools/torture/failover"
	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/hostile"
	"github.com/vss-cloud/vss-cloud/tools/torture/isolation"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/report"
	"github.com/vss-cloud/vss-cloud/tools/torture/secrets"
	"github.com/vss-cloud/vss-cloud/tools/torture/teeth"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

type flags struct {
	Run      runCmd      `cmd:"" default:"withargs" help:"Torture the platform (the default)."`
	Failover failoverCmd `cmd:"" help:"Change the primary of a cluster under load (make torture-failover)."`
	Check    checkCmd    `cmd:"" help:"Judge a history that was kept."`
}

type runCmd struct {
	Root       string   `default:"." placeholder:"DIR" help:"The checkout whose API is tested."`
	Seed       uint64   `help:"Of the schedule; 0: a random one, which is printed."`
	Round      int      `help:"Only this round of the schedule."`
	Race       bool     `help:"Build the API with the race detector."`
	Out        string   `placeholder:"DIR" help:"Where the histories of failures are kept (bin/torture of the checkout)."`
	Phase      []string `help:"Only these parts of the run: rounds, isolation, hostile, durability, teeth, secrets."`
	Stores     int      `default:"6" help:"Stores under test at a time (${default})."`
	Operations int      `help:"Go on until there were so many operations."`
	Crashes    int      `help:"Go on until there were so many crashes."`
}

type failoverCmd struct {
	Root  string   `default:"." placeholder:"DIR" help:"The checkout whose API is tested."`
	Newer string   `required:"" placeholder:"FILE" help:"The newest Patroni, beside that of the distribution."`
	Only  []string `help:"Only the faults whose names have this in them."`
	With  []string `default:"distribution,newest" help:"Which Patroni (${default})."`
	Teeth bool     `help:"Build the API without its fence: then something must be found."`
	Out   string   `placeholder:"DIR" help:"Where the histories of failures are kept (bin/torture of the checkout)."`
}

type checkCmd struct {
	File string `arg:"" type:"existingfile" help:"A .json that was kept."`
}

// errFound: the run was made, and found something.
var errFound = errors.New("violations were found")

func main() {
	var f flags
	k := kong.Parse(&f, kong.Name("torture"))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	k.BindTo(ctx, (*context.Context)(nil))
	switch err := k.Run(); {
	case errors.Is(err, errFound):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(2)
	}
}

// Run judges a history again.
func (c checkCmd) Run() error {
	f, err := history.Read(c.File)
	if err != nil {
		return err
	}
	begin := time.Now()
	v, err := model.Check(f.Ops, model.Rules{Deadline: f.Deadline, Stalled: f.Stalled})
	fmt.Printf("store %q of seed %d: %d operations, %v (%.2f s)\n", f.Store, f.Seed, len(f.Ops), v, time.Since(begin).Seconds())
	if err == nil && (v == model.Violated || v == model.Undecided) {
		err = errFound
	}
	return err
}

// Run makes a run.
func (f runCmd) Run(ctx context.Context) error {
	for f.Seed == 0 {
		f.Seed = rand.Uint64N(1_000_000)
	}
	if f.Out == "" {
		f.Out = filepath.Join(f.Root, "bin", "torture")
	}
	if err := os.MkdirAll(f.Out, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "vss-torture-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // started by root, PostgreSQL runs as somebody else
		return err
	}
	r := report.New(os.Stdout, f.Seed)
	r.Status("seed %d; building the API", f.Seed)
	run := run{runCmd: f, dir: dir, binary: filepath.Join(dir, "vss-api"), report: r,
		watch: secrets.New(workload.KeyMark, workload.ValueMark, platform.Password)}
	run.watch.Expect(secrets.Logs, `"msg":"serving"`, `"msg":"request"`, "goroutine ", "SIGQUIT")
	run.watch.Expect(secrets.Metrics, "vss_calls")
	run.watch.Expect(secrets.Profiles, "goroutine ")
	run.watch.Expect(secrets.Database, "database system is ready")
	run.watch.Expect(secrets.Audit, "tenant.create")
	run.watch.Expect(secrets.Errors, "temporarily unavailable", "Vss-Protocol-Version")
	run.watch.Expect(secrets.Traces, "putObjects")
	if run.collector, err = run.watch.NewCollector(); err != nil {
		return err
	}
	defer run.collector.Close()
	if err := platform.Build(ctx, f.Root, run.binary, f.Race); err != nil {
		return err
	}
	run.database, err = platform.StartDatabase(ctx, filepath.Join(dir, "cluster"), map[string]string{
		"max_connections": "200", "shared_buffers": "128MB", "restart_after_crash": "on", "log_min_messages": "warning",
	})
	if err != nil {
		return err
	}
	err = run.phases(ctx)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = errors.Join(err, run.database.Stop(stopping))
	if !r.Close() && err == nil {
		err = errFound
	}
	return err
}

// Run makes failovers.
func (f failoverCmd) Run(ctx context.Context) error {
	if f.Out == "" {
		f.Out = filepath.Join(f.Root, "bin", "torture")
	}
	if err := os.MkdirAll(f.Out, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "vss-failover-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as somebody else
		return err
	}
	r := report.New(os.Stdout, 0)
	binary := filepath.Join(dir, "vss-api")
	var flags []string
	if f.Teeth {
		flags = []string{"-ldflags=-X github.com/vss-cloud/vss-cloud/db.unfenced=1"}
	}
	if err := platform.Build(ctx, f.Root, binary, false, flags...); err != nil {
		return err
	}
	var errs []error
	for _, with := range f.With {
		patroni := "/usr/bin/patroni"
		if with == "newest" {
			patroni = f.Newer
		}
		version, err := exec.CommandContext(ctx, patroni, "--version").Output()
		if err != nil {
			return fmt.Errorf("%s: %w", patroni, err)
		}
		errs = append(errs, failover.Run(ctx, failover.Config{
			Root: f.Root, Binary: binary, Dir: filepath.Join(dir, with), Patroni: patroni, Only: f.Only, Teeth: f.Teeth, Out: f.Out, Report: r,
			Name: strings.TrimSpace(strings.TrimPrefix(string(version), "patroni ")),
		}))
	}
	passed := r.Close()
	err = errors.Join(errs...)
	if err == nil {
		_ = os.RemoveAll(dir)
	}
	if err == nil && passed == f.Teeth {
		err = errFound
		if f.Teeth {
			err = errors.New("nothing was found without the fence")
		}
	}
	return err
}

// run is a run under way.
type run struct {
	runCmd
	dir, binary string
	database    *platform.Database
	report      *report.Report
	watch       *secrets.Watch
	collector   *secrets.Collector
}

// phases are the parts of a run, in order. One that cannot be made does not keep the others from it.
func (r *run) phases(ctx context.Context) error {
	var errs []error
	for _, phase := range []struct {
		name string
		make func(context.Context) error
	}{
		{"rounds", r.rounds},
		{"isolation", r.isolation},
		{"hostile", r.hostile},
		{"durability", r.durability},
		{"teeth", r.teeth},
		{"secrets", r.secrets},
	} {
		if len(r.Phase) > 0 && !slices.Contains(r.Phase, phase.name) || r.Round > 0 && phase.name != "rounds" || ctx.Err() != nil {
			continue
		}
		if err := phase.make(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", phase.name, err))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// rounds put the platform under load and faults.
func (r *run) rounds(ctx context.Context) error {
	previous := filepath.Join(r.dir, "previous-vss-api")
	switch err := platform.BuildPrevious(ctx, r.Root, filepath.Join(r.dir, "previous"), previous); {
	case errors.Is(err, platform.ErrNoPrevious):
		previous = ""
	case err != nil:
		return err
	}
	departures := 3
	if r.Operations > 0 {
		departures = 20
	}
	return campaign.Run(ctx, campaign.Config{
		Seed: r.Seed, Database: r.database, Out: r.Out, Binary: r.binary, Previous: previous, Stores: r.Stores, Only: r.Round,
		Operations: r.Operations, Crashes: r.Crashes, Departures: departures, Secrets: r.watch, Traces: r.collector.Env, Report: r.report,
	})
}

// isolation looks for what crosses from a tenant to another.
func (r *run) isolation(ctx context.Context) error {
	const tenants, calls = 1000, 10_000
	r.report.Status("%d tenants with the same wallets, stores and keys", tenants)
	url, err := r.database.Create(ctx, "isolation")
	if err != nil {
		return err
	}
	slugs, err := r.database.MultiplyTenants(ctx, "isolation", tenants)
	if err != nil {
		return err
	}
	var origins []string
	for _, name := range []string{"c", "d"} {
		p := platform.NewProcess(name, r.binary, r.watch, "DATABASE_URL="+url)
		defer func() { _ = p.Stop(ctx) }()
		if err := p.Serve(ctx); err != nil {
			return err
		}
		origins = append(origins, "http://"+p.Address())
	}
	made, crossed, err := isolation.Run(ctx, isolation.Config{Origins: origins, Tenants: slugs, Calls: calls, Seed: r.Seed, Wrap: r.watch.Transport})
	if err != nil {
		return err
	}
	for _, err := range crossed {
		r.report.Violation("crossed", err)
	}
	r.report.Check("nothing crosses from a tenant, wallet or store to another", fmt.Sprintf("%d tenants with colliding wallets, stores and keys", tenants),
		"a model of each store", len(crossed) == 0, "%d calls, %d crossings", made, len(crossed))
	return nil
}

// hostile lays siege to an instance with as little memory as it takes.
func (r *run) hostile(ctx context.Context) error {
	const memory = 880 // MiB
	r.report.Status("hostile input")
	url, err := r.database.Create(ctx, "hostile", "hostile")
	if err != nil {
		return err
	}
	p := platform.NewProcess("besieged", r.binary, r.watch, "DATABASE_URL="+url, fmt.Sprintf("VSS_MEMORY=%d", memory))
	defer func() { _ = p.Stop(ctx) }()
	if err := p.Serve(ctx); err != nil {
		return err
	}
	result, err := hostile.Run(ctx, hostile.Config{Process: p, Tenant: "hostile", Memory: memory << 20, Wrap: r.watch.Transport, Seed: r.Seed})
	if err != nil {
		return err
	}
	const promise = "strangers cannot take the server down"
	for _, a := range result.Attacks {
		r.report.Check(promise, a.Name, "counted by the attacker", a.Wrong == nil, "%s", a.Figure)
	}
	const all = "all of these at once"
	r.report.Check(promise, all, "peak of resident memory, against --memory and 512 MiB", result.Ended == "" && result.Peak <= result.Bound,
		"%d of %d MiB", result.Peak>>20, result.Bound>>20)
	r.report.Check("nor keep others from it", all, "a wallet with the retries of released clients",
		len(result.Wallet.Errors)+len(result.Wallet.Wrong) == 0, "%d calls, %d errors; longest call %.2f s",
		result.Wallet.Calls, len(result.Wallet.Errors)+len(result.Wallet.Wrong), result.Wallet.Longest.Seconds())
	return nil
}

// durability asks about databases that lose writes, or have no room for them.
func (r *run) durability(ctx context.Context) error {
	r.report.Status("settings that lose writes")
	cfg := durability.Config{Binary: r.binary, Database: r.database, Output: r.watch, Wrap: r.watch.Transport, Seed: r.Seed}
	for _, setting := range durability.Unsafe {
		otherwise, err := durability.Refuses(ctx, cfg, setting)
		if err != nil {
			return err
		}
		figure := "refused; taken with --allow-data-loss; taken when it is on again"
		if otherwise != nil {
			figure = otherwise.Error()
		}
		r.report.Check("no write is taken that may be lost", setting+"=off", "/readyz and a put through the binary", otherwise == nil, "%s", figure)
	}
	acknowledged, lost := 0, 0
	for n := 0; n < 4 && lost == 0; n++ { // what the kernel has got by then is not lost
		var err error
		if acknowledged, lost, err = durability.Tooth(ctx, cfg, fmt.Sprint("lossy_", n)); err != nil {
			return err
		}
	}
	r.report.Check("the harness finds a lost write", "postmaster killed, with synchronous_commit=off", "the ledger", lost > 0,
		"%d of %d acknowledged ones missed", lost, acknowledged)

	r.report.Status("a disk that is full")
	const promise, fault, test = "acknowledged is durable", "disk full, then room again", "the ledger"
	full, err := durability.DiskFull(ctx, cfg, filepath.Join(r.dir, "small"))
	if errors.Is(err, durability.ErrNoDisk) {
		r.report.Skip(promise, fault, test, "%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	for _, err := range full.Wrong {
		r.report.Violation("disk full", err)
	}
	how := "PostgreSQL went on by itself"
	if full.Restarted {
		how = "PostgreSQL was started again"
	}
	r.report.Check(promise, fault, test, len(full.Wrong) == 0, "%d acknowledged, %d large ones refused, %d lost; %s", full.Acknowledged, full.Refused, len(full.Wrong), how)
	return nil
}

// secrets says what was read of all that the platform wrote in the other parts.
func (r *run) secrets(ctx context.Context) error {
	log, err := os.ReadFile(r.database.Log())
	if err != nil {
		return err
	}
	r.watch.Read(secrets.Database, log)
	rows, err := r.database.Audit(ctx, campaign.Database)
	if err != nil {
		return err
	}
	r.watch.Read(secrets.Audit, rows)
	read, silent, hits := r.watch.Result()
	for _, hit := range hits {
		r.report.Violation("a secret was written down", hit)
	}
	if len(silent) > 0 {
		return fmt.Errorf("not heard: %q", silent)
	}
	r.report.Status("searched for secrets: %s", read)
	r.report.Check("no token, public key, key, value or password is written down", "all of the above",
		"logs, crash dumps, traces, metrics, profiles, audit log and errors searched", len(hits) == 0, "%d hits", len(hits))
	found, planted := r.watch.Teeth()
	r.report.Check("the harness finds a secret", "one planted in each spelling: raw, hexadecimal, decimal, base64", "the same search", found == planted,
		"%d of %d", found, planted)
	return nil
}

// teeth looks for each deliberate bug.
func (r *run) teeth(ctx context.Context) error {
	r.report.Status("deliberate bugs")
	url, err := r.database.Create(ctx, "teeth", teeth.Slug)
	if err != nil {
		return err
	}
	find := func(b teeth.Bug, limit time.Duration) teeth.Found {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return teeth.Find(ctx, b, url, r.Seed)
	}
	for _, b := range teeth.Bugs {
		f := find(b, time.Minute)
		by := f.By
		if f.Err != nil {
			by = f.Err.Error()
		}
		r.report.Check("the harness finds a bug", b.Name, by, f.Err == nil, "after %d operations", f.Operations)
	}
	neighbours := []string{"one", "two"}
	if err := platform.CreateTenants(ctx, r.database.URL("teeth"), neighbours...); err != nil {
		return err
	}
	f := teeth.FindCrossing(ctx, teeth.Crossing, url, neighbours, r.Seed)
	r.report.Check("the harness finds a bug", f.Bug, f.By, f.Err == nil, "in %d operations", f.Operations)
	f = find(teeth.None, 2*time.Second)
	r.report.Check("and none where there is none", "commits lost on their way, and their answers", "the model", f.By == "", "none in %d operations", f.Operations)
	return nil
}
