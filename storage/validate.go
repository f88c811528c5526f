package storage

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of CONTRACT section 2. Lengths are in characters (Unicode code points).
const (
	MaxKeyLength       = 600
	MaxStoreIDLength   = 120
	MaxSubjectLength   = 255
	MaxNamespaceLength = 100 // ours; as the control plane has it
	MaxBatchItems      = 1000
)

func invalid(format string, args ...any) error {
	return &InvalidError{Reason: fmt.Sprintf(format, args...)}
}

// checkText refuses what PostgreSQL text cannot hold or the contract forbids, before any SQL.
func checkText(what, s string, least, most int) error {
	if !utf8.ValidString(s) {
		return invalid("%s is not valid UTF-8", what)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return invalid("%s contains a NUL character", what)
	}
	if n := utf8.RuneCountInString(s); n < least || n > most {
		return invalid("%s has %d characters, allowed are %d to %d", what, n, least, most)
	}
	return nil
}

func checkVersion(what string, v int64) error {
	if v < Unconditional {
		return invalid("%s is %d, allowed are -1 (unconditional) and up", what, v)
	}
	return nil
}

// CheckKey says whether a key can be read.
func CheckKey(key string) error { return checkText("key", key, 1, MaxKeyLength) }

// Check says whether the item can be deleted.
func (item KeyVersion) Check() error {
	if err := CheckKey(item.Key); err != nil {
		return err
	}
	if item.Key == GlobalVersionKey {
		return invalid("key %q is reserved; use the request's global_version field", GlobalVersionKey)
	}
	return checkVersion("version", item.Version)
}

// Check says whether the batch can be put.
func (b Batch) Check() error {
	items := len(b.Writes) + len(b.Deletes)
	if items > MaxBatchItems {
		return invalid("%d items in one put, allowed are %d", items, MaxBatchItems)
	}
	if b.GlobalVersion != nil {
		if err := checkVersion("global_version", *b.GlobalVersion); err != nil {
			return err
		}
	}
	seen := make(map[string]struct{}, items)
	check := func(item KeyVersion) error {
		if err := item.Check(); err != nil {
			return err
		}
		if _, twice := seen[item.Key]; twice {
			return invalid("key %q appears twice in one put", item.Key)
		}
		seen[item.Key] = struct{}{}
		return nil
	}
	for _, w := range b.Writes {
		if err := check(KeyVersion{Key: w.Key, Version: w.Version}); err != nil {
			return err
		}
	}
	for _, d := range b.Deletes {
		if err := check(d); err != nil {
			return err
		}
	}
	return nil
}

// Check says whether the page can be asked for. Tokens are the backend's to check.
func (r ListRequest) Check() error {
	if r.PageSize < 0 {
		return invalid("page_size is %d, allowed are 0 (the server decides) and up", r.PageSize)
	}
	return checkText("key_prefix", r.Prefix, 0, MaxKeyLength)
}

// ErrBadToken is the error of every backend for a page token that it did not give for this store and prefix.
var ErrBadToken error = &InvalidError{Reason: "page_token was not given by this server for this store and prefix; start again without one"}
