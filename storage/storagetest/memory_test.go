package storagetest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/storage"
)

// TestMemory shows that the suite asks for nothing impossible: a store in memory passes it.
func TestMemory(t *testing.T) {
	if fault != "" {
		patience = 5 * time.Second // all that it waits for will not come
	}
	Test(t, Backend{New: newMemory})
}

// TestTeeth shows that the suite notices. It runs TestMemory with one fault each, in a process of its own, and
// expects the topic named to fail.
func TestTeeth(t *testing.T) {
	for fault, topic := range map[string]string{
		"decides before it waits":        "locks/of_two_that_waited",
		"stops a batch half-way":         "atomicity/one_bad_item",
		"runs what has ended":            "locks/a_put_whose_deadline",
		"runs what was cancelled":        "locks/a_put_that_is_cancelled",
		"runs what was killed":           "locks/a_put_whose_instance",
		"moves a key by updating it":     "list/an_update",
		"lists a batch backwards":        "list/of_one_put",
		"knows wildcards":                "prefixes/a_prefix_has_no_wildcards",
		"ignores case":                   "collation/keys_that_look_alike",
		"needs the token's entry":        "paging/a_token_survives",
		"takes any token":                "paging/a_token_of_another",
		"pages by scanning a window":     "paging/every_page_size",
		"repeats the global version":     "paging/every_page_size",
		"moves the global version":       "global_version/absent",
		"deletes at any version":         "delete/it_deletes_nothing",
		"conflicts in delete":            "delete/it_is_content",
		"counts keys alone":              "load/after",
		"keeps readers waiting":          "locks/a_lock_that_is_held_keeps",
		"has one lock for all":           "locks/a_lock_that_is_held_delays",
		"ignores the namespace":          "isolation/nothing_crosses",
		"looks at every key":             "work/a_page",
		"admits nobody":                  "values/a_large_value",
		"forgets versions on overwrites": "versions/version_n",
		"ignores limits":                 "limits/a_store_begins_below",
		"writes for the blocked":         "limits/a_blocked_wallet",
		"begins without leave":           "limits/a_store_that_has_never",
		"forgets whose time is up":       "limits/a_put_that_is_asked_for",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			topicName, _, _ := strings.Cut(topic, "/")
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemory$/^"+topicName+"$", "-test.short", "-test.timeout=3m")
			cmd.Env = append(os.Environ(), "STORAGETEST_FAULT="+fault)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestMemory/"+topic) {
				t.Errorf("%s did not fail (%v):\n%s", topic, err, out)
			}
		})
	}
}

// fault is what is wrong with the memory stores of this process, if anything.
var fault = os.Getenv("STORAGETEST_FAULT")

type memoryPlace struct {
	instances []*memory
	waiting   atomic.Int64
	work      atomic.Int64
	mu        sync.Mutex // holds the map and, but for the wait for a write lock, every call
	stores    map[any]*memoryStore
}

type memoryStore struct {
	lock     chan struct{} // holds a token while a writer has the store
	model    Model
	revision int64
	wallet   storage.WalletID
	blocked  bool
}

// memory is one instance.
type memory struct {
	*memoryPlace
	killed chan struct{}
}

func newMemory(_ testing.TB, instances int) Place {
	p := &memoryPlace{stores: make(map[any]*memoryStore)}
	for range instances {
		p.instances = append(p.instances, &memory{p, make(chan struct{})})
	}
	return p
}

func (p *memoryPlace) Stores() []storage.Store {
	var all []storage.Store
	for _, i := range p.instances {
		all = append(all, i)
	}
	return all
}

func (p *memoryPlace) at(ks storage.Keyspace) *memoryStore {
	p.mu.Lock()
	defer p.mu.Unlock()
	var id any = ks.Store()
	if fault == "ignores the namespace" {
		id = [3]string{ks.Owner().Tenant.String(), ks.Owner().Subject, ks.StoreID()}
	}
	s := p.stores[id]
	if s == nil {
		s = &memoryStore{lock: make(chan struct{}, 1), wallet: ks.Wallet()}
		if fault == "has one lock for all" {
			for _, other := range p.stores {
				s.lock = other.lock
			}
		}
		p.stores[id] = s
	}
	return s
}

func (p *memoryPlace) Hold(_ testing.TB, ks storage.Keyspace) func() {
	s := p.at(ks)
	s.lock <- struct{}{}
	return sync.OnceFunc(func() { <-s.lock })
}

func (p *memoryPlace) Waiting(testing.TB) int   { return int(p.waiting.Load()) }
func (p *memoryPlace) Work(testing.TB) int64    { return p.work.Load() }
func (p *memoryPlace) Kill(_ testing.TB, i int) { close(p.instances[i].killed) }
func (p *memoryPlace) Recount(_ testing.TB, ks storage.Keyspace) Count {
	s := p.at(ks)
	p.mu.Lock()
	defer p.mu.Unlock()
	n := Count{Known: s.revision > 0, Revision: s.revision}
	n.Objects, n.Bytes = s.model.Count()
	n.CountedObjects, n.CountedBytes = n.Objects, n.Bytes
	if fault == "counts keys alone" {
		n.Bytes = 0
		for k := range s.model.objects {
			n.Bytes += int64(len(k))
		}
	}
	return n
}

