package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is vssctl as it is built and started by people.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "vssctl-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "vssctl")
		if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// shell runs vssctl with an environment of its own.
type shell struct {
	t       *testing.T
	dataDir string
	env     []string
	stdin   string
}

// with is the shell with something on standard input.
func (s *shell) with(stdin string) *shell {
	given := *s
	given.stdin = stdin
	return &given
}

func newShell(t *testing.T) *shell {
	t.Helper()
	// Started by root, the database runs as another user, who has to get in.
	dir, err := os.MkdirTemp("", "vssctl-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, dataDir: filepath.Join(dir, "data")}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "VSS_") && !strings.HasPrefix(v, "DATABASE_URL=") && !strings.HasPrefix(v, "OTEL_") || strings.HasPrefix(v, "VSS_POSTGRES_MAVEN=") {
			s.env = append(s.env, v)
		}
	}
	s.env = append(s.env, "VSS_DATA_DIR="+s.dataDir, "VSS_WALLET_KEY_FILE="+filepath.Join(dir, "wallet.key"),
		"VSS_API_LISTEN=127.0.0.1:0", "VSS_OPS_LISTEN=127.0.0.1:0")
	return s
}

// in is the shell for a part of its test.
func (s *shell) in(t *testing.T) *shell {
	part := *s
	part.t = t
	return &part
}

// run runs a command to its end.
func (s *shell) run(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), binary, args...)
	cmd.Env = s.env
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if s.stdin != "" {
		cmd.Stdin = strings.NewReader(s.stdin)
	}
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// want runs a command that must end with a code and print what matches.
func (s *shell) want(code int, match string, args ...string) string {
	s.t.Helper()
	got, stdout, stderr := s.run(args...)
	if got != code || !regexp.MustCompile(match).MatchString(stdout+stderr) {
		s.t.Fatalf("vssctl %s: exit code %d, want %d and a match of %q in\n%s%s", strings.Join(args, " "), got, code, match, stdout, stderr)
	}
	return stdout
}

// platform is a running vssctl dev.
type platform struct {
	cmd     *exec.Cmd
	base    string // of the demo tenant
	metrics string
	log     *bytes.Buffer // standard error, complete once done is closed
	printed *bytes.Buffer // standard output, likewise
	done    chan struct{}
}

func (s *shell) dev() *platform {
	s.t.Helper()
	p := &platform{cmd: exec.Command(binary, "dev"), log: new(bytes.Buffer), printed: new(bytes.Buffer), done: make(chan struct{})}
	p.cmd.Env = s.env
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	lines := make(chan string, 10_000)
	go func() {
		for sc := bufio.NewScanner(io.TeeReader(out, p.printed)); sc.Scan(); {
			lines <- sc.Text()
		}
		close(lines)
		_ = p.cmd.Wait()
		close(p.done)
	}()
	s.t.Cleanup(func() { p.stop(s.t, syscall.SIGKILL) })
	give := time.After(5 * time.Minute) // it may have to fetch a PostgreSQL
	for {
		select {
		case line, open := <-lines:
			if !open {
				<-p.done
				s.t.Fatalf("vssctl dev ended: %s", p.log)
			}
			if m := regexp.MustCompile(`wallets +(http\S+)`).FindStringSubmatch(line); m != nil {
				p.base = m[1]
			}
			if m := regexp.MustCompile(`metrics +(http\S+)`).FindStringSubmatch(line); m != nil {
				p.metrics = m[1]
			}
			if strings.Contains(line, "Ctrl-C stops it") {
				return p
			}
		case <-give:
			s.t.Fatal("vssctl dev does not come up")
		}
	}
}

func (p *platform) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Fatalf("vssctl dev does not end after %v: it runs on", sig)
	}
}

