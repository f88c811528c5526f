// Package workload makes calls as wallets do, over HTTP and with signature tokens, and writes down what they
// saw: clients that share a store and check each other's work, and wallets that only ever want to be served.
package workload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// Instance is one way to the platform.
type Instance struct {
	Name    string
	BaseURL string       // of the tenant
	HTTP    *http.Client // its connections, shared by all who call it
}

// NewInstance makes an instance with connections of its own. wrap sees all that goes through them; nil: nobody does.
func NewInstance(name, baseURL string, wrap func(*http.Transport) http.RoundTripper) *Instance {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.DisableCompression = 0, 256, true
	i := &Instance{Name: name, BaseURL: baseURL, HTTP: &http.Client{Transport: t}}
	if wrap != nil {
		i.HTTP.Transport = wrap(t)
	}
	return i
}

// Clock is the time of a run, by which everything in its histories is dated.
type Clock time.Time

// Now is how long the run has lasted.
func (c Clock) Now() time.Duration { return time.Since(time.Time(c)) }

// Keys and prefixes of a store under test. Some begin others, some have what would be wildcards.
var (
	keys     = []string{KeyMark + "a", KeyMark + "a/1", KeyMark + "a/2", KeyMark + "a_", KeyMark + "a%", KeyMark + "b"}
	prefixes = []string{"", KeyMark, KeyMark + "a", KeyMark + "a/", KeyMark + "a_", KeyMark + "a%", KeyMark + "b", KeyMark + "c"}
)

// Store is a store under test and the history of what its clients saw. Its methods may be called from
// several goroutines; no two at a time for one client.
type Store struct {
	Name  string // of the run's only store of this name; its values are known by it
	id    string // store_id
	clock Clock
	via   []way

	mu      sync.Mutex
	ops     []history.Op
	wrong   []error
	values  history.Value
	known   map[string]int64 // the version that a client last heard of a key
	slowest time.Duration    // attempt that was answered
}

// way is an instance as the store's wallet calls it, with more or less patience.
type way struct {
	instance *Instance
	clients  []*client.Client // by patience
}

// patience is how long a client waits for an answer: that of released wallets, and that of an app which is
// closed or loses its network.
var patience = []time.Duration{10 * time.Second, 2 * time.Second, 10 * time.Second, time.Second, 5 * time.Second}

// NewStore makes a store of a wallet of its own, with the same name, that is reached through the instances.
// Nothing is sent yet.
func NewStore(name string, clock Clock, instances []*Instance) (*Store, error) {
	auth, err := NewAuth(name)
	if err != nil {
		return nil, err
	}
	return NewStoreOf(auth, name, name, clock, instances)
}

// NewStoreOf makes a store with this store_id of a wallet that may have others, under a name of its own.
func NewStoreOf(auth client.Auth, id, name string, clock Clock, instances []*Instance) (*Store, error) {
	s := &Store{Name: name, id: id, clock: clock, known: make(map[string]int64)}
	for _, i := range instances {
		w := way{instance: i}
		for _, d := range patience {
			c, err := client.New(client.Config{
				BaseURL: i.BaseURL, Auth: auth, HTTPClient: i.HTTP, Retry: client.Retry{MaxAttempts: 1}, AttemptTimeout: d})
			if err != nil {
				return nil, err
			}
			w.clients = append(w.clients, c)
		}
		s.via = append(s.via, w)
	}
	return s, nil
}

// NewAuth is the credential of the wallet of this name.
func NewAuth(wallet string) (client.Auth, error) {
	a, err := client.NewSignatureAuth(sha256.Sum256([]byte(wallet)))
	return &tokens{auth: a}, err
}

// tokens keeps a token for the second in which it would be the same anyway: signing costs more than a call.
type tokens struct {
	auth *client.SignatureAuth

	mu    sync.Mutex
	at    int64
	token string
}

