package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// takeLock takes the data directory for this process and writes down who has it.
func takeLock(root *os.Root, owner account) (*os.File, error) {
	lock, err := root.OpenFile("lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot use the data directory %s: %w", root.Name(), err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock the data directory %s: %w", root.Name(), err)
		}
		pid, _ := io.ReadAll(lock)
		return nil, fmt.Errorf("the data directory %s is in use by process %s: stop that first, or choose another one (VSS_DATA_DIR)",
			root.Name(), cmp.Or(strings.TrimSpace(string(pid)), "(unknown)"))
	}
	err = errors.Join(owner.adopt(lock), lock.Truncate(0))
	if _, writeErr := fmt.Fprintln(lock, os.Getpid()); err != nil || writeErr != nil {
		releaseLock(lock)
		return nil, fmt.Errorf("cannot write %s/lock: %w", root.Name(), errors.Join(err, writeErr))
	}
	return lock, nil
}

func releaseLock(lock *os.File) {
	_ = lock.Truncate(0) // only a note
	// Closing would not do: a child that is being made just now shares the file until its exec.
	_ = syscall.Flock(int(lock.Fd()), syscall.LOCK_UN)
	_ = lock.Close()
}

// clusterVersion is the version to run for the directory cluster, and whether there is a cluster yet.
func clusterVersion(cluster string, want Version) (_ Version, exists bool, _ error) {
	text, err := os.ReadFile(filepath.Join(cluster, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(cluster)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return "", false, err
		case len(entries) > 0:
			return "", false, fmt.Errorf("%s is neither empty nor a PostgreSQL cluster (it has no PG_VERSION), "+
				"nothing in it was changed: move it away or choose another data directory (VSS_DATA_DIR)", cluster)
		}
		return cmp.Or(want, Newest), false, nil
	}
	if err != nil {
		return "", false, err
	}
	major := strings.TrimSpace(string(text))
	for _, v := range []Version{V15, V18} {
		if v.major() != major {
			continue
		}
		if want != "" && want.major() != major {
			break
		}
		return cmp.Or(want, v), true, nil
	}
	runs := fmt.Sprintf("PostgreSQL %s and %s", V15.major(), V18.major())
	if want != "" {
		runs = "PostgreSQL " + want.major()
	}
	return "", true, fmt.Errorf("%s holds a cluster of PostgreSQL %q, only %s can be run here, nothing in it was changed: "+
		"choose another data directory (VSS_DATA_DIR), or run its own server and set DATABASE_URL", cluster, major, runs)
}

// initCluster makes the cluster under another name and moves it to its place when it is complete.
func initCluster(ctx context.Context, root *os.Root, owner account, binaries string, throwaway bool) error {
	const prefix = "pg.initdb-"
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range entries { // of a start that was killed here
		if strings.HasPrefix(entry.Name(), prefix) {
			_ = root.RemoveAll(entry.Name())
		}
	}
	// Never the same name twice: an initdb whose parent was killed may still be at work for a moment.
	name := fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), time.Now().UnixNano())
	defer func() { _ = root.RemoveAll(name) }() // not there any more if all went well
	if err := owner.makeDir(root, name); err != nil {
		return err
	}
	args := []string{
		"-D", filepath.Join(root.Name(), name), "--username=postgres", "--auth-local=trust", "--auth-host=reject",
		"--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions", "--no-clean",
	}
	if throwaway {
		args = append(args, "--no-sync")
	}
	p, err := spawn(root, owner, filepath.Join(binaries, "bin", "initdb"), args...)
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
		return fmt.Errorf("interrupted while a cluster was created: %w", context.Cause(ctx))
	}
	if p.err != nil {
		return fmt.Errorf("cannot create a cluster: %w", p.failure())
	}
	if err := root.Rename(name, "pg"); err != nil {
		return err
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// A lockFile is what a postmaster says about itself: in its cluster, and beside its socket.
type lockFile struct {
	pid     int // 0: it says nothing
	cluster string
	started time.Time
	rest    string // behind the first line
}

// readLock reads a lock file; ok says whether there is one.
func readLock(path string) (l lockFile, ok bool, _ error) {
	text, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return l, false, err
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	l.pid, _ = strconv.Atoi(strings.TrimSpace(first))
	l.rest = rest
	if lines := strings.Split(rest, "\n"); len(lines) > 1 {
		l.cluster = lines[0]
		seconds, _ := strconv.ParseInt(strings.TrimSpace(lines[1]), 10, 64)
		l.started = time.Unix(seconds, 0)
	}
	return l, true, nil
}

// namesProcess says whether there is a process of this number, be it whose it may.
func (l lockFile) namesProcess() bool {
	return l.pid != 0 && syscall.Kill(max(l.pid, -l.pid), 0) == nil
}

// stopPrevious leaves the cluster without an owner. The process that a lock file names is one only while it is a live
// server of this very cluster: that is stopped and waited for. To postgres any process with the number will do, be it
// one that nobody has reaped or, after a reboot, a stranger: it would not start while they are there.
func stopPrevious(ctx context.Context, root *os.Root, cluster string, progress func(string)) error {
	var (
		ofCluster = filepath.Join(cluster, "postmaster.pid")
		ofSocket  = filepath.Join("run", filepath.Base(Socket(""))+".lock")
	)
	for _, path := range []string{ofCluster, filepath.Join(root.Name(), ofSocket)} {
		l, ok, err := readLock(path)
		if err != nil {
			return err
		}
		if !ok || !l.owns(cluster) {
			continue
		}
		if err := stopOwner(ctx, l, cluster, progress); err != nil {
			return err
		}
	}
	if err := root.Remove(ofSocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, ok, err := readLock(ofCluster)
	switch {
	case err != nil || !ok:
		return err
	case l.pid == 0 && l.rest == "": // its server was killed before it wrote a word
		return os.Remove(ofCluster)
	case !l.namesProcess():
		return nil // postgres itself says what is wrong with it, or takes it over
	}
	// Its parent's number postgres ignores; the rest of the file must stay, since by it postgres finds backends that
	// still run.
	file, err := os.OpenFile(ofCluster, os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%d\n%s", os.Getpid(), l.rest)
	return errors.Join(err, file.Close())
}

// stopOwner stops a server that an earlier process left running on the cluster, or waits for one that is stopping.
func stopOwner(ctx context.Context, l lockFile, cluster string, progress func(string)) error {
	if l.pid < 0 {
		return fmt.Errorf("%s is in use by process %d, a postgres --single: end that first", cluster, -l.pid)
	}
	progress(fmt.Sprintf("stopping the PostgreSQL server (process %d) that an earlier run left in %s", l.pid, cluster))
	if err := syscall.Kill(l.pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot stop the PostgreSQL server (process %d) that an earlier run left in %s: %w", l.pid, cluster, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	for l.owns(cluster) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the PostgreSQL server (process %d) that an earlier run left in %s does not stop: %w", l.pid, cluster, ctx.Err())
		}
	}
	return nil
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
