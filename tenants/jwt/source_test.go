package jwt

import (
	"compress/gzip"
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vss-cloud/vss-cloud/tenants/egress"
)

// endpoint is a URL of a JWKS in a test whose time is the test's own. Its zero value answers 404.
type endpoint struct {
	mu      sync.Mutex
	answer  func() (egress.Response, error)
	takes   time.Duration
	fetched []time.Time
	asked   []http.Header
}

func (e *endpoint) get(ctx context.Context, _ string, header http.Header) (egress.Response, error) {
	e.mu.Lock()
	e.fetched, e.asked = append(e.fetched, time.Now()), append(e.asked, header)
	answer, takes := e.answer, e.takes
	e.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return egress.Response{}, ctx.Err()
	}
	if answer == nil {
		return egress.Response{Status: http.StatusNotFound}, nil
	}
	return answer()
}

func (e *endpoint) will(answer func() (egress.Response, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = answer
}

func (e *endpoint) fetches() []time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.fetched)
}

// have makes it answer with the keys of these issuers, and header fields by name and value.
func (e *endpoint) have(issuers []issuer, header ...string) {
	e.will(func() (egress.Response, error) { return ok(document(issuers...), header...), nil })
}

func (e *endpoint) fail() {
	e.will(func() (egress.Response, error) { return egress.Response{}, errors.New("no connection") })
}

func ok(body string, header ...string) egress.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return egress.Response{Status: http.StatusOK, Header: h, Body: []byte(body)}
}

func document(issuers ...issuer) string {
	var keys []Key
	for _, i := range issuers {
		keys = append(keys, i.key)
	}
	return string(writeDocument(keys))
}

// start runs a source until the test ends, in a test whose time is its own.
func start(t *testing.T, cfg SourceConfig) *Source {
	t.Helper()
	s, err := NewSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return s
}

// fresh is a token of the issuer that is good for a minute.
func fresh(i issuer) string {
	return i.token(fmt.Sprintf(`{"sub":"alice","exp":%d}`, time.Now().Add(time.Minute).Unix()))
}

func (s *Source) verifies(t *testing.T, i issuer) error {
	t.Helper()
	_, err := s.Verify(t.Context(), fresh(i), Standard())
	return err
}

func TestWalletsNoticeNothingWhileTheURLIsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		i := issuerOf("ES256").named("k1")
		e.have([]issuer{i}, "Cache-Control", "max-age=600")
		s := start(t, SourceConfig{Get: e.get})
		wantReason(t, "at first", s.verifies(t, i), "")
		e.fail()
		for range 24 * 60 {
			time.Sleep(time.Minute)
			began := time.Now()
			wantReason(t, "while it is down", s.verifies(t, i), "")
			if waited := time.Since(began); waited > 0 {
				t.Fatalf("waited %v", waited)
			}
		}
		status := s.Status()
		if status.LastError == nil || time.Since(status.LastSuccess) < 23*time.Hour || time.Since(status.LastAttempt) > lastRetry {
			t.Errorf("got %+v", status)
		}
		if n := len(e.fetches()); n < 24*4 || n > 24*5+10 {
			t.Errorf("it was fetched %d times in a day", n)
		}
		e.have([]issuer{i})
		time.Sleep(lastRetry)
		if status := s.Status(); status.LastError != nil {
			t.Errorf("got %+v", status)
		}
	})
}

func TestFailuresBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		start(t, SourceConfig{Get: e.get})
		time.Sleep(3 * time.Hour)
		fetches := e.fetches()
		want := firstRetry
		for i := range fetches[1:] {
			pause := fetches[i+1].Sub(fetches[i])
			if pause > want || pause < want*9/10 {
				t.Errorf("pause %d is %v, want about %v", i, pause, want)
			}
			want = min(2*want, lastRetry)
		}
		if len(fetches) < 15 {
			t.Errorf("%d fetches", len(fetches))
		}
		// After a success they begin anew.
		e.have([]issuer{issuerOf("ES256")})
		time.Sleep(lastRetry)
		e.fail()
		before := len(e.fetches())
		time.Sleep(defaultFresh + firstRetry)
		if fetches = e.fetches()[before:]; len(fetches) < 2 || fetches[1].Sub(fetches[0]) > firstRetry {
			t.Errorf("after a success: fetched at %v", fetches)
		}
	})
}