func (t *tokens) Authorization(ctx context.Context, now time.Time) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Unix() == t.at {
		return t.token, nil
	}
	token, err := t.auth.Authorization(ctx, now)
	if err == nil {
		t.at, t.token = now.Unix(), token
	}
	return token, err
}

// Run makes calls as one client of the store until ctx ends: each a random one through a random instance, but
// for a while not through one that did not answer. One under way is waited for.
func (s *Store) Run(ctx context.Context, id int, rng *rand.Rand, pause time.Duration) {
	var last history.Op
	avoid := make([]time.Time, len(s.via))
	for ctx.Err() == nil {
		o := s.draw(rng, last)
		o.Client = id
		via := rng.IntN(len(s.via))
		for range s.via {
			if time.Now().Before(avoid[via]) {
				via = (via + 1) % len(s.via)
			}
		}
		last = s.do(context.WithoutCancel(ctx), s.via[via], o)
		wait := pause
		if last.Outcome == history.Refused || last.Outcome == history.Unknown {
			wait += 100 * time.Millisecond // a wallet backs off, too
			avoid[via] = time.Now().Add(time.Second)
		}
		if wait > 0 {
			select {
			case <-time.After(rand.N(wait)):
			case <-ctx.Done():
			}
		}
	}
}

// Once makes one random call as a client. after is what its last one came to.
func (s *Store) Once(ctx context.Context, id int, rng *rand.Rand, after history.Op) history.Op {
	o := s.draw(rng, after)
	o.Client = id
	return s.do(ctx, s.via[rng.IntN(len(s.via))], o)
}

// Put writes one key, whatever its version, once.
func (s *Store) Put(ctx context.Context, id int) history.Op {
	s.mu.Lock()
	s.values++
	o := history.Op{Client: id, Kind: history.Put, Writes: []history.Item{{Key: keys[0], Version: -1, Value: s.values}}}
	s.mu.Unlock()
	return s.do(ctx, s.via[0], o)
}

// List lists the whole store on one page, once.
func (s *Store) List(ctx context.Context, id int) history.Op {
	return s.do(ctx, s.via[0], history.Op{Client: id, Kind: history.List})
}

// draw makes a call up. last is the client's last one.
func (s *Store) draw(rng *rand.Rand, last history.Op) (o history.Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := func(key string) int64 {
		switch n := rng.IntN(100); {
		case n < 40:
			return -1
		case n < 95:
			return s.known[key]
		}
		return rng.Int64N(4)
	}
	if last.Kind == history.List && last.Outcome == history.OK && last.Answer.More {
		o.Kind, o.Prefix, o.PageSize, o.Page = history.List, last.Prefix, 1+rng.IntN(2), last.Page+1
		o.Note = last.Note // the token
		return o
	}
	switch n := rng.IntN(100); {
	case n < 42:
		o.Kind = history.Put
		items := 1
		if rng.IntN(3) == 0 {
			items = 2 + rng.IntN(2)
		}
		for _, k := range rng.Perm(len(keys))[:items] {
			i := history.Item{Key: keys[k], Version: version(keys[k])}
			if s.known[i.Key] > 0 && rng.IntN(5) == 0 {
				o.Deletes = append(o.Deletes, i)
				continue
			}
			s.values++
			i.Value = s.values
			o.Writes = append(o.Writes, i)
		}
		if rng.IntN(6) == 0 {
			g := version(history.GlobalKey)
			o.Global = &g
		}
	case n < 50:
		o.Kind = history.Delete
		o.Item.Key = keys[rng.IntN(len(keys))]
		o.Item.Version = version(o.Item.Key)
	case n < 80:
		o.Kind = history.Get
		o.Item.Key = keys[rng.IntN(len(keys))]
		if rng.IntN(8) == 0 {
			o.Item.Key = history.GlobalKey
		}
	default:
		o.Kind = history.List
		o.Prefix, o.PageSize = prefixes[rng.IntN(len(prefixes))], rng.IntN(3)
	}
	return o
}

