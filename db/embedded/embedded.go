// Package embedded runs a real PostgreSQL server as a child of this process: for `vssctl dev` and for tests.
//
// The server's binaries come from Maven Central (the zonky builds) or, if VSS_POSTGRES_MAVEN is set, from
// the Maven repository with that base URL. They are checked against sums pinned here and kept in a cache.
//
// The server listens on one unix socket inside its data directory and on no port, so it clashes with
// nothing and nobody but its own user reaches it. It ends with this process, however that ends: in order
// after Stop, by the parent-death signal after a kill -9 (Linux; elsewhere the next Start stops it).
// PostgreSQL refuses to run as root: started by root, it runs as the owner of its data directory or, if
// that is root too, as nobody.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Version is a release of PostgreSQL that this package can fetch and run.
type Version string

const (
	V15    Version = "15.19.0" // the oldest that the project supports
	V18    Version = "18.6.0"
	Newest         = V18
)

func (v Version) major() string { return strings.SplitN(string(v), ".", 2)[0] }

const (
	startTimeout = 5 * time.Minute  // recovery after a crash included
	stopTimeout  = 30 * time.Second // of a server of an earlier process, or one that does not start
	clusterSpace = 100e6            // bytes a new cluster needs to start and to take its first writes
	port         = "5432"           // only names the socket file
)

// Config says what to run and where. The zero Config runs the newest server on the default directories.
type Config struct {
	// Version to run. Zero: Newest for a new cluster, an existing cluster's own major version otherwise.
	Version Version

	// DataDir holds the cluster (pg), its socket (run), postgres.log and lock. It is created as needed; a
	// cluster in it is never deleted or replaced. Zero: DefaultDataDir.
	DataDir string

	// CacheDir holds unpacked server binaries, one directory a version, shared by all data directories and
	// processes. Zero: postgres in /var/lib/vss-cloud for root, in os.UserCacheDir()/vss-cloud otherwise.
	CacheDir string

	// Progress is told what Start does, one line at a time. Nil: nobody is.
	Progress func(string)

	// Throwaway gives up durability for speed. For data that only a test wants.
	Throwaway bool

	// Settings are further settings of the server. Where it listens cannot be set.
	Settings map[string]string
}

// Server is a running PostgreSQL server. Its methods may be called concurrently.
type Server struct {
	dir      string
	postgres *process
	stopping atomic.Bool
	done     chan struct{}
	err      error // written before done is closed
}

// DefaultDataDir is /var/lib/vss-cloud for root, and vss-cloud in $XDG_DATA_HOME or ~/.local/share for
// everybody else. It fails if a user has no home directory.
func DefaultDataDir() (string, error) {
	if os.Geteuid() == 0 {
		return rootDir, nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "vss-cloud"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("there is no default data directory, choose one (VSS_DATA_DIR): %w", err)
	}
	return filepath.Join(home, ".local", "share", "vss-cloud"), nil
}

// Start runs a server on cfg.DataDir and returns once it accepts connections. It fetches the binaries and
// creates the cluster if they are not there yet, and first stops a server that an earlier process left
// behind in the directory. It fails at once if another process holds the directory, and its errors are
// sentences for the operator. ctx bounds only Start itself.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s, err := start(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("embedded PostgreSQL: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	if cfg.DataDir == "" {
		if cfg.DataDir, err = DefaultDataDir(); err != nil {
			return nil, err
		}
	}
	if cfg.CacheDir == "" {
		if cfg.CacheDir, err = defaultCacheDir(); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = explain(err, dir, clusterSpace) }()
	s := &Server{dir: dir, done: make(chan struct{})}
	socket := Socket(dir)
	if limit := len(syscall.RawSockaddrUnix{}.Path) - 1; len(socket) > limit {
		return nil, fmt.Errorf("the path of its socket, %s, has %d bytes and the system allows %d: "+
			"choose a shorter data directory (VSS_DATA_DIR)", socket, len(socket), limit)
	}

	if err := makeDirs(dir); err != nil {
		return nil, err
	}
	owner, err := ownerOf(dir)
	if err != nil {
		return nil, err
	}
	// The directory may belong to a user whom we, as root, outrank: whatever we write there goes through
	// root, so that no link of theirs leads us elsewhere.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	lock, err := takeLock(root, owner)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			releaseLock(lock)
		}
	}()

	if s.postgres, err = s.prepareAndLaunch(ctx, cfg, root, owner); err != nil {
		return nil, err
	}
	go func() {
		<-s.postgres.exited
		if !s.stopping.Load() {
			s.err = fmt.Errorf("PostgreSQL ended by itself: %w", s.postgres.failure())
		}
		releaseLock(lock)
		close(s.done)
	}()
	return s, nil
}

