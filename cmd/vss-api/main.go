// Command vss-api is the service that wallets talk to. It keeps no state: run as many as you like over one
// database.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/vss-cloud/vss-cloud/cmd/service"
)

type flags struct {
	service.API
	DatabaseURL string `name:"database-url" env:"DATABASE_URL" required:"" placeholder:"URL" help:"The PostgreSQL database, migrated by 'vssctl migrate', as a user who is a member of vss_api. pool_max_conns in it bounds the connections (20)."`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("vss-api"), kong.Description(
		"The VSS server for wallets. SIGTERM and ctrl-C drain it: every request that was read is answered.\n\n"+
			"The standard OTEL_* variables switch on the export of traces and metrics."))
	log := f.Log()
	if err := run(f, log); err != nil {
		log.Error("cannot serve", "error", err)
		os.Exit(1)
	}
}

func run(f flags, log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := f.Listen()
	if err != nil {
		return err
	}
	return f.Run(ctx, f.DatabaseURL, l, log, nil)
}
