package postgres

import (
	"context"
	"time"
)

// SkewClock makes what the store believes of the server's clock wrong by d, as a jump of that clock does.
func SkewClock(s *Store, d time.Duration) {
	if r := s.clock.last.Load(); r != nil {
		s.clock.last.Store(&reading{server: r.server.Add(d), ours: r.ours})
	}
}

// ClockError is how far what the store believes of the server's clock is from what that says.
func ClockError(ctx context.Context, s *Store) time.Duration {
	row, err := s.queries.Acquaint(ctx, s.pool)
	if err != nil {
		panic(err)
	}
	return s.clock.at(time.Now()).Sub(row.Now)
}
