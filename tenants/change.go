package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

// controlPlane locks what every change of tenants and plans is in the way of: one change at a time.
type controlPlane struct{}

func (controlPlane) Lock(ctx context.Context, tx pgx.Tx) error {
	return dbgen.New().LockControlPlane(ctx, tx)
}

// tenantSubject is the tenant with this slug. It holds the tenant as it was last read, nil where there is none.
type tenantSubject struct {
	controlPlane
	slug string
	now  *Tenant
}

func (s *tenantSubject) Lock(ctx context.Context, tx pgx.Tx) error {
	if err := s.controlPlane.Lock(ctx, tx); err != nil {
		return err
	}
	return dbgen.New().LockTenant(ctx, tx, s.slug)
}

func (s *tenantSubject) Read(ctx context.Context, tx pgx.Tx) (*uuid.UUID, audit.Facts, error) {
	var err error
	if s.now, err = find(ctx, tx, s.slug); err != nil || s.now == nil {
		return nil, nil, err
	}
	return &s.now.ID, facts(s.now), nil
}

// change applies a change to the tenant with this slug (nil where there is none), which it may alter in place. It
// returns the tenant as it is afterwards. Whatever the change is, here it is seen to that each credential still belongs
// to one source, and that the actor wants what becomes of wallets, and what else is to be asked.
func (s *Service) change(
	ctx context.Context, actor audit.Actor, action audit.Action, slug string, apply func(tx pgx.Tx, before *Tenant) error, ask ...string,
) (*Tenant, error) {
	subject := &tenantSubject{slug: slug}
	err := s.begin(ctx, func(tx pgx.Tx) error {
		created := false
		before := &Tenant{}
		changed, err := audit.Change(ctx, tx, actor, action, subject, func() error {
			if created = subject.now == nil; !created {
				before = subject.now.frozen()
			}
			return apply(tx, subject.now)
		})
		if err != nil {
			return err
		}
		if err := NewRouting(subject.now.Sources, subject.now.Removed).Ambiguous(NewRouting(before.Sources, before.Removed)); err != nil {
			ambiguous, _ := errors.AsType[*ambiguity](err)
			return ambiguous.invalid()
		}
		if created {
			return nil // nobody uses it yet, and its first sources are no news
		}
		if !actor.Confirmed {
			plans, err := loadPlans(ctx, tx)
			if err != nil {
				return err
			}
			totals, err := totalsOf(ctx, tx)
			if err != nil {
				return err
			}
			if will := slices.Concat(moves(before, subject.now), refusals(before, subject.now, plans, totals(subject.now)), ask); len(will) > 0 {
				return &ConfirmError{will}
			}
		}
		return tellOfKeys(ctx, tx, subject.now.ID, changed)
	})
	if err != nil {
		return nil, err
	}
	return subject.now, nil
}

// frozen is the tenant with sources that stay as they are, whatever becomes of its own.
func (t *Tenant) frozen() *Tenant {
	frozen := *t
	for _, sources := range []*[]Source{&frozen.Sources, &frozen.Removed} {
		*sources = slices.Clone(*sources)
		for i := range *sources {
			(*sources)[i].Keys = slices.Clone((*sources)[i].Keys)
		}
	}
	return &frozen
}

// changeTenant is change for a tenant that there must be.
func (s *Service) changeTenant(
	ctx context.Context, actor audit.Actor, action audit.Action, slug string, apply func(tx pgx.Tx, t *Tenant) error, ask ...string,
) (*Tenant, error) {
	if checkLabel(slug) != "" {
		return nil, ErrNotFound
	}
	return s.change(ctx, actor, action, slug, func(tx pgx.Tx, before *Tenant) error {
		if before == nil {
			return ErrNotFound
		}
		return apply(tx, before)
	}, ask...)
}

// begin runs a transaction, and says what the database refused in this package's errors.
func (s *Service) begin(ctx context.Context, do func(tx pgx.Tx) error) error {
	return translate(pgx.BeginFunc(ctx, s.pool, do))
}

const factKey, factSource = "key", "source"

// tellOfKeys makes an event of each source of which a change altered what proves who its wallets are: whoever makes such
// a change can act as any of them.
func tellOfKeys(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, changed []audit.Fact) error {
	bySource := map[string][]string{}
	for _, fact := range changed {
		switch fact.Kind {
		case factKey:
			bySource[fact.Of] = append(bySource[fact.Of], fact.String())
		case factSource:
			bySource[fact.Name] = append(bySource[fact.Name], fact.String())
		}
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		text, err := json.Marshal(map[string]any{"changed": bySource[source]})
		if err != nil {
			return err
		}
		err = dbgen.New().KeysChanged(ctx, tx, dbgen.KeysChangedParams{TenantID: tenant, Source: source, Detail: text})
		if err != nil {
			return err
		}
	}
	return nil
}

func sourceFact(name string) audit.Fact { return audit.Fact{Kind: factSource, Name: name} }
func domainFact(host string) audit.Fact { return audit.Fact{Kind: "domain", Name: host} }

func domainFacts(d *Domain) any { return map[string]any{"state": d.State, "vouched": d.Vouched} }

// find is the tenant with this slug, or nil.
func find(ctx context.Context, tx pgx.Tx, slug string) (*Tenant, error) {
	found, err := Load(ctx, tx, &slug)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// facts are all about a tenant that the audit log tells.
func facts(t *Tenant) audit.Facts {
	if t == nil {
		return nil
	}
	f := audit.Facts{
		{Kind: "slug"}:              t.Slug,
		{Kind: "name"}:              t.Name,
		{Kind: "state"}:             t.State,
		{Kind: "plan"}:              t.Plan,
		{Kind: "enrolment"}:         t.Enrolment,
		{Kind: "client_key_gate"}:   t.Gate.State,
		{Kind: "client_key_header"}: t.Gate.Header,
	}
	for name, value := range t.Overrides {
		f[audit.Fact{Kind: "limit", Name: name}] = value
	}
	for _, d := range t.Domains {
		f[domainFact(d.Host)] = domainFacts(&d)
	}
	for _, k := range t.ClientKeys {
		f[audit.Fact{Kind: "client_key", Name: k.Prefix}] = map[string]any{"name": k.Name, "expires_at": k.ExpiresAt, "revoked_at": k.RevokedAt}
	}
	for _, src := range slices.Concat(t.Sources, t.Removed) {
		f[sourceFact(src.Name)] = sourceFacts(&src)
		for _, k := range src.Keys {
			f[audit.Fact{Kind: factKey, Of: src.Name, Name: k.ID}] = map[string]any{"state": k.State, "until": k.Until, "sealed_by": masterkey.SealedBy(k.Sealed)}
		}
	}
	for _, src := range t.Removed {
		f[sourceFact(src.Name)].(map[string]any)["removed"] = true
	}
	return f
}

func sourceFacts(src *Source) map[string]any {
	f := map[string]any{"kind": src.Kind, "namespace": src.Namespace}
	switch src.Kind {
	case Signature:
		f["window_seconds"] = int64(src.Window.Seconds())
	case JWT:
		f["issuer"], f["audience_rule"], f["audiences"] = src.Rules.Issuer, src.Rules.AudienceRule, src.Rules.Audiences
		f["check_not_before"], f["algorithms"] = src.Rules.CheckNotBefore, src.Rules.Algorithms
		f["claims"], f["by_key_id"], f["jwks_url"] = src.Rules.Claims, src.ByKeyID, src.JWKSURL
	case LNURL:
		f["host"], f["token_seconds"] = src.Host, int64(src.TokenLife.Seconds())
	}
	return f
}
