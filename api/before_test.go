package api_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// SECURITY.md lists what net/http answers by itself, before any handler of ours and so without the headers
// and the body of the contract. These tests are that list: one that fails says that it has changed.

// plain is an answer of net/http's own, after which it closes the connection.
func plain(status, body string) string {
	return "HTTP/1.1 " + status + "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" + body
}

func TestWhatNetHTTPAnswersByItselfOverHTTP1(t *testing.T) {
	t.Parallel()
	p := start(t)
	badRequest := func(reason string) string {
		if reason != "" {
			reason = ": " + reason
		}
		return plain("400 Bad Request"+reason, "400 Bad Request"+reason)
	}
	var (
		unsupported = plain("501 Not Implemented", "Unsupported transfer encoding")
		tooLarge    = plain("431 Request Header Fields Too Large", "431 Request Header Fields Too Large")
		version     = plain("505 HTTP Version Not Supported: unsupported protocol version",
			"505 HTTP Version Not Supported: unsupported protocol version")
	)
	with := func(lines ...string) string {
		return "POST /t/acme/vss/getObject HTTP/1.1\r\nHost: vss.example\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	line := func(line string) string { return line + "\r\nHost: vss.example\r\n\r\n" }
	for name, tc := range map[string]struct{ request, answer string }{
		"no version":              {line("POST /t/acme/vss/getObject"), badRequest("")},
		"no method":               {line("/t/acme/vss/getObject HTTP/1.1"), badRequest("")},
		"space before the method": {line(" POST /t/acme/vss/getObject HTTP/1.1"), badRequest("")},
		"method of no token":      {line("P@ST /t/acme/vss/getObject HTTP/1.1"), badRequest("")},
		"relative path":           {line("POST t/acme/vss/getObject HTTP/1.1"), badRequest("")},
		"broken percent-encoding": {line("POST /t/acme/vss/getO%bject HTTP/1.1"), badRequest("")},
		"control character":       {line("POST /t/acme/vss/get\x01Object HTTP/1.1"), badRequest("")},
		"space in the path":       {line("POST /t/acme/vss/get Object HTTP/1.1"), badRequest("")},
		"version in lower case":   {line("POST /t/acme/vss/getObject http/1.1"), badRequest("")},
		"malformed version":       {line("POST /t/acme/vss/getObject HTTP/1"), badRequest("")},
		"version 0.9":             {line("POST /t/acme/vss/getObject HTTP/0.9"), version},
		"version 2.0":             {line("POST /t/acme/vss/getObject HTTP/2.0"), version},
		"version 3.0":             {line("POST /t/acme/vss/getObject HTTP/3.0"), version},
		"empty line first":        {"\r\n" + with(), badRequest("")},
		"TLS":                     {"\x16\x03\x01\x00\xee\x01\x00\x00\xea\x03\x03" + strings.Repeat("x\r\n", 10), badRequest("")},

		"no Host":             {"POST /t/acme/vss/getObject HTTP/1.1\r\n\r\n", badRequest("missing required Host header")},
		"two Hosts":           {with("Host: vss.example"), badRequest("")},
		"Host with a space":   {"POST / HTTP/1.1\r\nHost: a b\r\n\r\n", badRequest("malformed Host header")},
		"Host with a slash":   {"POST / HTTP/1.1\r\nHost: a/b\r\n\r\n", badRequest("malformed Host header")},
		"Host not of ASCII":   {"POST / HTTP/1.1\r\nHost: b\xc3\xbccher.example\r\n\r\n", badRequest("malformed Host header")},
		"bad port of the URL": {"POST http://vss.example:x/ HTTP/1.1\r\nHost: a\r\n\r\n", badRequest("")},

		"header without a colon":         {with("Authorization"), badRequest("")},
		"header with an empty name":      {with(": x"), badRequest("")},
		"header with a space in it":      {with("Authori zation: x"), badRequest("invalid header name")},
		"space before the colon":         {with("Authorization : x"), badRequest("invalid header name")},
		"header name not of ASCII":       {with("Authorizati\xc3\xb6n: x"), badRequest("")},
		"NUL in a header":                {with("Authorization: \x00"), badRequest("")},
		"DEL in a header":                {with("Authorization: \x7f"), badRequest("")},
		"carriage return in a header":    {with("Authorization: a\rb"), badRequest("")},
		"first header continues nothing": {"POST / HTTP/1.1\r\n Host: a\r\n\r\n", badRequest("")},
		"headers of 70 KB":               {with("X: " + strings.Repeat("x", 70_000)), tooLarge},
		"70 KB of many headers":          {with(strings.Repeat("X: x\r\n", 12_000) + "X: x"), tooLarge},
		"a credential of 1 MiB":          {with("Authorization: " + strings.Repeat("x", 1<<20)), tooLarge},
		"path of 70 KB":                  {line("POST /" + strings.Repeat("x", 70_000) + " HTTP/1.1"), tooLarge},

		"Transfer-Encoding gzip":               {with("Transfer-Encoding: gzip"), unsupported},
		"Transfer-Encoding gzip, then chunked": {with("Transfer-Encoding: gzip, chunked"), unsupported},
		"Transfer-Encoding identity":           {with("Transfer-Encoding: identity"), unsupported},
		"Transfer-Encoding empty":              {with("Transfer-Encoding:"), unsupported},
		"two Transfer-Encodings":               {with("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), unsupported},
		"Content-Length not a number":          {with("Content-Length: x"), badRequest("")},
		"Content-Length with a sign":           {with("Content-Length: +1"), badRequest("")},
		"Content-Length below zero":            {with("Content-Length: -1"), badRequest("")},
		"Content-Length empty":                 {with("Content-Length:"), badRequest("")},
		"Content-Length beyond 63 bits":        {with("Content-Length: 9223372036854775808"), badRequest("")},
		"Content-Lengths that differ":          {with("Content-Length: 1", "Content-Length: 2"), badRequest("")},
		"Content-Length in a list":             {with("Content-Length: 1, 1"), badRequest("")},
		"trailer that is framing":              {with("Transfer-Encoding: chunked", "Trailer: Content-Length"), badRequest("")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := p.dial(t)
			_, _ = conn.Write([]byte(tc.request)) // it may be refused half-way
			if got := conn.rest(t); got != tc.answer {
				t.Errorf("got  %q\nwant %q", got, tc.answer)
			}
		})
	}

	t.Run("an expectation other than 100-continue", func(t *testing.T) {
		t.Parallel()
		conn := p.dial(t)
		conn.send(t, with("Expect: tea"))
		got := conn.rest(t)
		date, rest, _ := strings.Cut(strings.TrimPrefix(got, "HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nDate: "), "\r\n")
		if _, err := time.Parse(time.RFC1123, date); err != nil || rest != "Content-Length: 0\r\n\r\n" {
			t.Errorf("got %q", got)
		}
	})
}

func TestWhatNetHTTPAnswersByItselfOverHTTP2(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "acme", 1)
	type fields [][2]string
	with := func(more ...[2]string) fields {
		return append(fields{
			{":method", "POST"}, {":scheme", "http"}, {":authority", "vss.example"}, {":path", w.base + "/listKeyVersions"},
			{"authorization", w.token(t)},
		}, more...)
	}
	without := func(name string, instead ...[2]string) fields {
		kept := fields{}
		for _, field := range with() {
			if field[0] != name {
				kept = append(kept, field)
			}
		}
		return append(append(fields{}, instead...), kept...)
	}
	connectionHeader := func(name string) string {
		return fmt.Sprintf("400 text/plain; charset=utf-8 request header %q is not valid in HTTP/2\n", name)
	}
	const reset = "RST_STREAM PROTOCOL_ERROR"
	for name, tc := range map[string]struct {
		fields fields
		answer string
	}{
		"a call": {with(), "200 application/octet-stream \x12\x00\x18\x00"}, // the page is the last; the store's version is 0

		"no method":               {without(":method"), reset},
		"no scheme":               {without(":scheme"), reset},
		"no path":                 {without(":path"), reset},
		"unknown scheme":          {without(":scheme", [2]string{":scheme", "ftp"}), reset},
		"relative path":           {without(":path", [2]string{":path", "vss"}), reset},
		"broken percent-encoding": {without(":path", [2]string{":path", "/%zz"}), reset},
		"user in the authority":   {without(":authority", [2]string{":authority", "a@vss.example"}), reset},
		"two paths":               {without("x", [2]string{":path", "/"}), reset},
		"unknown pseudo-header":   {without("x", [2]string{":x", "x"}), reset},
		"pseudo-header at the end": {
			append(without(":authority"), [2]string{":authority", "vss.example"}), reset},
		"CONNECT with a path":   {without(":method", [2]string{":method", "CONNECT"}), reset},
		"name in upper case":    {with([2]string{"X", "x"}), reset},
		"name with a space":     {with([2]string{"a b", "x"}), reset},
		"NUL in a value":        {with([2]string{"x", "\x00"}), reset},
		"line feed in a value":  {with([2]string{"x", "a\nb"}), reset},
		"Connection":            {with([2]string{"connection", "close"}), connectionHeader("Connection")},
		"Keep-Alive":            {with([2]string{"keep-alive", "1"}), connectionHeader("Keep-Alive")},
		"Proxy-Connection":      {with([2]string{"proxy-connection", "close"}), connectionHeader("Proxy-Connection")},
		"Transfer-Encoding":     {with([2]string{"transfer-encoding", "chunked"}), connectionHeader("Transfer-Encoding")},
		"Upgrade":               {with([2]string{"upgrade", "x"}), connectionHeader("Upgrade")},
		"TE":                    {with([2]string{"te", "gzip"}), "400 text/plain; charset=utf-8 request header \"TE\" may only be \"trailers\" in HTTP/2\n"},
		"70 KB of many headers": {with(slices.Repeat(fields{{"x", strings.Repeat("x", 1000)}}, 70)...), "431 text/html; charset=utf-8 <h1>HTTP Error 431</h1><p>Request Header Field(s) Too Large</p>"},
		"a header of 70 KB":     {with([2]string{"x", strings.Repeat("x", 70_000)}), "GOAWAY COMPRESSION_ERROR"},
		"a credential of 1 MiB": {with([2]string{"authorization", strings.Repeat("x", 1<<20)}), "GOAWAY COMPRESSION_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := p.dialHTTP2(t)
			c.request(t, true, tc.fields)
			if got := c.answer(t); got != tc.answer {
				t.Errorf("got  %q\nwant %q", got, tc.answer)
			}
		})
	}
}

