package usage

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
)

func TestUsageBeginsWithTheTimeThatSinceIsIn(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	r := NewReader(open(t, d.url))
	acme, rival := d.tenant(t, "acme"), d.tenant(t, "rival")
	for _, id := range []uuid.UUID{acme, rival} {
		d.sql(t, `INSERT INTO usage (tenant_id, grain, start, metric, value) VALUES
			($1, 'hour', '2026-03-31T22:00Z', 'bytes_in', 1), ($1, 'hour', '2026-03-31T23:00Z', 'bytes_in', 2),
			($1, 'hour', '2026-03-31T23:00Z', 'bytes_out', 3), ($1, 'day', '2026-03-30T00:00Z', 'bytes_in', 4),
			($1, 'day', '2026-03-31T00:00Z', 'bytes_in', 5), ($1, 'month', '2026-02-01T00:00Z', 'bytes_in', 6),
			($1, 'month', '2026-03-01T00:00Z', 'active_wallets', 7)`, id)
	}
	at := func(month time.Month, day, hour int) time.Time {
		return time.Date(2026, month, day, hour, 0, 0, 0, time.UTC)
	}
	east := time.FixedZone("", 3*60*60)
	since := time.Date(2026, 4, 1, 2, 30, 0, 0, east) // 23:30 of the day before, in UTC
	for by, want := range map[Grain][]Metered{
		ByHour:  {{at(3, 31, 23), "bytes_in", 2}, {at(3, 31, 23), "bytes_out", 3}},
		ByDay:   {{at(3, 31, 0), "bytes_in", 5}},
		ByMonth: {{at(3, 1, 0), "active_wallets", 7}},
	} {
		if got, err := r.Usage(t.Context(), acme, by, since); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("by %s: %v, %v", by, got, err)
		}
	}
	_, err := r.Usage(t.Context(), acme, "week", since)
	if e, ok := errors.AsType[*quota.InvalidError](err); !ok || e.Field != "by" {
		t.Errorf("got %v, want by to be refused", err)
	}
}

func TestEventsAreTheTenantsOwnLastFirst(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	r := NewReader(open(t, d.url))
	acme, rival := d.tenant(t, "acme"), d.tenant(t, "rival")
	for _, id := range []uuid.UUID{acme, rival} {
		d.sql(t, `INSERT INTO events (tenant_id, kind, subject, state, detail) VALUES
			($1, 'storage', 'a', 'soft', '{"used": 1}'), ($1, 'storage', 'a', 'hard', '{}'), ($1, 'storage', 'a', 'ok', '{}')`, id)
	}
	got, err := r.Events(t.Context(), acme, 2)
	if err != nil || len(got) != 2 || got[0].State != "ok" || got[1].State != "hard" || got[0].Kind != "storage" || got[0].Subject != "a" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err = r.Events(t.Context(), acme, 1000); err != nil || len(got) < 3 || string(got[2].Detail) != `{"used": 1}` {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTotalsAndInstancesAreAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	r := NewReader(open(t, d.url))
	acme := d.tenant(t, "acme")
	d.tenant(t, "fresh")
	d.sql(t, "INSERT INTO tenant_totals (tenant_id, wallets, stores, objects, bytes) VALUES ($1, 1, 2, 3, 4)", acme)
	totals, err := r.Totals(t.Context())
	got := totals[acme]
	if err != nil || len(totals) != 1 || got.Wallets != 1 || got.Stores != 2 || got.Objects != 3 || got.Bytes != 4 || got.MeasuredAt.IsZero() {
		t.Errorf("got %+v, %v", totals, err)
	}
	d.sql(t, `INSERT INTO instances (id, host, version, started_at, seen_at) VALUES
		(gen_random_uuid(), 'one', 'v1', now() - interval '2 hours', now() - interval '1 hour'), (gen_random_uuid(), 'two', 'v2', now(), now())`)
	instances, err := r.Instances(t.Context())
	if err != nil || len(instances) != 2 || instances[0].Host != "one" || instances[0].Live || instances[1].Version != "v2" || !instances[1].Live {
		t.Errorf("got %+v, %v", instances, err)
	}
}
