package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// Wallet is a wallet on LDK: the only writer of its store, one call at a time, writing without conditions,
// with the retries of released clients. It wants to see no error, and to read what it wrote.
type Wallet struct {
	Name  string // and its store_id
	clock Clock
	c     *client.Client

	mu    sync.Mutex
	saved map[string]history.Value // what the last acknowledged write of a key left; 0: deleted, or unsure
	next  history.Value
	tally Tally
	lap   struct { // since Lap was last asked
		longest time.Duration
		errors  int
	}
}

// Tally is what became of a wallet's calls.
type Tally struct {
	Calls   int
	Saved   int           // acknowledged writes
	Longest time.Duration // that a call took, retries and all
	At      time.Duration // when that call began
	Errors  []error       // that the wallet saw
	Wrong   []error       // reads that did not show what had been saved
}

// NewWallet makes a wallet that calls through the instance.
func NewWallet(name string, clock Clock, instance *Instance) (*Wallet, error) {
	auth, err := NewAuth(name)
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{BaseURL: instance.BaseURL, Auth: auth, HTTPClient: instance.HTTP})
	if err != nil {
		return nil, err
	}
	return &Wallet{Name: name, clock: clock, c: c, saved: make(map[string]history.Value)}, nil
}

// Run makes calls until ctx ends; one under way is waited for.
func (w *Wallet) Run(ctx context.Context, rng *rand.Rand, pause time.Duration) {
	for ctx.Err() == nil {
		key := keys[rng.IntN(len(keys))]
		var call func(context.Context) error
		switch n := rng.IntN(10); {
		case n < 5:
			call = func(ctx context.Context) error { return w.put(ctx, key) }
		case n < 6:
			call = func(ctx context.Context) error { return w.delete(ctx, key) }
		case n < 9:
			call = func(ctx context.Context) error { return w.get(ctx, key) }
		default:
			call = w.list
		}
		begin := w.clock.Now()
		err := call(context.WithoutCancel(ctx))
		took := w.clock.Now() - begin

		w.mu.Lock()
		w.tally.Calls++
		w.lap.longest = max(w.lap.longest, took)
		if took > w.tally.Longest {
			w.tally.Longest, w.tally.At = took, begin
		}
		if err != nil {
			w.lap.errors++
			err = fmt.Errorf("wallet %s at %.3f s: %w", w.Name, begin.Seconds(), err)
			if errors.Is(err, errWrong) {
				w.tally.Wrong = append(w.tally.Wrong, err)
			} else {
				w.tally.Errors = append(w.tally.Errors, err)
			}
		}
		w.mu.Unlock()
		select {
		case <-time.After(time.Duration(rng.Int64N(int64(pause) + 1))):
		case <-ctx.Done():
		}
	}
}

// unsure stands for what a write left that ended with an error.
const unsure = ^history.Value(0)

var errWrong = errors.New("not what was saved")

func (w *Wallet) put(ctx context.Context, key string) error {
	w.next++
	_, err := w.c.PutObjects(ctx, &vsspb.PutObjectRequest{StoreId: w.Name, TransactionItems: []*vsspb.KeyValue{
		{Key: key, Version: -1, Value: spell(w.Name, w.next)},
	}})
	w.settle(key, w.next, err)
	return err
}

// settle keeps what a write that ended with err has left under the key.
func (w *Wallet) settle(key string, value history.Value, err error) {
	if err != nil {
		w.saved[key] = unsure
		return
	}
	w.saved[key] = value
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.Saved++
}

func (w *Wallet) delete(ctx context.Context, key string) error {
	_, err := w.c.DeleteObject(ctx, &vsspb.DeleteObjectRequest{StoreId: w.Name, KeyValue: &vsspb.KeyValue{Key: key, Version: -1}})
	w.settle(key, 0, err)
	return err
}

func (w *Wallet) get(ctx context.Context, key string) error {
	var is history.Value
	got, err := w.c.GetObject(ctx, &vsspb.GetObjectRequest{StoreId: w.Name, Key: key})
	switch {
	case err == nil:
		if is, err = read(w.Name, got.GetValue().GetValue()); err != nil {
			return fmt.Errorf("%w: %w", errWrong, err)
		}
	case !errors.Is(err, client.ErrNoSuchKey):
		return err
	}
	if was := w.saved[key]; is != was && was != unsure {
		return fmt.Errorf("%w: key %s holds #%d, and #%d was acknowledged last (0: no value)", errWrong, key, is, was)
	}
	return nil
}

func (w *Wallet) list(ctx context.Context) error {
	all, err := w.c.ListAll(ctx, &vsspb.ListKeyVersionsRequest{StoreId: w.Name})
	if err != nil {
		return err
	}
	var got, want []string
	for _, k := range all.GetKeyVersions() {
		if w.saved[k.GetKey()] != unsure {
			got = append(got, k.GetKey())
		}
	}
	for k, v := range w.saved {
		if v != 0 && v != unsure {
			want = append(want, k)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%w: the store lists %q, and should %q", errWrong, got, want)
	}
	return nil
}

// Check reads everything that was saved.
func (w *Wallet) Check(ctx context.Context) error {
	errs := []error{w.list(ctx)}
	for _, k := range keys {
		errs = append(errs, w.get(ctx, k))
	}
	return errors.Join(errs...)
}

// Tally is what became of the calls so far.
func (w *Wallet) Tally() Tally {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.tally
	t.Errors, t.Wrong = slices.Clone(t.Errors), slices.Clone(t.Wrong)
	return t
}

// Lap is how long the longest call took that has ended since Lap was last asked, and how many ended with an error.
func (w *Wallet) Lap() (longest time.Duration, errs int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest, errs = w.lap.longest, w.lap.errors
	w.lap.longest, w.lap.errors = 0, 0
	return longest, errs
}
