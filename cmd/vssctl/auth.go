package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/db"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/callers"
)

type authCmd struct {
	Explain  authExplainCmd  `cmd:"" help:"Say what is right and what is wrong with a wallet's credentials, check by check."`
	Failures authFailuresCmd `cmd:"" help:"Count a tenant's refused credentials by source and reason, the last first."`
}

// errRefused: auth explain found something that is wrong.
var errRefused = errors.New("these credentials are refused")

type authExplainCmd struct {
	tenantFlags
	egressFlags
	Tenant        string `arg:"" help:"The tenant."`
	Token         string `required:"" placeholder:"-" help:"Always -: the value of the Authorization header, or a JWT alone, is read from standard input, to be in no shell's history. It is never printed."`
	ClientKeyFile string `type:"path" placeholder:"FILE" help:"Where the client key is, if the wallet sends one."`
}

func (c authExplainCmd) Run(ctx context.Context, out output) error {
	if c.Token != "-" {
		return fmt.Errorf("%w: give --token - and the token on standard input", cli.ErrUsage)
	}
	credential, err := readCredential(os.Stdin)
	if err != nil {
		return err
	}
	clientKey := ""
	if c.ClientKeyFile != "" {
		text, err := os.ReadFile(c.ClientKeyFile)
		if err != nil {
			return err
		}
		clientKey = strings.TrimSpace(string(text))
	}
	url, err := c.url()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	pool, err := db.Open(ctx, url, db.RoleAdmin, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := db.Check(ctx, pool); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	directory, err := callers.NewDirectory(pool, callers.DirectoryConfig{BaseDomain: c.BaseDomain, Fetch: c.client().GetFor, Log: log})
	if err != nil {
		return err
	}
	if err := directory.Refresh(ctx); err != nil { // for its error
		return err
	}
	defer keepRunning(ctx, directory)()
	t, err := directory.Resolve("", c.Tenant)
	if errors.Is(err, callers.ErrUnknownTenant) {
		return tenants.ErrNotFound
	}
	if err != nil {
		return err
	}
	header := http.Header{"Authorization": {credential}}
	if clientKey != "" {
		header.Set(t.Gate.Header, clientKey)
	}
	e := callers.NewAuthenticator(callers.AuthenticatorConfig{CacheSize: 1, Log: log}).Explain(ctx, t, header)
	if err := printExplanation(out, e); err != nil {
		return err
	}
	if !e.OK() {
		return errRefused
	}
	return nil
}

// keepRunning runs the directory, so that keys at a URL can be fetched, until what it returns is called.
func keepRunning(ctx context.Context, d *callers.Directory) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	for d.Age() >= time.Since(began) && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return func() { cancel(); <-done }
}

// readCredential reads the value of an Authorization header. A header's name before it, and a missing Bearer,
// are how people paste it.
func readCredential(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return "", err
	}
	credential := strings.TrimSpace(string(text))
	if name, value, ok := strings.Cut(credential, ":"); ok && strings.EqualFold(name, "Authorization") {
		credential = strings.TrimSpace(value)
	}
	switch {
	case credential == "":
		return "", fmt.Errorf("%w: there is nothing on standard input", cli.ErrUsage)
	case strings.Contains(credential, ".") && !strings.Contains(credential, " "):
		credential = "Bearer " + credential
	}
	return credential, nil
}

func printExplanation(out output, e *callers.Explanation) error {
	type checkView struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Reason string `json:"reason,omitempty"` // what is wrong
		Detail string `json:"detail,omitempty"` // what was found
	}
	v := struct {
		OK     bool        `json:"ok"`
		Source string      `json:"source,omitempty"`
		Wallet string      `json:"wallet,omitempty"`
		Checks []checkView `json:"checks"`
	}{OK: e.OK(), Wallet: e.Wallet}
	if e.Source != nil {
		v.Source = e.Source.Name
	}
	for _, c := range e.Checks {
		check := checkView{Name: c.Name, OK: c.Err == nil, Detail: c.Detail}
		if c.Err != nil {
			check.Reason = c.Err.Error()
		}
		v.Checks = append(v.Checks, check)
	}
	return out.print(v, func(w io.Writer) {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, c := range v.Checks {
			verdict, said := "ok", c.Detail
			if !c.OK {
				verdict, said = "FAILED", c.Reason
				if c.Detail != "" {
					said += " (" + c.Detail + ")"
				}
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\n", verdict, c.Name, said)
		}
		tw.Flush()
		if v.OK {
			fmt.Fprintln(w, "wallet", v.Wallet)
		}
	})
}

type authFailuresCmd struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
}

// failureView is a count as JSON; scripts rely on its names.
type failureView struct {
	Source string    `json:"source"` // "": the credential named none
	Reason string    `json:"reason"`
	Count  int64     `json:"count"`
	LastAt time.Time `json:"last_at"`
}

func (c authFailuresCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		all, err := s.AuthFailures(ctx, c.Tenant)
		if err != nil {
			return err
		}
		views := make([]failureView, len(all))
		for i, f := range all {
			views[i] = failureView(f)
		}
		return out.print(views, func(w io.Writer) {
			tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "LAST\tCOUNT\tSOURCE\tREASON")
			for _, v := range views {
				fmt.Fprintf(tw, "%s\t%d\t%s\t%s\n", v.LastAt.Format(time.RFC3339), v.Count, cmp.Or(v.Source, "-"), v.Reason)
			}
			tw.Flush()
		})
	})
}