func TestAPlatformKeepsItsStateHoweverItEnds(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL, 0} {
		p := s.dev()
		for j := range i {
			s.want(0, fmt.Sprintf("^value %d$", j), "get", fmt.Sprint("key ", j), "--url", p.base)
		}
		s.want(0, "saved", "put", fmt.Sprint("key ", i), fmt.Sprint("value ", i), "--url", p.base)
		if sig == 0 {
			break
		}
		p.stop(t, sig)
		if code := p.cmd.ProcessState.ExitCode(); sig != syscall.SIGKILL && code != 0 {
			t.Fatalf("exit code %d after %v: %s", code, sig, p.log)
		}
	}
}

func TestTheCallsOfAWallet(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	p := s.dev()
	s.env = append(s.env, "VSS_URL="+p.base)

	s.want(0, "new wallet key", "put", "a", "1", "--version", "0")
	s.want(0, "saved a at version 2", "put", "a", "2", "--version", "1")
	s.want(4, "conflict", "put", "a", "3", "--version", "1")
	s.want(0, "^2$", "get", "a")
	s.want(0, `"value_base64": "Mg=="`, "get", "a", "--json")
	s.want(3, "no such key", "get", "b")
	s.want(2, "reserved", "put", "global_version", "x")
	s.want(2, "either a value or --file", "put", "a")
	s.want(2, "unknown flag", "get", "a", "--no-such-flag")
	s.want(2, "base URL", "get", "a", "--url", "nowhere")
	s.want(0, "saved", "put", "b", "", "--global-version", "0")
	if out := s.want(0, "", "list"); out != "1\tb\n2\ta\n" {
		t.Fatalf("list: %q", out)
	}
	var list struct {
		GlobalVersion int64 `json:"global_version"`
		Keys          []keyView
	}
	if err := json.Unmarshal([]byte(s.want(0, "", "list", "--json")), &list); err != nil || list.GlobalVersion != 1 || len(list.Keys) != 2 {
		t.Fatalf("list: %+v, %v", list, err)
	}
	s.want(0, "", "delete", "a", "--version", "9")
	s.want(0, "^2$", "get", "a")
	s.want(3, "unknown tenant", "get", "a", "--url", strings.Replace(p.base, "/demo/", "/nobody/", 1))
	s.want(5, "not authorized", "get", "a", "--token", "e30.e30.e30")
	s.want(1, "", "get", "a", "--url", "http://127.0.0.1:1/t/demo/vss", "--timeout", "2s")
	s.want(0, "", "delete", "a")
	s.want(3, "", "get", "a")

	other := *s
	other.env = append(other.env, "VSS_WALLET_KEY_FILE="+filepath.Join(t.TempDir(), "other.key"))
	other.want(3, "no such key", "get", "b")

	resp, err := http.Get(p.metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), `vss_calls_total{call="putObjects",outcome="ok"} 3`) {
		t.Fatalf("metrics, error %v:\n%s", err, text)
	}
}

func TestTheOperatorRunsTenants(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.want(1, "no platform runs on the data directory", "tenant", "list")
	p := s.dev()

	s.want(0, "acme", "tenant", "create", "acme", "--name", "Acme Wallet")
	s.want(4, "slug is taken", "tenant", "create", "acme")
	s.want(2, "slug", "tenant", "create", "No.Slug")
	s.want(3, "no such tenant", "tenant", "show", "nobody")
	s.want(0, `(?s)acme.*Acme Wallet.*demo`, "tenant", "list")
	s.want(0, `"enrolment": "closed"`, "tenant", "set", "acme", "--enrolment", "closed", "--yes", "--json")
	s.want(0, "enrolment open", "tenant", "set", "acme", "--enrolment", "open")
	s.want(2, "plan", "tenant", "set", "acme", "--plan", "gold")
	s.want(0, "0 migrations applied", "migrate")

	acme := strings.Replace(p.base, "/demo/", "/acme/", 1)
	s.want(0, "saved k", "put", "k", "v", "--url", acme)

	// The instance has not heard of a tenant that was created a moment ago, and the call waits for that.
	s.want(0, "fresh", "tenant", "create", "fresh")
	s.want(3, "no such key", "get", "k", "--url", strings.Replace(p.base, "/demo/", "/fresh/", 1))
	s.want(3, "no such key", "get", "k", "--url", p.base) // the same wallet key is another wallet there
	s.want(2, "Every write of the wallets of tenant acme .*say --yes", "tenant", "set", "acme", "--state", "read_only")
	s.want(2, "Every write of the wallets of tenant acme .*say --yes", "tenant", "suspend", "acme")
	s.want(2, "Every call of the wallets of tenant acme .*say --yes", "tenant", "close", "acme")
	s.want(0, "closed", "tenant", "close", "acme", "--yes")
	s.want(0, "active", "tenant", "resume", "acme")
	s.want(0, "read_only", "tenant", "suspend", "acme", "--yes")
	eventually(t, func() bool {
		code, _, err := s.run("put", "k", "v", "--url", acme)
		return code == 6 && strings.Contains(err, "read-only")
	})
	s.want(0, "^v$", "get", "k", "--url", acme)
}

