package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

func TestANewTenantIsActiveAndItsWalletsSign(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	created, err := p.service.Create(t.Context(), root, NewTenant{Slug: "acme", Name: "Acme Wallet Ltd."})
	if err != nil {
		t.Fatal(err)
	}
	want := &Tenant{
		ID: created.ID, Slug: "acme", Name: "Acme Wallet Ltd.", State: Active, Plan: "standard", Overrides: quota.Values{}, Limits: created.Limits, Enrolment: EnrolmentOpen,
		Sources: []Source{{
			ID: created.Sources[0].ID, Name: "signature", Kind: Signature, Namespace: "sig", Window: 24 * time.Hour,
		}},
		Gate:      Gate{State: GateOff, Header: "X-Client-Key"},
		CreatedAt: created.CreatedAt,
	}
	if !reflect.DeepEqual(created, want) {
		t.Errorf("created %+v, want %+v", created, want)
	}
	got, err := p.service.Get(t.Context(), "acme")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if created.Limits.BodySize != 100<<20 || created.Limits.ReservePercent != 20 {
		t.Errorf("its limits are %+v", created.Limits)
	}
	other, err := p.service.Create(t.Context(), root, NewTenant{Slug: "a", Name: "ä", Plan: "standard"})
	if err != nil {
		t.Errorf("got %+v, %v", other, err)
	}
	all, err := p.service.List(t.Context())
	if err != nil || !reflect.DeepEqual(all, []*Tenant{other, want}) {
		t.Errorf("listed %+v, %v", all, err)
	}
}

func TestASetChangesWhatItNamesAndNothingElse(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	want := p.create(t, "acme")
	bystander := p.create(t, "bystander", "vss.bystander.com")
	for _, step := range []struct {
		change Change
		expect func()
	}{
		{Change{Name: ptr("Other")}, func() { want.Name = "Other" }},
		{Change{State: ptr(ReadOnly)}, func() { want.State = ReadOnly }},
		{limitedTo(1024), func() {
			want.Overrides, want.Limits.BodySize, want.Limits.ValueSize = quota.Values{"body_size": 1024, "value_size": 1024}, 1024, 1024
		}},
		{Change{Limits: map[string]*int64{"body_size": nil, "value_size": nil, "wallets": ptr(int64(5))}}, func() {
			want.Overrides, want.Limits.BodySize, want.Limits.ValueSize, want.Limits.Wallets = quota.Values{"wallets": 5}, 100<<20, 100<<20, 5
		}},
		{Change{Enrolment: ptr(EnrolmentListed)}, func() { want.Enrolment = EnrolmentListed }},
		{Change{Gate: ptr(GateObserved)}, func() { want.Gate.State = GateObserved }},
		{Change{Header: ptr("X-App")}, func() { want.Gate.Header = "X-App" }},
		{Change{State: ptr(Closed)}, func() { want.State = Closed }},
		{Change{
			Name: ptr("Acme"), State: ptr(Active), Enrolment: ptr(EnrolmentClosed), Gate: ptr(GateOff), Header: ptr("X-Key"),
		}, func() {
			want.Name, want.State, want.Enrolment, want.Gate = "Acme", Active, EnrolmentClosed, Gate{GateOff, "X-Key"}
		}},
		{Change{}, func() {}},
	} {
		step.expect()
		if got := p.set(t, "acme", step.change); !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v: got %+v, want %+v", step.change, got, want)
		}
		if got, err := p.service.Get(t.Context(), "acme"); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v: then got %+v, %v, want %+v", step.change, got, err, want)
		}
	}
	if got, err := p.service.Get(t.Context(), "bystander"); err != nil || !reflect.DeepEqual(got, bystander) {
		t.Errorf("the other tenant became %+v, %v", got, err)
	}
}

