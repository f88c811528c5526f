package postgres_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/storage"
)

// What a call costs from here to the server and back, with 700-byte values, every goroutine in a store of its own.
func BenchmarkStore(b *testing.B) {
	p := newPlace(b, 1)
	s := p.stores[0]
	value := make([]byte, 700)
	var wallets atomic.Int64
	keyspace := func() storage.Keyspace {
		ks, err := storage.NewKeyspace(storage.Owner{Tenant: uuid.New(), Namespace: "sig", Subject: fmt.Sprint(wallets.Add(1))}, "")
		if err != nil {
			b.Fatal(err)
		}
		if err := save(b.Context(), s, ks, storage.Batch{Writes: []storage.Object{{Key: "k", Version: -1, Value: value}}}); err != nil {
			b.Fatal(err)
		}
		return ks
	}
	for name, call := range map[string]func(ks storage.Keyspace, i int) error{
		"put/update": func(ks storage.Keyspace, _ int) error {
			return save(b.Context(), s, ks, storage.Batch{Writes: []storage.Object{{Key: "k", Version: -1, Value: value}}})
		},
		"put/new key": func(ks storage.Keyspace, i int) error {
			return save(b.Context(), s, ks, storage.Batch{Writes: []storage.Object{{Key: fmt.Sprint("k", i), Version: -1, Value: value}}})
		},
		"get": func(ks storage.Keyspace, _ int) error {
			_, err := s.Get(b.Context(), ks, "k", nil)
			return err
		},
		"list": func(ks storage.Keyspace, _ int) error {
			_, err := s.List(b.Context(), ks, storage.ListRequest{})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				ks := keyspace()
				for i := 0; pb.Next(); i++ {
					if err := call(ks, i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
