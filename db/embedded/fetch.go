package embedded

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/ulikunitz/xz"
)

// fetcher gets server binaries from a Maven repository.
type fetcher struct {
	base     string        // URL of the repository
	stall    time.Duration // how long a download may stand still
	progress func(string)
}

// binarySpace is the room in bytes that a download and its unpacked files take, at most (macOS).
const binarySpace = 400e6

// checksum is the SHA-256 of the jar of version v for a platform, "" for one that is not offered.
func checksum(v Version, platform string) string {
	return map[string]string{
		"15.19.0-linux-amd64":    "95f0b66fe72d4ca66c815773c44cb1196ea38552463e89a35f18114b3ed1565f",
		"15.19.0-linux-arm64v8":  "95baf4bd4af31b91b3050118df59388ed0064756b556b850669e0300aa7b9911",
		"15.19.0-darwin-amd64":   "11d0a55e26f4c74c6ea6c72c5e4e6ac959b29a06cc6da5e5ac8162f9fd9f8055",
		"15.19.0-darwin-arm64v8": "9bfc44d3f50298bb14fa125da4b67a36f382f8134ab2fc95349b72bcd5ec4e87",
		"18.6.0-linux-amd64":     "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1",
		"18.6.0-linux-arm64v8":   "5f54e016723afa6213925a8acb939bac52944b1d348f65c7a20f0cd2928c31be",
		"18.6.0-darwin-amd64":    "690941008aac9ee360820fde9bb7870a4f3dcac5e9e2f9e45e42333a436ad0f9",
		"18.6.0-darwin-arm64v8":  "8f6ed6f38195b50a40712ada8b2a12060b6193c1a6977a6eb5cff053bb5a1b89",
	}[string(v)+"-"+platform]
}

func defaultCacheDir() (string, error) {
	if os.Geteuid() == 0 { // whom the server runs as cannot enter root's home
		return filepath.Join(rootDir, "postgres"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("there is no directory to cache the server's binaries in: %w", err)
	}
	return filepath.Join(dir, "vss-cloud", "postgres"), nil
}

// fetch returns the directory of the binaries of v, which it downloads if cache does not have them.
func (f fetcher) fetch(ctx context.Context, cache string, v Version) (string, error) {
	cache, err := filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, string(v))
	if _, err := os.Stat(dir); err == nil { // it gets this name when it is complete
		return dir, nil
	}
	platform := runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOARCH == "arm64" {
		platform += "v8"
	}
	sum := checksum(v, platform)
	if sum == "" {
		return "", fmt.Errorf("there is no PostgreSQL %s to download for %s: set DATABASE_URL to use a PostgreSQL of your own", v, platform)
	}
	url := fmt.Sprintf("%s/io/zonky/test/postgres/embedded-postgres-binaries-%s/%s/embedded-postgres-binaries-%[2]s-%[3]s.jar",
		strings.TrimRight(f.base, "/"), platform, v)
	return dir, explain(f.install(ctx, url, sum, dir), cache, binarySpace)
}

// install makes dir from the jar at url. Processes that want the same take turns, and the first does it.
func (f fetcher) install(ctx context.Context, url, sum, dir string) error {
	cache, version := filepath.Split(dir)
	if err := makeDirs(filepath.Clean(cache)); err != nil {
		return err
	}
	lock, err := f.wait(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil { // of a process that was killed here
		return err
	}
	defer os.RemoveAll(partial)
	if err := makeDirs(partial); err != nil {
		return err
	}
	jar := filepath.Join(partial, "jar")
	if err := f.download(ctx, url, jar, sum, "downloading PostgreSQL "+version); err != nil {
		return fmt.Errorf("cannot download PostgreSQL %s from %s: %w. Check this machine's network, set VSS_POSTGRES_MAVEN "+
			"to use another Maven repository, or set DATABASE_URL to use a PostgreSQL of your own", version, url, err)
	}
	f.progress("unpacking PostgreSQL " + version)
	if err := unpack(jar, partial); err != nil {
		return fmt.Errorf("cannot unpack PostgreSQL %s: %w", version, err)
	}
	if err := os.Remove(jar); err != nil {
		return err
	}
	syscall.Sync() // nothing would repair a cache that a power failure left with empty files
	return os.Rename(partial, dir)
}

// wait locks the cache, for which it waits while another process fills it.
func (f fetcher) wait(ctx context.Context, path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			if !told {
				f.progress("waiting for another process that is fetching PostgreSQL")
			}
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		lock.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
}

// download writes what is at url to the file path, if its SHA-256 is sum.
func (f fetcher) download(ctx context.Context, url, path, sum, what string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(f.stall, func() { cancel(fmt.Errorf("no data came for %v", f.stall)) })
	defer stalled.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return errors.Join(err, ctx.Err(), context.Cause(ctx))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}

	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	meter := &meter{what: what, total: response.ContentLength, tell: f.progress, moved: func() { stalled.Reset(f.stall) }}
	digest := sha256.New()
	if _, err := io.Copy(io.MultiWriter(file, digest, meter), response.Body); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("it broke off after %s: %w", meter, err)
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != sum {
		return fmt.Errorf("the file has the SHA-256 %s and not, as it should, %s", got, sum)
	}
	return file.Close()
}

// meter tells how far a download is, about once a second.
type meter struct {
	what        string
	done, total int64 // bytes; total -1: unknown
	tell        func(string)
	moved       func()
	told        time.Time
}

func (m *meter) Write(p []byte) (int, error) {
	m.done += int64(len(p))
	m.moved()
	if now := time.Now(); now.Sub(m.told) >= time.Second || m.done == m.total {
		m.told = now
		m.tell(m.what + ": " + m.String())
	}
	return len(p), nil
}

func (m *meter) String() string {
	if m.total < 0 {
		return fmt.Sprintf("%.1f MB", float64(m.done)/1e6)
	}
	return fmt.Sprintf("%.1f of %.1f MB", float64(m.done)/1e6, float64(m.total)/1e6)
}

// unpack writes the files of the one archive inside the jar to dir, readable for everybody.
func unpack(jar, dir string) error {
	outer, err := zip.OpenReader(jar)
	if err != nil {
		return err
	}
	defer outer.Close()
	for _, member := range outer.File {
		if !strings.HasSuffix(member.Name, ".txz") {
			continue
		}
		compressed, err := member.Open()
		if err != nil {
			return err
		}
		defer compressed.Close()
		inner, err := xz.NewReader(bufio.NewReader(compressed))
		if err != nil {
			return err
		}
		return untar(inner, dir)
	}
	return errors.New("the jar holds no .txz archive")
}

func untar(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir) // refuses every path and link that leads out of dir
	if err != nil {
		return err
	}
	defer root.Close()
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(header.Name)
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		switch header.Typeflag {
		case tar.TypeDir:
			if err = root.MkdirAll(name, 0o755); err == nil {
				err = root.Chmod(name, 0o755) // whatever the umask
			}
		case tar.TypeReg:
			err = writeFile(root, name, archive, header.FileInfo().Mode().Perm()&0o755|0o444)
		case tar.TypeSymlink:
			if !filepath.IsLocal(path.Join(path.Dir(name), header.Linkname)) || path.IsAbs(header.Linkname) {
				return fmt.Errorf("the link %s leads out of the archive, to %s", name, header.Linkname)
			}
			err = root.Symlink(header.Linkname, name)
		case tar.TypeLink:
			err = root.Link(path.Clean(header.Linkname), name)
		default:
			err = fmt.Errorf("%s is of the unexpected type %q", name, header.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, name string, content io.Reader, mode os.FileMode) error {
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Chmod(mode), file.Close())
}
