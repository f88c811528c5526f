package db

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Server is the PostgreSQL server behind a connection, as it said when the connection was made. While it lives it is the
// primary of one timeline at most: whoever is deposed has to start again before it can be more than a standby.
type Server struct {
	System   int64     // identifier of the cluster, which its copies share
	Timeline int64     // grows with every promotion
	Life     time.Time // when its postmaster started
	Met      time.Time // by our clock, before it said so
}

// ErrWentBack: the server that can be reached is one from before a promotion that was seen, or of another cluster. What
// was saved since is missing there.
var ErrWentBack = errors.New("the database went back in time")

// unfenced is set by the linker, and only in what tools/torture builds to see that it finds what a deposed primary does.
var unfenced string

// Fenced is true but for builds of tools/torture.
func Fenced() bool { return unfenced == "" }

// servers is what the connections of one pool have learnt of the servers that its URL leads to.
type servers struct {
	mu     sync.Mutex
	newest Server
	first  int // of the URL's hosts, the one that is tried first
}

// identify asks for what Server holds, and whether it can be written to. The file name of the WAL that is written now
// begins with the timeline; pg_control_checkpoint tells a new one only after a while.
const identify = `SELECT current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery(),
	(SELECT system_identifier FROM pg_control_system()),
	CASE WHEN pg_is_in_recovery() THEN '0' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
	(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint`

const server = "vss.server"

// validate refuses a server that cannot be written to, and one that is older than one that was seen.
func (s *servers) validate(ctx context.Context, conn *pgconn.PgConn) error {
	is := Server{Met: time.Now()}
	result := conn.ExecParams(ctx, identify, nil, nil, nil, nil).Read()
	if result.Err != nil {
		return result.Err
	}
	if len(result.Rows) != 1 || string(result.Rows[0][0]) != "f" {
		return errors.New("the server is a standby or read-only")
	}
	row := result.Rows[0]
	var errs [3]error
	is.System, errs[0] = strconv.ParseInt(string(row[1]), 10, 64)
	is.Timeline, errs[1] = strconv.ParseInt(string(row[2]), 16, 64)
	life, err := strconv.ParseInt(string(row[3]), 10, 64)
	is.Life, errs[2] = time.UnixMicro(life), err
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("the server does not say which one it is: %w", err)
	}
	if err := s.meet(is); err != nil {
		return err
	}
	conn.CustomData()[server] = is
	return nil
}

// meet takes note of a server.
func (s *servers) meet(is Server) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch was := s.newest; {
	case !Fenced() || was.System == 0:
	case is.System != was.System:
		return fmt.Errorf("%w: it is another cluster (system identifier %d) than before (%d); if that is meant, restart every instance",
			ErrWentBack, is.System, was.System)
	case is.Timeline < was.Timeline:
		return fmt.Errorf("%w: the server is on timeline %d, and %d was seen; what was saved on that is missing there. "+
			"Bring the newer server back; to go on without it, restart every instance", ErrWentBack, is.Timeline, was.Timeline)
	}
	s.newest = is
	return nil
}

// order puts the host first that is to be tried first.
func (s *servers) order(c *pgx.ConnConfig) {
	s.mu.Lock()
	first := s.first
	s.mu.Unlock()
	hosts := append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}}, c.Fallbacks...)
	first %= len(hosts)
	hosts = append(append([]*pgconn.FallbackConfig(nil), hosts[first:]...), hosts[:first]...)
	c.Host, c.Port, c.TLSConfig, c.Fallbacks = hosts[0].Host, hosts[0].Port, hosts[0].TLSConfig, hosts[1:]
}

// ServerOf is the server behind a connection that was made by Open or Connect.
func ServerOf(conn *pgx.Conn) Server {
	is, _ := conn.PgConn().CustomData()[server].(Server)
	return is
}

type elsewhere struct{}

// Connect makes a connection as those of the pool are, beside it. away: the server that it was made to last does not
// answer, so another host of the URL is tried first from now on, by the pool too.
func Connect(ctx context.Context, pool *pgxpool.Pool, away bool) (*pgx.Conn, error) {
	cfg := pool.Config()
	conn := cfg.ConnConfig.Copy()
	if err := cfg.BeforeConnect(context.WithValue(ctx, elsewhere{}, away), conn); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, conn)
}
