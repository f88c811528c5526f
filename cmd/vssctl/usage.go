package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/cmd/cli"
	"github.com/vss-cloud/vss-cloud/quota/usage"
	"github.com/vss-cloud/vss-cloud/tenants"
)

type tenantUsageCmd struct {
	tenantFlags
	Tenant string      `arg:"" help:"The tenant."`
	By     usage.Grain `default:"day" enum:"hour,day,month" placeholder:"GRAIN" help:"hour, day or month (${default}). stored_bytes and stored_objects of a day and a month are sums over their hours: divide by those for a mean."`
	Since  string      `placeholder:"DATE" help:"From the hour, day or month on that this is in: 2026-01-31, or with a time 2026-01-31T15:00:00Z. Unset: the last day by hour, month by day, year by month."`
}

func (c tenantUsageCmd) Run(ctx context.Context, out output) error {
	since, err := c.since(time.Now())
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, c.Tenant)
		if err != nil {
			return err
		}
		all, err := s.Usage().Usage(ctx, t.ID, c.By, since)
		if err != nil {
			return err
		}
		views := make([]usageView, len(all))
		for i, m := range all {
			views[i] = usageView(m)
		}
		return out.print(views, func(w io.Writer) {
			layout := map[usage.Grain]string{usage.ByHour: "2006-01-02T15:04Z", usage.ByDay: "2006-01-02", usage.ByMonth: "2006-01"}[c.By]
			tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "START\tMETRIC\tVALUE")
			for _, v := range views {
				fmt.Fprintf(tw, "%s\t%s\t%d\n", v.Start.Format(layout), v.Metric, v.Value)
			}
			tw.Flush()
		})
	})
}

func (c tenantUsageCmd) since(now time.Time) (time.Time, error) {
	if c.Since == "" {
		switch c.By {
		case usage.ByHour:
			return now.AddDate(0, 0, -1), nil
		case usage.ByDay:
			return now.AddDate(0, -1, 0), nil
		default:
			return now.AddDate(-1, 0, 0), nil
		}
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, c.Since); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: --since %s is no date like 2026-01-31, and no time like 2026-01-31T15:00:00Z", cli.ErrUsage, printable(c.Since))
}

// usageView is a metric of an hour, a day or a month as JSON; scripts rely on its names.
type usageView struct {
	Start  time.Time `json:"start"`
	Metric string    `json:"metric"`
	Value  int64     `json:"value"`
}

type tenantEventsCmd struct {
	tenantFlags
	Tenant string `arg:"" help:"The tenant."`
	Limit  int32  `default:"100" placeholder:"N" help:"How many at most (${default})."`
}

// eventView is an event as JSON; scripts rely on its names.
type eventView struct {
	ID      int64           `json:"id"`
	Kind    string          `json:"kind"`
	Subject string          `json:"subject"` // "": the tenant
	State   string          `json:"state"`
	Detail  json.RawMessage `json:"detail"`
	At      time.Time       `json:"at"`
}

func (c tenantEventsCmd) Run(ctx context.Context, out output) error {
	if c.Limit < 1 {
		return fmt.Errorf("%w: --limit must be 1 or more", cli.ErrUsage)
	}
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		t, err := s.Get(ctx, c.Tenant)
		if err != nil {
			return err
		}
		all, err := s.Usage().Events(ctx, t.ID, c.Limit)
		if err != nil {
			return err
		}
		views := make([]eventView, len(all))
		for i, e := range all {
			views[i] = eventView(e)
		}
		return out.print(views, func(w io.Writer) {
			tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "AT\tKIND\tSTATE\tABOUT\tDETAIL")
			for _, v := range views {
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", v.At.Format(time.RFC3339), v.Kind, v.State, cmp.Or(v.Subject, "-"), v.Detail)
			}
			tw.Flush()
		})
	})
}

type instancesCmd struct{ tenantFlags }

// instanceView is a process of the API as JSON; scripts rely on its names.
type instanceView struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	Version   string    `json:"version"`
	Live      bool      `json:"live"`
	StartedAt time.Time `json:"started_at"`
	SeenAt    time.Time `json:"seen_at"`

	FailingSources []uuid.UUID `json:"failing_sources"` // whose keys it cannot fetch
}

func (c instancesCmd) Run(ctx context.Context, out output) error {
	return c.with(ctx, func(ctx context.Context, s *tenants.Service) error {
		all, err := s.Usage().Instances(ctx)
		if err != nil {
			return err
		}
		views := make([]instanceView, len(all))
		for i, n := range all {
			views[i] = instanceView{n.ID.String(), n.Host, n.Version, n.Live, n.StartedAt, n.SeenAt, n.Failing}
		}
		return out.print(views, func(w io.Writer) {
			tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "ID\tHOST\tVERSION\tSTATE\tSTARTED\tSEEN")
			for _, v := range views {
				state := "gone"
				if v.Live {
					state = "live"
				}
				if n := len(v.FailingSources); n > 0 {
					state += fmt.Sprintf(", cannot fetch the keys of %d sources", n)
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, v.Host, v.Version, state, v.StartedAt.Format(time.RFC3339), v.SeenAt.Format(time.RFC3339))
			}
			tw.Flush()
		})
	})
}
