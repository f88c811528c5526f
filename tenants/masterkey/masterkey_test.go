package masterkey

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "master.key") }

func created(t *testing.T) (*Key, string) {
	t.Helper()
	path := newPath(t)
	k, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	return k, path
}

// of makes the key whose bytes are all b.
func of(b ...byte) *Key {
	k := &Key{}
	for _, b := range b {
		k.secrets = append(k.secrets, newSecret([secretSize]byte(bytes.Repeat([]byte{b}, secretSize))))
	}
	return k
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func wantOpen(t *testing.T, k *Key, sealed []byte, context, want string) {
	t.Helper()
	if got, err := k.Open(sealed, []byte(context)); err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestWhatIsSealedOpensForItsContextAlone(t *testing.T) {
	t.Parallel()
	k := of(1)
	for _, plaintext := range []string{"", "x", strings.Repeat("secret ", 1000)} {
		sealed := k.Seal([]byte(plaintext), []byte("tenant a"))
		wantOpen(t, k, sealed, "tenant a", plaintext)
		for _, other := range []string{"", "tenant b", "tenant a ", "tenant "} {
			_, err := k.Open(sealed, []byte(other))
			wantError(t, err, ErrDamaged)
		}
		if len(sealed) != len(plaintext)+37 {
			t.Errorf("%d bytes for %d", len(sealed), len(plaintext))
		}
		if len(plaintext) > 1 && bytes.Contains(sealed, []byte("secret")) {
			t.Error("the plaintext shows")
		}
	}
}

func TestTheSamePlaintextIsSealedDifferentlyEachTime(t *testing.T) {
	t.Parallel()
	k := of(1)
	if bytes.Equal(k.Seal([]byte("x"), nil), k.Seal([]byte("x"), nil)) {
		t.Error("sealed twice to the same bytes")
	}
}

func TestWhatIsSealedCannotBeChanged(t *testing.T) {
	t.Parallel()
	k := of(1)
	sealed := k.Seal([]byte("plaintext"), nil)
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		want := ErrDamaged
		if i >= 1 && i < headerSize {
			want = ErrWrongKey
		}
		_, err := k.Open(changed, nil)
		wantError(t, err, want)

		_, err = k.Open(sealed[:i], nil)
		wantError(t, err, ErrDamaged)
	}
	_, err := k.Open(append(bytes.Clone(sealed), 0), nil)
	wantError(t, err, ErrDamaged)
}

func TestAWrongKeyIsRecognised(t *testing.T) {
	t.Parallel()
	sealed := of(1).Seal([]byte("plaintext"), nil)
	_, err := of(2).Open(sealed, nil)
	wantError(t, err, ErrWrongKey)
	for _, id := range []string{of(1).ID(), of(2).ID()} {
		if !strings.Contains(err.Error(), id) {
			t.Errorf("%q does not name %s", err, id)
		}
	}
	if of(2).Holds(of(1).ID()) || !of(2, 1).Holds(of(1).ID()) || !of(2, 1).Holds(of(2).ID()) {
		t.Error("Holds is wrong")
	}
}

func TestWhatAReleaseSealedOpensInEveryLaterOne(t *testing.T) {
	t.Parallel()
	// Made by another implementation of HKDF (RFC 5869) and AES-GCM.
	sealed, err := hex.DecodeString(vectorSealed)
	if err != nil {
		t.Fatal(err)
	}
	k := of(7)
	wantOpen(t, k, sealed, "context", "plaintext")
	if k.ID() != vectorID {
		t.Errorf("id %s, want %s", k.ID(), vectorID)
	}
	if got := k.Derive("purpose"); hex.EncodeToString(got[:]) != vectorDerived {
		t.Errorf("derived %x, want %s", got, vectorDerived)
	}
}

func TestPurposesHaveKeysOfTheirOwn(t *testing.T) {
	t.Parallel()
	seen := map[[32]byte]string{}
	for _, k := range []*Key{of(1), of(2)} {
		for _, purpose := range []string{"", "a", "b", "a ", "id", "seal"} {
			name := k.ID() + purpose
			key := k.Derive(purpose)
			if other, ok := seen[key]; ok {
				t.Errorf("%q has the key of %q", name, other)
			}
			seen[key] = name
			if key != k.Derive(purpose) {
				t.Errorf("%q has two keys", name)
			}
		}
	}
	if got, want := of(2, 1).DeriveAll("a"), [][32]byte{of(2).Derive("a"), of(1).Derive("a")}; !slices.Equal(got, want) {
		t.Error("not the keys of all, newest first")
	}
}

func TestContextsOfDifferentPartsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string][]string{}
	for _, parts := range [][]string{
		{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"a", "b"}, {"b", "a"}, {"ab"}, {"\x01a"}, {strings.Repeat("a", 200)},
	} {
		c := string(Context(parts...))
		if other, ok := seen[c]; ok {
			t.Errorf("%q and %q are the same context", parts, other)
		}
		seen[c] = parts
	}
}

