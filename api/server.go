// Package api is the edge that wallets talk to: the VSS contract over HTTP, per tenant.
//
// A request passes, in this order (routes.go): the headers of the contract, the client's address, a request
// id, its own object (request.go), which ends as one log line and one count, panics turned into answers, CORS,
// routing. A call then (call.go) finds its tenant, proves its wallet, reads and decodes its body, and asks the
// store. An error from anywhere rises untouched to one table (errors.go). README.md has the whole way of a put.
//
// Comments all over the project cite CONTRACT by section: that is CONTRACT.md in this folder.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// Config of a [Server].
type Config struct {
	Store   storage.Store
	Tenants *callers.Directory
	Auth    *callers.Authenticator
	Logins  *callers.Logins // nil: no LNURL-auth
	Quota   Quota

	// Ready says whether the database answers; it has two seconds. For /readyz.
	Ready func(context.Context) error

	// TrustedProxies are the addresses whose X-Forwarded-For is believed. None: the peer is the client.
	TrustedProxies []netip.Prefix

	// Timeout is from the moment a request's headers are read to the moment its work must be done or given
	// up. Zero: storage.Timeout.
	Timeout time.Duration

	// Memory bounds, in bytes, what bodies and answers in flight may hold in memory, all together. A call
	// needs three times its body or value, and large ones leave a ninth alone. Zero: 1 GiB.
	Memory int64

	// DrainDelay is how long /readyz answers 503 before the server stops to accept, so that a load
	// balancer looks away first. DrainTimeout bounds the drain after it. Zero: none, and 10 s.
	DrainDelay, DrainTimeout time.Duration

	Log           *slog.Logger         // nil: slog.Default()
	MeterProvider metric.MeterProvider // nil: otel's global one
}

// Server answers wallets.
type Server struct {
	cfg      Config
	log      *slog.Logger
	memory   *memory
	metrics  *metrics
	handler  http.Handler
	draining atomic.Bool
}

// New makes a server. It accepts nothing before Serve.
func New(cfg Config) (*Server, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = storage.Timeout
	}
	if cfg.Memory == 0 {
		cfg.Memory = 1 << 30
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	s := &Server{cfg: cfg, log: cfg.Log, memory: newMemory(cfg.Memory)}
	var err error
	if s.metrics, err = newMetrics(s); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	s.handler = s.routes()
	return s, nil
}

// Handler is the whole edge as one handler.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve answers on the listener, HTTP/1.1 and cleartext HTTP/2, until ctx ends; then it drains: every
// request that was read is answered. It returns nil after a complete drain.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	hs := &http.Server{
		Handler:   s.handler,
		Protocols: &protocols,
		// A client's attempt lasts 10 s, up- and download included (CONTRACT section 1).
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      12 * time.Second,
		// WriteTimeout resets a stream of HTTP/2, but after the frame that is being written: a client that stops
		// reading would keep the memory of its answers for ever. This ends its connection after a few times
		// as long.
		HTTP2:                        &http.HTTP2Config{WriteByteTimeout: 5 * time.Second},
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               64 << 10,
		DisableGeneralOptionsHandler: true, // it would answer OPTIONS * without the contract's headers
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.metrics.connections.Add(context.Background(), 1)
			}
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}

	s.draining.Store(true)
	select {
	case err := <-served:
		return err
	case <-time.After(s.cfg.DrainDelay):
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	if err := hs.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("drain after %v: %w", s.cfg.DrainTimeout, err), hs.Close())
	}
	return nil
}

type connKey struct{}

// departed says whether the request's client has closed its connection. A process that stood still, as one on a
// paused machine does, goes on with requests whose clients left long ago and have saved newer state elsewhere:
// net/http's notice of that races the handler (CONTRACT section 3: no zombie writes). One that has only closed
// its sending side looks the same, and is told to try again; no wallet's client does that.
func departed(ctx context.Context) bool {
	conn, ok := ctx.Value(connKey{}).(net.Conn)
	return ok && hasDeparted(conn)
}
