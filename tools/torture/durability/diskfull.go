package durability

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

// ErrNoDisk: a small file system cannot be had here.
var ErrNoDisk = errors.New("it takes root to mount a small file system")

// Full is what came of a full disk.
type Full struct {
	Acknowledged int
	Refused      int     // large writes, once it was full
	Restarted    bool    // PostgreSQL had given up, and was started again with more room
	Wrong        []error // lost writes, an instance that ended, writes that are refused with room again
}

// DiskFull writes until a small file system is full and on, makes room, and looks for what was acknowledged. dir is
// where the file system is mounted meanwhile.
func DiskFull(ctx context.Context, cfg Config, dir string) (f Full, err error) {
	const size, reserve = 224 << 20, 40 << 20
	if err := os.Mkdir(dir, 0o755); err != nil {
		return f, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size)); err != nil {
		return f, fmt.Errorf("%w: %w", ErrNoDisk, err)
	}
	defer func() { err = errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	db, err := platform.StartDatabase(ctx, filepath.Join(dir, "cluster"), map[string]string{
		"max_wal_size": "64MB", "min_wal_size": "32MB", "shared_buffers": "32MB", "restart_after_crash": "on", "max_connections": "50",
	})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, db.Stop(context.WithoutCancel(ctx))) }()
	room := filepath.Join(dir, "room") // to be made
	if err := os.WriteFile(room, make([]byte, reserve), 0o600); err != nil {
		return f, err
	}
	url, err := db.Create(ctx, "full", tenant)
	if err != nil {
		return f, err
	}
	p := cfg.instance("full", url)
	defer func() { _ = p.Stop(ctx) }()
	if err := p.Serve(ctx); err != nil {
		return f, err
	}
	store, err := workload.NewStore("full", workload.Clock(time.Now()), []*workload.Instance{cfg.reach(p)})
	if err != nil {
		return f, err
	}
	stop := load(ctx, store, cfg.Seed)
	defer func() { stop() }()
	fill, err := newFiller(cfg.reach(p))
	if err != nil {
		return f, err
	}
	for n := 0; f.Refused < 5; n++ {
		if n == 500 {
			return f, errors.New("the disk does not fill")
		}
		if fill.put(ctx) != nil {
			f.Refused++
		}
	}
	time.Sleep(time.Second) // the others go on, too
	if err := os.Remove(room); err != nil {
		return f, err
	}
	if db.Ended() {
		f.Restarted = true
		if err := db.Start(ctx); err != nil {
			return f, err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := p.WaitReady(waiting); err != nil {
		return f, err
	}
	stop()
	stop = func() {}
	if how, exited := p.Exited(); exited {
		f.Wrong = append(f.Wrong, fmt.Errorf("the instance ended: %s", how))
	}
	acknowledged, lost, err := audit(ctx, store)
	f.Acknowledged = acknowledged + len(fill.keys)
	f.Wrong = append(append(f.Wrong, lost...), fill.check(ctx)...)
	return f, err
}

// filler writes large values under new keys, each once.
type filler struct {
	c     *client.Client
	tried int
	keys  []string // that were saved
}

func newFiller(i *workload.Instance) (*filler, error) {
	auth, err := workload.NewAuth("filler")
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{BaseURL: i.BaseURL, HTTPClient: i.HTTP, Auth: auth, Retry: client.Retry{MaxAttempts: 1}})
	return &filler{c: c}, err
}

func (f *filler) value(key string) []byte {
	v := make([]byte, 2<<20)
	copy(v, workload.ValueMark+key)
	return v
}

func (f *filler) put(ctx context.Context) error {
	key := fmt.Sprintf("%s%d", workload.KeyMark, f.tried)
	f.tried++
	_, err := f.c.PutObjects(ctx, &vsspb.PutObjectRequest{StoreId: "full", TransactionItems: []*vsspb.KeyValue{{Key: key, Value: f.value(key)}}})
	if err == nil {
		f.keys = append(f.keys, key)
	}
	return err
}

// check reads everything that was saved.
func (f *filler) check(ctx context.Context) (wrong []error) {
	for _, key := range f.keys {
		got, err := f.c.GetObject(ctx, &vsspb.GetObjectRequest{StoreId: "full", Key: key})
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s was saved: %w", key, err))
		} else if string(got.GetValue().GetValue()) != string(f.value(key)) {
			wrong = append(wrong, fmt.Errorf("%s has another value than was saved", key))
		}
	}
	return wrong
}
