package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

func memory(bytes int64) func(*api.Config) {
	return func(cfg *api.Config) { cfg.Memory = bytes }
}

// wantNoneInFlight waits until the server counts no memory for calls: an answer is read before its share is
// given back.
func (p *platform) wantNoneInFlight(t testing.TB, after string) {
	t.Helper()
	eventually(t, "no memory in flight after "+after, func() bool { return p.inFlight(t) == 0 })
}

func TestABodyIsCountedFromItsFirstQuarterToItsAnswer(t *testing.T) {
	t.Parallel()
	p := start(t, memory(1<<20))
	w := p.wallet(t, "acme", 1)
	large := strings.Repeat("v", 200<<10)
	w.put(t, "large", large).wantDone(t)
	w.wantValue(t, "large", large)

	// An upload that goes on holds its share, body and all.
	conn := p.dial(t)
	body := encode(t, put(&vsspb.KeyValue{Key: "slow", Version: -1, Value: []byte(large)}))
	conn.send(t, w.head(t, "putObjects", fmt.Sprint("Content-Length: ", len(body))))
	eventually(t, "the upload is counted", func() bool { return p.inFlight(t) == 3*4<<10 })
	conn.send(t, string(body[:len(body)/2]))
	eventually(t, "all of it is counted", func() bool { return p.inFlight(t) == 3*int64(len(body)) })

	// Nothing else of its size fits: no body, however it is framed, and no answer.
	w.put(t, "other", large).want(t, 503, internal)
	r := w.request(t, "putObjects", encode(t, put(&vsspb.KeyValue{Key: "other", Version: -1, Value: []byte(large)})))
	r.ContentLength = -1
	p.do(t, r).want(t, 503, internal)
	w.get(t, "large").want(t, 503, internal)
	// But small calls do.
	w.put(t, "small", "v").wantDone(t)
	w.wantValue(t, "small", "v")
	w.get(t, "other").want(t, 404, noSuch)
	w.call(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"}).wantOK(t, nil)

	conn.send(t, string(body[len(body)/2:]))
	conn.answer(t).wantDone(t)
	p.wantNoneInFlight(t, "the upload")
	w.put(t, "other", large).wantDone(t)
	w.wantValue(t, "large", large)
	w.wantValue(t, "slow", large)
}

func TestAChunkedBodyIsCountedAsItGrows(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}), memory(1<<20))
	w := p.wallet(t, "acme", 1)
	conn := p.dial(t)
	conn.send(t, w.head(t, "putObjects", "Transfer-Encoding: chunked"))
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 10<<10, make([]byte, 10<<10))
	for sent := int64(10 << 10); sent <= 200<<10; sent += 10 << 10 {
		conn.send(t, chunk)
		eventually(t, "what was sent is counted", func() bool { return p.inFlight(t) >= 3*sent })
	}
	conn.send(t, strings.Repeat(chunk, 20)+"0\r\n\r\n") // which does not fit
	conn.answer(t).want(t, 503, internal)
	p.wantNoneInFlight(t, "it did not fit")
}

// knowing lets a platform tell known wallets from strangers, as after a start: it knows nobody. The function says which
// wallets have written.
func knowing(enrolled func(storage.WalletID) bool) func(*api.Config) {
	return func(cfg *api.Config) {
		cfg.Quota.Limiter = quota.NewLimiter(quota.LimiterConfig{})
		cfg.Quota.Standing = func(_ context.Context, w storage.WalletID) (bool, bool, error) { return enrolled(w), false, nil }
	}
}

func nobody(storage.WalletID) bool { return false }

// upload begins a put of so many bytes, of which it sends a part.
func (w *wallet) upload(t testing.TB, length, part int64) *wire {
	t.Helper()
	conn := w.dial(t)
	conn.send(t, w.head(t, "putObjects", fmt.Sprint("Content-Length: ", length)))
	_, err := io.Copy(conn.Conn, io.LimitReader(zeros{}, part))
	check(t, err)
	return conn
}

