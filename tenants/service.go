package tenants

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
)

const (
	// DefaultBodyLimit is that of a tenant for which none was given, in bytes (CONTRACT section 2).
	DefaultBodyLimit int64 = 100 << 20

	// MinBodyLimit and MaxBodyLimit are the bounds of a tenant's body limit, in bytes.
	MinBodyLimit int64 = 1 << 10
	MaxBodyLimit int64 = 256 << 20

	// MinSignatureWindow and MaxSignatureWindow are the bounds of a source's window: the 24 hours of
	// CONTRACT section 4.1, which a tenant may narrow.
	MinSignatureWindow = time.Minute
	MaxSignatureWindow = 24 * time.Hour
)

var (
	// ErrNotFound: there is no tenant with this slug.
	ErrNotFound = errors.New("no such tenant")

	// ErrSlugTaken: a tenant has or had this slug. Slugs are never used again, those of closed tenants
	// neither: wallets still call under them.
	ErrSlugTaken = errors.New("slug is taken")

	// ErrDomainTaken: another tenant has this domain.
	ErrDomainTaken = errors.New("domain belongs to another tenant")
)

// ServiceConfig says what the platform keeps for itself.
type ServiceConfig struct {
	// BaseDomain is that of [DirectoryConfig]. No tenant can have it, or a name below it, as its domain.
	BaseDomain string
}

// Service is the one door for every change to tenants. Each change is authorized, applied and audited in
// one transaction, and every API instance follows it within 5 seconds (see [Directory]). A slug or a
// namespace never changes, and no tenant is ever deleted. It is safe for concurrent use, also by several
// processes over one database.
//
// Besides the errors named at each method, all may return one of the database's, after which the change
// has not been made, unless the connection was lost while it was committed.
type Service struct {
	pool *pgxpool.Pool
	cfg  ServiceConfig
}

// NewService makes a service over the pool, whose role is db.RoleAdmin. It fails for a base domain that is
// no host name.
func NewService(pool *pgxpool.Pool, cfg ServiceConfig) (*Service, error) {
	base, err := normalBaseDomain(cfg.BaseDomain)
	if err != nil {
		return nil, err
	}
	return &Service{pool: pool, cfg: ServiceConfig{BaseDomain: base}}, nil
}

// NewTenant is a tenant to be created.
type NewTenant struct {
	Slug      string
	Name      string // 1 to 200 characters
	BodyLimit int64  // in bytes; 0: DefaultBodyLimit
}

// Create makes an active tenant whose wallets prove themselves by signatures (CONTRACT section 4.1), in the
// namespace "sig". It fails with [ErrNoActor], an [*InvalidError] or [ErrSlugTaken].
func (s *Service) Create(ctx context.Context, actor Actor, n NewTenant) (*Tenant, error) {
	if n.BodyLimit == 0 {
		n.BodyLimit = DefaultBodyLimit
	}
	if err := errors.Join(CheckSlug(n.Slug), checkName(n.Name), checkBodyLimit(n.BodyLimit)); err != nil {
		return nil, err
	}
	return s.change(ctx, actor, "tenant.create", n.Slug, func(tx pgx.Tx, before *Tenant) error {
		if before != nil {
			return ErrSlugTaken
		}
		q := dbgen.New()
		id, err := q.InsertTenant(ctx, tx, dbgen.InsertTenantParams{Slug: n.Slug, Name: n.Name, BodyLimit: n.BodyLimit})
		if err != nil {
			return err
		}
		return q.InsertCredentialSource(ctx, tx, dbgen.InsertCredentialSourceParams{
			TenantID: id, Name: "signature", Kind: string(Signature), Namespace: "sig",
		})
	})
}

// Change is what [Service.Set] changes; nil and empty leave as it is.
type Change struct {
	Name            *string // 1 to 200 characters
	State           *State
	BodyLimit       *int64         // in bytes
	SignatureWindow *time.Duration // in whole seconds

	// AddDomains become the tenant's own host names; one that it has already stays. From then on their
	// hosts belong to it wholly: the paths of other tenants are refused there.
	AddDomains []string

	// RemoveDomains must be among the tenant's. Wallets that still use them are refused.
	RemoveDomains []string
}

