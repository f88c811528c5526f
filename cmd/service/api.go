// Package service puts the platform's services together: flags, listeners, database pools, telemetry and
// the order of start and stop. The binaries in the folders beside it only parse their flags.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/exaring/otelpgx"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/vss-cloud/vss-cloud/api"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

// API is the flags of the service that wallets talk to.
type API struct {
	APIListen string `name:"api-listen" env:"VSS_API_LISTEN" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where wallets call (${default})."`
	OpsListen string `name:"ops-listen" env:"VSS_OPS_LISTEN" default:"127.0.0.1:9464" placeholder:"HOST:PORT" help:"Where the operator finds /metrics and /debug/pprof; never public (${default})."`

	BaseDomain         string `env:"VSS_BASE_DOMAIN" placeholder:"HOST" help:"Host name below which each tenant has a sub-domain, its slug. Without one, tenants are named by path and by their own domains."`
	MasterKeyFile      string `env:"VSS_MASTER_KEY_FILE" type:"path" placeholder:"FILE" help:"Master key file, which seals the keys that LNURL-auth signs tokens with. Needed once a tenant has LNURL-auth."`
	LNURLSharedURL     string `name:"lnurl-shared-url" env:"VSS_LNURL_SHARED_URL" placeholder:"URL" help:"For development: scheme and host of the auth URLs of tenants whose LNURL-auth has no host of its own. They share linking keys."`
	EgressAllowPrivate bool   `env:"VSS_EGRESS_ALLOW_PRIVATE" help:"For development: fetch tenants' URLs also from private addresses, on any port and without TLS."`

	TrustedProxies []netip.Prefix `env:"VSS_TRUSTED_PROXIES" placeholder:"CIDR" help:"Proxies whose X-Forwarded-For is believed."`
	MaxPageSize    int            `env:"VSS_MAX_PAGE_SIZE" default:"100" placeholder:"KEYS" help:"Most keys in a page of listKeyVersions (${default})."`
	Memory         int64          `env:"VSS_MEMORY" default:"1024" placeholder:"MIB" help:"Memory for bodies and answers in flight, in MiB; a call takes three times the size of its body (${default})."`
	DrainDelay     time.Duration  `env:"VSS_DRAIN_DELAY" default:"0s" placeholder:"DURATION" help:"How long /readyz answers 503 before the server stops to accept (${default})."`
	AllowDataLoss  bool           `env:"VSS_ALLOW_DATA_LOSS" help:"Take writes onto a database that may lose what it acknowledged: with fsync, full_page_writes or synchronous_commit off."`
	LogLevel       slog.Level     `env:"VSS_LOG_LEVEL" default:"info" placeholder:"LEVEL" help:"debug, info, warn or error (${default}); warn leaves out all requests but those that met a fault or overload."`
	LogFormat      string         `env:"VSS_LOG_FORMAT" enum:"json,text" default:"json" placeholder:"FORMAT" help:"json or text (${default})."`
}

// Validate refuses what would fail every call of some kind. kong asks it.
func (f API) Validate() error {
	switch {
	case f.Memory < minMemory:
		return fmt.Errorf("--memory is %d MiB; a body of %d MiB, the most that a tenant can be allowed, needs %d", f.Memory, tenants.MaxBodySize>>20, minMemory)
	case f.MaxPageSize < 1 || f.MaxPageSize > 10000:
		return fmt.Errorf("--max-page-size is %d, allowed are 1 to 10000", f.MaxPageSize)
	case f.DrainDelay < 0:
		return errors.New("--drain-delay is negative")
	}
	return nil
}

// minMemory is in MiB: three times the largest body, and the ninth that large bodies leave alone.
const minMemory = (tenants.MaxBodySize>>20)*3*9/8 + 1

// Listeners of an API, taken before anything else is started, so that a taken port is known at once.
type Listeners struct{ API, Ops net.Listener }

// Listen takes the ports.
func (f API) Listen() (l Listeners, err error) {
	if l.API, err = listen(f.APIListen, "--api-listen (VSS_API_LISTEN)"); err != nil {
		return l, err
	}
	if l.Ops, err = listen(f.OpsListen, "--ops-listen (VSS_OPS_LISTEN)"); err != nil {
		l.API.Close()
		return l, err
	}
	return l, nil
}

// Close gives the ports back.
func (l Listeners) Close() { _, _ = l.API.Close(), l.Ops.Close() }

func listen(address, flag string) (net.Listener, error) {
	ln, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is taken by another process; choose another address with %s", address, flag)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return ln, nil
}

// Log is the process's log, on standard error.
func (f API) Log() *slog.Logger { return f.logTo(os.Stderr) }

