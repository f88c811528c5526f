package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants/masterkey"
)

// ErrNoActor: it was not said, or not in a way that can be written down, who makes the change.
var ErrNoActor = errors.New("a change must say who makes it: an actor's kind, and a name of 1 to 200 characters")

// Actor is who makes a change, as the audit log names it.
type Actor struct {
	Kind ActorKind
	Name string // within the kind: 1 to 200 characters
}

// ActorKind is how an actor came to be known.
type ActorKind string

const (
	Operator ActorKind = "operator" // somebody with access to the database, as "root@host"
	System   ActorKind = "system"   // the platform by itself, as when it creates the demo tenant
)

func (a Actor) String() string { return string(a.Kind) + ":" + a.Name }

// authorize says whether the actor may make a change. All that there are may make any.
func (a Actor) authorize() error {
	if a.Kind != Operator && a.Kind != System || !isName(a.Name) {
		return ErrNoActor
	}
	return nil
}

// change is how everything is changed: it authorizes the actor, applies the change to the tenant with this
// slug (nil where there is none) and writes the audit row, in one transaction, so that none of the three
// can be forgotten. It returns the tenant as it is afterwards.
//
// What the audit row tells of before and after is what the database held. A change that changed nothing
// gets none.
func (s *Service) change(
	ctx context.Context, actor Actor, action, slug string, apply func(tx pgx.Tx, before *Tenant) error,
) (after *Tenant, err error) {
	if err := actor.authorize(); err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		q := dbgen.New()
		if err := q.LockControlPlane(ctx, tx); err != nil {
			return err
		}
		if err := q.LockTenant(ctx, tx, slug); err != nil {
			return err
		}
		before, err := find(ctx, tx, slug)
		if err != nil {
			return err
		}
		was := facts(before) // apply may change it in place
		routed := before.routing()
		if err := apply(tx, before); err != nil {
			return err
		}
		if after, err = find(ctx, tx, slug); err != nil {
			return err
		}
		if err := after.routing().ambiguous(routed); err != nil {
			ambiguous, _ := errors.AsType[*ambiguity](err)
			return ambiguous.invalid()
		}
		detail := compare(was, facts(after))
		if len(detail) == 0 {
			return nil
		}
		if err := audit(ctx, tx, actor, action, &after.ID, detail); err != nil {
			return err
		}
		if before == nil {
			return nil // its first sources are no news
		}
		return tellOfKeys(ctx, tx, after.ID, detail)
	})
	if err != nil {
		return nil, translate(err)
	}
	return after, nil
}

// audit writes a row of the audit log.
func audit(ctx context.Context, tx pgx.Tx, actor Actor, action string, tenant *uuid.UUID, detail any) error {
	text, err := json.Marshal(detail)
	if err != nil {
		return err
	}
	return dbgen.New().InsertAudit(ctx, tx, dbgen.InsertAuditParams{
		Actor: actor.String(), Action: action, TenantID: tenant, Detail: text,
	})
}

// tellOfKeys makes an event a source of a change to what proves who wallets are: whoever makes one can act as any of them.
func tellOfKeys(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, detail map[string]difference) error {
	changed := map[string][]string{} // by source
	for _, name := range slices.Sorted(maps.Keys(detail)) {
		if kind, of, _ := strings.Cut(name, ":"); kind == "key" || kind == "source" {
			source, _, _ := strings.Cut(of, ":")
			changed[source] = append(changed[source], name)
		}
	}
	for _, source := range slices.Sorted(maps.Keys(changed)) {
		text, err := json.Marshal(map[string]any{"changed": changed[source]})
		if err != nil {
			return err
		}
		err = dbgen.New().KeysChanged(ctx, tx, dbgen.KeysChangedParams{TenantID: tenant, Source: source, Detail: text})
		if err != nil {
			return err
		}
	}
	return nil
}

// find is the tenant with this slug, or nil.
func find(ctx context.Context, tx pgx.Tx, slug string) (*Tenant, error) {
	found, err := load(ctx, tx, &slug)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// facts is all about a tenant that the audit log tells, by name. None of it is a secret.
func facts(t *Tenant) map[string]any {
	if t == nil {
		return nil
	}
	f := map[string]any{
		"slug":              t.Slug,
		"name":              t.Name,
		"state":             t.State,
		"plan":              t.Plan,
		"enrolment":         t.Enrolment,
		"client_key_gate":   t.Gate.State,
		"client_key_header": t.Gate.Header,
	}
	for name, value := range t.Overrides {
		f["limit:"+name] = value
	}
	for _, d := range t.Domains {
		f["domain:"+d.Host] = map[string]any{"state": d.State, "vouched": d.Vouched}
	}
	for _, k := range t.ClientKeys {
		f["client_key:"+k.Prefix] = map[string]any{"name": k.Name, "expires_at": k.ExpiresAt, "revoked_at": k.RevokedAt}
	}
	for _, src := range slices.Concat(t.Sources, t.Removed) {
		f["source:"+src.Name] = sourceFacts(&src)
		for _, k := range src.Keys {
			f["key:"+src.Name+":"+k.ID] = map[string]any{"state": k.State, "until": k.Until, "sealed_by": masterkey.SealedBy(k.Sealed)}
		}
	}
	for _, src := range t.Removed {
		f["source:"+src.Name].(map[string]any)["removed"] = true
	}
	return f
}

func sourceFacts(src *Source) map[string]any {
	f := map[string]any{"kind": src.Kind, "namespace": src.Namespace}
	switch src.Kind {
	case Signature:
		f["window_seconds"] = int64(src.Window.Seconds())
	case JWT:
		f["issuer"], f["audience_rule"], f["audiences"] = src.Rules.Issuer, src.Rules.AudienceRule, src.Rules.Audiences
		f["check_not_before"], f["algorithms"] = src.Rules.CheckNotBefore, src.Rules.Algorithms
		f["by_key_id"], f["jwks_url"] = src.ByKeyID, src.JWKSURL
	case LNURL:
		f["host"], f["token_seconds"] = src.Host, int64(src.TokenLife.Seconds())
	}
	return f
}

// difference is a fact before and after a change; absent where it was or is none.
type difference struct {
	Before any `json:"before,omitempty"`
	After  any `json:"after,omitempty"`
}

func compare(before, after map[string]any) map[string]difference {
	changed := map[string]difference{}
	for name, b := range before {
		if a := after[name]; !reflect.DeepEqual(a, b) {
			changed[name] = difference{Before: b, After: a}
		}
	}
	for name, a := range after {
		if _, ok := before[name]; !ok {
			changed[name] = difference{After: a}
		}
	}
	return changed
}
