// Package dbtest gives every test a PostgreSQL database of its own.
//
// A test process shares one throwaway server, started when the first test asks and stopped by Main: an
// embedded one (VSS_TEST_POSTGRES=15 or 18, default the newest) or, if DATABASE_URL is set, that one.
package dbtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/embedded"
)

// timeout bounds each step but a download; a machine that runs every package's tests at once is slow.
const timeout = 2 * time.Minute

// Main is what TestMain calls: it runs the tests, removes the server or the databases that they used and
// exits.
func Main(m *testing.M) {
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "dbtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// New returns the owner's URL of a fresh database with all migrations applied. It is dropped when t ends,
// whoever is still connected. Without a database the test fails. Safe for parallel tests.
func New(t testing.TB) string {
	t.Helper()
	template, err := shared.template()
	if err != nil {
		t.Fatal("dbtest: no database: ", err)
	}
	return create(t, "TEMPLATE "+template+" STRATEGY wal_log")
}

// Empty is New without the migrations.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, "TEMPLATE template0 STRATEGY wal_log")
}

func create(t testing.TB, options string) string {
	t.Helper()
	name, err := shared.create(options)
	if err != nil {
		t.Fatal("dbtest: no database: ", err)
	}
	t.Cleanup(func() {
		if err := shared.drop(name); err != nil {
			t.Error("dbtest: ", err)
		}
	})
	return shared.url(name)
}

// shared is the server of this process.
var shared server

type server struct {
	started  sync.Once
	err      error
	prefix   string           // of the names of this process's databases
	external *url.URL         // DATABASE_URL, or
	embedded *embedded.Server // on
	dir      string

	count atomic.Int64

	migrated    sync.Once
	migratedErr error
	migratedAs  string
}

func (s *server) start() error {
	s.started.Do(func() { s.err = s.startOnce() })
	return s.err
}

func (s *server) startOnce() (err error) {
	s.prefix = "vss_test_" + strings.ToLower(rand.Text()[:12]) + "_"
	if given := os.Getenv("DATABASE_URL"); given != "" {
		if s.external, err = url.Parse(given); err != nil || !strings.HasPrefix(s.external.Scheme, "postgres") {
			return errors.New("DATABASE_URL is no postgres:// URL")
		}
		return nil
	}
	config := embedded.Config{
		Throwaway: true,
		Progress:  func(line string) { fmt.Fprintln(os.Stderr, "dbtest:", line) },
		Settings:  map[string]string{"max_connections": "300", "shared_buffers": "128MB", "max_wal_size": "1GB"},
	}
	switch version := os.Getenv("VSS_TEST_POSTGRES"); version {
	case "", "18":
		config.Version = embedded.V18
	case "15":
		config.Version = embedded.V15
	default:
		return fmt.Errorf("VSS_TEST_POSTGRES is %q and must be 15 or 18", version)
	}
	if s.dir, err = os.MkdirTemp(directory(), "vss-dbtest-"); err != nil {
		return err
	}
	// Started by root, the server runs as another user, who has to get in.
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	config.DataDir = s.dir
	s.embedded, err = embedded.Start(context.Background(), config)
	return err
}

// directory is where the clusters of test processes go, after those of killed ones are removed: in memory
// if there is room. A database is 300 new files, and some file systems take a millisecond for each
// (measured on ext4 without a journal, after many files were deleted: 300 ms for New instead of 30).
func directory() string {
	const shm, room = "/dev/shm", 8 << 30
	for _, dir := range []string{shm, os.TempDir()} {
		left, _ := filepath.Glob(filepath.Join(dir, "vss-dbtest-*"))
		for _, path := range left {
			// A server that runs is locked, but one that starts may not be yet.
			if info, err := os.Stat(path); err != nil || time.Since(info.ModTime()) < time.Minute {
				continue
			}
			if lock, err := os.Open(filepath.Join(path, "lock")); err == nil {
				if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
					_ = os.RemoveAll(path)
				}
				_ = lock.Close()
			}
		}
	}
	var stat syscall.Statfs_t
	if err := syscall.Statfs(shm, &stat); err == nil && int64(stat.Bavail)*int64(stat.Bsize) >= room {
		return shm
	}
	return os.TempDir()
}

// stop removes what the process used, if it used anything.
func (s *server) stop() error {
	var err error
	switch {
	case s.embedded != nil:
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		err = s.embedded.Stop(ctx)
	case s.migratedAs != "":
		err = s.drop(s.migratedAs)
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// template is the name of a database with all migrations applied.
func (s *server) template() (string, error) {
	s.migrated.Do(func() {
		if s.migratedAs, s.migratedErr = s.create("TEMPLATE template0"); s.migratedErr == nil {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			_, s.migratedErr = db.Migrate(ctx, s.url(s.migratedAs))
		}
	})
	return s.migratedAs, s.migratedErr
}

// create makes a database with a new name.
func (s *server) create(options string) (name string, err error) {
	if err := s.start(); err != nil {
		return "", err
	}
	name = fmt.Sprint(s.prefix, s.count.Add(1))
	return name, s.exec("CREATE DATABASE " + name + " " + options)
}

func (s *server) drop(name string) error {
	return s.exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)")
}

func (s *server) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url(""))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// url is that of the named database, or of the one for maintenance.
func (s *server) url(database string) string {
	if s.external == nil {
		return s.embedded.URL(cmp.Or(database, "postgres"))
	}
	u := *s.external
	if database != "" {
		u.Path = "/" + database
	}
	return u.String()
}
