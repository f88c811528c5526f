package tenants

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

// Plans are the limits of all plans by name.
func (s *Service) Plans(ctx context.Context) (map[string]quota.Values, error) {
	return loadPlans(ctx, s.pool)
}

// Plan is the limits of the plan with this name. It fails with [ErrNotFound].
func (s *Service) Plan(ctx context.Context, name string) (quota.Values, error) {
	plans, err := s.Plans(ctx)
	if err != nil {
		return nil, err
	}
	limits, ok := plans[name]
	if !ok {
		return nil, noPlan(name)
	}
	return limits, nil
}

// ChangedPlan is a plan before, nil where it is new, and after [Service.SavePlan], if these are all plans. It fails with
// an [*InvalidError].
func ChangedPlan(plans map[string]quota.Values, name, from string, changes quota.Values) (before, after quota.Values, err error) {
	before, exists := plans[name]
	if exists {
		if from != "" {
			return nil, nil, &InvalidError{"from", fmt.Sprintf("is for a new plan, and there is a plan %s", name)}
		}
		after = maps.Clone(before)
	} else {
		from = cmp.Or(from, DefaultPlan)
		if reason := checkLabel(from); reason != "" {
			return nil, nil, &InvalidError{"from", reason}
		}
		if plans[from] == nil {
			return nil, nil, &InvalidError{"from", "there is no plan " + from}
		}
		after = maps.Clone(plans[from])
	}
	maps.Copy(after, changes)
	return before, after, nil
}

// SavePlan makes a plan of the limits of another one, DefaultPlan where from is empty, or changes the one of this name,
// for which from must be empty; but for the changes. Limits that are not among those are as they are when the change is
// made, whoever changes them at the same time. All must be there and in bounds, together with what the plan's tenants
// have of their own. They may be below what is in use: see [quota.Ceilings.Decide]. It fails with [audit.ErrNoActor] or an
// [*InvalidError] that names the limit.
func (s *Service) SavePlan(ctx context.Context, actor audit.Actor, name, from string, changes quota.Values) error {
	if reason := checkLabel(name); reason != "" {
		return &InvalidError{"plan", reason}
	}
	return s.changePlan(ctx, actor, "plan.save", name, func(tx pgx.Tx, plans map[string]quota.Values) error {
		_, limits, err := ChangedPlan(plans, name, from, changes)
		if err != nil {
			return err
		}
		if _, err := quota.Effective(limits, nil); err != nil {
			return limitError(err)
		}
		text, err := json.Marshal(limits)
		if err != nil {
			return err
		}
		all, err := Load(ctx, tx, nil)
		if err != nil {
			return err
		}
		totals, err := totalsOf(ctx, tx)
		if err != nil {
			return err
		}
		var will []string
		for _, t := range all {
			if t.Plan != name {
				continue
			}
			if _, err := quota.Effective(limits, t.Overrides); err != nil {
				return &InvalidError{"plan", fmt.Sprintf("does not fit what tenant %s has of its own: %v", t.Slug, err)}
			}
			if lower := lowered(limitsOf(plans[name], t.Overrides), limitsOf(limits, t.Overrides), totals(t)); len(lower) > 0 {
				will = append(will, fmt.Sprintf("Tenant %s: %s", t.Slug, strings.Join(lower, " ")))
			}
		}
		if more := len(will) - mostTold; more > 0 {
			will = append(will[:mostTold], fmt.Sprintf("%d more tenants have the plan and will feel it.", more))
		}
		if len(will) > 0 && !actor.Confirmed {
			return &ConfirmError{append(will, canLose)}
		}
		return dbgen.New().SavePlan(ctx, tx, dbgen.SavePlanParams{Name: name, Limits: text})
	})
}

// mostTold is how many tenants a question names.
const mostTold = 10

// DeletePlan deletes a plan that no tenant has. It fails with [audit.ErrNoActor], [ErrNotFound] or an [*InvalidError].
func (s *Service) DeletePlan(ctx context.Context, actor audit.Actor, name string) error {
	if name == DefaultPlan {
		return &InvalidError{"plan", "is the one that new tenants get"}
	}
	err := s.changePlan(ctx, actor, "plan.delete", name, func(tx pgx.Tx, _ map[string]quota.Values) error {
		n, err := dbgen.New().DeletePlan(ctx, tx, name)
		if err == nil && n == 0 {
			err = noPlan(name)
		}
		return err
	})
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "23503" { // foreign_key_violation
		return &InvalidError{"plan", "is in use: give its tenants another one first"}
	}
	return err
}

func noPlan(name string) error { return fmt.Errorf("%w: there is no plan %.80q", errNoSuch, name) }

// planSubject is the plan with this name. It holds all plans as they were last read.
type planSubject struct {
	controlPlane
	name string
	all  map[string]quota.Values
}

func (s *planSubject) Read(ctx context.Context, tx pgx.Tx) (_ *uuid.UUID, facts audit.Facts, err error) {
	if s.all, err = loadPlans(ctx, tx); err != nil {
		return nil, nil, err
	}
	facts = audit.Facts{}
	for limit, value := range s.all[s.name] {
		facts[audit.Fact{Kind: "plan", Of: s.name, Name: limit}] = value
	}
	return nil, facts, nil
}

// changePlan is [Service.change] for plans, of which apply gets those before.
func (s *Service) changePlan(
	ctx context.Context, actor audit.Actor, action audit.Action, name string, apply func(tx pgx.Tx, plans map[string]quota.Values) error,
) error {
	subject := &planSubject{name: name}
	return s.begin(ctx, func(tx pgx.Tx) error {
		_, err := audit.Change(ctx, tx, actor, action, subject, func() error { return apply(tx, subject.all) })
		return err
	})
}

// checkPlan says with an [*InvalidError] why a tenant cannot have the plan with these limits of its own.
func checkPlan(ctx context.Context, tx pgx.Tx, name string, overrides quota.Values) error {
	plans, err := loadPlans(ctx, tx)
	if err != nil {
		return err
	}
	limits, ok := plans[name]
	if !ok {
		return &InvalidError{"plan", fmt.Sprintf("there is no plan %.80q", name)}
	}
	_, err = quota.Effective(limits, overrides)
	return limitError(err)
}

func limitError(err error) error {
	if e, ok := errors.AsType[*quota.InvalidError](err); ok {
		return &InvalidError{Field: e.Field, Reason: e.Reason}
	}
	return err
}
