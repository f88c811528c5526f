package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// attributes make a child of its own process group, so that a terminal's ctrl-C reaches only us, that is
// told to shut down fast when we die.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true, Pdeathsig: syscall.SIGINT}
}

// owns says whether the process that the lock file names is a live server of the cluster: it runs postgres and works
// in that directory, which a zombie does not. When it started need not be asked: nothing may start beside any other
// server that works there either.
func (l lockFile) owns(cluster string) bool {
	proc := fmt.Sprintf("/proc/%d", max(l.pid, -l.pid))
	program, err := os.Readlink(proc + "/exe")
	return err == nil && filepath.Base(strings.TrimSuffix(program, " (deleted)")) == "postgres" && sameFile(proc+"/cwd", cluster)
}
