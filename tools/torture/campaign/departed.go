package campaign

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/tools/torture/faults"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

// departed stops an instance for longer than its clients wait and lets it go on: the requests are still in its
// sockets, and behind each is the word that its client has left. None may take effect (CONTRACT section 3): by
// then the wallet may have written something newer through the other instance. Each wallet does, here, so
// that what comes late is seen to overwrite it.
func (c *Campaign) departed(ctx context.Context) error {
	made, late := 0, 0
	for n := range c.cfg.Departures {
		stopped, other := c.field.Instances[n%2], c.field.Instances[(n+1)%2]
		m, l, err := c.leave(ctx, stopped, other)
		if err != nil {
			return err
		}
		made, late = made+m, late+l
	}
	c.report.Check("a put whose client has left takes no effect", "an instance stopped until its clients have left",
		"their wallets write something newer through the other one", late == 0 && made > 0, "%d puts, %d took effect", made, late)
	return nil
}

// leave makes the clients of one instance leave it, and counts the puts they leave behind and those that took effect.
func (c *Campaign) leave(ctx context.Context, stopped, other *faults.Instance) (made, late int, err error) {
	const (
		each    = 100
		leaving = 1500 * time.Millisecond
	)
	c.report.Status("clients leave while instance %s is stopped", stopped.Name)
	type wallet struct {
		name          string
		through, past *client.Client
	}
	through, past := c.reach(stopped.Name, stopped.Front), c.reach(other.Name, other.Front)
	put := func(w wallet, c *client.Client, value string) error {
		_, err := c.PutObjects(ctx, &vsspb.PutObjectRequest{StoreId: w.name, TransactionItems: []*vsspb.KeyValue{
			{Key: workload.KeyMark, Version: -1, Value: []byte(workload.ValueMark + value)}}})
		return err
	}
	var newer []wallet
	wallets := make([]wallet, each)
	for n := range wallets {
		w := wallet{name: fmt.Sprintf("departed %s %d %v", stopped.Name, n, c.clock.Now())}
		auth, err := workload.NewAuth(w.name)
		if err != nil {
			return 0, 0, err
		}
		if w.through, err = client.New(client.Config{
			BaseURL: through.BaseURL, HTTPClient: through.HTTP, Auth: auth, AttemptTimeout: leaving, Retry: client.Retry{MaxAttempts: 1},
		}); err != nil {
			return 0, 0, err
		}
		if w.past, err = client.New(client.Config{BaseURL: past.BaseURL, HTTPClient: past.HTTP, Auth: auth}); err != nil {
			return 0, 0, err
		}
		wallets[n] = w
	}
	// All at once, so that each has a connection to the instance that it keeps. Who has left even now, as on a busy
	// machine, may have a put on its way past every check.
	var before sync.WaitGroup
	left := make([]bool, len(wallets))
	for n, w := range wallets {
		before.Go(func() { left[n] = put(w, w.through, "old") != nil })
	}
	before.Wait()
	if err := stopped.Signal(syscall.SIGSTOP); err != nil {
		return 0, 0, err
	}
	var calls sync.WaitGroup
	for _, w := range wallets {
		calls.Go(func() { _ = put(w, w.through, "from the one who left") })
	}
	calls.Wait()
	for n, w := range wallets {
		if err := put(w, w.past, "newer"); err == nil && !left[n] {
			newer = append(newer, w)
		}
	}
	if err := stopped.Signal(syscall.SIGCONT); err != nil {
		return 0, 0, err
	}
	time.Sleep(2 * time.Second)
	for _, w := range newer {
		got, err := w.past.GetObject(ctx, &vsspb.GetObjectRequest{StoreId: w.name, Key: workload.KeyMark})
		if err != nil {
			return 0, 0, err
		}
		made++
		if string(got.GetValue().GetValue()) != workload.ValueMark+"newer" {
			late++
		}
	}
	if late > 0 {
		c.report.Violation("a write of a client that had left took effect",
			fmt.Errorf("%d of %d overwrote what their wallets had saved since", late, made))
	}
	return made, late, nil
}
