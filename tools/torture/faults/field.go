package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
)

// Field is what faults can be done to: a database and instances of the API.
type Field struct {
	Database  *platform.Database
	Name      string // of the platform's database
	Instances []*Instance

	database sync.Mutex // held by a fault that needs the database's processes for itself
}

// Instance is one process of the API between two proxies.
type Instance struct {
	*platform.Process
	Front *Proxy         // where clients call it
	Back  *DatabaseProxy // how it reaches the database

	process sync.Mutex // held by a fault that needs the process for itself
}

// NewInstance makes an instance, not started yet, on a database of its own proxy. env comes on top of what it
// needs; conns bounds its pool.
func NewInstance(name, binary, databaseURL string, conns int, output platform.Output, env ...string) (*Instance, error) {
	back, err := NewDatabaseProxy(databaseURL)
	if err != nil {
		return nil, err
	}
	i := &Instance{Back: back}
	i.Process = platform.NewProcess(name, binary, output, append(env,
		fmt.Sprintf("DATABASE_URL=%s&pool_max_conns=%d&search_path=skew,pg_catalog,public", back.URL(), conns))...)
	i.Front, err = NewProxy(i.dial)
	return i, err
}

// dial reaches the process where it serves now.
func (i *Instance) dial() (net.Conn, error) {
	address := i.Address()
	if address == "" {
		return nil, errors.New(i.Name + " does not run")
	}
	return net.DialTimeout("tcp", address, 2*time.Second)
}

// Start runs the process and lets clients in.
func (i *Instance) Start(ctx context.Context) error {
	if err := i.Process.Start(ctx); err != nil {
		return err
	}
	i.Front.Down() // if it was up, nothing in it can be of use any more
	return i.Front.Up()
}

// Close ends the process in order, and the proxies.
func (i *Instance) Close(ctx context.Context) error {
	err := i.End(ctx, terminate)
	_, _ = i.Front.Close(), i.Back.Close()
	return err
}

// metric is the value of the first series of this name on the instance's page.
func (i *Instance) metric(ctx context.Context, name string) (float64, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	page, err := i.Ops(ctx, "/metrics")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, name) {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1:len(line)-1], 64)
			return v, err == nil
		}
	}
	return 0, false
}

// Balancer makes a proxy that sends each connection to an instance that runs, in turns.
func (f *Field) Balancer() (*Proxy, error) {
	var mu sync.Mutex
	turn := 0
	return NewProxy(func() (net.Conn, error) {
		mu.Lock()
		turn++
		first := turn
		mu.Unlock()
		var errs []error
		for n := range f.Instances {
			conn, err := f.Instances[(first+n)%len(f.Instances)].dial()
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	})
}

// query asks the platform's database, as its superuser and around all proxies.
func (f *Field) query(ctx context.Context, do func(context.Context, *pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, f.Database.URL(f.Name))
	if err != nil {
		return err
	}
	err = do(ctx, conn)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(err, conn.Close(closing))
}

// backends are the processes that serve the API.
func (f *Field) backends(ctx context.Context) (pids []int, err error) {
	err = f.query(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE application_name = 'vss_api' ORDER BY state <> 'active', random()`)
		pids, err = pgx.CollectRows(rows, pgx.RowTo[int])
		if err == nil && len(pids) == 0 {
			err = errNothing
		}
		return err
	})
	return pids, err
}
