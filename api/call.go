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
	"github.com/go-chi/chi/v5/middleware"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// scope is what a call may touch, and what it may hold.
type scope struct {
	keyspace storage.Keyspace
	memory   *share
	visitor  *visitor
	event    *event
}

// request is a decoded message of one of the four calls.
type request[T any] interface {
	*T
	proto.Message
	GetStoreId() string
}

// call makes the handler of one of the contract's calls. Everything they have in common is here, once.
func call[T any, R request[T]](s *Server, name string, kind quota.Kind, do func(context.Context, scope, R) (proto.Message, error)) http.HandlerFunc {
	writes := kind == quota.Write
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
		defer cancel()
		e := eventOf(ctx)
		e.call = name
		held := &share{of: s.memory}
		defer held.release() // after the answer is written
		if r.Body != http.NoBody {
			// Also for a body that nobody will read: net/http waits for the rest of a small one before it
			// answers. Where there is none, net/http reads ahead to learn that the client has left, and a
			// deadline would tell it so.
			deadline, _ := ctx.Deadline()
			_ = http.NewResponseController(w).SetReadDeadline(deadline) // a writer without one has none to keep
		}

		reply, err := func() ([]byte, error) {
			tenant, err := s.cfg.Tenants.Resolve(r.Host, chi.URLParam(r, "tenant"))
			if err != nil {
				return nil, err
			}
			e.tenant, e.tenantID = tenant.Slug, tenant.ID
			if err := tenant.Refuses(writes); err != nil {
				return nil, err
			}
			from := middleware.GetClientIPAddr(ctx)
			caller, err := s.cfg.Auth.Authenticate(ctx, tenant, r.Header, from)
			if err != nil {
				return nil, err
			}
			visitor := s.visitor(caller, from)
			e.visitor, e.wallet = visitor, visitor.wallet.String()
			if err := visitor.admit(ctx, kind); err != nil {
				return nil, err
			}
			visitor.hold(ctx, held)
			body, err := readBody(w, r, tenant.Limits.BodySize, held)
			e.received = int64(len(body))
			if err != nil {
				return nil, err
			}
			req := R(new(T))
			if err := decode(body, req); err != nil {
				return nil, err
			}
			// Decoding copied the body, so it is garbage before the store takes its own copy.
			ks, err := storage.NewKeyspace(caller.Owner(), req.GetStoreId())
			if err != nil {
				return nil, err
			}
			if writes && departed(ctx) {
				return nil, context.Canceled
			}
			m, err := do(ctx, scope{ks, held, visitor, e}, req)
			if errors.Is(err, storage.ErrNoSuchKey) || errors.Is(err, storage.ErrConflict) || err == nil && nothing(m) {
				if refusal := visitor.foundNothing(ctx); refusal != nil {
					return nil, refusal
				}
			}
			if err != nil {
				return nil, err
			}
			if !nothing(m) {
				visitor.known()
			}
			reply := encode(m)
			// Slow readers must not pile up answers. Never refuses a write that is done: its answer is empty.
			if err := held.fit(int64(len(reply))); err != nil {
				return nil, err
			}
			e.active = e.active || !nothing(m)
			return reply, nil
		}()
		if err != nil {
			held.release() // nothing is kept of what was read
			s.fail(w, r, err)
			return
		}
		write(w, http.StatusOK, reply)
	}
}

func (s *Server) getObject() http.HandlerFunc {
	return call(s, "getObject", quota.Read, func(ctx context.Context, sc scope, req *vsspb.GetObjectRequest) (proto.Message, error) {
		o, err := s.cfg.Store.Get(ctx, sc.keyspace, req.GetKey(), func(size int64) error {
			sc.visitor.known() // there is a value
			return sc.memory.fit(size)
		})
		if err != nil {
			return nil, err
		}
		return &vsspb.GetObjectResponse{Value: &vsspb.KeyValue{Key: o.Key, Version: o.Version, Value: o.Value}}, nil
	})
}

