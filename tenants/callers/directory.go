package callers

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// The texts of these errors are shown to wallets.
var (
	// ErrNotLoaded: the directory has not reached its database yet. Nothing is known of any tenant, not
	// even that it does not exist.
	ErrNotLoaded = errors.New("tenants are not loaded yet")

	// ErrUnknownTenant: host and path name no tenant.
	ErrUnknownTenant = errors.New("unknown tenant: neither the host nor the path of the URL names one")

	// ErrHostNamesTenant: the path names a tenant on a host that names one already, even if it is the same.
	ErrHostNamesTenant = errors.New("this host belongs to one tenant: leave the tenant out of the URL's path")
)

// reloadInterval bounds how long a change stays unseen that did not make the generation another one, as
// after a failover to a standby that had lost the last changes, followed by as many others.
const reloadInterval = time.Minute

// DirectoryConfig says how a [Directory] is kept.
type DirectoryConfig struct {
	// BaseDomain is the host name below which each tenant has a sub-domain, its slug. Empty: none has.
	BaseDomain string

	// Interval is the time between two polls; 0: 1 s. A change holds on every instance within 5 s as long
	// as Interval + Timeout is below that.
	Interval time.Duration

	// Timeout bounds each poll; 0: 2 s.
	Timeout time.Duration

	// Fetch gets the key sets of tenants' URLs; nil: none is fetched, and of those that have been, the last
	// good ones are used.
	Fetch Fetch

	// Saves is where the key sets that were fetched are kept, for instances that start while a URL does not answer.
	// Nil: nowhere. It is another pool than the directory's, since a write may take its time.
	Saves *pgxpool.Pool

	Now func() time.Time // for the ages of keys; nil: time.Now

	// Log hears when an outage of the database begins and ends; nil: slog.Default().
	Log *slog.Logger
}

// Directory knows every tenant, from memory: a look-up waits neither for the database nor for a lock. It
// follows the database by polling its generation, which grows with every change, and keeps the last good
// set through an outage. It is safe for concurrent use.
type Directory struct {
	pool *pgxpool.Pool
	cfg  DirectoryConfig

	current atomic.Pointer[snapshot] // nil until loaded
	polled  atomic.Pointer[time.Time]

	refreshing sync.Mutex // held for a refresh, so that an older set never replaces a newer one
	issuers    issuers    // under refreshing
}

// snapshot is every tenant at one generation. It is never changed.
type snapshot struct {
	generation int64
	loaded     time.Time
	all        []*Tenant
	byID       map[uuid.UUID]*Tenant
	bySlug     map[string]*Tenant
	byDomain   map[string]*Tenant
	ignored    []string // domains that are the platform's own names
}