// eventually waits for what another process has changed.
func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to hold")
		}
	}
}

func TestTracesAreExportedIfTheEnvironmentAsksForThem(t *testing.T) {
	t.Parallel()
	for exporter, asked := range map[string]bool{"console": true, "none": false, "": false} {
		t.Run("OTEL_TRACES_EXPORTER="+exporter, func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			s.env = append(s.env, "OTEL_TRACES_EXPORTER="+exporter)
			p := s.dev()
			s.want(0, "saved", "put", "k", "v", "--url", p.base)
			p.stop(t, syscall.SIGTERM)
			span := `"Name":"POST /t/{tenant}/vss/putObjects"`
			if got := strings.Contains(strings.ReplaceAll(p.printed.String(), `": "`, `":"`), span); got != asked {
				t.Errorf("the span of the put is exported: %t, want %t, in\n%s", got, asked, p.printed)
			}
		})
	}
}

func TestWhatIsTakenIsNamed(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	p := s.dev()
	s.want(1, "data directory .* is in use by process [0-9]+", "dev")
	taken := strings.TrimSuffix(strings.TrimPrefix(p.base, "http://localhost"), "/t/demo/vss")
	s.want(1, "is taken by another process; choose another address with --api-listen", "dev", "--api-listen", "127.0.0.1"+taken)
}

func TestAPlatformWithoutADiskOrANetworkSaysSo(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(1, "not a directory", "dev", "--data-dir", filepath.Join(file, "data"))
	s.want(1, "cannot reach the PostgreSQL at 127.0.0.1:1", "dev", "--database-url", "postgres://nobody@127.0.0.1:1/none?connect_timeout=2")
}

func TestHelpIsCompleteAndEndsWell(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.want(0, `(?s)dev.*migrate.*tenant create.*put.*get.*list.*delete`, "--help")
	for _, command := range [][]string{
		{"dev"}, {"migrate"}, {"tenant", "create"}, {"tenant", "list"}, {"tenant", "show"}, {"tenant", "set"},
		{"tenant", "limits"}, {"tenant", "usage"}, {"tenant", "events"},
		{"plan", "list"}, {"plan", "show"}, {"plan", "set"}, {"plan", "delete"},
		{"wallet", "show"}, {"wallet", "block"}, {"wallet", "unblock"}, {"wallet", "allow"}, {"wallet", "disallow"}, {"instances"},
		{"source", "add"}, {"source", "list"}, {"source", "set"}, {"source", "remove"},
		{"key", "add"}, {"key", "list"}, {"key", "set"}, {"key", "rotate"},
		{"key", "create-master"}, {"key", "rotate-master", "begin"}, {"key", "rotate-master", "reseal"}, {"key", "rotate-master", "finish"},
		{"client-key", "add"}, {"client-key", "list"}, {"client-key", "rotate"}, {"client-key", "revoke"}, {"client-key", "gate"},
		{"domain", "add"}, {"domain", "list"}, {"domain", "check"}, {"domain", "remove"},
		{"auth", "explain"}, {"auth", "failures"},
		{"put"}, {"get"}, {"list"}, {"delete"}, {"completion"},
	} {
		s.want(0, "Usage: vssctl "+strings.Join(command, " "), append(command, "--help")...)
	}
	s.want(2, "", "no-such-command")
	s.want(0, "Usage: vssctl tenant set", "help", "tenant", "set")
	s.want(0, "Usage: vssctl tenant set", "--json", "help", "tenant", "set")
	s.want(0, "Usage: vssctl <command>", "help")
	s.want(0, `^vssctl \S+.* \(go1\.[0-9]+.*, \S+/\S+\)\n$`, "--version")
	s.want(2, `^\{"error":"unexpected argument no-such-command.*","exit_code":2\}\n$`, "no-such-command", "--json")
	s.want(2, `^vssctl: `, "put", "k", "--", "--json", "more")
	s.want(2, "--memory", "dev", "--memory", "64")
	s.want(2, "--max-page-size", "dev", "--max-page-size", "-5")
}

