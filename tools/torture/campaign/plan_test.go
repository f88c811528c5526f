package campaign

import (
	"slices"
	"testing"

	"github.com/vss-cloud/vss-cloud/tools/torture/faults"
)

// schedule is the first n rounds of a seed, in words and times.
func schedule(seed uint64, n int) (rounds []plan, words []string) {
	c := &Campaign{cfg: Config{Seed: seed, Operations: 1}}
	for number, p := range c.plans() {
		if number > n {
			break
		}
		rounds, words = append(rounds, p), append(words, p.String())
	}
	return rounds, words
}

func TestTheScheduleFollowsFromTheSeed(t *testing.T) {
	rounds, words := schedule(7, 60)
	again, _ := schedule(7, 60)
	for i, p := range rounds {
		if p.lasts != again[i].lasts || !slices.EqualFunc(p.faults, again[i].faults, func(a, b planned) bool {
			return a.at == b.at && a.kind.Name == b.kind.Name
		}) {
			t.Errorf("round %d: %s, and then %s", i+1, p, again[i])
		}
	}
	if _, others := schedule(8, 60); slices.Equal(words, others) {
		t.Error("two seeds have one schedule")
	}
}

func TestOneRoundIsThatOfTheWholeSchedule(t *testing.T) {
	rounds, _ := schedule(7, 12)
	c := &Campaign{cfg: Config{Seed: 7, Only: 9}}
	made := 0
	for n, p := range c.plans() {
		made++
		if n != 9 || p.String() != rounds[8].String() {
			t.Errorf("round %d: %s; in the whole schedule, 9 is %s", n, p, rounds[8])
		}
	}
	if made != 1 {
		t.Errorf("%d rounds", made)
	}
}

func TestEveryKindOfFaultIsInTheFirstDeal(t *testing.T) {
	for seed := range uint64(20) {
		planned := make(map[string]int)
		c := &Campaign{cfg: Config{Seed: seed}}
		for _, p := range c.plans() {
			for _, f := range p.faults {
				planned[f.kind.Name]++
				if f.at >= p.lasts {
					t.Errorf("seed %d: %s begins after its round", seed, f.kind.Name)
				}
			}
		}
		for _, k := range append(slices.Clone(faults.Kinds), faults.Restarts...) {
			if planned[k.Name] == 0 {
				t.Errorf("seed %d has no %s", seed, k.Name)
			}
		}
	}
}
