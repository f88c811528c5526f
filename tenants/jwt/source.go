package jwt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vss-cloud/vss-cloud/tenants/egress"
)

const (
	// A set is fetched again when its answer's cache headers say that it is old, and within these.
	minFresh     = 5 * time.Minute
	maxFresh     = 24 * time.Hour
	defaultFresh = time.Hour // where they say nothing

	// After failures it is fetched again after the first time, twice that, and so on up to the last.
	firstRetry = 30 * time.Second
	lastRetry  = 15 * time.Minute

	// Tokens that no key at hand signed are worth one fetch in unknownPause, whoever sends how many. While that
	// goes on at most maxWaiting requests wait for it, each at most maxWait.
	unknownPause = 5 * time.Second
	maxWait      = 2 * time.Second
	maxWaiting   = 100
)

// SourceConfig says how a [Source] works.
type SourceConfig struct {
	URL string // of a JWKS

	// Get fetches it, as [egress.Client.Get] does.
	Get func(ctx context.Context, url string, header http.Header) (egress.Response, error)

	// Document is the last good one that an earlier Source of this URL gave to OnDocument, or nil. With it,
	// tokens are verified from the start, whether the URL answers or not.
	Document []byte
	Skipped  []string // given with it

	// OnDocument is given the usable keys of the URL, as a JWKS of our own making, and what is wrong with the others
	// ([Status.Skipped]), when either has changed, and again after later fetches until it returns nil. [Source.Run] calls it, and waits for it. It may be nil.
	OnDocument func(ctx context.Context, document []byte, skipped []string) error

	// Revoked are the thumbprints of keys that must not verify, even if the URL has them.
	Revoked []string

	Now func() time.Time // nil: time.Now
}

// Source is the JWKS of a URL, kept fresh in the background. What it has got it keeps while the URL is down or
// answers nonsense: only a set with at least one usable key ever replaces another. It is safe for concurrent
// use.
type Source struct {
	cfg SourceConfig
	set atomic.Pointer[Set] // nil before the first
	ask chan struct{}       // to Run: fetch now. Holds one

	// Run's.
	etag     string
	failures int
	kept     []byte   // the last document that OnDocument took
	reasons  []string // and what was skipped in it

	mu       sync.Mutex // for those below
	keys     []Key      // as fetched; set is made of them
	revoked  []string
	status   Status
	running  bool
	fetching chan struct{} // closed when the fetch that is asked for or under way has ended; nil: there is none
	waiting  int
}

// Status is how a [Source] is, for the console.
type Status struct {
	LastAttempt time.Time // when the last fetch began; zero: none has
	LastSuccess time.Time // when the last one ended that got keys, or heard that they are the same
	LastError   error     // of the last fetch, a text for people; nil if it was one of those
	Next        time.Time // when the next begins, at the latest
	Skipped     []string  // what is wrong with keys of the last set that were passed over
}

// NewSource makes a source. It fails with a [*KeyError] where the document is not one.
func NewSource(cfg SourceConfig) (*Source, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Source{cfg: cfg, ask: make(chan struct{}, 1), revoked: slices.Clone(cfg.Revoked)}
	if cfg.Document != nil {
		keys, _, err := readDocument(cfg.Document)
		if err == nil && len(keys) == 0 {
			err = &KeyError{Reason: noKeys}
		}
		if err != nil {
			return nil, err
		}
		s.replace(keys)
		s.kept, s.reasons = writeDocument(keys), cfg.Skipped
		s.status.Skipped = cfg.Skipped
	}
	return s, nil
}

// Set are the keys at hand, each active or revoked; nil where there never were any.
func (s *Source) Set() *Set { return s.set.Load() }

// Status is how the source is now.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Revoke makes these thumbprints, and no others, those of keys that must not verify. It holds when it returns.
func (s *Source) Revoke(thumbprints []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(s.revoked, thumbprints) {
		return
	}
	s.revoked = slices.Clone(thumbprints)
	if s.keys != nil {
		s.replace(s.keys)
	}
}

// replace needs the lock.
func (s *Source) replace(keys []Key) {
	set := NewSet(keys)
	for i := range set.keys {
		set.keys[i].State = Active
		if slices.Contains(s.revoked, set.keys[i].thumbprint) {
			set.keys[i].State = Revoked
		}
	}
	s.keys = keys
	if s.set.Load().same(set) {
		return // what was verified with it stays verified
	}
	s.set.Store(set)
}