func (s *Server) putObjects() http.HandlerFunc {
	return call(s, "putObjects", quota.Write, func(ctx context.Context, sc scope, req *vsspb.PutObjectRequest) (proto.Message, error) {
		if len(req.GetTransactionItems())+len(req.GetDeleteItems()) == 0 && req.GlobalVersion == nil {
			// Not "saved": it is what is left of a put whose body was lost on the way.
			return nil, &badRequest{"a put without items and without a global_version"}
		}
		batch := storage.Batch{
			GlobalVersion: req.GlobalVersion,
			Writes:        make([]storage.Object, len(req.GetTransactionItems())),
			Deletes:       make([]storage.KeyVersion, len(req.GetDeleteItems())),
		}
		for i, item := range req.GetTransactionItems() {
			batch.Writes[i] = storage.Object{Key: item.GetKey(), Version: item.GetVersion(), Value: item.GetValue()}
		}
		for i, item := range req.GetDeleteItems() {
			batch.Deletes[i] = storage.KeyVersion{Key: item.GetKey(), Version: item.GetVersion()}
		}
		written, err := s.cfg.Store.Put(ctx, sc.keyspace, batch, sc.visitor.limits())
		if err != nil {
			return nil, err
		}
		sc.visitor.wrote(sc.keyspace.Store(), written)
		sc.event.enrolled = written.NewWallet
		return &vsspb.PutObjectResponse{}, nil
	})
}

func (s *Server) deleteObject() http.HandlerFunc {
	return call(s, "deleteObject", quota.Write, func(ctx context.Context, sc scope, req *vsspb.DeleteObjectRequest) (proto.Message, error) {
		item := storage.KeyVersion{Key: req.GetKeyValue().GetKey(), Version: req.GetKeyValue().GetVersion()}
		written, err := s.cfg.Store.Delete(ctx, sc.keyspace, item)
		if err != nil {
			return nil, err
		}
		if written.Objects >= 0 {
			sc.visitor.wrote(sc.keyspace.Store(), written)
			sc.event.active = true
		}
		return &vsspb.DeleteObjectResponse{}, nil
	})
}

func (s *Server) listKeyVersions() http.HandlerFunc {
	return call(s, "listKeyVersions", quota.List, func(ctx context.Context, sc scope, req *vsspb.ListKeyVersionsRequest) (proto.Message, error) {
		page, err := s.cfg.Store.List(ctx, sc.keyspace, storage.ListRequest{
			Prefix:   req.GetKeyPrefix(),
			PageSize: int(req.GetPageSize()),
			Token:    req.GetPageToken(),
		})
		if err != nil {
			return nil, err
		}
		resp := &vsspb.ListKeyVersionsResponse{
			KeyVersions:   make([]*vsspb.KeyValue, len(page.Keys)),
			NextPageToken: &page.NextToken, // present even if empty: ldk-node loops until it sees Some("")
			GlobalVersion: page.GlobalVersion,
		}
		for i, k := range page.Keys {
			resp.KeyVersions[i] = &vsspb.KeyValue{Key: k.Key, Version: k.Version}
		}
		return resp, nil
	})
}

// readBody reads the whole body, at most limit bytes, on the call's share of the memory. The share grows with what
// has arrived: who announces a large body and sends none holds next to nothing.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, held *share) ([]byte, error) {
	for _, encoding := range r.Header["Content-Encoding"] {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return nil, &badRequest{"a body with a Content-Encoding is not accepted, send it as it is"}
		}
	}
	if r.ContentLength > limit {
		return nil, &tooLarge{limit}
	}
	announced := r.ContentLength // chunked: -1
	if err := held.wouldFit(announced); err != nil {
		return nil, err // before it is sent
	}
	size := min(4<<10, limit)
	if announced >= 0 {
		size = min(size, announced)
	}
	if err := held.fit(size); err != nil {
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
			if err := held.fit(size); err != nil {
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

// discardBody reads what is left of the body, within its deadline and in no memory. vss-client reads no answer
// before it has sent its body: closing the connection on it would turn a refusal that is final into an
// error that it retries. Who waits for "100 Continue" has not sent anything and is told at once.
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
