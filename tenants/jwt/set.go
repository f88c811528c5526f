// Package jwt verifies the tokens by which wallets of a tenant prove who they are (CONTRACT section 4.2).
//
//   - [ParseKeys] reads the keys that a person gives;
//   - [Set] verifies tokens with keys of one source, by [Rules];
//   - [Source] keeps the set of a JWKS that is fetched by URL.
//
// It is not jwx, which lacks ES256K unless it is built with a tag, and reads with encoding/json, where the last of two
// members of one name counts.
//
// A token is read strictly, and all that can be said of it without a key is said, before any arithmetic: there
// is one way to read each token, and a flood of bad ones costs little. The signatures are the standard
// library's but for secp256k1, which it does not have.
package jwt

import (
	"slices"
	"time"
)

// Set are the keys of one source. It never changes, and is safe for concurrent use; nil is the empty set.
type Set struct{ keys []Key }

// NewSet makes a set of these keys.
func NewSet(keys []Key) *Set { return &Set{slices.Clone(keys)} }

// Keys are those of the set.
func (s *Set) Keys() []Key {
	if s == nil {
		return nil
	}
	return slices.Clone(s.keys)
}

// Verify says who the token is by, if it is signed by a key of the set and within the rules. It fails with an
// [*Error]; [ErrUnknownKey] says that newer keys could make a difference.
func (s *Set) Verify(token string, r Rules, now time.Time) (Claims, error) {
	t, err := Parse(token)
	if err != nil {
		return Claims{}, err
	}
	return s.VerifyToken(t, r, now)
}

// VerifyToken is Verify for a token that was parsed already.
func (s *Set) VerifyToken(t *Token, r Rules, now time.Time) (Claims, error) {
	for _, rule := range rules {
		if reason := rule.refuses(t, r, now); reason != "" {
			return Claims{}, &Error{reason}
		}
	}
	k, reason := s.signer(t, now)
	if reason != "" {
		return Claims{}, &Error{reason}
	}
	c := t.claims(r)
	c.KeyID = k.id
	if k.State == Retired {
		c.KeyUntil = k.Until
	}
	return c, nil
}

// Check is one thing that was asked of a token, and Err what is wrong with it (an [*Error]) or nil.
type Check struct {
	Name string // alg, exp, nbf, iss, aud, claims, signature
	Err  error
}

// Explain asks everything of a parsed token that VerifyToken does, and does not stop at the first thing that is
// wrong: for people who look for it. No part of the token is in what it says.
func (s *Set) Explain(t *Token, r Rules, now time.Time) []Check {
	checks := make([]Check, 0, len(rules)+1)
	for _, rule := range rules {
		checks = append(checks, Check{rule.name, asError(rule.refuses(t, r, now))})
	}
	_, reason := s.signer(t, now)
	return append(checks, Check{"signature", asError(reason)})
}

// MaxUnnamed is how many keys without a kid a set can use: as many as a token may cost that names none.
const MaxUnnamed = 4

// signer is the key of the set that has signed the token, or why there is none.
//
// A kid that a key has means that key alone. Otherwise the keys come into question that could be meant: all of
// them where the token has no kid, and where it has one those that have none of their own.
func (s *Set) signer(t *Token, now time.Time) (*Key, Reason) {
	a := algorithmNamed(t.Algorithm)
	if a == nil {
		return nil, BadAlgorithm
	}
	if s == nil {
		return nil, UnknownKey
	}
	known := t.KeyID != "" && s.has(t.KeyID)
	reason := UnknownKey
	var tries [MaxUnnamed]*Key
	n := 0
	for i := range s.keys {
		k := &s.keys[i]
		if known && k.id != t.KeyID || !known && t.KeyID != "" && k.Named() {
			continue
		}
		if refusal := k.refuses(a, now); refusal != "" {
			if known {
				reason = refusal
			}
			continue
		}
		if n == MaxUnnamed {
			return nil, NoKeyID
		}
		tries[n] = k
		n++
	}
	for _, k := range tries[:n] {
		if a.verify(k.public, t.signed, t.signature) {
			return k, ""
		}
	}
	if known && n > 0 {
		reason = BadSignature
	}
	return nil, reason
}

// same says whether both sets have the same keys in the same states.
func (s *Set) same(other *Set) bool {
	return s != nil && slices.EqualFunc(s.keys, other.keys, func(a, b Key) bool {
		return a.fields == b.fields && a.State == b.State && a.Until.Equal(b.Until)
	})
}

func (s *Set) has(id string) bool {
	for i := range s.keys {
		if s.keys[i].id == id {
			return true
		}
	}
	return false
}
