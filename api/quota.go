package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// Quota is what a [Server] asks about limits and tells of calls. The zero value limits nothing and records nothing.
type Quota struct {
	Limiter *quota.Limiter // of rates; nil: none
	Meter   *usage.Meter   // nil: none

	// Totals are what a tenant has, as last measured, so they lag. Nil: not known.
	Totals func(tenant uuid.UUID) (wallets, bytes int64)

	// Standing says whether a wallet has ever written, and whether it is on its tenant's list. Nil: all wallets are
	// known.
	Standing func(ctx context.Context, wallet storage.WalletID) (known, listed bool, err error)

	// Stored is called after each put and delete, with the highest line that the store is beyond. It must not block. Nil:
	// not called.
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

// admit asks the rates, and waits where they say so: before the body is read, so that nobody waits with it in memory.
func (rq *request) admit(ctx context.Context, kind quota.Kind) error {
	s := rq.server
	if s.cfg.Quota.Limiter == nil {
		return nil
	}
	deadline, _ := ctx.Deadline()
	a := s.cfg.Quota.Limiter.Admit(quota.Call{
		Tenant: rq.tenant.ID, Wallet: quota.Key(rq.wallet), From: rq.from, Kind: kind, Limits: &rq.tenant.Limits, Left: time.Until(deadline),
	})
	if !a.OK {
		return &limited{a.Reason, a.RetryAfter}
	}
	rq.known = a.Known
	if a.Wait > 0 {
		s.metrics.delays.Record(ctx, a.Wait.Seconds())
		select {
		case <-time.After(a.Wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// know notes that the wallet is enrolled.
func (rq *request) know() {
	if rq.known {
		return
	}
	if l := rq.server.cfg.Quota.Limiter; l != nil {
		l.Know(quota.Key(rq.wallet))
	}
	rq.recount(func() { rq.known = true })
}

// stands asks the database about the wallet, once.
func (rq *request) stands(ctx context.Context) (standing, error) {
	if rq.standing != nil {
		return *rq.standing, nil
	}
	has := standing{known: true, listed: true}
	if ask := rq.server.cfg.Quota.Standing; ask != nil {
		var err error
		if has.known, has.listed, err = ask(ctx, rq.wallet); err != nil {
			return standing{}, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
		}
	}
	rq.standing = &has
	if has.known {
		rq.know()
	}
	return has, nil
}

// put asks the store, and asks it again with leave to begin if the store was never written and may be.
func (rq *request) put(ctx context.Context, ks storage.Keyspace, batch storage.Batch) (storage.Written, error) {
	c := rq.tenant.Limits.Ceilings()
	limits := storage.Limits{
		Objects: storage.Ceiling{Hard: c.Objects.Hard, Last: c.Objects.Last},
		Bytes:   storage.Ceiling{Hard: c.Bytes.Hard, Last: c.Bytes.Last},
		Value:   c.Value.Last,
		Known:   true,
	}
	written, err := rq.server.cfg.Store.Put(ctx, ks, batch, limits)
	never, is := errors.AsType[*storage.NeverWrittenError](err)
	if !is {
		return written, err
	}
	if err := rq.mayBegin(ctx, never); err != nil {
		return storage.Written{}, err
	}
	if departed(ctx) {
		return storage.Written{}, context.Canceled
	}
	limits.Begin = never
	return rq.server.cfg.Store.Put(ctx, ks, batch, limits)
}

// mayBegin says whether a write may begin a new store, in the order of CONTRACT section 5.
func (rq *request) mayBegin(ctx context.Context, never *storage.NeverWrittenError) error {
	if never.NewWallet {
		if err := rq.enrol(ctx); err != nil {
			return err
		}
	} else {
		rq.know()
	}
	has := quota.Usage{Stores: never.Stores}
	if totals := rq.server.cfg.Quota.Totals; totals != nil {
		has.Wallets, has.TenantBytes = totals(rq.tenant.ID)
	}
	c := rq.tenant.Limits.Ceilings()
	d := c.Decide(has, quota.Change{NewStore: true, NewWallet: never.NewWallet})
	if d.Refused {
		return &storage.ExceededError{Limit: d.Limit, Used: d.Used, Allowed: d.Allowed}
	}
	return nil
}

// enrol says whether the wallet may become one.
func (rq *request) enrol(ctx context.Context) error {
	if allowed, err := rq.mayEnrol(ctx); err != nil {
		return err
	} else if !allowed {
		return errNotEnrolled
	}
	if l := rq.server.cfg.Quota.Limiter; l != nil {
		if a := l.Enrol(rq.tenant.ID, rq.from, &rq.tenant.Limits); !a.OK {
			return &limited{a.Reason, a.RetryAfter}
		}
	}
	return nil
}

// mayEnrol says whether the tenant takes the wallet, if it is new.
func (rq *request) mayEnrol(ctx context.Context) (bool, error) {
	switch rq.tenant.Enrolment {
	case tenants.EnrolmentOpen:
		return true, nil
	case tenants.EnrolmentListed:
		has, err := rq.stands(ctx)
		return has.listed, err
	default:
		return false, nil
	}
}

// foundNothing refuses a call that found nothing, or another version, if its wallet is unknown and may not enrol. Where
// enrolment is open, an unknown wallet looks like an empty one (CONTRACT section 4).
func (rq *request) foundNothing(ctx context.Context) error {
	if rq.known || rq.tenant.Enrolment == tenants.EnrolmentOpen {
		return nil
	}
	has, err := rq.stands(ctx)
	if err != nil || has.known || has.listed && rq.tenant.Enrolment == tenants.EnrolmentListed {
		return err
	}
	return errNotEnrolled
}

// stored tells where a store is after a put or a delete.
func (rq *request) stored(store storage.StoreID, w storage.Written) {
	tell := rq.server.cfg.Quota.Stored
	if tell == nil || w.Objects < 0 {
		return
	}
	c := rq.tenant.Limits.Ceilings()
	tell(rq.tenant.ID, store, c.Decide(quota.Usage{Objects: w.Objects, Bytes: w.Bytes}, quota.Change{}))
}

// operations by the name of the call.
var operations = map[string]usage.Operation{
	"getObject": usage.GetObject, "putObjects": usage.PutObjects, "deleteObject": usage.DeleteObject, "listKeyVersions": usage.ListKeyVersions,
}

// meter counts a call, when it has been answered.
func (rq *request) meter(sent int64) {
	meter := rq.server.cfg.Quota.Meter
	op, ok := operations[rq.call]
	if meter == nil || !ok || rq.tenant == nil {
		return
	}
	r := usage.Request{
		Tenant: rq.tenant.ID, Wallet: quota.Key(rq.wallet), Operation: op, Outcome: rq.answer.outcome, Reason: rq.answer.reason,
		Known: rq.active, Enrolled: rq.enrolled,
	}
	switch r.Outcome { // bytes are on the bill where the store was asked: anyone can send a tenant what is refused
	case usage.Succeeded, usage.NotFound, usage.Conflicted:
		r.In, r.Out = rq.received, sent
	}
	meter.Record(time.Now(), r)
}
