package tenants

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
)

// readSnapshot makes all statements of a transaction see the database as it was at the first.
var readSnapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// load reads the tenant with this slug, or all of them, in the order of their slugs. The caller owns the
// transaction.
func load(ctx context.Context, tx dbgen.DBTX, slug *string) ([]*Tenant, error) {
	q := dbgen.New()
	rows, err := q.Tenants(ctx, tx, slug)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	var only *uuid.UUID
	if slug != nil {
		only = &rows[0].ID
	}
	domains, err := q.Domains(ctx, tx, only)
	if err != nil {
		return nil, err
	}
	sources, err := q.CredentialSources(ctx, tx, only)
	if err != nil {
		return nil, err
	}

	all := make([]*Tenant, len(rows))
	byID := make(map[uuid.UUID]*Tenant, len(rows))
	for i, row := range rows {
		all[i] = tenantOf(row)
		byID[row.ID] = all[i]
	}
	for _, row := range domains {
		if t := byID[row.TenantID]; t != nil {
			t.Domains = append(t.Domains, row.Host)
		}
	}
	for _, row := range sources {
		if t := byID[row.TenantID]; t != nil {
			t.Sources = append(t.Sources, sourceOf(row))
		}
	}
	return all, nil
}

func tenantOf(row dbgen.Tenant) *Tenant {
	return &Tenant{
		ID:        row.ID,
		Slug:      row.Slug,
		Name:      row.Name,
		State:     State(row.State),
		BodyLimit: row.BodyLimit,
		CreatedAt: row.CreatedAt,
	}
}

func sourceOf(row dbgen.CredentialSource) Source {
	return Source{
		ID:        row.ID,
		Name:      row.Name,
		Kind:      Kind(row.Kind),
		Namespace: row.Namespace,
		Window:    time.Duration(row.WindowSeconds) * time.Second,
	}
}
