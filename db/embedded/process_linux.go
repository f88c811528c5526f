package embedded

import (
	"fmt"
	"syscall"
)

// attributes make a child of its own process group, so that a terminal's ctrl-C reaches only us, that is
// told to shut down fast when we die.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true, Pdeathsig: syscall.SIGINT}
}

// serves says whether process pid is a server of the cluster: it works in that directory.
func serves(pid int, cluster string) bool { return sameFile(fmt.Sprintf("/proc/%d/cwd", pid), cluster) }
