package api

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/go-chi/chi/v5/middleware"

	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// request is one request from its headers to its log line: whose it is, what it holds, what it found and how it
// ended. It belongs to the request's goroutine.
type request struct {
	server *Server
	from   netip.Addr
	call   string // "" for what is not a call

	tenant *callers.Tenant  // nil: none was found
	wallet storage.WalletID // zero: no credential was verified

	// known: the wallet has written before. It may have where this is false: see standing.
	known    bool
	standing *standing // nil: not asked

	held int64 // bytes of the memory, which has the lock of it

	received int64 // bytes of the body
	enrolled bool  // the wallet, by this call
	active   bool  // the wallet wrote, or was answered with something that is there
	answer   answer
	refusal  string // why a credential was refused, one of a fixed set
	err      error  // of faults: never told to the client
}

// standing is what the database says of a wallet.
type standing struct{ known, listed bool }

type requestKey struct{}

func requestOf(ctx context.Context) *request { return ctx.Value(requestKey{}).(*request) }

// newRequest gives a request of net/http its own.
func (s *Server) newRequest(r *http.Request) (*request, *http.Request) {
	rq := &request{server: s, from: middleware.GetClientIPAddr(r.Context())}
	return rq, r.WithContext(context.WithValue(r.Context(), requestKey{}, rq))
}
