package embedded

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// fullDisk is an error for the operator whose disk is full.
type fullDisk struct {
	dir        string
	need, free int64 // bytes
	err        error
}

func (e *fullDisk) Error() string {
	return fmt.Sprintf("the disk that holds %s is full: about %d MB are needed there and %d MB are free: %v",
		e.dir, e.need/1e6, e.free/1e6, e.err)
}

func (e *fullDisk) Unwrap() error { return e.err }

// explain makes err a fullDisk if a full disk is what it comes from: the one that holds dir, where need
// bytes are wanted.
func explain(err error, dir string, need int64) error {
	known := (*fullDisk)(nil)
	if err == nil || errors.As(err, &known) || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) &&
		!strings.Contains(err.Error(), "No space left on device") { // as postgres logs it
		return err
	}
	free, _ := freeBytes(dir)
	return &fullDisk{dir, need, free, err}
}

// freeBytes is what a user can still write to the disk that holds dir.
func freeBytes(dir string) (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * int64(stat.Bsize), nil
}
