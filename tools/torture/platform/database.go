// Package platform runs what is put to the test: a PostgreSQL server that can be killed and comes back, and
// instances of the API, each a process of its own.
package platform

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/embedded"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

// Database is a PostgreSQL server with everything on that makes it durable.
type Database struct {
	config embedded.Config

	mu     sync.Mutex
	server *embedded.Server
}

// StartDatabase starts a server on a new cluster in dir, which is on the disk that is to be tested.
func StartDatabase(ctx context.Context, dir string, settings map[string]string) (*Database, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d := &Database{config: embedded.Config{
		DataDir: dir, Settings: settings,
		Progress: func(line string) { fmt.Fprintln(os.Stderr, "torture:", line) },
	}}
	err := d.Start(ctx)
	d.config.Progress = nil
	return d, err
}

// Start starts the server again after Kill or Stop.
func (d *Database) Start(ctx context.Context) error {
	s, err := embedded.Start(ctx, d.config)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server = s
	return nil
}

func (d *Database) running() *embedded.Server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.server
}

// Pid is the postmaster's.
func (d *Database) Pid() int { return d.running().Pid() }

// Kill is kill -9 of the postmaster. It returns when that is gone; its backends go by themselves.
func (d *Database) Kill() error {
	s := d.running()
	if d.Ended() { // its number may be another's by now
		return nil
	}
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		return err
	}
	<-s.Done()
	return nil
}

// Ended says whether the server has ended, by itself or by Kill or Stop.
func (d *Database) Ended() bool {
	select {
	case <-d.running().Done():
		return true
	default:
		return false
	}
}

// Stop shuts the server down in order.
func (d *Database) Stop(ctx context.Context) error { return d.running().Stop(ctx) }

// URL is where the superuser reaches a database.
func (d *Database) URL(name string) string { return embedded.URL(d.config.DataDir, name) }

// Log is where the server writes its log.
func (d *Database) Log() string { return filepath.Join(d.config.DataDir, "postgres.log") }

// Login is the user that the API logs in as: one of its own, as in production.
const Login = "torture_api"

// Password is that user's. Nobody asks for it here, and nobody may write it down.
const Password = "torture-password~"

// Create makes a database with the platform's schema and these tenants in it. The URL is for the API.
func (d *Database) Create(ctx context.Context, name string, slugs ...string) (apiURL string, err error) {
	if err := d.Exec(ctx, "postgres", "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", err
	}
	if _, err := db.Migrate(ctx, d.URL(name)); err != nil {
		return "", err
	}
	err = d.Exec(ctx, name, `DO $$ BEGIN
		IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '`+Login+`') THEN CREATE ROLE `+Login+` LOGIN IN ROLE vss_api; END IF; END $$`)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(d.URL(name))
	if err != nil {
		return "", err
	}
	u.User = url.UserPassword(Login, Password)
	return u.String(), CreateTenants(ctx, d.URL(name), slugs...)
}

// MultiplyTenants makes n tenants at once, as the service does one by one, and names them.
func (d *Database) MultiplyTenants(ctx context.Context, name string, n int) (slugs []string, err error) {
	for i := range n {
		slugs = append(slugs, fmt.Sprintf("t%d", i))
	}
	return slugs, d.Exec(ctx, name, fmt.Sprintf(`
		WITH made AS (INSERT INTO tenants (slug, name) SELECT 't' || i, 't' || i FROM generate_series(0, %d) i RETURNING id)
		INSERT INTO credential_sources (tenant_id, name, kind, namespace) SELECT id, 'signature', 'signature', 'sig' FROM made;`, n-1)+unlimited)
}

// unlimited raises every rate of every plan to the most that a plan may have: the run is to be stopped by faults. The
// limits are asked all the same.
const unlimited = `
	UPDATE plans SET limits = (
		SELECT jsonb_object_agg(key, CASE WHEN key LIKE '%_per_minute' THEN 60000000 WHEN key LIKE '%_burst' THEN 10000000 ELSE value::bigint END)
		  FROM jsonb_each_text(limits))`

// CreateTenants makes tenants in a database that has the platform's schema.
func CreateTenants(ctx context.Context, url string, slugs ...string) error {
	pool, err := db.Open(ctx, url, db.RoleAdmin, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	service, err := tenants.NewService(pool, tenants.ServiceConfig{})
	if err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, unlimited); err != nil {
		return err
	}
	for _, slug := range slugs {
		_, err := service.Create(ctx, audit.Actor{Role: audit.System, Name: "torture"}, tenants.NewTenant{Slug: slug, Name: slug})
		if err != nil {
			return err
		}
	}
	return nil
}

// Audit is every row of the audit log of a database, as text.
func (d *Database) Audit(ctx context.Context, name string) (rows []byte, err error) {
	conn, err := pgx.Connect(ctx, d.URL(name))
	if err != nil {
		return nil, err
	}
	err = conn.QueryRow(ctx, `SELECT coalesce(string_agg(a::text, E'\n'), '') FROM audit_log a`).Scan(&rows)
	return rows, errors.Join(err, conn.Close(ctx))
}

// Drop removes a database, whoever is connected.
func (d *Database) Drop(ctx context.Context, name string) error {
	return d.Exec(ctx, "postgres", "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

// Exec runs SQL in a database as its superuser.
func (d *Database) Exec(ctx context.Context, database, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.URL(database))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}
