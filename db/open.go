// Package db is the one PostgreSQL schema of the platform: its migrations, its queries (generated code in
// dbgen) and how a service connects. Sub-packages run a PostgreSQL of our own (embedded) and hand each
// test a database (dbtest).
package db

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Role is what a service may do in the database; migration 3 says what each is granted.
type Role string

const (
	RoleAPI   Role = "vss_api"   // reads the control plane it needs, reads and writes the data plane
	RoleAdmin Role = "vss_admin" // runs the control plane, sees sizes and counts, never a value
)

// settings hold for every connection of ours. They go into the start-up packet, so they hold before the
// first statement; a pooler in between must let them through or set them for its own connections.
var settings = map[string]string{
	"timezone": "UTC",
	// The write relies on a fresh snapshot for each of its statements.
	"default_transaction_isolation": "read committed",
	// A backend whose client has died stops waiting for a lock within this time. It finds out only about a
	// connection that was closed; one to a host that vanished is closed by these.
	"client_connection_check_interval": "500ms",
	"tcp_keepalives_idle":              "5",
	"tcp_keepalives_interval":          "2",
	"tcp_keepalives_count":             "3",
	// Plans are kept, and one made while a table was small must be right when it no longer is: look-ups by
	// index, joins by nested loop. Where nothing else is possible the planner still takes the others.
	"enable_seqscan":   "off",
	"enable_hashjoin":  "off",
	"enable_mergejoin": "off",
	"jit":              "off",
}

// Pool is what [Open] makes, for those who hand it on and speak no SQL.
type Pool = pgxpool.Pool

// Open makes a pool of connections to the primary at url (a PostgreSQL URL or key-value string) under the
// given role, which the login user must be a member of. It does not wait for a first connection: a service
// starts, and says that it is not ready, while its database is down. The pool holds at most maxConns
// connections; 0: what url says as pool_max_conns, else 20.
//
// No connection of the pool ever sends a cancel request. pgx sends one when a context ends or a connection
// breaks, and one that meets a commit in its wait for the synchronous standby makes it a commit that only
// the primary has (CONTRACT section 3). Statements are bounded on the server instead, and a connection that
// is given up is closed at once, which the server notices.
func Open(ctx context.Context, url string, role Role, maxConns int32) (*pgxpool.Pool, error) {
	if url == "" { // pgx would take the local socket
		return nil, errNoURL
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, &SetupError{fmt.Sprintf("database URL: %v", err), err} // pgx redacts the password
	}
	switch {
	case maxConns != 0:
		cfg.MaxConns = maxConns
	case !strings.Contains(url, "pool_max_conns"):
		cfg.MaxConns = 20
	}
	conn := cfg.ConnConfig
	for k, v := range settings {
		conn.RuntimeParams[k] = v
	}
	pinSchema(conn)
	conn.RuntimeParams["role"] = string(role)
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = string(role)
	}
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = 3 * time.Second
	}
	conn.OnNotice = noteWarning
	conn.Tracer = otelpgx.NewTracer(otelpgx.WithDisableSQLStatementInAttributes())
	met := &servers{}
	cfg.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		if away, _ := ctx.Value(elsewhere{}).(bool); away {
			met.mu.Lock()
			met.first++
			met.mu.Unlock()
		}
		met.order(c)
		gate := &dialGate{dial: c.DialFunc}
		c.DialFunc = gate.Dial
		c.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
			if err := met.validate(ctx, conn); err != nil {
				return err
			}
			gate.shut.Store(true)
			return nil
		}
		return nil
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// pinSchema makes the tables those of the schema public, unless the URL says otherwise. The default path looks
// for a schema named like the login user first: one that appears would hide every tenant and every object.
func pinSchema(conn *pgx.ConnConfig) {
	if conn.RuntimeParams["search_path"] == "" {
		conn.RuntimeParams["search_path"] = "public"
	}
}

// dialGate dials until the connection it was made for stands. After that a dial is pgx about to send a cancel
// request for a connection that it gives up, for which it has no switch. The gate refuses it and closes that
// connection: pgx would say goodbye first, and wait 15 s for a server that may be gone, with a slot of the
// pool in its hands.
type dialGate struct {
	dial pgconn.DialFunc
	conn net.Conn // the last dialled; not written any more once shut
	shut atomic.Bool
}

func (g *dialGate) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if g.shut.Load() {
		_ = g.conn.Close()
		return nil, errors.New("no cancel request is sent, see db.Open")
	}
	var err error
	g.conn, err = g.dial(ctx, network, addr)
	return g.conn, err
}

const warned = "vss.warned"

// noteWarning remembers on the connection that the server warned. PostgreSQL tells by a mere warning that
// a commit did not wait for its synchronous standby.
func noteWarning(conn *pgconn.PgConn, n *pgconn.Notice) {
	if n.SeverityUnlocalized == "WARNING" {
		conn.CustomData()[warned] = n.Message
	}
}

// TakeWarning returns the last warning that the server sent on this connection since it was last asked
// for, or "". It must be called by the goroutine that holds the connection.
func TakeWarning(conn *pgx.Conn) string {
	data := conn.PgConn().CustomData()
	message, _ := data[warned].(string)
	delete(data, warned)
	return message
}
