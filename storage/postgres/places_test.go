package postgres_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/db/dbtest"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/storage/postgres"
)

// While large writes wait for each other they must not hold the places of small ones.
func TestALargeWriteTakesNoPlaceOfASmallOne(t *testing.T) {
	t.Parallel()
	pool, err := db.Open(t.Context(), dbtest.New(t), db.RoleAPI, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var mu sync.Mutex
	var entered []postgres.Kind
	held := 0
	s := postgres.New(pool, postgres.Config{AllowDataLoss: true, Enter: func(_ context.Context, _ storage.Keyspace, kind postgres.Kind) (func(), error) {
		mu.Lock()
		defer mu.Unlock()
		entered = append(entered, kind)
		held++
		return func() { mu.Lock(); defer mu.Unlock(); held-- }, nil
	}})
	ks, err := storage.NewKeyspace(storage.Owner{Tenant: uuid.New(), Namespace: "sig", Subject: "wallet"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		size int
		want postgres.Kind
	}{{10, postgres.Write}, {8 << 20, postgres.LargeWrite}} {
		entered = nil
		if _, err := s.Put(t.Context(), ks, storage.Batch{Writes: []storage.Object{{Key: "k", Version: -1, Value: make([]byte, step.size)}}}, storage.Limits{}); err != nil {
			t.Fatal(err)
		}
		if want := []postgres.Kind{step.want}; !slices.Equal(entered, want) || held != 0 {
			t.Errorf("a write of %d bytes took the places %v, want %v, and holds %d afterwards", step.size, entered, want, held)
		}
	}
}
