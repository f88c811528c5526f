package tenants

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

func TestAPlanSaysEveryLimitInBounds(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	plans, err := p.service.Plans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range quota.Names() {
		for what, value := range map[string]int64{"zero": 0, "negative": -1, "enormous": 1 << 62} {
			bad := maps.Clone(plans["standard"])
			bad[name] = value
			if err := p.service.SavePlan(t.Context(), root, "bad", "", bad); err == nil {
				t.Errorf("%s: %s was taken", name, what)
			} else {
				wantInvalid(t, err, name)
			}
		}
		// By hand: the service saves none that lacks one.
		p.sql(t, "INSERT INTO plans (name, limits) SELECT 'lacking', limits - $1 FROM plans WHERE name = 'standard'", name)
		wantInvalid(t, p.service.SavePlan(t.Context(), root, "bad", "lacking", nil), name)
		wantInvalid(t, p.service.SavePlan(t.Context(), root, "lacking", "", nil), name)
		if err := p.service.SavePlan(t.Context(), root, "lacking", "", quota.Values{name: plans["standard"][name]}); err != nil {
			t.Errorf("%s: a plan that lacked it cannot be mended: %v", name, err)
		}
		p.sql(t, "DELETE FROM plans WHERE name = 'lacking'")
	}
	wantInvalid(t, p.service.SavePlan(t.Context(), root, "bad", "", quota.Values{"limit_of_tomorrow": 1}), "limit_of_tomorrow")
	wantError(t, p.service.SavePlan(t.Context(), audit.Actor{}, "x", "", plans["standard"]), audit.ErrNoActor)
	wantInvalid(t, p.service.SavePlan(t.Context(), root, "Bad Name", "", plans["standard"]), "plan")
	if after, err := p.service.Plans(t.Context()); err != nil || !reflect.DeepEqual(plans, after) {
		t.Errorf("there are %v, %v", after, err)
	}

	// A plan cannot change under a tenant into what does not fit the tenant's own limits.
	p.create(t, "acme")
	p.set(t, "acme", Change{Limits: map[string]*int64{"value_size": ptr(int64(50 << 20))}})
	changed := maps.Clone(plans["standard"])
	changed["body_size"], changed["value_size"] = 10<<20, 10<<20
	wantInvalid(t, p.service.SavePlan(t.Context(), root, "standard", "", changed), "plan")
}

func TestAPlanBeginsAsAnotherAndKeepsWhatIsNotChanged(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	plans, err := p.service.Plans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(plans["standard"])
	for _, step := range []struct {
		name, from string
		changes    quota.Values
		invalid    string // the field that is; empty: none
	}{
		{"gold", "", quota.Values{"wallets": 50, "value_size": 20 << 20}, ""},
		{"gold", "", quota.Values{"wallets": 60}, ""},
		{"gold", "", nil, ""},
		{"gold", "standard", quota.Values{"wallets": 70}, "from"},
		{"gold", "gold", quota.Values{"wallets": 70}, "from"},
		{"silver", "bronze", nil, "from"},
		{"silver", "silver", nil, "from"},
		{"silver", "No Label", nil, "from"},
		{"silver", "gold", quota.Values{"objects_per_store": 80}, ""},
	} {
		err := p.service.SavePlan(t.Context(), root, step.name, step.from, step.changes)
		if step.invalid != "" {
			wantInvalid(t, err, step.invalid)
			continue
		}
		maps.Copy(want, step.changes)
		if got, _ := p.service.Plan(t.Context(), step.name); err != nil || !maps.Equal(got, want) {
			t.Errorf("%+v: got %v, %v, want %v", step, got, err, want)
		}
	}
	if n := p.audited(t); n != 3 {
		t.Errorf("three changes have %d audit rows", n)
	}
}

func TestChangesOfOnePlanAtOnceAllHold(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	changes := []quota.Values{{"wallets": 11}, {"objects_per_store": 12}, {"bytes_per_store": 13, "soft_percent": 14}}
	hold, err := p.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := dbgen.New().LockControlPlane(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for _, change := range changes {
		service := newService(t, p.url)
		running.Go(func() {
			if err := service.SavePlan(t.Context(), root, "standard", "", change); err != nil {
				t.Error(err)
			}
		})
	}
	p.waiting(t, len(changes))
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	running.Wait()
	after, err := p.service.Plan(t.Context(), "standard")
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		for name, value := range change {
			if after[name] != value {
				t.Errorf("%s is %d, and was made %d", name, after[name], value)
			}
			if n := query[int](t, p, "SELECT count(*) FROM audit_log WHERE detail::text LIKE '%' || $1 || '\"%'", name); n != 1 {
				t.Errorf("%d audit rows tell of %s", n, name)
			}
		}
	}
}

