package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is one that the server was sent.
type request struct {
	path   string
	header http.Header
	proto  string
	body   []byte
}

// server answers each request with the next of its answers, and the last one for ever.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	answers  []http.HandlerFunc
	conns    int
}

func serve(t *testing.T, answers ...http.HandlerFunc) *server {
	t.Helper()
	s := &server{answers: answers}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests = append(s.requests, request{r.URL.Path, r.Header.Clone(), r.Proto, body})
		answer := s.answers[min(len(s.requests), len(s.answers))-1]
		s.mu.Unlock()
		answer(w, r)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
		}
	}
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *server) seen() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// clientOf is a client of the server that does not really sleep.
func clientOf(t *testing.T, s *server, change func(*client.Config)) *client.Client {
	t.Helper()
	cfg := client.Config{
		BaseURL: s.URL + "/t/demo/vss",
		Sleep:   func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	if change != nil {
		change(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func attempts(n int) func(*client.Config) {
	return func(cfg *client.Config) { cfg.Retry.MaxAttempts = n }
}

func status(code int, msg proto.Message) http.HandlerFunc {
	body, err := proto.Marshal(msg)
	if err != nil {
		panic(err)
	}
	return raw(code, body)
}

func raw(code int, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("vss-protocol-version", "0")
		w.Header().Set("X-Request-Id", "r1")
		w.WriteHeader(code)
		_, _ = w.Write(body)
	}
}

func failure(code int, e vsspb.ErrorCode) http.HandlerFunc {
	return status(code, &vsspb.ErrorResponse{ErrorCode: e, Message: "because"})
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

var (
	done  = status(200, &vsspb.PutObjectResponse{})
	value = status(200, &vsspb.GetObjectResponse{Value: &vsspb.KeyValue{Key: "k", Version: 3, Value: []byte("v")}})
	busy  = failure(503, vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION)

	get = &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}
	put = &vsspb.PutObjectRequest{StoreId: "s", TransactionItems: []*vsspb.KeyValue{{Key: "k", Version: -1, Value: []byte("v")}}}
)

func TestEachCallGoesToItsPathWithItsMessage(t *testing.T) {
	s := serve(t,
		value, done, status(200, &vsspb.DeleteObjectResponse{}),
		status(200, &vsspb.ListKeyVersionsResponse{NextPageToken: proto.String("")}))
	c := clientOf(t, s, func(cfg *client.Config) {
		cfg.BaseURL += "/" // makes no difference
		cfg.Header = http.Header{"X-Client-Key": {"pk"}}
	})
	del := &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: &vsspb.KeyValue{Key: "k", Version: 2}}
	list := &vsspb.ListKeyVersionsRequest{StoreId: "s", PageSize: proto.Int32(7)}

	got, err := c.GetObject(t.Context(), get)
	if err != nil || got.GetValue().GetVersion() != 3 || string(got.GetValue().GetValue()) != "v" {
		t.Errorf("get: %v, %v", got, err)
	}
	if _, err := c.PutObjects(t.Context(), put); err != nil {
		t.Errorf("put: %v", err)
	}
	if _, err := c.DeleteObject(t.Context(), del); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := c.ListKeyVersions(t.Context(), list); err != nil {
		t.Errorf("list: %v", err)
	}

	want := []struct {
		call string
		msg  proto.Message
	}{{"getObject", get}, {"putObjects", put}, {"deleteObject", del}, {"listKeyVersions", list}}
	seen := s.seen()
	if len(seen) != len(want) {
		t.Fatalf("%d requests, want %d", len(seen), len(want))
	}
	for i, r := range seen {
		if r.path != "/t/demo/vss/"+want[i].call {
			t.Errorf("path %s, want %s", r.path, want[i].call)
		}
		sent := want[i].msg.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(r.body, sent); err != nil || !proto.Equal(sent, want[i].msg) {
			t.Errorf("%s sent %v (%v), want %v", want[i].call, sent, err, want[i].msg)
		}
		if ct := r.header.Get("Content-Type"); ct != "application/octet-stream" {
			t.Errorf("%s has content-type %q", want[i].call, ct)
		}
		if r.header.Get("X-Client-Key") != "pk" {
			t.Errorf("%s lacks the fixed header", want[i].call)
		}
	}
}

func TestAny2xxIsASuccess(t *testing.T) {
	for _, code := range []int{200, 201, 202, 204, 299} {
		if _, err := clientOf(t, serve(t, raw(code, nil)), nil).PutObjects(t.Context(), put); err != nil {
			t.Errorf("%d with an empty body: %v", code, err)
		}
	}
}

func TestAnAnswerWithoutExactlyVersion0IsFinal(t *testing.T) {
	for name, versions := range map[string][]string{
		"none": nil, "1": {"1"}, "00": {"00"}, "empty": {""}, "twice": {"0", "0"}, "list": {"0, 0"},
	} {
		for _, code := range []int{200, 404, 500, 502} {
			t.Run(fmt.Sprintf("%s/%d", name, code), func(t *testing.T) {
				s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header()["Vss-Protocol-Version"] = versions
					w.WriteHeader(code)
				})
				_, err := clientOf(t, s, nil).PutObjects(t.Context(), put)
				if !errors.Is(err, client.ErrProtocol) || len(s.seen()) != 1 {
					t.Errorf("%v after %d attempts, want ErrProtocol after 1", err, len(s.seen()))
				}
			})
		}
	}
}

