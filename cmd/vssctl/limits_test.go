package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/db/embedded"
	"github.com/vss-cloud/vss-cloud/quota"
)

// TestTheOperatorLimitsTenants has one platform, and a tenant for each part.
func TestTheOperatorLimitsTenants(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	p := s.dev()
	plansChangedAtOnce(t, s)
	for name, part := range map[string]func(*testing.T, *shell, string, string){
		"plans":     plans,
		"own":       ownLimits,
		"measured":  measured,
		"storage":   storageLimits,
		"rates":     rates,
		"blocks":    blocks,
		"enrolment": enrolment,
		"usage":     usageAndEvents,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			s.want(0, name, "tenant", "create", name)
			part(t, s, name, strings.Replace(p.base, "/demo/", "/"+name+"/", 1))
		})
	}
}

// walletOf is the shell with a wallet of its own, and the wallet's subject.
func (s *shell) walletOf(i byte) (*shell, string) {
	s.t.Helper()
	key := [32]byte{31: i}
	auth, err := client.NewSignatureAuth(key)
	if err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.t.TempDir(), "wallet.key")
	if err := os.WriteFile(file, []byte(hex.EncodeToString(key[:])), 0o600); err != nil {
		s.t.Fatal(err)
	}
	other := *s
	other.env = append(other.env[:len(other.env):len(other.env)], "VSS_WALLET_KEY_FILE="+file)
	return &other, auth.Subject()
}

// reach waits until a tenant that was just made is served.
func (s *shell) reach(base string) {
	s.t.Helper()
	eventually(s.t, func() bool {
		code, _, stderr := s.run("get", "k", "--url", base)
		return code == 3 && strings.Contains(stderr, "no such key") // an unknown tenant is 3, too
	})
}

// sql is what another process writes.
func (s *shell) sql(statement string, args ...any) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), embedded.URL(s.dataDir, databaseName))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(s.t.Context())
	if _, err := conn.Exec(s.t.Context(), statement, args...); err != nil {
		s.t.Fatal(err)
	}
}