// ended says how a call ended whose context or instance did.
func (m *memory) ended(ctx context.Context) error {
	select {
	case <-m.killed:
		if fault != "runs what was killed" {
			return storage.ErrUnavailable
		}
	default:
	}
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded) && fault == "runs what has ended", errors.Is(err, context.Canceled) && fault == "runs what was cancelled":
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return storage.ErrTooLate
	default:
		return err
	}
}

// write applies a change under the store's lock.
func (m *memory) write(ctx context.Context, ks storage.Keyspace, change func(*Model) (bool, error)) error {
	if err := m.ended(ctx); err != nil {
		return err
	}
	s := m.at(ks)
	m.waiting.Add(1)
	var err error
	select {
	case s.lock <- struct{}{}:
	case <-ctx.Done():
		if err = m.ended(ctx); err == nil { // the fault: it waits on, and its caller is told nothing
			go func() {
				s.lock <- struct{}{}
				_ = m.apply(s, change) // nobody is there to be told
			}()
			err = context.Cause(ctx)
		}
	case <-m.killed:
		err = m.ended(ctx)
		if err == nil {
			s.lock <- struct{}{}
		}
	}
	m.waiting.Add(-1)
	if err != nil {
		return err
	}
	if err := m.ended(ctx); err != nil {
		<-s.lock
		return err
	}
	return m.apply(s, change)
}

func (m *memory) apply(s *memoryStore, change func(*Model) (bool, error)) error {
	defer func() { <-s.lock }()
	m.mu.Lock()
	defer m.mu.Unlock()
	changed, err := change(&s.model)
	if changed {
		s.revision++
	}
	return err
}

func (p *memoryPlace) Block(_ testing.TB, ks storage.Keyspace, block bool) {
	p.at(ks)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.stores {
		if s.wallet == ks.Wallet() {
			s.blocked = block
		}
	}
}

// begins says whether the store's wallet is new, if the store may begin. It needs the lock.
func (m *memory) begins(ctx context.Context, s *memoryStore, l storage.Limits) (newWallet bool, err error) {
	if s.revision > 0 {
		return false, nil
	}
	var stores int64
	for _, other := range m.stores {
		if other.wallet == s.wallet && other.revision > 0 {
			stores++
			s.blocked = other.blocked
		}
	}
	if l.Known && l.Begin == nil && fault != "begins without leave" {
		deadline, _ := ctx.Deadline()
		return false, &storage.NeverWrittenError{NewWallet: stores == 0, Stores: stores, NotAfter: deadline}
	}
	if l.Begin != nil && time.Now().After(l.Begin.NotAfter) && fault != "forgets whose time is up" {
		return false, storage.ErrTooLate
	}
	return stores == 0, nil
}

func (m *memory) Put(ctx context.Context, ks storage.Keyspace, b storage.Batch, l storage.Limits) (done storage.Written, err error) {
	if err := b.Check(); err != nil {
		return done, err
	}
	if fault == "ignores limits" {
		l = storage.Limits{}
	}
	s := m.at(ks)
	b.Writes = slices.Clone(b.Writes)
	for i := range b.Writes {
		w := &b.Writes[i]
		w.Value = slices.Clone(w.Value)
		if fault == "forgets versions on overwrites" && w.Version > 1 {
			w.Version = storage.Unconditional
		}
		if fault == "ignores case" {
			w.Key = strings.ToLower(w.Key)
		}
	}
	switch fault {
	case "lists a batch backwards":
		slices.Reverse(b.Writes)
	case "moves the global version":
		if b.GlobalVersion == nil {
			g, _ := m.at(ks).model.Get(storage.GlobalVersionKey)
			b.GlobalVersion = &g.Version
		}
	case "decides before it waits":
		m.mu.Lock()
		_, decided := s.model.clone().Put(b, l)
		m.mu.Unlock()
		return done, m.write(ctx, ks, func(model *Model) (bool, error) {
			if decided == nil {
				model.force(b)
			}
			return true, decided
		})
	}
	err = m.write(ctx, ks, func(model *Model) (bool, error) {
		if s.revision == 0 && len(b.Deletes) > 0 && len(b.Writes) == 0 && b.GlobalVersion == nil {
			return false, storage.ErrConflict
		}
		newWallet, err := m.begins(ctx, s, l)
		if err == nil && s.blocked && fault != "writes for the blocked" {
			err = storage.ErrBlocked
		}
		if err != nil {
			return false, err
		}
		if fault == "stops a batch half-way" {
			for _, w := range b.Writes {
				if _, err := model.Put(writes(w), l); err != nil {
					return true, err
				}
			}
			b.Writes = nil
		}
		if fault == "moves a key by updating it" {
			for _, w := range b.Writes {
				if o, ok := model.objects[w.Key]; ok {
					o.position = model.created
					model.created++
					model.objects[w.Key] = o
				}
			}
		}
		done, err = model.Put(b, l)
		done.NewWallet = newWallet
		return err == nil, err
	})
	if err != nil {
		done = storage.Written{}
	}
	return done, err
}

