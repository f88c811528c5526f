package secrets

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// Errors and Traces are the sources that this file reads.
const (
	Errors = "error answers"
	Traces = "traces"
)

// Transport learns the token of each request and reads the bodies and the headers of errors.
func (w *Watch) Transport(next *http.Transport) http.RoundTripper { return &transport{w, next} }

type transport struct {
	watch *Watch
	*http.Transport
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.watch.Token(req.Header.Get("Authorization"))
	resp, err := t.Transport.RoundTrip(req)
	if err != nil || resp.StatusCode < 400 {
		return resp, err
	}
	var text bytes.Buffer
	_ = resp.Header.Write(&text)
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	text.Write(body)
	t.watch.Read(Errors, text.Bytes())
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), &failing{rest, err}), rest}
	return resp, nil
}

// failing reads on, or fails as the reading before it did.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(b []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.Reader.Read(b)
}

// Collector takes traces as a collector of OpenTelemetry does, and reads them.
type Collector struct {
	Env    []string // of a process that is to send its traces here
	server *http.Server
}

// NewCollector starts one on loopback.
func (w *Watch) NewCollector() (*Collector, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Collector{
		Env: []string{
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://" + ln.Addr().String() + "/v1/traces",
			"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
		},
		server: &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				w.Read(Traces, body)
			}
			rw.Header().Set("Content-Type", "application/x-protobuf")
		})},
	}
	go func() { _ = c.server.Serve(ln) }()
	return c, nil
}

// Close ends it.
func (c *Collector) Close() error { return c.server.Shutdown(context.Background()) }
