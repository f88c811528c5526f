// Package audit is how everything that people administer is changed: the actor is authorized, the change is made and
// the audit row is written in one transaction, so that none of the three can be forgotten.
//
// It knows neither tenants nor plans nor accounts: whatever can be changed is a [Subject], which tells what it is like.
package audit

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
)

// Action names what is done to a subject, as in "tenant.set".
type Action string

// Subject is what a change is about. It is for one change.
type Subject interface {
	// Lock keeps everybody else from changing the subject until the transaction ends.
	Lock(ctx context.Context, tx pgx.Tx) error

	// Read says what the subject is like now, and which tenant's log tells of it; nil: it is the provider's alone.
	// A subject that does not exist has no facts.
	Read(ctx context.Context, tx pgx.Tx) (tenant *uuid.UUID, facts Facts, err error)
}

// Facts are all about a subject that the audit log tells. None of them is a secret: the log is kept.
type Facts map[Fact]any

// Fact names one thing about a subject.
type Fact struct {
	Kind string // as "state" or "key"
	Of   string // of what, where there are several, as the source of a key
	Name string // which one, as the key's kid
}

// String is the fact's name in the log: what there is of the three, with colons between.
func (f Fact) String() string {
	parts := slices.DeleteFunc([]string{f.Kind, f.Of, f.Name}, func(s string) bool { return s == "" })
	return strings.Join(parts, ":")
}

// Change is how every change is made. It locks the subject, reads what it is like, applies the change and writes the
// audit row, which tells what has become different, by what the database held before and holds after. A change that
// changed nothing gets no row.
//
// The transaction is the caller's, which may make several changes in it. It returns the facts that are different now.
// It fails with [ErrNoActor], a [*ForbiddenError] or with whatever the subject or apply do; then the transaction is to
// be rolled back.
func Change(ctx context.Context, tx pgx.Tx, actor Actor, action Action, subject Subject, apply func() error) ([]Fact, error) {
	if err := actor.Authorize(action); err != nil {
		return nil, err
	}
	if err := subject.Lock(ctx, tx); err != nil {
		return nil, err
	}
	_, before, err := subject.Read(ctx, tx)
	if err != nil {
		return nil, err
	}
	if err := apply(); err != nil {
		return nil, err
	}
	tenant, after, err := subject.Read(ctx, tx)
	if err != nil {
		return nil, err
	}
	differences := compare(before, after)
	if len(differences) == 0 {
		return nil, nil
	}
	detail := make(map[string]difference, len(differences))
	for fact, d := range differences {
		detail[fact.String()] = d
	}
	text, err := json.Marshal(detail)
	if err != nil {
		return nil, err
	}
	err = dbgen.New().InsertAudit(ctx, tx, dbgen.InsertAuditParams{
		Actor: actor.String(), Action: string(action), TenantID: tenant, Detail: text,
	})
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Keys(differences), func(a, b Fact) int { return strings.Compare(a.String(), b.String()) }), nil
}

// difference is a fact before and after a change; absent where it was or is none.
type difference struct {
	Before any `json:"before,omitempty"`
	After  any `json:"after,omitempty"`
}

func compare(before, after Facts) map[Fact]difference {
	changed := map[Fact]difference{}
	for fact, b := range before {
		if a := after[fact]; !reflect.DeepEqual(a, b) {
			changed[fact] = difference{Before: b, After: a}
		}
	}
	for fact, a := range after {
		if _, ok := before[fact]; !ok {
			changed[fact] = difference{After: a}
		}
	}
	return changed
}
