package callers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vss-cloud/vss-cloud/tenants"
)

// Check is one thing that is asked of a request's credentials, and what is wrong with it. No part of a credential
// is in it.
type Check struct {
	Name   string // as "client key", "form" or "signature"
	Err    error  // what is wrong; nil: nothing
	Detail string // what was found, for people; may be empty
}

// Explanation is how a request's credentials fare, check by check.
type Explanation struct {
	Checks []Check
	Source *tenants.Source // that the credential belongs to; nil where none is known
	Wallet string          // the [storage.WalletID] of the wallet that it proves; "" if it proves none
}

// OK says whether the credentials are good.
func (e *Explanation) OK() bool { return e.Wallet != "" }

// Explain asks everything of a request's credentials that [Authenticator.Authenticate] does, and does not stop at
// the first thing that is wrong: for people who look for it. It counts nothing and caches nothing. Where the keys
// of a token are at a URL it fetches them anew, and waits for that, if the tenant's [Directory] is running.
func (a *Authenticator) Explain(ctx context.Context, tenant *Tenant, header http.Header) *Explanation {
	now := a.now()
	e := &Explanation{}
	add := func(name string, err error, format string, args ...any) bool {
		e.Checks = append(e.Checks, Check{name, err, fmt.Sprintf(format, args...)})
		return err == nil
	}
	good := add("tenant", tenant.Refuses(false), "%s is %s", tenant.Slug, tenant.State)
	switch tenant.Gate.State {
	case tenants.GateOff:
		add("client key", nil, "none is asked for")
	default:
		err := tenant.checkClientKey(header, now)
		detail := "in the header " + tenant.Gate.Header
		if err != nil && tenant.Gate.State == tenants.GateObserved {
			detail, err = "the gate is only observed: "+err.Error(), nil
		}
		good = add("client key", err, "%s", detail) && good
	}
	text, err := authorization(header)
	if !add("one Authorization header", err, "") {
		return e
	}
	c, err := read(tenant, text)
	if errors.Is(err, tenants.ErrAmbiguousSource) {
		add("source", tenants.ErrAmbiguousSource, "%v", err)
		return e
	}
	if _, isToken := cutBearer(text); isToken {
		if !add("form", err, "a token (JWT)") {
			return e
		}
	} else if !add("form", err, "a signature") {
		return e
	}
	e.Source = c.source()
	add("source", nil, "%s (%s, namespace %s)", e.Source.Name, e.Source.Kind, e.Source.Namespace)
	switch c := c.(type) {
	case *signed:
		good = a.explainSignature(c, now, add) && good
	case *bearer:
		good = explainToken(ctx, c, now, add) && good
	}
	if good {
		e.Wallet = Caller{tenant, e.Source, c.claimed()}.Owner().Wallet().String()
	}
	return e
}

type addCheck func(name string, err error, format string, args ...any) bool

func (a *Authenticator) explainSignature(s *signed, now time.Time, add addCheck) bool {
	var err error
	if !s.token.within(s.by.Window, now) {
		err = refuse(reasonWindow)
	}
	off := time.Unix(int64(min(s.token.seconds, 1<<40)), 0).Sub(now).Round(time.Second)
	good := add("time", err, "%s from now, of %s", off, s.by.Window)
	return add("signature", s.token.verify(a.ecdsa), "") && good
}

func explainToken(ctx context.Context, b *bearer, now time.Time, add addCheck) bool {
	var fetched error
	if b.by.issuer != nil {
		fetched = b.by.issuer.Refresh(ctx)
	}
	_, err := b.by.verify(ctx, b.token, now)
	good := true
	switch keys := len(b.by.set().Keys()); {
	case fetched != nil && errors.Is(refuseToken(err), ErrKeysUnavailable):
		good = add("keys", fmt.Errorf("%w: %w", ErrKeysUnavailable, fetched), "%s", b.by.JWKSURL)
	case fetched != nil: // and yet it can be said whether the token is good
		add("keys", nil, "%d kept from before, since %s cannot be had: %v", keys, b.by.JWKSURL, fetched)
	default:
		add("keys", nil, "%d", keys)
	}
	for _, check := range b.by.set().Explain(b.token, b.by.Rules, now) {
		good = add(check.Name, check.Err, "") && good
	}
	return good
}
