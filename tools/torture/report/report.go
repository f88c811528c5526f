// Package report tells people what a run comes to: a line while it runs, a table at its end, and all there is
// to see of a failure.
package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
)

// Report gathers. It is safe for concurrent use.
type Report struct {
	w     io.Writer
	begin time.Time
	seed  uint64

	mu         sync.Mutex
	operations int64
	crashes    int64
	faults     map[string]*tally
	violations map[string][]error
	checks     []check
}

type tally struct {
	done    int
	notDone []error
}

// check is a line of the table.
type check struct {
	promise, fault, test, figure string
	verdict                      string
}

// New makes a report that writes to w.
func New(w io.Writer, seed uint64) *Report {
	return &Report{w: w, begin: time.Now(), seed: seed, faults: make(map[string]*tally), violations: make(map[string][]error)}
}

func (r *Report) line(format string, args ...any) {
	fmt.Fprintf(r.w, "torture %6.1f s  %s\n", time.Since(r.begin).Seconds(), fmt.Sprintf(format, args...))
}

// Status says what is being done.
func (r *Report) Status(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line(format, args...)
}

// Count says how much there was so far.
func (r *Report) Count(operations, crashes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.operations, r.crashes = operations, crashes
}

// Round ends a round.
func (r *Report) Round(n int, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line("round %d took %.1f s: %d operations, %d crashes, %d violations so far", n, took.Seconds(), r.operations, r.crashes, r.count())
}

// Fault says that one was done; with an error, that it was not.
func (r *Report) Fault(f history.Fault, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.faults[f.Name]
	if t == nil {
		t = &tally{}
		r.faults[f.Name] = t
	}
	if err != nil {
		t.notDone = append(t.notDone, err)
		r.line("not done: %s: %v", f.Name, err)
		return
	}
	t.done++
}

// Done is how often a fault was done.
func (r *Report) Done(fault string) (times int, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.faults[fault]
	switch {
	case t == nil:
		return 0, nil
	case len(t.notDone) > 0:
		why = t.notDone[len(t.notDone)-1]
	}
	return t.done, why
}

// Check adds a line to the table: a promise, what was done to it, how it was looked at, and what came of that.
func (r *Report) Check(promise, fault, test string, ok bool, format string, args ...any) {
	verdict := "passed"
	if !ok {
		verdict = "FAILED"
	}
	r.add(check{promise, fault, test, fmt.Sprintf(format, args...), verdict})
}

// Skip adds a line about what could not be looked at here, and why.
func (r *Report) Skip(promise, fault, test, format string, args ...any) {
	r.add(check{promise, fault, test, fmt.Sprintf(format, args...), "not done"})
}

func (r *Report) add(c check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checks = append(r.checks, c)
	r.line("%s: %s; %s: %s", c.verdict, c.promise, c.fault, c.figure)
}

// Violation is what must not be.
func (r *Report) Violation(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations[what] = append(r.violations[what], err)
	r.line("VIOLATION  %s: %v", what, err)
}

// Violations are how many there were of these kinds.
func (r *Report) Violations(kinds ...string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range kinds {
		n += len(r.violations[k])
	}
	return n
}

// History shows a history that cannot be explained.
func (r *Report) History(round int, f history.File, page string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, o := range f.Ops {
		fmt.Fprintf(&b, "    %v\n", o)
		if b.Len() > 16<<10 {
			fmt.Fprintf(&b, "    (and so on)\n")
			break
		}
	}
	fmt.Fprintf(r.w, "\nstore %q cannot be explained; a write of unknown outcome may have taken effect until %v after it began\n%s"+
		"    page:   %s\n    again:  make torture SEED=%d ROUND=%d\n\n", f.Store, f.Deadline, b.String(), page, r.seed, round)
}

func (r *Report) count() (n int) {
	for _, v := range r.violations {
		n += len(v)
	}
	return n
}

// Close writes the tables, and says whether all was well.
func (r *Report) Close() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	passed, failed := 0, 0
	t := tabwriter.NewWriter(r.w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\nPROMISE\tFAULT\tTEST\tFIGURE\t\n")
	for _, c := range r.checks {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.promise, c.fault, c.test, c.figure, c.verdict)
		switch c.verdict {
		case "passed":
			passed++
		case "FAILED":
			failed++
		}
	}
	_ = t.Flush()
	fmt.Fprint(t, "\nFAULT IN THE ROUNDS\tDONE\tPREVENTED BY ANOTHER\n")
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		fmt.Fprintf(t, "%s\t%d\t%d\n", name, r.faults[name].done, len(r.faults[name].notDone))
	}
	_ = t.Flush()
	fmt.Fprintln(r.w)
	for _, what := range slices.Sorted(maps.Keys(r.violations)) {
		fmt.Fprintf(r.w, "VIOLATION  %s: %d, as: %.2000v\n", what, len(r.violations[what]), r.violations[what][0])
	}
	if failed == 0 && r.count() > 0 {
		failed = 1
	}
	fmt.Fprintf(r.w, "seed %d, %.0f s, %d operations, %d crashes, %d violations\n%d passed, %d failed\n",
		r.seed, time.Since(r.begin).Seconds(), r.operations, r.crashes, r.count(), passed, failed)
	return failed == 0
}