func TestUploadsThatStrangersAnnounceAndDoNotSendRefuseNobody(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}), knowing(nobody))
	p.create(t, "globex")
	known := p.wallet(t, "acme", 1)
	known.put(t, "k", "v").wantDone(t)
	const uploads = 20
	for i := range uploads {
		p.wallet(t, "globex", byte(10+i)).upload(t, 104_300_000, 0)
	}
	eventually(t, "all are counted", func() bool { return p.inFlight(t) == uploads*3*4<<10 })
	known.put(t, "k", strings.Repeat("v", 1<<20)).wantDone(t)
	p.wallet(t, "globex", 1).put(t, "k", strings.Repeat("v", 1<<20)).wantDone(t) // nor another stranger
	known.upload(t, 100<<20, 50<<20)
	eventually(t, "a body of 100 MiB fits", func() bool { return p.inFlight(t) >= 300<<20 })
}

func TestIdleUploadsOfStrangersRefuseNoKnownWallet(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}), knowing(nobody))
	p.create(t, "globex")
	known := p.wallet(t, "acme", 1)
	known.put(t, "k", "v").wantDone(t)
	p.wallet(t, "globex", 10).upload(t, 100<<20, 50<<20)
	eventually(t, "a stranger holds all of a body", func() bool { return p.inFlight(t) == 300<<20 })
	for i := range byte(3) {
		p.wallet(t, "globex", 11+i).upload(t, 100<<20, 0).answer(t).want(t, 503, internal) // before any is sent
	}
	known.put(t, "k", strings.Repeat("v", 1<<20)).wantDone(t)
	known.upload(t, 100<<20, 50<<20)
	eventually(t, "a body of 100 MiB fits beside it", func() bool { return p.inFlight(t) == 600<<20 })
	p.wallet(t, "globex", 20).put(t, "k", "v").wantDone(t) // small ones of strangers go on
}

func TestATenantLeavesRoomForABodyOf100MiBOfAnother(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}), knowing(nobody))
	p.create(t, "globex")
	p.set(t, "globex", limitedTo(tenants.MaxBodySize))
	w, other := p.wallet(t, "acme", 1), p.wallet(t, "globex", 1)
	w.put(t, "k", "v").wantDone(t)
	other.put(t, "k", "v").wantDone(t)
	for _, size := range []int64{100 << 20, 50 << 20} {
		before := p.inFlight(t)
		w.upload(t, size, size/2)
		eventually(t, "it fits", func() bool { return p.inFlight(t) == before+3*size })
	}
	w.upload(t, 10<<20, 0).answer(t).want(t, 503, internal)
	w.put(t, "k", "v").wantDone(t)
	conn := other.upload(t, 100<<20, 50<<20)
	eventually(t, "the other's fits", func() bool { return p.inFlight(t) == 3*(100+50+100)<<20 })
	check(t, conn.Close())
}

func TestATenantsOnlyLargeCallMayHaveAllThatLargeCallsShare(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}), knowing(nobody))
	p.set(t, "acme", limitedTo(tenants.MaxBodySize))
	w := p.wallet(t, "acme", 1)
	w.put(t, "k", "v").wantDone(t)
	w.upload(t, tenants.MaxBodySize, tenants.MaxBodySize/2)
	eventually(t, "it fits", func() bool { return p.inFlight(t) == 3*tenants.MaxBodySize })
}

