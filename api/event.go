package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/storage"
)

// observe makes the request and, when it has been answered, logs and counts it.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		rq, r := s.newRequest(r)
		defer func() { s.finish(r, ww, rq, time.Since(start)) }()
		next.ServeHTTP(ww, r)
	})
}

func (s *Server) finish(r *http.Request, ww middleware.WrapResponseWriter, rq *request, took time.Duration) {
	if rq.answer.code == vsspb.ErrorCode_UNKNOWN && (ww.Status() == 0 || ww.Status() >= 400) {
		rq.answer.outcome = usage.Failed // cut before it began, or refused by what knows nothing of our answers
	}
	if rq.call == "" && rq.answer.level == slog.LevelInfo && ww.Status() < 400 {
		rq.answer.level = slog.LevelDebug // health checks
	}
	outcome := "ok"
	if rq.answer.outcome != usage.Succeeded {
		outcome = rq.answer.code.String()
	}
	if rq.answer.reason != quota.NoReason {
		s.metrics.refusals.Add(r.Context(), 1, metric.WithAttributes(attribute.String("reason", rq.answer.reason.String())))
	}
	if rq.call != "" {
		s.metrics.calls.Add(r.Context(), 1, metric.WithAttributes(
			attribute.String("call", rq.call), attribute.String("outcome", outcome)))
	}
	rq.meter(int64(ww.BytesWritten()))
	if !s.log.Enabled(r.Context(), rq.answer.level) {
		return
	}
	var tenant, wallet string
	if rq.tenant != nil {
		tenant = rq.tenant.Slug
	}
	if rq.wallet != (storage.WalletID{}) {
		wallet = rq.wallet.String() // a hash, not the public key or sub
	}
	attrs := []slog.Attr{
		slog.String("request", ww.Header().Get(requestIDHeader)),
		slog.String("client", middleware.GetClientIP(r.Context())),
		slog.String("tenant", tenant),
		slog.String("call", rq.call),
		slog.String("wallet", wallet),
		slog.Int("status", ww.Status()),
		slog.String("outcome", outcome),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.Int64("received", rq.received),
		slog.Int("sent", ww.BytesWritten()),
	}
	if rq.refusal != "" {
		attrs = append(attrs, slog.String("refusal", rq.refusal))
	}
	if rq.err != nil {
		attrs = append(attrs, slog.String("error", rq.err.Error()))
	}
	s.log.LogAttrs(r.Context(), rq.answer.level, "request", attrs...)
}

type metrics struct {
	calls       metric.Int64Counter
	refusals    metric.Int64Counter
	delays      metric.Float64Histogram
	connections metric.Int64Counter
}

func newMetrics(s *Server) (*metrics, error) {
	meter := s.cfg.MeterProvider.Meter("github.com/vss-cloud/vss-cloud/api")
	var m metrics
	var err error
	if m.calls, err = meter.Int64Counter("vss.calls",
		metric.WithDescription("Calls of the contract, by call and by the error code they were answered with.")); err != nil {
		return nil, err
	}
	if m.refusals, err = meter.Int64Counter("vss.quota.refusals",
		metric.WithDescription("Calls that were refused for a limit, by reason.")); err != nil {
		return nil, err
	}
	if m.delays, err = meter.Float64Histogram("vss.quota.delay", metric.WithUnit("s"),
		metric.WithDescription("How long calls were held up, within their rate's patience, before they went on.")); err != nil {
		return nil, err
	}
	if m.connections, err = meter.Int64Counter("vss.http.connections",
		metric.WithDescription("Connections accepted from clients and proxies.")); err != nil {
		return nil, err
	}
	if _, err = meter.Int64ObservableGauge("vss.memory.in_flight", metric.WithUnit("By"),
		metric.WithDescription("Memory that bodies and answers in flight are counted for."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(s.memory.inFlight())
			return nil
		})); err != nil {
		return nil, err
	}
	if _, err = meter.Float64ObservableGauge("vss.directory.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the tenant directory last reached its database."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(s.cfg.Tenants.Age().Seconds())
			return nil
		})); err != nil {
		return nil, err
	}
	return &m, nil
}
