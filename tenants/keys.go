package tenants

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

// KeySettles is how long after its creation a key begins to sign, where there is an older one: by then every
// instance knows it, also where clocks differ, and whoever keeps the published keys as long as they say.
const KeySettles = 30 * time.Second

// LoginGrace is how long past its exp a token of a login is taken. Clients replace one a minute before that by the device's
// clock, and never when they are refused (CONTRACT section 4.3): without it, a wallet whose clock is some minutes behind
// could not save its channels until its clock gets there, at the end of each token.
const LoginGrace = 10 * time.Minute

// maxSourceKeys is how many keys a source can have, revoked ones included.
const maxSourceKeys = 100

// AddKeys adds keys to a JWT source that has no URL, in any form that [jwt.ParseKeys] takes, active or on
// standby. It fails with [audit.ErrNoActor], [ErrNotFound] or an [*InvalidError].
func (s *Service) AddKeys(ctx context.Context, actor audit.Actor, slug, source string, text []byte, state jwt.State) (*Tenant, error) {
	keys, err := jwt.ParseKeys(text)
	if err != nil {
		return nil, &InvalidError{"keys", err.Error()}
	}
	if state != jwt.Active && state != jwt.Standby {
		return nil, &InvalidError{"state", fmt.Sprintf("a key is added %s or %s", jwt.Active, jwt.Standby)}
	}
	return s.changeTenant(ctx, actor, "key.add", slug, func(tx pgx.Tx, t *Tenant) error {
		src := named(t.Sources, source)
		switch {
		case src == nil:
			return noSource(source)
		case src.Kind != JWT:
			return &InvalidError{"source", "its keys are not given by people"}
		case src.JWKSURL != "":
			return &InvalidError{"source", "its keys are at " + src.JWKSURL.String() + ": add them there"}
		case len(src.Keys)+len(keys) > maxSourceKeys:
			return &InvalidError{"keys", fmt.Sprintf("are too many: a source can have %d, revoked ones included", maxSourceKeys)}
		}
		had, err := src.ParseKeys()
		if err != nil {
			return err
		}
		for _, k := range keys {
			if src.key(k.ID()) != nil {
				return &InvalidError{"keys", fmt.Sprintf("the source has a key %.260q already", k.ID())}
			}
			// Under whatever name: a key that was revoked stays so.
			if i := slices.IndexFunc(had, func(h jwt.Key) bool { return h.Thumbprint() == k.Thumbprint() }); i >= 0 {
				return &InvalidError{"keys", fmt.Sprintf("the source has the key %.260q already, as %.260q, which is %s", k.ID(), had[i].ID(), had[i].State)}
			}
			added := SourceKey{ID: k.ID(), Public: k.JWK(), State: state}
			src.Keys = append(src.Keys, added)
			if err := insertKey(ctx, tx, src.ID, &added); err != nil {
				return err
			}
		}
		return src.checkKeys()
	})
}

func (s *Source) key(id string) *SourceKey {
	i := slices.IndexFunc(s.Keys, func(k SourceKey) bool { return k.ID == id })
	if i < 0 {
		return nil
	}
	return &s.Keys[i]
}

// SetKey puts a key of a JWT source into a state; a retired key verifies until then. A revoked key stays so. Of a
// source with a URL, keys can be revoked, nothing else: the URL says the rest. It fails with [audit.ErrNoActor],
// [ErrNotFound] or an [*InvalidError].
func (s *Service) SetKey(ctx context.Context, actor audit.Actor, slug, source, kid string, state jwt.State, until time.Time) (*Tenant, error) {
	switch {
	case state != jwt.Standby && state != jwt.Active && state != jwt.Retired && state != jwt.Revoked:
		return nil, &InvalidError{"state", fmt.Sprintf("must be %s, %s, %s or %s", jwt.Standby, jwt.Active, jwt.Retired, jwt.Revoked)}
	case (state == jwt.Retired) == until.IsZero():
		return nil, &InvalidError{"until", "is to be said of a retired key, and of no other"}
	}
	return s.changeTenant(ctx, actor, "key.set", slug, func(tx pgx.Tx, t *Tenant) error {
		src := named(t.Sources, source)
		switch {
		case src == nil:
			return noSource(source)
		case src.Kind != JWT:
			return &InvalidError{"source", "its keys are the platform's own: rotate them"}
		case src.JWKSURL != "":
			return s.revokeFetched(ctx, tx, src, kid, state)
		}
		k := src.key(kid)
		switch {
		case k == nil:
			return fmt.Errorf("%w: source %s has no key %.260q", errNoSuch, source, kid)
		case k.State == jwt.Revoked && state != jwt.Revoked:
			return &InvalidError{"state", "a revoked key stays so: it may be in wrong hands"}
		}
		k.State, k.Until = state, until
		if state == jwt.Active || state == jwt.Retired {
			if err := src.checkKeys(); err != nil {
				return err
			}
		}
		return updateKey(ctx, tx, src.ID, k)
	})
}

