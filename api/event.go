package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// event is what is known of a request when it ends: one log line and one count. It belongs to the
// request's goroutine.
type event struct {
	call     string          // "" for what is not a call
	tenant   string          // slug
	login    *tenants.Tenant // that a wallet logs in to
	wallet   string          // storage.WalletID: a hash, not the public key or sub
	answer   answer
	received int64 // bytes of the body
	tenantID uuid.UUID
	visitor  *visitor // the wallet, where it has one
	enrolled bool     // the wallet, by this call
	active   bool     // the wallet wrote, or was answered with something that is there
	refusal  string   // why a credential was refused, one of a fixed set
	err      error    // of faults: never told to the client
}

type eventKey struct{}

func eventOf(ctx context.Context) *event { return ctx.Value(eventKey{}).(*event) }

// observe gives the request its event and, when it has been answered, logs and counts it.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &event{}
		start := time.Now()
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		r = r.WithContext(context.WithValue(r.Context(), eventKey{}, e))
		defer func() { s.finish(r, ww, e, time.Since(start)) }()
		next.ServeHTTP(ww, r)
	})
}

func (s *Server) finish(r *http.Request, ww middleware.WrapResponseWriter, e *event, took time.Duration) {
	if e.answer.code == vsspb.ErrorCode_UNKNOWN && (ww.Status() == 0 || ww.Status() >= 400) {
		e.answer.outcome = quota.Failed // cut before it began, or refused by what knows nothing of our answers
	}
	if e.call == "" && e.answer.level == slog.LevelInfo && ww.Status() < 400 {
		e.answer.level = slog.LevelDebug // health checks
	}
	outcome := "ok"
	if e.answer.outcome != quota.Succeeded {
		outcome = e.answer.code.String()
	}
	if e.answer.reason != quota.NoReason {
		s.metrics.refusals.Add(r.Context(), 1, metric.WithAttributes(attribute.String("reason", e.answer.reason.String())))
	}
	if e.call != "" {
		s.metrics.calls.Add(r.Context(), 1, metric.WithAttributes(
			attribute.String("call", e.call), attribute.String("outcome", outcome)))
	}
	s.record(e, int64(ww.BytesWritten()))
	if !s.log.Enabled(r.Context(), e.answer.level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request", ww.Header().Get(requestIDHeader)),
		slog.String("client", middleware.GetClientIP(r.Context())),
		slog.String("tenant", e.tenant),
		slog.String("call", e.call),
		slog.String("wallet", e.wallet),
		slog.Int("status", ww.Status()),
		slog.String("outcome", outcome),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.Int64("received", e.received),
		slog.Int("sent", ww.BytesWritten()),
	}
	if e.refusal != "" {
		attrs = append(attrs, slog.String("refusal", e.refusal))
	}
	if e.err != nil {
		attrs = append(attrs, slog.String("error", e.err.Error()))
	}
	s.log.LogAttrs(r.Context(), e.answer.level, "request", attrs...)
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
