package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
)

// journal is a log that others write to while it is read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.text.String(), text)
}

// begin runs a whole API on ports of its own until the test ends.
func begin(t *testing.T, url string) (address string, log *journal, ended chan error) {
	t.Helper()
	f := API{APIListen: "127.0.0.1:0", OpsListen: "127.0.0.1:0", Memory: 1024, MaxPageSize: 100, AllowDataLoss: true}
	l, err := f.Listen()
	check(t, err)
	log, ended = new(journal), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- f.Run(ctx, url, l, slog.New(slog.NewJSONHandler(log, nil)), nil)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l.API.Addr().String(), log, ended
}

func readyz(t *testing.T, address string) (status int, body string) {
	t.Helper()
	r, err := http.Get("http://" + address + "/readyz")
	check(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	check(t, err)
	return r.StatusCode, string(text)
}

func TestAPermanentMistakeEndsTheStart(t *testing.T) {
	t.Parallel()
	_, log, ended := begin(t, dbtest.Empty(t))
	err := <-ended
	if _, ok := errors.AsType[*db.SetupError](err); !ok || !strings.Contains(err.Error(), "vssctl migrate") {
		t.Errorf("Run: %v", err)
	}
	if log.has(`"msg":"serving"`) {
		t.Error("the log says that it serves")
	}
}

func TestADatabaseThatIsDownAtTheStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	proxy := dbtest.NewProxy(t, dbtest.New(t))
	proxy.Down()
	address, log, ended := begin(t, proxy.URL())
	eventually(t, "the log says why it does not serve", func() bool { return log.has("cannot reach the PostgreSQL at") })
	if status, body := readyz(t, address); status != 503 || !strings.Contains(body, "not ready: the database ") {
		t.Errorf("/readyz: HTTP %d %q", status, body)
	}
	if log.has(`"msg":"serving"`) {
		t.Error("the log says that it serves")
	}
	proxy.Up()
	eventually(t, "it serves", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		status, _ := readyz(t, address)
		return status == 200 && log.has(`"msg":"serving"`)
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to this: ", what)
		}
	}
}

func TestTheLogIsJSONOrText(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"json": `"msg":"hello"`, "text": "msg=hello"} {
		log := new(journal)
		API{LogFormat: format}.logTo(log).Info("hello")
		if !log.has(want) {
			t.Errorf("%s: %s", format, log.text.String())
		}
	}
}
