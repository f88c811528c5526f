package platform

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build builds the API's binary from the module at root.
func Build(ctx context.Context, root, binary string, race bool, flags ...string) error {
	args := append([]string{"build", "-o", binary}, flags...)
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/vss-api")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", root, err, out)
	}
	return nil
}

// Output hears all that a process writes down.
type Output interface {
	Heard(from string, text []byte)
}

// Process is an instance of the API.
type Process struct {
	Name   string
	binary string
	env    []string
	output Output

	mu      sync.Mutex
	running *running
}

// running is one life of a process.
type running struct {
	pid      int
	api, ops string        // addresses
	serving  chan struct{} // closed when they are known
	exited   chan struct{}
	err      error // written before exited is closed
	tail     tail
}

// NewProcess makes an instance that is not started yet. env is added to its environment.
func NewProcess(name, binary string, output Output, env ...string) *Process {
	return &Process{Name: name, binary: binary, env: env, output: output}
}

// Start runs it and returns when it serves.
func (p *Process) Start(ctx context.Context) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.binary)
	cmd.Env = append([]string{
		"PATH=/usr/bin:/bin", "HOME=/nonexistent", "TZ=UTC", "GOTRACEBACK=all",
		"VSS_API_LISTEN=127.0.0.1:0", "VSS_OPS_LISTEN=127.0.0.1:0",
	}, p.env...)
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	cmd.Stdout, cmd.Stderr = in, in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r := &running{serving: make(chan struct{}), exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is about the thread that started the child
		err := cmd.Start()
		started <- err
		if err == nil {
			r.err = cmd.Wait()
			close(r.exited)
		}
	}()
	if err := <-started; err != nil {
		out.Close()
		return err
	}
	r.pid = cmd.Process.Pid
	go p.read(r, out)
	select {
	case <-r.serving:
	case <-r.exited:
		return fmt.Errorf("%s did not start: %w\n%s", p.Name, r.err, r.tail.text())
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		return fmt.Errorf("%s did not start: %w\n%s", p.Name, ctx.Err(), r.tail.text())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = r
	return nil
}

// read passes on what the process writes, and finds its addresses in there.
func (p *Process) read(r *running, out io.ReadCloser) {
	defer out.Close()
	in := bufio.NewReaderSize(out, 256<<10)
	for known := false; ; {
		line, err := in.ReadBytes('\n')
		r.tail.add(line)
		p.output.Heard(p.Name, line)
		if !known && bytes.Contains(line, []byte(`"msg":"listening"`)) {
			var at struct{ API, Ops string }
			if json.Unmarshal(line, &at) == nil {
				r.api, r.ops, known = at.API, at.Ops, true
				close(r.serving)
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Process) life() *running {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}

// Address is where it serves, or "" while it does not run.
func (p *Process) Address() string {
	r := p.life()
	if r == nil {
		return ""
	}
	select {
	case <-r.exited:
		return ""
	default:
		return r.api
	}
}

// Signal sends it a signal.
func (p *Process) Signal(s syscall.Signal) error {
	r := p.life()
	if r == nil {
		return errors.New(p.Name + " does not run")
	}
	return syscall.Kill(r.pid, s)
}

// End sends it a signal that ends it, waits for that, and says what it came to: nil for an exit code of 0.
func (p *Process) End(ctx context.Context, s syscall.Signal) error {
	r := p.life()
	if r == nil {
		return nil
	}
	_ = syscall.Kill(r.pid, s)
	select {
	case <-r.exited:
		return r.err
	case <-ctx.Done():
		_ = syscall.Kill(r.pid, syscall.SIGKILL)
		<-r.exited
		return fmt.Errorf("%s did not end: %w\n%s", p.Name, ctx.Err(), r.tail.text())
	}
}

// Exited says whether it has ended by itself, and how.
func (p *Process) Exited() (string, bool) {
	r := p.life()
	if r == nil {
		return "", false
	}
	select {
	case <-r.exited:
		return fmt.Sprintf("%v\n%s", r.err, r.tail.text()), true
	default:
		return "", false
	}
}

// Tail is the end of what it has written.
func (p *Process) Tail() string {
	if r := p.life(); r != nil {
		return r.tail.text()
	}
	return ""
}

// Ops is a page of its operator's listener.
func (p *Process) Ops(ctx context.Context, path string) ([]byte, error) {
	r := p.life()
	if r == nil {
		return nil, errors.New(p.Name + " does not run")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.ops+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Memory is the most memory that it has had resident, in bytes, and what it has now.
func (p *Process) Memory() (peak, now int64, err error) {
	r := p.life()
	if r == nil {
		return 0, 0, errors.New(p.Name + " does not run")
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(r.pid), "status"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		switch name {
		case "VmHWM":
			peak = n << 10
		case "VmRSS":
			now = n << 10
		}
	}
	return peak, now, nil
}

// tail keeps the end of a text.
type tail struct {
	mu  sync.Mutex
	end []byte
}

func (t *tail) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 16 << 10
	t.end = append(t.end, b...)
	if len(t.end) > 2*most {
		t.end = append([]byte(nil), t.end[len(t.end)-most:]...)
	}
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.end)
}

// Serve starts the process and returns when calls can be served.
func (p *Process) Serve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := p.Start(ctx); err != nil {
		return err
	}
	return p.WaitReady(ctx)
}

// Stop ends the process in order, however long that takes.
func (p *Process) Stop(ctx context.Context) error {
	return p.End(context.WithoutCancel(ctx), syscall.SIGTERM)
}

// WaitReady waits until the instance says that calls can be served.
func (p *Process) WaitReady(ctx context.Context) error {
	for {
		if p.Ready(ctx) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, ctx.Err(), p.Tail())
		}
	}
}

// Ready asks it whether calls can be served.
func (p *Process) Ready(ctx context.Context) bool {
	address := p.Address()
	if address == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
