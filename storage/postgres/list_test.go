package postgres_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/storage"
)

// What storagetest says of the work of a page, for a store that would take it a hundred times longer to make:
// each of its keys is the only one left of its block of 256, as the updates of channel monitors leave them.
func TestAPageOfAStoreFullOfHolesTakesBoundedWork(t *testing.T) {
	t.Parallel()
	const keys, old = 100_000, 1_100 // old ones are just too many to be read and sorted by their prefix
	p := newPlace(t, 1)
	ks := key(t)
	write(t, p.stores[0], ks, put("first", 0, "v"))
	if _, err := p.owner.Exec(t.Context(), `INSERT INTO objects (store, key, version, position, value)
		SELECT $1, CASE WHEN i <= $3 THEN 'old/' ELSE 'new/' END || i, 1, i::bigint * 256, '' FROM generate_series(1, $2::int) i`,
		uuid.UUID(ks.Store()), keys, old); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"", "old/", "new/"} {
		var req storage.ListRequest
		req.Prefix = prefix
		for range 5 {
			before := p.Work(t)
			page, err := p.stores[0].List(t.Context(), ks, req)
			if err != nil {
				t.Fatal(err)
			}
			if work := p.Work(t) - before; work > 6_000 {
				t.Errorf("a page of %q looked at %d entries", prefix, work)
			}
			if len(page.Keys) != 100 || !strings.HasPrefix(page.Keys[0].Key, prefix) {
				t.Fatalf("a page of %q: %d keys", prefix, len(page.Keys))
			}
			req.Token = page.NextToken
		}
	}
}
