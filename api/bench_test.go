package api_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/storage"
)

// What the edge itself costs: calls of a wallet that is known, over a store that does nothing.
func BenchmarkCall(b *testing.B) {
	p := start(b, over(written{Written: storage.Written{Objects: 1, Bytes: 1}}), func(cfg *api.Config) {
		cfg.Quota.Limiter, cfg.Quota.Meter = quota.NewLimiter(quota.LimiterConfig{}), usage.NewMeter(usage.MeterConfig{})
		cfg.Log = slog.New(slog.NewJSONHandler(struct{ io.Writer }{io.Discard}, nil))
	})
	w := p.wallet(b, "acme", 1)
	limits := map[string]int64{}
	for _, kind := range []string{"writes", "reads"} {
		for _, who := range []string{"wallet", "tenant"} {
			limits[who+"_"+kind+"_per_minute"], limits[who+"_"+kind+"_burst"] = 60_000_000, 10_000_000
		}
	}
	(&governed{platform: p}).limit(b, "acme", limits)
	for call, body := range map[string][]byte{
		"putObjects": encode(b, put(&vsspb.KeyValue{Key: "k", Version: -1, Value: make([]byte, 700)})),
		"getObject":  encode(b, &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}),
	} {
		b.Run(call, func(b *testing.B) {
			r := w.request(b, call, body)
			b.ReportAllocs()
			for b.Loop() {
				r.Body = io.NopCloser(bytes.NewReader(body))
				a := httptest.NewRecorder()
				p.server.Handler().ServeHTTP(a, r)
				if a.Code != 200 {
					b.Fatalf("HTTP %d: %q", a.Code, a.Body)
				}
			}
		})
	}
}
