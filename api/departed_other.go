//go:build !linux

package api

import "net"

// hasDeparted is for Linux; elsewhere net/http's own notice must do.
func hasDeparted(net.Conn) bool { return false }
