package db

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestAServerOlderThanOneThatWasSeenIsRefused(t *testing.T) {
	t.Parallel()
	s := &servers{}
	for _, step := range []struct {
		what    string
		is      Server
		refused bool
	}{
		{"the first", Server{System: 7, Timeline: 3}, false},
		{"another connection", Server{System: 7, Timeline: 3}, false},
		{"promoted", Server{System: 7, Timeline: 4}, false},
		{"deposed", Server{System: 7, Timeline: 3}, true},
		{"promoted twice", Server{System: 7, Timeline: 6}, false},
		{"rewound", Server{System: 7, Timeline: 5}, true},
		{"another cluster", Server{System: 8, Timeline: 9}, true},
		{"the newest again", Server{System: 7, Timeline: 6}, false},
	} {
		if err := s.meet(step.is); errors.Is(err, ErrWentBack) != step.refused {
			t.Errorf("%s: %v", step.what, err)
		}
	}
}

func TestTheHostThatIsTriedFirstMovesOn(t *testing.T) {
	t.Parallel()
	s := &servers{}
	for _, want := range []string{"a b c", "b c a", "c a b", "a b c"} {
		c := &pgx.ConnConfig{Config: pgconn.Config{Host: "a", Fallbacks: []*pgconn.FallbackConfig{{Host: "b"}, {Host: "c"}}}}
		s.order(c)
		if got := c.Host + " " + c.Fallbacks[0].Host + " " + c.Fallbacks[1].Host; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		s.first++
	}
}
