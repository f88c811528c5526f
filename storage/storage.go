// Package storage says what a store of wallet state promises: the interface every backend implements, its
// types, its errors and the rules of input. The promises are CONTRACT sections 2 and 3; package storagetest
// holds every backend to them, and package postgres is the one we run.
package storage

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Timeout is how long a call may take in all. CONTRACT section 3 allows 9 s; the rest is for the answer.
const Timeout = 8500 * time.Millisecond

// Unconditional, as the version of an item or of the store, means "do not compare" (CONTRACT section 2).
const Unconditional int64 = -1

// GlobalVersionKey is the reserved key under which [Store.Get] answers the store's global version. It can
// be neither written nor deleted as an item and is never listed.
const GlobalVersionKey = "global_version"

// Object is a key with its value. In an answer Version is the stored one (1 or more). In a [Batch] it is
// the version the writer expects: [Unconditional], 0 for "must not exist", or the stored one.
type Object struct {
	Key     string
	Version int64
	Value   []byte
}

// KeyVersion is a key without its value.
type KeyVersion struct {
	Key     string
	Version int64
}

// Batch is what one put changes, all or nothing. All keys in it are distinct, across both lists.
type Batch struct {
	// GlobalVersion nil: neither checked nor changed. [Unconditional]: set to 1. Otherwise it must equal
	// the store's (0 where it was never set) and the store's grows by one.
	GlobalVersion *int64

	// Writes are stored. Afterwards an item has version 1 if it was sent with [Unconditional], else the
	// version sent plus one.
	Writes []Object

	// Deletes are removed. A missing item is a conflict even at [Unconditional].
	Deletes []KeyVersion
}

// Limits are what a put has to stay within (CONTRACT section 5). Those of its store are compared with exact
// counts, in the put's own transaction. A put that does not grow its store is refused for none of them. The zero
// value limits nothing.
type Limits struct {
	Objects Ceiling // of the store
	Bytes   Ceiling // of the store, of keys and values
	Value   int64   // the largest value that is new or grows, in bytes; 0: no limit

	// Known: the put is for a store that has been written. One that has not is left alone, and the put ends as a
	// [*NeverWrittenError]. Without Known, the put begins it.
	Known bool

	// Begin is leave to begin a store after such an answer, which it is: what asks again is still the same put, and
	// has no more time than it had. It is no matter if the store has been begun in between. Then Known does not count.
	Begin *NeverWrittenError
}

// Ceiling is a limit with a reserve: a store that begins has to stay at or below Hard, one that exists at or
// below Last. The zero Ceiling is no limit.
type Ceiling struct{ Hard, Last int64 }

// Written is what a put or a delete has done.
type Written struct {
	// Objects and Bytes are what the store has then. Both are negative where that is not known: the write was found
	// to be done only after its answer was lost, or a delete found nothing.
	Objects, Bytes int64

	NewWallet bool // it was the wallet's first
}

// ListRequest asks for one page of keys.
type ListRequest struct {
	Prefix   string // literal, byte for byte; empty: all keys
	PageSize int    // the most keys the caller wants; 0: the store decides
	Token    string // NextToken of the page before; empty: the first page
}

// Page is an answer to a [ListRequest].
type Page struct {
	Keys          []KeyVersion
	NextToken     string // empty on the last page
	GlobalVersion *int64 // on the first page only; read no later than the keys
}

// Admit is asked before a large value is read into memory; size is the value's length in bytes. An error
// ends the read and is returned as it is. It may be asked again where a read is tried again. nil admits all.
type Admit func(size int64) error

// Store keeps the objects of every keyspace. It is safe for concurrent use, also by several processes over
// one database.
//
// Every method answers from the primary: reads see every write acknowledged before they began, through
// whichever instance. A nil error from Put or Delete means done and durable.
//
// Every method ends by the deadline of its context (a store has a limit of its own where there is none). A
// write whose context ends before it was sent, or while it waits for the store's lock, takes no effect, then
// or later; otherwise it is applied or refused as a whole, whatever becomes of the caller.
//
// Besides the errors named at each method, all may return an [*InvalidError] (bad input; found before the
// database is asked), [ErrTooLate], [ErrUnavailable], or an error of no type for a fault of our own.
type Store interface {
	// Get returns the object, or the global version (with an empty value, 0 where it was never set) for
	// [GlobalVersionKey]. A missing key is ErrNoSuchKey, which is only ever said by the primary. No value
	// larger than what was last admitted is read: one that grows meanwhile may be ErrUnavailable.
	Get(ctx context.Context, ks Keyspace, key string, admit Admit) (Object, error)

	// Put applies the batch. ErrConflict: some version did not match and nothing was changed.
	// ErrAmbiguous: the answer to the commit was lost and could not be settled. ErrBlocked,
	// [*ExceededError] and [*NeverWrittenError]: the wallet or its store may not, and nothing was changed.
	Put(ctx context.Context, ks Keyspace, batch Batch, limits Limits) (Written, error)

	// Delete removes the object if it exists at this version (or at any, for [Unconditional]), and is
	// content if it does not. It fails as Put does, but for ErrConflict and ExceededError.
	Delete(ctx context.Context, ks Keyspace, item KeyVersion) (Written, error)

	// List returns a page of keys, newest created first; an update does not move a key. The order is
	// stable under writes: keys created after the first page do not appear on later ones, and a token
	// survives the deletion of the entry it points at. A page is never empty while more keys match, one
	// after which none does has no NextToken, and each shows a batch whole or not at all. The work of a
	// page is bounded however rare or common the prefix.
	List(ctx context.Context, ks Keyspace, req ListRequest) (Page, error)
}

var (
	// ErrNoSuchKey: the key does not exist.
	ErrNoSuchKey = errors.New("no such key")

	// ErrConflict: a version given does not match the stored one, or an item to delete does not exist.
	ErrConflict = errors.New("version conflict")

	// ErrTooLate: the deadline passed first, or the caller left. A write had no effect and will have none.
	ErrTooLate = errors.New("out of time")

	// ErrBlocked: the wallet is blocked, which is for reads to ignore.
	ErrBlocked = errors.New("this wallet is blocked: it can read and not write")

	// ErrUnavailable: the database could not be asked or refused to work. A write had no effect and will
	// have none; trying again later may help.
	ErrUnavailable = errors.New("storage unavailable")

	// ErrAmbiguous: whether the write took effect is not known. It must be reported neither as saved nor
	// as refused, and not be run again on the caller's behalf.
	ErrAmbiguous = errors.New("outcome of the write is unknown")
)

// ExceededError is a put that would grow its store, or begin one, beyond its [Limits]. Its text is meant for the
// caller.
type ExceededError struct {
	Limit   string // as in quota.Names
	Used    int64  // how much there would be
	Allowed int64
}

func (e *ExceededError) Error() string {
	return fmt.Sprintf("storage quota %s: the write would make it %d, allowed are %d", e.Limit, e.Used, e.Allowed)
}

// NeverWrittenError is a put to a store that has never been written, by [Limits] that do not let it begin one. It
// says what there is of the wallet. Of several first writes at once each may be told the same.
type NeverWrittenError struct {
	NewWallet bool  // none of its stores has ever been written
	Stores    int64 // that have been

	// NotAfter is when the put's time is up, by the database's clock. It was read when the put was young: ours may
	// stand still while a machine is suspended, and a later reading would let a put take effect whose client left long ago.
	NotAfter time.Time
}

func (e *NeverWrittenError) Error() string {
	return "the store has never been written, and was not to be begun"
}

// InvalidError is input that no state of the store would accept. Its text is meant for the caller.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return e.Reason }
