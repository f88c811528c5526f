// Command vssctl is the operator's tool: the whole platform on one machine, migrations, tenants and
// their credentials, and the four calls of the contract as a wallet makes them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/vss-cloud/vss-cloud/api/client"
	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/tenants"
)

type grammar struct {
	JSON bool `name:"json" help:"Print results and errors as JSON."`

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

	Completion cli.Completion `cmd:"" help:"Print a script that makes a shell complete vssctl's commands and flags."`
	Help       cli.Help       `cmd:"" help:"Show the help of a command."`
}

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
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var g grammar
	return cli.Program{
		Name: "vssctl", Description: "The operator's tool of a VSS platform.", Grammar: &g, Code: exitCode,
		Run: func(ctx context.Context, command *kong.Context) error {
			command.BindTo(ctx, (*context.Context)(nil))
			return command.Run(output{stdout, g.JSON})
		},
	}.Main(ctx, args, stdout, stderr)
}

// exitCode is what the table of package cli says of an error.
func exitCode(err error) int {
	for _, e := range []struct {
		error
		code int
	}{
		{client.ErrInvalidRequest, cli.Usage},
		{client.ErrNoSuchKey, cli.NotFound}, {client.ErrUnknownTenant, cli.NotFound}, {tenants.ErrNotFound, cli.NotFound},
		{client.ErrConflict, cli.Conflict}, {tenants.ErrSlugTaken, cli.Conflict}, {tenants.ErrDomainTaken, cli.Conflict},
		{client.ErrAuth, cli.Unauthorized}, {errRefused, cli.Unauthorized},
	} {
		if errors.Is(err, e.error) {
			return e.code
		}
	}
	if _, ok := errors.AsType[*tenants.InvalidError](err); ok {
		return cli.Usage
	}
	if _, ok := errors.AsType[*refused](err); ok {
		return cli.Refused
	}
	return cli.Failed
}
