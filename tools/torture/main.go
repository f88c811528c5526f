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
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vss-cloud/vss-cloud/tools/torture/campaign"
	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/report"
)

type flags struct {
	Run   runCmd   `cmd:"" default:"withargs" help:"Torture the platform (the default)."`
	Check checkCmd `cmd:"" help:"Judge a history that was kept."`
}

type runCmd struct {
	Root       string `default:"." placeholder:"DIR" help:"The checkout whose API is tested."`
	Seed       uint64 `help:"Of the schedule; 0: a random one, which is printed."`
	Round      int    `help:"Only this round of the schedule."`
	Race       bool   `help:"Build the API with the race detector."`
	Out        string `default:"bin/torture" placeholder:"DIR" help:"Where the histories of failures are kept (${default})."`
	Stores     int    `default:"6" help:"Stores under test at a time (${default})."`
	Operations int    `help:"Go on until there were so many operations."`
	Crashes    int    `help:"Go on until there were so many crashes."`
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
	binary := filepath.Join(dir, "vss-api")
	if err := platform.Build(ctx, f.Root, binary, f.Race); err != nil {
		return err
	}
	err = campaign.Run(ctx, campaign.Config{
		Seed: f.Seed, Dir: dir, Out: f.Out, Binary: binary, Stores: f.Stores, Only: f.Round,
		Operations: f.Operations, Crashes: f.Crashes, Output: silence{}, Report: r,
	})
	if err == nil && !r.Close() {
		err = errFound
	}
	return err
}

type silence struct{}

func (silence) Heard(string, []byte) {}