// Verify is [Set.Verify] with the keys at hand. A token that none of them signed, or not the one that it names,
// makes the source look for newer ones, and waits a moment for them: issuers replace keys under the same kid too. Such
// looks are rare, and a key is tried once, so forged tokens gain little by it. Beyond the errors of Set.Verify it fails
// with [ErrUnavailable], where there are no keys, or might be newer ones which could not be had; joined to that is what
// the keys at hand said, if any was tried.
func (s *Source) Verify(ctx context.Context, token string, r Rules) (Claims, error) {
	t, err := Parse(token)
	if err != nil {
		return Claims{}, err
	}
	return s.VerifyToken(ctx, t, r)
}

// VerifyToken is Verify for a token that was parsed already.
func (s *Source) VerifyToken(ctx context.Context, t *Token, r Rules) (Claims, error) {
	if reason := t.refusal(r, s.cfg.Now()); reason != "" {
		return Claims{}, &Error{reason}
	}
	keys := s.set.Load()
	first := keys.attempt(t, s.cfg.Now())
	claims, err := first.verify(t, r)
	if !errors.Is(err, ErrUnknownKey) && !errors.Is(err, errBadSignature) {
		return claims, err
	}
	if !s.refreshed(ctx) {
		if len(first.keys) > 0 {
			return Claims{}, errors.Join(ErrUnavailable, err)
		}
		return Claims{}, ErrUnavailable
	}
	newer := s.set.Load()
	if newer == keys {
		return Claims{}, err
	}
	return newer.attempt(t, s.cfg.Now()).without(first.keys).verify(t, r)
}