// revokeFetched revokes the keys of this name that the source's URL had when it was last fetched. There may be
// several: an issuer may give one kid to keys of different types, or to one after the other.
func (s *Service) revokeFetched(ctx context.Context, tx pgx.Tx, src *Source, kid string, state jwt.State) error {
	if state != jwt.Revoked {
		return &InvalidError{"state", "this source's keys are at " + src.JWKSURL.String() + ": only revoking overrules that"}
	}
	keys, _, err := src.fetchedKeys(ctx, tx)
	if err != nil {
		return err
	}
	found := src.key(kid) != nil // revoked before
	for _, k := range keys {
		if k.ID() != kid && k.Thumbprint() != kid {
			continue
		}
		found = true
		if k.State == jwt.Revoked || slices.Contains(src.Revoked(), k.Thumbprint()) { // or twice in the set
			continue
		}
		revoked := SourceKey{ID: k.ID(), Public: k.JWK(), State: jwt.Revoked}
		if src.key(revoked.ID) != nil {
			revoked.ID = k.Thumbprint()
		}
		src.Keys = append(src.Keys, revoked)
		if err := insertKey(ctx, tx, src.ID, &revoked); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("%w: %s has no key %.260q", errNoSuch, src.JWKSURL, kid)
	}
	return nil
}

// FetchedKeys are the keys that the URL of a JWT source had when an instance last got them, active or revoked, and what is
// wrong with the entries that were skipped; none before that, and for a source without a URL. It fails with [ErrNotFound].
func (s *Service) FetchedKeys(ctx context.Context, slug, source string) (keys []jwt.Key, skipped []string, err error) {
	t, err := s.Get(ctx, slug)
	if err != nil {
		return nil, nil, err
	}
	src := named(t.Sources, source)
	if src == nil {
		return nil, nil, noSource(source)
	}
	return src.fetchedKeys(ctx, s.pool)
}

func (s *Source) fetchedKeys(ctx context.Context, tx dbgen.DBTX) (keys []jwt.Key, skipped []string, err error) {
	documents, err := dbgen.New().JWKSDocuments(ctx, tx, []uuid.UUID{s.ID})
	if err != nil || len(documents) == 0 {
		return nil, nil, err
	}
	// Read as what was fetched: unlike what a person gives, it may have two keys of one kid.
	fetched, err := jwt.NewSource(jwt.SourceConfig{Document: documents[0].Document, Revoked: s.Revoked()})
	if err != nil {
		return nil, nil, err
	}
	return fetched.Set().Keys(), documents[0].Skipped, nil
}

// RotateKey gives an LNURL source a new key to sign tokens with. The old one verifies until the last token that it
// signed has ended or, revoked, no more: then all wallets log in anew. It fails with [audit.ErrNoActor], [ErrNotFound]
// or an [*InvalidError].
func (s *Service) RotateKey(ctx context.Context, actor audit.Actor, slug, source string, revoke bool) (*Tenant, error) {
	return s.changeTenant(ctx, actor, "key.rotate", slug, func(tx pgx.Tx, t *Tenant) error {
		src := named(t.Sources, source)
		switch {
		case src == nil:
			return noSource(source)
		case src.Kind != LNURL:
			return &InvalidError{"source", "only the platform's own keys are rotated, those of LNURL sources: of others, add and retire them"}
		case s.cfg.MasterKey == nil:
			return &InvalidError{"source", "needs the master key: name its file"}
		}
		var now time.Time
		if err := tx.QueryRow(ctx, "SELECT now()").Scan(&now); err != nil {
			return err
		}
		for i := range src.Keys {
			k := &src.Keys[i]
			switch {
			case revoke && k.State != jwt.Revoked:
				k.State, k.Until = jwt.Revoked, time.Time{}
			case !revoke && k.State == jwt.Active:
				// It still signs for a moment, clocks differ, and the life of tokens may have been longer before.
				k.State, k.Until = jwt.Retired, now.Add(KeySettles+MaxTokenLife+LoginGrace+5*time.Minute)
			default:
				continue
			}
			if err := updateKey(ctx, tx, src.ID, k); err != nil {
				return err
			}
		}
		fresh := s.newSigningKey(t.ID)
		return insertKey(ctx, tx, src.ID, &fresh)
	})
}

// newSigningKey is a key to sign tokens with, sealed. It needs the master key.
func (s *Service) newSigningKey(tenant uuid.UUID) SourceKey {
	key := lnurl.NewSigningKey()
	return SourceKey{
		ID:     key.ID(),
		Public: key.Public().JSON(),
		Sealed: s.cfg.MasterKey.Seal(key.PKCS8(), SigningContext(tenant, key.ID())),
		State:  jwt.Active,
	}
}

// Reseal seals every signing key under the master key that is first in its file, and says how many were not. It
// fails as [masterkey.Key.Reseal] does.
func (s *Service) Reseal(ctx context.Context, actor audit.Actor) (resealed int, err error) {
	if s.cfg.MasterKey == nil {
		return 0, &InvalidError{"master_key", "name its file"}
	}
	all, err := s.List(ctx)
	if err != nil {
		return 0, err
	}
	for _, t := range all {
		if t.Source(LNURL) == nil && !slices.ContainsFunc(t.Removed, func(src Source) bool { return src.Kind == LNURL }) {
			continue
		}
		_, err := s.changeTenant(ctx, actor, "key.reseal", t.Slug, func(tx pgx.Tx, t *Tenant) error {
			for _, src := range slices.Concat(t.Sources, t.Removed) {
				for i := range src.Keys {
					k := &src.Keys[i]
					if k.Sealed == nil {
						continue
					}
					sealed, err := s.cfg.MasterKey.Reseal(k.Sealed, SigningContext(t.ID, k.ID))
					if err != nil {
						return fmt.Errorf("the signing key %s of tenant %s: %w", k.ID, t.Slug, err)
					}
					if slices.Equal(sealed, k.Sealed) {
						continue
					}
					k.Sealed = sealed
					if err := updateKey(ctx, tx, src.ID, k); err != nil {
						return err
					}
					resealed++
				}
			}
			return nil
		})
		if err != nil {
			return resealed, err
		}
	}
	return resealed, nil
}

func insertKey(ctx context.Context, tx pgx.Tx, source uuid.UUID, k *SourceKey) error {
	return dbgen.New().InsertSourceKey(ctx, tx, dbgen.InsertSourceKeyParams{
		SourceID: source, Kid: k.ID, Public: string(k.Public), Sealed: k.Sealed, State: string(k.State),
	})
}

func updateKey(ctx context.Context, tx pgx.Tx, source uuid.UUID, k *SourceKey) error {
	p := dbgen.UpdateSourceKeyParams{SourceID: source, Kid: k.ID, State: string(k.State), Sealed: k.Sealed}
	if k.State == jwt.Retired {
		p.RetiresAt = &k.Until
	}
	return dbgen.New().UpdateSourceKey(ctx, tx, p)
}

// checkKeys says with an [*InvalidError] what makes the keys of a JWT source useless, or too many to try.
func (s *Source) checkKeys() error {
	if s.Kind != JWT || s.JWKSURL != "" {
		return nil
	}
	keys, err := s.ParseKeys()
	if err != nil {
		return err
	}
	unnamed := 0
	for _, k := range keys {
		if k.State == jwt.Revoked {
			continue
		}
		if s.ByKeyID && !k.Named() {
			return &InvalidError{"keys", fmt.Sprintf("source %q is told by the kids of its keys, and has one without a kid", s.Name)}
		}
		if !s.Rules.Takes(k) {
			return &InvalidError{"keys", fmt.Sprintf("no algorithm that source %q takes is for its key %.200q (%s)", s.Name, k.ID(), k.Describe())}
		}
		if !k.Named() && k.State != jwt.Standby {
			unnamed++
		}
	}
	if unnamed > jwt.MaxUnnamed {
		return &InvalidError{"keys", fmt.Sprintf("source %q would have %d keys without a kid that verify, and a token is tried with %d at most: revoke old ones first", s.Name, unnamed, jwt.MaxUnnamed)}
	}
	return nil
}

// ParseKeys are the source's keys, in the states they have there. Those that do not parse are left out, and said
// in the error.
func (s *Source) ParseKeys() (keys []jwt.Key, err error) {
	for _, stored := range s.Keys {
		k, bad := jwt.ParseKey(stored.Public)
		if bad != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", stored.ID, bad))
			continue
		}
		k.State, k.Until = stored.State, stored.Until
		keys = append(keys, k)
	}
	return keys, err
}

// SigningContext binds a sealed signing key to its place.
func SigningContext(tenant uuid.UUID, kid string) []byte {
	return masterkey.Context("lnurl signing key", tenant.String(), kid)
}

// Revoked are the thumbprints of the source's keys that must not verify.
func (s *Source) Revoked() (thumbprints []string) {
	keys, _ := s.ParseKeys()
	for _, k := range keys {
		if k.State == jwt.Revoked {
			thumbprints = append(thumbprints, k.Thumbprint())
		}
	}
	return thumbprints
}
