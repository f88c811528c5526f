package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// Error says why a URL could not be fetched. Its text is meant for whoever entered the URL: no address that a
// name resolves to is in it, and nothing that a server sent but its certificate's faults.
type Error struct {
	Reason Reason

	// Location, of a redirect, is where it leads to, in the server's words; empty where it leads nowhere.
	Location URL

	err error
}

func (e *Error) Error() string {
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](e.err); ok {
		return texts[e.Reason] + ": " + cert.Err.Error()
	}
	return texts[e.Reason]
}

// Unwrap is what happened, in the words of the network: for logs.
func (e *Error) Unwrap() error { return e.err }

// Reason is one of a fixed set, fit for a metric's label.
type Reason string

const (
	BadURL       Reason = "url"
	NotHTTPS     Reason = "scheme"
	BadPort      Reason = "port"
	NotPublic    Reason = "address"
	NoHost       Reason = "dns"
	NoConnection Reason = "connect"
	BadTLS       Reason = "tls"
	NotHTTP      Reason = "http"
	TimedOut     Reason = "timeout"
	Redirect     Reason = "redirect"
	Compressed   Reason = "compressed"
	TooLarge     Reason = "too_large"
)

var texts = map[Reason]string{
	BadURL:       "this is not a URL of the form https://host/path, with a full host name in ASCII (international names in punycode) and without user name, password or fragment",
	NotHTTPS:     "the URL must begin with https://",
	BadPort:      "the URL's port must be 443, or 1024 or higher",
	NotPublic:    "the URL's host is not at a public address",
	NoHost:       "the URL's host was not found in the DNS",
	NoConnection: "no connection could be made to the URL's host",
	BadTLS:       "no secure connection could be made to the URL's host",
	NotHTTP:      "the URL's host did not answer with whole and regular HTTP, or with too long a header",
	TimedOut:     "the URL's host took too long to answer",
	Redirect:     "the URL answered with a redirect: enter the URL that it leads to",
	Compressed:   "the URL answered with compressed data that is damaged, or not gzip",
	TooLarge:     "the URL answered with too much data",
}

// explain makes the error of a failed exchange. Where the caller's context has ended that is the error: the
// URL is not to blame.
func explain(ctx context.Context, err error, otherwise Reason) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() { // context.DeadlineExceeded is one
		otherwise = TimedOut
	}
	return &Error{Reason: otherwise, err: err}
}