func TestEachErrorCodeHasItsSentinelAndItsRetries(t *testing.T) {
	for _, tc := range []struct {
		answer   http.HandlerFunc
		want     error
		attempts int
	}{
		{failure(409, vsspb.ErrorCode_CONFLICT_EXCEPTION), client.ErrConflict, 1},
		{failure(400, vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION), client.ErrInvalidRequest, 1},
		{failure(404, vsspb.ErrorCode_NO_SUCH_KEY_EXCEPTION), client.ErrNoSuchKey, 1},
		{failure(401, vsspb.ErrorCode_AUTH_EXCEPTION), client.ErrAuth, 14},
		{failure(500, vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION), client.ErrInternalServer, 14},
		// It is the code that decides, not the status.
		{failure(500, vsspb.ErrorCode_CONFLICT_EXCEPTION), client.ErrConflict, 1},
		{failure(409, vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION), client.ErrInternalServer, 14},
		{failure(404, vsspb.ErrorCode_UNKNOWN), client.ErrInternalServer, 14},
		{failure(404, 77), client.ErrInternalServer, 14},
		{raw(409, nil), client.ErrInternalServer, 14},
		{raw(409, []byte("<html>Conflict</html>")), client.ErrInternalServer, 14},
		{raw(400, bytes.Repeat([]byte{0x12, 0x00}, 40<<10)), client.ErrInternalServer, 14}, // 80 KiB
	} {
		s := serve(t, tc.answer)
		_, err := clientOf(t, s, nil).GetObject(t.Context(), get)
		if !errors.Is(err, tc.want) || len(s.seen()) != tc.attempts {
			t.Errorf("%v after %d attempts, want %q after %d", err, len(s.seen()), tc.want, tc.attempts)
		}
		if e, ok := errors.AsType[*client.Error](err); !ok || e.RequestID != "r1" || e.Attempts != tc.attempts {
			t.Errorf("%#v, want an Error of request r1 after %d attempts", e, tc.attempts)
		}
	}
}

