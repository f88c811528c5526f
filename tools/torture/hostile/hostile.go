// Package hostile does to a server what strangers may: connections by the thousand, requests that never end, bodies
// and headers without measure. The server must stay up, keep its memory within what it was given, and serve
// the others meanwhile.
package hostile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

// Config of a siege.
type Config struct {
	Process *platform.Process // that serves
	Tenant  string
	Memory  int64 // what it was given, in bytes
	Wrap    func(*http.Transport) http.RoundTripper
	Seed    uint64
}

// Attack is one kind of hostility, and what came of it.
type Attack struct {
	Name, Figure string
	Wrong        error // the server did otherwise than it must
}

// Result of a siege.
type Result struct {
	Attacks     []Attack
	Peak, Bound int64          // resident memory in bytes
	Wallet      workload.Tally // of the wallet that was served meanwhile
	Ended       string         // the server did
}

// most is how many connections are held open and idle, if that many files may be open.
const most = 5000

// Run lays siege to the server.
func Run(ctx context.Context, cfg Config) (r Result, err error) {
	files, err := raiseLimit()
	if err != nil {
		return r, err
	}
	t := &target{Config: cfg, address: cfg.Process.Address()}
	// What a call may hold is counted against --memory; the rest of the process has half a GiB (its GOMEMLIMIT).
	r.Bound = cfg.Memory + 512<<20

	wallet, err := workload.NewWallet("served meanwhile", workload.Clock(time.Now()),
		workload.NewInstance("all", "http://"+t.address+t.path(), cfg.Wrap))
	if err != nil {
		return r, err
	}
	if t.auth, err = workload.NewAuth("hostile"); err != nil {
		return r, err
	}
	living, stop := context.WithCancel(ctx)
	var life sync.WaitGroup
	life.Go(func() { wallet.Run(living, rand.New(rand.NewPCG(cfg.Seed, 1)), 20*time.Millisecond) })
	defer func() { stop(); life.Wait() }()

	idle, err := t.idle(min(most, files-2000)) // the others need some, too
	defer idle.close()
	if err != nil {
		return r, err
	}
	// The slow ones take their time beside the others.
	var slow sync.WaitGroup
	var mu sync.Mutex
	add := func(a Attack) {
		mu.Lock()
		defer mu.Unlock()
		r.Attacks = append(r.Attacks, a)
	}
	slow.Go(func() { add(t.slowHeaders(ctx)) })
	slow.Go(func() { add(t.slowBodies(ctx)) })
	add(t.largeHeaders(ctx))
	add(t.largeBodies(ctx))
	add(t.endlessBodies(ctx))
	slow.Wait()
	add(idle.look())
	stop()
	life.Wait()
	r.Wallet = wallet.Tally()
	if how, exited := cfg.Process.Exited(); exited {
		r.Ended = how
		return r, nil
	}
	r.Peak, _, err = cfg.Process.Memory()
	return r, err
}

// raiseLimit lets the process open as many files as it may, and returns how many those are. A server that it
// starts has the same limit.
func raiseLimit() (files int, err error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Max < 3000 {
		return 0, fmt.Errorf("this process may open %d files, and needs 3000 at least", limit.Max)
	}
	limit.Cur = limit.Max
	return int(min(limit.Max, 1<<20)), syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

type target struct {
	Config
	address string
	auth    interface {
		Authorization(context.Context, time.Time) (string, error)
	}
}

func (t *target) path() string { return "/t/" + t.Tenant + "/vss" }

// many runs an attack n times at once and counts those that end well.
func many(n int, attack func(i int) bool) (well int) {
	var all sync.WaitGroup
	var count atomic.Int64
	for i := range n {
		all.Go(func() {
			if attack(i) {
				count.Add(1)
			}
		})
	}
	all.Wait()
	return int(count.Load())
}

// patience is longer than the server's with any request.
const patience = time.Minute

func (t *target) dial() (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", t.address, patience)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// head is the head of a signed put up to its length.
func (t *target) head(ctx context.Context) string {
	token, _ := t.auth.Authorization(ctx, time.Now())
	return "POST " + t.path() + "/putObjects HTTP/1.1\r\nHost: " + t.address + "\r\nAuthorization: " + token + "\r\n"
}

// ended reports whether the server closed the connection, however it did.
func ended(err error) bool {
	var timeout net.Error
	return err != nil && (!errors.As(err, &timeout) || !timeout.Timeout())
}

// slowHeaders sends a byte of a header now and then, for ever.
func (t *target) slowHeaders(ctx context.Context) Attack {
	const n = 500
	closed := many(n, func(int) bool {
		conn, err := t.dial()
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "POST "+t.path()+"/getObject HTTP/1.1\r\nX-Slow: ")
		return drip(ctx, conn, err)
	})
	return judged("headers that arrive byte by byte", closed, n, "connections closed by the server")
}

// slowBodies promises a body and sends a byte of it now and then.
func (t *target) slowBodies(ctx context.Context) Attack {
	const n = 200
	closed := many(n, func(int) bool {
		conn, err := t.dial()
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = io.WriteString(conn, t.head(ctx)+"Content-Length: 65536\r\n\r\n")
		return drip(ctx, conn, err)
	})
	return judged("bodies that arrive byte by byte", closed, n, "answered or closed by the server")
}

// drip writes byte by byte until the server has had enough, and reports whether it had.
func drip(ctx context.Context, conn net.Conn, err error) bool {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = conn.Read(make([]byte, 1))
	}()
	for err == nil {
		select {
		case <-answered:
			return true
		case <-time.After(500 * time.Millisecond):
			_, err = conn.Write([]byte("a"))
		case <-ctx.Done():
			return false
		}
	}
	return ended(err)
}

