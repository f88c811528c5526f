package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// governed is a platform with everything that package quota has.
type governed struct {
	*platform
	limiter *quota.Limiter
	meter   *usage.Meter
	now     struct {
		sync.Mutex
		ahead time.Duration
	}
	wallets, bytes int64        // of every tenant, as last measured
	line           atomic.Value // quota.Line of the last write's store
}

func govern(t testing.TB) *governed {
	t.Helper()
	g := &governed{meter: usage.NewMeter(usage.MeterConfig{})}
	var pool *pgxpool.Pool
	began := time.Now() // the limiter's clock stands still, but for forward
	g.limiter = quota.NewLimiter(quota.LimiterConfig{Now: func() time.Time {
		g.now.Lock()
		defer g.now.Unlock()
		return began.Add(g.now.ahead)
	}})
	g.platform = start(t, func(cfg *api.Config) {
		cfg.Quota = api.Quota{
			Limiter: g.limiter,
			Meter:   g.meter,
			Totals:  func(uuid.UUID) (int64, int64) { return g.wallets, g.bytes },
			Standing: func(ctx context.Context, w storage.WalletID) (bool, bool, error) {
				return tenants.Standing(ctx, pool, w)
			},
			Stored: func(_ uuid.UUID, _ storage.StoreID, d quota.Decision) { g.line.Store(d.Line) },
		}
	})
	pool = open(t, g.database, db.RoleAPI)
	return g
}

func (g *governed) forward(d time.Duration) {
	g.now.Lock()
	defer g.now.Unlock()
	g.now.ahead += d
}

// limit sets limits of a tenant's own.
func (g *governed) limit(t testing.TB, slug string, limits map[string]int64) {
	t.Helper()
	c := tenants.Change{Limits: map[string]*int64{}}
	for name, value := range limits {
		c.Limits[name] = &value
	}
	g.set(t, slug, c)
}

func (w *wallet) in(t testing.TB, store, key, value string) *answer {
	t.Helper()
	return w.call(t, "putObjects", &vsspb.PutObjectRequest{
		StoreId: store, TransactionItems: []*vsspb.KeyValue{{Key: key, Version: -1, Value: []byte(value)}},
	})
}