func TestOtherCommandsFindARunningPlatform(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	p := s.dev() // on another port and another data directory than the usual ones
	s.want(0, "saved", "put", "hello", "world")
	s.want(0, "^world$", "get", "hello")
	s.want(0, "acme", "tenant", "create", "acme")
	eventually(t, func() bool {
		code, _, stderr := s.run("get", "hello", "--tenant", "acme")
		return code == 3 && strings.Contains(stderr, "no such key")
	})
	p.stop(t, syscall.SIGKILL)
	s.want(1, "", "get", "hello", "--timeout", "2s") // whatever it left says nothing now

	p = s.dev()
	s.want(0, "^world$", "get", "hello")
	p.stop(t, syscall.SIGTERM)
	if want := "export VSS_DATA_DIR='" + s.dataDir + "'\n"; !strings.Contains(p.printed.String(), want) {
		t.Errorf("%q is not in\n%s", want, p.printed)
	}
}

func TestALostMasterKeyIsNamedAndNothingIsChanged(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.dev().stop(t, syscall.SIGTERM)
	key := filepath.Join(s.dataDir, "master.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.want(1, "master key file "+key+" is missing.*sealed with it.*--master-key-file", "dev")
		for _, left := range []string{"master.key", "dev.running", "pg/postmaster.pid", "run/.s.PGSQL.5432.lock"} {
			if _, err := os.Stat(filepath.Join(s.dataDir, left)); !os.IsNotExist(err) {
				t.Errorf("it leaves %s (%v)", left, err)
			}
		}
		if text, err := os.ReadFile(filepath.Join(s.dataDir, "lock")); err != nil || len(text) > 0 {
			t.Errorf("the lock still names %q (%v)", text, err)
		}
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	s.dev()
}

func TestBashCompletesCommandsFlagsAndValues(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	script := s.want(0, "complete -o default -F _vssctl vssctl", "completion", "bash")
	for line, want := range map[string]string{
		"vssctl ten":                           "tenant",
		"vssctl tenant cre":                    "create",
		"vssctl tenant set acme --stat":        "--state",
		"vssctl tenant set acme --state clo":   "closed",
		"vssctl tenant set acme --state = clo": "closed", // as bash splits it
		"vssctl get some-key --no-such":        "",
		"vssctl completion ":                   "bash fish zsh",
	} {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", script+`
COMP_WORDS=($1); [[ $1 == *" " ]] && COMP_WORDS+=(""); COMP_WORDS[0]=$2
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _vssctl; echo "${COMPREPLY[*]}"`, "-", line, binary)
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%q becomes %q, %v, want %q", line, out, err, want)
		}
	}
	for _, shell := range []string{"zsh", "fish"} {
		s.want(0, "(?s)vssctl.*__complete", "completion", shell)
	}
}
