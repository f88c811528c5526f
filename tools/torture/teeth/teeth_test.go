package teeth_test

import (
	"context"
	"testing"
	"time"

	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/tools/torture/platform"
	"github.com/vss-cloud/vss-cloud/tools/torture/teeth"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestEveryBugIsFoundAndNoneWhereThereIsNone(t *testing.T) {
	url := dbtest.New(t)
	if err := platform.CreateTenants(t.Context(), url, teeth.Slug); err != nil {
		t.Fatal(err)
	}
	for _, bug := range teeth.Bugs {
		t.Run(bug.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			f := teeth.Find(ctx, bug, url, 1)
			if f.Err != nil {
				t.Fatal(f.Err)
			}
			t.Logf("found after %d operations in %v by %s", f.Operations, f.Took, f.By)
		})
	}
	t.Run(teeth.Crossing.Name, func(t *testing.T) {
		tenants := []string{"one", "two", "three", "four"}
		if err := platform.CreateTenants(t.Context(), url, tenants...); err != nil {
			t.Fatal(err)
		}
		if f := teeth.FindCrossing(t.Context(), teeth.Crossing, url, tenants[:2], 1); f.Err != nil {
			t.Error(f.Err)
		}
		if f := teeth.FindCrossing(t.Context(), teeth.None, url, tenants[2:], 1); f.By != "" {
			t.Errorf("found, though it is not there, after %d operations by %s", f.Operations, f.By)
		}
	})
	t.Run("none", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if f := teeth.Find(ctx, teeth.None, url, 1); f.Err == nil {
			t.Fatalf("found after %d operations by %s", f.Operations, f.By)
		} else {
			t.Log(f.Err)
		}
	})
}