// A refused change has one error, changes nothing and leaves no audit row.
func TestARefusedChangeLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.acme.com")
	p.create(t, "closed")
	p.set(t, "closed", Change{State: ptr(Closed)})
	p.create(t, "rival", "vss.rival.com")

	create := func(actor audit.Actor, n NewTenant) func(context.Context) error {
		return func(ctx context.Context) error { _, err := p.service.Create(ctx, actor, n); return err }
	}
	set := func(slug string, c Change) func(context.Context) error {
		return func(ctx context.Context) error { _, err := p.service.Set(ctx, root, slug, c); return err }
	}
	// Beside what is wrong, each change asks for something that would be right.
	with := func(c Change) Change { c.Name = ptr("changed"); return c }
	add := func(domain string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := p.service.AddDomain(ctx, root, "acme", domain, true)
			return err
		}
	}
	remove := func(domain string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := p.service.RemoveDomain(ctx, root, "acme", domain)
			return err
		}
	}
	window := func(d time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := p.service.SetSource(ctx, root, "acme", "signature", SourceChange{Window: &d})
			return err
		}
	}

	for _, tc := range []struct {
		name  string
		try   func(context.Context) error
		want  error
		field string
	}{
		{name: "create: taken slug", try: create(root, NewTenant{Slug: "acme", Name: "x"}), want: ErrSlugTaken},
		{name: "create: slug of a closed tenant", try: create(root, NewTenant{Slug: "closed", Name: "x"}), want: ErrSlugTaken},
		{name: "create: no slug", try: create(root, NewTenant{Name: "x"}), field: "slug"},
		{name: "create: upper-case slug", try: create(root, NewTenant{Slug: "New", Name: "x"}), field: "slug"},
		{name: "create: reserved slug", try: create(root, NewTenant{Slug: "www", Name: "x"}), field: "slug"},
		{name: "create: no name", try: create(root, NewTenant{Slug: "new"}), field: "name"},
		{name: "create: name of 201 characters", try: create(root, NewTenant{Slug: "new", Name: strings.Repeat("ä", 201)}), field: "name"},
		{name: "create: name with NUL", try: create(root, NewTenant{Slug: "new", Name: "a\x00b"}), field: "name"},
		{name: "create: name not UTF-8", try: create(root, NewTenant{Slug: "new", Name: "\xff"}), field: "name"},
		{name: "create: unknown plan", try: create(root, NewTenant{Slug: "new", Name: "x", Plan: "gold"}), field: "plan"},
		{name: "create: no actor", try: create(audit.Actor{}, NewTenant{Slug: "new", Name: "x"}), want: audit.ErrNoActor},
		{name: "create: actor without name", try: create(audit.Actor{Role: audit.Operator}, NewTenant{Slug: "new", Name: "x"}), want: audit.ErrNoActor},
		{name: "create: actor without kind", try: create(audit.Actor{Name: "root"}, NewTenant{Slug: "new", Name: "x"}), want: audit.ErrNoActor},
		{name: "create: actor of an unknown kind", try: create(audit.Actor{Role: "wallet", Name: "root"}, NewTenant{Slug: "new", Name: "x"}), want: audit.ErrNoActor},
		{name: "create: actor with a newline", try: create(audit.Actor{Role: audit.Operator, Name: "a\nb"}, NewTenant{Slug: "new", Name: "x"}), want: audit.ErrNoActor},
		{name: "set: no actor", try: func(ctx context.Context) error {
			_, err := p.service.Set(ctx, audit.Actor{}, "acme", with(Change{}))
			return err
		}, want: audit.ErrNoActor},

		{name: "set: unknown tenant", try: set("nobody", with(Change{})), want: ErrNotFound},
		{name: "set: slug in upper case", try: set("ACME", with(Change{})), want: ErrNotFound},
		{name: "set: no slug", try: set("", with(Change{})), want: ErrNotFound},
		{name: "set: slug with NUL", try: set("acme\x00", with(Change{})), want: ErrNotFound},
		{name: "set: empty name", try: set("acme", Change{Name: ptr(""), State: ptr(Closed)}), field: "name"},
		{name: "set: unknown state", try: set("acme", with(Change{State: ptr(State("deleted"))})), field: "state"},
		{name: "set: empty state", try: set("acme", with(Change{State: ptr(State(""))})), field: "state"},
		{name: "set: limit zero", try: set("acme", with(Change{Limits: map[string]*int64{"wallets": ptr(int64(0))}})), field: "wallets"},
		{name: "set: negative limit", try: set("acme", with(Change{Limits: map[string]*int64{"wallets": ptr(int64(-1))}})), field: "wallets"},
		{name: "set: enormous limit", try: set("acme", with(limitedTo(MaxBodySize+1))), field: "value_size"},
		{name: "set: unknown limit", try: set("acme", with(Change{Limits: map[string]*int64{"walets": ptr(int64(1))}})), field: "walets"},
		{name: "set: unknown plan", try: set("acme", with(Change{Plan: ptr("gold")})), field: "plan"},
		{name: "set: unknown enrolment", try: set("acme", with(Change{Enrolment: ptr(Enrolment("shut"))})), field: "enrolment"},
		{name: "source: small window", try: window(time.Minute - 1), field: "window"},
		{name: "source: large window", try: window(24*time.Hour + time.Second), field: "window"},
		{name: "source: part of a second", try: window(time.Hour + time.Millisecond), field: "window"},

		{name: "domain: a rival's domain", try: add("vss.rival.com"), want: ErrDomainTaken},
		{name: "domain: a rival's domain, in other letters", try: add("VSS.Rival.com."), want: ErrDomainTaken},
		{name: "domain: the base domain", try: add("vss.example"), field: "domain"},
		{name: "domain: below the base domain", try: add("Rival.VSS.example."), field: "domain"},
		{name: "domain: far below the base domain", try: add("a.b.vss.example"), field: "domain"},
		{name: "domain: an address", try: add("192.0.2.1"), field: "domain"},
		{name: "domain: localhost", try: add("localhost"), field: "domain"},
		{name: "domain: a port", try: add("acme.com:443"), field: "domain"},
		{name: "domain: an international name that is none", try: add("bü cher.example"), field: "domain"},
		{name: "domain: an international name below the base domain", try: add("bücher.vss.example"), field: "domain"},
		{name: "domain: removing what is not there", try: remove("no.acme.com"), want: ErrNotFound},
		{name: "domain: removing a rival's domain", try: remove("vss.rival.com"), want: ErrNotFound},
		{name: "domain: removing NUL", try: remove("\x00"), want: ErrNotFound},
		{name: "set: a call that was given up", try: func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return set("acme", with(Change{}))(ctx)
		}, want: context.Canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, err := p.service.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rows, generation := p.audited(t), p.generation(t)
			if err = tc.try(t.Context()); tc.field != "" {
				wantInvalid(t, err, tc.field)
			} else {
				wantError(t, err, tc.want)
			}
			after, err := p.service.List(t.Context())
			if err != nil || !reflect.DeepEqual(before, after) {
				t.Errorf("tenants were %+v and are %+v, %v", before, after, err)
			}
			if p.audited(t) != rows || p.generation(t) != generation {
				t.Error("it left an audit row or another generation")
			}
		})
	}
}

func TestAllThatIsWrongWithAChangeIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	s, err := NewService(nil, ServiceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Set(t.Context(), root, "acme", Change{Name: ptr(""), Enrolment: ptr(Enrolment("shut")), Gate: ptr(GateState("shut")), Header: ptr("A B")})
	for _, part := range []string{"name: ", "enrolment: ", "client_key_gate: ", "client_key_header: "} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
}

func TestUnknownTenantsAreNotFound(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	for _, slug := range []string{"", "nobody", "ACME", "acme ", "acme\x00", "\xff", strings.Repeat("a", 1<<16)} {
		got, err := p.service.Get(t.Context(), slug)
		wantError(t, err, ErrNotFound)
		if got != nil {
			t.Errorf("%.20q: got %+v", slug, got)
		}
	}
}

func TestEveryChangeHasOneAuditRow(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	last := func() string {
		return query[string](t, p, `SELECT actor || ' ' || action || ' ' || tenants.slug || ' ' || detail::text
			FROM audit_log JOIN tenants ON tenants.id = tenant_id ORDER BY audit_log.id DESC LIMIT 1`)
	}
	before := p.audited(t)
	step := func(change func(), wantWho, wantDetail string) {
		t.Helper()
		change()
		who, detail, _ := strings.Cut(last(), "{")
		var got, want any
		if err := errors.Join(json.Unmarshal([]byte("{"+detail), &got), json.Unmarshal([]byte(wantDetail), &want)); err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(who) != wantWho || !reflect.DeepEqual(got, want) {
			t.Errorf("audited %s{%s, want %s %s", who, detail, wantWho, wantDetail)
		}
		if n := p.audited(t); n != before+1 {
			t.Errorf("%d audit rows, want one more than %d", n, before)
		}
		before++
	}
	step(func() { p.create(t, "acme") }, "operator:root@host tenant.create acme", `{
		"slug": {"after": "acme"}, "name": {"after": "Tenant acme"}, "state": {"after": "active"},
		"plan": {"after": "standard"}, "enrolment": {"after": "open"}, "client_key_gate": {"after": "off"}, "client_key_header": {"after": "X-Client-Key"},
		"source:signature": {"after": {"kind": "signature", "namespace": "sig", "window_seconds": 86400}}}`)
	step(func() { p.set(t, "acme", Change{State: ptr(ReadOnly)}) }, "operator:root@host tenant.set acme",
		`{"state": {"before": "active", "after": "read_only"}}`)
	step(func() {
		done(t)(p.service.SetSource(t.Context(), root, "acme", "signature", SourceChange{Window: ptr(time.Hour)}))
	}, "operator:root@host source.set acme",
		`{"source:signature": {
			"before": {"kind": "signature", "namespace": "sig", "window_seconds": 86400},
			"after": {"kind": "signature", "namespace": "sig", "window_seconds": 3600}}}`)
	step(func() { p.addDomain(t, "acme", "a.com") }, "operator:root@host domain.add acme",
		`{"domain:a.com": {"after": {"state": "verified", "vouched": true}}}`)
	step(func() { done(t)(p.service.RemoveDomain(t.Context(), root, "acme", "a.com")) }, "operator:root@host domain.remove acme",
		`{"domain:a.com": {"before": {"state": "verified", "vouched": true}}}`)
	step(func() {
		if _, err := p.service.Set(t.Context(), audit.Actor{Role: audit.Operator, Name: "eve@host", Confirmed: true}, "acme", Change{Limits: map[string]*int64{"wallets": ptr(int64(2048))}}); err != nil {
			t.Fatal(err)
		}
	}, "operator:eve@host tenant.set acme", `{"limit:wallets": {"after": 2048}}`)

	// What changes nothing is no change.
	p.set(t, "acme", Change{})
	p.set(t, "acme", Change{Name: ptr("Tenant acme"), State: ptr(ReadOnly)})
	done(t)(p.service.SetSource(t.Context(), root, "acme", "signature", SourceChange{Window: ptr(time.Hour)}))
	if n := p.audited(t); n != before {
		t.Errorf("%d audit rows, want %d", n, before)
	}
}