// An instance that has just started knows nobody, and a wallet's next write may be its largest.
func TestAWalletNotSeenYetIsLookedUpBeforeItIsRefused(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var owner atomic.Value // of the wallet that has written
	owner.Store(storage.WalletID{})
	value := make([]byte, 40<<20)
	p := start(t, knowing(func(w storage.WalletID) bool { asked.Add(1); return w == owner.Load() }), over(fake{
		get: func(_ context.Context, _ storage.Keyspace, key string, admit storage.Admit) (storage.Object, error) {
			return storage.Object{Key: key, Version: 1, Value: value}, admit(int64(len(value)))
		},
		list: func(_ context.Context, ks storage.Keyspace, _ storage.ListRequest) (storage.Page, error) {
			owner.Store(ks.Wallet())
			return storage.Page{}, nil
		},
	}))
	stranger, writer, reader := p.wallet(t, "acme", 10), p.wallet(t, "acme", 1), p.wallet(t, "acme", 2)
	writer.list(t).wantOK(t, nil) // which tells the test who it is
	conn := stranger.upload(t, 70<<20, 35<<20)
	eventually(t, "a stranger holds its body", func() bool { return p.inFlight(t) == 210<<20 })
	p.wallet(t, "acme", 11).upload(t, 50<<20, 0).answer(t).want(t, 503, internal)
	if n := asked.Swap(0); n != 1 {
		t.Errorf("asked %d times for a stranger", n)
	}
	writer.put(t, "k", string(value)).wantDone(t)
	writer.put(t, "k", string(value)).wantDone(t)
	if n := asked.Swap(0); n != 1 {
		t.Errorf("asked %d times for one that has written", n)
	}
	reader.wantValue(t, "k", string(value)) // who has a value has written it
	if n := asked.Load(); n != 0 {
		t.Errorf("asked %d times for one that has a value", n)
	}
	check(t, conn.Close())
	p.wantNoneInFlight(t, "all")
}

func TestALargeAnswerIsAskedForBeforeItIsRead(t *testing.T) {
	t.Parallel()
	read := false
	p := start(t, memory(1<<20), over(fake{get: func(_ context.Context, _ storage.Keyspace, _ string, admit storage.Admit) (storage.Object, error) {
		if err := admit(1 << 20); err != nil {
			return storage.Object{}, err
		}
		read = true
		return storage.Object{}, nil
	}}))
	p.wallet(t, "acme", 1).get(t, "k").want(t, 503, internal)
	if read {
		t.Error("the value was read")
	}
}

