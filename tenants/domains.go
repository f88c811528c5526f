package tenants

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

// Resolver is asked for DNS records, as a [net.Resolver] is.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

const (
	checkDomainAction audit.Action = "domain.check"

	maxDomains  = 100
	dnsTimeout  = 10 * time.Second
	recordLabel = "_vss-cloud."
	recordMark  = "vss-cloud-domain="
)

// ErrUnproved: DNS answered, and the record that proves the domain is not there.
var ErrUnproved = errors.New("the DNS record that proves the domain is not there")

// Record is the TXT record that proves that a domain is the tenant's.
func (d *Domain) Record() (name, text string) { return recordLabel + d.Host, recordMark + d.Challenge }

// AddDomain claims a host name for the tenant. It is served once its DNS record ([Domain.Record]) was seen by
// [Service.CheckDomain], or at once where an operator vouches for it. From then on it belongs to the tenant
// wholly: the paths of other tenants are refused there. It fails with [audit.ErrNoActor], [ErrNotFound],
// [ErrDomainTaken] or an [*InvalidError].
func (s *Service) AddDomain(ctx context.Context, actor audit.Actor, slug, host string, vouch bool) (*Tenant, error) {
	host, err := s.checkDomain(host)
	if err != nil {
		return nil, err
	}
	return s.changeTenant(ctx, actor, "domain.add", slug, func(tx pgx.Tx, t *Tenant) error {
		q := dbgen.New()
		if vouch {
			if err := release(ctx, tx, actor, t, host, nil); err != nil {
				return err
			}
		}
		if d := t.domain(host); d != nil {
			if !vouch {
				return nil
			}
			return q.UpdateDomain(ctx, tx, dbgen.UpdateDomainParams{TenantID: t.ID, Host: host, State: string(Verified), Vouched: true})
		}
		if len(t.Domains) >= maxDomains {
			return &InvalidError{"domain", fmt.Sprintf("is one too many: a tenant can have %d", maxDomains)}
		}
		p := dbgen.InsertDomainParams{TenantID: t.ID, Host: host, State: string(Pending), Vouched: vouch}
		if vouch {
			p.State = string(Verified)
		}
		return q.InsertDomain(ctx, tx, p)
	})
}

// checkDomain is the host as it is stored.
func (s *Service) checkDomain(domain string) (string, error) {
	host, err := normalDomain(domain)
	if err == nil && AtOrBelow(host, s.cfg.BaseDomain) {
		err = fmt.Errorf("%q belongs to the platform, whose base domain is %s", host, s.cfg.BaseDomain)
	}
	if err != nil {
		return "", &InvalidError{"domain", err.Error()}
	}
	return host, nil
}

// release takes the host from a tenant that has it and no longer proves it: whose record is not among these, if it
// ever needed one. It fails with [ErrDomainTaken] where one still has it.
func release(ctx context.Context, tx pgx.Tx, actor audit.Actor, by *Tenant, host string, records []string) error {
	q := dbgen.New()
	row, err := q.DomainOwner(ctx, tx, host)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && row.TenantID == by.ID {
		return nil
	}
	if err != nil {
		return err
	}
	d := domainOf(row)
	if _, text := d.Record(); d.State != Lost && (d.Vouched || records == nil || slices.Contains(records, text)) {
		return fmt.Errorf("%q: %w", host, ErrDomainTaken)
	}
	_, err = audit.Change(ctx, tx, actor, "domain.release", domainSubject{tenant: row.TenantID, host: host}, func() error {
		return q.UpdateDomain(ctx, tx, dbgen.UpdateDomainParams{TenantID: row.TenantID, Host: host, State: string(Pending)})
	})
	return err
}

// domainSubject is a tenant's domain that another one gets.
type domainSubject struct {
	controlPlane
	tenant uuid.UUID
	host   string
}

