package callers

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

// What a request costs by the scheme of its credential: cold is all that [Authenticator.Authenticate] does the
// first time, cached each time after it.
func BenchmarkAuthenticate(b *testing.B) {
	now := time.Now()
	login := lnurl.NewSigningKey()
	source := uuid.New()
	type scheme struct {
		name       string
		source     tenants.Source
		credential string
	}
	schemes := []scheme{
		{"signature", tenants.Source{Kind: tenants.Signature, Window: time.Hour}, signToken(privateKey(5), uint64(now.Unix()))},
		{"lnurl", tenants.Source{Kind: tenants.LNURL, Rules: loginRules(source), Keys: []tenants.SourceKey{{ID: login.ID(), Public: login.Public().JSON(), State: jwt.Active}}},
			"Bearer " + login.Sign("alice", source.URN(), now, 0)},
	}
	for _, s := range []signing{rs256(b), es256(b), eddsa(b)} {
		der, err := x509.MarshalPKIXPublicKey(s.public)
		if err != nil {
			b.Fatal(err)
		}
		keys, err := jwt.ParseKeys(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		if err != nil {
			b.Fatal(err)
		}
		encode := base64.RawURLEncoding.EncodeToString
		signed := encode([]byte(`{"alg":"`+s.alg+`","typ":"JWT"}`)) + "." +
			encode(fmt.Appendf(nil, `{"sub":"alice","exp":%d,"iss":"https://issuer.example/","aud":"vss","pad":"%s"}`, now.Unix()+3600, strings.Repeat("x", 200)))
		schemes = append(schemes, scheme{
			"jwt-" + s.alg,
			tenants.Source{Kind: tenants.JWT, Rules: jwt.Standard(), Keys: []tenants.SourceKey{{ID: keys[0].ID(), Public: keys[0].JWK(), State: jwt.Active}}},
			"Bearer " + signed + "." + encode(s.sign([]byte(signed))),
		})
	}
	for _, s := range schemes {
		s.source.Name, s.source.Namespace = s.name, s.name
		tenant := &Tenant{Tenant: &tenants.Tenant{ID: uuid.New(), State: tenants.Active, Gate: tenants.Gate{State: tenants.GateOff}, Sources: []tenants.Source{s.source}}}
		tenant.schemes = prepare(tenant.Tenant, nil, slog.Default())
		header := with(s.credential)
		auth := NewAuthenticator(AuthenticatorConfig{})
		b.Run(s.name+"/cold", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				// Other schemes have nothing in the cache.
				fresh, others := *tenant, *tenant.schemes
				fresh.schemes = &others
				if _, err := auth.Authenticate(context.Background(), &fresh, header, netip.Addr{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.name+"/cached", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := auth.Authenticate(context.Background(), tenant, header, netip.Addr{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type signing struct {
	alg    string
	public any
	sign   func(signed []byte) []byte
}

func rs256(b *testing.B) signing {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	return signing{"RS256", &key.PublicKey, func(signed []byte) []byte {
		digest := sha256.Sum256(signed)
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, 5, digest[:]) // crypto.SHA256
		if err != nil {
			b.Fatal(err)
		}
		return sig
	}}
}

func es256(b *testing.B) signing {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return signing{"ES256", &key.PublicKey, func(signed []byte) []byte {
		digest := sha256.Sum256(signed)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			b.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}}
}

func eddsa(b *testing.B) signing {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return signing{"EdDSA", public, func(signed []byte) []byte { return ed25519.Sign(private, signed) }}
}
