package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/net/http2"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// hangs is a store that honours its context and nothing else.
var hangs = always(func(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", storage.ErrTooLate, ctx.Err())
})

// wantTook checks how long something took: at least what was meant, and not much more on a slow machine.
func wantTook(t testing.TB, began time.Time, least time.Duration) {
	t.Helper()
	if took := time.Since(began); took < least || took > least+4*time.Second {
		t.Errorf("it took %v, want %v", took, least)
	}
}

func TestAStoreThatHangsIsAnsweredForAtTheDeadline(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	p := start(t, over(hangs), within(timeout))
	w := p.wallet(t, "acme", 1)
	for _, c := range calls {
		for _, httpClient := range []*http.Client{p.http, p.http2} {
			began := time.Now()
			a := p.doBy(t, httpClient, w.request(t, c.name, encode(t, c.body)))
			a.want(t, 503, internal)
			wantTook(t, began, timeout)
		}
	}
	if n := p.connections(t); n != 2 {
		t.Errorf("%d connections, want one over HTTP/1.1 and one over HTTP/2", n)
	}
}

func TestADeadlinePassedSpoilsNothingForTheConnection(t *testing.T) {
	t.Parallel()
	hang := true // guarded by one request being made at a time
	p := start(t, within(600*time.Millisecond), over(always(func(ctx context.Context) error {
		if hang {
			<-ctx.Done()
		}
		return ctx.Err()
	})))
	w := p.wallet(t, "acme", 1)
	for name, request := range map[string]string{
		"no body":       w.head(t, "listKeyVersions"),
		"body of 0":     w.head(t, "listKeyVersions", "Content-Length: 0"),
		"empty chunked": w.head(t, "listKeyVersions", "Transfer-Encoding: chunked") + "0\r\n\r\n",
		"body":          w.text(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"}),
	} {
		conn := p.dial(t)
		for i := range 2 {
			hang = true
			conn.send(t, request)
			if a := conn.answer(t); a.status != 503 {
				t.Errorf("%s: HTTP %d at the deadline", name, a.status)
			}
			hang = false
			conn.send(t, request)
			if a := conn.answer(t); a.status != 200 {
				t.Errorf("%s, round %d: HTTP %d %v after the deadline of another request", name, i, a.status, a.error(t))
			}
		}
	}
}

func TestTheDeadlineLeavesTimeToAnswerWithinNineSeconds(t *testing.T) {
	t.Parallel()
	left := make(chan time.Duration, 1)                         // of the call's time, when it gets to its store
	p := start(t, over(always(func(ctx context.Context) error { // as it is when nothing is configured
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		<-ctx.Done()
		return fmt.Errorf("%w: %w", storage.ErrTooLate, ctx.Err())
	})))
	a := p.wallet(t, "acme", 1).put(t, "k", "v")
	a.want(t, 503, internal)
	if left := <-left; left < 7*time.Second || left > 8500*time.Millisecond {
		t.Errorf("it has %v, and then half a second to answer", left)
	}
	if took, _ := p.log.of(t, a)["duration_ms"].(float64); took < 7000 {
		t.Errorf("answered after %v ms", took)
	}
}

func TestABodyThatDoesNotComeIsAnsweredForAtTheDeadline(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	asked := make(chan struct{}, 100)
	p := start(t, within(timeout), over(always(func(context.Context) error { asked <- struct{}{}; return nil })))
	p.create(t, "closed")
	p.set(t, "closed", tenants.Change{State: ptr(tenants.Closed)})
	w := p.wallet(t, "acme", 1)
	body := string(encode(t, put(item("k", -1))))
	for name, tc := range map[string]struct {
		sent   string
		status int
		code   vsspb.ErrorCode
	}{
		"none of it":            {w.head(t, "putObjects", "Content-Length: 100"), 503, internal},
		"all but a byte":        {w.head(t, "putObjects", fmt.Sprint("Content-Length: ", len(body)+1)) + body, 503, internal},
		"a large one":           {w.head(t, "putObjects", "Content-Length: 10000000") + body, 503, internal},
		"no chunk":              {w.head(t, "putObjects", "Transfer-Encoding: chunked"), 503, internal},
		"part of a chunk":       {w.head(t, "putObjects", "Transfer-Encoding: chunked") + "ff\r\n" + body, 503, internal},
		"not the end of chunks": {w.head(t, "putObjects", "Transfer-Encoding: chunked") + fmt.Sprintf("%x\r\n%s\r\n", len(body), body), 503, internal},
		// These are not asked for their body, but net/http wants it off the connection.
		"bad credential, small": {w.head(t, "putObjects", "Content-Length: 100", "Authorization: nonsense"), 401, noAuth},
		"bad credential, large": {w.head(t, "putObjects", "Content-Length: 10000000", "Authorization: nonsense"), 401, noAuth},
		"closed tenant, small":  {p.wallet(t, "closed", 1).head(t, "putObjects", "Content-Length: 100"), 403, internal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := p.dial(t)
			began := time.Now()
			conn.send(t, tc.sent)
			a := conn.answer(t)
			a.want(t, tc.status, tc.code)
			wantTook(t, began, timeout)
			if a.header.Get("Connection") != "close" {
				t.Error("the connection goes on")
			}
			conn.wantClosed(t)
		})
	}
	t.Run("a byte now and then", func(t *testing.T) {
		t.Parallel()
		conn := p.dial(t)
		began := time.Now()
		conn.send(t, w.head(t, "putObjects", "Content-Length: 1000"))
		go func() {
			for {
				time.Sleep(timeout / 10)
				if _, err := conn.Write([]byte{0x0a}); err != nil {
					return
				}
			}
		}()
		conn.answer(t).want(t, 503, internal)
		wantTook(t, began, timeout)
	})
	t.Run("over HTTP/2", func(t *testing.T) {
		t.Parallel()
		c := p.dialHTTP2(t)
		c.request(t, false, [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":authority", "vss.example"}, {":path", w.base + "/putObjects"},
			{"authorization", w.token(t)},
		})
		began := time.Now()
		go func() {
			for c.WriteData(1, false, []byte{0x0a}) == nil {
				time.Sleep(timeout / 10)
			}
		}()
		if got := c.answer(t); !strings.HasPrefix(got, "503 application/octet-stream ") {
			t.Errorf("got %q", got)
		}
		wantTook(t, began, timeout)
	})
	t.Cleanup(func() {
		if len(asked) > 0 {
			t.Error("the store was asked")
		}
	})
}

