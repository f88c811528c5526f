// Package quota says what a tenant, a wallet and an address may do.
//
//   - [Rate] is the arithmetic of a rate limit, [Table] keeps a bucket for each of many keys in bounded
//     memory, and [Limiter] asks those that a call must pass;
//   - [Queue] shares the places in front of the store between tenants;
//   - [Limits] are the ceilings and rates of a plan, and [Ceilings] decides whether a write may grow a store.
//
// Package usage counts what was done.
//
// CONTRACT section 5 is the rule above all: a refused monitor write can force-close a channel, and most
// monitor writes are new keys. Where a limit cannot be exact it errs towards serving wallets that are known.
//
// Nothing here asks the database or the network: a decision is arithmetic on what the caller brings.
package quota

// Kind is what a call does, as far as limits tell calls apart.
type Kind uint8

const (
	Write Kind = iota // puts and deletes
	Read              // gets
	List

	kinds = 3
)

var kindNames = [kinds]string{"write", "read", "list"}

func (k Kind) String() string { return kindNames[k] }
