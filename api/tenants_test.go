package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// way is one way to call the platform: by a host and a path.
type way struct {
	host string // of the Host header; empty: the address itself
	base string // path of the base URL
}

func (w way) String() string { return w.host + w.base }

// by is one of the wallet's calls, made in that way.
func (w *wallet) by(t testing.TB, c *http.Client, to way, call string, body []byte) *answer {
	t.Helper()
	named := *w
	named.base = to.base
	r := named.request(t, call, body)
	r.Host = to.host
	return w.doBy(t, c, r)
}

func TestWhoMayCallWhatByWhichName(t *testing.T) {
	t.Parallel()
	p := start(t)
	domains := map[string]string{"acme": "vss.acme.com", "globex": "state.globex.org"}
	p.addDomain(t, "acme", domains["acme"])
	p.create(t, "globex", domains["globex"])

	// The four wallets have, in the same store under the same key, their own names. The keys of wallets with
	// the same number are the same.
	slugs, numbers := []string{"acme", "globex"}, []byte{1, 2}
	who := func(slug string, number byte) string { return fmt.Sprintf("%s's wallet %d", slug, number) }
	have := map[string][]string{} // keys, by who
	for _, slug := range slugs {
		for _, number := range numbers {
			p.wallet(t, slug, number).put(t, "same", who(slug, number)).wantDone(t)
			have[who(slug, number)] = []string{"same"}
		}
	}
	// wantNothingElse checks all of what everyone has.
	wantNothingElse := func(t *testing.T) {
		t.Helper()
		for _, slug := range slugs {
			for _, number := range numbers {
				w := p.wallet(t, slug, number)
				w.wantValue(t, "same", who(slug, number))
				keys := w.call(t, "listKeyVersions", &vsspb.ListKeyVersionsRequest{StoreId: "s"}).keys(t)
				if slices.Sort(keys); !slices.Equal(keys, have[who(slug, number)]) {
					t.Errorf("%s has %q, want %q", who(slug, number), keys, have[who(slug, number)])
				}
			}
		}
	}

	allowed := map[string][]way{}
	for slug, domain := range domains {
		for _, host := range []string{ // no tenant's: the path names one
			"", "vss.example", "VSS.Example", "vss.example.", "vss.example:8080", "localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8080",
			"other.example", "acme.com", "www.vss.acme.com", "xvss.example", "acme", "globex",
		} {
			allowed[slug] = append(allowed[slug], way{host, "/t/" + slug + "/vss"})
		}
		for _, host := range []string{ // the tenant's own
			slug + ".vss.example", strings.ToUpper(slug) + ".VSS.EXAMPLE", slug + ".vss.example.", slug + ".vss.example:443", slug + ".Vss.Example.:8443",
			domain, strings.ToUpper(domain), domain + ".", domain + ":443", strings.ToUpper(domain) + ".:1",
		} {
			allowed[slug] = append(allowed[slug], way{host, "/vss"})
		}
	}
	for _, slug := range slugs {
		for i, to := range allowed[slug] {
			t.Run(to.String()+" is "+slug, func(t *testing.T) {
				for _, number := range numbers {
					w, me := p.wallet(t, slug, number), who(slug, number)
					client := []*http.Client{p.http, p.http2}[i%2]
					key := fmt.Sprint("key", i)
					by := func(call string, body []byte) *answer { t.Helper(); return w.by(t, client, to, call, body) }

					by("getObject", encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "same"})).wantValue(t, me)
					by("getObject", encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: key})).want(t, 404, noSuch)
					by("putObjects", encode(t, put(item(key, 0)))).wantDone(t)
					by("putObjects", encode(t, put(item(key, 0)))).want(t, 409, conflict)
					got := by("listKeyVersions", encode(t, &vsspb.ListKeyVersionsRequest{StoreId: "s"})).keys(t)
					if slices.Sort(got); !slices.Equal(got, []string{key, "same"}) {
						t.Errorf("%s is shown %q", me, got)
					}
					have[me] = []string{key, "same"}
					wantNothingElse(t)
					by("deleteObject", encode(t, &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item(key, 1)})).wantDone(t)
					have[me] = []string{"same"}
				}
			})
		}
	}
	wantNothingElse(t)

	for _, to := range []way{
		// A tenant's host has its paths for itself alone.
		{"acme.vss.example", "/t/acme/vss"},
		{"acme.vss.example", "/t/globex/vss"},
		{"ACME.vss.example.:80", "/t/globex/vss"},
		{"vss.acme.com", "/t/acme/vss"},
		{"vss.acme.com", "/t/globex/vss"},
		{"VSS.ACME.COM.:80", "/t/globex/vss"},
		{"vss.acme.com", "/t/nobody/vss"},
		// Nothing else below the base domain is a tenant's, whatever the path says.
		{"nobody.vss.example", "/vss"},
		{"nobody.vss.example", "/t/acme/vss"},
		{"www.vss.example", "/t/acme/vss"},
		{"a.acme.vss.example", "/vss"},
		{"a.acme.vss.example", "/t/acme/vss"},
		{"vss.acme.com.vss.example", "/vss"},
		// Nobody is named.
		{"", "/vss"},
		{"vss.example", "/vss"},
		{"localhost", "/vss"},
		{"acme", "/vss"},
		{"other.example", "/vss"},
		{"acme.com", "/vss"},
		{"a.vss.acme.com", "/vss"},
		{"vss.acme.co", "/vss"},
		{"vss.acme.com.evil.example", "/vss"},
		// Nobody is known.
		{"", "/t/nobody/vss"},
		{"vss.example", "/t/nobody/vss"},
		{"vss.example", "/t/Acme/vss"},
		{"vss.example", "/t/acme./vss"},
		{"vss.example", "/t/vss.acme.com/vss"},
		{"vss.example", "/t/acme.vss.example/vss"},
		{"vss.example", "/t/acm%65/vss"},
		// What is no host names nobody.
		{"acme.vss.example..", "/vss"},
		{"vss.acme.com:x", "/vss"},
		{"vss.acme.com:80:80", "/vss"},
	} {
		t.Run(to.String()+" is nobody", func(t *testing.T) {
			for _, number := range numbers {
				for _, c := range calls {
					p.wallet(t, "acme", number).by(t, p.http, to, c.name, encode(t, c.body)).want(t, 403, internal)
				}
			}
			wantNothingElse(t)
		})
	}
}

