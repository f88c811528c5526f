package tenants

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/storage"
)

// maxListed is how many subjects one call puts on a list.
const maxListed = 100_000

// WalletInfo is what the platform knows of a wallet: never a value.
type WalletInfo struct {
	ID          storage.WalletID
	Source      string
	Subject     string
	Blocked     bool
	EnrolledAt  time.Time
	LastWritten time.Time // its enrolment, where it has no store
	Stores      int64
	Objects     int64
	Bytes       int64 // of keys and values
}

// wallet is the one that a source's subject names.
func (t *Tenant) wallet(source, subject string) (storage.WalletID, *Source, error) {
	src := named(t.Sources, source)
	if src == nil {
		src = named(t.Removed, source)
	}
	if src == nil {
		return storage.WalletID{}, nil, noSource(source)
	}
	if _, err := storage.NewKeyspace(Caller{t, src, subject}.Owner(), ""); err != nil {
		return storage.WalletID{}, nil, &InvalidError{"subject", err.Error()}
	}
	return Caller{t, src, subject}.Owner().Wallet(), src, nil
}

// Wallet is the wallet of a source's subject. It fails with [ErrNotFound] or an [*InvalidError].
func (s *Service) Wallet(ctx context.Context, slug, source, subject string) (*WalletInfo, error) {
	t, err := s.Get(ctx, slug)
	if err != nil {
		return nil, err
	}
	id, _, err := t.wallet(source, subject)
	if err != nil {
		return nil, err
	}
	row, err := dbgen.New().ShowWallet(ctx, s.pool, dbgen.ShowWalletParams{Wallet: uuid.UUID(id), TenantID: t.ID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noWallet(source)
	}
	if err != nil {
		return nil, err
	}
	return &WalletInfo{
		ID: id, Source: source, Subject: subject, Blocked: row.Blocked, EnrolledAt: row.EnrolledAt,
		LastWritten: row.LastWrittenAt, Stores: row.Stores, Objects: row.Objects, Bytes: row.Bytes,
	}, nil
}

func noWallet(source string) error {
	return fmt.Errorf("%w: no wallet of source %s has this subject", errNoSuch, source)
}

// BlockWallet keeps a wallet from writing, or ends that; it reads on. It holds from the next write on. It fails with
// [ErrNoActor], [ErrNotFound] or an [*InvalidError].
func (s *Service) BlockWallet(ctx context.Context, actor Actor, slug, source, subject string, block bool) error {
	_, err := s.changeTenant(ctx, actor, "wallet.block", slug, func(tx pgx.Tx, t *Tenant) error {
		id, _, err := t.wallet(source, subject)
		if err != nil {
			return err
		}
		q := dbgen.New()
		n, err := q.BlockWallet(ctx, tx, dbgen.BlockWalletParams{Wallet: uuid.UUID(id), TenantID: t.ID, Blocked: block})
		if err != nil {
			return err
		}
		if n == 0 {
			return noWallet(source)
		}
		if err := q.BlockStores(ctx, tx, dbgen.BlockStoresParams{Wallet: uuid.UUID(id), Blocked: block}); err != nil {
			return err
		}
		return audit(ctx, tx, actor, "wallet.block", &t.ID, map[string]any{"wallet": id.String(), "blocked": block})
	})
	return err
}

// ListWallets puts subjects of a source on the list of wallets that may enrol, or takes them off, and says how many
// that changed. It fails with [ErrNoActor], [ErrNotFound] or an [*InvalidError].
func (s *Service) ListWallets(ctx context.Context, actor Actor, slug, source string, subjects []string, listed bool) (changed int64, err error) {
	if len(subjects) > maxListed {
		return 0, &InvalidError{"subjects", fmt.Sprintf("are more than %d: give them in parts", maxListed)}
	}
	_, err = s.changeTenant(ctx, actor, "wallet.list", slug, func(tx pgx.Tx, t *Tenant) error {
		ids := make([]uuid.UUID, len(subjects))
		namespace := ""
		for i, subject := range subjects {
			id, src, err := t.wallet(source, subject)
			if err != nil {
				return fmt.Errorf("subject %d: %w", i+1, err)
			}
			ids[i], namespace = uuid.UUID(id), src.Namespace
		}
		if len(ids) == 0 {
			return nil
		}
		q := dbgen.New()
		if listed {
			changed, err = q.ListWallets(ctx, tx, dbgen.ListWalletsParams{Wallets: ids, TenantID: t.ID, Namespace: namespace, Subjects: subjects})
		} else {
			changed, err = q.UnlistWallets(ctx, tx, dbgen.UnlistWalletsParams{TenantID: t.ID, Wallets: ids})
		}
		if err != nil || changed == 0 {
			return err
		}
		return audit(ctx, tx, actor, "wallet.list", &t.ID, map[string]any{"source": source, "listed": listed, "wallets": changed})
	})
	if err != nil {
		return 0, err
	}
	return changed, nil
}

// Standing says of a wallet whether it has ever written, and whether it is on its tenant's list.
func Standing(ctx context.Context, pool *pgxpool.Pool, wallet storage.WalletID) (known, listed bool, err error) {
	row, err := dbgen.New().Enrolment(ctx, pool, uuid.UUID(wallet))
	return row.Known, row.Listed, err
}
