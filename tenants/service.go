package tenants

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

const (
	// DefaultPlan is the one of a tenant for which none was named.
	DefaultPlan = "standard"

	// MaxBodySize is the most that limits can say.
	MaxBodySize int64 = 256 << 20
)

var (
	// ErrNotFound: there is no tenant with this slug, or it has nothing of this name.
	ErrNotFound = errors.New("no such tenant")

	// ErrSlugTaken: a tenant has this slug, or had it. No slug is ever given to another tenant, not even that of a
	// closed one: its wallets still call under it.
	ErrSlugTaken = errors.New("slug is taken")

	// ErrDomainTaken: another tenant has this domain.
	ErrDomainTaken = errors.New("domain belongs to another tenant")
)

// ServiceConfig says what the platform keeps for itself, and what a [Service] works with.
type ServiceConfig struct {
	// BaseDomain is the one below which each tenant has a sub-domain. No tenant can have it, or a name below it, as its domain.
	BaseDomain string

	// MasterKey seals the keys that we sign tokens with. Nil: LNURL sources cannot be made.
	MasterKey *masterkey.Key

	// SharedLogins allows LNURL sources on the host that tenants share, for development.
	SharedLogins bool

	// Egress checks the URLs of key sets, and fetches each when it is saved; nil: an [egress.Client] of its own.
	Egress Egress

	// Resolver is asked for the records that prove domains; nil: net.DefaultResolver.
	Resolver Resolver
}

// Service is the one door for every change to tenants. Each change is authorized, applied and audited in
// one transaction, and every API instance follows it within 5 seconds (package callers). A slug or a
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
	base, err := NormalBaseDomain(cfg.BaseDomain)
	if err != nil {
		return nil, err
	}
	cfg.BaseDomain = base
	if cfg.Egress == nil {
		cfg.Egress = egress.New(egress.Config{})
	}
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	return &Service{pool: pool, cfg: cfg}, nil
}

// Usage reads what tenants did and have.
func (s *Service) Usage() *usage.Reader { return usage.NewReader(s.pool) }

// NewTenant is a tenant to be created.
type NewTenant struct {
	Slug string
	Name string // 1 to 200 characters
	Plan string // empty: DefaultPlan
}

// Create makes an active tenant whose wallets prove themselves by signatures (CONTRACT section 4.1), in the
// namespace "sig". It fails with [audit.ErrNoActor], an [*InvalidError] or [ErrSlugTaken].
func (s *Service) Create(ctx context.Context, actor audit.Actor, n NewTenant) (*Tenant, error) {
	if err := errors.Join(CheckSlug(n.Slug), checkName(n.Name)); err != nil {
		return nil, err
	}
	return s.change(ctx, actor, "tenant.create", n.Slug, func(tx pgx.Tx, before *Tenant) error {
		if before != nil {
			return ErrSlugTaken
		}
		q := dbgen.New()
		plan := cmp.Or(n.Plan, DefaultPlan)
		if err := checkPlan(ctx, tx, plan, nil); err != nil {
			return err
		}
		id, err := q.InsertTenant(ctx, tx, dbgen.InsertTenantParams{Slug: n.Slug, Name: n.Name, Plan: plan})
		if err != nil {
			return err
		}
		return insertSource(ctx, tx, id, &Source{Name: "signature", Kind: Signature, Namespace: "sig"})
	})
}

// Change is what [Service.Set] changes; nil leaves as it is.
type Change struct {
	Name      *string // 1 to 200 characters
	State     *State
	Plan      *string
	Limits    map[string]*int64 // that are the tenant's own, by name; nil takes one back: the plan's holds again
	Enrolment *Enrolment
	Gate      *GateState
	Header    *string // of client keys: a header's name of up to 64 letters, digits and "-"
}

// Set applies the change, all of it or nothing, and returns the tenant as it is then. A change that changes
// nothing is not audited. It fails with [audit.ErrNoActor], [ErrNotFound] or an [*InvalidError].
func (s *Service) Set(ctx context.Context, actor audit.Actor, slug string, c Change) (*Tenant, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return s.changeTenant(ctx, actor, "tenant.set", slug, func(tx pgx.Tx, t *Tenant) error {
		required := t.Gate.State == GateRequired && c.Gate == nil || c.Gate != nil && *c.Gate == GateRequired
		switch {
		case required && !t.opens(""):
			return &InvalidError{"client_key_gate", "would refuse every call: this tenant has no client key"}
		case required && c.Header != nil && t.Gate.State == GateRequired && !strings.EqualFold(*c.Header, t.Gate.Header):
			return &InvalidError{"client_key_header", "the gate would refuse the apps that send the key in the other header: set it to observed or off first"}
		}
		overrides := maps.Clone(t.Overrides)
		for name, value := range c.Limits {
			if value == nil {
				delete(overrides, name)
			} else {
				overrides[name] = *value
			}
		}
		plan := t.Plan
		if c.Plan != nil {
			plan = *c.Plan
		}
		if err := checkPlan(ctx, tx, plan, overrides); err != nil {
			return err
		}
		limits, err := json.Marshal(overrides)
		if err != nil {
			return err
		}
		return dbgen.New().UpdateTenant(ctx, tx, dbgen.UpdateTenantParams{
			ID: t.ID, Name: c.Name, State: (*string)(c.State), Plan: &plan, Limits: limits, Enrolment: (*string)(c.Enrolment),
			ClientKeyGate: (*string)(c.Gate), ClientKeyHeader: c.Header,
		})
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
	err = pgx.BeginTxFunc(ctx, s.pool, ReadSnapshot, func(tx pgx.Tx) error {
		found, err = Load(ctx, tx, slug)
		return err
	})
	return found, err
}

// check says all that is wrong with a change.
func (c *Change) check() error {
	var errs []error
	if c.Name != nil {
		errs = append(errs, checkName(*c.Name))
	}
	if c.State != nil && !c.State.valid() {
		errs = append(errs, &InvalidError{"state", fmt.Sprintf("must be %s, %s or %s", Active, ReadOnly, Closed)})
	}
	if e := c.Enrolment; e != nil && *e != EnrolmentOpen && *e != EnrolmentClosed && *e != EnrolmentListed {
		errs = append(errs, &InvalidError{"enrolment", fmt.Sprintf("must be %s, %s or %s", EnrolmentOpen, EnrolmentClosed, EnrolmentListed)})
	}
	if g := c.Gate; g != nil && *g != GateOff && *g != GateObserved && *g != GateRequired {
		errs = append(errs, &InvalidError{"client_key_gate", fmt.Sprintf("must be %s, %s or %s", GateOff, GateObserved, GateRequired)})
	}
	if c.Header != nil {
		errs = append(errs, checkHeader(*c.Header))
	}
	return errors.Join(errs...)
}

func checkName(name string) error {
	if !audit.IsName(name) {
		return &InvalidError{Field: "name", Reason: "must have 1 to 200 characters, in UTF-8, none of them a control character"}
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
	case "one_tenant_a_host":
		return ErrDomainTaken
	case "one_source_an_issuer":
		return &InvalidError{"issuer", "another source of this tenant takes the tokens of this issuer"}
	default:
		return err
	}
}