func (w *wallet) delete(t testing.TB, key string) *answer {
	t.Helper()
	return w.call(t, "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: &vsspb.KeyValue{Key: key, Version: -1}})
}

func (w *wallet) list(t testing.TB) *answer {
	t.Helper()
	return w.call(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"})
}

// putDeletes is a put that only deletes, what is not there.
func (w *wallet) putDeletes(t testing.TB) *answer {
	t.Helper()
	return w.call(t, "putObjects", &vsspb.PutObjectRequest{StoreId: "s", DeleteItems: []*vsspb.KeyValue{{Key: "absent", Version: -1}}})
}

func TestWhoMayEnrolAndWhatAnUnknownWalletSees(t *testing.T) {
	t.Parallel()
	g := govern(t)
	known, listed, stranger := g.wallet(t, "acme", 1), g.wallet(t, "acme", 2), g.wallet(t, "acme", 3)
	known.put(t, "k", "v").wantDone(t)
	_, err := g.service.AllowWallets(t.Context(), operator, "acme", "signature", []string{listed.auth.Subject()}, true)
	check(t, err)
	wantUnknown := func(w *wallet) {
		t.Helper()
		w.get(t, "k").want(t, 401, noAuth)
		w.get(t, "global_version").want(t, 401, noAuth)
		w.list(t).want(t, 401, noAuth)
		w.put(t, "k", "v").want(t, 401, noAuth)
		w.delete(t, "k").want(t, 401, noAuth)
		w.putDeletes(t).want(t, 401, noAuth)
	}
	wantEmpty := func(w *wallet) {
		t.Helper()
		w.get(t, "k").want(t, 404, noSuch)
		if keys := w.list(t).keys(t); len(keys) != 0 {
			t.Errorf("it has %q", keys)
		}
		w.delete(t, "k").wantOK(t, &vsspb.DeleteObjectResponse{})
		w.putDeletes(t).want(t, 409, conflict)
	}
	wantEmpty(stranger) // open: whoever has never written is as if empty, and reading writes nothing
	g.set(t, "acme", tenants.Change{Enrolment: ptr(tenants.EnrolmentClosed)})
	wantUnknown(stranger)
	wantUnknown(listed)
	known.wantValue(t, "k", "v")
	known.get(t, "absent").want(t, 404, noSuch)
	known.putDeletes(t).want(t, 409, conflict)
	known.in(t, "another store", "k", "v").wantDone(t)
	g.set(t, "acme", tenants.Change{Enrolment: ptr(tenants.EnrolmentListed)})
	wantUnknown(stranger)
	wantEmpty(listed)
	listed.put(t, "k", "v").wantDone(t)
	_, err = g.service.AllowWallets(t.Context(), operator, "acme", "signature", []string{listed.auth.Subject()}, false)
	check(t, err)
	listed.wantValue(t, "k", "v") // who is there stays
	listed.put(t, "k", "w").wantDone(t)
	g.set(t, "acme", tenants.Change{Enrolment: ptr(tenants.EnrolmentOpen)})
	stranger.put(t, "k", "v").wantDone(t)
}

// After a restart every wallet is a stranger.
func TestAConflictLooksItsWalletUpOnceIfEnrolmentIsClosed(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	p := start(t, over(always(func(context.Context) error { return storage.ErrConflict })),
		knowing(func(storage.WalletID) bool { asked.Add(1); return true }))
	w := p.wallet(t, "acme", 1)
	w.put(t, "k", "v").want(t, 409, conflict)
	if n := asked.Load(); n != 0 {
		t.Errorf("asked %d times where anyone may enrol", n)
	}
	p.set(t, "acme", tenants.Change{Enrolment: ptr(tenants.EnrolmentClosed)})
	for range 3 {
		w.put(t, "k", "v").want(t, 409, conflict)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestAWalletIsAskedForOnceACall(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	p := start(t, func(cfg *api.Config) {
		cfg.Quota.Limiter = quota.NewLimiter(quota.LimiterConfig{})
		cfg.Quota.Standing = func(context.Context, storage.WalletID) (known, listed bool, err error) {
			asked.Add(1)
			return false, true, nil
		}
	})
	p.set(t, "acme", tenants.Change{Enrolment: ptr(tenants.EnrolmentListed)})
	// It may enrol, and did not, since the versions do not match.
	p.wallet(t, "acme", 1).call(t, "putObjects", put(&vsspb.KeyValue{Key: "k", Version: 7, Value: []byte("v")})).want(t, 409, conflict)
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// What each state allows, over all calls (CONTRACT section 5).
func TestWhoIsBlockedReadsAndWhoIsClosedDoesNothing(t *testing.T) {
	t.Parallel()
	g := govern(t)
	w, other := g.wallet(t, "acme", 1), g.wallet(t, "acme", 2)
	w.put(t, "k", "v").wantDone(t)
	other.put(t, "k", "v").wantDone(t)
	wantAllowed := func(what string, w *wallet, reads, writes bool) {
		t.Helper()
		for call, a := range map[string]*answer{
			"get": w.get(t, "k"), "list": w.list(t), "put": w.put(t, "k", "v"), "delete": w.delete(t, "absent"), "new store": w.in(t, what, "k", "v"),
		} {
			allowed := writes
			if call == "get" || call == "list" {
				allowed = reads
			}
			if allowed && a.status != 200 || !allowed && a.status != 403 {
				t.Errorf("%s: %s: HTTP %d", what, call, a.status)
			}
			if !allowed {
				a.want(t, 403, internal) // tried again, so that an end of it heals
			}
		}
	}
	block := func(blocked bool) {
		t.Helper()
		check(t, g.service.BlockWallet(t.Context(), operator, "acme", "signature", w.auth.Subject(), blocked))
	}
	wantAllowed("active", w, true, true)
	block(true)
	wantAllowed("blocked", w, true, false)
	wantAllowed("another", other, true, true)
	block(false)
	wantAllowed("unblocked", w, true, true)
	for _, tc := range []struct {
		state         tenants.State
		reads, writes bool
	}{{tenants.ReadOnly, true, false}, {tenants.Closed, false, false}, {tenants.Active, true, true}} {
		g.set(t, "acme", tenants.Change{State: &tc.state})
		wantAllowed(string(tc.state), w, tc.reads, tc.writes)
	}
}

func TestCeilingsRefuseInTheOrderOfTheContractAndNeverADelete(t *testing.T) {
	t.Parallel()
	g := govern(t)
	w, stranger := g.wallet(t, "acme", 1), g.wallet(t, "acme", 2)
	w.put(t, "k", strings.Repeat("v", 1000)).wantDone(t)
	want507 := func(a *answer, limit string) {
		t.Helper()
		a.want(t, 507, internal)
		if m := a.error(t).GetMessage(); !strings.Contains(m, limit) || !strings.Contains(m, "allowed are") {
			t.Errorf("the message is %q", m)
		}
	}
	// Beyond the hard line of the tenant: no new wallet, no new store, and whoever is there goes on.
	g.limit(t, "acme", map[string]int64{"wallets": 1, "bytes_per_tenant": 1 << 20})
	g.wallets = 1
	want507(stranger.put(t, "k", "v"), "wallets")
	w.in(t, "second", "k", "v").wantDone(t)
	w.put(t, "k2", "v").wantDone(t)
	g.bytes = 1<<20 + 1
	want507(w.in(t, "third", "k", "v"), "bytes_per_tenant")
	w.put(t, "k3", "v").wantDone(t)
	g.wallets, g.bytes = 0, 0

	g.limit(t, "acme", map[string]int64{"stores_per_wallet": 2})
	want507(w.in(t, "third", "k", "v"), "stores_per_wallet")

	// A value is limited where it grows.
	g.limit(t, "acme", map[string]int64{"value_size": 1024})
	want507(w.put(t, "k", strings.Repeat("v", 2000)), "value_size")
	w.put(t, "k", strings.Repeat("v", 1000)).wantDone(t)

	// A new store begins below the hard line; one that is there has its reserve.
	g.limit(t, "acme", map[string]int64{"stores_per_wallet": 10, "objects_per_store": 1})
	a := w.call(t, "putObjects", &vsspb.PutObjectRequest{StoreId: "third", TransactionItems: []*vsspb.KeyValue{
		{Key: "a", Version: -1}, {Key: "b", Version: -1},
	}})
	want507(a, "objects_per_store")
	w.put(t, "k4", "v").wantDone(t)
	w.delete(t, "k4").wantOK(t, &vsspb.DeleteObjectResponse{})
	w.wantValue(t, "k", strings.Repeat("v", 1000))
}

func TestAWriteAndADeleteTellWhichLineTheirStoreIsBeyond(t *testing.T) {
	t.Parallel()
	g := govern(t)
	w := g.wallet(t, "acme", 1)
	g.limit(t, "acme", map[string]int64{"objects_per_store": 4, "soft_percent": 50})
	for n, want := range []quota.Line{quota.BelowSoft, quota.BelowSoft, quota.BeyondSoft, quota.BeyondSoft, quota.BeyondHard} {
		w.put(t, fmt.Sprint(n), "v").wantDone(t)
		if got := g.line.Load(); got != want {
			t.Errorf("after %d keys it is %v, want %v", n+1, got, want)
		}
	}
	for n, want := range []quota.Line{quota.BeyondSoft, quota.BeyondSoft, quota.BelowSoft} {
		w.delete(t, fmt.Sprint(n)).wantOK(t, &vsspb.DeleteObjectResponse{})
		if got := g.line.Load(); got != want {
			t.Errorf("after %d keys were deleted it is %v, want %v", n+1, got, want)
		}
	}
	g.line.Store(quota.BeyondLast)
	w.delete(t, "absent").wantOK(t, &vsspb.DeleteObjectResponse{})
	if got := g.line.Load(); got != quota.BeyondLast {
		t.Errorf("a delete that found nothing told of %v", got)
	}
}

// CONTRACT section 5, as a wallet has it: its store is exactly at its hard lines, its tenant is beyond all of its own and
// takes nobody new, and all 40 channels close at once, each by 100 updates, the full monitor over them, which has
// grown, their deletion, and the archive. Not one call is refused, for its rate neither: the limiter's clock stands still, so
// that all of it is one burst.
func TestAWalletAtItsHardLineClosesAll40ChannelsOverHTTP(t *testing.T) {
	// Not in parallel: its 4,000 puts would take the time that other tests go by.
	const channels, updates = 40, 100
	g := govern(t)
	w := g.wallet(t, "acme", 1)
	update, monitor, folded := make([]byte, 4<<10), make([]byte, 64<<10), make([]byte, 128<<10)
	full := func(c int) string { return fmt.Sprint("monitors/", c) }
	key := func(c, n int) string { return fmt.Sprintf("monitor_updates/%d/%d", c, n) }
	call := func(name string, m proto.Message) {
		t.Helper()
		w.call(t, name, m).want(t, 200, 0)
	}
	put := func(key string, value []byte) {
		t.Helper()
		call("putObjects", &vsspb.PutObjectRequest{StoreId: "s", TransactionItems: []*vsspb.KeyValue{{Key: key, Version: -1, Value: value}}})
	}
	bytes := int64(0)
	for c := range channels {
		put(full(c), monitor)
		bytes += int64(len(full(c)) + len(monitor))
	}
	g.limit(t, "acme", map[string]int64{
		"wallets": 1, "bytes_per_tenant": 1, "stores_per_wallet": 1, "objects_per_store": channels, "bytes_per_store": bytes,
	})
	g.set(t, "acme", tenants.Change{Enrolment: ptr(tenants.EnrolmentClosed)})
	g.wallets, g.bytes = 1000, 1<<40
	w.in(t, "another store", "k", "v").want(t, 507, internal)

	each := func(do func(c int)) {
		t.Helper()
		var wg sync.WaitGroup
		for c := range channels {
			wg.Go(func() { do(c) })
		}
		wg.Wait()
	}
	each(func(c int) {
		for n := range updates {
			put(key(c, n), update)
		}
	})
	each(func(c int) { put(full(c), folded) })
	each(func(c int) {
		var gone []*vsspb.KeyValue
		for n := range updates {
			gone = append(gone, &vsspb.KeyValue{Key: key(c, n), Version: -1})
		}
		call("putObjects", &vsspb.PutObjectRequest{StoreId: "s", DeleteItems: gone})
		put(fmt.Sprint("archived_monitors/", c), folded)
		call("deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: &vsspb.KeyValue{Key: full(c), Version: -1}})
	})
	if keys := w.list(t).keys(t); len(keys) != channels || !strings.HasPrefix(keys[0], "archived_monitors/") {
		t.Errorf("%d keys are left, the first is %q", len(keys), keys[0])
	}
}

func TestARateIsTheWalletsAndItsTenantsAndNobodyElses(t *testing.T) {
	t.Parallel()
	g := govern(t)
	g.create(t, "globex")
	w, other, elsewhere := g.wallet(t, "acme", 1), g.wallet(t, "acme", 2), g.wallet(t, "globex", 1)
	for _, w := range []*wallet{w, other, elsewhere} {
		w.put(t, "k", "v").wantDone(t)
		w.wantValue(t, "k", "v")
	}
	g.limit(t, "acme", map[string]int64{"wallet_lists_per_minute": 60, "wallet_lists_burst": 1})
	// The burst is no less than the pages of a large store. All but 5 of it is spent here.
	tenant, err := g.directory.Resolve("localhost", "acme")
	check(t, err)
	call := quota.Call{
		Tenant: tenant.ID, Kind: quota.List, Limits: &tenant.Limits,
		Wallet: quota.Key(storage.Owner{Tenant: tenant.ID, Namespace: tenant.Sources[0].Namespace, Subject: w.auth.Subject()}.Wallet()),
	}
	for range tenant.Limits.WalletRate(quota.List).Burst - 5 {
		if a := g.limiter.Admit(call); !a.OK || !a.Known {
			t.Fatalf("%+v", a)
		}
	}
	served := 0
	for range 20 {
		a := w.list(t)
		if a.status == 200 {
			served++
			continue
		}
		a.want(t, 429, internal)
		if n, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || n < 1 {
			t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
		}
	}
	if served < 5 || served > 6 {
		t.Errorf("%d of 20 lists at once were served, of a burst of 5", served)
	}
	w.wantValue(t, "k", "v") // reads and writes have rates of their own
	w.put(t, "k", "w").wantDone(t)
	other.list(t).wantOK(t, &vsspb.ListKeyVersionsResponse{})
	elsewhere.list(t).wantOK(t, &vsspb.ListKeyVersionsResponse{})
	g.forward(2 * time.Second)
	w.list(t).wantOK(t, &vsspb.ListKeyVersionsResponse{})
}

func TestEnrolmentIsLimitedAndHoldsUpNoWalletThatIsKnown(t *testing.T) {
	t.Parallel()
	g := govern(t)
	known := g.wallet(t, "acme", 1)
	known.put(t, "k", "v").wantDone(t)
	g.limit(t, "acme", map[string]int64{"address_enrolments_per_minute": 1, "address_enrolments_burst": 3})
	statuses := map[int]int{}
	for i := range 10 {
		statuses[g.wallet(t, "acme", byte(10+i)).put(t, "k", "v").status]++
	}
	if statuses[200] < 2 || statuses[200] > 4 || statuses[200]+statuses[429] != 10 {
		t.Errorf("10 new wallets of one address were answered %v", statuses)
	}
	for i := range 10 {
		known.in(t, fmt.Sprint("store ", i), "k", "v").wantDone(t)
	}
	g.wallet(t, "acme", 100).get(t, "k").want(t, 404, noSuch) // to read is not to enrol
}

func TestOnlyAFirstWriteIsAskedForTwiceWithinOneDeadline(t *testing.T) {
	t.Parallel()
	type ask struct {
		deadline     time.Time
		known, leave bool
	}
	var asks []ask
	never := &storage.NeverWrittenError{NewWallet: true}
	meter := usage.NewMeter(usage.MeterConfig{})
	p := start(t, over(limited(func(ctx context.Context, l storage.Limits) (storage.Written, error) {
		deadline, _ := ctx.Deadline()
		asks = append(asks, ask{deadline, l.Known, l.Begin == never})
		if len(asks) == 1 {
			return storage.Written{}, never
		}
		return storage.Written{Objects: int64(len(asks)) - 1, NewWallet: len(asks) == 2}, nil
	})), func(cfg *api.Config) { cfg.Quota.Meter = meter })
	w := p.wallet(t, "acme", 1)
	w.put(t, "a", "v").wantDone(t)
	if len(asks) != 2 || !asks[0].known || asks[0].leave || !asks[1].leave || asks[0].deadline != asks[1].deadline {
		t.Fatalf("asked %+v", asks)
	}
	w.put(t, "b", "v").wantDone(t)
	if len(asks) != 3 || !asks[2].known || asks[2].leave {
		t.Errorf("asked %+v", asks)
	}
	if n := taken(t, meter, 2).Enrolled; n != 1 {
		t.Errorf("%d wallets were enrolled", n)
	}
}

func TestOfManyFirstWritesOfAWalletOneEnrolsIt(t *testing.T) {
	t.Parallel()
	g := govern(t)
	w := g.wallet(t, "acme", 1)
	var writing sync.WaitGroup
	for i := range 8 {
		writing.Go(func() { w.in(t, "s", fmt.Sprint(i), "v").wantDone(t) })
	}
	writing.Wait()
	if keys := w.list(t).keys(t); len(keys) != 8 {
		t.Errorf("it has %q", keys)
	}
	if c := taken(t, g.meter, 8+1); c.Enrolled != 1 {
		t.Errorf("it was enrolled %d times", c.Enrolled)
	}
}

// taken waits until so many requests are counted, and takes what is.
func taken(t testing.TB, meter *usage.Meter, requests int64) (all usage.Counts) {
	t.Helper()
	var n int64
	eventually(t, "all are counted", func() bool {
		b := meter.Take()
		if b == nil {
			return false
		}
		meter.Acknowledge(b.Sequence)
		for _, h := range b.Hours {
			for op := range h.Requests {
				for outcome, more := range h.Requests[op] {
					n += more
					all.Requests[op][outcome] += more
				}
			}
			for reason, more := range h.Refused {
				all.Refused[reason] += more
			}
			all.Enrolled += h.Enrolled
		}
		return n >= requests
	})
	return all
}

func TestTheMeterCountsWhatWasAnswered(t *testing.T) {
	t.Parallel()
	g := govern(t)
	w := g.wallet(t, "acme", 1)
	w.put(t, "k", "v").wantDone(t)
	w.get(t, "k").wantValue(t, "v")
	w.get(t, "absent").want(t, 404, noSuch)
	w.call(t, "putObjects", &vsspb.PutObjectRequest{StoreId: "s", TransactionItems: []*vsspb.KeyValue{{Key: "k", Version: 7}}}).want(t, 409, conflict)
	g.limit(t, "acme", map[string]int64{"value_size": 1024})
	w.put(t, "big", strings.Repeat("v", 2000)).want(t, 507, internal)
	r := w.request(t, "getObject", nil)
	r.Header.Set("Authorization", "nobody")
	g.do(t, r).want(t, 401, noAuth)
	g.do(t, w.request(t, "getObject", []byte("\xff"))).want(t, 400, invalid)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.address+"/livez", nil)
	check(t, err)
	resp, err := g.http.Do(r)
	check(t, err)
	resp.Body.Close()

	b := g.meter.Take()
	if b == nil || len(b.Hours) != 1 || len(b.Active) != 1 {
		t.Fatalf("took %+v", b)
	}
	h := b.Hours[0]
	got := map[string]int64{}
	for op := range h.Requests {
		for outcome, n := range h.Requests[op] {
			if n > 0 {
				got[fmt.Sprint(usage.Operation(op), " ", usage.Outcome(outcome))] = n
			}
		}
	}
	want := map[string]int64{
		"putObjects succeeded": 1, "getObject succeeded": 1, "getObject not_found": 1, "putObjects conflicted": 1,
		"putObjects refused": 1, "getObject unauthenticated": 1, "getObject invalid": 1,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || h.Enrolled != 1 || h.Refused[quota.Storage] != 1 || h.In < 10 || h.In > 2000 || h.Out < 10 {
		t.Errorf("counted %v and %+v, want %v", got, h.Counts, want)
	}
}

// written is a store whose puts and deletes come to this.
type written struct {
	fake
	storage.Written
}

func (w written) Put(context.Context, storage.Keyspace, storage.Batch, storage.Limits) (storage.Written, error) {
	return w.Written, nil
}

func (w written) Delete(context.Context, storage.Keyspace, storage.KeyVersion) (storage.Written, error) {
	return w.Written, nil
}

// Whatever the limiter remembers of a wallet, and whatever a stranger sends.
func TestAWalletIsActiveAndItsBytesAreBilledByWhatWasServed(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("v", 1000)
	lost := storage.Written{Objects: -1, Bytes: -1}
	failing := func(err error) storage.Store { return always(func(context.Context) error { return err }) }
	reading := func(o storage.Object) storage.Store {
		return fake{get: func(context.Context, storage.Keyspace, string, storage.Admit) (storage.Object, error) { return o, nil }}
	}
	put := func(t *testing.T, w *wallet) { w.put(t, "k", value) }
	get := func(t *testing.T, w *wallet) { w.get(t, "k") }
	remove := func(t *testing.T, w *wallet) { w.delete(t, "k") }
	list := func(t *testing.T, w *wallet) { w.list(t) }
	for _, tc := range []struct {
		name           string
		store          storage.Store
		do             func(t *testing.T, w *wallet)
		outcome        usage.Outcome
		active, billed bool
	}{
		{"a put", written{Written: storage.Written{Objects: 1, Bytes: 1}}, put, usage.Succeeded, true, true},
		{"a put found to be done after its answer was lost", written{Written: lost}, put, usage.Succeeded, true, true},
		{"a delete", written{Written: storage.Written{Objects: 0}}, remove, usage.Succeeded, true, true},
		{"a delete of nothing", written{Written: lost}, remove, usage.Succeeded, false, true},
		{"a get", reading(storage.Object{Key: "k", Version: 1, Value: []byte(value)}), get, usage.Succeeded, true, true},
		{"a get of the global version of a store that is not there", reading(storage.Object{Key: "global_version"}), get, usage.Succeeded, false, true},
		{"a list", fake{list: func(context.Context, storage.Keyspace, storage.ListRequest) (storage.Page, error) {
			return storage.Page{Keys: []storage.KeyVersion{{Key: "k", Version: 1}}}, nil
		}}, list, usage.Succeeded, true, true},
		{"a list of nothing", fake{}, list, usage.Succeeded, false, true},
		{"no such key", failing(storage.ErrNoSuchKey), get, usage.NotFound, false, true},
		{"a conflict", failing(storage.ErrConflict), put, usage.Conflicted, false, true},
		{"invalid", failing(&storage.InvalidError{Reason: "odd"}), put, usage.Invalid, false, false},
		{"a malformed body", fake{}, func(t *testing.T, w *wallet) {
			w.do(t, w.request(t, "putObjects", []byte("\xff"+value))).want(t, 400, invalid)
		}, usage.Invalid, false, false},
		{"not authenticated", fake{}, func(t *testing.T, w *wallet) {
			r := w.request(t, "putObjects", []byte(value))
			r.Header.Set("Authorization", "nobody")
			w.do(t, r).want(t, 401, noAuth)
		}, usage.Unauthenticated, false, false},
		{"not known, and not allowed to be", failing(&callers.AuthError{Source: "signature", Reason: "not on the list"}), put, usage.Unauthenticated, false, false},
		{"too many calls", failing(callers.ErrSuspect), put, usage.Refused, false, false},
		{"blocked", failing(storage.ErrBlocked), put, usage.Refused, false, false},
		{"beyond a ceiling", failing(&storage.ExceededError{Limit: "value_size"}), put, usage.Refused, false, false},
		{"overloaded", failing(quota.ErrQueueFull), put, usage.Refused, false, false},
		{"a fault", failing(errors.New("fault")), put, usage.Failed, false, false},
		{"ambiguous", failing(storage.ErrAmbiguous), put, usage.Failed, false, false},
		{"a panic", always(func(context.Context) error { panic("x") }), put, usage.Failed, false, false},
		{"cut before its answer", always(func(context.Context) error { panic(http.ErrAbortHandler) }), func(t *testing.T, w *wallet) {
			if _, err := w.http.Do(w.request(t, "listKeyVersions", nil)); err == nil {
				t.Error("an answer")
			}
		}, usage.Failed, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			limiter, meter := quota.NewLimiter(quota.LimiterConfig{}), usage.NewMeter(usage.MeterConfig{})
			p := start(t, over(tc.store), func(cfg *api.Config) { cfg.Quota = api.Quota{Limiter: limiter, Meter: meter} })
			tenant, err := p.directory.Resolve("", "acme")
			check(t, err)
			w := p.wallet(t, "acme", 1)
			limiter.Know(quota.Key(storage.Owner{Tenant: tenant.ID, Namespace: "sig", Subject: w.auth.Subject()}.Wallet()))
			tc.do(t, w)
			var b *usage.Batch
			eventually(t, "it is counted", func() bool { b = meter.Take(); return b != nil })
			h := b.Hours[0]
			n := int64(0)
			for op := range h.Requests {
				n += h.Requests[op][tc.outcome]
			}
			if n != 1 {
				t.Errorf("counted %+v, want one %v", h.Counts, tc.outcome)
			}
			if (len(b.Active) > 0) != tc.active {
				t.Errorf("active are %v", b.Active)
			}
			if (h.In > 0) != tc.billed || h.Out > 0 && !tc.billed {
				t.Errorf("billed are %d bytes in and %d out", h.In, h.Out)
			}
		})
	}
}

// One row of the table of errors has all of it.
func TestAnAnswerHasItsOutcomeAndItsReason(t *testing.T) {
	t.Parallel()
	meter := usage.NewMeter(usage.MeterConfig{})
	var end error
	p := start(t, over(always(func(context.Context) error { return end })), func(cfg *api.Config) { cfg.Quota.Meter = meter })
	w := p.wallet(t, "acme", 1)
	for _, tc := range []struct {
		err     error
		status  int
		code    vsspb.ErrorCode
		outcome usage.Outcome
		reason  quota.Reason
	}{
		{&storage.InvalidError{Reason: "odd"}, 400, invalid, usage.Invalid, quota.NoReason},
		{storage.ErrConflict, 409, conflict, usage.Conflicted, quota.NoReason},
		{storage.ErrNoSuchKey, 404, noSuch, usage.NotFound, quota.NoReason},
		{&callers.AuthError{Reason: "odd"}, 401, noAuth, usage.Unauthenticated, quota.NoReason},
		{&storage.ExceededError{Limit: "value_size"}, 507, internal, usage.Refused, quota.Storage},
		{storage.ErrBlocked, 403, internal, usage.Refused, quota.Blocked},
		{tenants.ErrReadOnly, 403, internal, usage.Refused, quota.State},
		{tenants.ErrClosed, 403, internal, usage.Refused, quota.State},
		{callers.ErrSuspect, 429, internal, usage.Refused, quota.AddressRate},
		{quota.ErrQueueFull, 503, internal, usage.Refused, quota.Overload},
		{fmt.Errorf("%w: %w", storage.ErrTooLate, quota.ErrQueueTimeout), 503, internal, usage.Refused, quota.Overload},
		{callers.ErrKeysUnavailable, 503, internal, usage.Failed, quota.NoReason},
		{storage.ErrAmbiguous, 500, internal, usage.Failed, quota.NoReason},
		{fmt.Errorf("%w: %w", storage.ErrAmbiguous, context.Canceled), 500, internal, usage.Failed, quota.NoReason},
		{storage.ErrUnavailable, 503, internal, usage.Failed, quota.NoReason},
		{errors.New("odd"), 500, internal, usage.Failed, quota.NoReason},
	} {
		end = tc.err
		w.put(t, "k", "v").want(t, tc.status, tc.code)
		h := taken(t, meter, 1)
		if h.Requests[usage.PutObjects][tc.outcome] != 1 {
			t.Errorf("%v: counted %v, want one that is %v", tc.err, h.Requests, tc.outcome)
		}
		for reason, n := range h.Refused {
			if want := quota.Reason(reason) == tc.reason && tc.reason != quota.NoReason; (n == 1) != want {
				t.Errorf("%v: counted %d for %v", tc.err, n, quota.Reason(reason))
			}
		}
	}
}

func TestAnAnswerThatWasCutHasNotSucceeded(t *testing.T) {
	t.Parallel()
	meter := usage.NewMeter(usage.MeterConfig{})
	p := start(t, over(fake{}), func(cfg *api.Config) { cfg.Quota.Meter = meter })
	r := p.wallet(t, "acme", 1).request(t, "getObject", encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}))
	func() {
		defer func() { _ = recover() }()
		p.server.Handler().ServeHTTP(brokenWriter{httptest.NewRecorder()}, r)
	}()
	h := meter.Take().Hours[0]
	if h.Requests[usage.GetObject][usage.Failed] != 1 || h.In != 0 || h.Out != 0 {
		t.Errorf("counted %+v", h.Counts)
	}
	if n := p.count(t, "vss.calls", attribute.String("outcome", "ok")); n != 0 {
		t.Errorf("%d calls were counted as ok", n)
	}
}