// waiting waits until so many transactions of the platform wait for others.
func (p *platform) waiting(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprint(want, " transactions wait"), func() bool {
		return query[int](t, p, `SELECT count(DISTINCT w.pid) FROM pg_locks w JOIN pg_locks here USING (pid) JOIN pg_database d ON d.oid = here.database
			WHERE NOT w.granted AND d.datname = current_database()`) == want
	})
}

func TestWalletsAreBlockedAndListedBySubject(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	tenant := p.create(t, "acme")
	p.create(t, "rival")
	owner, err := tenant.walletOf("signature", keyOne)
	if err != nil {
		t.Fatal(err)
	}
	id := owner.Wallet()
	_, err = p.service.Wallet(t.Context(), "acme", "signature", keyOne)
	wantError(t, err, ErrNotFound)
	wantError(t, p.service.BlockWallet(t.Context(), root, "acme", "signature", keyOne, true), ErrNotFound)
	p.sql(t, "INSERT INTO wallets (wallet, tenant_id, namespace, subject) VALUES ($1, $2, 'sig', $3)", uuid.UUID(id), tenant.ID, keyOne)
	p.sql(t, "INSERT INTO stores (store, wallet, store_id, objects, bytes) VALUES (gen_random_uuid(), $1, 'a', 3, 40), (gen_random_uuid(), $1, 'b', 1, 2)", uuid.UUID(id))
	version := func() string {
		return query[string](t, p, "SELECT string_agg(xmin::text, ' ') FROM (SELECT xmin FROM wallets UNION ALL SELECT xmin FROM stores) w")
	}
	for _, block := range []bool{true, false, true} {
		if err := p.service.BlockWallet(t.Context(), root, "acme", "signature", keyOne, block); err != nil {
			t.Fatal(err)
		}
		// To say it again changes nothing, and there is nothing to be audited.
		before := version()
		if err := p.service.BlockWallet(t.Context(), root, "acme", "signature", " "+strings.ToUpper(keyOne), block); err != nil {
			t.Fatal(err)
		}
		if after := version(); after != before {
			t.Errorf("rows were of %s, and are of %s", before, after)
		}
		info, err := p.service.Wallet(t.Context(), "acme", "signature", keyOne)
		if err != nil || info.Blocked != block || info.Stores != 2 || info.Objects != 4 || info.Bytes != 42 {
			t.Errorf("got %+v, %v", info, err)
		}
		if n := query[int](t, p, "SELECT count(*) FROM stores WHERE blocked = $1", block); n != 2 {
			t.Errorf("%d stores are as their wallet", n)
		}
	}
	wantError(t, p.service.BlockWallet(t.Context(), root, "rival", "signature", keyOne, false), ErrNotFound)
	if n := query[int](t, p, "SELECT count(*) FROM audit_log WHERE action = 'wallet.block' AND detail::text LIKE '%' || $1 || '%'", id.String()); n != 3 {
		t.Errorf("%d audit rows", n)
	}

	p.addSource(t, "acme", NewSource{Name: "auth", Kind: JWT, Rules: from(""), Keys: jwks(lnurl.NewSigningKey())})
	var subjects []string
	for i := range 1000 {
		subjects = append(subjects, fmt.Sprint("subject ", i))
	}
	for _, step := range []struct {
		listed bool
		want   int64
	}{{true, 1000}, {true, 0}, {false, 1000}, {false, 0}} {
		n, err := p.service.AllowWallets(t.Context(), root, "acme", "auth", subjects, step.listed)
		if err != nil || n != step.want {
			t.Errorf("%+v: changed %d, %v", step, n, err)
		}
	}
	_, err = p.service.AllowWallets(t.Context(), root, "acme", "auth", []string{"good", "", "good too"}, true)
	wantInvalid(t, err, "subject")
	_, err = p.service.AllowWallets(t.Context(), root, "acme", "nobody", []string{"x"}, true)
	wantError(t, err, ErrNotFound)
	if n := query[int](t, p, "SELECT count(*) FROM listed_wallets"); n != 0 {
		t.Errorf("%d are listed", n)
	}
}

func TestABlockMissesNoStoreThatIsBeingCreated(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	owner, err := p.create(t, "acme").walletOf("signature", keyOne)
	if err != nil {
		t.Fatal(err)
	}
	wallet := uuid.UUID(owner.Wallet())
	p.sql(t, "INSERT INTO wallets (wallet, tenant_id, namespace, subject) VALUES ($1, $2, 'sig', $3)", wallet, owner.Tenant, keyOne)
	for _, block := range []bool{true, false} {
		first, err := p.owner.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = dbgen.New().CreateStore(t.Context(), first, dbgen.CreateStoreParams{Store: uuid.New(), StoreID: fmt.Sprint(block), Wallet: wallet})
		if err != nil {
			t.Fatal(err)
		}
		blocked := make(chan error)
		go func() {
			blocked <- p.service.BlockWallet(t.Context(), root, "acme", "signature", keyOne, block)
		}()
		p.waiting(t, 1)
		if err := errors.Join(first.Commit(t.Context()), <-blocked); err != nil {
			t.Fatal(err)
		}
		if n := query[int](t, p, "SELECT count(*) FROM stores WHERE blocked <> $1", block); n != 0 {
			t.Errorf("%d stores are not as their wallet", n)
		}
	}
}

