package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vss-cloud/vss-cloud/storage"
)

// errStandby: a server in recovery answered. It may lag behind the primary, so nothing it says counts.
var errStandby = fmt.Errorf("%w: a standby answered, not the primary", storage.ErrUnavailable)

// errAgain marks a failure that had no effect and may not come again at once: the call is run once more.
var errAgain = errors.New("worth another try")

// translate turns an error of pgx into one of package storage, by SQLSTATE and never by text. It is for
// failures known to have had no effect, as all of a read's are; refused says which are so for a write.
func translate(err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		switch class := pg.Code[:2]; {
		case pg.Code == "40001", // serialization_failure
			pg.Code == "40P01", // deadlock_detected
			pg.Code == "0A000", // feature_not_supported: cached plan must not change result type (a migration)
			pg.Code == "26000", // invalid_sql_statement_name: a pooler gave us another server connection
			pg.Code == "55000", // object_not_in_prerequisite_state: commit_in_time, of leases on another server
			pg.Code == "25006", // read_only_sql_transaction: the primary was demoted
			class == "08",      // connection_exception
			class == "57" && pg.Code != "57014":
			return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, errAgain, err)
		case pg.Code == "55P03", // lock_not_available: lock_timeout, which comes from the deadline
			pg.Code == "57014", // query_canceled: statement_timeout, likewise
			pg.Code == "25P03", // idle_in_transaction_session_timeout, likewise
			pg.Code == "25P04": // transaction_timeout, likewise
			return fmt.Errorf("%w: %w", storage.ErrTooLate, err)
		case class == "53", class == "58": // insufficient_resources (disk full, memory), system_error
			return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
		}
		return err // a fault of ours
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), pgconn.Timeout(err):
		return fmt.Errorf("%w: %w", storage.ErrTooLate, err)
	case errors.Is(err, pgx.ErrNoRows):
		return err
	case errors.Is(err, storage.ErrUnavailable):
		return err
	}
	return fmt.Errorf("%w: %w: %w", storage.ErrUnavailable, errAgain, err) // the connection
}

// refused reports whether err, which a write got after it began to send, proves that nothing was committed:
// the server said ERROR, which ends the transaction, or pgx failed to prepare a batch, before it sent it. A
// broken connection proves nothing, nor does FATAL, which a server going down says to a commit that is done,
// too. pgconn.SafeToRetry is not asked: it is true of a commit that was sent on a connection that then broke.
func refused(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// Class 08 and 57P are about the connection and the server, and a proxy may say them of its own.
		return pg.SeverityUnlocalized == "ERROR" && pg.Code[:2] != "08" && pg.Code[:3] != "57P"
	}
	var unsent pgx.ErrPreprocessingBatch
	return errors.As(err, &unsent)
}

// again runs call, and once more if it says that is worth it and there is time.
func again[T any](ctx context.Context, call func() (T, error)) (T, error) {
	v, err := call()
	if errors.Is(err, errAgain) && ctx.Err() == nil {
		v, err = call()
	}
	return v, err
}
