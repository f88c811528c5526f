package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/audit"
)

type walletCmd struct {
	Show     walletShowCmd     `cmd:"" help:"Show a wallet: what it has, never a value."`
	Block    walletBlockCmd    `cmd:"" help:"Keep a wallet from writing, from its next write on. It reads on."`
	Unblock  walletUnblockCmd  `cmd:"" help:"Let a blocked wallet write again."`
	Allow    walletAllowCmd    `cmd:"" help:"Put wallets on the list of those that may enrol where enrolment is listed (see 'tenant set --enrolment')."`
	Disallow walletDisallowCmd `cmd:"" help:"Take wallets off that list. Those that are enrolled stay."`
}

// walletName is the arguments that name a wallet.
type walletName struct {
	tenantFlags
	Tenant  string `arg:"" help:"The tenant."`
	Source  string `arg:"" help:"The source that names the wallet; see 'source list'."`
	Subject string `arg:"" help:"What the source calls it: its public key in hex, or the sub of its tokens."`
}

type walletShowCmd struct{ walletName }

func (c walletShowCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error { return c.print(ctx, out, s) })
}

type walletBlockCmd struct {
	walletName
	confirm
}

func (c walletBlockCmd) Run(ctx context.Context, out output) error {
	return c.sure(func(by audit.Actor) error { return c.block(ctx, out, by, true) })
}

type walletUnblockCmd struct{ walletName }

func (c walletUnblockCmd) Run(ctx context.Context, out output) error {
	return c.block(ctx, out, actor(), false)
}

func (n walletName) block(ctx context.Context, out output, by audit.Actor, block bool) error {
	return n.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		if err := s.BlockWallet(ctx, by, n.Tenant, n.Source, n.Subject, block); err != nil {
			return err
		}
		return n.print(ctx, out, s)
	})
}

// walletView is a wallet as JSON; scripts rely on its names.
type walletView struct {
	Wallet      string    `json:"wallet"` // its id
	Source      string    `json:"source"`
	Subject     string    `json:"subject"`
	Blocked     bool      `json:"blocked"`
	Stores      int64     `json:"stores"`
	Objects     int64     `json:"objects"`
	Bytes       int64     `json:"bytes"`
	EnrolledAt  time.Time `json:"enrolled_at"`
	LastWritten time.Time `json:"last_written_at"`
}

func (n walletName) print(ctx context.Context, out output, s *tenants.Service) error {
	i, err := s.Wallet(ctx, n.Tenant, n.Source, n.Subject)
	if err != nil {
		return err
	}
	v := walletView{i.ID.String(), i.Source, i.Subject, i.Blocked, i.Stores, i.Objects, i.Bytes, i.EnrolledAt, i.LastWritten}
	return out.print(v, func(w io.Writer) {
		state := "active"
		if v.Blocked {
			state = "blocked: it can read and not write"
		}
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(tw, "wallet\t%s\nsource\t%s\nsubject\t%s\nstate\t%s\nstores\t%d\nkeys\t%d\nbytes\t%d\nenrolled\t%s\nlast written\t%s\n",
			v.Wallet, v.Source, printable(v.Subject), state, v.Stores, v.Objects, v.Bytes, v.EnrolledAt.Format(time.RFC3339), v.LastWritten.Format(time.RFC3339))
		tw.Flush()
	})
}

// walletList is the arguments that name wallets.
type walletList struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
	Source string `arg:"" help:"The source that names the wallets; see 'source list'."`
	File   string `arg:"" help:"Where what the source calls them is, one a line, at most 100000; - is standard input."`
}

type walletAllowCmd struct{ walletList }

func (c walletAllowCmd) Run(ctx context.Context, out output) error { return c.list(ctx, out, true) }

type walletDisallowCmd struct{ walletList }

func (c walletDisallowCmd) Run(ctx context.Context, out output) error { return c.list(ctx, out, false) }

func (l walletList) list(ctx context.Context, out output, listed bool) error {
	in := io.Reader(os.Stdin)
	if l.File != "-" {
		f, err := os.Open(l.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	return l.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, l.Tenant)
		if err != nil {
			return err
		}
		subjects, lines := readSubjects(string(text))
		if subjects == nil {
			return &tenants.InvalidError{Field: "subjects", Reason: "there are none"}
		}
		changed, err := s.AllowWallets(ctx, actor(), l.Tenant, l.Source, subjects, listed)
		if e, ok := errors.AsType[*tenants.SubjectError](err); ok {
			return fmt.Errorf("line %d: %w", lines[e.Number-1], &tenants.InvalidError{Field: "subject", Reason: e.Reason})
		}
		if err != nil {
			return err
		}
		v := struct {
			Given     int               `json:"given"`
			Changed   int64             `json:"changed"`
			Enrolment tenants.Enrolment `json:"enrolment"`
		}{len(subjects), changed, t.Enrolment}
		return out.print(v, func(w io.Writer) {
			did := "were put on the list of those that may enrol"
			if !listed {
				did = "were taken off the list of those that may enrol"
			}
			fmt.Fprintf(w, "%d of %d wallets %s\n", v.Changed, v.Given, did)
			if v.Enrolment != tenants.EnrolmentListed {
				fmt.Fprintf(w, "Enrolment is %s: the list is asked once it is listed (vssctl tenant set %s --enrolment listed).\n", v.Enrolment, t.Slug)
			}
		})
	})
}

// readSubjects are the lines of a text that are not empty, and their numbers.
func readSubjects(text string) (subjects []string, lines []int) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line != "" {
			subjects, lines = append(subjects, line), append(lines, n)
		}
	}
	return subjects, lines
}
