// Command torture puts the platform to the test: the real binaries under load, with faults injected by
// programs, and everything that clients saw judged by a model. README.md says what it promises and how.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vss-cloud/vss-cloud/tools/torture/campaign"
	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/report"
	"github.com/vss-cloud/vss-cloud/tools/torture/teeth"
)

type flags struct {
	Run   runCmd   `cmd:"" default:"withargs" help:"Torture the platform (the default)."`
	Check checkCmd `cmd:"" help:"Judge a history that was kept."`
}

type runCmd struct {
	Root       string   `default:"." placeholder:"DIR" help:"The checkout whose API is tested."`
	Seed       uint64   `help:"Of the schedule; 0: a random one, which is printed."`
	Round      int      `help:"Only this round of the schedule."`
	Race       bool     `help:"Build the API with the race detector."`
	Out        string   `placeholder:"DIR" help:"Where the histories of failures are kept (bin/torture of the checkout)."`
	Phase      []string `help:"Only these parts of the run: rounds, teeth."`
	Stores     int      `default:"6" help:"Stores under test at a time (${default})."`
	Operations int      `help:"Go on until there were so many operations."`
	Crashes    int      `help:"Go on until there were so many crashes."`
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
	if err == nil && v != model.Linearizable {
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
	run := run{runCmd: f, dir: dir, binary: filepath.Join(dir, "vss-api"), report: r}
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

// run is a run under way.
type run struct {
	runCmd
	dir, binary string
	database    *platform.Database
	report      *report.Report
}

// phases are the parts of a run, in order. One that cannot be made does not keep the others from it.
func (r *run) phases(ctx context.Context) error {
	var errs []error
	for _, phase := range []struct {
		name string
		make func(context.Context) error
	}{
		{"rounds", r.rounds},
		{"teeth", r.teeth},
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
	departures := 4
	if r.Operations > 0 {
		departures = 20
	}
	return campaign.Run(ctx, campaign.Config{
		Seed: r.Seed, Database: r.database, Out: r.Out, Binary: r.binary, Previous: previous, Stores: r.Stores, Only: r.Round,
		Operations: r.Operations, Crashes: r.Crashes, Departures: departures, Output: silence{}, Report: r.report,
	})
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
	f := find(teeth.None, 2*time.Second)
	r.report.Check("and none where there is none", "commits lost on their way, and their answers", "the model", f.By == "", "none in %d operations", f.Operations)
	return nil
}

type silence struct{}

func (silence) Heard(string, []byte) {}
