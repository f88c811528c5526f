package failover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tools/torture/faults"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
)

const (
	superuser = "postgres"
	binaries  = "/usr/lib/postgresql/15/bin"
	dbName    = "torture"
)

// cluster is etcd, three PostgreSQL servers run by Patroni, and HAProxy, all on loopback. Whatever goes to a node, and
// from a node to etcd, goes through a proxy, so that a node can be cut off.
type cluster struct {
	dir     string
	etcd    *process
	nodes   []*node
	haproxy *process
	balance string // where HAProxy listens
}

type node struct {
	name                 string
	data                 string
	patroni              *process
	start                func() (*process, error)
	sql, rest, consensus *faults.Proxy
}

// process is a program that runs as the user postgres.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func run(dir, log string, env []string, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(filepath.Join(dir, log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(name, args...) //nolint:noctx // ended by end
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append([]string{"PATH=/usr/sbin:/usr/bin:/bin", "HOME=" + dir, "LC_ALL=C.UTF-8"}, env...), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		uid, gid, err := postgres()
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is about the thread that started the child
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func postgres() (uid, gid int, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	gid, errGid := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(err, errGid)
}

func (p *process) end(s syscall.Signal, within time.Duration) {
	_ = syscall.Kill(p.cmd.Process.Pid, s)
	select {
	case <-p.exited:
	case <-time.After(within):
		_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
	}
}

// freePort is one that nobody listens on just now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func startCluster(ctx context.Context, root, dir, patroni string) (c *cluster, err error) {
	c = &cluster{dir: dir}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return c, err
	}
	if uid, gid, err := postgres(); os.Geteuid() == 0 {
		if err = errors.Join(err, os.Chown(dir, uid, gid)); err != nil {
			return c, err
		}
	}
	var ports [3]string
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return c, err
		}
	}
	client, peer := "http://"+ports[0], "http://"+ports[1]
	if c.etcd, err = run(dir, "etcd.log", nil, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer); err != nil {
		return c, err
	}
	config := []string{"patroni.yml", "haproxy.cfg"}
	for i, room := range []string{"patroni", "haproxy"} { // the checkout may be closed to the user postgres
		text, err := os.ReadFile(filepath.Join(root, "deploy", room, config[i]))
		if err != nil {
			return c, err
		}
		config[i] = filepath.Join(dir, config[i])
		if err := os.WriteFile(config[i], text, 0o644); err != nil {
			return c, err
		}
	}
	c.balance = ports[2]
	env := []string{"VSS_HAPROXY_BIND=" + c.balance}
	for _, name := range []string{"a", "b", "c"} {
		n, err := c.addNode(name, ports[0], patroni, config[0])
		if err != nil {
			return c, err
		}
		host, port, _ := net.SplitHostPort(n.rest.Address())
		x := strings.ToUpper(name)
		env = append(env, "VSS_POSTGRES_"+x+"="+n.sql.Address(), "VSS_PATRONI_HOST_"+x+"="+host, "VSS_PATRONI_PORT_"+x+"="+port)
	}
	if c.haproxy, err = run(dir, "haproxy.log", env, "haproxy", "-db", "-f", config[1]); err != nil {
		return c, err
	}
	return c, c.whole(ctx)
}

func (c *cluster) addNode(name, etcd, patroni, config string) (*node, error) {
	n := &node{name: name, data: filepath.Join(c.dir, name)}
	sql, err1 := freePort()
	rest, err2 := freePort()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	for p, address := range map[**faults.Proxy]string{&n.sql: sql, &n.rest: rest, &n.consensus: etcd} {
		var err error
		if *p, err = faults.NewProxy(func() (net.Conn, error) { return net.DialTimeout("tcp", address, time.Second) }); err != nil {
			return nil, err
		}
	}
	n.start = func() (*process, error) {
		return run(c.dir, name+".log", []string{
			"PATRONI_NAME=" + name, "PATRONI_ETCD3_HOSTS=" + n.consensus.Address(), "PATRONI_ETCD3_USE_PROXIES=true", // or it finds its way past ours
			"PATRONI_RESTAPI_LISTEN=" + rest, "PATRONI_RESTAPI_CONNECT_ADDRESS=" + n.rest.Address(),
			"PATRONI_POSTGRESQL_LISTEN=" + sql, "PATRONI_POSTGRESQL_CONNECT_ADDRESS=" + n.sql.Address(),
			"PATRONI_POSTGRESQL_DATA_DIR=" + n.data, "PATRONI_POSTGRESQL_BIN_DIR=" + binaries, "PATRONI_POSTGRESQL_PGPASS=" + n.data + ".pgpass",
			"PATRONI_SUPERUSER_USERNAME=" + superuser, "PATRONI_SUPERUSER_PASSWORD=" + platform.Password,
			"PATRONI_REPLICATION_USERNAME=standby", "PATRONI_REPLICATION_PASSWORD=" + platform.Password,
		}, patroni, config)
	}
	var err error
	n.patroni, err = n.start()
	c.nodes = append(c.nodes, n)
	return n, err
}

