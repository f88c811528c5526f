package usage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota"
)

// Reader reads what instances recorded. It is safe for concurrent use.
type Reader struct{ pool *pgxpool.Pool }

// NewReader makes a reader over the pool, of any role that may read usage.
func NewReader(pool *pgxpool.Pool) *Reader { return &Reader{pool} }

// Totals are what a tenant's wallets have, as last measured: they lag.
type Totals struct {
	Wallets    int64
	Stores     int64
	Objects    int64
	Bytes      int64 // of keys and values
	MeasuredAt time.Time
}

// Totals are those of all tenants that were measured, by id.
func (r *Reader) Totals(ctx context.Context) (map[uuid.UUID]Totals, error) {
	rows, err := dbgen.New().Totals(ctx, r.pool)
	if err != nil {
		return nil, err
	}
	all := make(map[uuid.UUID]Totals, len(rows))
	for _, row := range rows {
		all[row.TenantID] = Totals{Wallets: row.Wallets, Stores: row.Stores, Objects: row.Objects, Bytes: row.Bytes, MeasuredAt: row.MeasuredAt}
	}
	return all, nil
}

// TotalsOf are those of a tenant; nil: they were not measured yet.
func (r *Reader) TotalsOf(ctx context.Context, tenant uuid.UUID) (*Totals, error) {
	all, err := r.Totals(ctx)
	if totals, ok := all[tenant]; ok {
		return &totals, err
	}
	return nil, err
}

// Grain is how long the times are that usage is counted for. They are those of UTC.
type Grain string

const (
	ByHour  Grain = "hour"
	ByDay   Grain = "day"
	ByMonth Grain = "month"
)

// start is that of the hour, day or month that t is in.
func (g Grain) start(t time.Time) time.Time {
	t = t.UTC()
	year, month, day := t.Date()
	switch g {
	case ByHour:
		return t.Truncate(time.Hour)
	case ByDay:
		return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	default:
		return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	}
}

// Metered is one metric of a tenant for an hour, a day or a month.
type Metered struct {
	Start  time.Time
	Metric string
	Value  int64
}

// Usage is what a tenant did from the hour, day or month on that since is in, the first first. What happened in the
// last seconds may be missing. It fails with a [*quota.InvalidError].
func (r *Reader) Usage(ctx context.Context, tenant uuid.UUID, by Grain, since time.Time) ([]Metered, error) {
	if by != ByHour && by != ByDay && by != ByMonth {
		return nil, &quota.InvalidError{Field: "by", Reason: fmt.Sprintf("must be %s, %s or %s", ByHour, ByDay, ByMonth)}
	}
	rows, err := dbgen.New().UsageSince(ctx, r.pool, dbgen.UsageSinceParams{TenantID: tenant, Grain: string(by), Since: by.start(since)})
	if err != nil {
		return nil, err
	}
	all := make([]Metered, len(rows))
	for i, row := range rows {
		all[i] = Metered{Start: row.Start.UTC(), Metric: row.Metric, Value: row.Value}
	}
	return all, nil
}

// Event is what people should hear of: that something of a tenant came into another state.
type Event struct {
	ID      int64
	Kind    string
	Subject string // what it is about; "" is the tenant
	State   string
	Detail  json.RawMessage // an object
	At      time.Time
}

// Events are at most so many of a tenant's, the last first.
func (r *Reader) Events(ctx context.Context, tenant uuid.UUID, most int32) ([]Event, error) {
	rows, err := dbgen.New().Events(ctx, r.pool, dbgen.EventsParams{TenantID: tenant, Most: max(most, 0)})
	if err != nil {
		return nil, err
	}
	all := make([]Event, len(rows))
	for i, row := range rows {
		all[i] = Event{ID: row.ID, Kind: row.Kind, Subject: row.Subject, State: row.State, Detail: row.Detail, At: row.At}
	}
	return all, nil
}

// Instance is a process of the API that said that it runs.
type Instance struct {
	ID        uuid.UUID
	Host      string
	Version   string
	StartedAt time.Time
	SeenAt    time.Time
	Failing   []uuid.UUID // credential sources whose keys it could not fetch then
	Live      bool        // it was seen a moment ago; else it ended without saying so, or cannot reach the database
}

// Instances are those of the last day that run, or ended without saying so, the oldest first.
func (r *Reader) Instances(ctx context.Context) ([]Instance, error) {
	rows, err := dbgen.New().Instances(ctx, r.pool)
	if err != nil {
		return nil, err
	}
	all := make([]Instance, len(rows))
	for i, row := range rows {
		all[i] = Instance(row)
	}
	return all, nil
}
