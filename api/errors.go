package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

// Errors of the edge itself.
var (
	errNoSuchPath = errors.New("no such path: a call is POST {base}/getObject, putObjects, deleteObject or listKeyVersions")
	errOverloaded = errors.New("too many bytes in flight, try again")
	errDraining   = errors.New("shutting down, try another instance")
	errSlowBody   = errors.New("the body did not arrive in time")

	// errNotEnrolled: the wallet has never written and may not begin to.
	errNotEnrolled = errors.New("this wallet is not known here, and the tenant takes no new one")
)

// errBodyCut: the body ended early, or its framing is broken.
var errBodyCut = &badRequest{"the body could not be read to its end"}

// badRequest is a body that is refused; the client gets this text.
type badRequest struct{ reason string }

func (e *badRequest) Error() string { return e.reason }

// badMethod is a request to a path of ours with a method that it does not have.
type badMethod struct{ allowed string } // as the header Allow has them

func (e *badMethod) Error() string {
	return "no such method: this path takes " + e.allowed
}

// tooLarge is a body over its tenant's limit, in bytes.
type tooLarge struct{ limit int64 }

func (e *tooLarge) Error() string {
	return fmt.Sprintf("the body is larger than %d bytes, this tenant's limit", e.limit)
}

// answer is how a request ends: what the client is told, and what the bill, the metrics and the log call it. The zero
// answer is that of a request that got what it asked for.
type answer struct {
	status     int
	code       vsspb.ErrorCode
	message    string
	outcome    usage.Outcome
	reason     quota.Reason  // of a refusal for a limit
	retryAfter time.Duration // 0: nothing is said of it
	level      slog.Level
}

const (
	retryLater = "temporarily unavailable, try again"
	ambiguous  = "the write may or may not have been saved, try again"
	ourFault   = "internal error"
)

func invalid(status int, message string) answer {
	return answer{status: status, code: vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION, message: message, outcome: usage.Invalid}
}

// internal is for what a client retries: faults, and refusals that may end.
func internal(status int, message string) answer {
	return answer{status: status, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: message, outcome: usage.Failed}
}

// because makes it a refusal for a limit.
func (a answer) because(reason quota.Reason) answer {
	a.outcome, a.reason = usage.Refused, reason
	return a
}

func (a answer) logged(level slog.Level) answer { a.level = level; return a }

// soon asks the client to retry after a second.
func (a answer) soon() answer { a.retryAfter = time.Second; return a }

// answers to the errors that carry nothing, the first that fits. Without a message it is the error's own text: what
// wraps it may be SQL, of which no more is told.
var answers = []struct {
	err error
	answer
}{
	{errNoSuchPath, invalid(404, "")},
	{storage.ErrConflict, answer{status: 409, code: vsspb.ErrorCode_CONFLICT_EXCEPTION, outcome: usage.Conflicted}},
	{storage.ErrNoSuchKey, answer{status: 404, code: vsspb.ErrorCode_NO_SUCH_KEY_EXCEPTION, outcome: usage.NotFound}},
	{errNotEnrolled, answer{status: 401, code: vsspb.ErrorCode_AUTH_EXCEPTION}.because(quota.Enrolment)},

	{callers.ErrUnknownTenant, internal(403, "")},
	{callers.ErrHostNamesTenant, internal(403, "")},
	{tenants.ErrClosed, internal(403, "").because(quota.State)},
	{tenants.ErrReadOnly, internal(403, "").because(quota.State)},
	{storage.ErrBlocked, internal(403, "").because(quota.Blocked)},
	{callers.ErrSuspect, internal(429, "").because(quota.AddressRate).soon().logged(slog.LevelWarn)},

	{quota.ErrQueueFull, internal(503, "").because(quota.Overload).soon().logged(slog.LevelWarn)},
	{quota.ErrQueueTimeout, internal(503, "").because(quota.Overload).soon().logged(slog.LevelWarn)},
	{errOverloaded, internal(503, "").because(quota.Overload).soon().logged(slog.LevelWarn)},
	{callers.ErrNotLoaded, internal(503, "").soon().logged(slog.LevelWarn)},
	{callers.ErrKeysUnavailable, internal(503, "").soon().logged(slog.LevelWarn)},
	{errDraining, internal(503, "").soon().logged(slog.LevelWarn)},
	{errSlowBody, internal(503, "").soon().logged(slog.LevelWarn)},

	{storage.ErrAmbiguous, internal(500, ambiguous).logged(slog.LevelError)},
	{context.Canceled, internal(503, retryLater).soon().logged(slog.LevelWarn)}, // the client has left, which is no fault of ours
	{storage.ErrUnavailable, internal(503, retryLater).soon().logged(slog.LevelError)},
	{storage.ErrTooLate, internal(503, retryLater).soon().logged(slog.LevelError)},
	{context.DeadlineExceeded, internal(503, retryLater).soon().logged(slog.LevelError)},
}

// answerTo is the one table from errors to answers (CONTRACT section 1).
func answerTo(err error) answer {
	var (
		bad      *storage.InvalidError
		unread   *badRequest
		method   *badMethod
		large    *tooLarge
		auth     *callers.AuthError
		rate     *limited
		exceeded *storage.ExceededError
	)
	switch {
	case errors.As(err, &bad):
		return invalid(400, bad.Reason)
	case errors.As(err, &unread):
		return invalid(400, unread.reason)
	case errors.As(err, &large):
		return invalid(413, large.Error())
	case errors.As(err, &method):
		return invalid(405, method.Error())
	case errors.As(err, &auth):
		return answer{status: 401, code: vsspb.ErrorCode_AUTH_EXCEPTION, message: auth.Error(), outcome: usage.Unauthenticated}
	case errors.As(err, &rate):
		a := internal(429, rate.Error()).because(rate.reason)
		a.retryAfter = max(rate.after, time.Second)
		return a
	case errors.As(err, &exceeded):
		return internal(507, exceeded.Error()).because(quota.Storage)
	}
	for _, row := range answers {
		if errors.Is(err, row.err) {
			row.message = cmp.Or(row.message, row.err.Error())
			return row.answer
		}
	}
	return internal(500, ourFault).logged(slog.LevelError)
}

// fail answers an error. A fault of ours is logged; the client gets the request id and a generic text.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	a := answerTo(err)
	rq := requestOf(r.Context())
	rq.answer = a
	if a.level >= slog.LevelWarn {
		rq.err = err
	}
	if a.code == vsspb.ErrorCode_AUTH_EXCEPTION {
		rq.refusal = a.message
	}
	if a.code != vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION {
		discardBody(r)
	}
	if a.message == retryLater || a.message == ambiguous || a.message == ourFault {
		a.message += " (request " + w.Header().Get(requestIDHeader) + ")"
	}
	if a.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(quota.Seconds(a.retryAfter), 10))
	}
	if errors.Is(err, callers.ErrUnknownTenant) || errors.Is(err, callers.ErrHostNamesTenant) {
		w.Header().Set(reasonHeader, "unknown_tenant")
	}
	if method, ok := errors.AsType[*badMethod](err); ok {
		w.Header().Set("Allow", method.allowed)
	}
	write(w, a.status, encode(&vsspb.ErrorResponse{ErrorCode: a.code, Message: a.message}))
}