// NewDirectory makes a directory over the pool's database, not loaded yet: call Refresh or Run. It fails for
// a base domain that is no host name.
//
// The pool should be the directory's own: one that is shared with the data plane may have no connection
// free for longer than a poll may take.
func NewDirectory(pool *pgxpool.Pool, cfg DirectoryConfig) (*Directory, error) {
	base, err := tenants.NormalBaseDomain(cfg.BaseDomain)
	if err != nil {
		return nil, err
	}
	cfg.BaseDomain = base
	if cfg.Interval == 0 {
		cfg.Interval = time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	d := &Directory{pool: pool, cfg: cfg}
	d.issuers = issuers{pool: pool, saves: cfg.Saves, fetch: cfg.Fetch, timeout: cfg.Timeout, now: cfg.Now, log: cfg.Log}
	now := time.Now()
	d.polled.Store(&now)
	return d, nil
}

// Run refreshes the directory, at once and then every interval, and keeps the key sets of tenants' URLs fresh,
// until the context ends. It is to be run once.
func (d *Directory) Run(ctx context.Context) {
	d.refreshing.Lock()
	d.issuers.start(ctx)
	d.refreshing.Unlock()
	defer d.issuers.ended.Wait()
	ticker := time.NewTicker(d.cfg.Interval)
	defer ticker.Stop()
	var outage time.Time // when it began; zero: there is none
	for {
		switch err := d.Refresh(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil && outage.IsZero():
			outage = time.Now()
			d.cfg.Log.Error("tenant directory: cannot read the database; what was last read stays in force",
				"error", err, "loaded", d.Loaded())
		case err == nil && !outage.IsZero():
			d.cfg.Log.Info("tenant directory: the database can be read again", "outage", time.Since(outage))
			outage = time.Time{}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Refresh brings the directory up to date: every change committed before it was called holds when it
// returns nil. After an error the last good set stays in force.
func (d *Directory) Refresh(ctx context.Context) error {
	d.refreshing.Lock()
	defer d.refreshing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()

	began := time.Now()
	generation, err := dbgen.New().DirectoryGeneration(ctx, d.pool)
	if err != nil {
		return err
	}
	last := d.current.Load()
	if last == nil || generation != last.generation || time.Since(last.loaded) >= reloadInterval {
		next, err := d.load(ctx, last)
		if err != nil {
			return err
		}
		if len(next.ignored) > 0 && (last == nil || !slices.Equal(next.ignored, last.ignored)) {
			d.cfg.Log.Warn("tenant directory: custom domains at or below the base domain are ignored", "domains", next.ignored)
		}
		d.current.Store(next)
	}
	d.polled.Store(&began)
	return nil
}

// load reads everything, and the generation, in one snapshot of the database: a change that this reading
// misses has a later generation, which the next poll finds. The schemes of a tenant stay as long as they would
// be prepared alike, since its verified credentials are cached under them.
func (d *Directory) load(ctx context.Context, last *snapshot) (*snapshot, error) {
	s := &snapshot{byID: map[uuid.UUID]*Tenant{}, bySlug: map[string]*Tenant{}, byDomain: map[string]*Tenant{}, loaded: time.Now()}
	var all []*tenants.Tenant
	err := pgx.BeginTxFunc(ctx, d.pool, tenants.ReadSnapshot, func(tx pgx.Tx) (err error) {
		if s.generation, err = dbgen.New().DirectoryGeneration(ctx, tx); err != nil {
			return err
		}
		all, err = tenants.Load(ctx, tx, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	issuers, err := d.issuers.follow(ctx, all)
	if err != nil {
		return nil, err
	}
	for _, loaded := range all {
		t := &Tenant{Tenant: loaded}
		var before *Tenant
		if last != nil {
			before = last.byID[t.ID]
		}
		if t.Fault != "" && (before == nil || t.Fault != before.Fault) {
			d.cfg.Log.Error("the limits of a tenant in the database are not valid: it is served without limits until they are corrected", "tenant", t.Slug, "plan", t.Plan, "error", t.Fault)
		}
		if before != nil && before.provesAs(loaded, issuers) {
			// With what they point into, so that a caller's source is one of its tenant's.
			t.schemes, t.Sources, t.Removed, t.ClientKeys = before.schemes, before.Sources, before.Removed, before.ClientKeys
		} else {
			t.schemes = prepare(loaded, issuers, d.cfg.Log)
		}
		s.all = append(s.all, t)
		s.byID[t.ID], s.bySlug[t.Slug] = t, t
		for _, domain := range t.Domains {
			switch {
			case domain.State != tenants.Verified && domain.State != tenants.Lost:
			case tenants.AtOrBelow(domain.Host, d.cfg.BaseDomain):
				// The service refuses such a domain, but the base domain may have changed since.
				s.ignored = append(s.ignored, domain.Host)
			default:
				s.byDomain[domain.Host] = t
			}
		}
	}
	return s, nil
}

// provesAs says whether the tenant's schemes are also those of the tenant as it is loaded now: whether all is as it
// was that [prepare] makes them of. What an [Authenticator] asks of the tenant itself at each request, as the state of
// its gate, is not in them.
func (t *Tenant) provesAs(loaded *tenants.Tenant, issuers map[uuid.UUID]*jwt.Source) bool {
	return t.ID == loaded.ID && reflect.DeepEqual(t.Sources, loaded.Sources) && reflect.DeepEqual(t.Removed, loaded.Removed) &&
		reflect.DeepEqual(t.ClientKeys, loaded.ClientKeys) && t.schemes.follow(issuers)
}

// All are all tenants, in the order of their slugs; none before the directory is loaded.
func (d *Directory) All() []*Tenant {
	s := d.current.Load()
	if s == nil {
		return nil
	}
	return s.all
}

// ByID is the tenant with this id; nil: there is none, or the directory is not loaded.
func (d *Directory) ByID(id uuid.UUID) *Tenant {
	s := d.current.Load()
	if s == nil {
		return nil
	}
	return s.byID[id]
}

// Issuer is how the key set at a URL of a tenant's source is.
type Issuer struct {
	Tenant uuid.UUID
	Source uuid.UUID
	Name   string // of the source
	jwt.Status
}

// Issuers are all key sets at URLs that this directory keeps.
func (d *Directory) Issuers() (all []Issuer) {
	for _, t := range d.All() {
		for i := range t.Sources {
			if s := t.schemes.tokens[&t.Sources[i]]; s != nil && s.issuer != nil {
				all = append(all, Issuer{t.ID, s.ID, s.Name, s.issuer.Status()})
			}
		}
	}
	return all
}

// Loaded says whether the directory has ever been read.
func (d *Directory) Loaded() bool { return d.current.Load() != nil }

// Age is the time since the database was last asked with success (since NewDirectory, before that).
func (d *Directory) Age() time.Duration { return time.Since(*d.polled.Load()) }

// Resolve says which tenant a request is for, by its Host header as sent and the slug in its path, empty
// where the path names none. There is one way to name a tenant on each host (CONTRACT section 4):
//
//   - A tenant's own domain, or its slug below the base domain, names it. A slug in the path is refused
//     there with [ErrHostNamesTenant].
//   - Any other host below the base domain names none, whatever the path says.
//   - On all other hosts (the base domain itself, addresses, localhost) the path's slug names it, compared
//     byte for byte.
//
// It fails with one of these errors, [ErrUnknownTenant] or [ErrNotLoaded]. It answers closed tenants too:
// ask [Tenant.Refuses].
func (d *Directory) Resolve(host, slug string) (*Tenant, error) {
	s := d.current.Load()
	if s == nil {
		return nil, ErrNotLoaded
	}
	host, ok := tenants.NormalHost(host)
	if !ok {
		return nil, ErrUnknownTenant
	}
	t := s.byDomain[host]
	if label, below := strings.CutSuffix(host, "."+d.cfg.BaseDomain); below && d.cfg.BaseDomain != "" {
		if t = s.bySlug[label]; t == nil {
			return nil, ErrUnknownTenant
		}
	}
	if t != nil {
		if slug != "" {
			return nil, ErrHostNamesTenant
		}
		return t, nil
	}
	if t = s.bySlug[slug]; t == nil {
		return nil, ErrUnknownTenant
	}
	return t, nil
}