func TestAChangeThatCannotBeAuditedIsNotMade(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	want := p.create(t, "acme")
	p.sql(t, "ALTER TABLE audit_log ADD CHECK (false) NOT VALID")
	generation := p.generation(t)
	if _, err := p.service.Set(t.Context(), root, "acme", Change{State: ptr(Closed)}); err == nil {
		t.Error("Set succeeded")
	}
	if _, err := p.service.Create(t.Context(), root, NewTenant{Slug: "new", Name: "New"}); err == nil {
		t.Error("Create succeeded")
	}
	all, err := p.service.List(t.Context())
	if err != nil || !reflect.DeepEqual(all, []*Tenant{want}) {
		t.Errorf("there are %+v, %v", all, err)
	}
	if p.generation(t) != generation {
		t.Error("the generation grew")
	}
}

func TestOfSeveralWhoWantASlugOneGetsIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	services := []*Service{p.service, newService(t, p.url)}
	for round := range 5 {
		slug := fmt.Sprint("slug-", round)
		errs := together(8, func(i int) error {
			_, err := services[i%2].Create(t.Context(), root, NewTenant{Slug: slug, Name: "Number " + fmt.Sprint(i)})
			return err
		})
		wantOneWinner(t, errs, ErrSlugTaken)
		if n := query[int](t, p, "SELECT count(*) FROM audit_log JOIN tenants ON tenants.id = tenant_id WHERE slug = $1", slug); n != 1 {
			t.Errorf("%d audit rows for %s", n, slug)
		}
	}
}

