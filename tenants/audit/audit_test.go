package audit

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var root = Actor{Role: Operator, Name: "root@host"}

// plan is a subject: a plan's limits, as text.
type plan struct{ locked *bool }

func (p plan) Lock(ctx context.Context, tx pgx.Tx) error {
	*p.locked = true
	_, err := tx.Exec(ctx, "SELECT FROM plans WHERE name = 'test' FOR UPDATE")
	return err
}

func (p plan) Read(ctx context.Context, tx pgx.Tx) (*uuid.UUID, Facts, error) {
	var limits string
	switch err := tx.QueryRow(ctx, "SELECT limits::text FROM plans WHERE name = 'test'").Scan(&limits); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	}
	return nil, Facts{{Kind: "plan", Of: "test", Name: "limits"}: limits, {Kind: "always"}: 1}, nil
}

// try makes a change that runs this SQL, and says how it went and what the log has gained.
func try(t *testing.T, pool *pgxpool.Pool, actor Actor, action Action, sql string) (changed []Fact, row string, err error) {
	t.Helper()
	var last int64
	if err := pool.QueryRow(t.Context(), "SELECT coalesce(max(id), 0) FROM audit_log").Scan(&last); err != nil {
		t.Fatal(err)
	}
	locked := false
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
		changed, err = Change(t.Context(), tx, actor, action, plan{&locked}, func() error {
			if !locked {
				t.Error("the change was applied before its subject was locked")
			}
			_, err := tx.Exec(t.Context(), sql)
			return err
		})
		return err
	})
	found, queryErr := pool.Query(t.Context(), "SELECT actor || ' ' || action || ' ' || detail::text FROM audit_log WHERE id > $1 ORDER BY id", last)
	if queryErr != nil {
		t.Fatal(queryErr)
	}
	rows, queryErr := pgx.CollectRows(found, pgx.RowTo[string])
	if queryErr != nil {
		t.Fatal(queryErr)
	}
	return changed, strings.Join(rows, "\n"), err
}

func TestAChangeIsWrittenDownWithWhatIsDifferent(t *testing.T) {
	t.Parallel()
	pool, err := db.Open(t.Context(), dbtest.New(t), db.RoleAdmin, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, step := range []struct {
		name, sql, row, changed string
	}{
		{"created", `INSERT INTO plans (name, limits) VALUES ('test', '{}')`,
			`operator:root@host plan.save {"always": {"after": 1}, "plan:test:limits": {"after": "{}"}}`, "always plan:test:limits"},
		{"changed", `UPDATE plans SET limits = '{"a": 1}' WHERE name = 'test'`,
			`operator:root@host plan.save {"plan:test:limits": {"after": "{\"a\": 1}", "before": "{}"}}`, "plan:test:limits"},
		{"the same again", `UPDATE plans SET limits = '{"a": 1}' WHERE name = 'test'`, "", ""},
		{"deleted", `DELETE FROM plans WHERE name = 'test'`,
			`operator:root@host plan.save {"always": {"before": 1}, "plan:test:limits": {"before": "{\"a\": 1}"}}`, "always plan:test:limits"},
	} {
		changed, row, err := try(t, pool, root, "plan.save", step.sql)
		if err != nil || row != step.row {
			t.Errorf("%s: audited %s, %v; want %s", step.name, row, err, step.row)
		}
		names := make([]string, len(changed))
		for i, fact := range changed {
			names[i] = fact.String()
		}
		if got := strings.Join(names, " "); got != step.changed {
			t.Errorf("%s: changed %q, want %q", step.name, got, step.changed)
		}
	}
}

func TestWhoMayNotChangeChangesNothing(t *testing.T) {
	t.Parallel()
	pool, err := db.Open(t.Context(), dbtest.New(t), db.RoleAdmin, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	const change = `INSERT INTO plans (name, limits) VALUES ('test', '{}')`
	for _, actor := range []Actor{{}, {Role: Operator}, {Name: "root"}, {Role: "wallet", Name: "root"}, {Role: Operator, Name: "a\nb"}, {Role: Operator, Name: strings.Repeat("a", 201)}} {
		if _, row, err := try(t, pool, actor, "plan.save", change); !errors.Is(err, ErrNoActor) || row != "" {
			t.Errorf("%+v: got %v, audited %q", actor, err, row)
		}
	}
	_, row, err := try(t, pool, Actor{Role: System, Name: "demo"}, "plan.save", change)
	if _, ok := errors.AsType[*ForbiddenError](err); !ok || row != "" || err.Error() != "system:demo may not do plan.save: its role does not allow it" {
		t.Errorf("got %v, audited %q", err, row)
	}
	var n int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM plans WHERE name = 'test'").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d plans were made, %v", n, err)
	}
}

func TestAFailedChangeIsNotWrittenDown(t *testing.T) {
	t.Parallel()
	pool, err := db.Open(t.Context(), dbtest.New(t), db.RoleAdmin, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, row, err := try(t, pool, root, "plan.save", "SELECT 1/0"); err == nil || row != "" {
		t.Errorf("got %v, audited %q", err, row)
	}
}
