package callers

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/vss-cloud/vss-cloud/db/dbgen"
	"github.com/vss-cloud/vss-cloud/tenants"
	"github.com/vss-cloud/vss-cloud/tenants/egress"
	"github.com/vss-cloud/vss-cloud/tenants/jwt"
)

// Fetch gets what a tenant's URL names, as [egress.Client.GetFor] does.
type Fetch func(ctx context.Context, tenant uuid.UUID, url string, header http.Header) (egress.Response, error)

// issuers are the key sets at tenants' URLs, each kept fresh by a goroutine of its own. A set outlives the
// versions of its tenant, since to fetch it anew at every change would make wallets wait. It belongs to a
// [Directory], which calls it under its lock.
type issuers struct {
	pool    *pgxpool.Pool
	saves   *pgxpool.Pool // nil: what was fetched is not kept
	fetch   Fetch
	timeout time.Duration // of the database
	now     func() time.Time
	log     *slog.Logger

	bySource map[uuid.UUID]*issuer
	run      func(*issuer) // nil until start
	ended    sync.WaitGroup
}

type issuer struct {
	url  egress.URL
	keys *jwt.Source
	stop context.CancelFunc // nil while it does not run
}

// start lets the sets be fetched until the context ends.
func (is *issuers) start(ctx context.Context) {
	if is.fetch == nil {
		return
	}
	is.run = func(i *issuer) {
		ctx, stop := context.WithCancel(ctx)
		i.stop = stop
		i.keys.Start(ctx, &is.ended)
	}
	for _, i := range is.bySource {
		is.run(i)
	}
}

// follow makes the sets those of these tenants' sources, and returns them by source.
func (is *issuers) follow(ctx context.Context, all []*tenants.Tenant) (map[uuid.UUID]*jwt.Source, error) {
	next := map[uuid.UUID]*issuer{}
	keys := map[uuid.UUID]*jwt.Source{}
	var fresh []ofTenant
	for _, t := range all {
		for i := range t.Sources {
			src := &t.Sources[i]
			if src.JWKSURL == "" {
				continue
			}
			known := is.bySource[src.ID]
			if known == nil || known.url != src.JWKSURL {
				fresh = append(fresh, ofTenant{t.ID, src})
				continue
			}
			known.keys.Revoke(src.Revoked())
			next[src.ID] = known
		}
	}
	if err := is.begin(ctx, fresh, next); err != nil {
		return nil, err
	}
	for id, i := range next {
		keys[id] = i.keys
	}
	for id, i := range is.bySource {
		if next[id] != i && i.stop != nil {
			i.stop()
		}
	}
	is.bySource = next
	for _, i := range next {
		if i.stop == nil && is.run != nil {
			is.run(i)
		}
	}
	return keys, nil
}

// ofTenant is a source and whose it is.
type ofTenant struct {
	tenant uuid.UUID
	*tenants.Source
}

// begin makes the sets of these sources, each with the last good keys that any instance got for it.
func (is *issuers) begin(ctx context.Context, sources []ofTenant, into map[uuid.UUID]*issuer) error {
	if len(sources) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(sources))
	for i, src := range sources {
		ids[i] = src.ID
	}
	rows, err := dbgen.New().JWKSDocuments(ctx, is.pool, ids)
	if err != nil {
		return err
	}
	documents := make(map[uuid.UUID]dbgen.JWKSDocumentsRow, len(rows))
	for _, row := range rows {
		documents[row.SourceID] = row
	}
	for _, src := range sources {
		cfg := jwt.SourceConfig{
			URL: string(src.JWKSURL),
			Get: func(ctx context.Context, url string, header http.Header) (egress.Response, error) {
				return is.fetch(ctx, src.tenant, url, header)
			},
			Document: documents[src.ID].Document, Skipped: documents[src.ID].Skipped, Revoked: src.Revoked(), Now: is.now,
			OnDocument: func(ctx context.Context, document []byte, skipped []string) error {
				return is.save(ctx, src.ID, string(src.JWKSURL), document, skipped)
			},
		}
		keys, err := jwt.NewSource(cfg)
		if err != nil {
			is.log.Error("a key set in the database is none", "source", src.ID, "error", err)
			cfg.Document = nil
			if keys, err = jwt.NewSource(cfg); err != nil {
				return err
			}
		}
		into[src.ID] = &issuer{url: src.JWKSURL, keys: keys}
	}
	return nil
}

func (is *issuers) save(ctx context.Context, source uuid.UUID, url string, document []byte, skipped []string) error {
	if is.saves == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, is.timeout)
	defer cancel()
	return dbgen.New().SaveJWKSDocument(ctx, is.saves, dbgen.SaveJWKSDocumentParams{
		SourceID: source, Url: url, Document: document, Skipped: append([]string{}, skipped...), // nil would be NULL
	})
}
