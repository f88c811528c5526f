package embedded

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// With this variable the test binary is a process that starts a server on the directory it names, prints the
// server's process id and writes rows, from four sessions, until it is killed. It prints a line for each row.
const childVariable = "VSS_EMBEDDED_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		fmt.Println("failed:", write(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func write(dir string) error {
	s, err := Start(context.Background(), Config{DataDir: dir})
	if err != nil {
		return err
	}
	if err := run(s, "CREATE TABLE IF NOT EXISTS t (n int)"); err != nil {
		return err
	}
	fmt.Println(s.Pid())
	failed := make(chan error)
	for range 4 {
		go func() {
			conn, err := pgx.Connect(context.Background(), s.URL("postgres"))
			for err == nil {
				if _, err = conn.Exec(context.Background(), "INSERT INTO t VALUES (1)"); err == nil {
					fmt.Println("written")
				}
			}
			failed <- err
		}()
	}
	return <-failed
}

// kill runs such a process until it has written some rows, and kills it, and its server too if both. It returns how
// many rows it has been told of, and the server's process id.
func kill(t *testing.T, dir string, both bool) (rows, server int) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	if server, err = strconv.Atoi(lines.Text()); err != nil {
		t.Fatalf("the child said %q", lines.Text())
	}
	for lines.Scan() {
		if lines.Text() != "written" {
			continue // a session that was cut off
		}
		if rows++; rows == 50 {
			if both {
				_ = syscall.Kill(server, syscall.SIGKILL)
			}
			_ = child.Process.Kill()
		}
	}
	_ = child.Wait()
	return rows, server
}

func TestAServerKeepsItsDataFromStartToStart(t *testing.T) {
	t.Parallel()
	for _, v := range []Version{V15, V18} {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			dir := dataDir(t)
			s := mustStart(t, Config{DataDir: dir, Version: v})
			mustExec(t, s, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
			for _, want := range [][2]string{
				{"server_version", strings.TrimSuffix(string(v), ".0")},
				{"server_encoding", "UTF8"}, {"lc_collate", "C"}, {"listen_addresses", ""}, {"fsync", "on"},
			} {
				sql := "SELECT current_setting($1, true)"
				if want[0] == "lc_collate" { // a setting in 15 only
					sql = "SELECT datcollate FROM pg_database WHERE datname = current_database() AND $1 <> ''"
				}
				if got := query[string](t, s, sql, want[0]); got != want[1] {
					t.Errorf("%s is %q, want %q", want[0], got, want[1])
				}
			}
			stop(t, s)
			if err := s.Err(); err != nil {
				t.Errorf("after Stop, Err is %v", err)
			}
			stop(t, s) // again

			for _, left := range []string{"run/.s.PGSQL.5432", "run/.s.PGSQL.5432.lock", "pg/postmaster.pid"} {
				if _, err := os.Stat(filepath.Join(dir, left)); !os.IsNotExist(err) {
					t.Errorf("Stop leaves %s", left)
				}
			}
			s = mustStart(t, Config{DataDir: dir}) // whose version it finds
			if got := query[int](t, s, "SELECT n FROM t"); got != 1 {
				t.Errorf("row is %d", got)
			}
			if got := query[string](t, s, "SHOW server_version"); got != strings.TrimSuffix(string(v), ".0") {
				t.Errorf("the second start runs %s", got)
			}
		})
	}
}

func TestTheServerIsItsOwnProcessGroupAndNeverRoot(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: dataDir(t), Throwaway: true})
	if group, err := syscall.Getpgid(s.Pid()); err != nil || group != s.Pid() {
		t.Errorf("process group %d (%v) of process %d: a terminal's ctrl-C would reach it", group, err, s.Pid())
	}
	info, err := os.Stat(filepath.Join(s.dir, "run", ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	if want := os.Geteuid(); want != 0 && uid != want || want == 0 && uid != nobody {
		t.Errorf("the server of user %d runs as %d", want, uid)
	}
	for path, mode := range map[string]os.FileMode{"run": 0o700, "pg": 0o700, "postgres.log": 0o600, "lock": 0o600} {
		if info, err := os.Stat(filepath.Join(s.dir, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v (%v), want %v", path, info.Mode().Perm(), err, mode)
		}
	}
}

func TestASecondStartOnATakenDirectoryNamesItsHolder(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: dataDir(t), Throwaway: true})
	begin := time.Now()
	wantError(t, s.dir, Config{}, "data directory "+s.dir+" is in use by process "+strconv.Itoa(os.Getpid()))
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %v to fail", took)
	}
	mustExec(t, s, "SELECT 1") // the first does not notice
	stop(t, s)
	mustStart(t, Config{DataDir: s.dir})
}