// ask is the status of a page of a node's Patroni.
func (n *node) ask(ctx context.Context, page string) int {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodOptions, "http://"+n.rest.Address()+page, http.NoBody)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// leader is the node that Patroni says is the primary.
func (c *cluster) leader(ctx context.Context) (*node, error) {
	for _, n := range c.nodes {
		if n.ask(ctx, "/primary") == http.StatusOK {
			return n, nil
		}
	}
	return nil, errors.New("there is no leader")
}

// whole waits until there is a leader, a synchronous standby and another one.
func (c *cluster) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		leaders, sync, replicas := 0, 0, 0
		for _, n := range c.nodes {
			for page, count := range map[string]*int{"/primary": &leaders, "/sync": &sync, "/replica": &replicas} {
				if n.ask(ctx, page) == http.StatusOK {
					*count++
				}
			}
		}
		if leaders == 1 && sync == 1 && replicas == 2 {
			return nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the cluster is not whole: %d leaders, %d synchronous of %d standbys", leaders, sync, replicas)
		}
	}
}

// switchover has Patroni make another node the leader.
func (c *cluster) switchover(ctx context.Context, leader *node) error {
	body := strings.NewReader(`{"leader": "` + leader.name + `"}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+leader.rest.Address()+"/switchover", body)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("switchover: %s", resp.Status)
	}
	return nil
}

// proxies are all ways to a node and from it.
func (n *node) proxies() []*faults.Proxy { return []*faults.Proxy{n.sql, n.rest, n.consensus} }

// postmaster is the pid of a node's server.
func (n *node) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(n.data, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	return strconv.Atoi(string(first))
}

// server is all processes of a node's server, its postmaster first.
func (n *node) server() (pids []int, err error) {
	parent, err := n.postmaster()
	if err != nil {
		return nil, err
	}
	pids = []int{parent}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

func signal(s syscall.Signal, pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, s)
	}
}

// url is where a user reaches the primary's database: through HAProxy, or by the names of all.
func (c *cluster) url(user, database string, balanced bool) string {
	hosts := c.balance
	if !balanced {
		all := make([]string, len(c.nodes))
		for i, n := range c.nodes {
			all[i] = n.sql.Address()
		}
		hosts = strings.Join(all, ",")
	}
	return fmt.Sprintf("postgres://%s:%s@%s/%s?target_session_attrs=read-write&connect_timeout=3", user, platform.Password, hosts, database)
}

// schema makes the database and its tenant.
func (c *cluster) schema(ctx context.Context) error {
	for _, do := range []struct{ database, sql string }{
		{"postgres", "CREATE DATABASE " + dbName},
		{dbName, ""},
		{dbName, "CREATE ROLE " + platform.Login + " LOGIN PASSWORD '" + platform.Password + "' IN ROLE vss_api"},
	} {
		url := c.url(superuser, do.database, true) // a standby may not have the database yet, which ends the search
		if do.sql == "" {
			if _, err := db.Migrate(ctx, url); err != nil {
				return err
			}
			continue
		}
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, do.sql)
		if err = errors.Join(err, conn.Close(ctx)); err != nil {
			return err
		}
	}
	return platform.CreateTenants(ctx, c.url(superuser, dbName, true), tenant)
}

func (c *cluster) stop() {
	for _, n := range c.nodes {
		pids, _ := n.server()
		signal(syscall.SIGCONT, pids...)
		if n.patroni != nil {
			signal(syscall.SIGCONT, n.patroni.cmd.Process.Pid)
			n.patroni.end(syscall.SIGKILL, time.Second)
		}
		signal(syscall.SIGKILL, pids...)
		for _, p := range n.proxies() {
			if p != nil {
				_ = p.Close()
			}
		}
	}
	for _, p := range []*process{c.haproxy, c.etcd} {
		if p != nil {
			p.end(syscall.SIGKILL, time.Second)
		}
	}
}
