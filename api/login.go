package api

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

// login is LNURL-auth (CONTRACT section 4.3): the auth URL of every tenant that has one. It is not traced, since a
// request's query is a credential.
func (s *Server) login() http.Handler {
	logins := s.cfg.Logins
	return lnurl.Handler(lnurl.Config{
		Challenges: logins.Challenges(),
		Site: func(r *http.Request) (*lnurl.Site, error) {
			rq := requestOf(r.Context())
			rq.call = "lnurlAuth"
			tenant, err := s.cfg.Tenants.Resolve(r.Host, chi.URLParam(r, "tenant"))
			if err != nil {
				if errors.Is(err, callers.ErrNotLoaded) {
					return nil, err
				}
				return nil, &lnurl.Error{Reason: err.Error()}
			}
			rq.tenant = tenant
			return logins.Site(tenant, r.Header, rq.from)
		},
		Report: func(r *http.Request, o lnurl.Outcome) {
			rq := requestOf(r.Context())
			refusal, refused := errors.AsType[*lnurl.Error](o.Err)
			switch {
			case refused:
				rq.answer, rq.refusal = answer{code: vsspb.ErrorCode_AUTH_EXCEPTION, outcome: usage.Unauthenticated}, refusal.Reason
				if limited, ok := errors.AsType[*callers.LoginLimitedError](o.Err); ok {
					rq.answer = internal(200, "").because(limited.Reason)
				}
				logins.Refused(rq.tenant, refusal)
			case o.Err != nil:
				rq.answer, rq.err = internal(500, ourFault).logged(slog.LevelError), o.Err
			}
			if o.Forged {
				logins.Forged(rq.from)
			}
			if o.Subject != "" && rq.tenant != nil {
				rq.wallet = logins.Owner(rq.tenant, o.Subject).Wallet()
			}
		},
	})
}

// loginKeys is the JWKS of a tenant's tokens.
func (s *Server) loginKeys(w http.ResponseWriter, r *http.Request) {
	tenant, err := s.cfg.Tenants.Resolve(r.Host, chi.URLParam(r, "tenant"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	keys, err := s.cfg.Logins.Keys(tenant)
	if err != nil {
		s.fail(w, r, errNoSuchPath)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=10") // less than a new key takes until it signs
	_, _ = w.Write(keys)
}