func TestNoMemoryIsHeldAfterAnyOutcome(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("v", 300<<10)
	what := make(chan func(context.Context) error, 1)
	p := start(t, within(time.Second), memory(4<<20), over(fake{
		get: func(ctx context.Context, _ storage.Keyspace, _ string, admit storage.Admit) (storage.Object, error) {
			if err := admit(int64(len(value))); err != nil {
				return storage.Object{}, err
			}
			return storage.Object{Key: "k", Version: 1, Value: []byte(value)}, (<-what)(ctx)
		},
		put: func(ctx context.Context, _ storage.Keyspace, _ storage.Batch) error { return (<-what)(ctx) },
	}))
	w := p.wallet(t, "acme", 1)
	nothing := func(context.Context) error { return nil }
	body := encode(t, put(&vsspb.KeyValue{Key: "k", Version: -1, Value: []byte(value)}))
	length := fmt.Sprint("Content-Length: ", len(body))
	tcp := func(conn *wire) *net.TCPConn { return conn.Conn.(*net.TCPConn) }
	held := func(t *testing.T) {
		eventually(t, "the call is counted", func() bool { return p.inFlight(t) > 0 })
	}

	for _, outcome := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"done", func(t *testing.T) { what <- nothing; w.put(t, "k", value).wantDone(t) }},
		{"answered", func(t *testing.T) { what <- nothing; w.wantValue(t, "k", value) }},
		{"conflict", func(t *testing.T) {
			what <- func(context.Context) error { return storage.ErrConflict }
			w.put(t, "k", value).want(t, 409, conflict)
		}},
		{"fault", func(t *testing.T) {
			what <- func(context.Context) error { return errors.New("fault") }
			w.get(t, "k").want(t, 500, internal)
		}},
		{"panic", func(t *testing.T) {
			what <- func(context.Context) error { panic("x") }
			w.put(t, "k", value).want(t, 500, internal)
			what <- func(context.Context) error { panic("x") }
			w.get(t, "k").want(t, 500, internal)
		}},
		{"cut short", func(t *testing.T) {
			what <- func(context.Context) error { panic(http.ErrAbortHandler) }
			if _, err := p.http.Do(w.request(t, "putObjects", body)); err == nil {
				t.Error("an answer")
			}
		}},
		{"deadline", func(t *testing.T) {
			what <- func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			w.put(t, "k", value).want(t, 503, internal)
		}},
		{"malformed", func(t *testing.T) {
			p.do(t, w.request(t, "putObjects", append([]byte{0xff}, body...))).want(t, 400, invalid)
		}},
		{"does not fit", func(t *testing.T) { w.put(t, "k", strings.Repeat("v", 2<<20)).want(t, 503, internal) }},
		{"slow", func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, w.head(t, "putObjects", length))
			held(t)
			conn.answer(t).want(t, 503, internal)
		}},
		{"broken framing", func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, w.head(t, "putObjects", "Transfer-Encoding: chunked")+"zz\r\n")
			conn.answer(t).want(t, 400, invalid)
		}},
		{"upload ended", func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, w.head(t, "putObjects", length)+string(body[:1000]))
			held(t)
			check(t, tcp(conn).CloseWrite())
			conn.answer(t).want(t, 400, invalid)
		}},
		{"upload reset", func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, w.head(t, "putObjects", length)+string(body[:1000]))
			held(t)
			check(t, tcp(conn).SetLinger(0))
			check(t, conn.Close())
		}},
		{"chunked upload reset", func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, w.head(t, "putObjects", "Transfer-Encoding: chunked")+"fffff\r\n"+string(body[:100_000]))
			held(t)
			check(t, tcp(conn).SetLinger(0))
			check(t, conn.Close())
		}},
		{"client left while the store worked", func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, w.head(t, "putObjects", length)+string(body))
			working := make(chan struct{})
			what <- func(ctx context.Context) error {
				close(working)
				<-ctx.Done()
				return ctx.Err()
			}
			<-working
			check(t, conn.Close())
		}},
		{"client left before its answer", func(t *testing.T) {
			conn := p.dial(t)
			check(t, tcp(conn).SetReadBuffer(4096))
			conn.send(t, w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}))
			what <- nothing
			_, err := conn.in.ReadByte()
			check(t, err)
			check(t, tcp(conn).SetLinger(0))
			check(t, conn.Close())
		}},
		{"stream reset", func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			r := w.request(t, "putObjects", nil).WithContext(ctx)
			r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("x"), waits{ctx})), 1000
			go func() { held(t); leave() }()
			if _, err := p.http2.Do(r); err == nil {
				t.Error("an answer")
			}
		}},
	} {
		t.Run(outcome.name, func(t *testing.T) {
			outcome.do(t)
			p.wantNoneInFlight(t, outcome.name)
		})
	}
	what <- nothing
	w.put(t, "k", value).wantDone(t) // all of it can be had again
}

// waits is a body that does not come before the context ends.
type waits struct{ ctx context.Context }

func (w waits) Read([]byte) (int, error) { <-w.ctx.Done(); return 0, w.ctx.Err() }

// heap samples how much of the heap is in use until the function returned is called, which tells the most.
func heap(t testing.TB) (peak func() int64) {
	t.Helper()
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	var most int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			metrics.Read(sample)
			most = max(most, int64(sample[0].Value.Uint64()))
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() int64 { close(stop); <-stopped; return most }
}

// putOf is the body of a put of one value of so many zero bytes, made as it is read.
func putOf(key string, size int64) (body io.Reader, length int64) {
	bytesTag := func(b []byte, number protowire.Number, length uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.BytesType), length)
	}
	kv := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key)
	kv = protowire.AppendVarint(protowire.AppendTag(kv, 2, protowire.VarintType), 1<<64-1)
	kv = bytesTag(kv, 3, uint64(size))
	head := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "s")
	head = append(bytesTag(head, 3, uint64(len(kv))+uint64(size)), kv...)
	return io.MultiReader(strings.NewReader(string(head)), io.LimitReader(zeros{}, size)), int64(len(head)) + size
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// These tests are not parallel: they measure the heap of the process.

