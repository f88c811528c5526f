// Command vssctl is the operator's tool: the whole platform on one machine, migrations, tenants and
// their credentials, and the four calls of the contract as a wallet makes them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/tenants"
)

const description = `The operator's tool of a VSS platform.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 no such key, tenant, plan or wallet; 4 version conflict, or name taken; 5 not authorized, or credentials explained to be bad.`

type cli struct {
	JSON bool `name:"json" help:"Print results as JSON."`

	Dev       devCmd       `cmd:"" help:"Run the whole platform here, on a PostgreSQL of its own, with a tenant 'demo'."`
	Migrate   migrateCmd   `cmd:"" help:"Bring the database's schema up to date. Any number may run at once; one does it."`
	Tenant    tenantCmd    `cmd:"" help:"Create, list, show and change tenants."`
	Plan      planCmd      `cmd:"" help:"Plans: what the tenants that have one may do and have."`
	Wallet    walletCmd    `cmd:"" help:"Show and block tenants' wallets, and list those that may enrol."`
	Source    sourceCmd    `cmd:"" help:"The ways in which a tenant's wallets prove who they are."`
	Key       keyCmd       `cmd:"" help:"The keys of tenants' credential sources, and the master key."`
	ClientKey clientKeyCmd `cmd:"" help:"Publishable keys of tenants' apps, and the gate that asks for them."`
	Domain    domainCmd    `cmd:"" help:"Tenants' own host names."`
	Auth      authCmd      `cmd:"" help:"Why wallets are let in or refused."`
	Instances instancesCmd `cmd:"" help:"List the processes of the API that run, and those that ended without a word within a day."`

	Put    putCmd    `cmd:"" help:"Store a value, as a wallet does."`
	Get    getCmd    `cmd:"" help:"Read a value, as a wallet does. It goes to standard output as it is."`
	List   listCmd   `cmd:"" help:"List keys and versions, as a wallet does, newest first."`
	Delete deleteCmd `cmd:"" help:"Delete a key, as a wallet does. A missing key, or one at another version, is fine."`
}

// exit is what kong asks the process to do; main does it in one place.
type exit int

// output is where results go.
type output struct {
	w    io.Writer
	json bool
}

// print writes v as JSON, or else what text does.
func (o output) print(v any, text func(io.Writer)) error {
	if !o.json {
		text(o.w)
		return nil
	}
	e := json.NewEncoder(o.w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process as it would without us
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	var c cli
	parser := kong.Must(&c,
		kong.Name("vssctl"), kong.Description(description), kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exit(code)) }), // by --help
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
	)
	defer func() {
		switch p := recover().(type) {
		case nil:
		case exit:
			code = int(p)
		default:
			panic(p)
		}
	}()
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "vssctl: %v (see vssctl --help)\n", err)
		return 2
	}
	command.BindTo(ctx, (*context.Context)(nil))
	if err := command.Run(output{stdout, c.JSON}); err != nil {
		fmt.Fprintln(stderr, "vssctl:", err)
		return exitCode(err)
	}
	return 0
}

func exitCode(err error) int {
	var invalid *tenants.InvalidError
	for _, e := range []struct {
		error
		code int
	}{
		{errUsage, 2}, {client.ErrInvalidRequest, 2},
		{client.ErrNoSuchKey, 3}, {client.ErrUnknownTenant, 3}, {tenants.ErrNotFound, 3},
		{client.ErrConflict, 4}, {tenants.ErrSlugTaken, 4}, {tenants.ErrDomainTaken, 4},
		{client.ErrAuth, 5}, {errRefused, 5},
	} {
		if errors.Is(err, e.error) {
			return e.code
		}
	}
	if errors.As(err, &invalid) {
		return 2
	}
	return 1
}

var errUsage = errors.New("wrong usage")