func TestAKilledPostmasterIsReportedAndLosesNoData(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: dataDir(t)})
	mustExec(t, s, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("Done is not closed")
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "ended by itself") || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("Err is %v", err)
	}
	s2 := mustStart(t, Config{DataDir: s.dir})
	if got := query[int](t, s2, "SELECT n FROM t"); got != 1 {
		t.Errorf("row is %d", got)
	}
	stop(t, s) // of one that has ended, and does not touch the new one
	mustExec(t, s2, "SELECT 1")
}

func TestKillingTheParentLeavesNoServerAndKeepsTheData(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	rows, pid := kill(t, dir, false)
	// At once: the old server may still be shutting down.
	s := mustStart(t, Config{DataDir: dir})
	if (lockFile{pid: pid}).owns(filepath.Join(dir, "pg")) {
		t.Errorf("the old server, process %d, still runs", pid)
	}
	wantRows(t, s, rows)
}

func TestAfterEachOfTwentyCrashesUnderLoadTheNextStartServes(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	var rows int
	for range 20 {
		written, _ := kill(t, dir, true)
		rows += written
	}
	wantRows(t, mustStart(t, Config{DataDir: dir}), rows)
}

// wantRows: what was written is there, and maybe what was being written by the four sessions.
func wantRows(t *testing.T, s *Server, written int) {
	t.Helper()
	if got := query[int](t, s, "SELECT count(*) FROM t"); got < written {
		t.Errorf("%d rows are left of %d", got, written)
	}
}

func TestAnOrphanedServerIsStoppedFirst(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: dataDir(t)})
	mustExec(t, s, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	stop(t, s)
	owner, err := ownerOf(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	orphan := exec.Command(s.postgres.cmd.Path, s.postgres.cmd.Args[1:]...)
	orphan.SysProcAttr = &syscall.SysProcAttr{Credential: owner.credential}
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- orphan.Wait() }()
	for run(s, "SELECT 1") != nil {
		time.Sleep(10 * time.Millisecond)
	}

	var told []string
	s2 := mustStart(t, Config{DataDir: s.dir, Progress: func(line string) { told = append(told, line) }})
	if want := fmt.Sprintf("(process %d) that an earlier run left in", orphan.Process.Pid); !strings.Contains(strings.Join(told, "\n"), want) {
		t.Errorf("Progress was told %q, want %q", told, want)
	}
	if err := <-ended; err != nil {
		t.Errorf("the orphan did not end in order: %v", err)
	}
	if got := query[int](t, s2, "SELECT n FROM t"); got != 1 {
		t.Errorf("row is %d", got)
	}
}

func TestWhoIsNoServerOfTheClusterKeepsNobodyFromStarting(t *testing.T) {
	t.Parallel()
	// Of the server's own user, since postgres ignores another's.
	process := func(t *testing.T, s *Server) *exec.Cmd {
		owner, err := ownerOf(s.dir)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sleep", "100")
		cmd.Dir = filepath.Join(s.dir, "pg")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner.credential}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	for name, first := range map[string]func(t *testing.T, s *Server) string{ // line of the lock files
		"another program that works there": func(t *testing.T, s *Server) string {
			return strconv.Itoa(process(t, s).Process.Pid)
		},
		"a process that nobody has reaped": func(t *testing.T, s *Server) string {
			zombie := process(t, s)
			_ = zombie.Process.Kill()
			return strconv.Itoa(zombie.Process.Pid)
		},
		"the server of another cluster": func(t *testing.T, _ *Server) string {
			other := mustStart(t, Config{DataDir: dataDir(t), Throwaway: true})
			t.Cleanup(func() { mustExec(t, other, "SELECT 1") })
			return strconv.Itoa(other.Pid())
		},
		"a single-user server that is gone": func(t *testing.T, s *Server) string {
			return strconv.Itoa(-process(t, s).Process.Pid)
		},
		"a server that had not written a word": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mustStart(t, Config{DataDir: dataDir(t)})
			_ = syscall.Kill(s.Pid(), syscall.SIGKILL)
			<-s.Done()
			for _, path := range []string{"pg/postmaster.pid", "run/.s.PGSQL.5432.lock"} {
				path = filepath.Join(s.dir, path)
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if first == nil {
					text = nil
				} else {
					text = regexp.MustCompile(`^\d+`).ReplaceAll(text, []byte(first(t, s)))
				}
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			mustExec(t, mustStart(t, Config{DataDir: s.dir}), "SELECT 1")
		})
	}
}