// Set applies the change, all of it or nothing, and returns the tenant as it is then. A change that changes
// nothing is not audited. It fails with [ErrNoActor], [ErrNotFound], an [*InvalidError] or [ErrDomainTaken].
func (s *Service) Set(ctx context.Context, actor Actor, slug string, c Change) (*Tenant, error) {
	c, err := s.check(c)
	if err != nil {
		return nil, err
	}
	if checkLabel(slug) != "" {
		return nil, ErrNotFound
	}
	return s.change(ctx, actor, "tenant.set", slug, func(tx pgx.Tx, before *Tenant) error {
		if before == nil {
			return ErrNotFound
		}
		q := dbgen.New()
		if c.Name != nil || c.State != nil || c.BodyLimit != nil {
			err := q.UpdateTenant(ctx, tx, dbgen.UpdateTenantParams{
				ID: before.ID, Name: c.Name, State: (*string)(c.State), BodyLimit: c.BodyLimit,
			})
			if err != nil {
				return err
			}
		}
		if c.SignatureWindow != nil {
			n, err := q.UpdateSignatureWindow(ctx, tx, dbgen.UpdateSignatureWindowParams{
				TenantID: before.ID, WindowSeconds: int32(*c.SignatureWindow / time.Second),
			})
			if err != nil {
				return err
			}
			if n == 0 {
				return &InvalidError{Field: "signature_window", Reason: "this tenant's wallets do not sign"}
			}
		}
		for _, domain := range c.RemoveDomains {
			if !slices.Contains(before.Domains, domain) {
				return &InvalidError{Field: "remove_domains", Reason: fmt.Sprintf("%.260q is not a domain of this tenant", domain)}
			}
			if err := q.DeleteDomain(ctx, tx, dbgen.DeleteDomainParams{TenantID: before.ID, Host: domain}); err != nil {
				return err
			}
		}
		for _, domain := range c.AddDomains {
			if slices.Contains(before.Domains, domain) {
				continue
			}
			if err := q.InsertDomain(ctx, tx, dbgen.InsertDomainParams{TenantID: before.ID, Host: domain}); err != nil {
				return fmt.Errorf("%q: %w", domain, translate(err))
			}
		}
		return nil
	})
}

// List returns all tenants in the order of their slugs, closed ones too.
func (s *Service) List(ctx context.Context) ([]*Tenant, error) {
	return s.read(ctx, nil)
}

// Get returns the tenant with this slug. It fails with [ErrNotFound].
func (s *Service) Get(ctx context.Context, slug string) (*Tenant, error) {
	if checkLabel(slug) != "" {
		return nil, ErrNotFound
	}
	found, err := s.read(ctx, &slug)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNotFound
	}
	return found[0], nil
}

func (s *Service) read(ctx context.Context, slug *string) (found []*Tenant, err error) {
	err = pgx.BeginTxFunc(ctx, s.pool, readSnapshot, func(tx pgx.Tx) error {
		found, err = load(ctx, tx, slug)
		return err
	})
	return found, err
}

// check is the change with its domains normalized, or all that is wrong with it.
func (s *Service) check(c Change) (Change, error) {
	var errs []error
	if c.Name != nil {
		errs = append(errs, checkName(*c.Name))
	}
	if c.State != nil && !c.State.valid() {
		errs = append(errs, &InvalidError{Field: "state", Reason: fmt.Sprintf("must be %s, %s or %s", Active, ReadOnly, Closed)})
	}
	if c.BodyLimit != nil {
		errs = append(errs, checkBodyLimit(*c.BodyLimit))
	}
	if w := c.SignatureWindow; w != nil && (*w < MinSignatureWindow || *w > MaxSignatureWindow || *w%time.Second != 0) {
		errs = append(errs, &InvalidError{
			Field:  "signature_window",
			Reason: fmt.Sprintf("must be %s to %s, in whole seconds", MinSignatureWindow, MaxSignatureWindow),
		})
	}
	var add, remove []string
	for _, given := range c.RemoveDomains {
		remove = append(remove, asStored(given))
	}
	for _, given := range c.AddDomains {
		domain, err := normalDomain(given)
		switch {
		case err != nil:
		case atOrBelow(domain, s.cfg.BaseDomain):
			err = fmt.Errorf("%q belongs to the platform, whose base domain is %s", domain, s.cfg.BaseDomain)
		case slices.Contains(remove, domain):
			err = fmt.Errorf("%q is to be removed too", domain)
		}
		if err != nil {
			errs = append(errs, &InvalidError{Field: "add_domains", Reason: err.Error()})
		}
		add = append(add, domain)
	}
	c.AddDomains, c.RemoveDomains = distinct(add), distinct(remove)
	return c, errors.Join(errs...)
}

func distinct(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

func checkName(name string) error {
	if !isName(name) {
		return &InvalidError{Field: "name", Reason: "must have 1 to 200 characters, in UTF-8, none of them a control character"}
	}
	return nil
}

// isName says whether s has 1 to 200 characters, in UTF-8, none of them a control character.
func isName(s string) bool {
	n := utf8.RuneCountInString(s)
	return n >= 1 && n <= 200 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func checkBodyLimit(limit int64) error {
	if limit < MinBodyLimit || limit > MaxBodyLimit {
		return &InvalidError{
			Field:  "body_limit",
			Reason: fmt.Sprintf("must be %d to %d bytes", MinBodyLimit, MaxBodyLimit),
		}
	}
	return nil
}

// translate turns the database's refusals into this package's errors.
func translate(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != "23505" { // unique_violation
		return err
	}
	switch pgErr.ConstraintName {
	case "tenants_slug_key":
		return ErrSlugTaken
	case "domains_pkey":
		return ErrDomainTaken
	default:
		return err
	}
}
