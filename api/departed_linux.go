package api

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// hasDeparted asks the kernel whether the peer has closed its side of the connection, which net/http may not
// have noticed yet.
func hasDeparted(conn net.Conn) (gone bool) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil // closed on our side
}