func TestAnInterruptedInitdbLeavesNothingThatLooksComplete(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	mustStart(t, Config{DataDir: dataDir(t), Throwaway: true}) // the binaries are there now
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Start(ctx, Config{DataDir: dir, Progress: func(line string) {
		if strings.HasPrefix(line, "creating") {
			time.AfterFunc(100*time.Millisecond, cancel)
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "interrupted while a cluster was created") {
		t.Fatalf("Start: %v", err)
	}
	// And what a kill -9 would have left:
	left := filepath.Join(dir, "pg.initdb-1-1")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "PG_VERSION"), []byte("18\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, Config{DataDir: dir})
	mustExec(t, s, "SELECT 1")
	names, err := filepath.Glob(filepath.Join(dir, "pg*"))
	if err != nil || len(names) != 1 || filepath.Base(names[0]) != "pg" {
		t.Errorf("the directory holds %v (%v)", names, err)
	}
}

func TestAClusterThatCannotBeRunIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, content string
		version       Version
		want          string
	}{
		"older version":    {"PG_VERSION", "12\n", "", `holds a cluster of PostgreSQL "12", only PostgreSQL 15 and 18 can be run here`},
		"newer version":    {"PG_VERSION", "99\n", "", `holds a cluster of PostgreSQL "99"`},
		"empty version":    {"PG_VERSION", "", "", `holds a cluster of PostgreSQL ""`},
		"not the one":      {"PG_VERSION", "15\n", V18, `holds a cluster of PostgreSQL "15", only PostgreSQL 18 can be run here`},
		"something else":   {"photo.jpg", "...", "", "neither empty nor a PostgreSQL cluster"},
		"unknown to fetch": {"PG_VERSION", "15\n", "15.1.0", "there is no PostgreSQL 15.1.0 to download"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dataDir(t)
			path := filepath.Join(dir, "pg", c.file)
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			wantError(t, dir, Config{Version: c.version}, c.want)
			if got, err := os.ReadFile(path); err != nil || string(got) != c.content {
				t.Errorf("%s is now %q (%v)", c.file, got, err)
			}
		})
	}
}

func TestATooLongDataDirectoryIsNamedWithTheLimit(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(dataDir(t), strings.Repeat("x", 100))
	limit := len(syscall.RawSockaddrUnix{}.Path) - 1
	wantError(t, dir, Config{}, fmt.Sprintf("the system allows %d: choose a shorter data directory", limit))
}

func TestADirectoryThatTheServersUserCannotEnterIsNamed(t *testing.T) {
	t.Parallel()
	top := dataDir(t)
	dir := filepath.Join(top, "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := account{&syscall.Credential{Uid: 54321, Gid: 54321}}
	if err := a.canReach(dir); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Join(top, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.canReach(dir); err == nil || !strings.Contains(err.Error(), "chmod a+x "+filepath.Join(top, "a")) {
		t.Errorf("canReach: %v", err)
	}
}

func TestASettingThatThePostmasterRefusesIsInTheError(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	wantError(t, dir, Config{Settings: map[string]string{"no_such_setting": "1"}},
		`unrecognized configuration parameter "no_such_setting"`)
	mustStart(t, Config{DataDir: dir}) // nothing of it stays
}

func TestStopAtItsDeadlineCutsOffAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: dataDir(t)})
	mustExec(t, s, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Stop(ctx); err != nil && !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Stop: %v", err)
	}
	s = mustStart(t, Config{DataDir: s.dir})
	if got := query[int](t, s, "SELECT n FROM t"); got != 1 {
		t.Errorf("row is %d", got)
	}
}

func TestALargeLogIsPutAside(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	log := filepath.Join(dir, "postgres.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(log, logLimit+1); err != nil {
		t.Fatal(err)
	}
	mustStart(t, Config{DataDir: dir, Throwaway: true})
	if info, err := os.Stat(log); err != nil || info.Size() > logLimit {
		t.Errorf("the log has %d bytes (%v)", info.Size(), err)
	}
	if _, err := os.Stat(log + ".1"); err != nil {
		t.Error(err)
	}
}

func TestLinksInTheDataDirectoryDoNotLeadUsElsewhere(t *testing.T) {
	t.Parallel()
	dir, victim := dataDir(t), filepath.Join(dataDir(t), "victim")
	if err := os.WriteFile(victim, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	wantError(t, dir, Config{}, "path escapes from parent")
	if got, err := os.ReadFile(victim); err != nil || string(got) != "kept" {
		t.Errorf("the victim is now %q (%v)", got, err)
	}
}

// dataDir is a temporary directory that the server's user, too, can enter: t.TempDir's parent is private.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vss-embedded-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustStart(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

func wantError(t *testing.T, dir string, cfg Config, want string) {
	t.Helper()
	cfg.DataDir = dir
	s, err := Start(context.Background(), cfg)
	if err == nil {
		stop(t, s)
		t.Fatal("Start succeeds")
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("Start: %v\nwant in it: %s", err, want)
	}
}

func run(s *Server, sql string) error {
	conn, err := pgx.Connect(context.Background(), s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), sql)
	return err
}

func mustExec(t *testing.T, s *Server, sql string) {
	t.Helper()
	if err := run(s, sql); err != nil {
		t.Fatal(err)
	}
}

func query[T any](t *testing.T, s *Server, sql string, args ...any) (value T) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), sql, args...).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}