func TestTheMasterKeyIsReplacedWithoutLosingWhatItSealed(t *testing.T) {
	t.Parallel()
	old, path := created(t)
	context := []byte("context")
	sealed := old.Seal([]byte("plaintext"), context)

	both, err := rotate(path)
	if err != nil {
		t.Fatal(err)
	}
	wantOpen(t, both, sealed, "context", "plaintext")
	if both.ID() == old.ID() || !both.Holds(old.ID()) {
		t.Errorf("%v does not follow %v", both, old)
	}
	resealed, err := both.Reseal(sealed, context)
	if err != nil {
		t.Fatal(err)
	}
	wantOpen(t, both, resealed, "context", "plaintext")
	if again, err := both.Reseal(resealed, context); err != nil || !bytes.Equal(again, resealed) {
		t.Errorf("resealed once more: %v", err)
	}
	_, err = both.Reseal(sealed, nil)
	wantError(t, err, ErrDamaged)

	// Added only, a key opens and does not seal; promoted twice it is still the first.
	if again, err := Promote(path, both.ID()); err != nil || again.ID() != both.ID() {
		t.Errorf("promoted again: %v, %v", again, err)
	}
	_, err = Promote(path, "0000000000000000")
	wantError(t, err, ErrWrongKey)
	_, err = Retire(path, old.ID())
	wantError(t, err, ErrWrongKey)
	alone, err := Retire(path, both.ID())
	if err != nil {
		t.Fatal(err)
	}
	wantOpen(t, alone, resealed, "context", "plaintext")
	_, err = alone.Open(sealed, context)
	wantError(t, err, ErrWrongKey)

	loaded, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	wantOpen(t, loaded, resealed, "context", "plaintext")
	if loaded.ID() != both.ID() || loaded.Holds(old.ID()) {
		t.Errorf("the file has %v", loaded)
	}
	wantOnly(t, path)
}

