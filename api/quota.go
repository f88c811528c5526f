package api

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// Quota is what a [Server] asks about limits and tells of calls. The zero value limits nothing and records nothing.
type Quota struct {
	Limiter *quota.Limiter // of rates; nil: none
	Meter   *quota.Meter   // nil: none

	// Totals are what a tenant has, as last measured; nil: not known. They lag.
	Totals func(tenant uuid.UUID) (wallets, bytes int64)

	// Standing says of a wallet whether it has ever written, and whether it is on its tenant's list. Nil: all are
	// known.
	Standing func(ctx context.Context, wallet storage.WalletID) (known, listed bool, err error)

	// Stored is told, after each put and delete, which line of which ceiling its store is beyond. It must not wait. Nil: nobody
	// is.
	Stored func(tenant uuid.UUID, store storage.StoreID, d quota.Decision)
}

// limited is a call that was refused for a rate.
type limited struct {
	reason quota.Reason
	after  time.Duration // until it may be worth another try
}

func (e *limited) Error() string {
	return fmt.Sprintf("too many calls (%s), try again in %d s", e.reason, quota.Seconds(e.after))
}

// visitor is the wallet of one call, as its limits see it.
type visitor struct {
	s        *Server
	tenant   *tenants.Tenant
	wallet   storage.WalletID
	from     netip.Addr
	admitted quota.Admission
	memory   *share // of the call, once it is admitted
}

func (s *Server) visitor(caller tenants.Caller, from netip.Addr) *visitor {
	return &visitor{s: s, tenant: caller.Tenant, wallet: caller.Owner().Wallet(), from: from}
}

