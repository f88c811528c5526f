package campaign

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/faults"
)

// plan is what is done in a round.
type plan struct {
	lasts    time.Duration
	delays   bool // requests may be on their way for a while
	stalls   bool // processes of the database stand still
	faults   []planned
	previous bool   // one instance is of the commit before
	view     string // what wallets are to see nothing of
}

// crashes is how often one comes in a round of its own.
const crashes = 12

type planned struct {
	at   time.Duration
	kind faults.Kind
}

func (p plan) String() string {
	if len(p.faults) == 0 {
		if p.previous {
			return "the commit before beside today's"
		}
		return "no fault"
	}
	names := make([]string, len(p.faults))
	for i, f := range p.faults {
		names[i] = f.kind.Name
	}
	if one := slices.Compact(slices.Clone(names)); len(one) == 1 && len(names) > 1 {
		return fmt.Sprintf("%s, %d times", one[0], len(names))
	}
	return strings.Join(names, ", ")
}

// plans are the rounds of the campaign, by number from 1: one without any fault, what operators do, then every
// fault at least once, dealt out so that a long one comes with a few others, and then more until there is enough
// of it all. They follow from the seed alone.
func (c *Campaign) plans() iter.Seq2[int, plan] {
	return func(yield func(int, plan) bool) {
		n := 0
		next := func(p plan) bool {
			n++
			return c.cfg.Only != 0 && c.cfg.Only != n || yield(n, p)
		}
		if !next(plan{lasts: 3 * time.Second}) {
			return
		}
		for _, k := range faults.Restarts {
			p := mixed(rand.New(rand.NewPCG(c.cfg.Seed, 1<<57)), k)
			p.view = k.Name
			if !next(p) {
				return
			}
		}
		if !next(plan{lasts: 3 * time.Second, previous: c.previous != nil}) { // the numbers are the same without
			return
		}
		for deal := uint64(0); ; deal++ {
			rng := rand.New(rand.NewPCG(c.cfg.Seed, 1<<56|deal))
			for _, p := range dealt(rng) {
				if !next(p) {
					return
				}
			}
			if c.cfg.Only != 0 && n >= c.cfg.Only {
				return
			}
			if c.cfg.Only == 0 && int(c.operations.Load()) >= c.cfg.Operations && int(c.crashes.Load()) >= c.cfg.Crashes {
				return
			}
			// Each alone, too, and what is a crash again and again.
			for _, k := range rng.Perm(len(faults.Kinds)) {
				kinds := []faults.Kind{faults.Kinds[k]}
				if kinds[0].Crash {
					kinds = slices.Repeat(kinds, crashes)
				}
				if !next(mixed(rng, kinds...)) {
					return
				}
			}
		}
	}
}

// dealt gives every fault to a round that has one of the long ones.
func dealt(rng *rand.Rand) (plans []plan) {
	var rounds [][]faults.Kind
	var short []faults.Kind
	for _, k := range rng.Perm(len(faults.Kinds)) {
		if kind := faults.Kinds[k]; kind.Lasts > 0 {
			rounds = append(rounds, []faults.Kind{kind})
		} else {
			short = append(short, kind)
		}
	}
	for i, kind := range short {
		rounds[i%len(rounds)] = append(rounds[i%len(rounds)], kind)
	}
	for _, kinds := range rounds {
		plans = append(plans, mixed(rng, kinds...))
	}
	return plans
}

// mixed spreads faults over a round.
func mixed(rng *rand.Rand, kinds ...faults.Kind) plan {
	p := plan{lasts: 4 * time.Second}
	for _, k := range kinds {
		if k.Lasts > 0 {
			p.lasts = k.Lasts + 2*time.Second
		}
	}
	p.lasts = max(p.lasts, time.Duration(len(kinds))*1500*time.Millisecond)
	for i, k := range kinds {
		at := 500*time.Millisecond + time.Duration(rng.Int64N(int64(500*time.Millisecond)))
		if k.Lasts == 0 {
			at += time.Duration(i) * p.lasts / time.Duration(len(kinds)+1)
		}
		p.faults = append(p.faults, planned{at, k})
		p.delays = p.delays || k.Delays
		p.stalls = p.stalls || k.Stalls
	}
	return p
}