func (s domainSubject) Read(ctx context.Context, tx pgx.Tx) (*uuid.UUID, audit.Facts, error) {
	rows, err := dbgen.New().Domains(ctx, tx, &s.tenant)
	facts := audit.Facts{}
	for _, row := range rows {
		if d := domainOf(row); d.Host == s.host {
			facts[domainFact(s.host)] = domainFacts(&d)
		}
	}
	return &s.tenant, facts, err
}

// CheckDomain asks DNS whether the domain is the tenant's: one that is becomes verified, and a verified one that
// is no longer becomes lost, and then fails with [ErrUnproved]. Where DNS does not answer nothing changes. One that
// an operator vouched for stays verified. It fails besides with [audit.ErrNoActor], [ErrNotFound], [ErrDomainTaken] or
// what DNS failed with.
func (s *Service) CheckDomain(ctx context.Context, actor audit.Actor, slug, domain string) (*Tenant, error) {
	if err := actor.Authorize(checkDomainAction); err != nil {
		return nil, err
	}
	t, err := s.Get(ctx, slug)
	if err != nil {
		return nil, err
	}
	host := asStored(domain)
	d := t.domain(host)
	if d == nil {
		return nil, noDomain(domain)
	}
	records, err := s.records(ctx, d)
	if err != nil {
		return nil, err
	}
	name, text := d.Record()
	proved := slices.Contains(records, text)
	after, err := s.changeTenant(ctx, actor, checkDomainAction, slug, func(tx pgx.Tx, t *Tenant) error {
		now := time.Now()
		d := t.domain(host)
		if d == nil {
			return noDomain(domain)
		}
		p := dbgen.UpdateDomainParams{TenantID: t.ID, Host: host, State: string(d.State), Vouched: d.Vouched, CheckedAt: &now}
		switch {
		case proved:
			if err := release(ctx, tx, actor, t, host, records); err != nil {
				return err
			}
			p.State = string(Verified)
		case d.State == Verified && !d.Vouched:
			p.State = string(Lost)
		}
		return dbgen.New().UpdateDomain(ctx, tx, p)
	})
	if err == nil && !proved && !d.Vouched {
		err = fmt.Errorf("%w: %s TXT %q", ErrUnproved, name, text)
	}
	return after, err
}

// records are the TXT records beside the domain's. It fails where DNS does not say.
func (s *Service) records(ctx context.Context, d *Domain) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	name, _ := d.Record()
	records, err := s.cfg.Resolver.LookupTXT(ctx, name+".") // absolute: no search domains
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("DNS did not answer, nothing was changed: %w", err)
	}
	return records, nil
}

// RemoveDomain takes a host name from the tenant. Wallets that still use it are refused. It fails with
// [audit.ErrNoActor], [ErrNotFound], or an [*InvalidError] for the host of an LNURL source, whose wallets have their
// keys from it.
func (s *Service) RemoveDomain(ctx context.Context, actor audit.Actor, slug, domain string) (*Tenant, error) {
	host := asStored(domain)
	return s.changeTenant(ctx, actor, "domain.remove", slug, func(tx pgx.Tx, t *Tenant) error {
		if t.domain(host) == nil {
			return noDomain(domain)
		}
		if src := t.Source(LNURL); src != nil && src.Host == host {
			return &InvalidError{"domain", fmt.Sprintf("is the host of source %q, from which wallets have their keys", src.Name)}
		}
		return dbgen.New().DeleteDomain(ctx, tx, dbgen.DeleteDomainParams{TenantID: t.ID, Host: host})
	})
}

// Domain is the tenant's domain of this name, however it is written, or nil.
func (t *Tenant) Domain(name string) *Domain { return t.domain(asStored(name)) }

func (t *Tenant) domain(host string) *Domain {
	i := slices.IndexFunc(t.Domains, func(d Domain) bool { return d.Host == host })
	if i < 0 {
		return nil
	}
	return &t.Domains[i]
}

func noDomain(host string) error { return fmt.Errorf("%w: it has no domain %.260q", errNoSuch, host) }
