package tenants

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

// What wallets feel is not done unless it is confirmed, and how many they are is said.
func TestWhatWalletsFeelIsDoneOnlyWhenConfirmed(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	tenant := p.create(t, "acme", "vss.acme.com")
	p.sql(t, "INSERT INTO tenant_totals (tenant_id, wallets, stores, objects, bytes) VALUES ($1, 1234, 2, 3, 4)", tenant.ID)
	owner := tenant.source(t, "signature").Owner(tenant.ID, keyOne)
	p.sql(t, "INSERT INTO wallets (wallet, tenant_id, namespace, subject) VALUES ($1, $2, 'sig', $3)", uuid.UUID(owner.Wallet()), tenant.ID, keyOne)
	_, key, err := p.service.AddClientKey(t.Context(), root, "acme", "app")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.service.SavePlan(t.Context(), root, "small", "", quota.Values{}); err != nil {
		t.Fatal(err)
	}
	set := func(c Change) func(audit.Actor) error {
		return func(by audit.Actor) error { _, err := p.service.Set(t.Context(), by, "acme", c); return err }
	}
	unasked := root
	unasked.Confirmed = false
	for _, step := range []struct {
		name string
		do   func(by audit.Actor) error
		want string   // what is said
		back []Change // that wallets are glad of, so nobody asks
	}{
		{"read-only", set(Change{State: ptr(ReadOnly)}), "Every write of the wallets of tenant acme (1234 wallets) is refused", []Change{{State: ptr(Active)}}},
		{"closed", set(Change{State: ptr(Closed)}), "Every call of the wallets of tenant acme (1234 wallets) is refused", []Change{{State: ptr(ReadOnly)}, {State: ptr(Active)}}},
		{"enrolment by list", set(Change{Enrolment: ptr(EnrolmentListed)}), "that are not on its list are refused", nil},
		{"enrolment closed", set(Change{Enrolment: ptr(EnrolmentClosed)}), "New wallets of tenant acme are refused", []Change{{Enrolment: ptr(EnrolmentOpen)}}},
		{"the gate", set(Change{Gate: ptr(GateRequired)}), "without a good client key is refused (1234 wallets)", []Change{{Gate: ptr(GateOff)}}},
		{"a limit of its own", set(Change{Limits: map[string]*int64{"wallets": ptr(int64(1000))}}), "wallets 1000 instead of 100000 refuses new wallets: there are 1234", nil},
		{"a plan", set(Change{Plan: ptr("small"), Limits: map[string]*int64{"stores_per_wallet": ptr(int64(1))}}), "refuses new stores of wallets that have 1 or more", nil},
		{"a plan's limit", func(by audit.Actor) error {
			return p.service.SavePlan(t.Context(), by, "small", "", quota.Values{"objects_per_store": 10000})
		}, "Tenant acme: objects_per_store 10000 instead of 100000 refuses new keys", nil},
		{"a client key", func(by audit.Actor) error {
			_, err := p.service.RevokeClientKey(t.Context(), by, "acme", key[:10])
			return err
		}, "never works again", nil},
		{"a domain", func(by audit.Actor) error {
			_, err := p.service.RemoveDomain(t.Context(), by, "acme", "vss.acme.com")
			return err
		}, "Wallets that call tenant acme at vss.acme.com are refused", nil},
		{"a wallet", func(by audit.Actor) error {
			return p.service.BlockWallet(t.Context(), by, "acme", "signature", keyOne, true)
		}, "Every write of this wallet of tenant acme is refused", nil},
	} {
		audited := p.audited(t)
		before, err := p.service.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = step.do(unasked)
		if e, ok := errors.AsType[*ConfirmError](err); !ok || !strings.Contains(e.Error(), step.want) {
			t.Errorf("%s: got %v, want to be asked: %s", step.name, err, step.want)
		}
		after, err := p.service.List(t.Context())
		if err != nil || !reflect.DeepEqual(before, after) || p.audited(t) != audited {
			t.Errorf("%s: it was done unasked: %v", step.name, err)
		}
		if err := step.do(root); err != nil || p.audited(t) != audited+1 {
			t.Errorf("%s: confirmed: %v", step.name, err)
		}
		for _, c := range step.back {
			if err := set(c)(unasked); err != nil {
				t.Errorf("%s: back: %v", step.name, err)
			}
		}
	}
}

// source is the tenant's source of this name.
func (t *Tenant) source(tb testing.TB, name string) *Source {
	tb.Helper()
	src := named(t.Sources, name)
	if src == nil {
		tb.Fatalf("no source %s", name)
	}
	return src
}
