package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/embedded"
)

// database is the flags that say where the platform's state is.
type database struct {
	DatabaseURL string `name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"The platform's PostgreSQL database. Unset: the one that 'vssctl dev' runs in the data directory."`
	DataDir     string `name:"data-dir" env:"VSS_DATA_DIR" placeholder:"DIR" help:"Data directory of 'vssctl dev' (/var/lib/vss-cloud for root, vss-cloud in $$XDG_DATA_HOME or ~/.local/share otherwise)."`
}

// databaseName is the platform's database in the PostgreSQL of vssctl dev.
const databaseName = "vss"

func (d database) dataDir() (string, error) {
	if d.DataDir == "" {
		return embedded.DefaultDataDir()
	}
	return filepath.Abs(d.DataDir)
}

// url is DATABASE_URL, or that of a running vssctl dev.
func (d database) url() (string, error) {
	if d.DatabaseURL != "" {
		return d.DatabaseURL, nil
	}
	dir, err := d.dataDir()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(embedded.Socket(dir)); errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("no platform runs on the data directory %s: start one with 'vssctl dev', or say with --data-dir or --database-url where it is", dir)
	}
	return embedded.URL(dir, databaseName), nil
}

type migrateCmd struct {
	database
}

func (c migrateCmd) Run(ctx context.Context, out output) error {
	url, err := c.url()
	if err != nil {
		return err
	}
	applied, err := db.Migrate(ctx, url)
	if err != nil {
		return err
	}
	return out.print(map[string]int{"applied": applied}, func(w io.Writer) {
		fmt.Fprintf(w, "%d migrations applied, the schema is up to date\n", applied)
	})
}
