package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// message is a decoded message of one of the four calls.
type message[T any] interface {
	*T
	proto.Message
	GetStoreId() string
}

// found is what a call found in the store.
type found bool

const (
	nothing   found = false // or what a wallet that has never written would find too
	something found = true  // what only a wallet has that has written, by this call at the latest
)

// call makes the handler of one of the contract's calls. Everything they have in common is here, once.
func call[T any, M message[T]](s *Server, name string, kind quota.Kind, do func(context.Context, *request, storage.Keyspace, M) (proto.Message, found, error)) http.HandlerFunc {
	writes := kind == quota.Write
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
		defer cancel()
		rq := requestOf(ctx)
		rq.call = name
		defer rq.release() // after the answer is written
		if r.Body != http.NoBody {
			// Also for a body that nobody will read: net/http waits for the rest of a small one before it
			// answers. Where there is none, net/http reads ahead to learn that the client has left, and a
			// deadline would tell it so.
			deadline, _ := ctx.Deadline()
			_ = http.NewResponseController(w).SetReadDeadline(deadline) // a writer without one has none to keep
		}

		reply, err := func() ([]byte, error) {
			var err error
			if rq.tenant, err = s.cfg.Tenants.Resolve(r.Host, chi.URLParam(r, "tenant")); err != nil {
				return nil, err
			}
			if err := rq.tenant.Refuses(writes); err != nil {
				return nil, err
			}
			caller, err := s.cfg.Auth.Authenticate(ctx, rq.tenant, r.Header, rq.from)
			if err != nil {
				return nil, err
			}
			owner := caller.Owner()
			rq.wallet = owner.Wallet()
			if err := rq.admit(ctx, kind); err != nil {
				return nil, err
			}
			body, err := rq.readBody(ctx, w, r)
			rq.received = int64(len(body))
			if err != nil {
				return nil, err
			}
			m := M(new(T))
			if err := decode(body, m); err != nil {
				return nil, err
			}
			// Decoding copied the body, so it is garbage before the store takes its own copy.
			ks, err := storage.NewKeyspace(owner, m.GetStoreId())
			if err != nil {
				return nil, err
			}
			if writes && departed(ctx) {
				return nil, context.Canceled
			}
			resp, has, err := do(ctx, rq, ks, m)
			switch {
			case err == nil && has == something:
				rq.know()
			case err == nil, errors.Is(err, storage.ErrNoSuchKey), errors.Is(err, storage.ErrConflict):
				if refusal := rq.foundNothing(ctx); refusal != nil {
					return nil, refusal
				}
			}
			if err != nil {
				return nil, err
			}
			reply := encode(resp)
			// Slow readers must not pile up answers. Never refuses a write that is done: its answer is empty.
			if err := rq.hold(ctx, int64(len(reply))); err != nil {
				return nil, err
			}
			rq.active = has == something
			return reply, nil
		}()
		if err != nil {
			rq.release() // nothing is kept of what was read
			s.fail(w, r, err)
			return
		}
		write(w, http.StatusOK, reply)
	}
}

func (s *Server) getObject() http.HandlerFunc {
	return call(s, "getObject", quota.Read, func(ctx context.Context, rq *request, ks storage.Keyspace, m *vsspb.GetObjectRequest) (proto.Message, found, error) {
		o, err := s.cfg.Store.Get(ctx, ks, m.GetKey(), func(size int64) error {
			rq.know() // there is a value
			return rq.hold(ctx, size)
		})
		if err != nil {
			return nil, nothing, err
		}
		// The global version of a store that was never written is 0.
		return &vsspb.GetObjectResponse{Value: &vsspb.KeyValue{Key: o.Key, Version: o.Version, Value: o.Value}}, o.Version != 0, nil
	})
}

func (s *Server) putObjects() http.HandlerFunc {
	return call(s, "putObjects", quota.Write, func(ctx context.Context, rq *request, ks storage.Keyspace, m *vsspb.PutObjectRequest) (proto.Message, found, error) {
		if len(m.GetTransactionItems())+len(m.GetDeleteItems()) == 0 && m.GlobalVersion == nil {
			// Not "saved": it is what is left of a put whose body was lost on the way.
			return nil, nothing, &badRequest{"a put without items and without a global_version"}
		}
		batch := storage.Batch{
			GlobalVersion: m.GlobalVersion,
			Writes:        make([]storage.Object, len(m.GetTransactionItems())),
			Deletes:       make([]storage.KeyVersion, len(m.GetDeleteItems())),
		}
		for i, item := range m.GetTransactionItems() {
			batch.Writes[i] = storage.Object{Key: item.GetKey(), Version: item.GetVersion(), Value: item.GetValue()}
		}
		for i, item := range m.GetDeleteItems() {
			batch.Deletes[i] = storage.KeyVersion{Key: item.GetKey(), Version: item.GetVersion()}
		}
		written, err := rq.put(ctx, ks, batch)
		if err != nil {
			return nil, nothing, err
		}
		rq.stored(ks.Store(), written)
		rq.enrolled = written.NewWallet
		return &vsspb.PutObjectResponse{}, something, nil
	})
}