func TestAHundredBodiesOf100MiBNeverTakeMoreMemoryThanThereIs(t *testing.T) {
	const limit, slack = 1 << 30, 512 << 20
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(limit + slack)) // as the service does
	// A store that holds a value as the real one does: as it was given, as a parameter and as a message.
	var held fake
	held.put = func(ctx context.Context, _ storage.Keyspace, b storage.Batch) error {
		for _, w := range b.Writes {
			parameter := slices.Clone(w.Value)
			message := slices.Clone(parameter)
			time.Sleep(200 * time.Millisecond)
			runtime.KeepAlive(parameter)
			runtime.KeepAlive(message)
		}
		return ctx.Err()
	}
	p := start(t, memory(limit), over(held))
	peak := heap(t)
	var bodies sync.WaitGroup
	var done, overloaded, cut atomic.Int64
	for i := range 100 {
		bodies.Go(func() {
			body, length := putOf("large", 100<<20-100)
			r := p.wallet(t, "acme", byte(10+i)).request(t, "putObjects", nil)
			r.Body, r.ContentLength = io.NopCloser(body), length
			resp, err := p.http.Do(r)
			switch {
			case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
				// The server does not read on what it has refused for want of memory, nor does it write after
				// 12 s. A client that sends on without a look at the answer finds the connection closed, and
				// tries again as after a 503.
				cut.Add(1)
				return
			case err != nil:
				t.Error("no answer: ", err)
				return
			}
			switch a := read(t, resp); a.status {
			case 200:
				done.Add(1)
			default:
				a.want(t, 503, internal)
				overloaded.Add(1)
			}
		})
	}
	// Meanwhile small calls go on.
	uploading := make(chan struct{})
	go func() { defer close(uploading); bodies.Wait() }()
	w, small := p.wallet(t, "acme", 1), 0
	for going := true; going; small++ {
		w.get(t, "k").wantOK(t, nil)
		w.call(t, "deleteObject", &vsspb.DeleteObjectRequest{KeyValue: item("k", -1)}).wantDone(t)
		select {
		case <-uploading:
			going = false
		case <-time.After(time.Millisecond):
		}
	}
	most := peak()
	t.Logf("%d done, %d overloaded, %d cut off, %d small calls meanwhile; peak of the heap %d MiB",
		done.Load(), overloaded.Load(), cut.Load(), 2*small, most>>20)
	if overloaded.Load() < 50 { // on a slow machine the others come too late to be done
		t.Error("few were told that it was too much")
	}
	if most > limit+slack {
		t.Errorf("the heap grew to %d MiB", most>>20)
	}
	p.wantNoneInFlight(t, "the flood")
}

func TestALargeValueComesBackAsItWas(t *testing.T) {
	p := start(t)
	w := p.wallet(t, "acme", 1)
	value := make([]byte, 10<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(value)
	w.put(t, "large", string(value)).wantDone(t)
	w.wantValue(t, "large", string(value))
	p.wantNoneInFlight(t, "it")
}

func TestABodyOfManyItemsTakesNoMoreMemoryThanOneOfOne(t *testing.T) {
	p := start(t, over(fake{}))
	w := p.wallet(t, "acme", 1)
	const size = 8 << 20
	for name, pattern := range map[string]string{
		"items to write":      "\x1a\x00",
		"items to delete":     "\x22\x00",
		"store ids":           "\x0a\x00",
		"unknown fields":      "\x7a\x00",
		"unknown groups":      "\x7b\x7c",
		"one item's unknowns": "\x7a\x00",
	} {
		body := []byte(strings.Repeat(pattern, size/2))
		if name == "one item's unknowns" {
			body = protowire.AppendBytes([]byte{0x1a}, body)
		}
		debug.FreeOSMemory()
		peak := heap(t)
		a := p.do(t, w.request(t, "putObjects", body))
		most := peak() - int64(len(body))*2 // of which the client has one, and the string before it
		t.Logf("%s: HTTP %d, the heap grew to %d MiB", name, a.status, most>>20)
		if strings.HasPrefix(name, "items") {
			a.want(t, 400, invalid)
		}
		if most > 4*size {
			t.Errorf("%s: the heap grew to %d MiB for a body of %d", name, most>>20, size>>20)
		}
	}
}