func TestWhoAsksJustWhenAFetchIsDueCausesNoSecondOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		i := issuerOf("ES256").named("k1")
		e.have([]issuer{i})
		s := start(t, SourceConfig{Get: e.get})
		for range 300 {
			time.Sleep(time.Until(s.Status().Next))
			wantReason(t, "an unknown kid", s.verifies(t, i.named("k2")), UnknownKey)
			synctest.Wait()
		}
		if n := len(e.fetches()); n != 301 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestASetIsFetchedAgainAsItsCacheHeadersSay(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		header string
		want   time.Duration
	}{
		{"", defaultFresh},
		{"Cache-Control: max-age=1800", 30 * time.Minute},
		{"Cache-Control: public, MAX-AGE = 1800, must-revalidate", defaultFresh}, // which is no directive
		{"Cache-Control: public, Max-Age=1800, must-revalidate", 30 * time.Minute},
		{`Cache-Control: max-age="1800"`, 30 * time.Minute},
		{"Cache-Control: max-age=1800\nAge: 300", 25 * time.Minute},
		{"Cache-Control: max-age=1800\nAge: 99999999999", 30 * time.Minute},
		{"Cache-Control: max-age=1800\nAge: 1750", minFresh},
		{"Cache-Control: max-age=1800\nExpires: Fri, 02 Jan 2026 09:04:05 GMT", 30 * time.Minute},
		{"Cache-Control: max-age=1", minFresh},
		{"Cache-Control: max-age=0", minFresh},
		{"Cache-Control: max-age=-1", minFresh},
		{"Cache-Control: max-age=soon", minFresh},
		{"Cache-Control: max-age", minFresh},
		{"Cache-Control: max-age=31536000", maxFresh},
		{"Cache-Control: max-age=99999999999999999999999", maxFresh},
		{"Cache-Control: no-store, max-age=1800", minFresh},
		{"Cache-Control: no-cache", minFresh},
		{"Cache-Control: private", defaultFresh},
		{"Expires: Fri, 02 Jan 2026 09:04:05 GMT", 6 * time.Hour},
		{"Expires: Fri, 02 Jan 2026 09:04:05 GMT\nDate: Fri, 02 Jan 2026 07:04:05 GMT", 2 * time.Hour},
		{"Expires: Thu, 01 Jan 2026 00:00:00 GMT", minFresh},
		{"Expires: Fri, 02 Jan 2099 09:04:05 GMT", maxFresh},
		{"Expires: 0", minFresh},
	} {
		h := http.Header{}
		for line := range strings.SplitSeq(tc.header, "\n") {
			if name, value, found := strings.Cut(line, ": "); found {
				h.Add(name, value)
			}
		}
		if got := freshFor(h, at); got != tc.want {
			t.Errorf("%q: got %v, want %v", tc.header, got, tc.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		e.have([]issuer{issuerOf("ES256")}, "Cache-Control", "max-age=7200")
		s := start(t, SourceConfig{Get: e.get})
		time.Sleep(24 * time.Hour)
		fetches := e.fetches()
		for i := range fetches[1:] {
			if pause := fetches[i+1].Sub(fetches[i]); pause > 2*time.Hour || pause < 108*time.Minute {
				t.Errorf("fetched again after %v", pause)
			}
		}
		if len(fetches) < 12 {
			t.Errorf("%d fetches in a day", len(fetches))
		}
		if next := time.Until(s.Status().Next); next <= 0 || next > 2*time.Hour {
			t.Errorf("the next is in %v", next)
		}
	})
}

