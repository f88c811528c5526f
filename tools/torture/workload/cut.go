package workload

import (
	"errors"
	"io"
	"strings"
	"syscall"
)

// isCut reports whether err is that of a connection that ended early.
func isCut(err error) bool {
	for _, cut := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, cut) {
			return true
		}
	}
	// net/http has no exported error for this one.
	return strings.Contains(err.Error(), "server closed idle connection")
}
