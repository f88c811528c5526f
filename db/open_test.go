package db_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
)

func TestASchemaNamedLikeTheUserHidesNothing(t *testing.T) {
	t.Parallel()
	url := dbtest.New(t)
	owner, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	if _, err := owner.Exec(t.Context(), `CREATE SCHEMA `+pgx.Identifier{owner.Config().User}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	if applied, err := db.Migrate(t.Context(), url); err != nil || applied != 0 {
		t.Errorf("%d migrations applied again, error %v", applied, err)
	}
	for _, role := range []db.Role{db.RoleAPI, db.RoleAdmin} {
		pool, err := db.Open(t.Context(), url, role, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		var schema string
		if err := pool.QueryRow(t.Context(), `SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'stores'::regclass`).Scan(&schema); err != nil || schema != "public" {
			t.Errorf("as %s, stores is that of schema %q, error %v", role, schema, err)
		}
	}
}