// largeHeaders sends a MiB of headers.
func (t *target) largeHeaders(ctx context.Context) Attack {
	const n = 200
	flood := strings.Repeat("X-Flood: "+strings.Repeat("x", 1000)+"\r\n", 1000)
	refused := many(n, func(int) bool {
		conn, err := t.dial()
		if err != nil {
			return false
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, t.head(ctx)+flood+"\r\n") // it need not be read to its end
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return ended(err)
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusRequestHeaderFieldsTooLarge
	})
	return judged("a MiB of headers", refused, n, "refused")
}

// largeBodies sends bodies that are allowed, and more of them at once than there is memory for.
func (t *target) largeBodies(ctx context.Context) Attack {
	const n, size = 24, 64 << 20
	body := bytes.Repeat([]byte{0xff}, size) // no message at all
	var read atomic.Int64
	settled := many(n, func(int) bool {
		status := t.post(ctx, bytes.NewReader(body), size)
		if status == http.StatusBadRequest {
			read.Add(1)
		}
		// One that there is no memory for is not read to its end.
		return status == http.StatusBadRequest || status == http.StatusServiceUnavailable || status == cut
	})
	a := judged(fmt.Sprintf("%d bodies of %d MiB at once", n, size>>20), settled, n, "answered or cut")
	a.Figure += fmt.Sprintf(", %d of them read", read.Load())
	return a
}

// endlessBodies promises more than a tenant may send, or promises nothing and does not stop.
func (t *target) endlessBodies(ctx context.Context) Attack {
	const n = 8
	refused := many(n, func(i int) bool {
		if i%2 == 0 {
			return t.post(ctx, io.LimitReader(zeros{}, 300<<20), 300<<20) == http.StatusRequestEntityTooLarge
		}
		status := t.post(ctx, io.LimitReader(zeros{}, 110<<20), -1)
		return status == http.StatusRequestEntityTooLarge || status == http.StatusServiceUnavailable || status == cut
	})
	return judged("bodies over the limit, announced or chunked", refused, n, "refused")
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// cut stands for the status where the server closed the connection while the body was sent.
const cut = -1

// post sends a body on a connection of its own, and returns the status of the answer; 0: there was none in time.
func (t *target) post(ctx context.Context, body io.Reader, length int64) int {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+t.address+t.path()+"/putObjects", body)
	if err != nil {
		return 0
	}
	req.ContentLength = length
	token, _ := t.auth.Authorization(ctx, time.Now())
	req.Header.Set("Authorization", token)
	own := &http.Transport{DisableKeepAlives: true}
	resp, err := own.RoundTrip(req)
	switch {
	case ctx.Err() != nil:
		return 0
	case err != nil:
		return cut
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func judged(name string, well, n int, what string) Attack {
	a := Attack{Name: name, Figure: fmt.Sprintf("%d of %d %s", well, n, what)}
	if well < n {
		a.Wrong = errors.New(a.Figure)
	}
	return a
}

type idle struct{ conns []net.Conn }

// idle opens connections that have made one request each and make no other.
func (t *target) idle(n int) (*idle, error) {
	i := &idle{conns: make([]net.Conn, n)}
	var failed atomic.Pointer[error]
	next := make(chan int)
	go func() {
		defer close(next)
		for n := range i.conns {
			next <- n
		}
	}()
	many(50, func(int) bool {
		for n := range next {
			conn, err := t.dial()
			if err == nil {
				i.conns[n] = conn
				_, err = io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: "+t.address+"\r\n\r\n")
			}
			if err == nil {
				var resp *http.Response
				if resp, err = http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			}
			if err != nil {
				failed.Store(&err)
			}
		}
		return true
	})
	if err := failed.Load(); err != nil {
		return i, fmt.Errorf("idle connections: %w", *err)
	}
	return i, nil
}

// look counts the connections that are open still.
func (i *idle) look() Attack {
	open := many(len(i.conns), func(n int) bool {
		_ = i.conns[n].SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := i.conns[n].Read(make([]byte, 1))
		return !ended(err)
	})
	return judged(fmt.Sprintf("%d idle connections", len(i.conns)), open, len(i.conns), "open to the end")
}

func (i *idle) close() {
	for _, conn := range i.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}
