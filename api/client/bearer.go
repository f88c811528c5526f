package client

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Bearer sends one token, as it is, for ever: a JWT of the wallet company's, or of any other issuer that the
// tenant trusts.
func Bearer(token string) Auth {
	return BearerFunc(func(context.Context) (string, error) { return token, nil })
}

// BearerFunc asks a function for the token of each attempt. It is called by many goroutines at once, and its
// context ends with the attempt: it keeps the token for as long as it is good, and fetches another in time.
func BearerFunc(token func(context.Context) (string, error)) Auth { return bearer(token) }

type bearer func(context.Context) (string, error)

func (b bearer) Authorization(ctx context.Context, _ time.Time) (string, error) {
	token, err := b(ctx)
	if err != nil {
		return "", err
	}
	return bearerHeader(token)
}

// bearerHeader is the value of the header. What HTTP cannot carry fails here, where it counts as a credential
// that is not to be had, and not as a request without an answer.
func bearerHeader(token string) (string, error) {
	switch {
	case token == "":
		return "", errors.New("the token is empty")
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("the token has spaces, line breaks or other characters that no token has")
	}
	return "Bearer " + token, nil
}

// String does not show the token.
func (b bearer) String() string { return "bearer token" }

// GoString is String, for %#v.
func (b bearer) GoString() string { return b.String() }