// do makes one attempt and writes down what came of it. The token of a list's next page is left in Note,
// and only there: it is no part of the history.
func (s *Store) do(ctx context.Context, w way, o history.Op) history.Op {
	token := o.Note
	o.Via, o.Note = w.instance.Name, ""
	o.Call = s.clock.Now()
	next, err := s.ask(ctx, w.clients[o.Client%len(w.clients)], &o, token)
	o.Return = s.clock.Now()
	o.Outcome, err = outcome(err)

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errNoAnswer):
		o.Note = err.Error()
	case err != nil:
		o.Note = err.Error()
		s.wrong = append(s.wrong, fmt.Errorf("store %s: %v: %w", s.Name, o, err))
	}
	if o.Outcome != history.Unknown {
		s.slowest = max(s.slowest, o.Return-o.Call)
	}
	s.learn(o)
	s.ops = append(s.ops, o)
	o.Note = next
	return o
}

// ask sends the call and reads the answer into o. next is the token of the next page.
func (s *Store) ask(ctx context.Context, c *client.Client, o *history.Op, token string) (next string, err error) {
	switch o.Kind {
	case history.Get:
		var got *vsspb.GetObjectResponse
		if got, err = c.GetObject(ctx, &vsspb.GetObjectRequest{StoreId: s.id, Key: o.Item.Key}); err != nil {
			return "", err
		}
		o.Answer.Version = got.GetValue().GetVersion()
		switch {
		case got.GetValue().GetKey() != o.Item.Key:
			err = fmt.Errorf("the answer is about key %q", got.GetValue().GetKey())
		case o.Item.Key != history.GlobalKey:
			o.Answer.Value, err = read(s.Name, got.GetValue().GetValue())
		}
	case history.Put:
		req := &vsspb.PutObjectRequest{StoreId: s.id, GlobalVersion: o.Global}
		for _, w := range o.Writes {
			req.TransactionItems = append(req.TransactionItems, &vsspb.KeyValue{Key: w.Key, Version: w.Version, Value: spell(s.Name, w.Value)})
		}
		for _, d := range o.Deletes {
			req.DeleteItems = append(req.DeleteItems, &vsspb.KeyValue{Key: d.Key, Version: d.Version})
		}
		_, err = c.PutObjects(ctx, req)
	case history.Delete:
		_, err = c.DeleteObject(ctx, &vsspb.DeleteObjectRequest{
			StoreId: s.id, KeyValue: &vsspb.KeyValue{Key: o.Item.Key, Version: o.Item.Version}})
	case history.List:
		req := &vsspb.ListKeyVersionsRequest{StoreId: s.id}
		if o.Prefix != "" {
			req.KeyPrefix = &o.Prefix
		}
		if o.PageSize > 0 {
			n := int32(o.PageSize)
			req.PageSize = &n
		}
		if o.Page > 0 {
			req.PageToken = &token
		}
		var page *vsspb.ListKeyVersionsResponse
		if page, err = c.ListKeyVersions(ctx, req); err != nil {
			return "", err
		}
		for _, k := range page.GetKeyVersions() {
			o.Answer.Keys = append(o.Answer.Keys, history.Item{Key: k.GetKey(), Version: k.GetVersion()})
			if !slices.Contains(keys, k.GetKey()) {
				err = fmt.Errorf("a key that nobody wrote: %q", k.GetKey())
			}
		}
		o.Answer.Global = page.GlobalVersion
		if page.NextPageToken == nil {
			return "", errors.New("a page without next_page_token")
		}
		next = page.GetNextPageToken()
		o.Answer.More = next != ""
	}
	return next, err
}

var errNoAnswer = errors.New("no answer")

