package api_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/storage"
)

// gate is a store whose calls wait until it is opened.
type gate struct {
	fake
	entered chan struct{} // one for each call that waits
	opened  chan struct{}
}

func newGate() *gate {
	g := &gate{entered: make(chan struct{}, 100), opened: make(chan struct{})}
	g.fake = always(func(ctx context.Context) error {
		g.entered <- struct{}{}
		select {
		case <-g.opened:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return g
}

// wantRefused waits until the server accepts no more connections.
func (p *platform) wantRefused(t testing.TB) {
	t.Helper()
	eventually(t, "new connections are refused", func() bool {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

func TestARequestInFlightIsAnsweredWhenTheServerStops(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, over(g))
	w := p.wallet(t, "acme", 1)

	calling := p.dial(t) // its call is in the store
	calling.send(t, w.text(t, "putObjects", put(item("k", -1))))
	<-g.entered
	uploading := p.dial(t) // its headers were read
	body := string(encode(t, put(item("k", -1))))
	uploading.send(t, w.head(t, "putObjects", fmt.Sprint("Content-Length: ", len(body))))
	eventually(t, "the upload has begun", func() bool { return p.inFlight(t) == 2*3*int64(len(body)) })
	multiplexed := make(chan *answer, 1)
	r2 := w.request(t, "putObjects", []byte(body))
	go func() {
		resp, err := p.http2.Do(r2)
		if err != nil {
			t.Error("HTTP/2: no answer: ", err)
			close(multiplexed)
			return
		}
		multiplexed <- read(t, resp)
	}()
	<-g.entered
	idle := p.dial(t)
	idle.wantOpen(t)
	idle2 := p.dialHTTP2(t)
	idle2.request(t, true, [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/livez"}})
	idle2.answer(t)

	p.drain()
	p.wantRefused(t)
	idle.wantClosed(t)
	idle2.wantGoAway(t)
	select {
	case <-p.served:
		t.Fatal("Serve returned with requests in flight")
	default:
	}

	uploading.send(t, body)
	<-g.entered
	close(g.opened)
	for name, conn := range map[string]*wire{"a call in the store": calling, "an upload": uploading} {
		a := conn.answer(t)
		a.wantDone(t)
		if got := a.header.Get("Connection"); got != "close" {
			t.Errorf("%s: Connection is %q", name, got)
		}
		conn.wantClosed(t)
	}
	if a := <-multiplexed; a != nil {
		a.wantDone(t)
	}
	p.wait(t, 5*time.Second)
}

// wantGoAway reads the end of an HTTP/2 connection.
func (f *frames) wantGoAway(t testing.TB) {
	t.Helper()
	said := false
	for {
		frame, err := f.ReadFrame()
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			said = said || frame.ErrCode == http2.ErrCodeNo
		default:
			if err == nil {
				continue
			}
			if err != io.EOF || !said {
				t.Errorf("the connection ended with %v, GOAWAY said: %v", err, said)
			}
			return
		}
	}
}

func TestLoadBalancersSeeThatAServerStopsBeforeItDoes(t *testing.T) {
	t.Parallel()
	const delay = time.Second
	p := start(t, over(fake{}), func(cfg *api.Config) { cfg.DrainDelay = delay })
	w := p.wallet(t, "acme", 1)
	if a := p.health(t, "/readyz"); a.status != 200 {
		t.Fatal("not ready: HTTP ", a.status)
	}
	began := time.Now()
	p.drain()
	eventually(t, "/readyz says so", func() bool { return p.health(t, "/readyz").status == 503 })
	p.health(t, "/readyz").wantNotReady(t, "shutting down")
	// Until then everybody is served, on old connections and new ones.
	if a := p.health(t, "/livez"); a.status != 200 {
		t.Error("/livez: HTTP ", a.status)
	}
	w.put(t, "k", "v").wantDone(t)
	conn := p.dial(t)
	conn.send(t, w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}))
	conn.answer(t).wantOK(t, nil)
	if took := time.Since(began); took > delay {
		t.Skip("this machine is too slow to tell: ", took)
	}
	p.wantRefused(t)
	if took := time.Since(began); took < delay {
		t.Errorf("refused after %v", took)
	}
	p.wait(t, 5*time.Second)
}

func TestRequestsBehindTheOneInFlightAreNotBegun(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, over(g))
	w := p.wallet(t, "acme", 1)
	conn := p.dial(t)
	get := w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "k"})
	conn.send(t, get+get+get)
	<-g.entered
	p.drain()
	p.wantRefused(t)
	close(g.opened)
	// Clients send pipelined requests again when a connection ends.
	a := conn.answer(t)
	a.wantOK(t, nil)
	if a.header.Get("Connection") != "close" {
		t.Error("the answer promises more")
	}
	conn.wantClosed(t)
	if len(g.entered) > 0 {
		t.Error("the store was asked again")
	}
	p.wait(t, 5*time.Second)
}

func TestAPutIsAnsweredIfItIsDoneWheneverTheServerStops(t *testing.T) {
	t.Parallel()
	var done, answered, refused atomic.Int64
	p := start(t, over(fake{put: func(context.Context, storage.Keyspace, storage.Batch) error {
		time.Sleep(time.Millisecond)
		done.Add(1)
		return nil
	}}))
	var callers sync.WaitGroup
	for i := range 20 {
		w := p.wallet(t, "acme", byte(1+i))
		body := encode(t, put(item("k", -1)))
		callers.Go(func() {
			c := p.http
			if i%2 == 1 {
				c = p.http2
			}
			for {
				r := w.request(t, "putObjects", body)
				r.GetBody = nil // once only
				resp, err := c.Do(r)
				if err != nil {
					refused.Add(1)
					return
				}
				if a := read(t, resp); a.status == 200 {
					answered.Add(1)
				} else {
					t.Error("HTTP ", a.status)
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	p.drain()
	p.wait(t, 10*time.Second)
	callers.Wait()
	if done.Load() != answered.Load() || refused.Load() != 20 || done.Load() == 0 {
		t.Errorf("%d done, %d answered, %d callers refused", done.Load(), answered.Load(), refused.Load())
	}
}

func TestADrainThatTakesTooLongIsCutAndSaid(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, over(g), func(cfg *api.Config) { cfg.DrainTimeout = 300 * time.Millisecond })
	w := p.wallet(t, "acme", 1)
	conn := p.dial(t)
	conn.send(t, w.text(t, "putObjects", put(item("k", -1))))
	<-g.entered
	began := time.Now()
	p.drain()
	<-p.served
	wantTook(t, began, 300*time.Millisecond)
	if p.err == nil || !strings.Contains(p.err.Error(), "drain") {
		t.Errorf("Serve: %v", p.err)
	}
	p.err = nil // as it should be, for the end of the test
	if rest := conn.rest(t); rest != "" {
		t.Errorf("got %q", rest)
	}
}

func TestAConnectionThatWasNeverUsedDoesNotHoldUpTheDrain(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}))
	conn := p.dial(t)
	eventually(t, "it is accepted", func() bool { return p.connections(t) == 1 })
	p.drain()
	p.wait(t, 9*time.Second) // net/http waits 5 s for a first request
	conn.wantClosed(t)
}

func TestAServerWhoseContextHasEndedServesNobody(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}))
	server, err := api.New(api.Config{Store: fake{}, Tenants: p.directory})
	check(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Serve(ctx, ln); err != nil {
		t.Error(err)
	}
	eventually(t, "the listener is closed", func() bool {
		resp, err := http.Get("http://" + ln.Addr().String() + "/livez")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err != nil
	})
}

func TestAListenerThatFailsEndsTheServer(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}))
	server, err := api.New(api.Config{Store: fake{}, Tenants: p.directory})
	check(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ended := make(chan error)
	go func() { ended <- server.Serve(t.Context(), ln) }()
	check(t, ln.Close())
	if err := <-ended; err == nil {
		t.Error("Serve returned nil")
	}
}
