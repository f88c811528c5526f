package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const logName = "postgres.log"

// logLimit is the size in bytes of postgres.log from which on a start puts it aside.
const logLimit = 10 << 20

// process is a child that ends with us.
type process struct {
	cmd    *exec.Cmd
	dir    string // the data directory, whose postgres.log it writes
	begin  int64  // where in the log its own lines begin
	exited chan struct{}
	err    error // of Wait, written before exited is closed
}

// spawn runs a program of the server's in the data directory.
func spawn(root *os.Root, owner account, program string, args ...string) (*process, error) {
	log, err := openLog(root, owner)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...) //nolint:noctx // stop ends it, in order
	cmd.Dir = root.Name()
	// Nothing of our environment: PGPORT and its like would set the server's settings.
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + root.Name(), "LC_ALL=C", "TZ=UTC"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(owner.credential)
	p := &process{cmd: cmd, dir: root.Name(), begin: begin, exited: make(chan struct{})}

	started := make(chan error)
	go func() {
		// The parent-death signal comes when the *thread* that started the child ends. So this goroutine
		// keeps its thread until the child has ended.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	err = <-started
	if errors.Is(err, os.ErrNotExist) { // of the program's loader, most likely
		err = fmt.Errorf("%w: it needs glibc, so where there is none (Alpine) set DATABASE_URL to use a PostgreSQL of your own", err)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot run %s: %w", program, err)
	}
	return p, nil
}

// stop asks for a fast shutdown and waits for the end of p. When ctx ends first it asks for an immediate
// one, and says so.
func (p *process) stop(ctx context.Context) error {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // fails only when p has ended
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
	}
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second): // it gives its own children 5 seconds
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	return fmt.Errorf("PostgreSQL did not shut down in time and was cut off, its next start recovers: %w", context.Cause(ctx))
}

// failure says, once p has exited, what it was about: how it ended and the end of what it logged.
func (p *process) failure() error {
	const most = 2048 // bytes
	path := filepath.Join(p.dir, logName)
	ended := "exit status 0"
	if p.err != nil {
		ended = p.err.Error()
	}
	err := fmt.Errorf("%s (%s)", filepath.Base(p.cmd.Path), ended)
	if log, openErr := os.Open(path); openErr == nil {
		defer log.Close()
		if size, seekErr := log.Seek(0, io.SeekEnd); seekErr == nil {
			text, _ := io.ReadAll(io.NewSectionReader(log, max(p.begin, size-most), most))
			err = fmt.Errorf("%w; the end of %s:\n%s", err, path, bytes.TrimSpace(text))
		}
	}
	// On a full disk the log may have no room left to say so.
	if free, statErr := freeBytes(p.dir); statErr == nil && free < 1<<20 {
		err = fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	}
	return explain(err, p.dir, clusterSpace)
}

// openLog opens the log to append to. A large one is put aside first, in the place of the last such one.
func openLog(root *os.Root, owner account) (*os.File, error) {
	if info, err := root.Stat(logName); err == nil && info.Size() > logLimit {
		if err := root.Rename(logName, logName+".1"); err != nil {
			return nil, err
		}
	}
	log, err := root.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return log, owner.adopt(log)
}
