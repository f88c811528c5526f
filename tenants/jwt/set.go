// Package jwt verifies the tokens by which wallets of a tenant prove who they are (CONTRACT section 4.2).
//
//   - [ParseKeys] reads the keys that a person gives;
//   - [Set] verifies tokens with keys of one source, by [Rules];
//   - [Source] keeps the set of a JWKS that is fetched by URL.
//
// A token is read strictly, and all that can be said of it without a key is said, before any arithmetic: there
// is one way to read each token, and a flood of bad ones costs little. Signatures are verified, and the platform's own
// made, by github.com/lestrrat-go/jwx. Tokens and keys are not read by it: it reads with encoding/json, where the last of
// two members of one name counts, and has no secp256k1 unless it is built with a tag.
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
	if reason := t.refusal(r, now); reason != "" {
		return Claims{}, &Error{reason}
	}
	return s.attempt(t, now).verify(t, r)
}

// Price is about what VerifyToken costs in arithmetic if the signature is by none of the keys; 0 where the token is
// refused before any.
func (s *Set) Price(t *Token, r Rules, now time.Time) (price time.Duration) {
	if t.refusal(r, now) == "" {
		for _, k := range s.attempt(t, now).keys {
			price += k.price
		}
	}
	return price
}

func (a attempt) verify(t *Token, r Rules) (Claims, error) {
	k, reason := a.signer(t)
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
	_, reason := s.attempt(t, now).signer(t)
	return append(checks, Check{"signature", asError(reason)})
}

// MaxUnnamed is how many keys without a kid a set can use: as many as a token may cost that names none.
const MaxUnnamed = 4

// attempt is what it takes to find out which key has signed a token.
type attempt struct {
	keys   []*Key // to be tried, MaxUnnamed at most
	reason Reason // why the token is not good, if it is by none of them
}

// attempt at a token with the keys of the set.
//
// A kid that a key has means that key alone. Otherwise the keys come into question that could be meant: all of
// them where the token has no kid, and where it has one those that have none of their own.
func (s *Set) attempt(t *Token, now time.Time) attempt {
	a := algorithmNamed(t.Algorithm)
	if a == nil {
		return attempt{reason: BadAlgorithm}
	}
	if s == nil {
		return attempt{reason: UnknownKey}
	}
	known := t.KeyID != "" && s.has(t.KeyID)
	reason := UnknownKey
	keys := make([]*Key, 0, MaxUnnamed)
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
		if slices.ContainsFunc(keys, k.sameAs) { // under two names, or for two algorithms
			continue
		}
		if len(keys) == MaxUnnamed {
			return attempt{reason: NoKeyID}
		}
		keys = append(keys, k)
	}
	if known && len(keys) > 0 {
		reason = BadSignature
	}
	return attempt{keys, reason}
}

// without is the attempt but for keys that were tried.
func (a attempt) without(tried []*Key) attempt {
	a.keys = slices.DeleteFunc(a.keys, func(k *Key) bool { return slices.ContainsFunc(tried, k.sameAs) })
	return a
}

// signer is the key that has signed the token, or why there is none.
func (a attempt) signer(t *Token) (*Key, Reason) {
	verify := t.Verifier
	if verify == nil {
		verify = VerifySignature
	}
	for _, k := range a.keys {
		if verify(t.Algorithm, k.public, t.signed, t.signature) {
			return k, ""
		}
	}
	return nil, a.reason
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