// wantOnly: nothing else is left in the file's folder, and nobody else may read it.
func wantOnly(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("the folder has %v", entries)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestACreatedFileLoads(t *testing.T) {
	t.Parallel()
	k, path := created(t)
	loaded, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	wantOpen(t, loaded, k.Seal([]byte("plaintext"), nil), "", "plaintext")
	wantOnly(t, path)
}

func TestCreateNeverTakesThePlaceOfAFile(t *testing.T) {
	t.Parallel()
	k, path := created(t)
	_, err := Create(path)
	wantError(t, err, fs.ErrExist)
	if loaded, err := Load(path); err != nil || loaded.ID() != k.ID() {
		t.Errorf("the file has %v, %v", loaded, err)
	}
	wantOnly(t, path)

	dir := t.TempDir()
	_, err = Create(dir)
	wantError(t, err, fs.ErrExist)
	_, err = Create(filepath.Join(dir, "none", "master.key"))
	wantError(t, err, fs.ErrNotExist)
}

// atOnce runs f many times at once and returns those keys that it made.
func atOnce(t *testing.T, f func() (*Key, error)) []*Key {
	t.Helper()
	var (
		mu   sync.Mutex
		made []*Key
		wg   sync.WaitGroup
	)
	for range 16 {
		wg.Go(func() {
			k, err := f()
			if err == nil {
				mu.Lock()
				made = append(made, k)
				mu.Unlock()
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return made
}

func TestOfManyCreatesAtOnceOneMakesTheFile(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	made := atOnce(t, func() (*Key, error) {
		k, err := Create(path)
		if errors.Is(err, fs.ErrExist) { // and whole, for those that come late
			if _, err := Load(path); err != nil {
				t.Error(err)
			}
		}
		return k, err
	})
	if len(made) != 1 {
		t.Fatalf("%d made it", len(made))
	}
	if k, err := Load(path); err != nil || k.ID() != made[0].ID() {
		t.Errorf("the file has %v, %v; want %v", k, err, made[0])
	}
	wantOnly(t, path)
}

func TestOfManyWhoAddAKeyAtOnceNoneLosesAnothers(t *testing.T) {
	t.Parallel()
	first, path := created(t)
	made := atOnce(t, func() (*Key, error) { return Add(path) })
	k, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if k.ID() != first.ID() {
		t.Errorf("%v seals, which was added only", k)
	}
	for _, m := range made {
		if !k.Holds(m.IDs()[len(m.IDs())-1]) {
			t.Errorf("the file lost %v", m)
		}
	}
	if len(made) == 0 || len(k.secrets) != len(made)+1 {
		t.Errorf("%d keys after %d rotations", len(k.secrets), len(made))
	}
	wantOnly(t, path)
}

func TestAnInterruptedChangeIsNotRunOver(t *testing.T) {
	t.Parallel()
	k, path := created(t)
	left := path + ".new"
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(string) (*Key, error){
		Add,
		func(path string) (*Key, error) { return Promote(path, k.ID()) },
		func(path string) (*Key, error) { return Retire(path, k.ID()) },
	} {
		_, err := change(path)
		wantError(t, err, fs.ErrExist)
		if err == nil || !strings.Contains(err.Error(), left) {
			t.Errorf("%v does not name what is left", err)
		}
	}
	if loaded, err := Load(path); err != nil || loaded.ID() != k.ID() {
		t.Errorf("the file has %v, %v", loaded, err)
	}
	if _, err := os.Stat(left); err != nil {
		t.Error("what another one is making was removed")
	}
}

func TestAFileThatCannotBeReadIsNotChanged(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	_, err := Add(path)
	wantError(t, err, fs.ErrNotExist)
	if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Add(path)
	wantError(t, err, ErrMalformed)
	wantOnly(t, path)
}

func TestAChangeFollowsALink(t *testing.T) {
	t.Parallel()
	_, path := created(t)
	link := newPath(t)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	k, err := Add(link)
	if err != nil {
		t.Fatal(err)
	}
	if loaded, err := Load(path); err != nil || loaded.ID() != k.ID() {
		t.Errorf("the file has %v, %v; want %v", loaded, err, k)
	}
	wantOnly(t, path)
}

func TestAChangedFileIsLeftToItsOwner(t *testing.T) {
	t.Parallel()
	_, path := created(t)
	_ = os.Chown(path, 12345, 12345) // root may; for others the file is theirs
	owner := func() [2]uint32 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		s := info.Sys().(*syscall.Stat_t)
		return [2]uint32{s.Uid, s.Gid}
	}
	before := owner()
	if _, err := Add(path); err != nil {
		t.Fatal(err)
	}
	if after := owner(); after != before {
		t.Errorf("owner %v, was %v", after, before)
	}
}

func TestAFileOpenToOthersIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	_, path := created(t)
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o777, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		wantError(t, err, ErrExposed)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("%v does not say what to do", err)
		}
	}
	for _, mode := range []fs.FileMode{0o400, 0o600, 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestAMissingFileIsSaidToBeMissing(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	_, err := Load(path)
	wantError(t, err, fs.ErrNotExist)
	if err == nil || !strings.Contains(err.Error(), path+" is missing") {
		t.Errorf("got %v", err)
	}
}

const (
	vectorID      = "01db524d255b3a13"
	vectorSealed  = "0101db524d255b3a13000102030405060708090a0bfd78efd3710ebc4a228b6303547acf53d184284438737a1983"
	vectorDerived = "76dcd507eaab224dc037b62279deb5423c02171ac44ad7f227fb56e7e6260444"
)

const keyOne = "0101010101010101010101010101010101010101010101010101010101010101"

func TestFilesThatAreNone(t *testing.T) {
	t.Parallel()
	one, two := of(1), of(2)
	good := string(one.text())
	line := fmt.Sprintf("%s %s\n", one.ID(), keyOne)
	for name, text := range map[string]string{
		"empty":               "",
		"blank":               "\n\n",
		"the first line only": firstLine + "\n",
		"no first line":       line,
		"a key alone":         keyOne + "\n",
		"another version":     strings.Replace(good, "version 1", "version 2", 1),
		"another's id":        strings.Replace(good, one.ID(), two.ID(), 1),
		"upper-case id":       firstLine + "\n" + strings.ToUpper(one.ID()) + " " + keyOne + "\n",
		"no id":               firstLine + "\n" + keyOne + "\n",
		"no key":              firstLine + "\n" + one.ID() + "\n",
		"a digit changed":     strings.Replace(good, " 01", " 11", 1),
		"a digit too few":     strings.Replace(good, " 01", " 1", 1),
		"a byte too many":     strings.Replace(good, " 01", " 0101", 1),
		"not hex":             strings.Replace(good, " 01", " 0g", 1),
		"something after it":  strings.TrimSuffix(good, "\n") + " x\n",
		"two spaces":          strings.Replace(good, " 01", "  01", 1),
		"the same key twice":  good + line,
		"a line of a PEM":     good + "-----BEGIN PRIVATE KEY-----\n",
		"binary":              "\x00\x01\x02",
		"too long":            good + strings.Repeat("#\n", maxFile),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newPath(t)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			wantError(t, err, ErrMalformed)
			if err != nil && strings.Contains(err.Error(), "01010101") {
				t.Errorf("%v shows the key", err)
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		t.Parallel()
		_, err := Load(t.TempDir())
		wantError(t, err, ErrMalformed)
	})
}

func TestFilesThatPeopleEdited(t *testing.T) {
	t.Parallel()
	one := of(1)
	line := fmt.Sprintf("%s %s", one.ID(), keyOne)
	for _, text := range []string{
		firstLine + "\n" + line + "\n",
		firstLine + "\n" + line, // no end of line
		firstLine + "\r\n" + line + "\r\n",
		"# ours\n\n" + firstLine + "\n\n# since May\n  " + line + "  \n\n",
		firstLine + "\n" + one.ID() + " " + strings.ToUpper(keyOne) + "\n",
	} {
		if k, err := parse([]byte(text)); err != nil || k.ID() != one.ID() {
			t.Errorf("%q: %v, %v", text, k, err)
		}
	}
}

func TestAKeyIsNeverPrinted(t *testing.T) {
	t.Parallel()
	k := of(1, 2)
	inside := struct {
		k Key // unexported, so that fmt cannot call its methods
		p *Key
	}{*k, k}
	var printed strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%o", "%b", "%c", "%U", "%e", "%t", "%p"} {
		for _, v := range []any{k, *k, []*Key{k}, map[string]Key{"k": *k}, inside, &inside} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
	}
	text := slog.New(slog.NewTextHandler(&printed, nil))
	text.Info("key", "k", k, "v", *k, "i", inside)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("key", "k", k, "v", *k, "i", inside)
	if err := json.NewEncoder(&printed).Encode([]any{k, *k, inside}); err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{keyOne, "1 1 1 1 1", "1, 1, 1", "0x1, 0x1", `\x01\x01`, "U+0001 U+0001", "AQEBAQ"} {
		if strings.Contains(strings.ToLower(printed.String()), strings.ToLower(b)) {
			t.Errorf("printed with %q:\n%s", b, &printed)
		}
	}
	if got, want := fmt.Sprint(k), "master key "+k.ID(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var none *Key
	_ = fmt.Sprint(none, Key{}) // must not panic
}

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parse(text)
		if err != nil {
			wantError(t, err, ErrMalformed)
			return
		}
		again, err := parse(k.text())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(k.secrets, again.secrets, func(a, b *secret) bool { return a.reveal() == b.reveal() && a.id == b.id }) {
			t.Errorf("%v was written as %v", k, again)
		}
	})
}

func FuzzOpen(f *testing.F) {
	k := of(7)
	genuine, err := hex.DecodeString(vectorSealed)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sealed []byte) {
		_, err := k.Open(sealed, []byte("context"))
		if err == nil && !bytes.Equal(sealed, genuine) {
			t.Error("opened what nobody sealed")
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrWrongKey) {
			t.Errorf("got %v", err)
		}
	})
}

// rotate adds a key and makes it the one that seals.
func rotate(path string) (*Key, error) {
	k, err := Add(path)
	if err != nil {
		return nil, err
	}
	ids := k.IDs()
	return Promote(path, ids[len(ids)-1])
}