// plansChangedAtOnce has the platform for itself.
func plansChangedAtOnce(t *testing.T, s *shell) {
	s.want(0, "", "plan", "set", "shared")
	conn, err := pgx.Connect(t.Context(), embedded.URL(s.dataDir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	hold, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := dbgen.New().LockControlPlane(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for _, change := range []string{"wallets=11", "objects_per_store=12"} {
		running.Go(func() {
			if code, _, stderr := s.run("plan", "set", "shared", change); code != 0 {
				t.Errorf("plan set shared %s: exit code %d, %s", change, code, stderr)
			}
		})
	}
	eventually(t, func() bool { // both have read the plan that each of them changes
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 2
	})
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	running.Wait()
	s.want(0, `(?s)wallets +11\n.*objects_per_store +12\n`, "plan", "show", "shared")
	s.want(0, "", "plan", "delete", "shared")
}

func plans(t *testing.T, s *shell, tenant, _ string) {
	s.want(0, `standard +[0-9]+ +100000 +1073741824 \(1 GiB\)`, "plan", "list")
	s.want(0, `(?s)plan gold, which 0 tenants have.*wallets +50\n.*value_size +20971520 \(20 MiB\)`, "plan", "set", "gold", "wallets=50", "value_size=20MiB")
	s.want(0, `"wallets": 60`, "plan", "set", "silver", "--from", "gold", "wallets=60", "--json")
	s.want(0, `"value_size": 20971520`, "plan", "show", "silver", "--json")
	s.want(2, "from: there is no plan bronze", "plan", "set", "iron", "--from", "bronze")
	s.want(2, "from: is for a new plan", "plan", "set", "silver", "--from", "gold")
	s.want(2, "say which limits of plan silver are to be others", "plan", "set", "silver")
	s.want(2, "plan: ", "plan", "set", "No.Label", "wallets=1")
	s.want(3, "there is no plan", "plan", "show", "bronze")
	for limit, why := range map[string]string{
		"wallets=0":                              "wallets: is 0, allowed are 1 to",
		"wallets=-1":                             "wallets: is -1, allowed are 1 to",
		"wallets=":                               "wallets: a plan has every limit: give a number",
		"wallets":                                "is no limit=value",
		"wallets=many":                           `wallets: "many" is not a whole number`,
		"wallets=1KiB":                           `wallets: "1KiB" is not a whole number`,
		"value_size=1.5M":                        `value_size: "1.5M" is not a whole number of bytes`,
		"value_size=9GiB":                        "value_size: is 9663676416, allowed are 1024 to",
		"value_size=30MiB":                       "value_size: is 31457280, but a body_size of",
		"bytes_per_store=9223372036854775807KiB": "bytes_per_store: .* is too large",
		"walets=1":                               "walets: is no limit: 'plan show standard' has the names",
	} {
		s.want(2, why, "plan", "set", "silver", "body_size=20MiB", limit)
	}
	s.want(2, "wallets: is given twice", "plan", "set", "silver", "wallets=1", "wallets=2")
	s.want(0, "wallets +60\n", "plan", "show", "silver") // nothing of all that was done

	s.want(2, `(?s)value_size 20971520 instead of 104857600 refuses values that grow beyond 25165824 bytes.*lose its channels.*say --yes`, "tenant", "set", tenant, "--plan", "gold")
	s.want(2, "plan: .*there is no plan", "tenant", "set", tenant, "--plan", "bronze")
	s.want(0, "plan +gold", "tenant", "set", tenant, "--plan", "gold", "--yes")
	s.want(2, "plan: is in use", "plan", "delete", "gold")
	s.want(2, "(?s)Tenant "+tenant+": value_size 1048576 instead of 20971520 refuses values.*lose its channels.*say --yes", "plan", "set", "gold", "value_size=1MiB")
	s.want(0, "which 1 tenants have", "plan", "set", "gold", "wallets=100")
	s.want(0, `wallets +100 +plan gold`, "tenant", "limits", tenant)
	s.want(0, "plan +standard", "tenant", "set", tenant, "--plan", "standard") // up: nobody is asked
	s.want(0, "deleted plan gold", "plan", "delete", "gold")
	s.want(3, "there is no plan", "plan", "delete", "gold")
	var views []planView
	if err := json.Unmarshal([]byte(s.want(0, "", "plan", "list", "--json")), &views); err != nil || len(views) != 2 || views[0].Name != "silver" {
		t.Fatalf("plan list: %+v, %v", views, err)
	}
	for _, name := range quota.Names() {
		if views[0].Limits[name] == 0 {
			t.Errorf("plan list --json has no %s", name)
		}
	}
}

func ownLimits(t *testing.T, s *shell, tenant, _ string) {
	s.want(3, "no such tenant", "tenant", "limits", "nobody")
	s.want(3, "no such tenant", "tenant", "limits", "nobody", "wallets=1")
	s.want(0, `wallets +200000 +the tenant \(plan: 100000\)`, "tenant", "limits", tenant, "wallets=200000", "bytes_per_store=2GiB")
	s.want(0, `(?s)wallets +200000.*bytes_per_store +2147483648 \(2 GiB\) +the tenant`, "tenant", "limits", tenant)
	s.want(2, "wallets: is 0, allowed are 1 to", "tenant", "limits", tenant, "wallets=0", "--yes")
	s.want(2, "is no limit", "tenant", "limits", tenant, "nothing=1")
	s.want(2, "what makes a store grow beyond 1288490188 bytes.*say --yes", "tenant", "limits", tenant, "bytes_per_store=") // from 2 GiB
	var view struct {
		Tenant, Plan string
		Limits       []limitView
	}
	out := s.want(0, "", "tenant", "limits", tenant, "bytes_per_store=", "reserve_percent=10", "--yes", "--json")
	if err := json.Unmarshal([]byte(out), &view); err != nil || view.Tenant != tenant || view.Plan != "standard" || len(view.Limits) != len(quota.Names()) {
		t.Fatalf("tenant limits: %+v, %v", view, err)
	}
	for _, l := range view.Limits {
		own := map[string]int64{"wallets": 200000, "reserve_percent": 10}[l.Name]
		if from := map[bool]string{true: "tenant", false: "plan"}[own != 0]; l.From != from || own != 0 && l.Value != own || own == 0 && l.Value != l.Plan {
			t.Errorf("got %+v", l)
		}
	}
}

// measured has a tenant without wallets, whose totals nobody else measures.
func measured(_ *testing.T, s *shell, tenant, _ string) {
	s.want(2, "how much is in use was not measured yet.*say --yes", "tenant", "limits", tenant, "wallets=50")
	s.sql("INSERT INTO tenant_totals (tenant_id, wallets, stores, objects, bytes) SELECT id, 40, 50, 60, 4096 FROM tenants WHERE slug = $1", tenant)
	s.want(0, `(?s)wallets +50 +the tenant \(plan: 100000\) +40\n.*bytes_per_tenant .* 4096 \(4 KiB\)\n.*In use as of`, "tenant", "limits", tenant, "wallets=50")
	s.want(2, "wallets 30 instead of 50 refuses new wallets: there are 40, which go on.*say --yes", "tenant", "limits", tenant, "wallets=30")
	s.want(0, `(?s)wallets refuses new wallets: there are 40`, "tenant", "limits", tenant, "wallets=30", "--yes")
	s.want(0, `(?s)bytes_per_tenant refuses new wallets and new stores: 4096 bytes are stored`, "tenant", "limits", tenant, "bytes_per_tenant=1KiB", "--yes")
	s.want(0, `(?s)"in_use": 40,\s+"refuses": "new wallets`, "tenant", "limits", tenant, "--json")
	s.want(0, `wallets +100000 +plan standard +40`, "tenant", "limits", tenant, "wallets=")
}

func storageLimits(t *testing.T, s *shell, tenant, base string) {
	put := func(code int, match, store, key, value string) {
		t.Helper()
		s.want(code, match, "put", key, value, "--url", base, "--store-id", store)
	}
	s.reach(base)
	small, large := "v", strings.Repeat("v", 2000)
	put(0, "saved", "one", "k", small)
	put(0, "saved", "one", "large", large)
	s.want(0, "value_size", "tenant", "limits", tenant, "value_size=1KiB", "--yes")
	tries := 0
	eventually(t, func() bool { // each try another key: what is there does not grow
		tries++
		code, _, _ := s.run("put", fmt.Sprint("probe ", tries), large, "--url", base, "--store-id", "one")
		return code != 0
	})
	put(6, `refused: storage quota value_size: the write would make it 2000, allowed are 1228 \(HTTP 507\)`, "one", "k", large)
	put(0, "saved", "one", "large", strings.Repeat("w", 2000)) // it does not grow
	put(0, "saved", "one", "k", "w")
	s.want(0, "", "delete", "large", "--url", base, "--store-id", "one")
	s.want(3, "no such key", "get", "large", "--url", base, "--store-id", "one")

	s.want(0, "bytes_per_store", "tenant", "limits", tenant, "value_size=", "bytes_per_store=1KiB", "--yes")
	eventually(t, func() bool {
		code, _, _ := s.run("put", "probe", large, "--url", base, "--store-id", "one")
		return code == 0
	})
	put(6, `refused: storage quota bytes_per_store: .*allowed are 1024 \(HTTP 507\)`, "two", "k", large)
	put(0, "saved", "two", "k", small)
	put(0, "saved", "two", "l", large) // in the reserve of a store that exists
}

func blocks(t *testing.T, s *shell, tenant, base string) {
	mine, subject := s.walletOf(1)
	_, stranger := s.walletOf(2)
	s.reach(base)
	mine.want(0, "saved", "put", "k", "v", "--url", base)
	name := []string{tenant, "signature", subject}
	with := func(command string, flags ...string) []string {
		return append(append([]string{"wallet", command}, name...), flags...)
	}
	s.want(0, `(?s)subject +`+subject+`.*state +active.*stores +1\nkeys +1`, with("show")...)
	s.want(0, "active", "wallet", "show", tenant, "signature", strings.ToUpper(subject))
	s.want(3, "no wallet of source signature", "wallet", "show", tenant, "signature", stranger)
	s.want(3, "no wallet", "wallet", "block", tenant, "signature", stranger, "--yes")
	s.want(3, "no such tenant", "wallet", "show", "nobody", "signature", subject)
	s.want(3, "no source", "wallet", "show", tenant, "none", subject)
	s.want(2, "subject: source signature names its wallets by public keys", "wallet", "show", tenant, "signature", "user 1")
	s.want(2, "Every write of this wallet .*say --yes", with("block")...)
	mine.want(0, "saved", "put", "k", "v", "--url", base)

	s.want(0, "state +blocked", with("block", "--yes")...)
	mine.want(6, `refused: this wallet is blocked: it can read and not write \(HTTP 403\)`, "put", "k", "w", "--url", base)
	mine.want(6, `refused: .*blocked.*\(HTTP 403\)`, "put", "k", "w", "--url", base, "--store-id", "another")
	mine.want(6, `refused: .*blocked.*\(HTTP 403\)`, "delete", "k", "--url", base)
	mine.want(0, "^v$", "get", "k", "--url", base)
	mine.want(0, "k", "list", "--url", base)
	var view map[string]any
	if err := json.Unmarshal([]byte(s.want(0, "", with("show", "--json")...)), &view); err != nil || view["blocked"] != true {
		t.Fatalf("wallet show: %v, %v", view, err)
	}
	for _, field := range []string{"wallet", "source", "subject", "stores", "objects", "bytes", "enrolled_at", "last_written_at"} {
		if view[field] == nil {
			t.Errorf("wallet show --json has no %s: %v", field, view)
		}
	}
	s.want(0, "state +active", with("unblock")...)
	mine.want(0, "saved", "put", "k", "w", "--url", base)
}

func enrolment(t *testing.T, s *shell, tenant, base string) {
	known, _ := s.walletOf(1)
	late, subject := s.walletOf(2)
	other, third := s.walletOf(3)
	tries := byte(100)
	s.reach(base)
	known.want(0, "saved", "put", "k", "v", "--url", base)
	s.want(2, "New wallets of tenant .* are refused; enrolled ones go on.*say --yes", "tenant", "set", tenant, "--enrolment", "closed")
	s.want(2, "not on its list are refused.*say --yes", "tenant", "set", tenant, "--enrolment", "listed")
	s.want(0, "enrolment closed", "tenant", "set", tenant, "--enrolment", "closed", "--yes")
	eventually(t, func() bool { // each try another wallet: one that gets in is known from then on
		tries++
		fresh, _ := s.walletOf(tries)
		code, _, _ := fresh.run("put", "k", "v", "--url", base)
		return code == 5
	})
	late.want(5, `not authorized: .*takes no new one \(HTTP 401`, "put", "k", "v", "--url", base)
	known.want(0, "saved", "put", "k", "w", "--url", base)
	known.want(0, "saved", "put", "k", "w", "--url", base, "--store-id", "another")

	s.with(subject).want(0, "(?s)1 of 1 wallets were put on the list.*Enrolment is closed: the list is asked once it is listed", "wallet", "allow", tenant, "signature", "-")
	s.want(0, "enrolment listed", "tenant", "set", tenant, "--enrolment", "listed") // from closed: nobody is asked
	eventually(t, func() bool { code, _, _ := late.run("put", "k", "v", "--url", base); return code == 0 })
	file := filepath.Join(t.TempDir(), "subjects")
	if err := os.WriteFile(file, []byte(strings.ToUpper(third)+" \r\n\n"+subject+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(0, `^1 of 2 wallets were put on the list of those that may enrol\n$`, "wallet", "allow", tenant, "signature", file)
	s.want(0, `(?s)"given": 2,\s+"changed": 2`, "wallet", "disallow", tenant, "signature", file, "--json")
	late.want(0, "saved", "put", "k", "w", "--url", base) // it is a wallet already
	other.want(5, "takes no new one", "put", "k", "v", "--url", base)
	other.want(5, "takes no new one", "put", "k", "v", "--url", base)
	s.with("\n \n").want(2, "subjects: there are none", "wallet", "allow", tenant, "signature", "-")
	s.with(subject+"\nuser 2\n").want(2, "line 2: subject: source signature names its wallets by public keys", "wallet", "allow", tenant, "signature", "-")
	s.with("\n"+subject+"\n\nuser 2").want(2, `line 4: subject: .*66 hex digits that begin with 02 or 03, which "user 2" is not`, "wallet", "disallow", tenant, "signature", "-")
	s.with(subject).want(3, "no source", "wallet", "allow", tenant, "none", "-")
	s.want(1, "no such file", "wallet", "allow", tenant, "signature", file+".none")
	i := newIssuer(t, "k")
	s.with(i.jwks(t)).want(0, "", "source", "add", tenant, "app", "--kind", "jwt", "--keys", "-")
	s.with("user 1\nuser 2").want(0, "2 of 2 wallets", "wallet", "allow", tenant, "app", "-")
}

func rates(t *testing.T, s *shell, tenant, base string) {
	s.reach(base)
	s.want(2, "wallet_writes_per_minute 1 instead of 1200 refuses writes beyond it, for a while.*lose its channels.*say --yes", "tenant", "limits", tenant, "wallet_writes_per_minute=1")
	s.want(0, "tenant_writes_burst +1 +the tenant", "tenant", "limits", tenant, "tenant_writes_per_minute=1", "tenant_writes_burst=1", "--yes")
	eventually(t, func() bool {
		code, _, err := s.run("put", "k", "v", "--url", base)
		return code == 6 && regexp.MustCompile(`refused: too many calls .*\(HTTP 429\)`).MatchString(err)
	})
	s.want(0, "^v$", "get", "k", "--url", base)
}

func usageAndEvents(t *testing.T, s *shell, tenant, base string) {
	const of = " FROM tenants WHERE slug = $1"
	s.sql("INSERT INTO usage (tenant_id, grain, start, metric, value) SELECT id, 'hour', date_trunc('hour', now()), 'bytes_in', 11"+of, tenant)
	s.sql("INSERT INTO usage (tenant_id, grain, start, metric, value) SELECT id, 'day', '2026-01-31T00:00Z', 'requests.getObject.ok', 12"+of, tenant)
	s.sql("INSERT INTO usage (tenant_id, grain, start, metric, value) SELECT id, 'month', '2026-01-01T00:00Z', 'active_wallets', 13"+of, tenant)
	s.sql("INSERT INTO events (tenant_id, kind, subject, state, detail) SELECT id, 'storage', 'a store', 'soft', '{\"used\": 14}'"+of, tenant)
	s.sql("INSERT INTO instances (id, host, version, started_at, seen_at) VALUES (gen_random_uuid(), 'elsewhere', 'v0.1', now() - interval '3 hours', now() - interval '1 hour')")

	s.want(0, `[0-9-]+T[0-9]{2}:00Z +bytes_in +11`, "tenant", "usage", tenant, "--by", "hour")
	s.want(0, `2026-01-31 +requests.getObject.ok +12`, "tenant", "usage", tenant, "--since", "2026-01-31T15:00:00Z")
	s.want(0, `2026-01 +active_wallets +13`, "tenant", "usage", tenant, "--by", "month", "--since", "2026-01-31")
	s.want(0, `(?s)"start": "2026-01-01T00:00:00Z",\s+"metric": "active_wallets",\s+"value": 13`, "tenant", "usage", tenant, "--by", "month", "--since", "2026-01-31", "--json")
	if out := s.want(0, "", "tenant", "usage", tenant, "--since", "2026-02-01"); strings.Contains(out, "getObject") {
		t.Errorf("usage from before --since: %s", out)
	}
	s.reach(base)
	s.want(0, "saved", "put", "k", "v", "--url", base)
	eventually(t, func() bool {
		_, out, _ := s.run("tenant", "usage", tenant, "--by", "hour")
		return regexp.MustCompile(`requests\.putObjects\.\S+ +1\n`).MatchString(out)
	})
	s.want(2, "--since yesterday is no date", "tenant", "usage", tenant, "--since", "yesterday")
	s.want(2, "--by must be one of", "tenant", "usage", tenant, "--by", "week")
	s.want(3, "no such tenant", "tenant", "usage", "nobody")
	s.want(0, `storage +soft +a store +{"used": 14}`, "tenant", "events", tenant)
	s.want(0, `(?s)^\[\s+{\s+"id": [0-9]+,\s+"kind": "storage",\s+"subject": "a store",\s+"state": "soft",\s+"detail": {\s+"used": 14`, "tenant", "events", tenant, "--json", "--limit", "1")
	s.want(2, "--limit must be", "tenant", "events", tenant, "--limit", "0")
	s.want(3, "no such tenant", "tenant", "events", "nobody")
	s.want(0, `elsewhere +v0.1 +gone`, "instances")
	eventually(t, func() bool {
		_, out, _ := s.run("instances")
		return strings.Contains(out, " live ")
	})
	s.want(0, `(?s)"host": "elsewhere",\s+"version": "v0.1",\s+"live": false`, "instances", "--json")
}

func TestWhatTheServerRefusesIsSaidAsTheServerSaysIt(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	for _, status := range []int{http.StatusForbidden, http.StatusTooManyRequests, http.StatusInsufficientStorage} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			body, err := proto.Marshal(&vsspb.ErrorResponse{ErrorCode: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, Message: "for this reason"})
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("vss-protocol-version", "0")
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}))
		t.Cleanup(server.Close)
		for _, call := range [][]string{{"put", "k", "v"}, {"get", "k"}, {"list"}, {"delete", "k"}} {
			s.want(6, fmt.Sprintf(`vssctl: refused: for this reason \(HTTP %d\)`, status), append(call, "--url", server.URL+"/vss")...)
		}
	}
}