// A preface that is only nearly HTTP/2's is a request of HTTP/1, with a method that no path has.
func TestANearlyHTTP2PrefaceIsARefusedRequest(t *testing.T) {
	t.Parallel()
	p := start(t)
	conn := p.dial(t)
	conn.send(t, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
	conn.answerTo(t, "PRI").want(t, 404, invalid)
	conn.wantClosed(t)
}

// frames is a connection that speaks HTTP/2, frame by frame, with one request.
type frames struct {
	*wire
	*http2.Framer
}

func (p *platform) dialHTTP2(t testing.TB) *frames {
	t.Helper()
	conn := p.dial(t)
	conn.send(t, http2.ClientPreface)
	f := &frames{conn, http2.NewFramer(conn, conn.in)}
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	check(t, f.WriteSettings())
	return f
}

// request sends the headers of stream 1.
func (f *frames) request(t testing.TB, end bool, fields [][2]string) {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range fields {
		check(t, enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	const most = 16 << 10
	first := block.Next(most)
	check(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: end, EndHeaders: block.Len() == 0}))
	for block.Len() > 0 {
		next := block.Next(most)
		if err := f.WriteContinuation(1, block.Len() == 0, next); err != nil {
			return // the server has had enough
		}
	}
}

// answer is what comes for stream 1 or the whole connection: status, content type and body, or an error.
func (f *frames) answer(t testing.TB) (answer string) {
	t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("no answer: %v, after %q", err, answer)
		}
		ends := false
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			answer += frame.PseudoValue("status") + " "
			for _, field := range frame.RegularFields() {
				if field.Name == "content-type" {
					answer += field.Value + " "
				}
			}
			ends = frame.StreamEnded()
		case *http2.DataFrame:
			answer += string(frame.Data())
			ends = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			return answer + "RST_STREAM " + frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return answer + "GOAWAY " + frame.ErrCode.String()
		}
		if ends {
			return answer
		}
	}
}
