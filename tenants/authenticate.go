package tenants

import (
	"context"
	"strings"
	"time"
)

// Caller is an authenticated wallet. (Tenant.ID, Source.Namespace, Subject) is its identity, fixed from its
// first byte on (CONTRACT section 4).
type Caller struct {
	Tenant  *Tenant
	Source  *Source // the tenant's, that the credential belongs to
	Subject string  // for signatures the public key in lower-case hex
}

// AuthError says why a credential was refused. The reason is one of a fixed set of texts, so it can be
// counted, logged and shown: no part of a credential is ever in it.
type AuthError struct{ Reason string }

func (e *AuthError) Error() string { return e.Reason }

func refuse(reason string) error { return &AuthError{Reason: reason} }

const (
	reasonMissing  = "there is no Authorization header"
	reasonSeveral  = "there is more than one Authorization header"
	reasonLong     = "the Authorization header is too long"
	reasonForm     = "the Authorization header is not a public key and a signature in hex, followed by the time"
	reasonKey      = "the public key is not in the compressed form"
	reasonTime     = "the time of the signature is not in plain decimal unix seconds"
	reasonNoSource = "this tenant takes no credentials of this kind"
	reasonWindow   = "the time of the signature is too far from now: is the device's clock right?"
	reasonHighS    = "the signature is not the one with the low s"
	reasonMismatch = "the signature is not one by this key over this time"
)

// maxAuthorization is the longest Authorization header that is looked into, in bytes.
const maxAuthorization = 8 << 10

// AuthenticatorConfig says how an [Authenticator] works.
type AuthenticatorConfig struct {
	Now func() time.Time // nil: time.Now
}

// Authenticator finds out which wallet sent a request. It is safe for concurrent use.
type Authenticator struct {
	now    func() time.Time
	verify verifier
}

// NewAuthenticator makes an authenticator.
func NewAuthenticator(cfg AuthenticatorConfig) *Authenticator {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Authenticator{now: cfg.Now, verify: verifyECDSA}
}

// Authenticate verifies the request's Authorization headers (all of them, as sent) for the tenant. The form
// of the credential decides which of the tenant's sources it is verified against, so that no scheme can
// name another scheme's wallet (CONTRACT section 4). What cannot be accepted fails with an [*AuthError].
func (a *Authenticator) Authenticate(_ context.Context, tenant *Tenant, authorization []string) (Caller, error) {
	switch {
	case len(authorization) == 0:
		return Caller{}, refuse(reasonMissing)
	case len(authorization) > 1:
		return Caller{}, refuse(reasonSeveral)
	case len(authorization[0]) > maxAuthorization:
		return Caller{}, refuse(reasonLong)
	}
	credential := authorization[0]
	if isBearer(credential) {
		return Caller{}, refuse(reasonNoSource)
	}
	return a.signature(tenant, credential)
}

func (a *Authenticator) signature(tenant *Tenant, credential string) (Caller, error) {
	token, err := parseSignatureToken(credential)
	if err != nil {
		return Caller{}, err
	}
	source := tenant.source(Signature)
	if source == nil {
		return Caller{}, refuse(reasonNoSource)
	}
	if !token.within(source.Window, a.now()) {
		return Caller{}, refuse(reasonWindow)
	}
	if err := token.verify(a.verify); err != nil {
		return Caller{}, err
	}
	return Caller{Tenant: tenant, Source: source, Subject: token.subject()}, nil
}

func isBearer(credential string) bool {
	scheme, _, found := strings.Cut(credential, " ")
	return found && strings.EqualFold(scheme, "Bearer")
}
