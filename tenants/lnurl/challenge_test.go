package lnurl

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

var (
	acme   = uuid.UUID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	globex = uuid.UUID{15: 1}
)

const host = "auth.example.com" // which httptest's client finds

// clock is at 1700000000 until it is moved.
type clock struct{ moved atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(1700000000, 0).Add(time.Duration(c.moved.Load())) }
func (c *clock) move(d time.Duration) { c.moved.Add(int64(d)) }

func macKey(b byte) [32]byte { return [32]byte([]byte(strings.Repeat(string(b), 32))) }

func newChallenger(t testing.TB, now func() time.Time, keys ...byte) *Challenger {
	t.Helper()
	cfg := ChallengerConfig{Now: now}
	for _, k := range keys {
		cfg.Keys = append(cfg.Keys, macKey(k))
	}
	c, err := NewChallenger(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantRefusal(t testing.TB, err error, reason string) {
	t.Helper()
	if e, ok := errors.AsType[*Error](err); !ok || e.Reason != reason {
		t.Errorf("got %v, want the Error %q", err, reason)
	}
}

func TestAChallengeIsKnownAgainUntilItExpires(t *testing.T) {
	t.Parallel()
	var then clock
	c := newChallenger(t, then.now, 7)
	k1 := c.New(acme, host)
	want := then.now().Add(DefaultChallengeLife)
	for range 2 {
		if expires, err := c.Check(k1, acme, host); err != nil || !expires.Equal(want) {
			t.Errorf("got %v, %v; want %v", expires, err, want)
		}
		then.move(DefaultChallengeLife - time.Second)
	}
	then.move(-DefaultChallengeLife + 2*time.Second)
	for range 2 {
		_, err := c.Check(k1, acme, host)
		wantRefusal(t, err, reasonExpired)
		then.move(100 * 365 * 24 * time.Hour)
	}
}

func TestAChallengeMadeByAnyInstanceIsKnown(t *testing.T) {
	t.Parallel()
	// Made by another implementation of HMAC.
	k1, err := parseK1("6553f22c000102030405060708090a0b14f9c26e208a17e63b70ccddcea676c9")
	if err != nil {
		t.Fatal(err)
	}
	var then clock
	if expires, err := newChallenger(t, then.now, 7).Check(k1, acme, host); err != nil || expires.Unix() != 1700000300 {
		t.Errorf("got %v, %v", expires, err)
	}
}

func TestAChallengeIsOfOneTenantAndHost(t *testing.T) {
	t.Parallel()
	c := newChallenger(t, nil, 7)
	k1 := c.New(acme, host)
	for _, other := range []struct {
		tenant uuid.UUID
		host   string
	}{
		{globex, host},
		{uuid.UUID{}, host},
		{acme, "other.example.com"},
		{acme, host + ":443"},
		{acme, strings.ToUpper(host)},
		{acme, host[1:]},
		{acme, ""},
	} {
		_, err := c.Check(k1, other.tenant, other.host)
		wantRefusal(t, err, reasonForeign)
	}
}

func TestAChallengeCannotBeForged(t *testing.T) {
	t.Parallel()
	var then clock
	c := newChallenger(t, then.now, 7)
	k1 := c.New(acme, host)
	for bit := range len(k1) * 8 {
		forged := k1
		forged[bit/8] ^= 1 << (bit % 8)
		_, err := c.Check(forged, acme, host)
		wantRefusal(t, err, reasonForeign)
	}
	for _, forged := range []K1{{}, newChallenger(t, then.now, 8).New(acme, host)} {
		_, err := c.Check(forged, acme, host)
		wantRefusal(t, err, reasonForeign)
	}
	// That it has expired is said of a genuine one only.
	then.move(time.Hour)
	k1[k1MAC] ^= 1
	_, err := c.Check(k1, acme, host)
	wantRefusal(t, err, reasonForeign)
}

func TestNoTwoChallengesAreTheSame(t *testing.T) {
	t.Parallel()
	var then clock
	c := newChallenger(t, then.now, 7)
	seen := map[K1]bool{}
	for range 1000 {
		seen[c.New(acme, host)] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different ones of 1000", len(seen))
	}
}

func TestTheKeyOfChallengesIsReplacedWhileWalletsLogIn(t *testing.T) {
	t.Parallel()
	var then clock
	before, during, after := newChallenger(t, then.now, 1), newChallenger(t, then.now, 2, 1), newChallenger(t, then.now, 2)
	for _, c := range []struct {
		made, checked *Challenger
		known         bool
	}{
		{before, during, true},
		{during, during, true},
		{during, after, true},
		{after, during, true},
		{before, after, false},
		{during, before, false}, // an instance that does not have the new key yet
	} {
		_, err := c.checked.Check(c.made.New(acme, host), acme, host)
		if c.known && err != nil {
			t.Error(err)
		}
		if !c.known {
			wantRefusal(t, err, reasonForeign)
		}
	}
}

func TestAChallengerNeedsAKeyAndALife(t *testing.T) {
	t.Parallel()
	for _, cfg := range []ChallengerConfig{
		{},
		{Keys: [][32]byte{{1}}, Life: -time.Second},
		{Keys: [][32]byte{{1}}, Life: time.Millisecond},
	} {
		if _, err := NewChallenger(cfg); err == nil {
			t.Errorf("made of %+v", cfg)
		}
	}
	// It keeps no hold of what it was given.
	keys := [][32]byte{macKey(7)}
	c, err := NewChallenger(ChallengerConfig{Keys: keys, Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	k1 := c.New(acme, host)
	clear(keys)
	if _, err := c.Check(k1, acme, host); err != nil {
		t.Error(err)
	}
}

func TestAChallengerIsNeverPrinted(t *testing.T) {
	t.Parallel()
	c := newChallenger(t, nil, 'K')
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%U", "%t"} {
		for _, v := range []any{c, *c, struct{ c Challenger }{*c}} {
			text := strings.ToLower(fmt.Sprintf(verb, v))
			for _, secret := range []string{"kkkkkk", "75 75 75", "4b4b4b4b4b", "0x4b, 0x4b", "u+004b u+004b"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s prints %s", verb, text)
				}
			}
		}
	}
}

func TestChallengesInHex(t *testing.T) {
	t.Parallel()
	k1 := newChallenger(t, nil, 7).New(acme, host)
	for _, s := range []string{k1.String(), strings.ToUpper(k1.String())} {
		if got, err := parseK1(s); err != nil || got != k1 {
			t.Errorf("%s was read as %v, %v", s, got, err)
		}
	}
	if k1.String() != hex.EncodeToString(k1[:]) {
		t.Errorf("%x is written %s", k1[:], k1)
	}
	good := k1.String()
	for _, s := range []string{"", "00", good[1:], good[2:], good + "0", good + "00", "g" + good[1:], " " + good[1:], "0x" + good[2:], good + " ", strings.Repeat("é", 32)} {
		_, err := parseK1(s)
		wantRefusal(t, err, reasonK1)
	}
}
