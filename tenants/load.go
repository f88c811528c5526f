package tenants

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// ReadSnapshot makes all statements of a transaction see the database as it was at the first.
var ReadSnapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// Load reads the tenant with this slug, or all of them, in the order of their slugs. The caller owns the
// transaction.
func Load(ctx context.Context, tx dbgen.DBTX, slug *string) ([]*Tenant, error) {
	q := dbgen.New()
	rows, err := q.Tenants(ctx, tx, slug)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	var only *uuid.UUID
	if slug != nil {
		only = &rows[0].ID
	}
	plans, err := loadPlans(ctx, tx)
	if err != nil {
		return nil, err
	}
	domains, err := q.Domains(ctx, tx, only)
	if err != nil {
		return nil, err
	}
	sources, err := q.CredentialSources(ctx, tx, only)
	if err != nil {
		return nil, err
	}
	keys, err := q.SourceKeys(ctx, tx, only)
	if err != nil {
		return nil, err
	}
	clientKeys, err := q.ClientKeys(ctx, tx, only)
	if err != nil {
		return nil, err
	}

	all := make([]*Tenant, len(rows))
	byID := make(map[uuid.UUID]*Tenant, len(rows))
	for i, row := range rows {
		all[i] = tenantOf(row, plans)
		byID[row.ID] = all[i]
	}
	for _, row := range domains {
		if t := byID[row.TenantID]; t != nil {
			t.Domains = append(t.Domains, domainOf(row))
		}
	}
	keysOf := map[uuid.UUID][]SourceKey{}
	for _, row := range keys {
		keysOf[row.SourceID] = append(keysOf[row.SourceID], keyOf(row))
	}
	for _, row := range sources {
		t := byID[row.TenantID]
		switch src := sourceOf(row, keysOf[row.ID]); {
		case t == nil:
		case row.RemovedAt != nil:
			t.Removed = append(t.Removed, src)
		default:
			t.Sources = append(t.Sources, src)
		}
	}
	for _, row := range clientKeys {
		if t := byID[row.TenantID]; t != nil {
			t.ClientKeys = append(t.ClientKeys, clientKeyOf(row))
		}
	}
	return all, nil
}

func tenantOf(row dbgen.Tenant, plans map[string]quota.Values) *Tenant {
	t := &Tenant{
		ID:        row.ID,
		Slug:      row.Slug,
		Name:      row.Name,
		State:     State(row.State),
		Plan:      row.Plan,
		Enrolment: Enrolment(row.Enrolment),
		Gate:      Gate{State: GateState(row.ClientKeyGate), Header: row.ClientKeyHeader},
		CreatedAt: row.CreatedAt,
	}
	err := json.Unmarshal(row.Limits, &t.Overrides)
	if err == nil {
		t.Limits, err = quota.Effective(quota.Known(plans[t.Plan]), quota.Known(t.Overrides))
	}
	if err != nil {
		// Somebody wrote them by hand, since the service refuses such. To serve the tenant without limits is better than to
		// refuse its calls.
		t.Overrides, t.Limits, t.Fault = quota.Values{}, quota.Limits{BodySize: MaxBodySize}, err.Error()
	}
	return t
}

// loadPlans are the limits of all plans by name.
func loadPlans(ctx context.Context, tx dbgen.DBTX) (map[string]quota.Values, error) {
	rows, err := dbgen.New().Plans(ctx, tx)
	if err != nil {
		return nil, err
	}
	plans := make(map[string]quota.Values, len(rows))
	for _, row := range rows {
		var v quota.Values
		if json.Unmarshal(row.Limits, &v) != nil {
			v = quota.Values{} // by hand: its tenants have a fault, and no limits
		}
		plans[row.Name] = v
	}
	return plans, nil
}

func domainOf(row dbgen.Domain) Domain {
	return Domain{
		Host:      row.Host,
		State:     DomainState(row.State),
		Challenge: row.Challenge,
		Vouched:   row.Vouched,
		CheckedAt: orZero(row.CheckedAt),
	}
}

func sourceOf(row dbgen.CredentialSource, keys []SourceKey) Source {
	s := Source{
		ID:        row.ID,
		Name:      row.Name,
		Kind:      Kind(row.Kind),
		Namespace: row.Namespace,
		Keys:      keys,
	}
	switch s.Kind {
	case Signature:
		s.Window = time.Duration(row.WindowSeconds) * time.Second
	case JWT:
		s.Rules = jwt.Rules{
			Issuer:         row.Issuer,
			AudienceRule:   jwt.AudienceRule(row.AudienceRule),
			Audiences:      row.Audiences,
			CheckNotBefore: row.CheckNotBefore,
			Algorithms:     row.Algorithms,
		}
		if json.Unmarshal(row.Claims, &s.Rules.Claims) != nil {
			s.Rules.Algorithms = nil // by hand: what cannot be asked for is in no token
		}
		if len(s.Rules.Claims) == 0 {
			s.Rules.Claims = nil
		}
		s.FormerIssuers = row.FormerIssuers
		s.ByKeyID = row.ByKid
		s.JWKSURL = egress.URL(orZero(row.JwksUrl))
	case LNURL:
		s.Rules = loginRules(row.ID)
		s.Host = orZero(row.Host)
		s.TokenLife = time.Duration(row.TokenSeconds) * time.Second
	}
	return s
}

func keyOf(row dbgen.SourceKeysRow) SourceKey {
	return SourceKey{
		ID:        row.Kid,
		Public:    []byte(row.Public),
		Sealed:    row.Sealed,
		State:     jwt.State(row.State),
		Until:     orZero(row.RetiresAt),
		CreatedAt: row.CreatedAt,
	}
}

func clientKeyOf(row dbgen.ClientKey) ClientKey {
	return ClientKey{
		Prefix:    row.Prefix,
		Name:      row.Name,
		Hash:      [32]byte(row.Hash),
		ExpiresAt: orZero(row.ExpiresAt),
		RevokedAt: orZero(row.RevokedAt),
		CreatedAt: row.CreatedAt,
	}
}

// orZero is what p points to, or zero.
func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// loginRules are those of the tokens that we issue to the wallets of an LNURL source.
func loginRules(source uuid.UUID) jwt.Rules {
	issuer := source.URN()
	return jwt.Rules{Issuer: &issuer, AudienceRule: jwt.AnyAudience, Algorithms: []string{"ES256"}, Grace: LoginGrace}
}
