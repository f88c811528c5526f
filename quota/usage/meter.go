package usage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
)

// Operation is one of the contract's calls.
type Operation uint8

const (
	GetObject Operation = iota
	PutObjects
	DeleteObject
	ListKeyVersions

	operations = iota
)

var operationNames = [operations]string{"getObject", "putObjects", "deleteObject", "listKeyVersions"}

func (o Operation) String() string { return operationNames[o] }

// Outcome is how a request ended, as far as a bill or a chart tells endings apart.
type Outcome uint8

const (
	Succeeded Outcome = iota
	NotFound          // the key
	Conflicted
	Invalid         // what no state of the store would accept, and bodies that were cut
	Unauthenticated // no wallet, or none that may call
	Refused         // for a [quota.Reason]
	Failed          // our fault

	outcomes = iota
)

var outcomeNames = [outcomes]string{"succeeded", "not_found", "conflicted", "invalid", "unauthenticated", "refused", "failed"}

func (o Outcome) String() string { return outcomeNames[o] }

// Request is what the meter is told of a request when it has been answered.
type Request struct {
	Tenant    uuid.UUID
	Wallet    quota.Key // the zero Key where no credential verified
	Operation Operation
	Outcome   Outcome
	Reason    quota.Reason // of a refusal
	In, Out   int64        // bytes of the bodies

	// Known: the wallet wrote, or read something that is there, and so is active. Any key is a wallet that nobody has
	// heard of.
	Known bool

	Enrolled bool // by this request
}

// Counts are what a tenant did in an hour.
type Counts struct {
	Requests [operations][outcomes]int64
	Refused  [quota.Reasons]int64
	In, Out  int64 // bytes
	Enrolled int64 // new wallets
}

func (c *Counts) add(o *Counts) {
	for i := range c.Requests {
		for j := range c.Requests[i] {
			c.Requests[i][j] += o.Requests[i][j]
		}
	}
	for i := range c.Refused {
		c.Refused[i] += o.Refused[i]
	}
	c.In += o.In
	c.Out += o.Out
	c.Enrolled += o.Enrolled
}

// Batch is what a meter counted since the batch before. Nobody changes it.
type Batch struct {
	// Instance and Sequence identify it: who stores a batch notes the highest Sequence of the Instance in the
	// same transaction, and stores none that is not above it. Then one that is stored again, because the answer
	// to the first commit was lost, changes nothing.
	Instance uuid.UUID // of this run of the process
	Sequence int64     // 1, 2, 3 ...

	Hours  []Hour   // to be added to what is there, by tenant and hour; each once
	Active []Active // to be inserted where it isn't there yet; each once
	Lost   int64    // requests that were not counted, since there was no memory left for their tenants
}

// Hour is a row of a [Batch].
type Hour struct {
	Tenant uuid.UUID
	Start  time.Time // UTC
	Counts
}

// Active says that a wallet was active on a day.
type Active struct {
	Tenant uuid.UUID
	Day    time.Time // 00:00 UTC
	Wallet quota.Key
}

// MeterConfig bounds the memory of a [Meter]. The zero value is usable.
type MeterConfig struct {
	// Rows is how many pairs of tenant and hour are counted between two batches, in 400 bytes for each and for
	// each of 16 shards that counts it; 0: 2^16 in all, which is 4096 tenants in every shard, and 25 MiB. It is
	// reached only with more tenants than that at once or while batches can't be stored for long. Requests
	// beyond it are [Batch].Lost, in the customers' favour.
	Rows int

	// Wallets is how many become active between two batches, in up to 100 bytes each; 0: 2^18, 25 MiB. One
	// beyond it is counted with a later request that day.
	Wallets int
}

// Meter counts what tenants do. It is in memory until [Meter.Take]: a crash loses what was not taken. Its memory
// is bounded by its config, and up to twice that while a batch is kept, and 5 MiB in which it remembers who was
// counted as active today. It may forget some, the more the more there are, who are in a batch again then. It is
// safe for concurrent use.
//
// A wallet's requests are always counted in the same one of 16 shards, so that wallets, not cores, meet at a
// lock, and for tens of nanoseconds.
type Meter struct {
	instance uuid.UUID
	rows     int // of each shard
	wallets  int
	shards   [meterShards]meterShard

	taking   sync.Mutex // for those below
	lost     int64      // in all that was taken
	sequence int64
	kept     *Batch // taken and not acknowledged
}

const (
	meterShards = 16
	remembered  = 1 << 14 // wallets, by each shard
)

type meterShard struct {
	mu     sync.Mutex
	hours  map[hour]*Counts
	active map[active]struct{}
	told   []told // by a part of the wallet's key, who is in active or was in a batch
	lost   int64
	_      [64]byte // the next lock is on another cache line
}

