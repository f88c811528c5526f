package dbtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/vss-cloud/vss-cloud/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestX(t *testing.T) {
	for range 20 {
		s := time.Now()
		u := dbtest.New(t)
		e := time.Since(s)
		c, err := pgx.Connect(context.Background(), u)
		if err != nil {
			t.Fatal(err)
		}
		c.Close(context.Background())
		t.Log(e)
	}
}
