package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

// confirm is the flag of a change that can cut wallets off, or hand them to others.
type confirm struct {
	Yes bool `help:"Do it without asking."`
}

// sure makes a change, which the service may want confirmed. It is tried first and asked about then, so that nothing is
// held up while a person thinks.
func (c confirm) sure(change func(by audit.Actor) error) error {
	by := actor()
	by.Confirmed = c.Yes
	err := change(by)
	wants, ok := errors.AsType[*tenants.ConfirmError](err)
	if !ok {
		return err
	}
	if err := c.ask("%v", wants); err != nil {
		return err
	}
	by.Confirmed = true
	return change(by)
}

var errNotConfirmed = errors.New("nothing was done")

// ask says what will happen and asks whether it is to. Where nobody is there to ask, --yes must have been given.
func (c confirm) ask(format string, args ...any) error {
	if c.Yes {
		return nil
	}
	will := fmt.Sprintf(format, args...)
	if term.IsTerminal(int(os.Stdin.Fd())) {
		fmt.Fprintf(os.Stderr, "%s\nGo on? [y/N] ", will)
		var answer string
		if _, err := fmt.Fscanln(os.Stdin, &answer); err == nil || answer != "" {
			if strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes") {
				return nil
			}
			return errNotConfirmed
		}
	}
	return fmt.Errorf("%w: %s If that is wanted, say --yes", cli.ErrUsage, will)
}