// prepareAndLaunch does what Start does under the lock of the directory.
func (s *Server) prepareAndLaunch(ctx context.Context, cfg Config, root *os.Root, owner account) (*process, error) {
	cluster := filepath.Join(s.dir, "pg")
	version, exists, err := clusterVersion(cluster, cfg.Version)
	if err != nil {
		return nil, err
	}
	f := fetcher{
		base:     cmp.Or(os.Getenv("VSS_POSTGRES_MAVEN"), "https://repo1.maven.org/maven2"),
		stall:    30 * time.Second,
		progress: cfg.Progress,
	}
	binaries, err := f.fetch(ctx, cfg.CacheDir, version)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{s.dir, binaries} {
		if err := owner.canReach(dir); err != nil {
			return nil, err
		}
	}
	if exists {
		err = stopPrevious(ctx, root, cluster, cfg.Progress)
	} else {
		cfg.Progress(fmt.Sprintf("creating a PostgreSQL %s cluster in %s", version.major(), cluster))
		err = initCluster(ctx, root, owner, binaries, cfg.Throwaway)
	}
	if err != nil {
		return nil, err
	}
	if err := owner.makeDir(root, "run"); err != nil {
		return nil, err
	}
	cfg.Progress("starting PostgreSQL " + string(version))
	args := s.arguments(cfg)
	for retryUntil, told := time.Now().Add(stopTimeout), false; ; time.Sleep(100 * time.Millisecond) {
		p, err := spawn(root, owner, filepath.Join(binaries, "bin", "postgres"), args...)
		if err != nil {
			return nil, err
		}
		if err = s.waitReady(ctx, p); err == nil {
			return p, nil
		}
		// When a postmaster was killed its backends outlive it for a moment. A new one refuses to start
		// beside them, rightly.
		if !strings.Contains(err.Error(), "pre-existing shared memory block") || time.Now().After(retryUntil) || ctx.Err() != nil {
			return nil, err
		}
		if !told {
			cfg.Progress("waiting for the processes of a PostgreSQL server that was killed to end")
			told = true
		}
	}
}

func (s *Server) arguments(cfg Config) []string {
	settings := map[string]string{"log_destination": "stderr", "logging_collector": "off"}
	if cfg.Throwaway {
		maps.Copy(settings, map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
	}
	maps.Copy(settings, cfg.Settings)
	maps.Copy(settings, map[string]string{
		"listen_addresses":        "",
		"port":                    port,
		"unix_socket_directories": `"` + strings.ReplaceAll(filepath.Join(s.dir, "run"), `"`, `""`) + `"`,
		"unix_socket_permissions": "0700",
	})
	args := []string{"-D", filepath.Join(s.dir, "pg")}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// waitReady returns nil once p accepts connections. Otherwise p has ended when it returns.
func (s *Server) waitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			_ = conn.Close(ctx)
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.exited:
			return fmt.Errorf("PostgreSQL did not start: %w", p.failure())
		case <-ctx.Done():
			stopped, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			return errors.Join(fmt.Errorf("PostgreSQL accepted no connection in time (%w): %w", ctx.Err(), err), p.stop(stopped))
		}
	}
}

// URL is where the server's superuser reaches the named database, over the socket.
func (s *Server) URL(database string) string { return URL(s.dir, database) }

// URL is where the superuser of the server that runs on a data directory reaches the named database.
func URL(dataDir, database string) string {
	return (&url.URL{
		Scheme:   "postgres",
		User:     url.User("postgres"),
		Path:     "/" + database,
		RawQuery: url.Values{"host": {filepath.Dir(Socket(dataDir))}, "port": {port}, "sslmode": {"disable"}}.Encode(),
	}).String()
}

// Socket is the path of the socket of a server that runs on a data directory.
func Socket(dataDir string) string { return filepath.Join(dataDir, "run", ".s.PGSQL."+port) }

// Database makes the named database if it is not there yet and returns its URL.
func (s *Server) Database(ctx context.Context, name string) (url string, err error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	var exists *pgconn.PgError
	if errors.As(err, &exists) && exists.Code == "42P04" { // duplicate_database
		err = nil
	}
	return s.URL(name), err
}

// Pid is the process id of the postmaster.
func (s *Server) Pid() int { return s.postgres.cmd.Process.Pid }

// Done is closed when the server has ended, by Stop or by itself, and the data directory is free again.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says, once Done is closed, why the server ended. It is nil after Stop.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop disconnects everybody, writes everything down and returns when the server has ended; one that ended
// before is fine. When ctx ends first the server is cut off instead, an error says so, and its next start
// recovers from its log: nothing committed is lost either way.
func (s *Server) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	err := s.postgres.stop(ctx)
	<-s.done
	return err
}
