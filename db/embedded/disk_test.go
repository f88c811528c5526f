package embedded

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAFullDiskIsRecognizedHoweverItIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, err := range []error{
		&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC},
		fmt.Errorf("over quota: %w", syscall.EDQUOT),
		errors.New(`PANIC:  could not write to file "pg_wal/xlogtemp.7": No space left on device`),
	} {
		full := explain(explain(err, dir, 123e6), "elsewhere", 1)
		if !wantFull(full, dir, 123) || !errors.Is(full, err) {
			t.Errorf("%v is explained as %v", err, full)
		}
	}
	for _, err := range []error{nil, os.ErrPermission} {
		if got := explain(err, dir, 1); !errors.Is(got, err) || errors.As(got, new(*fullDisk)) {
			t.Errorf("%v is explained as %v", err, got)
		}
	}
}

func TestADownloadToAFullDiskSaysSo(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // has no /dev/full; the test above covers the explanation
	}
	f := fetcher{stall: time.Minute, progress: func(string) {}}
	err := f.download(t.Context(), bytesServer(t, 1e6), "/dev/full", "", "")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("download: %v", err)
	}
}

// With disks that are really full, which takes root.
func TestAFullDiskIsNamedWithWhatIsNeeded(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		return // the tests above cover what can be without
	}
	t.Parallel()
	t.Run("download", func(t *testing.T) {
		t.Parallel()
		cache := tmpfs(t, "2m")
		f := fetcher{base: bytesServer(t, 10e6), stall: time.Minute, progress: func(string) {}}
		if _, err := f.fetch(t.Context(), cache, V18); !wantFull(err, cache, 400) {
			t.Errorf("fetch: %v", err)
		}
	})
	t.Run("initdb, then start", func(t *testing.T) {
		t.Parallel()
		dir := tmpfs(t, "20m")
		if _, err := Start(t.Context(), Config{DataDir: dir}); !wantFull(err, dir, 100) {
			t.Errorf("initdb: %v", err)
		}
		mount(t, dir, "-o", "remount,size=200m")
		stop(t, mustStart(t, Config{DataDir: dir})) // nothing of the first try is in the way

		fill(t, dir)
		if _, err := Start(t.Context(), Config{DataDir: dir}); !wantFull(err, dir, 100) {
			t.Errorf("start: %v", err)
		}
		if err := os.Remove(filepath.Join(dir, "filling")); err != nil {
			t.Fatal(err)
		}
		mustStart(t, Config{DataDir: dir})
	})
}

// wantFull says whether err tells an operator that the disk is full, which one and how many MB it wants.
func wantFull(err error, dir string, mb int) bool {
	return err != nil && regexp.MustCompile(fmt.Sprintf(
		`the disk that holds %s is full: about %d MB are needed there and \d+ MB are free: `, regexp.QuoteMeta(dir), mb)).MatchString(err.Error()) &&
		strings.Count(err.Error(), "is full") == 1
}

func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := dataDir(t)
	mount(t, dir, "-t", "tmpfs", "-o", "mode=0755,size="+size)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func mount(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", append(args, "tmpfs", dir)...).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
}

func fill(t *testing.T, dir string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "filling"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for chunk := make([]byte, 64<<10); len(chunk) > 0; {
		if _, err := file.Write(chunk); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			chunk = chunk[:len(chunk)/2]
		}
	}
}

func bytesServer(t *testing.T, n int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, n)) }))
	t.Cleanup(s.Close)
	return s.URL
}
