package api_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// toPlatform sends every request to the platform, whatever host it is for, as a proxy with TLS would.
type toPlatform struct{ p *platform }

func (to toPlatform) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host, r.URL.Scheme, r.URL.Host = r.URL.Host, "http", to.p.address
	return to.p.http.Transport.RoundTrip(r)
}

func TestTheGoClientLogsInByLNURL(t *testing.T) {
	t.Parallel()
	instances := loginPlatform(t)
	carried := &http.Client{Transport: toPlatform{instances[0]}}
	wallet := func(seed byte) *client.Client {
		auth, err := client.NewLNURLAuth(client.LNURLConfig{
			URL: "https://acme.vss.example/lnurl/auth", Key: client.LUD05(append(make([]byte, 31), seed)), HTTPClient: carried,
		})
		check(t, err)
		c, err := client.New(client.Config{BaseURL: "https://acme.vss.example/vss", Auth: auth, HTTPClient: carried, Retry: client.Retry{FailFast: true}})
		check(t, err)
		return c
	}
	_, err := wallet(1).PutObjects(t.Context(), put(&vsspb.KeyValue{Key: "k", Version: 0, Value: []byte("v")}))
	check(t, err)
	got, err := wallet(1).GetObject(t.Context(), &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}) // after a restart: another login
	check(t, err)
	if string(got.GetValue().GetValue()) != "v" {
		t.Errorf("%v", got)
	}
	if _, err := wallet(2).GetObject(t.Context(), &vsspb.GetObjectRequest{StoreId: "s", Key: "k"}); !errors.Is(err, client.ErrNoSuchKey) {
		t.Errorf("another seed's wallet: %v, want no such key", err)
	}
}

func TestTheGoClientKnowsAnUnknownTenant(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.set(t, "acme", tenants.Change{State: ptr(tenants.Closed)})
	for host, unknown := range map[string]bool{"nobody.vss.example": true, "acme.vss.example": false} {
		c, err := client.New(client.Config{
			BaseURL: "https://" + host + "/vss", HTTPClient: &http.Client{Transport: toPlatform{p}}, Auth: client.Bearer("e30.e30.e30"),
			Retry: client.Retry{FailFast: true, MaxAttempts: 2},
		})
		check(t, err)
		_, err = c.GetObject(t.Context(), &vsspb.GetObjectRequest{Key: "k"})
		e, ok := errors.AsType[*client.Error](err)
		if !ok || errors.Is(err, client.ErrUnknownTenant) != unknown || (e.Attempts == 1) != unknown {
			t.Errorf("%s: %v, want unknown: %t", host, err, unknown)
		}
	}
}
