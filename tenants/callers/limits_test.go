package callers

import (
	"maps"
	"testing"

	"github.com/vss-cloud/vss-cloud/tenants"
)

func TestATenantHasTheLimitsOfItsPlanButForItsOwn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	plans, err := p.service.Plans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	small := maps.Clone(plans["standard"])
	small["wallets"], small["objects_per_store"] = 10, 1000
	if err := p.service.SavePlan(t.Context(), root, "small", "", small); err != nil {
		t.Fatal(err)
	}
	five := int64(5)
	after := p.set(t, "acme", tenants.Change{Plan: ptr("small"), Limits: map[string]*int64{"wallets": &five}})
	if after.Limits.Wallets != 5 || after.Limits.ObjectsPerStore != 1000 || after.Plan != "small" {
		t.Errorf("got %+v", after.Limits)
	}
	small["objects_per_store"] = 7
	if err := p.service.SavePlan(t.Context(), root, "small", "", small); err != nil {
		t.Fatal(err)
	}
	if got := p.known(t, "acme").Limits; got.Wallets != 5 || got.ObjectsPerStore != 7 {
		t.Errorf("got %+v", got)
	}
	if got, err := p.service.Plan(t.Context(), "small"); err != nil || got["objects_per_store"] != 7 {
		t.Errorf("got %v, %v", got, err)
	}
	wantInvalid(t, p.service.DeletePlan(t.Context(), root, "small"), "plan") // it is in use
	p.set(t, "acme", tenants.Change{Plan: ptr("standard"), Limits: map[string]*int64{"wallets": nil}})
	if err := p.service.DeletePlan(t.Context(), root, "small"); err != nil {
		t.Error(err)
	}
	wantError(t, p.service.DeletePlan(t.Context(), root, "small"), tenants.ErrNotFound)
	_, err = p.service.Plan(t.Context(), "small")
	wantError(t, err, tenants.ErrNotFound)
	if n := query[int](t, p, "SELECT count(*) FROM audit_log WHERE tenant_id IS NULL AND action LIKE 'plan.%'"); n != 3 {
		t.Errorf("%d audit rows of plans", n)
	}
}

// By hand, or by a newer program: never an outage, and least of all of others.
func TestLimitsThatAreNoneAreTheFaultOfTheirTenantAlone(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.create(t, "bystander")
	for _, limits := range []string{`{"wallets": 1.5}`, `{"wallets": "5"}`, `{"wallets": 1e30}`, `{"wallets": 0}`} {
		p.sql(t, "UPDATE tenants SET limits = $1 WHERE slug = 'acme'", limits)
		if got := p.known(t, "acme").Limits; got.BodySize != tenants.MaxBodySize || got.Wallets != 0 {
			t.Errorf("%s: got %+v", limits, got)
		}
		if got := p.known(t, "bystander").Limits; got.Wallets != 100_000 {
			t.Errorf("%s: the bystander has %+v", limits, got)
		}
	}
	done(t)(p.service.Set(t.Context(), root, "acme", tenants.Change{Limits: map[string]*int64{"wallets": ptr(int64(5))}})) // mends it
	p.sql(t, `UPDATE tenants SET limits = '{"wallets": 7, "limit_of_tomorrow": 1}' WHERE slug = 'acme'`)
	if got := p.known(t, "acme").Limits; got.Wallets != 7 || got.BodySize != 100<<20 {
		t.Errorf("with a limit that is not known: %+v", got)
	}
	p.sql(t, `UPDATE plans SET limits = '{"wallets": []}' WHERE name = 'standard'`)
	if got := p.known(t, "bystander").Limits; got.BodySize != tenants.MaxBodySize {
		t.Errorf("with a plan that is none: %+v", got)
	}
}