func TestNoOtherHeaderNamesATenant(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.create(t, "globex", "state.globex.org")
	p.wallet(t, "acme", 1).put(t, "k", "acme's").wantDone(t)
	p.wallet(t, "globex", 1).put(t, "k", "globex's").wantDone(t)
	w := p.wallet(t, "acme", 1)
	get := encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "k"})
	for _, header := range []string{"X-Forwarded-Host", "Forwarded", "X-Host", "X-Original-Host", "X-Tenant", "X-Original-Url", "X-Rewrite-Url"} {
		r := w.request(t, "getObject", get)
		r.Host = "acme.vss.example"
		r.URL.Path = "/vss/getObject"
		r.Header.Set(header, "globex.vss.example")
		if header == "Forwarded" {
			r.Header.Set(header, "host=globex.vss.example")
		}
		p.do(t, r).wantValue(t, "acme's")
	}

	// The URL of a request comes before its Host header (RFC 9112), and over HTTP/2 the authority does.
	request := w.text(t, "getObject", &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}, "Host: globex.vss.example")
	_, rest, _ := strings.Cut(request, " HTTP/1.1")
	conn := p.dial(t)
	conn.send(t, "POST http://acme.vss.example/vss/getObject HTTP/1.1"+rest)
	conn.answer(t).wantValue(t, "acme's")

	c := p.dialHTTP2(t)
	c.request(t, false, [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", "acme.vss.example"}, {":path", "/vss/getObject"},
		{"host", "globex.vss.example"}, {"authorization", w.token(t)},
	})
	check(t, c.WriteData(1, true, get))
	if got := c.answer(t); !strings.HasPrefix(got, "200 ") || !strings.Contains(got, "acme's") {
		t.Errorf("got %q", got)
	}
}

// states are a tenant's, each with what is answered to reads and to writes.
var states = []struct {
	state       tenants.State
	read, write int
}{
	{tenants.Active, 200, 200},
	{tenants.ReadOnly, 200, 403},
	{tenants.Closed, 403, 403},
	{tenants.Active, 200, 200}, // every step can be taken back
}

