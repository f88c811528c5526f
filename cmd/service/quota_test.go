package service

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// platform is a database with tenants.
type platform struct {
	url     string // of the owner
	service *tenants.Service
}

var operator = audit.Actor{Role: audit.Operator, Name: "root@host", Confirmed: true}

func newPlatform(t testing.TB, slugs ...string) *platform {
	t.Helper()
	p := &platform{url: dbtest.New(t)}
	service, err := tenants.NewService(p.open(t, p.url, db.RoleAdmin, 4), tenants.ServiceConfig{})
	check(t, err)
	p.service = service
	for _, slug := range slugs {
		_, err := service.Create(t.Context(), operator, tenants.NewTenant{Slug: slug, Name: slug})
		check(t, err)
	}
	return p
}

func (p *platform) open(t testing.TB, url string, role db.Role, conns int32) *db.Pool {
	t.Helper()
	pool, err := db.Open(t.Context(), url, role, conns)
	check(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// instance is an API over the platform's database.
type instance struct {
	address  string
	http     *http.Client
	governor *governor // nil: it limits nothing
	stop     func()
}

// start serves over so many connections to the database at url until the test ends.
func (p *platform) start(t testing.TB, url string, conns int32, governed bool) *instance {
	t.Helper()
	pool := p.open(t, url, db.RoleAPI, conns)
	log := slog.New(slog.DiscardHandler)
	directory, err := callers.NewDirectory(p.open(t, p.url, db.RoleAPI, 1), callers.DirectoryConfig{Log: log, Timeout: time.Minute})
	check(t, err)
	check(t, directory.Refresh(t.Context()))
	i := &instance{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4096}}}
	store := postgres.Config{AllowDataLoss: true}
	cfg := api.Config{Tenants: directory, Auth: callers.NewAuthenticator(callers.AuthenticatorConfig{Log: log}), Log: log}
	ctx, stop := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	if governed {
		i.governor = newGovernor(pool, p.open(t, p.url, db.RoleAPI, 4), directory, log)
		store.Enter, cfg.Quota = i.governor.enter, i.governor.quota()
		parts.Go(func() { i.governor.run(ctx) })
	}
	cfg.Store = postgres.New(pool, store)
	server, err := api.New(cfg)
	check(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	i.address = ln.Addr().String()
	parts.Go(func() {
		if err := server.Serve(ctx, ln); err != nil {
			t.Error("Serve: ", err)
		}
	})
	i.stop = sync.OnceFunc(func() {
		i.http.CloseIdleConnections()
		stop()
		parts.Wait()
	})
	t.Cleanup(i.stop)
	return i
}

// wallet is one of a tenant's.
type wallet struct {
	slug string
	auth *client.SignatureAuth
}

func newWallet(t testing.TB, slug string, number int) wallet {
	t.Helper()
	auth, err := client.NewSignatureAuth([32]byte{30: byte(number >> 8), 31: byte(number), 0: 1})
	check(t, err)
	return wallet{slug, auth}
}

// call is the status of a call's answer.
func (i *instance) call(ctx context.Context, w wallet, name string, m proto.Message) (int, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+i.address+"/t/"+w.slug+"/vss/"+name, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	token, err := w.auth.Authorization(ctx, time.Now())
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", token)
	resp, err := i.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (i *instance) put(ctx context.Context, w wallet, store, key string, size int) (int, error) {
	return i.call(ctx, w, "putObjects", &vsspb.PutObjectRequest{
		StoreId: store, TransactionItems: []*vsspb.KeyValue{{Key: key, Version: -1, Value: make([]byte, size)}},
	})
}

func TestAStoreAtItsSoftLineMakesOneEventUntilItIsATenthBelow(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, "acme")
	objects, percent := int64(20), int64(50)
	_, err := p.service.Set(t.Context(), operator, "acme", tenants.Change{Limits: map[string]*int64{"objects_per_store": &objects, "soft_percent": &percent}})
	check(t, err)
	i, w := p.start(t, p.url, 4, true), newWallet(t, "acme", 1)
	put := func(first, last int) {
		t.Helper()
		for n := first; n <= last; n++ {
			if status, err := i.put(t.Context(), w, "s", fmt.Sprint(n), 10); status != 200 {
				t.Fatalf("HTTP %d, %v", status, err)
			}
		}
	}
	remove := func(first, last int) {
		t.Helper()
		for n := first; n >= last; n-- {
			status, err := i.call(t.Context(), w, "deleteObject", &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: &vsspb.KeyValue{Key: fmt.Sprint(n), Version: -1}})
			if status != 200 {
				t.Fatalf("HTTP %d, %v", status, err)
			}
		}
	}
	story := func(want string) {
		t.Helper()
		pool := p.open(t, p.url, db.RoleAdmin, 1)
		var got string
		for range 1000 {
			check(t, pool.QueryRow(t.Context(), "SELECT coalesce(string_agg(kind || ' ' || state, ', ' ORDER BY id), '') FROM events").Scan(&got))
			if got == want {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("the events are %q, want %q", got, want)
	}
	put(1, 10)
	for range 50 { // over its soft line and back
		put(11, 11)
		remove(11, 11)
	}
	put(11, 20)
	story("storage_soft raised")
	for range 50 {
		put(21, 21)
		remove(21, 21)
	}
	story("storage_soft raised, storage_hard raised")
	remove(20, 18) // 17 are not nine tenths of 20
	put(18, 21)
	story("storage_soft raised, storage_hard raised, storage_hard ok, storage_hard raised")
	remove(21, 9) // nor 8 of 10
	story("storage_soft raised, storage_hard raised, storage_hard ok, storage_hard raised, storage_hard ok, storage_soft ok")
}

// A wallet that is online when its server restarts makes no call but a monitor's write.
func TestAnInstanceThatStartsKnowsTheWalletsThatWereActiveLast(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, "acme")
	w := newWallet(t, "acme", 1)
	tenant, err := p.service.Get(t.Context(), "acme")
	check(t, err)
	key := quota.Key(storage.Owner{Tenant: tenant.ID, Namespace: tenant.Sources[0].Namespace, Subject: w.auth.Subject()}.Wallet())
	first := p.start(t, p.url, 4, true)
	if first.governor.limiter.Known(key) {
		t.Error("a wallet that has never written is known")
	}
	if status, err := first.put(t.Context(), w, "s", "k", 10); status != 200 {
		t.Fatalf("HTTP %d, %v", status, err)
	}
	first.stop() // and what it counted is stored
	second := p.start(t, p.url, 4, true)
	for range 1000 {
		if second.governor.limiter.Known(key) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a wallet that was active is a stranger to the next instance")
}

func TestWhatLimitsHaveInMemoryIsInTheMetrics(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, "acme")
	i, w := p.start(t, p.url, 4, true), newWallet(t, "acme", 1)
	reader := sdkmetric.NewManualReader()
	check(t, i.governor.observe(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
	if status, err := i.put(t.Context(), w, "s", "k", 10); status != 200 {
		t.Fatalf("HTTP %d, %v", status, err)
	}
	seen := func() map[string]float64 {
		var all metricdata.ResourceMetrics
		check(t, reader.Collect(t.Context(), &all))
		values := map[string]float64{}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				switch data := m.Data.(type) {
				case metricdata.Gauge[int64]:
					for _, point := range data.DataPoints {
						kind, _ := point.Attributes.Value("kind")
						values[m.Name+kind.AsString()] = float64(point.Value)
					}
				case metricdata.Sum[int64]:
					values[m.Name] = float64(data.DataPoints[0].Value)
				case metricdata.Gauge[float64]:
					values[m.Name] = data.DataPoints[0].Value
				}
			}
		}
		return values
	}
	var got map[string]float64
	for range 3000 { // what tenants have is measured at the start and read 10 s later
		if got = seen(); got["vss.instances"] == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for name, want := range map[string]float64{
		"vss.instances": 1, "vss.quota.waitingwrite": 0, "vss.quota.waitingread": 0, "vss.quota.evictions": 0, "vss.usage.lost": 0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v (%t), want %v", name, value, ok, want)
		}
	}
}

// What limits and the meter cost: the same puts with all of it and with none, in turns.
func BenchmarkQuota(b *testing.B) {
	const workers, each = 8, 50
	p := newPlatform(b, "acme")
	limits := map[string]*int64{}
	for name, value := range map[string]int64{
		"wallet_writes_per_minute": 60_000_000, "wallet_writes_burst": 10_000_000,
		"tenant_writes_per_minute": 60_000_000, "tenant_writes_burst": 10_000_000,
	} {
		limits[name] = &value
	}
	_, err := p.service.Set(b.Context(), operator, "acme", tenants.Change{Limits: limits})
	check(b, err)
	measure := func(i *instance, first int) func() time.Duration {
		wallets := make([]wallet, workers)
		for n := range wallets {
			wallets[n] = newWallet(b, "acme", first+n)
		}
		return func() time.Duration {
			began := time.Now()
			var running sync.WaitGroup
			for _, w := range wallets {
				running.Go(func() {
					for range each {
						if status, err := i.put(b.Context(), w, "s", "k", 700); status != 200 {
							b.Errorf("HTTP %d, %v", status, err)
							return
						}
					}
				})
			}
			running.Wait()
			return time.Since(began)
		}
	}
	without, with := measure(p.start(b, p.url, 8, false), 0), measure(p.start(b, p.url, 8, true), workers)
	without() // the pools are filled
	with()
	var off, on time.Duration
	rounds := 0
	for b.Loop() {
		off += without()
		on += with()
		rounds++
	}
	b.ReportMetric(float64(off)/float64(on), "throughput-ratio")
	b.ReportMetric(float64(rounds*workers*each)/on.Seconds(), "puts/s")
}

// What a tenant notices of another that sends 50 times its ordinary load to a store that can do half of that: the ratio
// of its p99s, in turns, with the limits of the plan that tenants get and with none. The database is 50 ms away, so that
// places in front of it are what is short and not this machine's cores.
func BenchmarkFairness(b *testing.B) {
	const (
		seconds  = 4
		stores   = 10   // of each of 50 wallets
		quiet    = 25.0 // puts a second
		ordinary = 10.0
	)
	for _, governed := range []bool{true, false} {
		b.Run(fmt.Sprintf("governed=%t", governed), func(b *testing.B) {
			p := newPlatform(b, "quiet", "wild")
			proxy := dbtest.NewProxy(b, p.url)
			proxy.Inspect(func([]string) dbtest.Action {
				time.Sleep(50 * time.Millisecond)
				return dbtest.Pass
			})
			i := p.start(b, proxy.URL(), 20, governed)
			wallets := func(slug string) []wallet {
				all := make([]wallet, 50)
				var running sync.WaitGroup
				for n := range all {
					all[n] = newWallet(b, slug, n)
					running.Go(func() {
						for store := range stores {
							if status, err := i.put(b.Context(), all[n], fmt.Sprint(store), "k", 700); status != 200 {
								b.Errorf("HTTP %d, %v", status, err)
							}
						}
					})
				}
				running.Wait()
				return all
			}
			of := map[string][]wallet{"quiet": wallets("quiet"), "wild": wallets("wild")}
			// round is how long the quiet tenant's puts took, from when they were due, and how many of either failed.
			round := func(wild float64) (took []time.Duration, failed map[string]int) {
				var mu sync.Mutex
				failed = map[string]int{}
				var running sync.WaitGroup
				send := func(slug string, rate float64) {
					due := time.Now()
					for end := due.Add(seconds * time.Second); ; {
						due = due.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
						if due.After(end) {
							return
						}
						time.Sleep(time.Until(due))
						at := due
						running.Go(func() {
							// Calls of one store wait for each other, so there are many.
							w, store := of[slug][rand.IntN(len(of[slug]))], fmt.Sprint(rand.IntN(stores))
							status, err := i.put(b.Context(), w, store, "k", 700)
							mu.Lock()
							defer mu.Unlock()
							switch {
							case err != nil || status != 200:
								failed[slug]++
							case slug == "quiet":
								took = append(took, time.Since(at))
							}
						})
					}
				}
				running.Go(func() { send("quiet", quiet) })
				running.Go(func() { send("wild", wild) })
				running.Wait()
				return took, failed
			}
			var before, after []time.Duration
			lost := map[string]int{}
			for b.Loop() {
				took, _ := round(ordinary)
				before = append(before, took...)
				took, failed := round(50 * ordinary)
				after = append(after, took...)
				for slug, n := range failed {
					lost[slug] += n
				}
			}
			p99 := func(all []time.Duration) time.Duration {
				slices.SortFunc(all, cmp.Compare)
				return all[len(all)*99/100]
			}
			b.ReportMetric(float64(p99(before).Microseconds())/1e3, "p99-before-ms")
			b.ReportMetric(float64(p99(after).Microseconds())/1e3, "p99-after-ms")
			b.ReportMetric(float64(p99(after))/float64(p99(before)), "p99-ratio")
			b.ReportMetric(float64(lost["quiet"]), "quiet-failed")
			b.ReportMetric(float64(lost["wild"]), "wild-failed")
		})
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