func (f API) logTo(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// Run serves the API until ctx ends, drains it and returns. started is called once it accepts calls and has
// reached the database for the first time; nil: nothing is.
func (f API) Run(ctx context.Context, databaseURL string, l Listeners, log *slog.Logger, started func()) error {
	defer l.Close()
	if os.Getenv("GOMEMLIMIT") == "" {
		// Large bodies are soon garbage; collect it before the process is twice as large as it must be.
		debug.SetMemoryLimit(f.Memory<<20 + 512<<20)
	}
	var masterKey *masterkey.Key
	if f.MasterKeyFile != "" {
		var err error
		if masterKey, err = masterkey.Load(f.MasterKeyFile); err != nil {
			return err
		}
	}
	tel, err := startTelemetry(ctx, "vss-api", log)
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	defer tel.flush(log)

	pool, err := db.Open(ctx, databaseURL, db.RoleAPI, 0)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := otelpgx.RecordStats(pool); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	// A pool of its own, so that the directory is kept when the other one is busy.
	directoryPool, err := db.Open(ctx, databaseURL, db.RoleAPI, 1)
	if err != nil {
		return err
	}
	defer directoryPool.Close()
	directory, err := callers.NewDirectory(directoryPool, callers.DirectoryConfig{
		BaseDomain: f.BaseDomain,
		Saves:      pool,
		Fetch:      egress.New(egress.Config{AllowPrivate: f.EgressAllowPrivate}).GetFor,
		Log:        log,
	})
	if err != nil {
		return err
	}
	auth := callers.NewAuthenticator(callers.AuthenticatorConfig{Pool: pool, Log: log})
	recordPool, err := db.Open(ctx, databaseURL, db.RoleAPI, 4)
	if err != nil {
		return err
	}
	defer recordPool.Close()
	// Another, so that /readyz is answered then, too.
	probe, err := db.Open(ctx, databaseURL, db.RoleAPI, 2)
	if err != nil {
		return err
	}
	defer probe.Close()
	governor := newGovernor(pool, recordPool, directory, log)
	if err := governor.observe(otel.GetMeterProvider()); err != nil {
		return err
	}
	// A pool of their own, so that a flood of logins takes no connection of the calls.
	loginPool, err := db.Open(ctx, databaseURL, db.RoleAPI, 4)
	if err != nil {
		return err
	}
	defer loginPool.Close()
	logins, err := callers.NewLogins(auth, callers.LoginsConfig{
		Pool: loginPool, Limiter: governor.limiter, MasterKey: masterKey, SharedURL: f.LNURLSharedURL, Log: log,
	})
	if err != nil {
		return err
	}
	store := postgres.New(pool, postgres.Config{
		MaxPageSize: f.MaxPageSize, AllowDataLoss: f.AllowDataLoss, Probe: probe, Enter: governor.enter,
	})
	_, err = otel.GetMeterProvider().Meter("github.com/vss-cloud/vss-cloud/cmd/service").Int64ObservableGauge("vss.fence",
		metric.WithDescription("1: the primary of now is known; 0: not; -1: the database went back in time, and what was saved since is missing."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error { o.Observe(store.Fence()); return nil }))
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	server, err := api.New(api.Config{
		Store:          store,
		Tenants:        directory,
		Auth:           auth,
		Logins:         logins,
		Quota:          governor.quota(),
		Ready:          store.Check,
		TrustedProxies: f.TrustedProxies,
		Memory:         f.Memory << 20,
		DrainDelay:     f.DrainDelay,
		Log:            log,
	})
	if err != nil {
		return err
	}
	ops := &http.Server{Handler: tel.ops(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}

	// The API ends with ctx, or when a part of it fails. What it stands on ends after it.
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer func() { stopBelow(); _ = ops.Close() }()
	parts.Go(func() {
		if err := ops.Serve(l.Ops); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("ops listener: %w", err))
		}
	})
	parts.Go(func() {
		if err := awaitDatabase(below, probe, log); err != nil {
			stop(err)
			return
		}
		parts.Go(func() {
			store.Keep(below, func(err error) {
				if err != nil {
					log.Error("nothing is served: no server is known to be the primary of now", "error", err)
				} else {
					log.Info("served again: the primary is known")
				}
			})
		})
		parts.Go(func() { directory.Run(below) })
		parts.Go(func() { auth.Run(below) })
		parts.Go(func() { logins.Run(below) })
		parts.Go(func() { governor.run(below) })
		for !directory.Loaded() {
			select {
			case <-below.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
		if err := logins.Check(directory.All()); err != nil {
			stop(err)
			return
		}
		checking, cancel := context.WithTimeout(below, 5*time.Second)
		defer cancel()
		if err := store.Check(checking); err != nil {
			log.Error("not fit to serve", "error", err)
		} else if store.Standbys() == "" {
			log.Warn("synchronous_standby_names is empty, so PostgreSQL keeps one copy: what was saved last may be lost with the primary, " +
				"unless a disk that both servers of a managed database share holds it (storage/postgres/README.md)")
		}
		log.Info("serving")
		if started != nil {
			started()
		}
	})
	log.Info("listening", "api", l.API.Addr().String(), "ops", l.Ops.Addr().String())
	if err := server.Serve(serving, l.API); err != nil {
		return err
	}
	log.Info("drained")
	if cause := context.Cause(serving); ctx.Err() == nil {
		return cause
	}
	return nil
}

// awaitDatabase returns once the database can be used. While it is merely down it tries again, and says why every ten
// seconds. It fails for what a person must put right, and with ctx.
func awaitDatabase(ctx context.Context, pool *db.Pool, log *slog.Logger) error {
	var told time.Time
	for {
		trying, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := db.Check(trying, pool)
		cancel()
		if _, wrong := errors.AsType[*db.SetupError](err); err == nil || wrong {
			return err
		}
		if time.Since(told) > 10*time.Second && ctx.Err() == nil {
			log.Error("not serving yet, trying again", "error", err)
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// version is the program's, as the Go toolchain stamped it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
