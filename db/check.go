package db

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SetupError is about a database, a role or a URL that a person must put right: to try again is of no use. Its text
// says what to do.
type SetupError struct {
	what string
	err  error // may be nil
}

func (e *SetupError) Error() string { return e.what }

func (e *SetupError) Unwrap() error { return e.err }

var errNoURL = &SetupError{what: "no database is named: set DATABASE_URL (--database-url) to a URL like postgres://user@host/database"}

// Check says whether a pool's database can be used: it answers, lets the pool's user take on its role, and has the schema
// of this program. What a person must put right is a [*SetupError].
//
// A schema that is newer than the program is fine, as during a deploy, until one of its migrations says by
// oldest_program that it is not.
func Check(ctx context.Context, pool *Pool) error {
	err := pool.Ping(ctx)
	if err != nil {
		return explain(err, Role(pool.Config().ConnConfig.RuntimeParams["role"]))
	}
	var has, oldest int64
	err = pool.QueryRow(ctx, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`).Scan(&has)
	if err == nil {
		err = pool.QueryRow(ctx, `SELECT oldest_program()`).Scan(&oldest)
	}
	mine, versionErr := newest()
	if versionErr != nil {
		return versionErr
	}
	database := pool.Config().ConnConfig.Database
	switch pg, ok := errors.AsType[*pgconn.PgError](err); {
	// undefined_table; undefined_function and insufficient_privilege: of before the grant and the function
	case ok && (pg.Code == "42P01" || pg.Code == "42883" || pg.Code == "42501"), err == nil && has < mine:
		return &SetupError{fmt.Sprintf("the schema of database %q is older than this program: run 'vssctl migrate' with the database owner's URL", database), err}
	case err != nil:
		return explain(err, "")
	case oldest > mine:
		return &SetupError{fmt.Sprintf("the schema of database %q is too new for this program (it has migration %d, this program %d): run a newer release", database, has, mine), nil}
	}
	return nil
}

// HasSealedKeys says whether the database at url keeps keys that only a master key opens. It changes nothing.
func HasSealedKeys(ctx context.Context, url string) (sealed bool, _ error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return false, explain(err, "")
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM public.source_keys WHERE sealed IS NOT NULL)`).Scan(&sealed)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42P01" { // undefined_table: not migrated yet
		return false, nil
	}
	return sealed, err
}

// newest is the number of this program's last migration.
func newest() (int64, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return 0, err
	}
	last := strings.TrimPrefix(slices.Max(names), "migrations/")
	return strconv.ParseInt(last[:strings.IndexByte(last, '_')], 10, 64)
}

// explain makes an error of connecting one sentence for the operator. pgx lists an attempt with TLS and one without, of
// which the first says that the server has no TLS whatever the second says. role is the one that was asked for.
func explain(err error, role Role) error {
	failed, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return err
	}
	var (
		cfg     = failed.Config
		at      = fmt.Sprintf("%s:%d", cfg.Host, cfg.Port)
		user    = pgx.Identifier{cfg.User}.Sanitize()
		problem = func(format string, args ...any) error { return &SetupError{fmt.Sprintf(format, args...), err} }
	)
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return &unreachable{at, err}
	}
	ofRole := role != "" && strings.Contains(pg.Message, string(role)) // by name, whatever the server's language
	switch {
	case pg.Code == "3D000": // invalid_catalog_name
		return problem("there is no database %q at %s: create it, then run 'vssctl migrate'", cfg.Database, at)
	case pg.Code == "28P01": // invalid_password
		return problem("the PostgreSQL at %s refuses the password of user %s", at, user)
	case pg.Code[:2] == "28": // invalid_authorization_specification
		return problem("the PostgreSQL at %s does not let user %s in: %s", at, user, pg.Message)
	case pg.Code == "42704" && ofRole || pg.Code == "22023" && ofRole: // undefined_object, invalid_parameter_value
		return problem("role %s does not exist at %s: run 'vssctl migrate' with the database owner's URL", role, at)
	case pg.Code == "42501" && ofRole: // insufficient_privilege
		return problem("user %s is no member of %s: run, as the database's owner, GRANT %[2]s TO %[1]s", user, role)
	case pg.Code[:2] == "42", pg.Code == "22023":
		return problem("the PostgreSQL at %s refuses the connection of user %s: %s", at, user, pg.Message)
	}
	return fmt.Errorf("the PostgreSQL at %s takes no connection: %w", at, pg)
}

// unreachable is a server that gave no answer. Each attempt is told once.
type unreachable struct {
	at  string
	err error
}

func (e *unreachable) Error() string {
	var reasons []string
	for err := e.err; err != nil; err = errors.Unwrap(err) {
		if all, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range all.Unwrap() {
				if !slices.Contains(reasons, err.Error()) {
					reasons = append(reasons, err.Error())
				}
			}
			break
		}
	}
	if reasons == nil {
		reasons = []string{e.err.Error()}
	}
	return fmt.Sprintf("cannot reach the PostgreSQL at %s: %s", e.at, strings.Join(reasons, "; "))
}

func (e *unreachable) Unwrap() error { return e.err }
