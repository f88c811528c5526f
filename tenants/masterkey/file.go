package masterkey

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

var (
	// ErrExposed: other users of the machine may read or write the file.
	ErrExposed = errors.New("is open to other users of this machine")

	// ErrMalformed: the file is not what [Create] writes.
	ErrMalformed = errors.New("is not a master key file")
)

// The file is text: this line, then a line "<id> <key>" in hex for each key, newest first. The id is a
// function of the key, so a slip of the pen is found. Empty lines and those that begin with "#" say nothing.
const firstLine = "vss-cloud master key, version 1"

const comment = "# What this seals is lost without it: keep a copy, and not with the database's backups."

// maxFile is far more than any file has, in bytes.
const maxFile = 64 << 10

// Load reads a master key file. It fails with [fs.ErrNotExist], [ErrExposed], [ErrMalformed], or with what
// keeps the file from being read; each names the path, and none has a part of what is in the file.
func Load(path string) (*Key, error) {
	k, err := load(path)
	if err != nil {
		return nil, describe(path, err)
	}
	return k, nil
}

// Create makes a file with a new random key, for its owner alone. The file is there whole or not at all, and
// is never one of two that were made at the same time: where one is already, it fails with [fs.ErrExist].
func Create(path string) (*Key, error) {
	k := &Key{secrets: []*secret{randomSecret()}}
	if err := create(path, k.text()); err != nil {
		return nil, fmt.Errorf("create master key file %s: %w", path, err)
	}
	return k, nil
}

// Add puts a new random key behind those of the file, where it opens and does not seal. It fails as [Load] does, and
// with [fs.ErrExist] while another change of the file is at work, or was interrupted.
func Add(path string) (*Key, error) {
	return replace(path, func(k *Key) (*Key, error) {
		return &Key{secrets: append(slices.Clone(k.secrets), randomSecret())}, nil
	})
}

// Promote puts the key of this id before the others of the file, where it seals. It fails as [Add] does, and with
// [ErrWrongKey] where the file does not hold it.
func Promote(path, id string) (*Key, error) {
	return replace(path, func(k *Key) (*Key, error) {
		i := slices.Index(k.IDs(), id)
		if i < 0 {
			return nil, ErrWrongKey
		}
		return &Key{secrets: slices.Concat(k.secrets[i:i+1], k.secrets[:i], k.secrets[i+1:])}, nil
	})
}

// Retire removes all keys of the file but the one that seals, whose id this must be. What was sealed under those and
// was not resealed is lost. It fails as [Add] does, and with [ErrWrongKey] for another id.
func Retire(path, id string) (*Key, error) {
	return replace(path, func(k *Key) (*Key, error) {
		if k.ID() != id {
			return nil, ErrWrongKey
		}
		return &Key{secrets: k.secrets[:1]}, nil
	})
}

// describe says of which file an error is, and what to do.
func describe(path string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("master key file %s is missing: %w", path, err)
	case errors.Is(err, ErrExposed):
		return fmt.Errorf("master key file %s %w: chmod 600 %[1]s", path, err)
	default:
		return fmt.Errorf("master key file %s: %w", path, err)
	}
}

func load(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: not a regular file", ErrMalformed)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%w (mode %04o)", ErrExposed, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return parse(text)
}

// parse reads the text of a file. It fails with [ErrMalformed].
func parse(text []byte) (*Key, error) {
	refuse := func(line int, reason string) (*Key, error) {
		return nil, fmt.Errorf("%w: line %d %s", ErrMalformed, line, reason)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%w: it is too long", ErrMalformed)
	}
	k := &Key{}
	begun := false
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if !begun {
			if line != firstLine {
				return refuse(n, "is not: "+firstLine)
			}
			begun = true
			continue
		}
		id, value, _ := strings.Cut(line, " ")
		b, err := hex.DecodeString(value)
		if err != nil || len(b) != secretSize {
			return refuse(n, "is not an id and a key in hex")
		}
		s := newSecret([secretSize]byte(b))
		if s.name() != id {
			return refuse(n, "has a key that does not belong to its id")
		}
		if k.Holds(id) {
			return refuse(n, "has a key that is there twice")
		}
		k.secrets = append(k.secrets, s)
	}
	if len(k.secrets) == 0 {
		return nil, fmt.Errorf("%w: it has no key", ErrMalformed)
	}
	return k, nil
}

func (k *Key) text() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, firstLine)
	fmt.Fprintln(&b, comment)
	for _, s := range k.secrets {
		fmt.Fprintf(&b, "%x %x\n", s.id, s.reveal())
	}
	return b.Bytes()
}

// create writes a file that must not be there.
func create(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := finish(f, text); err != nil {
		return err
	}
	// A link, since a rename would take the place of a file that somebody else has just made.
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fs.ErrExist
		}
		return err
	}
	return syncDir(path)
}

// replace changes a file. Two at a time could each lose the other's new key, and with it what that has sealed
// by then; so the new file has a fixed name on its way, which only one can make.
func replace(path string, change func(*Key) (*Key, error)) (*Key, error) {
	k, err := func() (*Key, error) {
		path, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, err
		}
		next := path + ".new"
		f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("it is being changed; if not, remove what an interruption left, %s: %w", next, fs.ErrExist)
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		done := false
		defer func() {
			if !done {
				os.Remove(next)
			}
		}()
		k, err := load(path)
		if err != nil {
			return nil, err
		}
		if k, err = change(k); err != nil {
			return nil, err
		}
		if err := sameOwner(f, path); err != nil {
			return nil, err
		}
		if err := finish(f, k.text()); err != nil {
			return nil, err
		}
		if err := os.Rename(next, path); err != nil {
			return nil, err
		}
		done = true
		return k, syncDir(path)
	}()
	if err != nil {
		return nil, describe(path, err)
	}
	return k, nil
}

// sameOwner gives a new file to the owner of the one at path: root may rotate what the servers' user reads.
func sameOwner(f *os.File, path string) error {
	was, err := os.Stat(path)
	if err != nil {
		return err
	}
	is, err := f.Stat()
	if err != nil {
		return err
	}
	want, ok := was.Sys().(*syscall.Stat_t)
	have, ok2 := is.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}

// finish writes, makes durable and closes.
func finish(f *os.File, text []byte) error {
	_, err := f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes a name durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
