package callers

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/lnurl"
)

// LoginLimitedError refuses a login for a limit. It is an [*lnurl.Error] too.
type LoginLimitedError struct{ Reason quota.Reason }

func (e *LoginLimitedError) Error() string { return loginLimited[e.Reason] }

func (e *LoginLimitedError) Unwrap() error { return &lnurl.Error{Reason: e.Error()} }

// The texts are shown to wallets.
var loginLimited = map[quota.Reason]string{
	quota.WalletRate:  "this wallet logs in too often, try again",
	quota.TenantRate:  "too many wallets of this tenant log in, try again",
	quota.AddressRate: "too many logins or bad signatures came from this network, try again",
	quota.LoginRate:   "too many wallets that are not known yet log in to this tenant, try again",
	quota.Overload:    "too many logins of this tenant are waiting, try again",
}

const (
	// loginCost is about what the arithmetic of a login takes.
	loginCost = 250 * time.Microsecond

	// usedMemory is how many challenges an instance knows to be used without asking the database: some 8 MB.
	usedMemory = 1 << 16
)

// visit is one request of a login, as its limits see it. It is an [lnurl.Guard].
//
// Strangers are asked for their rates before any arithmetic. Who is beyond them is verified out of the budget of suspects,
// and then let in only if the database knows the wallet: so a flood of new keys is refused, and wallets that are enrolled,
// which all are strangers to an instance that has just started, are not (CONTRACT section 4).
type visit struct {
	*Logins
	tenant *Tenant
	from   netip.Addr

	known   bool         // to this instance
	refused quota.Reason // a stranger, for a rate
}

// Admit implements [lnurl.Guard].
func (v *visit) Admit(ctx context.Context, k1 lnurl.K1, subject string) error {
	if _, used := v.used.GetIfPresent(k1); used {
		return lnurl.ErrUsed
	}
	wallet := quota.Key(v.Owner(v.tenant, subject).Wallet())
	if v.cfg.Limiter != nil {
		v.known = v.cfg.Limiter.Known(wallet)
		if !v.known {
			v.refused = v.cfg.Limiter.Login(v.tenant.ID, wallet, v.from, &v.tenant.Limits).Reason
		}
	}
	now := v.cfg.Now()
	if v.refused == quota.NoReason && !v.auth.suspects.suspect(v.from, now) {
		return nil
	}
	// Whoever only names a wallet that is known takes nothing from strangers, nor they from it.
	if v.known && v.auth.suspects.wait(ctx, loginCost, now) || !v.known && v.auth.suspects.spend(loginCost, now) {
		return nil
	}
	if v.refused == quota.NoReason {
		v.refused = quota.AddressRate
	}
	return &LoginLimitedError{v.refused}
}

// Use implements [lnurl.Guard].
func (v *visit) Use(ctx context.Context, k1 lnurl.K1, subject string, expires time.Time) (first bool, err error) {
	wallet := v.Owner(v.tenant, subject).Wallet()
	if v.known {
		a := v.cfg.Limiter.Login(v.tenant.ID, quota.Key(wallet), v.from, &v.tenant.Limits)
		if !a.OK {
			return false, &LoginLimitedError{a.Reason}
		}
	}
	leave, err := v.places.Enter(ctx, quota.Entrant{
		Tenant: v.tenant.ID, Weight: v.tenant.Limits.Weight(), Stranger: !v.known,
	}, quota.Write)
	switch {
	case errors.Is(err, quota.ErrQueueFull), errors.Is(err, quota.ErrQueueTimeout):
		return false, &LoginLimitedError{quota.Overload}
	case err != nil:
		return false, err
	}
	defer leave()
	if v.refused != quota.NoReason {
		if err := v.enrolled(ctx, wallet); err != nil {
			return false, err
		}
	}
	n, err := dbgen.New().UseChallenge(ctx, v.cfg.Pool, dbgen.UseChallengeParams{K1: k1[:], ExpiresAt: expires})
	if err != nil {
		return false, err
	}
	v.used.Set(k1, struct{}{})
	return n == 1, nil
}

// enrolled fails unless the database knows the wallet, and then this instance does too.
func (v *visit) enrolled(ctx context.Context, wallet storage.WalletID) error {
	enrolled, _, err := tenants.Standing(ctx, v.cfg.Pool, wallet)
	if err != nil {
		return err
	}
	if !enrolled {
		return &LoginLimitedError{v.refused}
	}
	v.cfg.Limiter.Know(quota.Key(wallet))
	return nil
}
