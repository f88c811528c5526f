// Command vss-api is the service that wallets talk to. It keeps no state: run as many as you like over one
// database.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/cmd/service"
)

type flags struct {
	service.API
	DatabaseURL string `name:"database-url" env:"DATABASE_URL" required:"" placeholder:"URL" help:"The PostgreSQL database, migrated by 'vssctl migrate', as a user who is a member of vss_api. pool_max_conns in it bounds the connections (20)."`
}

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// run is the whole program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var f flags
	return cli.Program{
		Name: "vss-api", Grammar: &f,
		Description: "The VSS server for wallets. SIGTERM and ctrl-C drain it: every request that was read is answered.\n\n" +
			"The standard OTEL_* variables switch on the export of traces and metrics.",
		Run: func(ctx context.Context, _ *kong.Context) error {
			ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
			defer stop()
			l, err := f.Listen()
			if err != nil {
				return err
			}
			return f.Run(ctx, f.DatabaseURL, l, f.Log(), nil)
		},
		Tell: func(err error) { f.Log().Error("cannot serve", "error", err) }, // for who reads the log
	}.Main(ctx, args, stdout, stderr)
}
