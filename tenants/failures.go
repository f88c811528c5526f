package tenants

import (
	"context"
	"time"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
)

// AuthFailure is how often a tenant's credentials were refused for one reason. No part of a credential is in it.
type AuthFailure struct {
	Source string // its name; "" where the credential named none
	Reason string
	Count  int64
	LastAt time.Time
}

// AuthFailures are the refusals of a tenant that were counted, the last first; those of the last seconds may be
// missing. It fails with [ErrNotFound].
func (s *Service) AuthFailures(ctx context.Context, slug string) ([]AuthFailure, error) {
	t, err := s.Get(ctx, slug)
	if err != nil {
		return nil, err
	}
	rows, err := dbgen.New().AuthFailures(ctx, s.pool, t.ID)
	if err != nil {
		return nil, err
	}
	all := make([]AuthFailure, len(rows))
	for i, row := range rows {
		all[i] = AuthFailure(row)
	}
	return all, nil
}