// refreshed sees to it that the keys are as new as an unknown one can make them, and says whether they are.
func (s *Source) refreshed(ctx context.Context) bool {
	s.mu.Lock()
	if s.fetching == nil {
		if s.cfg.Now().Sub(s.status.LastAttempt) < unknownPause || !s.running {
			defer s.mu.Unlock()
			return s.current()
		}
		s.request()
	}
	done := s.fetching
	if s.waiting >= maxWaiting {
		s.mu.Unlock()
		return false
	}
	s.waiting++
	s.mu.Unlock()

	limited, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	ended := false
	select {
	case <-done:
		ended = true
	case <-limited.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	return ended && s.current()
}

// current says whether the keys at hand are those that the URL had when last asked. It needs the lock.
func (s *Source) current() bool { return s.status.LastError == nil && !s.status.LastSuccess.IsZero() }

// request needs the lock, and that nothing is asked for or under way.
func (s *Source) request() {
	s.fetching = make(chan struct{})
	s.ask <- struct{}{}
}

// Refresh fetches the set now, or waits for the fetch that is under way, and says how that went: for a person
// who asks. It needs [Source.Run] to be running.
func (s *Source) Refresh(ctx context.Context) error {
	s.mu.Lock()
	if !s.running {
		s.mu.Unlock()
		return ErrUnavailable
	}
	if s.fetching == nil {
		s.request()
	}
	done := s.fetching
	s.mu.Unlock()
	select {
	case <-done:
		return s.Status().LastError
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run keeps the set fresh until the context ends. It fetches at once, and is to be run once.
func (s *Source) Run(ctx context.Context) {
	s.mu.Lock()
	s.running = true
	s.mu.Unlock()
	defer s.stop()
	for timer := time.NewTimer(0); ; {
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.ask:
		case <-timer.C:
		}
		timer.Reset(s.fetch(ctx))
	}
}

// Start is Run in a goroutine of the group. What [Source.Refresh] needs holds when it returns.
func (s *Source) Start(ctx context.Context, in *sync.WaitGroup) {
	s.mu.Lock()
	s.running = true
	s.mu.Unlock()
	in.Go(func() { s.Run(ctx) })
}

// stop ends the wait of those who wait for a fetch that will not be.
func (s *Source) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	if s.fetching != nil {
		s.status.LastError = context.Canceled
		close(s.fetching)
		s.fetching = nil
	}
}

// fetch says how long after it the next one is due.
func (s *Source) fetch(ctx context.Context) time.Duration {
	began := s.cfg.Now()
	s.mu.Lock()
	if s.fetching == nil {
		s.fetching = make(chan struct{})
	}
	select {
	case <-s.ask: // by who came between the timer and the lock
	default:
	}
	s.status.LastAttempt = began
	s.mu.Unlock()

	a, err := s.get(ctx)
	ended := s.cfg.Now()
	after := s.after(a.header, err, ended)
	s.mu.Lock()
	if err == nil {
		s.status.LastSuccess = ended
		if !a.same {
			s.replace(a.keys)
			s.status.Skipped = a.skipped
		}
	}
	s.status.LastError, s.status.Next = err, ended.Add(after)
	close(s.fetching)
	s.fetching = nil
	keys, skipped := s.keys, s.status.Skipped
	s.mu.Unlock()

	if err == nil && s.cfg.OnDocument != nil {
		document := writeDocument(keys)
		same := bytes.Equal(document, s.kept) && slices.Equal(skipped, s.reasons)
		if !same && s.cfg.OnDocument(ctx, document, skipped) == nil {
			s.kept, s.reasons = document, skipped
		}
	}
	return after
}

// after is how long to wait for the next fetch. Chance is in it, so that instances do not fetch as one.
func (s *Source) after(h http.Header, err error, now time.Time) time.Duration {
	if err == nil {
		s.failures = 0
		fresh := freshFor(h, now)
		return max(fresh-rand.N(fresh/10), minFresh)
	}
	s.failures++
	pause := min(firstRetry<<min(s.failures-1, 10), lastRetry)
	return pause - rand.N(pause/10)
}

// answer is what the URL had to say.
type answer struct {
	header  http.Header
	same    bool // nothing new
	keys    []Key
	skipped []string
	size    int // bytes
}

// Answer is what the URL of a JWKS answered once.
type Answer struct {
	Keys    []Key
	Skipped []string      // what is wrong with those that are no keys to verify with
	Size    int           // bytes
	Fresh   time.Duration // after which a [Source] asks again
}

// Fetch asks a URL once, as a [Source] does that begins, for whoever enters it. Where that fails because the URL has no
// usable key, the answer is there all the same.
func Fetch(ctx context.Context, cfg SourceConfig) (Answer, error) {
	a, err := (&Source{cfg: cfg}).get(ctx)
	return Answer{Keys: a.keys, Skipped: a.skipped, Size: a.size, Fresh: freshFor(a.header, time.Now())}, err
}

// get has an answer without keys where it fails because none was usable.
func (s *Source) get(ctx context.Context) (answer, error) {
	header := http.Header{"Accept": {"application/jwk-set+json, application/json"}}
	if s.etag != "" {
		header.Set("If-None-Match", s.etag)
	}
	resp, err := s.cfg.Get(ctx, s.cfg.URL, header)
	if err != nil {
		return answer{}, err
	}
	switch {
	case resp.Status == http.StatusNotModified && s.etag != "":
		return answer{header: resp.Header, same: true}, nil
	case resp.Status != http.StatusOK:
		return answer{}, fmt.Errorf("the URL answered with status %d", resp.Status)
	}
	keys, skipped, err := readDocument(resp.Body)
	a := answer{header: resp.Header, keys: keys, size: len(resp.Body)}
	for _, k := range skipped {
		a.skipped = append(a.skipped, k.Error())
	}
	if err == nil && len(keys) == 0 {
		reasons := append([]string{noKeys}, a.skipped...)
		err = &KeyError{Reason: strings.Join(reasons[:min(len(reasons), 4)], "; ")}
	}
	if err != nil {
		return a, fmt.Errorf("the URL answered, but %w", err)
	}
	s.etag = resp.Header.Get("ETag")
	return a, nil
}

// freshFor is how long an answer is good for, by its Cache-Control, else its Expires (RFC 9111).
func freshFor(h http.Header, now time.Time) time.Duration {
	fresh := defaultFresh
	directives := strings.ToLower(strings.Join(h.Values("Cache-Control"), ","))
	age, hasAge := directive(directives, "max-age")
	_, noStore := directive(directives, "no-store")
	_, noCache := directive(directives, "no-cache")
	switch {
	case noStore || noCache:
		fresh = 0
	case hasAge:
		fresh = age
		if n, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
			fresh -= time.Duration(n) * time.Second
		}
	case h.Get("Expires") != "":
		fresh = 0 // a date that is none has passed
		if expires, err := http.ParseTime(h.Get("Expires")); err == nil {
			if date, err := http.ParseTime(h.Get("Date")); err == nil {
				now = date
			}
			fresh = expires.Sub(now)
		}
	}
	return min(max(fresh, minFresh), maxFresh)
}

// directive finds one of Cache-Control, and how many seconds it says.
func directive(directives, name string) (time.Duration, bool) {
	for d := range strings.SplitSeq(directives, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(d), "=")
		if key == name {
			n, _ := strconv.ParseUint(strings.Trim(value, `"`), 10, 31) // the highest, or 0 for no number
			return time.Duration(n) * time.Second, true
		}
	}
	return 0, false
}