// outcome says how an attempt ended. The error is errNoAnswer, with the reason, for what faults may bring
// about, nil for answers, and otherwise what no server should ever say to a well-formed call.
func outcome(err error) (history.Outcome, error) {
	if err == nil {
		return history.OK, nil
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		switch {
		case e.Code == vsspb.ErrorCode_CONFLICT_EXCEPTION && e.HTTPStatus == http.StatusConflict:
			return history.Conflict, nil
		case e.Code == vsspb.ErrorCode_NO_SUCH_KEY_EXCEPTION && e.HTTPStatus == http.StatusNotFound:
			return history.NoSuchKey, nil
		case e.Code == vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION && e.HTTPStatus == http.StatusServiceUnavailable:
			// In our server's table (api/errors.go) this says: no effect, now or later.
			return history.Refused, fmt.Errorf("%w: %w", errNoAnswer, err)
		case e.Code == vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION && e.HTTPStatus == http.StatusInternalServerError:
			return history.Unknown, fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		return history.Unknown, err
	}
	if errors.Is(err, client.ErrProtocol) {
		return history.Unknown, err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return history.Refused, fmt.Errorf("%w: %w", errNoAnswer, err) // never sent
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.DeadlineExceeded) {
		return history.Unknown, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if isCut(err) {
		return history.Unknown, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return history.Unknown, err
}

// learn keeps the versions that an answer tells, so that conditional calls often match.
func (s *Store) learn(o history.Op) {
	switch {
	case o.Outcome == history.NoSuchKey:
		s.known[o.Item.Key] = 0
	case o.Outcome != history.OK:
	case o.Kind == history.Get:
		s.known[o.Item.Key] = o.Answer.Version
	case o.Kind == history.List:
		for _, k := range o.Answer.Keys {
			s.known[k.Key] = k.Version
		}
	case o.Kind == history.Put:
		for _, w := range o.Writes {
			s.known[w.Key] = max(1, w.Version+1)
		}
		for _, d := range o.Deletes {
			s.known[d.Key] = 0
		}
		if o.Global != nil {
			s.known[history.GlobalKey] = max(1, *o.Global+1)
		}
	}
}

// ReadOut asks for everything that the store holds, as its own client id, until it is answered or ctx ends:
// every key, the global version, and a list in pages. It comes after the last write has ended, and answers
// what two of them must agree on.
func (s *Store) ReadOut(ctx context.Context, id int) (contents string, err error) {
	var b strings.Builder
	ask := func(o history.Op) (history.Op, error) {
		o.Client = id
		for n := 0; ; n++ {
			got := s.do(ctx, s.via[n%len(s.via)], o)
			if got.Outcome != history.Unknown && got.Outcome != history.Refused {
				fmt.Fprintln(&b, got.Describe())
				return got, nil
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return got, fmt.Errorf("store %s cannot be read: %w (%s)", s.Name, ctx.Err(), got.Note)
			}
		}
	}
	for _, k := range append(slices.Clone(keys), history.GlobalKey) {
		if _, err := ask(history.Op{Kind: history.Get, Item: history.Item{Key: k}}); err != nil {
			return "", err
		}
	}
	page := history.Op{Kind: history.List, PageSize: 2}
	for {
		got, err := ask(page)
		if err != nil || !got.Answer.More {
			return b.String(), err
		}
		page.Page, page.Note = got.Page+1, got.Note
	}
}

// History is what has been seen so far, by when it began.
func (s *Store) History() []history.Op {
	s.mu.Lock()
	defer s.mu.Unlock()
	ops := slices.Clone(s.ops)
	history.Sort(ops)
	return ops
}

// Forget lets go of the history, once it was judged.
func (s *Store) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops, s.wrong = nil, nil
}

// Wrong is what was answered that no state of the store explains: an impossible value, a status that the
// contract does not have, a header that is missing.
func (s *Store) Wrong() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wrong)
}

// Slowest is the longest that an attempt took which was answered.
func (s *Store) Slowest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slowest
}
