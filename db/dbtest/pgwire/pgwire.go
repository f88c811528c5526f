// Package pgwire reads the client's side of the PostgreSQL protocol, as far as a proxy must that breaks
// connections at a chosen point: what a client's statements are, and where a batch of them ends. It serves the
// tests of the project and nothing else.
package pgwire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
)

// Message is one message on its way to the server.
type Message struct {
	Bytes     []byte   // all of it, to be passed on
	Cancel    bool     // it asks to cancel another connection's statement
	Statement string   // that it binds (extended protocol), or ""
	Ends      bool     // it ends a batch: a Sync, or a simple query. For an implicit transaction, its commit
	Batch     []string // the statements of the batch that it ends
}

// Reader reads the messages of one connection.
type Reader struct {
	in       *bufio.Reader
	started  bool
	prepared map[string]string // statements by name
	batch    []string
}

// NewReader reads from a client from its start-up packet on, without TLS.
func NewReader(client io.Reader) *Reader {
	return &Reader{in: bufio.NewReader(client), prepared: map[string]string{}}
}

// cancelRequest is the protocol number of a start-up packet that asks to cancel.
const cancelRequest = 80877102

// Next is the next message.
func (r *Reader) Next() (m Message, err error) {
	head := make([]byte, 5)
	if !r.started {
		head = head[1:] // the start-up packet has no type
	}
	if _, err := io.ReadFull(r.in, head); err != nil {
		return m, err
	}
	m.Bytes = make([]byte, len(head)+int(binary.BigEndian.Uint32(head[len(head)-4:]))-4)
	body := m.Bytes[copy(m.Bytes, head):]
	if _, err := io.ReadFull(r.in, body); err != nil {
		return m, err
	}
	if !r.started {
		r.started = true
		m.Cancel = len(body) >= 4 && binary.BigEndian.Uint32(body) == cancelRequest
		return m, nil
	}
	switch head[0] {
	case 'P': // Parse
		name, rest := text(body)
		r.prepared[name], _ = text(rest)
	case 'B': // Bind
		_, rest := text(body) // the portal
		name, _ := text(rest)
		m.Statement = r.prepared[name]
		r.batch = append(r.batch, m.Statement)
	case 'Q': // Query
		sql, _ := text(body)
		r.batch = append(r.batch, sql)
		m.Ends = true
	case 'S': // Sync
		m.Ends = true
	}
	if m.Ends {
		m.Batch, r.batch = r.batch, nil
	}
	return m, nil
}

// Waits says whether nothing more has arrived from the client yet.
func (r *Reader) Waits() bool { return r.in.Buffered() == 0 }

// Answered says whether what was read from a server ends its answer to a batch.
func Answered(read []byte) bool {
	const ready = 6 // bytes of ReadyForQuery
	return len(read) >= ready && bytes.HasPrefix(read[len(read)-ready:], []byte{'Z', 0, 0, 0, 5})
}

func text(b []byte) (s string, rest []byte) {
	i := bytes.IndexByte(b, 0)
	return string(b[:i]), b[i+1:]
}