func TestAChangeOfATenantHoldsForTheNextCallOnTheSameConnection(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.create(t, "globex")
	w, other := p.wallet(t, "acme", 1), p.wallet(t, "globex", 1)
	w.put(t, "k", "v").wantDone(t)
	other.put(t, "k", "v").wantDone(t)
	for _, tc := range states {
		p.set(t, "acme", tenants.Change{State: &tc.state})
		for _, c := range calls {
			want := tc.read
			if c.name == "putObjects" || c.name == "deleteObject" {
				want = tc.write
			}
			if c.name == "deleteObject" {
				c.body = &vsspb.DeleteObjectRequest{StoreId: "s", KeyValue: item("absent", -1)}
			}
			a := w.call(t, c.name, c.body)
			if want == 200 {
				a.wantOK(t, nil)
				continue
			}
			a.want(t, want, internal)
			reason := map[tenants.State]string{tenants.ReadOnly: "read-only", tenants.Closed: "closed"}[tc.state]
			if message := a.error(t).GetMessage(); !strings.Contains(message, reason) {
				t.Errorf("message is %q", message)
			}
			// Nor does a bad credential learn more, or a bad body.
			r := w.request(t, c.name, []byte{0xff})
			r.Header.Set("Authorization", "nonsense")
			p.do(t, r).want(t, want, internal)
		}
		other.put(t, "k", "v").wantDone(t) // it is nobody else's matter
		other.wantValue(t, "k", "v")
	}
	w.wantValue(t, "k", "v") // closing deletes nothing
	if n := p.connections(t); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestATenantIsKnownFromItsCreationOn(t *testing.T) {
	t.Parallel()
	p := start(t)
	w := p.wallet(t, "later", 1)
	w.put(t, "k", "v").want(t, 403, internal)
	p.create(t, "later", "vss.later.com")
	w.put(t, "k", "v").wantDone(t)
	domain := way{"vss.later.com", "/vss"}
	get := encode(t, &vsspb.GetObjectRequest{StoreId: "s", Key: "k"})
	w.by(t, p.http, domain, "getObject", get).wantValue(t, "v")

	// A domain given back is nobody's, and its wallets find no empty store there.
	_, err := p.service.RemoveDomain(t.Context(), operator, "later", "vss.later.com")
	check(t, err)
	check(t, p.directory.Refresh(t.Context()))
	w.by(t, p.http, domain, "getObject", get).want(t, 403, internal)
	p.addDomain(t, "acme", "vss.later.com")
	w.by(t, p.http, domain, "getObject", get).want(t, 404, noSuch) // it is acme's now
	w.wantValue(t, "k", "v")
}

func TestTheBodyLimitIsTheTenants(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.create(t, "small")
	body := encode(t, put(&vsspb.KeyValue{Key: "k", Version: -1, Value: make([]byte, 5000)}))
	big, small := p.wallet(t, "acme", 1), p.wallet(t, "small", 1)
	for _, tc := range []struct {
		limit  int64
		status int
	}{{int64(len(body)) - 1, 413}, {int64(len(body)), 200}, {1024, 413}, {tenants.MaxBodySize, 200}} {
		p.set(t, "small", limitedTo(tc.limit))
		for _, length := range []int64{int64(len(body)), -1} {
			r := small.request(t, "putObjects", body)
			r.ContentLength = length
			a := p.do(t, r)
			if a.status != tc.status {
				t.Errorf("limit %d, Content-Length %d: HTTP %d", tc.limit, length, a.status)
			}
			if a.status == 413 {
				a.want(t, 413, invalid)
				if message := a.error(t).GetMessage(); !strings.Contains(message, fmt.Sprint(tc.limit)) {
					t.Errorf("message is %q", message)
				}
			}
		}
		p.do(t, big.request(t, "putObjects", body)).wantDone(t)
	}
}

// A wallet of one tenant is another one at another tenant, and the same one by whichever name it calls.
func TestAClosedTenantLeaksNothingThroughAnotherName(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.addDomain(t, "acme", "vss.acme.com")
	w := p.wallet(t, "acme", 1)
	w.put(t, "k", "v").wantDone(t)
	p.set(t, "acme", tenants.Change{State: ptr(tenants.Closed)})
	for _, to := range []way{{"", "/t/acme/vss"}, {"acme.vss.example", "/vss"}, {"vss.acme.com", "/vss"}} {
		for _, c := range calls {
			w.by(t, p.http, to, c.name, encode(t, c.body)).want(t, 403, internal)
		}
	}
}
