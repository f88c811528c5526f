package usage

import (
	"time"

	"github.com/google/uuid"

	"github.com/vss-cloud/vss-cloud/quota"
)

// sustained tells refusals that go on from those that happen: there are more than most in each of so many
// consecutive minutes, as this instance counted them. It remembers those of two minutes.
type sustained struct {
	most    int64
	minutes int
	streaks map[refusal]*streak
}

type refusal struct {
	tenant uuid.UUID
	reason quota.Reason
}

type streak struct {
	minute int64 // since 1970
	count  int64 // in it
	before int   // minutes just before it that had more than most
}

func newSustained(most int64, minutes int) *sustained {
	return &sustained{most: most, minutes: minutes, streaks: map[refusal]*streak{}}
}

// add counts refusals that were just made, and tells whether they go on.
func (s *sustained) add(at time.Time, of refusal, n int64) bool {
	minute := minuteOf(at)
	k := s.streaks[of]
	switch {
	case k == nil:
		k = &streak{minute: minute}
		s.streaks[of] = k
	case k.minute == minute:
	case k.minute == minute-1 && k.count > s.most:
		*k = streak{minute: minute, before: k.before + 1}
	default:
		*k = streak{minute: minute}
	}
	k.count += n
	return k.count > s.most && k.before+1 >= s.minutes
}

// forget drops what no longer goes on.
func (s *sustained) forget(at time.Time) {
	for of, k := range s.streaks {
		if k.minute < minuteOf(at)-1 {
			delete(s.streaks, of)
		}
	}
}

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }
