package tenants

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
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

// SubjectError is what is wrong with one of several subjects. It is an [*InvalidError] too.
type SubjectError struct {
	Number int // of the subject, from 1
	Reason string
}

func (e *SubjectError) Error() string { return e.Unwrap().Error() }

func (e *SubjectError) Unwrap() error {
	return &InvalidError{"subject", fmt.Sprintf("number %d: %s", e.Number, e.Reason)}
}

// everSource is the tenant's source of this name, also if it was removed. It fails with [ErrNotFound].
func (t *Tenant) everSource(name string) (*Source, error) {
	if src := named(t.Sources, name); src != nil {
		return src, nil
	}
	if src := named(t.Removed, name); src != nil {
		return src, nil
	}
	return nil, noSource(name)
}

// publicKeySize is that of a compressed key on secp256k1, in bytes.
const publicKeySize = 33

// wallet is who a source's subject names, in the form that credentials of the source have it. What no credential could
// name is said with an [*InvalidError]: on a list it would let nobody in, and nobody would know why.
func (t *Tenant) wallet(src *Source, subject string) (storage.Owner, error) {
	if src.Kind == Signature || src.Kind == LNURL {
		given := subject
		subject = strings.ToLower(strings.TrimSpace(given))
		if key, err := hex.DecodeString(subject); err != nil || len(key) != publicKeySize || key[0] != 2 && key[0] != 3 {
			return storage.Owner{}, &InvalidError{"subject", fmt.Sprintf("source %s names its wallets by public keys of %d hex digits that begin with 02 or 03, which %.80q is not", src.Name, 2*publicKeySize, given)}
		}
	}
	owner := src.Owner(t.ID, subject)
	if _, err := storage.NewKeyspace(owner, ""); err != nil {
		return storage.Owner{}, &InvalidError{"subject", err.Error()}
	}
	return owner, nil
}

// walletOf is wallet for the source of this name.
func (t *Tenant) walletOf(source, subject string) (storage.Owner, error) {
	src, err := t.everSource(source)
	if err != nil {
		return storage.Owner{}, err
	}
	return t.wallet(src, subject)
}

// Wallet is the wallet of a source's subject; hex may be of either case. It fails with [ErrNotFound] or an
// [*InvalidError].
func (s *Service) Wallet(ctx context.Context, slug, source, subject string) (*WalletInfo, error) {
	t, err := s.Get(ctx, slug)
	if err != nil {
		return nil, err
	}
	owner, err := t.walletOf(source, subject)
	if err != nil {
		return nil, err
	}
	id := owner.Wallet()
	row, err := dbgen.New().ShowWallet(ctx, s.pool, dbgen.ShowWalletParams{Wallet: uuid.UUID(id), TenantID: t.ID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noWallet(source)
	}
	if err != nil {
		return nil, err
	}
	return &WalletInfo{
		ID: id, Source: source, Subject: owner.Subject, Blocked: row.Blocked, EnrolledAt: row.EnrolledAt,
		LastWritten: row.LastWrittenAt, Stores: row.Stores, Objects: row.Objects, Bytes: row.Bytes,
	}, nil
}

func noWallet(source string) error {
	return fmt.Errorf("%w: no wallet of source %s has this subject", errNoSuch, source)
}

// BlockWallet keeps a wallet from writing, or ends that; it reads on. It holds from the next write on. Where it is so
// already it changes nothing, and is not audited. It fails with [audit.ErrNoActor], [ErrNotFound] or an [*InvalidError].
func (s *Service) BlockWallet(ctx context.Context, actor audit.Actor, slug, source, subject string, block bool) error {
	w := &walletSubject{tenantSubject: tenantSubject{slug: slug}, source: source, subject: subject}
	return s.begin(ctx, func(tx pgx.Tx) error {
		_, err := audit.Change(ctx, tx, actor, "wallet.block", w, func() error {
			if w.blocked == block {
				return nil
			}
			if block && !actor.Confirmed {
				return &ConfirmError{[]string{fmt.Sprintf("Every write of this wallet of tenant %s is refused; it still reads. %s", slug, canLose)}}
			}
			q := dbgen.New()
			if err := q.BlockWallet(ctx, tx, dbgen.BlockWalletParams{Wallet: w.id, TenantID: w.now.ID, Blocked: block}); err != nil {
				return err
			}
			return q.BlockStores(ctx, tx, dbgen.BlockStoresParams{Wallet: w.id, Blocked: block})
		})
		return err
	})
}

// walletSubject is the wallet of a source's subject.
type walletSubject struct {
	tenantSubject
	source, subject string
	id              uuid.UUID
	blocked         bool
}

func (s *walletSubject) Read(ctx context.Context, tx pgx.Tx) (*uuid.UUID, audit.Facts, error) {
	tenant, _, err := s.tenantSubject.Read(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	if tenant == nil {
		return nil, nil, ErrNotFound
	}
	owner, err := s.now.walletOf(s.source, s.subject)
	if err != nil {
		return nil, nil, err
	}
	s.id = uuid.UUID(owner.Wallet())
	s.blocked, err = dbgen.New().LockWallet(ctx, tx, dbgen.LockWalletParams{Wallet: s.id, TenantID: s.now.ID})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil, noWallet(s.source)
	}
	fact := audit.Fact{Kind: "wallet", Name: owner.Wallet().String()}
	return tenant, audit.Facts{fact: map[string]any{"blocked": s.blocked}}, err
}

// AllowWallets puts subjects of a source on the list of wallets that may enrol, or takes them off, and says how many
// that changed. It fails with [audit.ErrNoActor], [ErrNotFound] or an [*InvalidError], for the first subject that the source
// cannot name a wallet by with a [*SubjectError]; then none is.
func (s *Service) AllowWallets(ctx context.Context, actor audit.Actor, slug, source string, subjects []string, listed bool) (changed int64, err error) {
	if len(subjects) > maxListed {
		return 0, &InvalidError{"subjects", fmt.Sprintf("are more than %d: give them in parts", maxListed)}
	}
	list := &allowListSubject{tenantSubject: tenantSubject{slug: slug}, source: source}
	err = s.begin(ctx, func(tx pgx.Tx) error {
		_, err := audit.Change(ctx, tx, actor, "wallet.list", list, func() error {
			ids, names := make([]uuid.UUID, len(subjects)), make([]string, len(subjects))
			for i, subject := range subjects {
				owner, err := list.now.wallet(list.from, subject)
				if e, ok := errors.AsType[*InvalidError](err); ok {
					return &SubjectError{i + 1, e.Reason}
				} else if err != nil {
					return err
				}
				ids[i], names[i] = uuid.UUID(owner.Wallet()), owner.Subject
			}
			q := dbgen.New()
			if listed {
				changed, err = q.AllowWallets(ctx, tx, dbgen.AllowWalletsParams{Wallets: ids, TenantID: list.now.ID, Namespace: list.from.Namespace, Subjects: names})
			} else {
				changed, err = q.DisallowWallets(ctx, tx, dbgen.DisallowWalletsParams{TenantID: list.now.ID, Wallets: ids})
			}
			return err
		})
		return err
	})
	if err != nil {
		return 0, err
	}
	return changed, nil
}

// allowListSubject is the list of a source's wallets that may enrol. The log tells of how many there are.
type allowListSubject struct {
	tenantSubject
	source string
	from   *Source
}

func (s *allowListSubject) Read(ctx context.Context, tx pgx.Tx) (*uuid.UUID, audit.Facts, error) {
	tenant, _, err := s.tenantSubject.Read(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	if tenant == nil {
		return nil, nil, ErrNotFound
	}
	if s.from, err = s.now.everSource(s.source); err != nil {
		return nil, nil, err
	}
	n, err := dbgen.New().CountListedOf(ctx, tx, dbgen.CountListedOfParams{TenantID: s.now.ID, Namespace: s.from.Namespace})
	return tenant, audit.Facts{{Kind: "listed", Name: s.source}: n}, err
}

// Standing says of a wallet whether it has ever written, and whether it is on its tenant's list.
func Standing(ctx context.Context, pool *pgxpool.Pool, wallet storage.WalletID) (known, listed bool, err error) {
	row, err := dbgen.New().Enrolment(ctx, pool, uuid.UUID(wallet))
	return row.Known, row.Listed, err
}
