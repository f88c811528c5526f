package workload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// Marks that every key and value of a run begins with, so that none can be mistaken for something else that
// the platform writes down.
const (
	KeyMark   = "torture-key~"
	ValueMark = "torture-value~"
)

// size is the length of a value in bytes: mostly that of a channel update, at times one that the database
// keeps out of line, and rarely one that the server reads in two steps.
func size(v history.Value) int {
	rng := rand.New(rand.NewPCG(uint64(v), 1))
	switch n := rng.IntN(100); {
	case n == 0:
		return 64<<10 + rng.IntN(64<<10)
	case n < 8:
		return 3<<10 + rng.IntN(8<<10)
	}
	return 40 + rng.IntN(400)
}

// spell makes the bytes of a value of a store: its name, and what follows from it.
func spell(store string, v history.Value) []byte {
	b := make([]byte, 0, size(v)+64)
	b = fmt.Appendf(b, "%s%s/%d~", ValueMark, store, v)
	rng := rand.New(rand.NewPCG(uint64(v), 2))
	for len(b) < size(v) {
		b = binary.LittleEndian.AppendUint64(b, rng.Uint64())
	}
	return b
}

// read is the value that the bytes spell. It fails for all that was never written as it is to this store.
func read(store string, b []byte) (history.Value, error) {
	rest, ours := bytes.CutPrefix(b, []byte(ValueMark+store+"/"))
	name, _, whole := bytes.Cut(rest, []byte("~"))
	n, err := strconv.ParseUint(string(name), 10, 64)
	if !ours || !whole || err != nil || !bytes.Equal(b, spell(store, history.Value(n))) {
		return 0, fmt.Errorf("a value that nobody wrote to store %s: %d bytes, %.60q", store, len(b), b)
	}
	return history.Value(n), nil
}
