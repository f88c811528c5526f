// Package readme holds README.md to what it says.
package readme

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/embedded"
)

// built is where the binaries are.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if built, err = os.MkdirTemp("", "vss-readme-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(built)
		if out, err := exec.Command("go", "build", "-o", built+"/", "./cmd/...").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// blocks are the blocks of one language in a section of README.md, as they stand.
func blocks(t *testing.T, section, language string) (texts []string) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	check(t, err)
	_, rest, found := strings.Cut(string(readme), "\n## "+section+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(rest, -1) {
		texts = append(texts, m[1])
	}
	return texts
}

// users are who follows README: whoever we are and, since root is special, somebody else too.
func users() map[string]*syscall.Credential {
	all := map[string]*syscall.Credential{"the current user": nil}
	if os.Geteuid() == 0 {
		all["another user"] = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	return all
}

// reader is a person with a home, a checkout in which everything is built, and a shell.
type reader struct {
	t    *testing.T
	as   *syscall.Credential
	home string
	env  []string
}

func newReader(t *testing.T, as *syscall.Credential) *reader {
	t.Helper()
	home, err := os.MkdirTemp("", "vss-readme-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	check(t, os.Chmod(home, 0o755))
	check(t, os.CopyFS(filepath.Join(home, "bin"), os.DirFS(built)))
	r := &reader{t: t, as: as, home: home}
	r.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "VSS_DATA_DIR=" + filepath.Join(home, "data"),
		"VSS_POSTGRES_MAVEN=" + os.Getenv("VSS_POSTGRES_MAVEN"), "VSS_API_LISTEN=" + free(t), "VSS_OPS_LISTEN=" + free(t),
	}
	if as != nil { // a download is enough for both
		cache := filepath.Join(home, ".cache", "vss-cloud")
		check(t, os.MkdirAll(cache, 0o755))
		check(t, os.Symlink("/var/lib/vss-cloud/postgres", filepath.Join(cache, "postgres")))
		check(t, exec.Command("chown", "-R", fmt.Sprintf("%d:%d", as.Uid, as.Gid), home).Run())
	}
	return r
}

// run runs a script to its end; what it leaves in the background ends with the test.
func (r *reader) run(script string) (code int, output string) {
	r.t.Helper()
	// A file, which stays open for what is left in the background.
	out, err := os.CreateTemp(r.t.TempDir(), "")
	check(r.t, err)
	defer out.Close()
	cmd := r.start(script, out)
	_ = cmd.Wait()
	text, err := os.ReadFile(out.Name())
	check(r.t, err)
	return cmd.ProcessState.ExitCode(), string(text)
}

func (r *reader) start(script string, out *os.File) *exec.Cmd {
	r.t.Helper()
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.Env = r.home, r.env
	if out != nil {
		cmd.Stdout, cmd.Stderr = out, out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: r.as, Setpgid: true}
	check(r.t, cmd.Start())
	r.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return cmd
}

// serves waits until the platform is ready.
func (r *reader) serves() {
	r.t.Helper()
	address := r.address()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("it does not come to serve: %v", err)
		}
	}
}

func (r *reader) address() string {
	for _, v := range r.env {
		if address, ok := strings.CutPrefix(v, "VSS_API_LISTEN="); ok {
			return address
		}
	}
	return ""
}

func TestTwoCommandsAndWhatFollowsThem(t *testing.T) {
	t.Parallel()
	commands := blocks(t, "Two commands", "sh")
	if len(commands) != 2 || !strings.HasPrefix(commands[0], "make run ") {
		t.Fatalf("README.md has %q", commands)
	}
	for name, as := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReader(t, as)
			dev := r.start("exec bin/vssctl dev", nil) // which is what make run runs, once it has built it
			r.serves()
			eventually(t, func() bool { code, _ := r.run("bin/vssctl list"); return code == 0 }) // the tenant is there
			for line := range strings.Lines(commands[1]) {
				want := 0
				if strings.Contains(line, "# no such key") {
					want = 3
				}
				var output string
				eventually(t, func() (ok bool) { // a tenant is known a moment after it was created
					var code int
					code, output = r.run(line)
					return code == want && (want == 0 || strings.Contains(output, "no such key"))
				})
				t.Logf("%s%s", line, output)
			}
			check(t, dev.Process.Signal(syscall.SIGTERM))
			check(t, dev.Wait())
		})
	}
}

func TestRunItForOthers(t *testing.T) {
	t.Parallel()
	statements, commands := blocks(t, "Run it for others", "sql"), blocks(t, "Run it for others", "sh")
	if len(statements) != 2 || len(commands) != 2 {
		t.Fatalf("README.md has %q and %q", statements, commands)
	}
	for name, as := range users() {
		for _, version := range []embedded.Version{embedded.V15, embedded.V18} {
			t.Run(fmt.Sprintf("%s, PostgreSQL %s", name, version), func(t *testing.T) {
				t.Parallel()
				server := startServer(t, version)
				r := newReader(t, as)
				var passwords strings.Builder
				for _, m := range regexp.MustCompile(`CREATE ROLE (\w+) .*PASSWORD '(.*)'`).FindAllStringSubmatch(strings.Join(statements, ""), -1) {
					fmt.Fprintf(&passwords, "*:*:*:%s:%s\n", m[1], m[2])
				}
				path := filepath.Join(r.home, ".pgpass")
				check(t, os.WriteFile(path, []byte(passwords.String()), 0o600))
				if as != nil {
					check(t, os.Chown(path, int(as.Uid), int(as.Gid)))
				}
				r.env = append(r.env, "PGHOST="+filepath.Dir(embedded.Socket(server)), "PGPORT=5432")

				execute(t, server, "cloud_admin", "postgres", statements[0])
				wantDone(r, commands[0])
				execute(t, server, "vss_owner", "vss", statements[1], "change-me-1")
				wantDone(r, commands[1])
				r.serves()
				eventually(t, func() bool { code, _ := r.run("bin/vssctl put k v --tenant acme"); return code == 0 })
				wantDone(r, commands[0]) // at the next release
			})
		}
	}
}

func wantDone(r *reader, script string) {
	r.t.Helper()
	if code, output := r.run("set -e\n" + script); code != 0 {
		r.t.Fatalf("%sexit code %d: %s", script, code, output)
	}
}

// startServer starts a PostgreSQL as a cloud provider runs one: an administrator who is no superuser, and passwords for
// everybody else. It returns its directory.
func startServer(t *testing.T, version embedded.Version) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vss-readme-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755)) // for the server's user
	server, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir, Version: version})
	check(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = server.Stop(ctx)
	})
	execute(t, dir, "postgres", "postgres", "CREATE ROLE cloud_admin LOGIN CREATEROLE CREATEDB")
	hba := "local all postgres trust\nlocal all cloud_admin trust\nlocal all all scram-sha-256\n"
	check(t, os.WriteFile(filepath.Join(dir, "pg", "pg_hba.conf"), []byte(hba), 0o600))
	execute(t, dir, "postgres", "postgres", "SELECT pg_reload_conf()")
	return dir
}

// execute runs each statement by itself, as psql does.
func execute(t *testing.T, server, user, database, statements string, password ...string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(embedded.URL(server, database))
	check(t, err)
	cfg.User, cfg.Password = user, strings.Join(password, "")
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	check(t, err)
	defer conn.Close(t.Context())
	for line := range strings.Lines(statements) {
		if _, err := conn.Exec(t.Context(), line); err != nil {
			t.Fatalf("%s%v", line, err)
		}
	}
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to hold")
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
