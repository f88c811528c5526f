// Package storagetest holds every storage backend to the promises of package storage: one suite, split by
// topic, that a backend's test calls with a few lines. A check that one backend needs is a promise of all, so
// it goes here.
package storagetest

import (
	"testing"

	"github.com/vss-cloud/vss-cloud/storage"
)

// Backend is what a backend's test gives the suite.
type Backend struct {
	// New makes a fresh, empty place and opens stores over it, as so many instances of the API would. All
	// of it is cleaned up by t.
	New func(t testing.TB, instances int) Place
}

// Place is where a backend keeps its objects, with the handles that a test needs behind the stores' backs.
// Its methods may be called from several goroutines.
type Place interface {
	Stores() []storage.Store

	// Hold takes the write lock of the keyspace's store, as a slow writer in another process would, and
	// returns its release, which changes nothing in the store and does nothing a second time. The store has been
	// written before.
	Hold(t testing.TB, ks storage.Keyspace) (release func())

	// Waiting is how many writers wait for a lock right now, in the whole place and as the database sees
	// it: a writer whose caller is gone still counts.
	Waiting(t testing.TB) int

	// Kill ends an instance as kill -9 of its process would. Its connections close without a goodbye or a
	// cancel request, the database is left to find out by itself (so pg_terminate_backend is no Kill), and
	// nothing that the instance does afterwards reaches it. Calls under way may return or hang.
	Kill(t testing.TB, instance int)

	// Block blocks the wallet of the keyspace, or ends that. The wallet has written before.
	Block(t testing.TB, ks storage.Keyspace, block bool)

	// Recount is what is on record about the store, and what its objects amount to.
	Recount(t testing.TB, ks storage.Keyspace) Count

	// Work is how many index entries and rows the reads of every instance have looked at so far, those
	// included that they passed over.
	Work(t testing.TB) int64
}

// Count is an answer of [Place.Recount].
type Count struct {
	Known    bool  // something is on record about the store or its wallet
	Revision int64 // grows with every write

	Objects, Bytes               int64 // the store's counters; bytes are those of keys and values
	CountedObjects, CountedBytes int64 // the same, counted from the objects themselves
}

// Test runs the suite. It takes about a minute; with -short the loads are smaller.
func Test(t *testing.T, b Backend) {
	s := &suite{Backend: b, shared: b.New(t, 2)}
	for _, topic := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"large values", testLargeValues}, // first and alone: it needs the memory
		{"versions", testVersions},
		{"atomicity", testAtomicity},
		{"global version", testGlobalVersion},
		{"delete", testDelete},
		{"list", testList},
		{"paging", testPaging},
		{"prefixes", testPrefixes},
		{"collation", testCollation},
		{"input", testInput},
		{"values", testValues},
		{"endings", testEndings},
		{"isolation", testIsolation},
		{"limits", testLimits},
		{"model", testModel},
		{"races", testRaces},
		{"first writes", testFirstWrites},
		{"locks", testLocks},
		{"load", testLoad},
		{"work", testWork},
	} {
		t.Run(topic.name, func(t *testing.T) { topic.run(t, s) })
	}
}

// suite is one run of Test.
type suite struct {
	Backend
	shared Place // of two instances; each test has a keyspace of its own in it
}

// that runs a test, in parallel with others, on a keyspace of its own in the shared place.
func (s *suite) that(t *testing.T, sentence string, test func(*testing.T, client)) {
	t.Run(sentence, func(t *testing.T) {
		t.Parallel()
		test(t, client{t: t, place: s.shared, ks: keyspace(t)})
	})
}

// alone runs a test, in parallel with others, on a place of its own: for what [Place] says of a place as a
// whole.
func (s *suite) alone(t *testing.T, sentence string, test func(*testing.T, client)) {
	t.Run(sentence, func(t *testing.T) {
		t.Parallel()
		test(t, client{t: t, place: s.New(t, 2), ks: keyspace(t)})
	})
}