func TestASlugThatIsTakenByHandMeanwhileIsTaken(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	tx, err := p.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO tenants (slug, name) VALUES ('acme', 'by hand')"); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		_, err := p.service.Create(t.Context(), root, NewTenant{Slug: "acme", Name: "x"})
		result <- err
	}()
	time.Sleep(200 * time.Millisecond) // Create has found no such tenant and waits for the index
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-result, ErrSlugTaken)
	if n := p.audited(t); n != 0 {
		t.Errorf("%d audit rows", n)
	}
}

func TestAChangeByHandIsNeitherUndoneNorAuditedAsOurs(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	tx, err := p.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "UPDATE tenants SET state = 'closed'"); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		_, err := p.service.Set(t.Context(), root, "acme", Change{Name: ptr("Acme")})
		result <- err
	}()
	time.Sleep(200 * time.Millisecond) // Set waits for the row
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	got, err := p.service.Get(t.Context(), "acme")
	if err != nil || got.State != Closed || got.Name != "Acme" {
		t.Errorf("got %+v, %v", got, err)
	}
	detail := query[string](t, p, "SELECT detail::text FROM audit_log WHERE action = 'tenant.set'")
	if want := `{"name": {"after": "Acme", "before": "Tenant acme"}}`; detail != want {
		t.Errorf("audited %s, want %s", detail, want)
	}
}

func TestOfSeveralWhoWantADomainOneGetsIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	services := []*Service{p.service, newService(t, p.url)}
	for i := range 6 {
		p.create(t, fmt.Sprint("tenant-", i))
	}
	for round := range 5 {
		domain := fmt.Sprintf("round-%d.com", round)
		errs := together(6, func(i int) error {
			_, err := services[i%2].AddDomain(t.Context(), root, fmt.Sprint("tenant-", i), domain, true)
			return err
		})
		wantOneWinner(t, errs, ErrDomainTaken)
	}
}