// admit asks the rates, and waits where they say so: before the body is read, so that nobody waits with it in memory.
func (v *visitor) admit(ctx context.Context, kind quota.Kind) error {
	s := v.s
	if s.cfg.Quota.Limiter == nil {
		return nil
	}
	deadline, _ := ctx.Deadline()
	v.admitted = s.cfg.Quota.Limiter.Admit(quota.Call{
		Tenant: v.tenant.ID, Wallet: quota.Key(v.wallet), From: v.from, Kind: kind, Limits: &v.tenant.Limits, Left: time.Until(deadline),
	})
	if !v.admitted.OK {
		return &limited{v.admitted.Reason, v.admitted.RetryAfter}
	}
	if v.admitted.Wait > 0 {
		s.metrics.delays.Record(ctx, v.admitted.Wait.Seconds())
		select {
		case <-time.After(v.admitted.Wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// hold makes the call's share of the memory the visitor's. Only a [quota.Limiter] knows of strangers, and each is one to
// an instance that has just started: they are asked for before they are refused as such.
func (v *visitor) hold(ctx context.Context, memory *share) {
	v.memory = memory
	memory.tenant = v.tenant.ID
	memory.stranger = v.s.cfg.Quota.Limiter != nil && !v.admitted.Known
	memory.enrolled = func() bool {
		known, _, err := v.standing(ctx)
		if err != nil || !known {
			return false
		}
		v.known()
		return true
	}
}

// known notes that the wallet has been found to be enrolled.
func (v *visitor) known() {
	if l := v.s.cfg.Quota.Limiter; l != nil && !v.admitted.Known {
		l.Know(quota.Key(v.wallet))
	}
	v.admitted.Known = true
	v.memory.known()
}

// limits are those of a put.
func (v *visitor) limits() storage.Limits {
	c := v.tenant.Limits.Ceilings()
	return storage.Limits{
		Objects: storage.Ceiling{Hard: c.Objects.Hard, Last: c.Objects.Last},
		Bytes:   storage.Ceiling{Hard: c.Bytes.Hard, Last: c.Bytes.Last},
		Value:   c.Value.Last,
		Stores:  c.Stores.Hard,
		Begin:   v.begin,
	}
}

// begin says whether a store may be that has never been written, in the order of CONTRACT section 5. Wallets that are
// known are asked for the tenant's bytes alone.
func (v *visitor) begin(ctx context.Context, newWallet bool) error {
	q := &v.s.cfg.Quota
	if newWallet {
		if err := v.enrol(ctx); err != nil {
			return err
		}
	}
	if q.Totals == nil {
		return nil
	}
	wallets, bytes := q.Totals(v.tenant.ID)
	c := v.tenant.Limits.Ceilings()
	d := c.Decide(quota.Usage{Wallets: wallets, TenantBytes: bytes}, quota.Change{NewStore: true, NewWallet: newWallet})
	if d.Refused {
		return &storage.ExceededError{Limit: d.Limit, Used: d.Used, Allowed: d.Allowed}
	}
	return nil
}

// enrol says whether the wallet may be one.
func (v *visitor) enrol(ctx context.Context) error {
	allowed, err := v.mayEnrol(ctx)
	if err != nil {
		return err
	}
	if !allowed {
		return errNotEnrolled
	}
	if l := v.s.cfg.Quota.Limiter; l != nil {
		if a := l.Enrol(v.tenant.ID, v.from, &v.tenant.Limits); !a.OK {
			return &limited{a.Reason, a.RetryAfter}
		}
	}
	return nil
}

func (v *visitor) mayEnrol(ctx context.Context) (bool, error) {
	switch v.tenant.Enrolment {
	case tenants.EnrolmentOpen:
		return true, nil
	case tenants.EnrolmentListed:
		_, listed, err := v.standing(ctx)
		return listed, err
	default:
		return false, nil
	}
}

func (v *visitor) standing(ctx context.Context) (known, listed bool, err error) {
	if v.s.cfg.Quota.Standing == nil {
		return true, true, nil
	}
	known, listed, err = v.s.cfg.Quota.Standing(ctx, v.wallet)
	if err != nil {
		err = fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	return known, listed, err
}

// foundNothing refuses a call that found nothing, or not what it expected, where the wallet is not known and may not enrol:
// to others an unknown wallet looks like one that is empty (CONTRACT section 4).
func (v *visitor) foundNothing(ctx context.Context) error {
	if v.admitted.Known || v.tenant.Enrolment == tenants.EnrolmentOpen {
		return nil
	}
	known, listed, err := v.standing(ctx)
	switch {
	case err != nil:
		return err
	case known:
		v.known()
		return nil
	case listed && v.tenant.Enrolment == tenants.EnrolmentListed:
		return nil
	}
	return errNotEnrolled
}

// nothing says whether an answer says nothing of whether its wallet has ever written.
func nothing(m any) bool {
	switch m := m.(type) {
	case *vsspb.DeleteObjectResponse:
		return true
	case *vsspb.GetObjectResponse:
		return m.GetValue().GetVersion() == 0
	case *vsspb.ListKeyVersionsResponse:
		return len(m.GetKeyVersions()) == 0 && m.GetGlobalVersion() == 0
	}
	return false
}

// wrote notes where a store is after a put or a delete.
func (v *visitor) wrote(store storage.StoreID, w storage.Written) {
	v.known()
	if v.s.cfg.Quota.Stored == nil || w.Objects < 0 {
		return
	}
	c := v.tenant.Limits.Ceilings()
	v.s.cfg.Quota.Stored(v.tenant.ID, store, c.Decide(quota.Usage{Objects: w.Objects, Bytes: w.Bytes}, quota.Change{}))
}

// operations by the name of the call.
var operations = map[string]quota.Operation{
	"getObject": quota.GetObject, "putObjects": quota.PutObjects, "deleteObject": quota.DeleteObject, "listKeyVersions": quota.ListKeyVersions,
}

// record tells the meter of a call, when it has been answered.
func (s *Server) record(e *event, sent int64) {
	op, ok := operations[e.call]
	if s.cfg.Quota.Meter == nil || !ok || e.tenantID == (uuid.UUID{}) {
		return
	}
	r := quota.Request{
		Tenant: e.tenantID, Operation: op, Outcome: e.answer.outcome, Reason: e.answer.reason, Known: e.active, Enrolled: e.enrolled,
	}
	if e.visitor != nil {
		r.Wallet = quota.Key(e.visitor.wallet)
	}
	switch r.Outcome { // bytes are on the bill where the store was asked: anyone can send a tenant what is refused
	case quota.Succeeded, quota.NotFound, quota.Conflicted:
		r.In, r.Out = e.received, sent
	}
	s.cfg.Quota.Meter.Record(time.Now(), r)
}
