package client

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
)

// What a server can answer, for errors.Is; errors.As with [*Error] gives the rest.
var (
	ErrConflict       = errors.New("conflict")        // a version did not match, or an item to delete is missing
	ErrInvalidRequest = errors.New("invalid request") // no state of the store would accept it
	ErrInternalServer = errors.New("server error")    // the server could not, or its answer makes no sense
	ErrNoSuchKey      = errors.New("no such key")     // the key does not exist
	ErrAuth           = errors.New("not authorized")  // the credential was not accepted, or could not be made
)

// ErrUnknownTenant: the URL names no tenant of the server's. The contract has no code for it, so it is
// [ErrInternalServer] too, which released wallets retry; a server that is not of this project does not tell it.
var ErrUnknownTenant = errors.New("unknown tenant")

// ErrProtocol: the server, or something before it, does not keep to the contract in a way that trying
// again does not mend. Whether a write took effect is not known.
var ErrProtocol = errors.New("not a VSS answer")

// Error is an answer of the server's that is not a success.
type Error struct {
	Code       vsspb.ErrorCode // never UNKNOWN, which counts as INTERNAL_SERVER_EXCEPTION
	Message    string          // for people
	HTTPStatus int
	RequestID  string // under which the server logged it; empty if it did not say
	Attempts   int    // of the call, up to and including the one that this answered

	UnknownTenant bool // it is ErrUnknownTenant
}

// Is says whether it is [ErrUnknownTenant] besides what Unwrap says.
func (e *Error) Is(target error) bool { return target == ErrUnknownTenant && e.UnknownTenant }

func (e *Error) Error() string {
	s := e.Unwrap().Error()
	if e.Message != "" && e.Message != s {
		s += ": " + e.Message
	}
	s += fmt.Sprintf(" (HTTP %d", e.HTTPStatus)
	if !strings.Contains(e.Message, e.RequestID) { // our servers put it there too
		s += ", request " + e.RequestID
	}
	return s + ")"
}

// Unwrap is the code's sentinel error.
func (e *Error) Unwrap() error {
	switch e.Code {
	case vsspb.ErrorCode_CONFLICT_EXCEPTION:
		return ErrConflict
	case vsspb.ErrorCode_INVALID_REQUEST_EXCEPTION:
		return ErrInvalidRequest
	case vsspb.ErrorCode_NO_SUCH_KEY_EXCEPTION:
		return ErrNoSuchKey
	case vsspb.ErrorCode_AUTH_EXCEPTION:
		return ErrAuth
	default:
		return ErrInternalServer
	}
}

// decodeError reads the body of an answer that is not a 2xx. A body that does not decode, and a code that
// the contract does not know, count as INTERNAL_SERVER_EXCEPTION (CONTRACT section 1).
func decodeError(raw []byte) *Error {
	var body vsspb.ErrorResponse
	if len(raw) > maxError || proto.Unmarshal(raw, &body) != nil {
		return &Error{Code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, Message: "error with a body that does not decode"}
	}
	code := body.GetErrorCode()
	if _, known := vsspb.ErrorCode_name[int32(code)]; !known || code == vsspb.ErrorCode_UNKNOWN {
		code = vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION
	}
	return &Error{Code: code, Message: strings.ToValidUTF8(body.GetMessage(), "\uFFFD")}
}