func TestAnUnknownKidMakesItLookForNewerKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		old, rotated := issuerOf("ES256").named("old"), strangerOf("ES256").named("new")
		e.have([]issuer{old})
		s := start(t, SourceConfig{Get: e.get})
		time.Sleep(time.Minute)
		e.have([]issuer{old, rotated})
		e.mu.Lock()
		e.takes = time.Second
		e.mu.Unlock()
		// All that come meanwhile wait for one fetch.
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { wantReason(t, "the new key", s.verifies(t, rotated), "") })
		}
		all.Wait()
		if n := len(e.fetches()); n != 2 {
			t.Errorf("%d fetches", n)
		}
		wantReason(t, "the old key", s.verifies(t, old), "")
	})
}

func TestATokenWithoutKidMakesItLookForNewerKeysToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		old, rotated := issuerOf("ES256"), strangerOf("ES256")
		e.have([]issuer{old})
		s := start(t, SourceConfig{Get: e.get})
		time.Sleep(time.Minute)
		e.have([]issuer{rotated})
		wantReason(t, "the new key", s.verifies(t, rotated), "")
		wantReason(t, "the old key, just after", s.verifies(t, old), UnknownKey)
	})
}

func TestAKeyThatWasReplacedUnderItsKidIsFetched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		old, replaced := issuerOf("ES256").named("k1"), strangerOf("ES256").named("k1")
		e.have([]issuer{old}, "Cache-Control", "max-age=86400")
		s := start(t, SourceConfig{Get: e.get})
		time.Sleep(time.Minute)
		e.have([]issuer{replaced})
		wantReason(t, "the new key", s.verifies(t, replaced), "")
		wantReason(t, "the old key", s.verifies(t, old), BadSignature)
		e.fail()
		time.Sleep(time.Minute)
		err := s.verifies(t, old)
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errBadSignature) {
			t.Errorf("while the URL is down: %v", err)
		}
	})
}

func TestNoKeyIsTriedTwiceForOneToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		var issuers []issuer
		for range MaxUnnamed {
			issuers = append(issuers, strangerOf("ES512"))
		}
		newer := strangerOf("ES512")
		e.have(issuers)
		s := start(t, SourceConfig{Get: e.get})
		tries := func(by issuer, header string, want Reason) (n int) {
			t.Helper()
			token := must(Parse(by.raw(header, fmt.Sprintf(`{"sub":"alice","exp":%d}`, time.Now().Add(time.Minute).Unix()))))
			price := s.Set().Price(token, Standard(), time.Now())
			token.Verifier = func(alg string, key crypto.PublicKey, signed, sig []byte) bool {
				n++
				return VerifySignature(alg, key, signed, sig)
			}
			_, err := s.VerifyToken(t.Context(), token, Standard())
			wantReason(t, header, err, want)
			if want := MaxUnnamed * curvePrices["P-521"]; price != want {
				t.Errorf("%s: the price is %v, want %v", header, price, want)
			}
			return n
		}
		for _, header := range []string{`{"alg":"ES512"}`, `{"alg":"ES512","kid":"unknown"}`} {
			time.Sleep(time.Minute) // the URL is asked
			if n := tries(strangerOf("ES512"), header, UnknownKey); n != MaxUnnamed {
				t.Errorf("%s: %d verifications", header, n)
			}
			if n := tries(strangerOf("ES512"), header, UnknownKey); n != MaxUnnamed { // it is not
				t.Errorf("%s, again: %d verifications", header, n)
			}
		}
		// Of a set that has changed, the keys that are new are tried.
		time.Sleep(time.Minute)
		e.have(append(issuers[1:], newer))
		if n := tries(newer, `{"alg":"ES512"}`, ""); n != MaxUnnamed+1 {
			t.Errorf("after a change: %d verifications", n)
		}
		time.Sleep(time.Minute)
		e.have(append(issuers[:MaxUnnamed-1:MaxUnnamed-1], newer))
		if n := tries(strangerOf("ES512"), `{"alg":"ES512"}`, UnknownKey); n != MaxUnnamed+1 {
			t.Errorf("forged after a change: %d verifications", n)
		}
	})
}

func TestForgedKidsCostOneFetchAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		i, forger := issuerOf("ES256").named("k1"), strangerOf("ES256")
		e.have([]issuer{i})
		s := start(t, SourceConfig{Get: e.get})
		began := time.Now()
		for n := 0; time.Since(began) < 20*unknownPause; n++ {
			if n%2 == 0 {
				wantReason(t, "a forged kid", s.verifies(t, forger.named(fmt.Sprint("forged ", n))), UnknownKey)
			} else {
				wantReason(t, "the kid of a key", s.verifies(t, forger.named("k1")), BadSignature)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(e.fetches()); n > 21 || n < 19 {
			t.Errorf("%d fetches in 20 pauses", n)
		}
		fetches := e.fetches()
		for i := range fetches[1:] {
			if pause := fetches[i+1].Sub(fetches[i]); pause < unknownPause {
				t.Errorf("fetched again after %v", pause)
			}
		}
		// Tokens that could not be good whatever the keys are cost no fetch.
		time.Sleep(time.Hour)
		before := len(e.fetches())
		for _, token := range []string{
			forger.named("x").token(`{"sub":"alice","exp":1}`),
			forger.named("x").token(`{"sub":"alice"}`),
			forger.raw(`{"alg":"none","kid":"x"}`, goodClaims),
			"x.y.z", strings.Repeat("x", 1<<20),
		} {
			if _, err := s.Verify(t.Context(), token, Standard()); err == nil || errors.Is(err, ErrUnknownKey) {
				t.Errorf("got %v", err)
			}
		}
		if n := len(e.fetches()) - before; n != 0 {
			t.Errorf("%d fetches for them", n)
		}
	})
}

func TestNobodyWaitsLongForKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		i, rotated := issuerOf("ES256").named("k1"), strangerOf("ES256").named("k2")
		e.have([]issuer{i})
		s := start(t, SourceConfig{Get: e.get})
		time.Sleep(time.Minute)
		e.mu.Lock()
		e.takes = 5 * time.Second
		e.mu.Unlock()

		began := time.Now()
		err := s.verifies(t, rotated)
		if waited := time.Since(began); waited != maxWait || !errors.Is(err, ErrUnavailable) {
			t.Errorf("waited %v, got %v", waited, err)
		}
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err = s.Verify(ctx, fresh(rotated), Standard())
		if waited := time.Since(began); waited != 300*time.Millisecond || !errors.Is(err, ErrUnavailable) {
			t.Errorf("with a deadline: waited %v, got %v", waited, err)
		}
		began = time.Now()
		wantReason(t, "a known key", s.verifies(t, i), "")
		if waited := time.Since(began); waited > 0 {
			t.Errorf("with a known key: waited %v", waited)
		}

		time.Sleep(time.Minute) // the fetch has ended, and the next may begin
		var atOnce, late atomic.Int32
		var all sync.WaitGroup
		for range maxWaiting + 20 {
			all.Go(func() {
				began := time.Now()
				if err := s.verifies(t, rotated); !errors.Is(err, ErrUnavailable) {
					t.Errorf("got %v", err)
				}
				if time.Since(began) == 0 {
					atOnce.Add(1)
				} else {
					late.Add(1)
				}
			})
		}
		all.Wait()
		if atOnce.Load() != 20 || late.Load() != maxWaiting {
			t.Errorf("%d were answered at once, and %d waited", atOnce.Load(), late.Load())
		}
	})
}