func TestConcurrentChangesOfOneTenantAllHold(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	services := []*Service{p.service, newService(t, p.url)}
	p.create(t, "acme")
	before := p.audited(t)
	for _, err := range together(20, func(i int) error {
		_, err := services[i%2].AddDomain(t.Context(), root, "acme", fmt.Sprintf("d%d.com", i), true)
		return err
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	got, err := p.service.Get(t.Context(), "acme")
	if err != nil || len(got.Domains) != 20 {
		t.Errorf("got %+v, %v", got, err)
	}
	if n := p.audited(t); n != before+20 {
		t.Errorf("%d audit rows for 20 changes", n-before)
	}
	// Each row tells of its own change: one domain more.
	if n := query[int](t, p, `SELECT count(*) FROM audit_log WHERE action = 'domain.add'
		AND (SELECT count(*) FROM jsonb_object_keys(detail)) <> 1`); n != 0 {
		t.Errorf("%d audit rows tell of more than their change", n)
	}
}

func TestEveryKindOfChangeHasALaterGeneration(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	last := p.generation(t)
	grows := func(what string, change func()) {
		t.Helper()
		change()
		if g := p.generation(t); g <= last {
			t.Errorf("%s: generation %d after %d", what, g, last)
		} else {
			last = g
		}
	}
	grows("create", func() { p.create(t, "acme") })
	grows("name", func() { p.set(t, "acme", Change{Name: ptr("x")}) })
	grows("state", func() { p.set(t, "acme", Change{State: ptr(Closed)}) })
	grows("limit", func() { p.set(t, "acme", limitedTo(4096)) })
	grows("enrolment", func() { p.set(t, "acme", Change{Enrolment: ptr(EnrolmentClosed)}) })
	grows("window", func() {
		done(t)(p.service.SetSource(t.Context(), root, "acme", "signature", SourceChange{Window: ptr(time.Hour)}))
	})
	grows("new domain", func() { p.addDomain(t, "acme", "a.com") })
	grows("removed domain", func() { done(t)(p.service.RemoveDomain(t.Context(), root, "acme", "a.com")) })
	for _, statement := range []string{
		"INSERT INTO tenants (slug, name) VALUES ('hand', 'by hand')",
		"UPDATE tenants SET state = 'closed' WHERE slug = 'hand'",
		"INSERT INTO domains (host, tenant_id) SELECT 'hand.com', id FROM tenants WHERE slug = 'hand'",
		"UPDATE domains SET tenant_id = (SELECT id FROM tenants WHERE slug = 'acme')",
		"DELETE FROM domains",
		"TRUNCATE domains",
		"UPDATE credential_sources SET window_seconds = 60",
		"DELETE FROM credential_sources",
		"TRUNCATE credential_sources CASCADE",
		"DELETE FROM tenants WHERE slug = 'hand'",
		"UPDATE plans SET limits = limits",
	} {
		grows(statement, func() { p.sql(t, statement) })
	}
}

// What is said to last for ever, the service's role cannot change, nor can it rewrite the audit log.
func TestTheAdminRoleCanChangeNoIdentityAndNoHistory(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	for _, role := range []db.Role{db.RoleAdmin, db.RoleAPI} {
		pool := open(t, p.url, role)
		for _, statement := range []string{
			"UPDATE tenants SET slug = 'other'",
			"UPDATE tenants SET id = gen_random_uuid()",
			"DELETE FROM tenants",
			"UPDATE credential_sources SET namespace = 'other'",
			"UPDATE credential_sources SET tenant_id = gen_random_uuid()",
			"UPDATE credential_sources SET host = 'other.com'",
			"UPDATE source_keys SET public = ''",
			"DELETE FROM source_keys",
			"UPDATE client_keys SET hash = ''",
			"DELETE FROM credential_sources",
			"UPDATE domains SET host = 'other.com'",
			"UPDATE audit_log SET actor = 'nobody'",
			"DELETE FROM audit_log",
			"UPDATE directory SET generation = 0",
		} {
			_, err := pool.Exec(t.Context(), statement)
			if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "42501" {
				t.Errorf("%s: %s: got %v, want insufficient_privilege", role, statement, err)
			}
		}
	}
}

// together runs n calls at the same time.
func together(n int, call func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			<-start
			errs[i] = call(i)
		})
	}
	close(start)
	running.Wait()
	return errs
}

func wantOneWinner(t *testing.T, errs []error, others error) {
	t.Helper()
	winners := 0
	for _, err := range errs {
		if err == nil {
			winners++
		} else if !errors.Is(err, others) {
			t.Errorf("got %v, want %v", err, others)
		}
	}
	if winners != 1 {
		t.Errorf("%d of %d got it", winners, len(errs))
	}
}
