package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
	"github.com/vss-cloud/vss-cloud/quota"
	"github.com/vss-cloud/vss-cloud/storage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

// Errors of the edge itself.
var (
	errNoSuchPath = errors.New("no such path: a call is POST {base}/getObject, putObjects, deleteObject or listKeyVersions")
	errOverloaded = errors.New("too many bytes in flight, try again")
	errDraining   = errors.New("shutting down, try another instance")
	errSlowBody   = errors.New("the body did not arrive in time")
)

// errBodyCut: the body ended early, or its framing is broken.
var errBodyCut = &badRequest{"the body could not be read to its end"}

// badRequest is a body that cannot be taken, told to the client as it is.
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

// answer is what the client is told of an error.
type answer struct {
	status     int
	code       vsspb.ErrorCode
	message    string
	retryAfter bool
	level      slog.Level // of the request's event
}

const (
	retryLater = "temporarily unavailable, try again"
	ambiguous  = "the write may or may not have been saved, try again"
	ourFault   = "internal error"
)

// answerTo is the one table from errors to answers (CONTRACT section 1). What wraps an error may be SQL: no
// more of it is told than the text of the one that the table knows.
func answerTo(err error) answer {
	var known error
	is := func(targets ...error) bool {
		i := slices.IndexFunc(targets, func(target error) bool { return errors.Is(err, target) })
		if i >= 0 {
			known = targets[i]
		}
		return i >= 0
	}
	var (
		invalid   *storage.InvalidError
		bad       *badRequest
		method    *badMethod
		large     *tooLarge
		authError *tenants.AuthError
		rate      *limited
		exceeded  *storage.ExceededError
	)
	switch {
	case errors.As(err, &invalid):
		return answer{status: 400, code: vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION, message: invalid.Reason}
	case errors.As(err, &bad):
		return answer{status: 400, code: vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION, message: bad.reason}
	case errors.As(err, &large):
		return answer{status: 413, code: vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION, message: large.Error()}
	case is(errNoSuchPath):
		return answer{status: 404, code: vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION, message: known.Error()}
	case errors.As(err, &method):
		return answer{status: 405, code: vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION, message: method.Error()}
	case is(storage.ErrConflict):
		return answer{status: 409, code: vsspb.ErrorCode_CONFLICT_EXCEPTION, message: known.Error()}
	case is(storage.ErrNoSuchKey):
		return answer{status: 404, code: vsspb.ErrorCode_NO_SUCH_KEY_EXCEPTION, message: known.Error()}
	case errors.As(err, &authError):
		return answer{status: 401, code: vsspb.ErrorCode_AUTH_EXCEPTION, message: authError.Error()}
	case errors.As(err, &rate):
		return answer{status: 429, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: rate.Error(), retryAfter: true}
	case errors.As(err, &exceeded):
		return answer{status: 507, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: exceeded.Error()}
	case is(tenants.ErrUnknownTenant, tenants.ErrHostNamesTenant, tenants.ErrClosed, tenants.ErrReadOnly, storage.ErrBlocked):
		return answer{status: 403, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: known.Error()}
	case is(tenants.ErrSuspect):
		return answer{status: 429, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: known.Error(),
			retryAfter: true, level: slog.LevelWarn}
	case is(tenants.ErrNotLoaded, tenants.ErrKeysUnavailable, tenants.ErrAmbiguousSource, quota.ErrQueueFull, quota.ErrQueueTimeout, errOverloaded, errDraining, errSlowBody):
		return answer{status: 503, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: known.Error(),
			retryAfter: true, level: slog.LevelWarn}
	case is(storage.ErrAmbiguous):
		return answer{status: 500, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: ambiguous, level: slog.LevelError}
	case is(context.Canceled): // the client has left, which is no fault of ours
		return answer{status: 503, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: retryLater,
			retryAfter: true, level: slog.LevelWarn}
	case is(storage.ErrUnavailable, storage.ErrTooLate, context.DeadlineExceeded):
		return answer{status: 503, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: retryLater,
			retryAfter: true, level: slog.LevelError}
	default:
		return answer{status: 500, code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, message: ourFault, level: slog.LevelError}
	}
}

// fail answers an error. What is our fault is told to the log and not to the client, who gets the request id.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	a := answerTo(err)
	e := eventOf(r.Context())
	e.code, e.level = a.code, a.level
	if a.level >= slog.LevelWarn {
		e.err = err
	}
	if a.status == http.StatusUnauthorized {
		e.refusal = a.message
	}
	if a.code != vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION {
		discardBody(r)
	}
	if a.message == retryLater || a.message == ambiguous || a.message == ourFault {
		a.message += " (request " + w.Header().Get(requestIDHeader) + ")"
	}
	e.refused = reasonOf(err)
	if a.retryAfter {
		w.Header().Set("Retry-After", "1")
		var rate *limited
		if errors.As(err, &rate) {
			w.Header().Set("Retry-After", strconv.FormatInt(quota.Seconds(rate.after), 10))
		}
	}
	if method, ok := errors.AsType[*badMethod](err); ok {
		w.Header().Set("Allow", method.allowed)
	}
	write(w, a.status, encode(&vsspb.ErrorResponse{ErrorCode: a.code, Message: a.message}))
}