func TestNonsenseNeverReplacesKeys(t *testing.T) {
	t.Parallel()
	i := issuerOf("ES256").named("k1")
	good := string(i.key.JWK())
	answers := map[string]egress.Response{
		"HTML":                   ok("\n<!doctype html><title>Sign in</title>"),
		"nothing":                ok(""),
		"null":                   ok("null"),
		"an object":              ok("{}"),
		"an array":               ok("[" + good + "]"),
		"no keys":                ok(`{"keys":[]}`),
		"keys that are null":     ok(`{"keys":null}`),
		"JSON that is cut off":   ok(`{"keys":[` + good),
		"two keys members":       ok(`{"keys":[` + good + `],"keys":[]}`),
		"no UTF-8":               ok(`{"keys":[` + good + "],\"x\":\"\xff\"}"),
		"weak keys":              ok(`{"keys":[` + rsaOf(1024, "") + `]}`),
		"huge keys":              ok(`{"keys":[` + rsaOf(100000, "") + `]}`),
		"symmetric keys":         ok(`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`),
		"private keys":           ok(`{"keys":[` + strings.TrimSuffix(good, "}") + `,"d":"c2VjcmV0"}]}`),
		"keys for encryption":    ok(`{"keys":[` + strings.TrimSuffix(good, "}") + `,"use":"enc"}]}`),
		"100,000 keys":           ok(`{"keys":[` + strings.Repeat("{},", 1e5) + good + `]}`),
		"100,000 equal keys":     ok(`{"keys":[` + strings.TrimSuffix(strings.Repeat(good+",", 1e5), ",") + `]}`),
		"2 MiB":                  ok(`{"keys":[` + good + `],"x":"` + strings.Repeat("x", 2<<20) + `"}`),
		"deep":                   ok(strings.Repeat("[", 1e6)),
		"an issuer's settings":   ok(`{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/jwks"}`),
		"not modified":           {Status: http.StatusNotModified}, // which nobody asked for
		"no content":             {Status: http.StatusNoContent},
		"not found":              {Status: http.StatusNotFound, Body: []byte(document(i))},
		"an error":               {Status: http.StatusInternalServerError, Body: []byte(document(i))},
		"another sort of answer": {Status: http.StatusAccepted, Body: []byte(document(i))},
	}
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		e.have([]issuer{i})
		kept := 0
		s := start(t, SourceConfig{Get: e.get, OnDocument: func(context.Context, []byte, []string) error { kept++; return nil }})
		for name, answer := range answers {
			e.will(func() (egress.Response, error) { return answer, nil })
			err := s.Refresh(t.Context())
			if err == nil || s.Status().LastError == nil || err.Error() == "" {
				t.Errorf("%s: taken", name)
			} else if strings.Contains(err.Error(), "c2Vj") || len(err.Error()) > 500 {
				t.Errorf("%s: %v", name, err)
			}
			wantReason(t, name, s.verifies(t, i), "")
		}
		if kept != 1 {
			t.Errorf("%d documents were kept", kept)
		}
		// And where there never were any, tokens wait for the URL to mend.
		e.will(func() (egress.Response, error) { return answers["HTML"], nil })
		s = start(t, SourceConfig{Get: e.get})
		if err := s.verifies(t, i); !errors.Is(err, ErrUnavailable) {
			t.Errorf("without keys: %v", err)
		}
	})
}