func TestHeadersThatDoNotComeEndTheConnection(t *testing.T) {
	t.Parallel()
	p := start(t, over(fake{}))
	w := p.wallet(t, "acme", 1)
	for name, tc := range map[string]struct{ sent, answer string }{
		"nothing at all":         {"", ""},
		"part of the first line": {"POST /t/acme/vss/putObjects HT", plain("400 Bad Request", "400 Bad Request")}, // by net/http
		"part of a header":       {strings.TrimSuffix(w.head(t, "putObjects"), "\r\n\r\n"), ""},
		"no empty line":          {strings.TrimSuffix(w.head(t, "putObjects"), "\r\n"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := p.dial(t)
			began := time.Now()
			conn.send(t, tc.sent)
			if got := conn.rest(t); got != tc.answer {
				t.Errorf("got %q", got)
			}
			wantTook(t, began, 5*time.Second-100*time.Millisecond)
		})
	}
	t.Run("part of HTTP/2's preface", func(t *testing.T) {
		t.Parallel()
		conn := p.dial(t)
		began := time.Now()
		conn.send(t, "PRI * HTTP/2.0\r\n\r\nSM")
		conn.answerTo(t, "PRI").want(t, 404, invalid)
		conn.wantClosed(t)
		wantTook(t, began, 5*time.Second-100*time.Millisecond)
	})
	t.Run("a byte now and then", func(t *testing.T) {
		t.Parallel()
		conn := p.dial(t)
		began := time.Now()
		go func() {
			text := iotest.OneByteReader(strings.NewReader(w.head(t, "putObjects")))
			for buf := make([]byte, 1); ; time.Sleep(50 * time.Millisecond) {
				if _, err := text.Read(buf); err != nil {
					return
				}
				if _, err := conn.Write(buf); err != nil {
					return
				}
			}
		}()
		conn.wantClosed(t)
		wantTook(t, began, 5*time.Second-100*time.Millisecond)
	})
	t.Run("of a second request", func(t *testing.T) {
		t.Parallel()
		conn := p.dial(t)
		conn.wantOpen(t)
		began := time.Now()
		conn.send(t, "POST /vss/putObjects HTTP/1.1\r\nHost: x")
		conn.wantClosed(t)
		wantTook(t, began, 5*time.Second-100*time.Millisecond)
	})
}

