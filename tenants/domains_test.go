package tenants

import (
	"reflect"
	"testing"
)

// prove puts the record of a tenant's claim into DNS.
func (p *platform) prove(t *testing.T, slug, host string) {
	t.Helper()
	name, text := done(t)(p.service.Get(t.Context(), slug)).domain(host).Record()
	records.Store(name+".", []string{"v=spf1 -all", text})
}

func (p *platform) claim(t *testing.T, slug, host string) {
	t.Helper()
	done(t)(p.service.AddDomain(t.Context(), root, slug, host, false))
}

func (p *platform) state(t *testing.T, slug, host string) DomainState {
	t.Helper()
	d := done(t)(p.service.Get(t.Context(), slug)).domain(host)
	if d == nil {
		return ""
	}
	return d.State
}

func TestAClaimKeepsNobodyFromProvingADomainAndAProvedOneIsTaken(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "squatter")
	p.create(t, "owner")
	const host = "vss.wanted.com"
	p.claim(t, "squatter", host)
	p.claim(t, "owner", host)
	p.prove(t, "owner", host)
	done(t)(p.service.CheckDomain(t.Context(), root, "owner", host))
	_, err := p.service.AddDomain(t.Context(), root, "squatter", host, true)
	wantError(t, err, ErrDomainTaken)
	if got := [2]DomainState{p.state(t, "squatter", host), p.state(t, "owner", host)}; got != [2]DomainState{Pending, Verified} {
		t.Errorf("the states are %s", got)
	}

	// Where both have their records the one who has it keeps it.
	d := done(t)(p.service.Get(t.Context(), "squatter")).domain(host)
	name, text := d.Record()
	_, owners := done(t)(p.service.Get(t.Context(), "owner")).domain(host).Record()
	records.Store(name+".", []string{text, owners})
	_, err = p.service.CheckDomain(t.Context(), root, "squatter", host)
	wantError(t, err, ErrDomainTaken)
}

// A name that changes hands is its new owner's once DNS has the record of that one and no longer the other's. The
// audit log tells both.
func TestADomainGoesToTheTenantThatAloneProvesIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "before")
	p.create(t, "after")
	const host = "vss.sold.com"
	p.claim(t, "before", host)
	p.prove(t, "before", host)
	done(t)(p.service.CheckDomain(t.Context(), root, "before", host))
	p.claim(t, "after", host)
	_, err := p.service.CheckDomain(t.Context(), root, "after", host)
	wantError(t, err, ErrUnproved)
	p.prove(t, "after", host)
	done(t)(p.service.CheckDomain(t.Context(), root, "after", host))
	if got := [2]DomainState{p.state(t, "before", host), p.state(t, "after", host)}; got != [2]DomainState{Pending, Verified} {
		t.Errorf("the states are %s", got)
	}
	if n := query[int](t, p, "SELECT count(*) FROM audit_log JOIN tenants ON tenants.id = tenant_id WHERE slug = 'before' AND action = 'domain.release'"); n != 1 {
		t.Errorf("%d audit rows tell the tenant that lost it", n)
	}

	// An operator's word counts until an operator takes it back.
	p.create(t, "vouched", "vss.word.com")
	p.claim(t, "after", "vss.word.com")
	p.prove(t, "after", "vss.word.com")
	_, err = p.service.CheckDomain(t.Context(), root, "after", "vss.word.com")
	wantError(t, err, ErrDomainTaken)
}

func TestADomainThatAnOperatorVouchesForNeedsNoRecord(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.vouched.com")
	after := done(t)(p.service.CheckDomain(t.Context(), root, "acme", "vss.vouched.com"))
	if d := after.domain("vss.vouched.com"); d.State != Verified || !d.Vouched || d.CheckedAt.IsZero() {
		t.Errorf("got %+v", d)
	}
	p.claim(t, "acme", "bücher.acme.com")
	after = p.addDomain(t, "acme", "BÜCHER.acme.com") // vouched for later
	if got := p.state(t, "acme", "xn--bcher-kva.acme.com"); got != Verified || len(after.Domains) != 2 {
		t.Errorf("got %s of %+v", got, after.Domains)
	}
}

func TestTheHostOfAnAuthURLCannotBeRemoved(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme", "vss.login.com")
	p.addSource(t, "acme", NewSource{Name: "lnurl", Kind: LNURL, Host: "vss.login.com"})
	before := done(t)(p.service.Get(t.Context(), "acme"))
	_, err := p.service.RemoveDomain(t.Context(), root, "acme", "vss.login.com")
	wantInvalid(t, err, "domain")
	if after := done(t)(p.service.Get(t.Context(), "acme")); !reflect.DeepEqual(before, after) {
		t.Errorf("it left %+v", after)
	}
}

func TestATenantHasABoundedNumberOfDomains(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.sql(t, "INSERT INTO domains (host, tenant_id, state) SELECT 'd' || n || '.com', id, 'pending' FROM tenants, generate_series(1, $1) n", maxDomains)
	_, err := p.service.AddDomain(t.Context(), root, "acme", "one-more.com", false)
	wantInvalid(t, err, "domain")
}