func (m *Model) clone() *Model {
	c := &Model{global: m.global, written: m.written, created: m.created, objects: make(map[string]modelled)}
	for k, o := range m.objects {
		c.objects[k] = o
	}
	return c
}

// force makes every version match and puts.
func (m *Model) force(b storage.Batch) {
	for _, w := range b.Writes {
		if o := m.objects[w.Key]; w.Version > 0 {
			o.version = w.Version
			m.objects[w.Key] = o
		} else if w.Version == 0 {
			delete(m.objects, w.Key)
		}
	}
	b.Deletes = slices.DeleteFunc(slices.Clone(b.Deletes), func(d storage.KeyVersion) bool { return !m.has(d) })
	if b.GlobalVersion != nil {
		m.global = max(0, *b.GlobalVersion)
	}
	if _, err := m.Put(b, storage.Limits{}); err != nil {
		panic(err)
	}
}

func (m *memory) Delete(ctx context.Context, ks storage.Keyspace, item storage.KeyVersion) (done storage.Written, err error) {
	if err := item.Check(); err != nil {
		return done, err
	}
	if fault == "deletes at any version" {
		item.Version = storage.Unconditional
	}
	s := m.at(ks)
	err = m.write(ctx, ks, func(model *Model) (bool, error) {
		if s.blocked && fault != "writes for the blocked" {
			return false, storage.ErrBlocked
		}
		found := model.has(item)
		if !found && fault == "conflicts in delete" {
			return false, storage.ErrConflict
		}
		done, err = model.Delete(item)
		return found, err
	})
	if err != nil {
		done = storage.Written{}
	}
	return done, err
}

func (m *memory) Get(ctx context.Context, ks storage.Keyspace, key string, admit storage.Admit) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, err
	}
	if err := m.ended(ctx); err != nil {
		return storage.Object{}, err
	}
	s := m.at(ks)
	if fault == "keeps readers waiting" {
		select {
		case s.lock <- struct{}{}:
			defer func() { <-s.lock }()
		case <-ctx.Done():
			return storage.Object{}, ctx.Err()
		}
	}
	if fault == "ignores case" {
		key = strings.ToLower(key)
	}
	m.mu.Lock()
	o, err := s.model.Get(key)
	m.mu.Unlock()
	m.work.Add(1)
	if len(o.Value) > 64<<10 && admit != nil && fault != "admits nobody" {
		if err := admit(int64(len(o.Value))); err != nil {
			return storage.Object{}, err
		}
	}
	return o, err
}

// List makes no attempt to be quick: it counts as its work what it returns.
func (m *memory) List(ctx context.Context, ks storage.Keyspace, req storage.ListRequest) (storage.Page, error) {
	if err := req.Check(); err != nil {
		return storage.Page{}, err
	}
	if err := m.ended(ctx); err != nil {
		return storage.Page{}, err
	}
	s := m.at(ks)
	m.mu.Lock()
	defer m.mu.Unlock()

	size := req.PageSize
	if size == 0 || size > maxPage {
		size = maxPage
	}
	scope := fmt.Sprintf("%s %q ", ks.Store(), req.Prefix)
	if fault == "takes any token" {
		scope = ""
	}
	before, entry := s.model.created, ""
	if req.Token != "" {
		token, err := base64.RawURLEncoding.Strict().DecodeString(req.Token)
		rest, ok := strings.CutPrefix(string(token), scope)
		position, name, _ := strings.Cut(rest, " ")
		n, bad := strconv.ParseInt(position, 10, 64)
		if err != nil || !ok || bad != nil || strconv.FormatInt(n, 10) != position {
			return storage.Page{}, storage.ErrBadToken
		}
		before, entry = n, name
	}

	prefix := req.Prefix
	if fault == "knows wildcards" {
		prefix, _, _ = strings.Cut(prefix, "_")
	}
	var all []storage.KeyVersion
	if fault == "pages by scanning a window" {
		all = s.model.List("")
	} else {
		all = s.model.List(prefix)
	}
	if fault == "looks at every key" {
		m.work.Add(int64(len(s.model.objects)))
	}
	all = all[sort.Search(len(all), func(i int) bool { return s.model.objects[all[i].Key].position < before }):]
	if fault == "needs the token's entry" && entry != "" {
		if _, ok := s.model.objects[entry]; !ok {
			all = nil
		}
	}
	var page storage.Page
	page.Keys = all
	if len(all) > size {
		page.Keys = all[:size:size]
		last := page.Keys[size-1].Key
		token := scope + fmt.Sprint(s.model.objects[last].position)
		if fault == "needs the token's entry" {
			token += " " + last
		}
		page.NextToken = base64.RawURLEncoding.EncodeToString([]byte(token))
	}
	if fault == "pages by scanning a window" {
		page.Keys = slices.DeleteFunc(page.Keys, func(kv storage.KeyVersion) bool { return !strings.HasPrefix(kv.Key, prefix) })
	}
	if req.Token == "" || fault == "repeats the global version" {
		page.GlobalVersion = at(s.model.global)
	}
	m.work.Add(int64(len(page.Keys)))
	return page, nil
}
