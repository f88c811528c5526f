package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestAServerThatNeverAnswersHoldsUpNoOtherTenant(t *testing.T) {
	t.Parallel()
	c := New(Config{AllowPrivate: true, Timeout: time.Hour})
	var held, most atomic.Int64
	stuck := make([]string, 10) // hosts
	for i := range stuck {
		stuck[i] = "http://" + listen(t, "127.0.0.1:0", func(conn net.Conn) {
			readRequest(conn)
			most.Store(max(most.Load(), held.Add(1)))
			hold(conn)
		})
	}
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("keys")) }))
	defer good.Close()

	ctx, cancel := context.WithCancel(t.Context())
	hostile, victim := uuid.New(), uuid.New()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i := range 200 {
		running.Go(func() { _, _ = c.GetFor(ctx, hostile, stuck[i%len(stuck)], nil) })
	}
	for waiting := func() int { c.turns.mu.Lock(); defer c.turns.mu.Unlock(); return len(c.turns.waiting) }; waiting() < 200-64; {
		time.Sleep(time.Millisecond)
	}
	// No exchange of the hostile tenant ends before the test does.
	for range 50 {
		if got, err := c.GetFor(t.Context(), victim, good.URL, nil); err != nil || string(got.Body) != "keys" {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	if n := most.Load(); n > 64/8 {
		t.Errorf("the hostile tenant had %d exchanges at once, want at most %d", n, 64/8)
	}
}

func TestAHostThatNeverAnswersLeavesTurnsToItsTenantsOthers(t *testing.T) {
	t.Parallel()
	turns, tenant := newTurns(64), uuid.New()
	for range 64 / 16 {
		if _, err := turns.take(t.Context(), visit{tenant, "stuck"}); err != nil {
			t.Fatal(err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for range 100 { // those who leave the line take nothing along
		if _, err := turns.take(ended, visit{tenant, "stuck"}); !errors.Is(err, context.Canceled) {
			t.Fatal("a fifth turn of the host: ", err)
		}
	}
	for i := range 64/8 - 64/16 {
		if _, err := turns.take(t.Context(), visit{tenant, fmt.Sprint("host ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := turns.take(ended, visit{tenant, "one more"}); !errors.Is(err, context.Canceled) {
		t.Error("a ninth turn of the tenant: ", err)
	}
}

func TestAHostThatNeverAnswersLeavesTurnsToOtherHostsOfAll(t *testing.T) {
	t.Parallel()
	turns := newTurns(64)
	for range 64 / 4 {
		if _, err := turns.take(t.Context(), visit{uuid.New(), "stuck"}); err != nil {
			t.Fatal(err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := turns.take(ended, visit{uuid.New(), "stuck"}); !errors.Is(err, context.Canceled) {
		t.Error("a seventeenth turn of the host: ", err)
	}
	if _, err := turns.take(t.Context(), visit{uuid.New(), "good"}); err != nil {
		t.Error(err)
	}
}

func TestAFreeTurnGoesToTheTenantWithTheFewest(t *testing.T) {
	t.Parallel()
	turns, quiet := newTurns(64), uuid.New()
	var leaves []func()
	for range 8 {
		tenant := uuid.New()
		for i := range 8 {
			leave, err := turns.take(t.Context(), visit{tenant, fmt.Sprint(tenant, i)})
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
		}
	}
	waiting := func() int { turns.mu.Lock(); defer turns.mu.Unlock(); return len(turns.waiting) }
	called := make(chan string, 2)
	wait := func(name string, v visit) {
		before := waiting()
		go func() {
			if leave, err := turns.take(t.Context(), v); err == nil {
				called <- name
				leave()
			}
		}()
		for waiting() == before {
			time.Sleep(time.Millisecond)
		}
	}
	busy := uuid.New()
	turns.mu.Lock()
	turns.tenants[busy] = 3 // of those that are taken
	turns.mu.Unlock()
	wait("busy", visit{busy, "a"})
	wait("quiet", visit{quiet, "a"})
	leaves[0]()
	if first := <-called; first != "quiet" {
		t.Errorf("the turn went to the %s tenant", first)
	}
}
