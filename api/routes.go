package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/cors"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// routes is the order of everything a request passes, outermost first.
func (s *Server) routes() http.Handler {
	r := chi.NewRouter()
	r.Use(
		contractHeaders, // before anything that may answer
		s.clientAddress,
		requestID,
		s.observe, // outside recover, so that a panic is counted and logged as the answer it became
		s.recoverPanics,
		allowBrowsers,
	)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, errNoSuchPath) })
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			if r.Match(chi.NewRouteContext(), method, cmp.Or(req.URL.RawPath, req.URL.Path)) { // as chi itself
				allowed = append(allowed, method)
			}
		}
		if allowed == nil { // for chi, a method that it has never heard of comes before the path
			s.fail(w, req, errNoSuchPath)
			return
		}
		s.fail(w, req, &badMethod{strings.Join(allowed, ", ")})
	})
	r.Get("/livez", s.livez)
	r.Get("/readyz", s.readyz)

	// Inline, so that the route is known when the span begins. Wallets are strangers: their trace ids are
	// linked, not continued. The server's name is fixed since Host is the client's to choose.
	traced := r.With(otelhttp.NewMiddleware("vss",
		otelhttp.WithServerName("vss"),
		otelhttp.WithMeterProvider(s.cfg.MeterProvider),
		otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }),
	))
	for _, base := range []string{"/vss", "/t/{tenant}/vss"} {
		traced.Post(base+"/getObject", s.getObject())
		traced.Post(base+"/putObjects", s.putObjects())
		traced.Post(base+"/deleteObject", s.deleteObject())
		traced.Post(base+"/listKeyVersions", s.listKeyVersions())
	}
	if s.cfg.Logins != nil {
		login := s.login()
		for _, base := range []string{"", "/t/{tenant}"} {
			r.Handle(base+callers.LoginPath, login)
			r.Get(base+callers.KeysPath, s.loginKeys)
			r.Head(base+callers.KeysPath, s.loginKeys)
		}
	}
	return r
}

// idleTimeout is how long a connection may wait for its next request. Longer than the 90 s for which older
// clients keep one, so that they end it and no request is sent into one that we are closing. Newer ones are
// told less than we do.
const (
	idleTimeout = 125 * time.Second
	keepAlive   = "timeout=120"
)

// contractHeaders sets what CONTRACT section 1 asks of every answer. net/http adds Date, and puts
// "Connection: close" in the place of keep-alive where it really closes.
func contractHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vss-Protocol-Version", "0")
		if r.ProtoAtLeast(1, 1) && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "keep-alive")
			// vss-client 0.6 leaves a connection 60 s after it was opened, unless this says how long it may idle.
			w.Header().Set("Keep-Alive", keepAlive)
		}
		next.ServeHTTP(w, r)
	})
}

// clientAddress finds the client's address behind trusted proxies only.
func (s *Server) clientAddress(next http.Handler) http.Handler {
	if len(s.cfg.TrustedProxies) == 0 {
		return middleware.ClientIPFromRemoteAddr(next)
	}
	trusted := make([]string, len(s.cfg.TrustedProxies))
	for i, p := range s.cfg.TrustedProxies {
		trusted[i] = p.String()
	}
	// A proxy that does not say for whom it calls is the client itself.
	return middleware.ClientIPFromRemoteAddr(middleware.ClientIPFromXFF(trusted...)(next))
}

const requestIDHeader = "X-Request-Id"

// reasonHeader tells what the contract has no code for: that the URL names no tenant. Released wallets do not
// look at it; who writes a client need not try again.
const reasonHeader = "Vss-Error-Reason"

// requestID names the request, for the answer and the log line. It is always ours: a client's could be
// anything.
func requestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var id [8]byte
		_, _ = rand.Read(id[:]) // never fails
		w.Header().Set(requestIDHeader, hex.EncodeToString(id[:]))
		next.ServeHTTP(w, r)
	})
}

// recoverPanics answers a panic as a fault of ours.
func (s *Server) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			ww, rq := w.(middleware.WrapResponseWriter), requestOf(r.Context()) // by observe
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				rq.answer = internal(500, ourFault)
				panic(err)
			}
			err := fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			if ww.Status() != 0 {
				rq.answer, rq.err = internal(500, ourFault).logged(slog.LevelError), err
				panic(http.ErrAbortHandler) // an answer has begun: only cutting it says that it is not whole
			}
			s.fail(w, r, err)
		}()
		next.ServeHTTP(w, r)
	})
}

// allowBrowsers lets wallets in web pages call from any origin (they bring their credential in a header,
// never a cookie) and read the headers they need.
func allowBrowsers(next http.Handler) http.Handler {
	return cors.Handler(cors.Options{
		AllowedOrigins: []string{"*"},
		AllowedMethods: []string{http.MethodPost, http.MethodGet, http.MethodHead}, // the last two: LNURL-auth
		AllowedHeaders: []string{"*"},                                              // echoed: clients send fixed headers of their own
		ExposedHeaders: []string{"Vss-Protocol-Version", requestIDHeader, reasonHeader, "Retry-After"},
		MaxAge:         int(time.Hour / time.Second),
	})(next)
}

// livez: the process runs.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

// readyz: calls can be served, so a load balancer may send some. Else the answer is 503, and why in a line of text: no
// more than a stranger may know, since the log says the rest.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	err := s.ready(r.Context())
	if err == nil {
		_, _ = w.Write([]byte("ok\n"))
		return
	}
	a := answerTo(err)
	reason := a.message
	switch {
	case errors.Is(err, storage.ErrUnavailable):
		reason = "the database is down, or must not be written to"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, storage.ErrTooLate):
		reason = "the database does not answer in time"
	}
	a.status = http.StatusServiceUnavailable
	rq := requestOf(r.Context())
	rq.answer, rq.err = a, err
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(a.status)
	_, _ = fmt.Fprintf(w, "not ready: %s (request %s)\n", reason, w.Header().Get(requestIDHeader))
}

func (s *Server) ready(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if s.draining.Load() {
		return errDraining
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := s.cfg.Ready(ctx); err != nil {
		return err
	}
	if !s.cfg.Tenants.Loaded() {
		return callers.ErrNotLoaded
	}
	return nil
}