func TestAClientThatStopsReadingDoesNotKeepTheMemoryOfItsAnswer(t *testing.T) {
	t.Parallel()
	value := make([]byte, 32<<20)
	p := start(t, over(fake{get: func(context.Context, storage.Keyspace, string, storage.Admit) (storage.Object, error) {
		return storage.Object{Key: "k", Version: 1, Value: value}, nil
	}}))
	w := p.wallet(t, "acme", 1)
	get := encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "k"})

	conn := p.dial(t)
	check(t, conn.Conn.(*net.TCPConn).SetReadBuffer(4096))
	conn.send(t, w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}))
	for _, window := range []uint32{64<<10 - 1, 1 << 30} { // the server waits for the stream's window, or for TCP's
		c := p.dialHTTP2(t)
		check(t, c.Conn.(*net.TCPConn).SetReadBuffer(4096))
		check(t, c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}))
		check(t, c.WriteWindowUpdate(0, 1<<30))
		c.request(t, false, [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":authority", "vss.example"}, {":path", w.base + "/getObject"},
			{"authorization", w.token(t)},
		})
		check(t, c.WriteData(1, true, get))
	}

	began := time.Now()
	eventually(t, "the answers are in memory", func() bool { return p.inFlight(t) >= 3*3*int64(len(value)) })
	for p.inFlight(t) != 0 {
		if time.Since(began) > 25*time.Second {
			t.Fatalf("after %v, %d bytes are still held", time.Since(began), p.inFlight(t))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestTheStoreIsToldOfTheDeadlineAndOfAClientThatLeft(t *testing.T) {
	t.Parallel()
	type asked struct {
		remaining time.Duration
		ended     error
	}
	seen := make(chan asked, 1)
	began := make(chan struct{}, 1)
	p := start(t, over(always(func(ctx context.Context) error {
		deadline, _ := ctx.Deadline()
		remaining := time.Until(deadline)
		began <- struct{}{}
		<-ctx.Done()
		seen <- asked{remaining, ctx.Err()}
		return fmt.Errorf("%w: %w", storage.ErrTooLate, ctx.Err())
	})))
	w := p.wallet(t, "acme", 1)
	for _, leaves := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"closes", func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, w.text(t, "putObjects", put(item("k", -1))))
			<-began
			check(t, conn.Close())
		}},
		{"resets", func(t *testing.T) {
			conn := p.dial(t)
			conn.send(t, w.text(t, "putObjects", put(item("k", -1))))
			<-began
			check(t, conn.Conn.(*net.TCPConn).SetLinger(0))
			check(t, conn.Close())
		}},
		{"resets its stream", func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			go func() { <-began; leave() }()
			_, err := p.http2.Do(w.request(t, "putObjects", encode(t, put(item("k", -1)))).WithContext(ctx))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}},
	} {
		t.Run(leaves.name, func(t *testing.T) {
			leaves.do(t)
			got := <-seen
			if got.remaining < 5*time.Second || got.remaining > 8500*time.Millisecond || !errors.Is(got.ended, context.Canceled) {
				t.Errorf("the store had %v, which ended with %v", got.remaining, got.ended)
			}
		})
	}
	// That is no fault of the server's.
	eventually(t, "all are logged", func() bool { return strings.Count(p.log.String(), `"call":"putObjects"`) == 3 })
	if log := p.log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Error("logged as errors: ", log)
	}
}

func TestAPutAnsweredAtItsDeadlineHasNoEffectLater(t *testing.T) {
	t.Parallel()
	p := start(t, within(2*time.Second))
	w := p.wallet(t, "acme", 1)
	w.put(t, "k", "before").wantDone(t)

	owner, err := pgx.Connect(t.Context(), p.database)
	check(t, err)
	defer owner.Close(context.Background())
	tx, err := owner.Begin(t.Context())
	check(t, err)
	_, err = tx.Exec(t.Context(), `SELECT 1 FROM stores FOR UPDATE`)
	check(t, err)
	began := time.Now()
	w.put(t, "k", "zombie").want(t, 503, internal)
	wantTook(t, began, 1900*time.Millisecond)
	w.wantValue(t, "k", "before") // reads wait for no lock
	check(t, tx.Rollback(t.Context()))
	time.Sleep(500 * time.Millisecond)
	w.wantValue(t, "k", "before")
	w.put(t, "k", "after").wantDone(t)
	w.wantValue(t, "k", "after")
}
