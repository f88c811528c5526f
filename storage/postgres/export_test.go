package postgres

import "time"

// SkewClock makes what the store believes of the server's clock wrong by d, as a jump of that clock does.
func SkewClock(s *Store, d time.Duration) {
	if r := s.clock.last.Load(); r != nil {
		s.clock.last.Store(&reading{server: r.server.Add(d), ours: r.ours})
	}
}
