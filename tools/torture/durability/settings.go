// Package durability asks what becomes of acknowledged writes where the disk is full, and whether the server takes
// any on a database that may lose them; and it proves, with such a database, that a lost one would be noticed.
package durability

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/ledger"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

// Config of a part of the run.
type Config struct {
	Binary   string // of vss-api
	Database *platform.Database
	Output   platform.Output
	Wrap     func(*http.Transport) http.RoundTripper
	Seed     uint64
}

const (
	tenant  = "durability"
	clients = 4 // of a store, with one more to read it out
)

// Unsafe are the settings, as written in SQL, on which no write may be taken.
var Unsafe = []string{"fsync", "full_page_writes", "synchronous_commit"}

// instance is a process on a database, and the way to its tenant once it serves.
func (cfg Config) instance(name, url string, env ...string) *platform.Process {
	return platform.NewProcess(name, cfg.Binary, cfg.Output, append(env, "DATABASE_URL="+url)...)
}

func (cfg Config) reach(p *platform.Process) *workload.Instance {
	return workload.NewInstance(p.Name, "http://"+p.Address()+"/t/"+tenant+"/vss", cfg.Wrap)
}

// allowed makes a process take what it would refuse.
const allowed = "VSS_ALLOW_DATA_LOSS=true"

// set changes a setting of the whole server and waits until new connections have it.
func set(ctx context.Context, db *platform.Database, name, value string) error {
	change := fmt.Sprintf("ALTER SYSTEM SET %s = %s", name, value)
	if value == "" {
		change = "ALTER SYSTEM RESET " + name
	}
	was, err := show(ctx, db, name)
	if err != nil {
		return err
	}
	for _, sql := range []string{change, "SELECT pg_reload_conf()"} {
		if err := db.Exec(ctx, "postgres", sql); err != nil {
			return err
		}
	}
	for range 100 {
		is, err := show(ctx, db, name)
		if err != nil || is != was {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s is %s still", name, was)
}

func show(ctx context.Context, db *platform.Database, name string) (value string, err error) {
	conn, err := pgx.Connect(ctx, db.URL("postgres"))
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value)
	return value, errors.Join(err, conn.Close(ctx))
}

// Refuses asks whether writes are refused while a setting is off, taken if that is allowed in so many words, and
// taken when it is on again. An error of the first kind says what was otherwise.
func Refuses(ctx context.Context, cfg Config, setting string) (otherwise, err error) {
	name := "unsafe_" + setting
	url, err := cfg.Database.Create(ctx, name, tenant)
	if err != nil {
		return nil, err
	}
	if err := set(ctx, cfg.Database, setting, "off"); err != nil {
		return nil, err
	}
	restored := false
	restore := func() error {
		if restored {
			return nil
		}
		restored = true
		return set(context.WithoutCancel(ctx), cfg.Database, setting, "")
	}
	defer func() { err = errors.Join(err, restore()) }()

	strict, lossy := cfg.instance("strict", url), cfg.instance("lossy", url, allowed)
	defer func() { err = errors.Join(err, strict.Stop(ctx), lossy.Stop(ctx)) }()
	if err := errors.Join(strict.Start(ctx), lossy.Serve(ctx)); err != nil {
		return nil, err
	}
	puts := func(p *platform.Process) (history.Outcome, error) {
		store, err := workload.NewStore(fmt.Sprintf("%s %v", name, time.Now()), workload.Clock(time.Now()), []*workload.Instance{cfg.reach(p)})
		if err != nil {
			return "", err
		}
		return store.Put(ctx, 0).Outcome, nil
	}
	var wrong []error
	for _, step := range []struct {
		when  string
		p     *platform.Process
		ready bool
		want  history.Outcome
	}{
		{"off", strict, false, history.Refused},
		{"off, and allowed", lossy, true, history.OK},
		{"on again", strict, true, history.OK},
	} {
		if step.when == "on again" {
			if err := restore(); err != nil {
				return nil, err
			}
		}
		if step.ready {
			waiting, cancel := context.WithTimeout(ctx, time.Minute)
			err := step.p.WaitReady(waiting)
			cancel()
			if err != nil {
				return nil, err
			}
		} else if step.p.Ready(ctx) {
			wrong = append(wrong, fmt.Errorf("%s is %s: the server says that it is ready", setting, step.when))
		}
		got, err := puts(step.p)
		if err != nil {
			return nil, err
		}
		if got != step.want {
			wrong = append(wrong, fmt.Errorf("%s is %s: a put is answered %q, not %q", setting, step.when, got, step.want))
		}
	}
	return errors.Join(wrong...), nil
}

// Tooth runs a server on a database that loses the last of its commits in a crash, kills that, and counts the
// acknowledged writes that the ledger misses. None would mean that the ledger has no teeth. name is for the database.
func Tooth(ctx context.Context, cfg Config, name string) (acknowledged, lost int, err error) {
	url, err := cfg.Database.Create(ctx, name, tenant)
	if err != nil {
		return 0, 0, err
	}
	if err := cfg.Database.Exec(ctx, "postgres", `ALTER DATABASE `+name+` SET synchronous_commit = off`); err != nil {
		return 0, 0, err
	}
	// Nor does anybody write them down soon.
	for setting, value := range map[string]string{"wal_writer_delay": "'10s'", "wal_writer_flush_after": "'1GB'"} {
		if err := set(ctx, cfg.Database, setting, value); err != nil {
			return 0, 0, err
		}
		defer func() { err = errors.Join(err, set(context.WithoutCancel(ctx), cfg.Database, setting, "")) }()
	}
	p := cfg.instance("lossy", url, allowed)
	defer func() { err = errors.Join(err, p.Stop(ctx)) }()
	if err := p.Serve(ctx); err != nil {
		return 0, 0, err
	}
	store, err := workload.NewStore(name, workload.Clock(time.Now()), []*workload.Instance{cfg.reach(p)})
	if err != nil {
		return 0, 0, err
	}
	stop := load(ctx, store, cfg.Seed)
	time.Sleep(2 * time.Second)
	err = cfg.Database.Kill()
	ended := make(chan struct{})
	go func() { stop(); close(ended) }() // from now on, or what was lost would be written again
	err = errors.Join(err, cfg.Database.Start(ctx))
	<-ended
	if err != nil {
		return 0, 0, err
	}
	acknowledged, missed, err := audit(ctx, store)
	return acknowledged, len(missed), err
}

// load puts a store under load until stop is called.
func load(ctx context.Context, store *workload.Store, seed uint64) (stop func()) {
	loading, end := context.WithCancel(ctx)
	done := make(chan struct{}, clients)
	for id := range clients {
		rng := rand.New(rand.NewPCG(seed, uint64(id)))
		go func() {
			store.Run(loading, id, rng, 5*time.Millisecond)
			done <- struct{}{}
		}()
	}
	return func() {
		end() // calls under way go on
		for range clients {
			<-done
		}
	}
}

// audit reads a store out and holds that against what was acknowledged.
func audit(ctx context.Context, store *workload.Store) (acknowledged int, lost []error, err error) {
	reading, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := store.ReadOut(reading, clients); err != nil {
		return 0, nil, err
	}
	acknowledged, lost = ledger.Audit(store.History())
	return acknowledged, lost, nil
}