func TestAnErrorSaysWhatTheServerSaid(t *testing.T) {
	_, err := clientOf(t, serve(t, failure(409, vsspb.ErrorCode_CONFLICT_EXCEPTION)), nil).PutObjects(t.Context(), put)
	if want := "putObjects: conflict: because (HTTP 409, request r1)"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestARetryThatSucceedsIsASuccess(t *testing.T) {
	s := serve(t, busy, hangUp, failure(401, vsspb.ErrorCode_AUTH_EXCEPTION), raw(200, []byte{0xff}), value)
	got, err := clientOf(t, s, nil).GetObject(t.Context(), get)
	if err != nil || got.GetValue().GetVersion() != 3 || len(s.seen()) != 5 {
		t.Errorf("%v, %v after %d attempts, want version 3 after 5", got, err, len(s.seen()))
	}
}

func TestASuccessfulGetHasAValue(t *testing.T) {
	s := serve(t, raw(200, nil), value)
	got, err := clientOf(t, s, nil).GetObject(t.Context(), get)
	if err != nil || got.GetValue() == nil || len(s.seen()) != 2 {
		t.Errorf("%v, %v after %d attempts, want a value after 2", got, err, len(s.seen()))
	}
}

func TestRetriesSendIdenticalBytesWithAFreshCredential(t *testing.T) {
	s := serve(t, busy, hangUp, failure(401, vsspb.ErrorCode_AUTH_EXCEPTION), done)
	now := time.Unix(1_700_000_000, 0)
	c := clientOf(t, s, func(cfg *client.Config) {
		cfg.Auth = authFunc(func(_ context.Context, now time.Time) (string, error) {
			return fmt.Sprint("token of ", now.Unix()), nil
		})
		cfg.Now = func() time.Time { return now }
		cfg.Sleep = func(context.Context, time.Duration) error { now = now.Add(time.Second); return nil }
	})
	if _, err := c.PutObjects(t.Context(), put); err != nil {
		t.Fatal(err)
	}
	for i, r := range s.seen() {
		if !bytes.Equal(r.body, s.seen()[0].body) {
			t.Errorf("attempt %d sent other bytes", i+1)
		}
		if got, want := r.header["Authorization"], fmt.Sprint("token of ", 1_700_000_000+i); !slices.Equal(got, []string{want}) {
			t.Errorf("attempt %d sent %q, want %q", i+1, got, want)
		}
	}
}

func TestACredentialThatCannotBeMadeIsRetriedAsAuth(t *testing.T) {
	s := serve(t, value)
	tries := 0
	c := clientOf(t, s, func(cfg *client.Config) {
		cfg.Auth = authFunc(func(context.Context, time.Time) (string, error) {
			if tries++; tries < 3 {
				return "", io.ErrUnexpectedEOF
			}
			return "token", nil
		})
	})
	if _, err := c.GetObject(t.Context(), get); err != nil || len(s.seen()) != 1 {
		t.Errorf("%v with %d requests, want success with 1", err, len(s.seen()))
	}

	c = clientOf(t, s, func(cfg *client.Config) {
		cfg.Auth = authFunc(func(context.Context, time.Time) (string, error) { return "", io.ErrUnexpectedEOF })
	})
	if _, err := c.GetObject(t.Context(), get); !errors.Is(err, client.ErrAuth) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want ErrAuth and what Auth said", err)
	}
}

func TestAConflictAfterAnUnansweredPutTellsOfTheAttemptsBefore(t *testing.T) {
	s := serve(t, hangUp, failure(409, vsspb.ErrorCode_CONFLICT_EXCEPTION))
	_, err := clientOf(t, s, nil).PutObjects(t.Context(), put)
	if e, ok := errors.AsType[*client.Error](err); !ok || !errors.Is(err, client.ErrConflict) || e.Attempts != 2 {
		t.Errorf("%v, want a conflict at attempt 2", err)
	}
}

func TestDelaysDoubleAndStayWithinTheContractsWindow(t *testing.T) {
	var delays []time.Duration
	c := clientOf(t, serve(t, busy), func(cfg *client.Config) {
		cfg.Sleep = func(_ context.Context, d time.Duration) error { delays = append(delays, d); return nil }
	})
	if _, err := c.GetObject(t.Context(), get); !errors.Is(err, client.ErrInternalServer) {
		t.Fatal(err)
	}
	if len(delays) != 13 {
		t.Fatalf("%d delays, want 13: %v", len(delays), delays)
	}
	var sum time.Duration
	for i, d := range delays {
		least := 10 * time.Millisecond * (1<<(i+1) - 1)
		if d < least || d >= least+100*time.Millisecond {
			t.Errorf("delay %d is %v, want %v and less than 100ms of jitter", i+1, d, least)
		}
		sum += d
	}
	if sum < 163*time.Second || sum > 166*time.Second {
		t.Errorf("%v of sleeping, want about 164 s", sum)
	}
}

func TestTheSumOfDelaysIsBounded(t *testing.T) {
	for _, base := range []time.Duration{time.Second, 1000 * time.Hour} {
		var sum time.Duration
		c := clientOf(t, serve(t, busy), func(cfg *client.Config) {
			cfg.Retry = client.Retry{Base: base, MaxAttempts: 1000, MaxJitter: -1, MaxDelay: 12 * time.Second}
			cfg.Sleep = func(_ context.Context, d time.Duration) error { sum += d; return nil }
		})
		_, err := c.GetObject(t.Context(), get)
		if want := map[bool]time.Duration{true: 11 * time.Second}[base == time.Second]; err == nil || sum != want { // 1 + 3 + 7
			t.Errorf("%v of sleeping with base %v, want %v (%v)", sum, base, want, err)
		}
	}
}

func TestOneAttemptIsNeverRetried(t *testing.T) {
	s := serve(t, busy)
	if _, err := clientOf(t, s, attempts(1)).GetObject(t.Context(), get); err == nil || len(s.seen()) != 1 {
		t.Errorf("%v after %d attempts", err, len(s.seen()))
	}
}

