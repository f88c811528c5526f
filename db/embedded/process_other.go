//go:build !linux

package embedded

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// attributes make a child of its own process group, so that a terminal's ctrl-C reaches only us. There is
// no parent-death signal here: after a kill -9 of ours the next start stops the child.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: credential, Setpgid: true}
}

// owns says whether the process that the lock file names is a live server of the cluster: it runs postgres, which a
// zombie does not, since the time that the file names, and the file is about this directory.
func (l lockFile) owns(cluster string) bool {
	ps := exec.Command("ps", "-o", "lstart=", "-o", "comm=", "-p", strconv.Itoa(max(l.pid, -l.pid)))
	ps.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=/usr/bin:/bin"}
	out, err := ps.Output()
	fields := strings.Fields(string(out)) // five of lstart's
	if err != nil || len(fields) < 6 || filepath.Base(strings.Join(fields[5:], " ")) != "postgres" {
		return false
	}
	started, err := time.Parse("Mon Jan 2 15:04:05 2006", strings.Join(fields[:5], " "))
	return err == nil && started.Sub(l.started).Abs() < time.Minute && sameFile(l.cluster, cluster)
}
