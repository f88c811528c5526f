// Package client is a wallet's side of the VSS contract (CONTRACT sections 1 and 4): the four calls over one
// long-lived connection pool, the credentials of every scheme ([SignatureAuth], [Bearer], [LNURLAuth]), and the
// retries of released wallets.
//
// What an attempt's answer means, and whether the call is tried again:
//
//	2xx and the body decodes                  done and durable
//	CONFLICT, INVALID_REQUEST, NO_SUCH_KEY    an [*Error], at once
//	INTERNAL_SERVER                           tried again
//	AUTH, or no credential to be had          tried again, with a new credential, as ldk-node does
//	UNKNOWN, any other code, no such body     counts as INTERNAL_SERVER
//	no answer, or none in time                tried again
//	vss-protocol-version is not exactly "0"   [ErrProtocol], at once
//
// With [Retry.FailFast], AUTH and [ErrUnknownTenant] are final too: nobody waits for a bad token.
//
// Redirects are never followed: they would carry the credential along.
package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/vss-cloud/vss-cloud/api/vsspb"
)

const (
	// AttemptTimeout is how long one attempt may take unless [Config] says otherwise, as in vss-client.
	AttemptTimeout = 10 * time.Second

	versionHeader   = "Vss-Protocol-Version"
	requestIDHeader = "X-Request-Id"
	reasonHeader    = "Vss-Error-Reason"
	unknownTenant   = "unknown_tenant"

	// What is read of an answer, in bytes: the largest body a tenant may be allowed (256 MiB) and its
	// framing; for an error, more than any message we send.
	maxAnswer = 257 << 20
	maxError  = 64 << 10
)

// Config says which server a [Client] calls, and as whom. Only BaseURL is required.
type Config struct {
	// BaseURL is where the calls are, as http://localhost:8080/t/demo/vss, with or without a slash at its end.
	BaseURL string

	// Auth makes the Authorization header. Nil: there is none, but for one in Header.
	Auth Auth

	// Header is sent with every request besides what the client sets itself.
	Header http.Header

	// HTTPClient carries the requests. Nil: one of the client's own, whose pool holds enough idle
	// connections for many calls at a time, speaking HTTP/2 where TLS negotiates it and HTTP/1.1 otherwise.
	// One whose transport has only UnencryptedHTTP2 in its Protocols makes it HTTP/2 over cleartext.
	// Its redirect policy is not used.
	HTTPClient *http.Client

	// Retry says how often and when a call is tried again.
	Retry Retry

	// AttemptTimeout is how long one attempt may take, from the credential to the last byte of the answer.
	// Zero: the constant of this name.
	AttemptTimeout time.Duration

	// Now is the clock of credentials. Nil: time.Now.
	Now func() time.Time

	// Sleep waits between two attempts, and returns the context's error when that ends first. Nil: a timer.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Auth makes credentials. It is safe for concurrent use.
type Auth interface {
	// Authorization is the value of the header of that name for an attempt made now. It is asked for each
	// attempt. If it fails, so does the attempt, as if the server had answered AUTH.
	Authorization(ctx context.Context, now time.Time) (string, error)
}

// Client makes the four calls. It is safe for concurrent use and meant to live as long as the process.
//
// Every method retries (see the package) until its context ends and then answers both the last error and
// the context's. It never sends other bytes on a retry than at first.
type Client struct {
	base      string
	auth      Auth
	header    http.Header
	http      http.Client
	retry     Retry
	timeout   time.Duration
	maxAnswer int64
	now       func() time.Time
	sleep     func(ctx context.Context, d time.Duration) error
}

// New makes a client. It fails for a base URL that is none, and connects to nothing.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.BaseURL)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL, which may have a password in it
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("base URL: %w", err)
	case base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return nil, fmt.Errorf("base URL %q must begin with http:// or https:// and a host", base.Redacted())
	case base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("base URL %q must have neither a user, nor a query, nor a fragment", base.Redacted())
	case cfg.Auth != nil && cfg.Header.Get("Authorization") != "":
		return nil, errors.New("both Auth and Header make an Authorization header")
	}
	c := &Client{
		base:      strings.TrimRight(base.String(), "/"),
		auth:      cfg.Auth,
		header:    cfg.Header.Clone(),
		retry:     cfg.Retry.withDefaults(),
		timeout:   cmp.Or(cfg.AttemptTimeout, AttemptTimeout),
		maxAnswer: maxAnswer,
		now:       cfg.Now,
		sleep:     cfg.Sleep,
	}
	if c.header == nil {
		c.header = http.Header{}
	}
	c.header.Set("Content-Type", "application/octet-stream")
	if cfg.HTTPClient != nil {
		c.http = *cfg.HTTPClient
	} else {
		c.http.Transport = newTransport()
	}
	c.http.CheckRedirect = neverRedirect
	if c.now == nil {
		c.now = time.Now
	}
	if c.sleep == nil {
		c.sleep = sleep
	}
	return c, nil
}

func neverRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns = 0 // no limit but the one a host
	t.MaxIdleConnsPerHost = 256
	t.DisableCompression = true // values are ciphertext
	return t
}

// CloseIdleConnections closes the connections that no call is using.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// GetObject reads a key. Its answer always has a value. A key that does not exist is [ErrNoSuchKey].
func (c *Client) GetObject(ctx context.Context, req *vsspb.GetObjectRequest) (*vsspb.GetObjectResponse, error) {
	return call[vsspb.GetObjectResponse](ctx, c, "getObject", req)
}

// PutObjects writes and deletes items, all or nothing. A nil error means done and durable.
//
// [ErrConflict] means that a version did not match, but with [Error.Attempts] above 1 it may have been
// this call's own: an earlier attempt that had no answer, or an INTERNAL_SERVER one, may have taken effect,
// after which its conditions no longer hold (CONTRACT section 2). Who writes with conditions must read to
// find out. An error other than [*Error] with CONFLICT or INVALID_REQUEST and one attempt leaves open
// whether anything was written.
func (c *Client) PutObjects(ctx context.Context, req *vsspb.PutObjectRequest) (*vsspb.PutObjectResponse, error) {
	return call[vsspb.PutObjectResponse](ctx, c, "putObjects", req)
}

// DeleteObject deletes an item if it is there at the version given, and succeeds too if it is not.
func (c *Client) DeleteObject(ctx context.Context, req *vsspb.DeleteObjectRequest) (*vsspb.DeleteObjectResponse, error) {
	return call[vsspb.DeleteObjectResponse](ctx, c, "deleteObject", req)
}

// ListKeyVersions reads one page of keys and versions; see [Client.Pages] and [Client.ListAll] for all.
func (c *Client) ListKeyVersions(
	ctx context.Context, req *vsspb.ListKeyVersionsRequest,
) (*vsspb.ListKeyVersionsResponse, error) {
	return call[vsspb.ListKeyVersionsResponse](ctx, c, "listKeyVersions", req)
}

// message is a pointer to T that is a protobuf message.
type message[T any] interface {
	*T
	proto.Message
}

// call makes attempts until one succeeds, fails for good, or the policy has no more.
func call[T any, Answer message[T]](ctx context.Context, c *Client, name string, req proto.Message) (Answer, error) {
	body, err := proto.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var slept time.Duration
	for attempts := 1; ; attempts++ {
		answer := Answer(new(T))
		err := c.attempt(ctx, name, body, answer)
		if err == nil {
			return answer, nil
		}
		if e, ok := errors.AsType[*Error](err); ok {
			e.Attempts = attempts
		}
		err = fmt.Errorf("%s: %w", name, err)
		delay, again := c.retry.delay(attempts, slept)
		if !again || !c.retry.retried(err) {
			return nil, err
		}
		ended := ctx.Err()
		if ended == nil {
			ended = c.sleep(ctx, delay)
		}
		if ended != nil {
			return nil, fmt.Errorf("%w (attempt %d; no more: %w)", err, attempts, ended)
		}
		slept += delay
	}
}

// attempt sends the request once and reads its answer, all within the attempt's time.
func (c *Client) attempt(ctx context.Context, name string, body []byte, answer proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = c.header.Clone()
	if c.auth != nil {
		credential, err := c.auth.Authorization(ctx, c.now())
		if err != nil {
			return fmt.Errorf("%w: no credential: %w", ErrAuth, err)
		}
		req.Header.Set("Authorization", credential)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	if v := resp.Header.Values(versionHeader); len(v) != 1 || v[0] != "0" {
		return fmt.Errorf("%w: HTTP %d with vss-protocol-version %q, not once \"0\"", ErrProtocol, resp.StatusCode, v)
	}
	success := resp.StatusCode/100 == 2
	limit := int64(maxError)
	if success {
		limit = c.maxAnswer
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer (HTTP %d): %w", resp.StatusCode, err)
	case success && int64(len(raw)) > limit:
		return fmt.Errorf("%w: an answer of more than %d bytes", ErrProtocol, limit)
	case success:
		err = decodeAnswer(raw, answer)
	default:
		err = decodeError(raw)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		e.HTTPStatus = resp.StatusCode
		e.RequestID = resp.Header.Get(requestIDHeader)
		e.UnknownTenant = !success && resp.Header.Get(reasonHeader) == unknownTenant
	}
	return err
}

// decodeAnswer reads the body of a 2xx. One that cannot be an answer to this call is an [*Error] with
// INTERNAL_SERVER.
func decodeAnswer(raw []byte, answer proto.Message) error {
	if err := proto.Unmarshal(raw, answer); err != nil {
		return &Error{Code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, Message: "success with a body that does not decode"}
	}
	if got, ok := answer.(*vsspb.GetObjectResponse); ok && got.GetValue() == nil {
		return &Error{Code: vsspb.ErrorCode_INTERNAL_SERVER_EXCEPTION, Message: "success without a value"}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