func TestEveryAttemptHasADeadline(t *testing.T) {
	for name, slow := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("vss-protocol-version", "0")
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, slow, value)
			c := clientOf(t, s, func(cfg *client.Config) { cfg.AttemptTimeout = 200 * time.Millisecond })
			if _, err := c.GetObject(t.Context(), get); err != nil || len(s.seen()) != 2 {
				t.Errorf("%v after %d attempts, want success after 2", err, len(s.seen()))
			}
		})
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	t.Run("while it sleeps", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		c := clientOf(t, serve(t, busy), func(cfg *client.Config) {
			cfg.Sleep = nil // the real one
			cfg.Retry.Base = time.Minute
		})
		_, err := c.GetObject(ctx, get)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, client.ErrInternalServer) {
			t.Errorf("%v, want both the context's error and the last answer", err)
		}
	})
	t.Run("while it waits for an answer", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
		_, err := clientOf(t, s, nil).GetObject(ctx, get)
		if !errors.Is(err, context.Canceled) || len(s.seen()) != 1 {
			t.Errorf("%v after %d attempts, want canceled after 1", err, len(s.seen()))
		}
	})
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := serve(t, value)
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("vss-protocol-version", "0")
			http.Redirect(w, r, elsewhere.URL, code)
		})
		c := clientOf(t, s, func(cfg *client.Config) {
			cfg.HTTPClient = s.Client() // one that would
			cfg.Retry.MaxAttempts = 2
		})
		if _, err := c.GetObject(t.Context(), get); !errors.Is(err, client.ErrInternalServer) {
			t.Errorf("%d: %v, want a server error", code, err)
		}
	}
	if n := len(elsewhere.seen()); n != 0 {
		t.Errorf("%d requests arrived where the redirects point", n)
	}
}

func TestSequentialCallsShareOneConnection(t *testing.T) {
	s := serve(t, value, busy, value, failure(404, vsspb.ErrorCode_NO_SUCH_KEY_EXCEPTION))
	c := clientOf(t, s, nil)
	for range 30 {
		_, _ = c.GetObject(t.Context(), get)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns != 1 || len(s.requests) < 30 {
		t.Errorf("%d connections for %d requests, want 1", s.conns, len(s.requests))
	}
}

func TestATransportCanSpeakHTTP2OverCleartextAlone(t *testing.T) {
	s := serve(t, value)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	for _, tc := range []struct {
		http *http.Client
		want string
	}{{nil, "HTTP/1.1"}, {&http.Client{Transport: transport}, "HTTP/2.0"}} {
		c := clientOf(t, s, func(cfg *client.Config) { cfg.HTTPClient = tc.http })
		if _, err := c.GetObject(t.Context(), get); err != nil {
			t.Fatal(err)
		}
		if seen := s.seen(); seen[len(seen)-1].proto != tc.want {
			t.Errorf("spoke %s, want %s", seen[len(seen)-1].proto, tc.want)
		}
	}
}

func TestNoErrorShowsTheCredential(t *testing.T) {
	const secret = "0123secret"
	for _, answer := range []http.HandlerFunc{busy, hangUp, raw(200, []byte{0xff}), func(http.ResponseWriter, *http.Request) {}} {
		c := clientOf(t, serve(t, answer), func(cfg *client.Config) {
			cfg.Auth = authFunc(func(context.Context, time.Time) (string, error) { return secret, nil })
			cfg.Retry.MaxAttempts = 2
		})
		if _, err := c.PutObjects(t.Context(), put); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	}
}

func TestABadBaseURLIsRefused(t *testing.T) {
	for _, bad := range []string{
		"", "localhost:8080", "/t/demo/vss", "ftp://host/vss", "http://", "http://user:word@host/vss",
		"http://host/vss?x=1", "http://host/vss#x", "http://host:port/", "http://user:word@ho st/",
	} {
		_, err := client.New(client.Config{BaseURL: bad})
		if err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), "word") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	_, err := client.New(client.Config{
		BaseURL: "http://host", Auth: authFunc(nil), Header: http.Header{"Authorization": {"Bearer x"}},
	})
	if err == nil {
		t.Error("two credentials were taken")
	}
}

type authFunc func(context.Context, time.Time) (string, error)

func (f authFunc) Authorization(ctx context.Context, now time.Time) (string, error) {
	return f(ctx, now)
}