type hour struct {
	tenant uuid.UUID
	n      int64 // since 1970
}

type active struct {
	tenant uuid.UUID
	wallet quota.Key
	day    int32 // since 1970
}

type told struct {
	wallet quota.Key // which names its tenant too
	day    int32
}

// NewMeter makes a meter that has counted nothing.
func NewMeter(cfg MeterConfig) *Meter {
	if cfg.Rows == 0 {
		cfg.Rows = 1 << 16
	}
	if cfg.Wallets == 0 {
		cfg.Wallets = 1 << 18
	}
	m := &Meter{
		instance: uuid.New(),
		rows:     max(cfg.Rows/meterShards, 1),
		wallets:  max(cfg.Wallets/meterShards, 1),
	}
	for i := range m.shards {
		s := &m.shards[i]
		s.hours, s.active = map[hour]*Counts{}, map[active]struct{}{}
		s.told = make([]told, remembered)
	}
	return m
}

// Record counts a request that was answered at this time.
func (m *Meter) Record(at time.Time, r Request) {
	seconds := at.Unix()
	s := &m.shards[r.Wallet[0]%meterShards] // a key of a wallet is a hash
	if r.Wallet == (quota.Key{}) {
		s = &m.shards[rand.IntN(meterShards)]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Known && r.Wallet != (quota.Key{}) {
		s.see(active{r.Tenant, r.Wallet, int32(seconds / (24 * 60 * 60))}, m.wallets)
	}
	key := hour{r.Tenant, seconds / (60 * 60)}
	c := s.hours[key]
	if c == nil {
		if len(s.hours) >= m.rows {
			s.lost++
			return
		}
		c = &Counts{}
		s.hours[key] = c
	}
	c.Requests[r.Operation][r.Outcome]++
	if r.Outcome == Refused {
		c.Refused[r.Reason]++
	}
	c.In += r.In
	c.Out += r.Out
	if r.Enrolled {
		c.Enrolled++
	}
}

// see notes that a wallet is active, unless it is noted already or there are too many.
func (s *meterShard) see(a active, most int) {
	last := &s.told[binary.LittleEndian.Uint32(a.wallet[1:])%remembered]
	now := told{a.wallet, a.day}
	if *last == now || len(s.active) >= most {
		return
	}
	*last = now
	s.active[a] = struct{}{}
}

// Take returns what was counted since the batch before, or nil if nothing was. It returns the same batch, number
// and all, until that is acknowledged; what is counted meanwhile is in the next.
func (m *Meter) Take() *Batch {
	m.taking.Lock()
	defer m.taking.Unlock()
	if m.kept != nil {
		return m.kept
	}
	hours := map[hour]*Counts{}
	b := &Batch{Instance: m.instance, Sequence: m.sequence + 1}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		counted, seen, lost := s.hours, s.active, s.lost
		s.hours, s.active, s.lost = make(map[hour]*Counts, len(counted)), map[active]struct{}{}, 0
		s.mu.Unlock()
		for key, c := range counted {
			if sum := hours[key]; sum != nil {
				sum.add(c)
			} else {
				hours[key] = c
			}
		}
		for a := range seen {
			b.Active = append(b.Active, Active{a.tenant, time.Unix(int64(a.day)*24*60*60, 0).UTC(), a.wallet})
		}
		b.Lost += lost
	}
	m.lost += b.Lost
	if len(hours)+len(b.Active) == 0 && b.Lost == 0 {
		return nil
	}
	for key, c := range hours {
		b.Hours = append(b.Hours, Hour{key.tenant, time.Unix(key.n*60*60, 0).UTC(), *c})
	}
	// In one order, so that instances that store at once do not lock each other's rows.
	slices.SortFunc(b.Hours, func(a, b Hour) int {
		return cmp.Or(bytes.Compare(a.Tenant[:], b.Tenant[:]), a.Start.Compare(b.Start))
	})
	slices.SortFunc(b.Active, func(a, b Active) int {
		return cmp.Or(bytes.Compare(a.Tenant[:], b.Tenant[:]), a.Day.Compare(b.Day), bytes.Compare(a.Wallet[:], b.Wallet[:]))
	})
	m.sequence++
	m.kept = b
	return b
}

// Lost is how many requests were not counted, of all up to the last batch.
func (m *Meter) Lost() int64 {
	m.taking.Lock()
	defer m.taking.Unlock()
	return m.lost
}

// Acknowledge says that the batch with this number is known to be stored.
func (m *Meter) Acknowledge(sequence int64) {
	m.taking.Lock()
	defer m.taking.Unlock()
	if m.kept != nil && m.kept.Sequence == sequence {
		m.kept = nil
	}
}
