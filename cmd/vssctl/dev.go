package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vss-cloud/vss-cloud/cmd/service"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/embedded"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

type devCmd struct {
	database
	service.API
}

// Run starts from the outside in, so that what is taken or missing is known before anything is done, and
// stops from the outside in, so that nothing loses what it stands on.
func (c devCmd) Run(ctx context.Context, out output) (err error) {
	l, err := c.Listen()
	if err != nil {
		return err
	}
	defer l.Close()

	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	url, state := c.DatabaseURL, "the database of DATABASE_URL"
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if url == "" {
		server, err := embedded.Start(ctx, embedded.Config{
			DataDir:  dir,
			Progress: func(line string) { fmt.Fprintln(os.Stderr, "vssctl:", line) },
		})
		if err != nil {
			return err
		}
		defer func() {
			stopping, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			err = errors.Join(err, server.Stop(stopping))
		}()
		go func() {
			<-server.Done()
			cancel(server.Err()) // nothing can be served without it
		}()
		if url, err = server.Database(ctx, databaseName); err != nil {
			return err
		}
		state = dir
	}
	if c.MasterKeyFile == "" {
		c.MasterKeyFile = masterKeyFile(dir)
	}
	key, err := loadOrCreateKey(ctx, c.MasterKeyFile, url)
	if err != nil {
		return err
	}
	if _, err := db.Migrate(ctx, url); err != nil {
		return err
	}
	c.EgressAllowPrivate = true // issuers run on this machine, too
	if c.LNURLSharedURL == "" {
		c.LNURLSharedURL = localURL(l.API.Addr().String())
	}
	if err := createDemo(ctx, url, tenants.ServiceConfig{BaseDomain: c.BaseDomain, MasterKey: key, SharedLogins: true}); err != nil {
		return err
	}
	leave, err := announce(dir, localURL(l.API.Addr().String()))
	if err != nil {
		return err
	}
	defer leave()
	err = c.API.Run(ctx, url, l, c.Log(), func() { c.welcome(out.w, l, dir, state) })
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// masterKeyFile is where vssctl dev keeps its master key.
func masterKeyFile(dataDir string) string { return filepath.Join(dataDir, "master.key") }

// loadOrCreateKey makes a key only for a database that needs none yet: with another one what is sealed there stays shut.
func loadOrCreateKey(ctx context.Context, path, url string) (*masterkey.Key, error) {
	key, err := masterkey.Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	sealed, sealedErr := db.HasSealedKeys(ctx, url)
	switch {
	case sealedErr != nil:
		return nil, sealedErr
	case sealed:
		return nil, fmt.Errorf("%w; keys in the database are sealed with it, and nothing was changed: bring it back from its copy, or say with --master-key-file (VSS_MASTER_KEY_FILE) where it is", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return masterkey.Create(path)
}

// createDemo makes the tenant that everybody tries first. Its wallets sign, or log in by LNURL-auth.
func createDemo(ctx context.Context, url string, cfg tenants.ServiceConfig) error {
	pool, err := db.Open(ctx, url, db.RoleAdmin, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := db.Check(ctx, pool); err != nil {
		return err
	}
	s, err := tenants.NewService(pool, cfg)
	if err != nil {
		return err
	}
	by := audit.Actor{Role: audit.System, Name: "vssctl dev"}
	_, err = s.Create(ctx, by, tenants.NewTenant{Slug: "demo", Name: "Demo"})
	if errors.Is(err, tenants.ErrSlugTaken) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.AddSource(ctx, by, "demo", tenants.NewSource{Name: "lnurl", Kind: tenants.LNURL})
	return err
}

// running is the file in the data directory by which other commands find a vssctl dev.
func running(dataDir string) string { return filepath.Join(dataDir, "dev.running") }

// announce tells other commands where this process serves, until leave.
func announce(dataDir, url string) (leave func(), err error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil { // with a database elsewhere
		return nil, err
	}
	root, err := os.OpenRoot(dataDir) // it may be another user's, whose links must not lead us elsewhere
	if err != nil {
		return nil, err
	}
	name := filepath.Base(running(""))
	text := fmt.Sprintf("%d\n%s\n", os.Getpid(), url)
	return func() { _, _ = root.Remove(name), root.Close() }, root.WriteFile(name, []byte(text), 0o644)
}

// findRunning is where a vssctl dev on the data directory serves, or "".
func findRunning(dataDir string) (url string) {
	text, err := os.ReadFile(running(dataDir))
	if err != nil {
		return ""
	}
	var pid int
	if _, err := fmt.Sscanf(string(text), "%d\n%s\n", &pid, &url); err != nil || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return "" // it was killed
	}
	return url
}

// walletURL is the base URL of a tenant's wallets.
func walletURL(platform, tenant string) string { return platform + "/t/" + tenant + "/vss" }

// localURL is where programs on this machine reach an API that listens on an address.
func localURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "http://" + listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && (ip.IsUnspecified() || ip.Equal(net.IPv4(127, 0, 0, 1))) {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func (c devCmd) welcome(w io.Writer, l service.Listeners, dir, state string) {
	var need string // so that other commands find this platform
	if standard, err := embedded.DefaultDataDir(); err != nil || dir != standard {
		need = "  export VSS_DATA_DIR='" + strings.ReplaceAll(dir, "'", `'\''`) + "'\n"
	}
	if c.DatabaseURL != "" {
		need += "  export DATABASE_URL=...   # as here, for the operator's commands\n"
	}
	fmt.Fprintf(w, `
vss-cloud is up.

  wallets   %[1]s   (tenant demo)
  LNURL     %[5]s/t/demo%[6]s
  metrics   http://%[2]s/metrics
  state     %[3]s

Store a value and read it back, in another shell:

%[7]s  %[4]s put hello world
  %[4]s get hello

Ctrl-C stops it and keeps the state.

`, walletURL(localURL(l.API.Addr().String()), "demo"), l.Ops.Addr(), state, os.Args[0], c.LNURLSharedURL, callers.LoginPath, need)
}
