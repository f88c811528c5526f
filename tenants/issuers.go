package tenants

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// Fetch gets what a tenant's URL names, as [egress.Client.Get] does.
type Fetch func(ctx context.Context, url string, header http.Header) (egress.Response, error)

// issuers are the key sets at tenants' URLs, each kept fresh by a goroutine of its own. A set outlives the
// versions of its tenant, since to fetch it anew at every change would make wallets wait. It belongs to a
// [Directory], which calls it under its lock.
type issuers struct {
	pool    *pgxpool.Pool
	fetch   Fetch
	timeout time.Duration // of the database
	now     func() time.Time
	log     *slog.Logger

	bySource map[uuid.UUID]*issuer
	running  context.Context // nil until start
	ended    sync.WaitGroup
}

type issuer struct {
	url  string
	keys *jwt.Source
	stop context.CancelFunc // nil while it does not run
}

// start lets the sets be fetched until the context ends.
func (is *issuers) start(ctx context.Context) {
	is.running = ctx
	for _, i := range is.bySource {
		is.run(i)
	}
}

func (is *issuers) run(i *issuer) {
	if is.running == nil || is.fetch == nil {
		return
	}
	ctx, stop := context.WithCancel(is.running)
	i.stop = stop
	i.keys.Start(ctx, &is.ended)
}

// follow makes the sets those of these tenants' sources, and returns them by source.
func (is *issuers) follow(ctx context.Context, all []*Tenant) (map[uuid.UUID]*jwt.Source, error) {
	next := map[uuid.UUID]*issuer{}
	keys := map[uuid.UUID]*jwt.Source{}
	for _, t := range all {
		for i := range t.Sources {
			src := &t.Sources[i]
			if src.JWKSURL == "" {
				continue
			}
			known := is.bySource[src.ID]
			if known == nil || known.url != src.JWKSURL {
				var err error
				if known, err = is.begin(ctx, src); err != nil {
					return nil, err
				}
			} else {
				known.keys.Revoke(src.revoked())
			}
			next[src.ID], keys[src.ID] = known, known.keys
		}
	}
	for id, i := range is.bySource {
		if next[id] != i && i.stop != nil {
			i.stop()
		}
	}
	is.bySource = next
	for _, i := range next {
		if i.stop == nil {
			is.run(i)
		}
	}
	return keys, nil
}

// begin makes the set of a source, with the last good keys that any instance got from its URL.
func (is *issuers) begin(ctx context.Context, src *Source) (*issuer, error) {
	q, id, url := dbgen.New(), src.ID, src.JWKSURL
	document, err := q.JWKSDocument(ctx, is.pool, dbgen.JWKSDocumentParams{SourceID: id, Url: url})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	cfg := jwt.SourceConfig{
		URL:      url,
		Get:      is.fetch,
		Document: document,
		Revoked:  src.revoked(),
		Now:      is.now,
		OnDocument: func(ctx context.Context, document []byte) error {
			ctx, cancel := context.WithTimeout(ctx, is.timeout)
			defer cancel()
			return q.SaveJWKSDocument(ctx, is.pool, dbgen.SaveJWKSDocumentParams{SourceID: id, Url: url, Document: document})
		},
	}
	keys, err := jwt.NewSource(cfg)
	if err != nil {
		is.log.Error("a key set in the database is none", "source", id, "error", err)
		cfg.Document = nil
		if keys, err = jwt.NewSource(cfg); err != nil {
			return nil, err
		}
	}
	return &issuer{url: url, keys: keys}, nil
}