func TestASubjectHasTheFormThatItsSourceNeeds(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	p.addSource(t, "acme", NewSource{Name: "auth", Kind: JWT, Rules: from("https://b.example"), Keys: jwks(lnurl.NewSigningKey())})
	p.addSource(t, "acme", NewSource{Name: "lnurl", Kind: LNURL, Host: "acme.vss.example"})
	p.addSource(t, "acme", NewSource{Name: "removed", Kind: JWT, Rules: from("https://a.example"), Keys: jwks(lnurl.NewSigningKey())})
	done(t)(p.service.RemoveSource(t.Context(), root, "acme", "removed"))
	all, keys, subs := []string{"signature", "lnurl", "auth", "removed"}, []string{"signature", "lnurl"}, []string{"auth", "removed"}
	for _, tc := range []struct {
		subject string
		good    []string // the sources that can name a wallet so
	}{
		{keyOne, all},
		{keyLast, all},
		{strings.ToUpper(keyTwo), all},
		{" " + keyTwo + "\r", all}, // of the same wallet
		{"user 1", subs},
		{keyOne[:64], subs},
		{keyOne + "00", subs},
		{"04" + keyOne[2:], subs}, // not compressed
		{"0x" + keyOne[2:], subs},
		{keyOne[2:] + "02", subs},
		{strings.Repeat("x", 66), subs},
		{"", nil},
	} {
		for _, source := range all {
			n, err := p.service.AllowWallets(t.Context(), root, "acme", source, []string{keyOne, tc.subject}, true)
			_, shown := p.service.Wallet(t.Context(), "acme", source, tc.subject)
			block := p.service.BlockWallet(t.Context(), root, "acme", source, tc.subject, true)
			if slices.Contains(tc.good, source) {
				if err != nil {
					t.Errorf("%s, %q: %v", source, tc.subject, err)
				}
				wantError(t, shown, ErrNotFound)
				wantError(t, block, ErrNotFound)
				continue
			}
			wantInvalid(t, err, "subject")
			wantInvalid(t, shown, "subject")
			wantInvalid(t, block, "subject")
			if e, ok := errors.AsType[*SubjectError](err); !ok || e.Number != 2 || n != 0 || !strings.HasPrefix(err.Error(), "subject: number 2: ") {
				t.Errorf("%s, %q: changed %d, %v", source, tc.subject, n, err)
			}
			if slices.Contains(keys, source) && !strings.Contains(err.Error(), fmt.Sprintf("66 hex digits that begin with 02 or 03, which %q is not", tc.subject)) {
				t.Errorf("%s, %q: it is not said what is: %v", source, tc.subject, err)
			}
		}
	}
	if n := query[int](t, p, "SELECT count(*) FROM listed_wallets WHERE namespace IN ('sig', 'lnurl')"); n != 6 {
		t.Errorf("three keys at two sources are %d wallets on the list", n)
	}
	if n := query[int](t, p, "SELECT count(*) FROM listed_wallets WHERE namespace IN ('sig', 'lnurl') AND subject NOT IN ($1, $2, $3)", keyOne, keyTwo, keyLast); n != 0 {
		t.Errorf("%d are not listed as their credentials name them", n)
	}
	_, err := p.service.AllowWallets(t.Context(), root, "acme", "nobody", nil, true)
	wantError(t, err, ErrNotFound)
}

func TestAChangeOfKeysIsAnEvent(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.create(t, "acme")
	before := query[int](t, p, "SELECT count(*) FROM events")
	p.set(t, "acme", Change{Name: ptr("x")})
	p.addSource(t, "acme", NewSource{Name: "lnurl", Kind: LNURL, Host: "acme.vss.example"})
	done(t)(p.service.RotateKey(t.Context(), root, "acme", "lnurl", false))
	if n := query[int](t, p, "SELECT count(*) FROM events WHERE kind = 'keys_changed'"); n != before+2 {
		t.Errorf("%d events, %d before two changes", n, before)
	}
	if got := query[string](t, p, "SELECT string_agg(DISTINCT subject, ' ') FROM events"); got != "lnurl" {
		t.Errorf("the events are of %q", got)
	}
	if text := query[string](t, p, "SELECT string_agg(detail::text, '') FROM events"); !strings.Contains(text, "key:lnurl:") {
		t.Errorf("the events say %s", text)
	}
}
