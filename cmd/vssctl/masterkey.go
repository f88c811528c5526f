package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

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
