package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const (
	rootDir = "/var/lib/vss-cloud" // of everything, when we are root
	nobody  = 65534
)

// account is whom the server runs as. The zero account is whoever we are.
type account struct {
	credential *syscall.Credential
}

// ownerOf is the account for the data directory dir.
func ownerOf(dir string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, path := range []string{filepath.Join(dir, "pg"), dir} {
		info, err := os.Stat(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return account{}, err
		}
		if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 0 {
			return account{&syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}}, nil
		}
	}
	return account{&syscall.Credential{Uid: nobody, Gid: nobody}}, nil
}

// adopt gives the file to a.
func (a account) adopt(f *os.File) error {
	if a.credential == nil {
		return nil
	}
	return f.Chown(int(a.credential.Uid), int(a.credential.Gid))
}

// makeDir makes a directory that only a can enter, or makes an existing one so.
func (a account) makeDir(root *os.Root, name string) error {
	if err := root.Mkdir(name, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Chmod(0o700); err != nil {
		return err
	}
	return a.adopt(dir)
}

// canReach returns an error for the operator if a may not enter dir or a directory above it.
func (a account) canReach(dir string) error {
	if a.credential == nil {
		return nil
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for path := dir; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		var (
			stat   = info.Sys().(*syscall.Stat_t)
			search = os.FileMode(0o001)
		)
		switch {
		case stat.Uid == a.credential.Uid:
			search = 0o100
		case stat.Gid == a.credential.Gid:
			search = 0o010
		}
		if info.Mode()&search == 0 {
			return fmt.Errorf("it does not run as root but as user %d, who may not enter %s (mode %04o) and so not reach %s: "+
				"choose another data directory (VSS_DATA_DIR) or allow it with chmod a+x %s",
				a.credential.Uid, path, info.Mode().Perm(), dir, path)
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}

// makeDirs makes dir and what is missing above it: for root's other account to enter, private otherwise.
func makeDirs(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	if !os.IsNotExist(err) {
		return err
	}
	if err := makeDirs(filepath.Dir(dir)); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755
	}
	if err := os.Mkdir(dir, mode); err != nil {
		if os.IsExist(err) { // made by another process just now
			return nil
		}
		return err
	}
	return os.Chmod(dir, mode) // whatever the umask
}
