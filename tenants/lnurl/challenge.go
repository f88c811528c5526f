package lnurl

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// K1 is a challenge: the 32 bytes that a wallet signs as they are (LUD-04).
//
//	 0 to  3  when it expires, in unix seconds, big-endian (until the year 2106)
//	 4 to 15  random
//	16 to 31  the first half of HMAC-SHA-256 over the tenant's id, bytes 0 to 15, and the host
type K1 [32]byte

const (
	k1Random = 4
	k1MAC    = 16
)

// String is in lower-case hex, as on the wire.
func (k K1) String() string { return hex.EncodeToString(k[:]) }

// parseK1 takes hex of either case. It fails with an [*Error].
func parseK1(s string) (K1, error) {
	var k K1
	if len(s) != hex.EncodedLen(len(k)) {
		return k, refuse(reasonK1)
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return K1{}, refuse(reasonK1)
	}
	return k, nil
}

// DefaultChallengeLife is how long a wallet has from the first call to the second, unless configured.
const DefaultChallengeLife = 5 * time.Minute

// ChallengerConfig says how a [Challenger] works.
type ChallengerConfig struct {
	// Keys are what challenges are authenticated with, the same on every instance. The first makes them; all
	// are accepted, so that a key can be replaced while wallets log in. At least one.
	Keys [][32]byte

	Life time.Duration    // in whole seconds; 0: [DefaultChallengeLife]
	Now  func() time.Time // nil: time.Now
}

// Challenger makes challenges and knows them again. It stores nothing: whoever GETs the auth URL, however
// often, leaves no trace. It is safe for concurrent use.
type Challenger struct {
	mac  func(key int, k1 *K1, tenant uuid.UUID, host string) []byte // in a function, since fmt prints fields
	keys int
	life time.Duration
	now  func() time.Time
}

// NewChallenger makes a challenger.
func NewChallenger(cfg ChallengerConfig) (*Challenger, error) {
	if len(cfg.Keys) == 0 {
		return nil, errors.New("lnurl: no key for challenges")
	}
	if cfg.Life == 0 {
		cfg.Life = DefaultChallengeLife
	}
	if cfg.Life < time.Second {
		return nil, fmt.Errorf("lnurl: challenges that live for %v", cfg.Life)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	keys := slices.Clone(cfg.Keys)
	mac := func(key int, k1 *K1, tenant uuid.UUID, host string) []byte {
		h := hmac.New(sha256.New, keys[key][:])
		h.Write(tenant[:])
		h.Write(k1[:k1MAC])
		h.Write([]byte(host)) // the only part that varies in length
		return h.Sum(nil)[:len(k1)-k1MAC]
	}
	return &Challenger{mac: mac, keys: len(keys), life: cfg.Life, now: cfg.Now}, nil
}

// New makes a challenge for wallets of the tenant at the host, as it is spelled in the auth URL.
func (c *Challenger) New(tenant uuid.UUID, host string) K1 {
	var k1 K1
	expires := c.now().Add(c.life).Unix()
	binary.BigEndian.PutUint32(k1[:], uint32(expires))
	_, _ = rand.Read(k1[k1Random:k1MAC]) // never fails
	copy(k1[k1MAC:], c.mac(0, &k1, tenant, host))
	return k1
}

// Check says when the challenge expires. It fails with an [*Error] for one that has expired, and for one
// that was not made with one of the keys for this tenant and host.
func (c *Challenger) Check(k1 K1, tenant uuid.UUID, host string) (expires time.Time, err error) {
	ours := false
	for key := range c.keys {
		ours = ours || hmac.Equal(k1[k1MAC:], c.mac(key, &k1, tenant, host))
	}
	if !ours {
		return time.Time{}, refuse(reasonForeign)
	}
	expires = time.Unix(int64(binary.BigEndian.Uint32(k1[:])), 0)
	if !c.now().Before(expires) {
		return time.Time{}, refuse(reasonExpired)
	}
	return expires, nil
}
