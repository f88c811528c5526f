package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

type createMasterCmd struct {
	File string `arg:"" type:"path" help:"The file to make. Every instance of the API gets a copy, and it is kept elsewhere than the database's backups."`
}

func (c createMasterCmd) Run(out output) error {
	key, err := masterkey.Create(c.File)
	if err != nil {
		return err
	}
	return out.print(masterKeyView{c.File, key.ID(), 0}, func(w io.Writer) {
		fmt.Fprintf(w, "%s has the new master key %s.\nNext: name it with --master-key-file (VSS_MASTER_KEY_FILE) to the API and to vssctl.\n", c.File, key.ID())
	})
}

type rotateMasterCmd struct {
	Begin  rotateMasterBeginCmd  `cmd:"" help:"1. Add a new key to the file. Needs no database."`
	Reseal rotateMasterResealCmd `cmd:"" help:"2. Once every machine has the file: make the new key the one that seals, and seal all signing keys with it."`
	Finish rotateMasterFinishCmd `cmd:"" help:"3. Remove the old key from the file."`
}

type rotateMasterBeginCmd struct {
	database
	masterKeyFlags
}

func (c rotateMasterBeginCmd) Run(out output) error {
	path, err := c.need(c.database)
	if err != nil {
		return err
	}
	key, err := masterkey.Add(path)
	if err != nil {
		return err
	}
	ids := key.IDs()
	added := ids[len(ids)-1]
	return out.print(masterKeyView{path, added, 0}, func(w io.Writer) {
		fmt.Fprintf(w, "%s has the new master key %s; %s still seals.\nNext: bring the file to every machine of the API and restart that; then 'key rotate-master reseal %[2]s'.\n", path, added, key.ID())
	})
}

type rotateMasterResealCmd struct {
	tenantFlags
	masterKeyFlags
	ID string `arg:"" name:"id" help:"The new key, as 'begin' has named it."`
}

func (c rotateMasterResealCmd) Run(ctx context.Context, out output) error {
	path, err := c.need(c.database)
	if err != nil {
		return err
	}
	key, err := masterkey.Promote(path, c.ID)
	if err != nil {
		return err
	}
	return c.withConfig(ctx, tenants.ServiceConfig{MasterKey: key}, func(ctx context.Context, s *tenants.Service) error {
		n, err := s.Reseal(ctx, actor())
		if err != nil {
			return fmt.Errorf("%w (%d were resealed; it can be done again)", err, n)
		}
		return out.print(masterKeyView{path, key.ID(), n}, func(w io.Writer) {
			fmt.Fprintf(w, "%d signing keys were not sealed with the master key %s, and now all are.\nNext: 'key rotate-master finish %[2]s'.\n", n, key.ID())
		})
	})
}

type rotateMasterFinishCmd struct {
	tenantFlags
	masterKeyFlags
	confirm
	ID string `arg:"" name:"id" help:"The new key, as 'begin' has named it."`
}

func (c rotateMasterFinishCmd) Run(ctx context.Context, out output) error {
	path, err := c.need(c.database)
	if err != nil {
		return err
	}
	key, err := masterkey.Load(path)
	if err != nil {
		return err
	}
	if key.ID() != c.ID {
		return fmt.Errorf("%s still seals with %s: 'key rotate-master reseal %s' comes first", path, key.ID(), c.ID)
	}
	if err := c.ask("All keys but %s are removed from %s: what they sealed elsewhere, as in backups of the database, is lost unless the file was kept.", key.ID(), path); err != nil {
		return err
	}
	return c.withConfig(ctx, tenants.ServiceConfig{MasterKey: key}, func(ctx context.Context, s *tenants.Service) error {
		err := eachSealed(ctx, s, func(t *tenants.Tenant, kid, by string) error {
			if by != key.ID() {
				return fmt.Errorf("the signing key %s of tenant %s is still sealed with %s: 'key rotate-master reseal' comes first", kid, t.Slug, by)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if key, err = masterkey.Retire(path, key.ID()); err != nil {
			return err
		}
		return out.print(masterKeyView{path, key.ID(), 0}, func(w io.Writer) {
			fmt.Fprintf(w, "%s has the master key %s and no other.\nNext: bring the file to every machine of the API, and to where its copy is kept.\n", path, key.ID())
		})
	})
}

// masterKeyView is what was done as JSON; scripts rely on its names.
type masterKeyView struct {
	File     string `json:"file"`
	ID       string `json:"master_key"`
	Resealed int    `json:"resealed"`
}

// masterKeyFlags are those of commands that seal signing keys.
type masterKeyFlags struct {
	MasterKeyFile string `env:"VSS_MASTER_KEY_FILE" type:"path" placeholder:"FILE" help:"The API's master key file. Unset: that of 'vssctl dev' in the data directory, if there is one."`
}

// path is "" where there is no file.
func (f masterKeyFlags) path(d database) (string, error) {
	if f.MasterKeyFile != "" {
		return f.MasterKeyFile, nil
	}
	dir, err := d.dataDir()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(masterKeyFile(dir)); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return masterKeyFile(dir), nil
}

// need is path where there must be one.
func (f masterKeyFlags) need(d database) (string, error) {
	path, err := f.path(d)
	if err == nil && path == "" {
		err = fmt.Errorf("%w: say with --master-key-file (VSS_MASTER_KEY_FILE) where the API's master key is", cli.ErrUsage)
	}
	return path, err
}

// load is nil where there is no file.
func (f masterKeyFlags) load(d database) (*masterkey.Key, error) {
	path, err := f.path(d)
	if err != nil || path == "" {
		return nil, err
	}
	return masterkey.Load(path)
}

// checkMasterKey refuses a key that is not the one of this database: an API that cannot open what that had sealed
// would not start.
func checkMasterKey(ctx context.Context, s *tenants.Service, key *masterkey.Key) error {
	return eachSealed(ctx, s, func(t *tenants.Tenant, kid, by string) error {
		if !key.Holds(by) {
			return fmt.Errorf("the signing key %s of tenant %s is %w (%s), and the file has %s: is it the right one?",
				kid, t.Slug, masterkey.ErrWrongKey, by, key.ID())
		}
		return nil
	})
}

// eachSealed calls do for every sealed key, of removed sources too, with the id of the master key that sealed it.
func eachSealed(ctx context.Context, s *tenants.Service, do func(t *tenants.Tenant, kid, by string) error) error {
	all, err := s.List(ctx)
	if err != nil {
		return err
	}
	for _, t := range all {
		for _, src := range slices.Concat(t.Sources, t.Removed) {
			for _, k := range src.Keys {
				if k.Sealed == nil {
					continue
				}
				if err := do(t, k.ID, masterkey.SealedBy(k.Sealed)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
