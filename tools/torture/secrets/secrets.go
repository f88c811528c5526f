// Package secrets reads everything that the platform writes down, as it is written, and looks for what must never
// be there: tokens, public keys of wallets, keys and values of objects, passwords, however they are spelled.
package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Watch looks for secrets in whatever it is given to read. It is safe for concurrent use.
type Watch struct {
	needles [][]byte // of marks, in every spelling

	mu      sync.Mutex
	tokens  map[[tokenLength]byte]struct{}
	sources map[string]*source
	hits    []error
}

type source struct {
	bytes   int64
	control []string // what it writes, if we hear it at all
	heard   []bool
}

// tokenLength is how many characters of a token are looked for, at its key's beginning and at its signature's.
const (
	tokenLength = 32
	publicKey   = 66 // characters of a signature token before the signature
)

// New makes a watch for texts that contain a mark.
func New(marks ...string) *Watch {
	w := &Watch{tokens: make(map[[tokenLength]byte]struct{}), sources: make(map[string]*source)}
	for _, m := range marks {
		for _, s := range spellings(m) {
			w.needles = append(w.needles, []byte(s))
		}
	}
	return w
}

// spellings are what a text looks like in logs, dumps and messages of other kinds.
func spellings(s string) []string {
	all := []string{s, hex.EncodeToString([]byte(s)), strings.ToUpper(hex.EncodeToString([]byte(s)))}
	decimal := strings.Trim(fmt.Sprintf("%d", []byte(s)), "[]") // as fmt prints bytes
	all = append(all, decimal, strings.ReplaceAll(decimal, " ", ","))
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 { // bytes of something else in the first group
			text := enc.EncodeToString(append(make([]byte, before), s...))
			text = text[(before*8+5)/6 : (before+len(s))*8/6]
			if !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	return all
}

// Expect names a source and words that it must be heard to say, so that silence is not taken for innocence.
func (w *Watch) Expect(name string, control ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sources[name] = &source{control: control, heard: make([]bool, len(control))}
}

// Token makes a signature token one of the secrets.
func (w *Watch) Token(token string) {
	if len(token) < publicKey+tokenLength {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens[[tokenLength]byte([]byte(token[:tokenLength]))] = struct{}{}
	w.tokens[[tokenLength]byte([]byte(token[publicKey:publicKey+tokenLength]))] = struct{}{}
}

// Sources that others read for a watch. Logs is that of what is [Watch.Heard].
const (
	Logs     = "logs and crash dumps"
	Metrics  = "metrics"
	Profiles = "profiles"
	Database = "PostgreSQL's log"
	Audit    = "the audit log"
)

// Heard reads a line that a process of the platform wrote.
func (w *Watch) Heard(from string, text []byte) { w.read(Logs, from, text) }

// Read reads a text of the source.
func (w *Watch) Read(name string, text []byte) { w.read(name, name, text) }

func (w *Watch) read(name, from string, text []byte) {
	found := w.find(text)
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sources[name]
	if s == nil {
		s = &source{}
		w.sources[name] = s
	}
	s.bytes += int64(len(text))
	for i, c := range s.control {
		s.heard[i] = s.heard[i] || bytes.Contains(text, []byte(c))
	}
	if found != "" && len(w.hits) < 100 {
		w.hits = append(w.hits, fmt.Errorf("%s wrote %s: %.400q", from, found, text))
	}
}

// find is the first secret in a text, or "".
func (w *Watch) find(text []byte) string {
	for _, n := range w.needles {
		if bytes.Contains(text, n) {
			return string(n)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	run := 0 // hexadecimal digits before i
	var last [tokenLength]byte
	for i, c := range text {
		if c >= 'A' && c <= 'F' {
			c += 'a' - 'A'
		}
		if c < '0' || c > '9' && c < 'a' || c > 'f' {
			run = 0
			continue
		}
		if run++; run < tokenLength {
			continue
		}
		copy(last[:], bytes.ToLower(text[i+1-tokenLength:i+1]))
		if _, ok := w.tokens[last]; ok {
			return string(last[:])
		}
	}
	return ""
}

// Result is what was read, source by source, the sources that said none of what they must have, and the secrets
// that were found.
func (w *Watch) Result() (read string, silent []string, hits []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(w.sources)) {
		s := w.sources[name]
		parts = append(parts, fmt.Sprintf("%s %.1f MB", name, float64(s.bytes)/1e6))
		for i, heard := range s.heard {
			if !heard {
				silent = append(silent, fmt.Sprintf("%s without %q", name, s.control[i]))
			}
		}
	}
	return strings.Join(parts, ", "), silent, slices.Clone(w.hits)
}

// Teeth plants each secret in each spelling in lines as the platform writes them, for a watch of the same marks
// and tokens, and counts those that are found.
func (w *Watch) Teeth() (found, planted int) {
	w.mu.Lock()
	texts := make([]string, 0, len(w.needles)+2)
	for _, n := range w.needles {
		texts = append(texts, string(n))
	}
	for t := range maps.Keys(w.tokens) {
		texts = append(texts, string(t[:])+"0123", strings.ToUpper(string(t[:])))
		break
	}
	w.mu.Unlock()
	for _, t := range texts {
		planted++
		if w.find([]byte(`{"level":"INFO","msg":"request","error":"near `+t+`f"}`+"\n")) != "" {
			found++
		}
	}
	return found, planted
}