func (s *Server) deleteObject() http.HandlerFunc {
	return call(s, "deleteObject", quota.Write, func(ctx context.Context, rq *request, ks storage.Keyspace, m *vsspb.DeleteObjectRequest) (proto.Message, found, error) {
		item := storage.KeyVersion{Key: m.GetKeyValue().GetKey(), Version: m.GetKeyValue().GetVersion()}
		written, err := s.cfg.Store.Delete(ctx, ks, item)
		if err != nil {
			return nil, nothing, err
		}
		rq.stored(ks.Store(), written)
		return &vsspb.DeleteObjectResponse{}, written.Objects >= 0, nil
	})
}

func (s *Server) listKeyVersions() http.HandlerFunc {
	return call(s, "listKeyVersions", quota.List, func(ctx context.Context, rq *request, ks storage.Keyspace, m *vsspb.ListKeyVersionsRequest) (proto.Message, found, error) {
		page, err := s.cfg.Store.List(ctx, ks, storage.ListRequest{
			Prefix:   m.GetKeyPrefix(),
			PageSize: int(m.GetPageSize()),
			Token:    m.GetPageToken(),
		})
		if err != nil {
			return nil, nothing, err
		}
		resp := &vsspb.ListKeyVersionsResponse{
			KeyVersions:   make([]*vsspb.KeyValue, len(page.Keys)),
			NextPageToken: &page.NextToken, // present even if empty: ldk-node loops until it sees Some("")
			GlobalVersion: page.GlobalVersion,
		}
		for i, k := range page.Keys {
			resp.KeyVersions[i] = &vsspb.KeyValue{Key: k.Key, Version: k.Version}
		}
		return resp, len(page.Keys) > 0 || resp.GetGlobalVersion() != 0, nil
	})
}

// readBody reads the whole body, up to the tenant's limit. The request reserves memory as bytes arrive, so a client
// that announces a large body and sends nothing reserves next to nothing.
func (rq *request) readBody(ctx context.Context, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limit := rq.tenant.Limits.BodySize
	for _, encoding := range r.Header["Content-Encoding"] {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return nil, &badRequest{"a body with a Content-Encoding is not accepted, send it as it is"}
		}
	}
	if r.ContentLength > limit {
		return nil, &tooLarge{limit}
	}
	announced := r.ContentLength // chunked: -1
	if err := rq.couldHold(ctx, announced); err != nil {
		return nil, err // before it is sent
	}
	size := min(4<<10, limit)
	if announced >= 0 {
		size = min(size, announced)
	}
	if err := rq.hold(ctx, size); err != nil {
		return nil, err
	}
	body := make([]byte, 0, size+1) // room to see the end without growing
	src := http.MaxBytesReader(w, r.Body, limit)
	for {
		if len(body) == cap(body) {
			arrived := int64(len(body))
			size = min(2*arrived, limit)
			if arrived < announced && arrived >= announced/4 {
				size = announced // no more copying
			}
			if err := rq.hold(ctx, size); err != nil {
				return nil, err
			}
			body = append(make([]byte, 0, size+1), body...)
		}
		n, err := src.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		var over *http.MaxBytesError
		switch {
		case err == nil:
		case err == io.EOF:
			// net/http takes an HTTP/2 stream that ends with its headers for one without a body, whatever
			// they promised. A put that lost its body on the way must not be "done".
			if promised := r.Header.Get("Content-Length"); promised != "" {
				if n, err := strconv.Atoi(promised); err != nil || n != len(body) {
					return nil, errBodyCut
				}
			}
			return body, nil
		case errors.As(err, &over):
			return nil, &tooLarge{limit}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errSlowBody
		default:
			return nil, errBodyCut
		}
	}
}

// discardBody reads the rest of the body, within its deadline, and keeps none of it. vss-client reads no answer before
// it has sent its body: to close the connection would turn a final refusal into an error that it retries. A client that
// waits for "100 Continue" has sent nothing and is answered at once.
func discardBody(r *http.Request) {
	if r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, r.Body, 2*tenants.MaxBodySize)
	}
}

// decode decodes a body. What it takes in memory must not be out of proportion to the body, so it counts the
// items of a put before it makes any (an empty one has two bytes, and takes a hundred) and keeps no unknown
// fields.
func decode(body []byte, m proto.Message) error {
	malformed := &badRequest{"the body is not a valid protobuf message of this call"}
	fields := m.ProtoReflect().Descriptor().Fields()
	items := 0
	for rest := body; len(rest) > 0; {
		number, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return malformed
		}
		if f := fields.ByNumber(number); f != nil && f.IsList() {
			items++
		}
		rest = rest[n:]
	}
	if items > storage.MaxBatchItems {
		return &badRequest{fmt.Sprintf("%d items in one put, allowed are %d", items, storage.MaxBatchItems)}
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, m); err != nil {
		return malformed
	}
	return nil
}

func encode(m proto.Message) []byte {
	body, err := proto.Marshal(m)
	if err != nil {
		panic(err) // only for text that is not UTF-8, and none gets this far
	}
	return body
}

// write answers with an encoded message.
func write(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}