func TestHostileEndpointsAreReadThroughTheEgressClient(t *testing.T) {
	t.Parallel()
	i := issuerOf("ES256").named("k1")
	var handler atomic.Value
	good := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, document(i)) })
	handler.Store(good)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			good(w, r)
			return
		}
		handler.Load().(http.HandlerFunc)(w, r)
	}))
	defer server.Close()
	client := egress.New(egress.Config{AllowPrivate: true, Timeout: 2 * time.Second})
	s, err := NewSource(SourceConfig{URL: server.URL, Get: client.Get})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	refresh := func() error { // Run may not have begun
		for {
			if err := s.Refresh(t.Context()); !errors.Is(err, ErrUnavailable) {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}
	if err := refresh(); err != nil {
		t.Fatal(err)
	}
	zipped := issuerOf("EdDSA").named("zipped")
	handler.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip") // which was not asked for
		z := gzip.NewWriter(w)
		fmt.Fprint(z, document(i, zipped))
		z.Close()
	}))
	if err := refresh(); err != nil {
		t.Errorf("gzip: %v", err)
	}
	wantReason(t, "gzip", s.verifies(t, zipped), "")
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		reason  egress.Reason
	}{
		"a redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, egress.Redirect},
		"100 MB": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[`)
			for range 100 << 10 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}, egress.TooLarge},
		"a slow body": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				fmt.Fprint(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, egress.TimedOut},
		"HTML": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, ""},
	} {
		handler.Store(tc.handler)
		err := refresh()
		if e, ok := errors.AsType[*egress.Error](err); err == nil || ok != (tc.reason != "") || ok && e.Reason != tc.reason {
			t.Errorf("%s: got %v", name, err)
		}
		wantReason(t, name, s.verifies(t, i), "")
	}
}

func TestASetThatHasNotChangedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		i, rotated := issuerOf("ES256").named("k1"), strangerOf("ES256").named("k2")
		e.have([]issuer{i}, "ETag", `"1"`)
		s := start(t, SourceConfig{Get: e.get})
		notModified := egress.Response{Status: http.StatusNotModified, Header: http.Header{"Cache-Control": {"max-age=7200"}}}
		e.will(func() (egress.Response, error) { return notModified, nil })
		for range 2 {
			if err := s.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantReason(t, "not modified", s.verifies(t, i), "")
			if next := time.Until(s.Status().Next); next <= defaultFresh {
				t.Errorf("the next is in %v", next)
			}
		}
		e.have([]issuer{rotated}) // without an ETag
		for range 2 {
			if err := s.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var sent []string
		for _, header := range e.asked {
			sent = append(sent, header.Get("If-None-Match"))
		}
		if !slices.Equal(sent, []string{"", `"1"`, `"1"`, `"1"`, ""}) {
			t.Errorf("sent %q", sent)
		}
		wantReason(t, "modified", s.verifies(t, rotated), "")
	})
}

func TestTheLastGoodKeysOutliveTheProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		i, rotated := issuerOf("ES256").named("k1"), strangerOf("EdDSA")
		private := strings.TrimSuffix(string(strangerOf("ES256").key.JWK()), "}") + `,"d":"c2VjcmV0"}`
		e.will(func() (egress.Response, error) {
			return ok(`{"keys":[` + private + "," + string(i.key.JWK()) + `],"x":"y"}`), nil
		})
		var kept []string
		var broken error
		keep := func(_ context.Context, document []byte, _ []string) error {
			kept = append(kept, string(document))
			return broken
		}
		s := start(t, SourceConfig{Get: e.get, OnDocument: keep})
		if len(kept) != 1 || kept[0] != document(i) {
			t.Fatalf("kept %q", kept)
		}
		if skipped := s.Status().Skipped; len(skipped) != 1 || !strings.Contains(skipped[0], "private") {
			t.Errorf("skipped %q", skipped)
		}
		refresh := func(times int) {
			for range times {
				if err := s.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		refresh(3)
		if len(kept) != 1 {
			t.Errorf("kept %q", kept)
		}
		// What could not be kept is offered again.
		broken = errors.New("no database")
		e.have([]issuer{rotated, i})
		refresh(2)
		broken = nil
		refresh(2)
		if len(kept) != 4 || kept[1] != kept[2] || kept[2] != kept[3] {
			t.Errorf("kept %q", kept)
		}

		var down endpoint
		again := start(t, SourceConfig{Get: down.get, Document: []byte(kept[3]), OnDocument: keep})
		wantReason(t, "after a start with the URL down", again.verifies(t, i), "")
		wantReason(t, "after a start with the URL down, without kid", again.verifies(t, rotated), "")
		if err := again.verifies(t, i.named("other")); !errors.Is(err, ErrUnavailable) {
			t.Errorf("an unknown kid: %v", err)
		}
		again = start(t, SourceConfig{Get: e.get, Document: []byte(kept[3]), OnDocument: keep})
		wantReason(t, "after a start", again.verifies(t, i), "")
		if len(kept) != 4 {
			t.Errorf("kept %q", kept)
		}
		for _, bad := range []string{"", "<html>", `{"keys":[]}`, rsaOf(1024, "")} {
			if _, err := NewSource(SourceConfig{Document: []byte(bad)}); err == nil {
				t.Errorf("%q was taken", bad)
			}
		}
	})
}

func TestARevokedKeyOfAURLNeverVerifiesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		leaked, other := issuerOf("ES256").named("k1"), strangerOf("ES256").named("k2")
		e.have([]issuer{leaked, other})
		s := start(t, SourceConfig{Get: e.get})
		wantReason(t, "before", s.verifies(t, leaked), "")
		s.Revoke([]string{leaked.key.Thumbprint()})
		wantReason(t, "at once", s.verifies(t, leaked), KeyRevoked)
		wantReason(t, "the other", s.verifies(t, other), "")
		e.have([]issuer{leaked.named("k3"), other}) // under another name
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantReason(t, "under another kid", s.verifies(t, leaked.named("k3")), KeyRevoked)
		s = start(t, SourceConfig{Get: e.get, Revoked: []string{leaked.key.Thumbprint()}})
		wantReason(t, "from the start", s.verifies(t, leaked.named("k3")), KeyRevoked)
		s.Revoke(nil)
		wantReason(t, "taken back", s.verifies(t, leaked.named("k3")), "")
	})
}

func TestASourceThatDoesNotRunFetchesNothingAndMakesNobodyWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e endpoint
		i := issuerOf("ES256").named("k1")
		e.have([]issuer{i})
		s, err := NewSource(SourceConfig{Get: e.get, Document: []byte(document(i))})
		if err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			t.Helper()
			began := time.Now()
			wantReason(t, when, s.verifies(t, i), "")
			if err := s.verifies(t, i.named("k2")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: an unknown kid: %v", when, err)
			}
			if err := s.Refresh(t.Context()); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: refresh: %v", when, err)
			}
			if waited := time.Since(began); waited > 0 {
				t.Errorf("%s: waited %v", when, waited)
			}
		}
		check("before")
		if n := len(e.fetches()); n != 0 {
			t.Errorf("%d fetches", n)
		}
		e.takes = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		synctest.Wait()
		waiting := make(chan error)
		go func() { waiting <- s.Refresh(t.Context()) }()
		synctest.Wait()
		cancel()
		<-done
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("a refresh as it ends: %v", err)
		}
		check("after")
	})
}

func TestKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	var generation atomic.Int32
	issuers := []issuer{issuerOf("ES256").named("0"), strangerOf("ES256").named("1")}
	get := func(context.Context, string, http.Header) (egress.Response, error) {
		n := generation.Add(1)
		return ok(document(issuers[n%2], issuerOf("EdDSA"))), nil
	}
	s, err := NewSource(SourceConfig{Get: get, OnDocument: func(context.Context, []byte, []string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { s.Run(ctx) })
	until := time.Now().Add(200 * time.Millisecond)
	var workers sync.WaitGroup
	for n := range 8 {
		token := fresh(append(issuers, issuerOf("EdDSA"))[n%3])
		workers.Go(func() {
			for time.Now().Before(until) {
				switch n {
				case 0:
					_ = s.Refresh(ctx)
				case 1:
					s.Revoke([]string{issuers[0].key.Thumbprint()})
					s.Revoke(nil)
				case 2:
					_, _ = s.Status(), s.Set().Keys()
				}
				_, err := s.Verify(ctx, token, Standard())
				if err != nil && !errors.Is(err, ErrUnknownKey) && !errors.Is(err, ErrUnavailable) && !errors.Is(err, &Error{KeyRevoked}) {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	cancel()
	all.Wait()
	if generation.Load() < 2 {
		t.Error("nothing rotated")
	}
}
