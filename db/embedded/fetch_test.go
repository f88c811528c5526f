package embedded

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
)

func TestADownloadThatFailsSaysWhereWhyAndWhatToDo(t *testing.T) {
	t.Parallel()
	server := func(handler http.HandlerFunc) string {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		return s.URL
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, c := range map[string]struct{ base, want string }{
		"not found": {server(http.NotFound), "the answer is 404 Not Found"},
		"truncated": {server(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3000000")
			_, _ = w.Write(make([]byte, 1e6))
		}), "it broke off after 1.0 of 3.0 MB: unexpected EOF"},
		"another file": {server(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html>Please log in</html>")
		}), "the file has the SHA-256 "},
		"stalled": {server(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "3000000")
			_, _ = w.Write(make([]byte, 1e6))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), "no data came for 200ms"},
		"silent":   {server(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), "no data came for 200ms"},
		"refused":  {closed.URL, "connection refused"},
		"no URL":   {"::", "missing protocol scheme"},
		"no host":  {"http://vss.invalid", "vss.invalid"},
		"not HTTP": {"ftp://127.0.0.1", "unsupported protocol scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache := t.TempDir()
			f := fetcher{base: c.base, stall: 200 * time.Millisecond, progress: func(string) {}}
			_, err := f.fetch(t.Context(), cache, V18)
			if err == nil {
				t.Fatal("it succeeds")
			}
			for _, want := range []string{c.want, c.base + "/io/zonky/test/postgres/", "18.6.0.jar", "network", "set DATABASE_URL"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant in it: %s", err, want)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(cache, string(V18)+"*")); len(left) > 0 {
				t.Errorf("left in the cache: %v", left)
			}
		})
	}
}

func TestADownloadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	f := fetcher{base: s.URL, stall: time.Minute, progress: func(string) {}}
	if _, err := f.fetch(ctx, t.TempDir(), V15); err == nil || !strings.Contains(err.Error(), "context deadline exceeded") {
		t.Errorf("fetch: %v", err)
	}
}

func TestManyThatWantTheSameBinariesDownloadThemOnce(t *testing.T) {
	t.Parallel()
	jar := makeJar(t, &tar.Header{Name: "bin/postgres", Mode: 0o755}, &tar.Header{Name: "share/a/b", Mode: 0o600},
		&tar.Header{Name: "lib/l.so", Linkname: "l.so.1", Typeflag: tar.TypeSymlink},
		&tar.Header{Name: "lib/l.so.1", Mode: 0o644}, &tar.Header{Name: "lib/hard", Linkname: "lib/l.so.1", Typeflag: tar.TypeLink})
	digest := sha256.Sum256(jar)
	var downloads atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		downloads.Add(1)
		_, _ = w.Write(jar)
	}))
	defer s.Close()
	cache := filepath.Join(t.TempDir(), "made", "as needed")
	dir := filepath.Join(cache, "1.2.3")
	// What a process leaves that was killed while it unpacked:
	if err := os.MkdirAll(filepath.Join(dir+".partial", "bin"), 0o700); err != nil {
		t.Fatal(err)
	}

	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		told []string
	)
	f := fetcher{stall: time.Minute, progress: func(line string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, line)
	}}
	for range 8 {
		wg.Go(func() {
			if err := f.install(t.Context(), s.URL, hex.EncodeToString(digest[:]), dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := downloads.Load(); n != 1 {
		t.Errorf("%d downloads", n)
	}
	if all := strings.Join(told, "\n"); !strings.Contains(all, "downloading PostgreSQL 1.2.3: 0.0 of 0.0 MB") || !strings.Contains(all, "unpacking") {
		t.Errorf("progress: %q", told)
	}
	for name, mode := range map[string]os.FileMode{"bin/postgres": 0o755, "share/a/b": 0o644, "lib/l.so": 0o644, "lib/hard": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, want the mode %v", name, err, mode)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*")); len(left) != 2 { // with the lock
		t.Errorf("the cache holds %v", left)
	}
}

func TestAnArchiveWritesNothingOutsideItsDirectory(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string][]*tar.Header{
		"path":            {{Name: "../evil"}},
		"absolute path":   {{Name: "/tmp/vss-evil"}},
		"link":            {{Name: "a", Linkname: "../evil", Typeflag: tar.TypeSymlink}},
		"absolute link":   {{Name: "a", Linkname: "/etc", Typeflag: tar.TypeSymlink}},
		"hard link":       {{Name: "a", Linkname: "../secret", Typeflag: tar.TypeLink}},
		"through a link":  {{Name: "a", Linkname: "b/../..", Typeflag: tar.TypeSymlink}, {Name: "a/evil"}},
		"a device":        {{Name: "null", Typeflag: tar.TypeChar}},
		"over a file":     {{Name: "a"}, {Name: "a"}},
		"no archive":      nil,
		"a directory out": {{Name: "../evil/", Typeflag: tar.TypeDir}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			dir := filepath.Join(top, "dir")
			for _, err := range []error{
				os.Mkdir(dir, 0o755),
				os.WriteFile(filepath.Join(top, "secret"), nil, 0o600),
				os.WriteFile(filepath.Join(top, "jar"), makeJar(t, headers...), 0o600),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := unpack(filepath.Join(top, "jar"), dir); err == nil {
				t.Error("it is accepted")
			}
			if entries, err := os.ReadDir(top); err != nil || len(entries) != 3 {
				t.Errorf("beside it there is now %v (%v)", entries, err)
			}
		})
	}
}

// makeJar is a jar whose archive has these members; without any it has no archive.
func makeJar(t *testing.T, headers ...*tar.Header) []byte {
	t.Helper()
	var jar bytes.Buffer
	outer := zip.NewWriter(&jar)
	name := "postgres.txz"
	if len(headers) == 0 {
		name = "readme"
	}
	member, err := outer.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	compressed, err := xz.NewWriter(member)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(compressed)
	for _, header := range headers {
		if header.Typeflag == 0 {
			header.Typeflag, header.Size = tar.TypeReg, 5
		}
		if err := archive.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(archive, "hello"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, w := range []io.Closer{archive, compressed, outer} {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return jar.Bytes()
}
