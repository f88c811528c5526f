package service

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
)

// telemetry is the process's OpenTelemetry: metrics for Prometheus always, and traces and metrics over OTLP
// where the standard OTEL_* variables ask for an exporter.
type telemetry struct {
	metrics  http.Handler
	shutdown func(context.Context) error
}

// startTelemetry sets OpenTelemetry's global providers.
func startTelemetry(ctx context.Context, service string, log *slog.Logger) (*telemetry, error) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("telemetry", "error", err) }))
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName(service)), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	readers := []metric.Option{metric.WithResource(res), metric.WithReader(reader)}
	if asked("METRICS") {
		otlp, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, err
		}
		readers = append(readers, metric.WithReader(otlp))
	}
	meters := metric.NewMeterProvider(readers...)
	otel.SetMeterProvider(meters)
	t := &telemetry{
		metrics:  promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		shutdown: meters.Shutdown,
	}
	if asked("TRACES") {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, err
		}
		traces := trace.NewTracerProvider(trace.WithResource(res), trace.WithBatcher(exporter))
		otel.SetTracerProvider(traces)
		otel.SetTextMapPropagator(propagation.TraceContext{})
		t.shutdown = func(ctx context.Context) error {
			return errors.Join(traces.Shutdown(ctx), meters.Shutdown(ctx))
		}
	}
	return t, nil
}

// asked reports whether the environment asks for an exporter of a signal. Without any variable the SDK's
// default would be to send to localhost.
func asked(signal string) bool {
	for _, name := range []string{"OTEL_" + signal + "_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_" + signal + "_ENDPOINT"} {
		if v := os.Getenv(name); v != "" {
			return os.Getenv("OTEL_SDK_DISABLED") != "true" && v != "none"
		}
	}
	return false
}

// ops is what the operator's listener serves.
func (t *telemetry) ops() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", t.metrics)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// flush sends what is left of the telemetry, within five seconds.
func (t *telemetry) flush(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := t.shutdown(ctx); err != nil {
		log.Warn("telemetry", "error", err)
	}
}
