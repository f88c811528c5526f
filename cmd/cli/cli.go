// Package cli is what the command lines of all binaries have in common: --version, help, shell completion, the
// exit codes, and how errors are told.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit codes. Scripts rely on them.
const (
	Done         = 0
	Failed       = 1
	Usage        = 2
	NotFound     = 3
	Conflict     = 4
	Unauthorized = 5
	Refused      = 6
)

// ExitCodes is the table for --help.
const ExitCodes = "Exit codes: 0 done; 1 failed, and may succeed later; 2 wrong usage, or a change that needs --yes; " +
	"3 no such key, tenant, plan, source or wallet; 4 version conflict, or name taken; 5 not authorized; " +
	"6 refused by a limit, a block or the tenant's state."

// ErrUsage is an error in how a command was called.
var ErrUsage = errors.New("wrong usage")

// Program is a binary's command line.
type Program struct {
	Name, Description string

	// Grammar is kong's: a pointer to a struct.
	Grammar any

	// Run does what was parsed.
	Run func(context.Context, *kong.Context) error

	// Tell says an error of Run; nil: it goes to standard error, as text or JSON.
	Tell func(error)

	// Code is the exit code for an error of Run; nil, or 0, is for Failed.
	Code func(error) int
}

// Version is a binary's version and commit, as the go command recorded them when it built it.
func Version(name string) string {
	version, commit := "(unknown)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = ", commit " + s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				commit += " with changes"
			}
		}
	}
	return fmt.Sprintf("%s %s%s (%s, %s/%s)", name, version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// exit is what kong asks the process to do; Main does it in one place.
type exit int

// Main is the whole program. It answers the exit code.
func (p Program) Main(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	parser := kong.Must(p.Grammar,
		kong.Name(p.Name), kong.Description(p.Description+"\n\n"+p.Name+" --version shows the version and the commit.\n\n"+ExitCodes), kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exit(code)) }), // by --help
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
	)
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exit:
			code = int(r)
		default:
			panic(r)
		}
	}()
	switch {
	case len(args) > 0 && args[0] == completeCommand:
		for _, c := range complete(parser.Model.Node, args[1:]) {
			fmt.Fprintln(stdout, c)
		}
		return Done
	case len(args) > 0 && args[0] == "--version": // no flag, since that of 'vssctl put' is of the key's version
		fmt.Fprintln(stdout, Version(p.Name))
		return Done
	case len(args) > 0 && args[0] == "help":
		args = append(slices.Clone(args[1:]), "--help")
	}
	command, err := parser.Parse(args)
	if err != nil {
		p.tell(stderr, args, fmt.Errorf("%w (see %s --help)", err, p.Name), Usage)
		return Usage
	}
	if err := p.Run(ctx, command); err != nil {
		code := Failed
		if p.Code != nil {
			code = max(code, p.Code(err))
		}
		if errors.Is(err, ErrUsage) {
			code = Usage
		}
		if p.Tell != nil {
			p.Tell(err)
		} else {
			p.tell(stderr, args, err, code)
		}
		return code
	}
	return Done
}

// tell says what went wrong, as JSON if results are. Whether they are is read from the arguments, since those
// may be what could not be parsed.
func (p Program) tell(w io.Writer, args []string, err error, code int) {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	if !slices.Contains(args, "--json") {
		fmt.Fprintf(w, "%s: %v\n", p.Name, err)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"error": strings.ToValidUTF8(err.Error(), "\uFFFD"), "exit_code": code})
}

// Help is the command "help", which Main carries out; it is here to be listed.
type Help struct {
	Command []string `arg:"" optional:"" help:"The command."`
}

// Run shows the help of a command after flags, as in "--json help".
func (h Help) Run(app *kong.Kong) error {
	_, err := app.Parse(append(slices.Clone(h.Command), "--help"))
	return err
}
