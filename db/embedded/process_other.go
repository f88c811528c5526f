//go:build !linux

package embedded

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// attributes make a child of its own process group, so that a terminal's ctrl-C reaches only us. There is
// no parent-death signal here: after a kill -9 of ours the next start stops the child.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true}
}

// serves says whether process pid is a PostgreSQL server; which one, only its postmaster.pid says here.
func serves(pid int, _ string) bool {
	name, err := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && filepath.Base(strings.TrimSpace(string(name))) == "postgres"
}
