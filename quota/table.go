package quota

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Table keeps the buckets of any number of keys in memory that never grows.
//
// A key that [Table.Own] was called for has buckets of its own, which are exact. All other keys share cells:
// each has one in each of several rows, by its hash; what it takes counts in all of them, and what it owes is
// the least that any says (a count-min sketch whose cells are buckets). Reasons:
//
//   - Nobody gets a fresh burst by being forgotten. A flood of new keys fills no table and evicts nothing.
//     When owned keys outgrow their places, the one that goes takes its debt along into its cells, where it
//     finds it on its return. Debts pay themselves off with time, so cells need no cleaning.
//   - A sketch errs one way: a key owes at least what it took, and more only where others that owe share all
//     its cells. Since the hash is secret, that is chance. To keep a share p of the cells in debt takes a
//     flood of p * cells / interval calls a second that were *admitted*, and then p^4 of the other keys are
//     wrong: at 65,536 cells and 10 calls a second, 300,000 calls a second for one key in 16.
//   - Wallets that are known own their buckets, so strangers cannot put them into debt at all, and since
//     enrolment is limited they cannot become known in numbers either. A wallet is a stranger only until its
//     first answer after a start of the server, or after as many others were known that it had to go.
//
// Owned keys are kept in sets of 8; what goes is the key in the set that has paid its debts, or will first,
// which is about the one that was least recently used.
//
// A table takes 56 bytes for each place and 160 for each cell, and allocates nothing after it is made. It is
// safe for concurrent use.
type Table struct {
	seed    maphash.Seed
	shards  [shards]shard
	evicted atomic.Int64 // keys that had buckets of their own
}

// Key is whom a bucket is for: the id of a wallet or of a tenant, or what [AddressKey] says.
type Key [16]byte

const (
	shards = 64 // each has a lock of its own, held for tens of nanoseconds
	ways   = 8
	rows   = 4

	// slots is the number of buckets of a key: one for each kind of call, and then these.
	slots      = kinds + 2
	enrolments = kinds
	logins     = kinds + 1
)

type shard struct {
	mu    sync.Mutex
	sets  [][ways]place
	cells [rows][]buckets // of a length that is a power of two
	_     [64]byte        // the next lock is on another cache line
}

type place struct {
	key     Key     // all zero where it is free; nobody's key is
	buckets buckets // then too
}

type buckets [slots]Bucket

// AddressKey is the key of a client's address: an IPv4 address, or the /64 of an IPv6 address, which is what
// one subscriber has at least (CONTRACT section 4; RFC 6177).
func AddressKey(a netip.Addr) Key {
	a = a.Unmap()
	key := a.As16() // the zone is not in it
	if !a.Is4() {
		clear(key[8:])
	}
	return key
}

// of is the key of an address at a tenant.
func (k Key) of(tenant uuid.UUID) Key {
	for i := range k {
		k[i] ^= tenant[i]
	}
	return k
}

// NewTable makes a table with places for at least so many keys, and at least so many cells in each of the 4
// rows (at most 2^18). With no places all keys share cells.
func NewTable(places, cells int) *Table {
	t := &Table{seed: maphash.MakeSeed()}
	sets := (places + shards*ways - 1) / (shards * ways)
	perShard := 1
	for perShard*shards < min(cells, 1<<18) {
		perShard *= 2
	}
	for i := range t.shards {
		s := &t.shards[i]
		s.sets = make([][ways]place, sets)
		for r := range s.cells {
			s.cells[r] = make([]buckets, perShard)
		}
	}
	return t
}

// where says where a key is: in which shard, and by which hash there.
func (t *Table) where(key *Key) (*shard, uint64) {
	h := maphash.Bytes(t.seed, key[:])
	return &t.shards[h%shards], h / shards
}

// take asks the key's bucket, as [Rate.Take] does, and says whether it is the key's own.
func (t *Table) take(key Key, slot int, r Rate, now, patience time.Duration) (v Verdict, own bool) {
	return t.takeOr(key, slot, r, r, now, patience)
}

// takeOr is take with another rate for keys that share their buckets. It has to be the same for all who do: one with a
// slow rate owes for long, in cells that are others' too.
func (t *Table) takeOr(key Key, slot int, r, shared Rate, now, patience time.Duration) (v Verdict, own bool) {
	s, h := t.where(&key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.find(h, &key); p != nil {
		p.buckets[slot], v = r.Take(p.buckets[slot], now, patience)
		return v, true
	}
	b, v := shared.Take(s.shared(h, slot), now, patience)
	if v.OK {
		s.owe(h, slot, b)
	}
	return v, false
}

// giveBack undoes a take of a moment ago. A cell gives nothing back: what it owes may be another's.
func (t *Table) giveBack(key Key, slot int, r Rate) {
	s, h := t.where(&key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.find(h, &key); p != nil {
		p.buckets[slot] = r.giveBack(p.buckets[slot])
	}
}

// owns says whether a key has buckets of its own.
func (t *Table) owns(key Key) bool {
	s, h := t.where(&key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(h, &key) != nil
}

// Own gives a key buckets of its own, if it has none and the table has places. It begins with what it owes as
// a stranger.
func (t *Table) Own(key Key, now time.Duration) {
	s, h := t.where(&key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sets) == 0 || s.find(h, &key) != nil {
		return
	}
	set := s.set(h)
	goes := &set[0]
	for i := range set {
		if set[i].latest() < goes.latest() {
			goes = &set[i]
		}
	}
	if goes.latest() > 0 {
		t.evicted.Add(1)
		_, its := t.where(&goes.key)
		for slot, b := range goes.buckets {
			s.owe(its, slot, b)
		}
	}
	goes.key = key
	for slot := range goes.buckets {
		// A bucket that is full since now, so that a place just given is not the next to go.
		goes.buckets[slot] = max(s.shared(h, slot), Bucket(now))
	}
}

func (s *shard) set(h uint64) *[ways]place {
	// Mixed, since keys of one set must not share cells more often than others do.
	return &s.sets[h*0x9e3779b97f4a7c15>>32%uint64(len(s.sets))]
}

func (s *shard) find(h uint64, key *Key) *place {
	if len(s.sets) == 0 {
		return nil
	}
	set := s.set(h)
	for i := range set {
		if set[i].key == *key {
			return &set[i]
		}
	}
	return nil
}

// cell is the key's in a row. The rows' indices are different bits of the hash, 12 for each.
func (s *shard) cell(h uint64, row int) *buckets {
	cells := s.cells[row]
	return &cells[h>>(12*row)&uint64(len(cells)-1)]
}

// shared is what the key with this hash owes as a stranger.
func (s *shard) shared(h uint64, slot int) Bucket {
	least := s.cell(h, 0)[slot]
	for row := 1; row < rows; row++ {
		least = min(least, s.cell(h, row)[slot])
	}
	return least
}

func (s *shard) owe(h uint64, slot int, b Bucket) {
	for row := range rows {
		c := s.cell(h, row)
		c[slot] = max(c[slot], b)
	}
}

// latest is when all buckets of the place are full.
func (p *place) latest() Bucket {
	latest := p.buckets[0]
	for _, b := range p.buckets[1:] {
		latest = max(latest, b)
	}
	return latest
}
