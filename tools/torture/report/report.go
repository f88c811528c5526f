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
	"time"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/model"
	"github.com/vss-cloud/vss-cloud/tools/torture/workload"
)

// Report gathers. It is safe for concurrent use.
type Report struct {
	w     io.Writer
	begin time.Time
	seed  uint64

	mu         sync.Mutex
	status     string
	operations int64
	crashes    int64
	saved      int64
	judged     map[model.Verdict]int
	judgedOps  int
	judging    time.Duration
	faults     map[string]*tally
	violations map[string][]error
	slowest    time.Duration
	verified   int
	wallets    workload.Tally
	rows       []row
}

type tally struct {
	done    int
	notDone []error
}

type row struct{ what, figure string }

// New makes a report that writes to w.
func New(w io.Writer, seed uint64) *Report {
	return &Report{w: w, begin: time.Now(), seed: seed, judged: make(map[model.Verdict]int),
		faults: make(map[string]*tally), violations: make(map[string][]error)}
}

func (r *Report) line(format string, args ...any) {
	fmt.Fprintf(r.w, "torture %6.1f s  %s\n", time.Since(r.begin).Seconds(), fmt.Sprintf(format, args...))
}

// Status says what is being done.
func (r *Report) Status(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = fmt.Sprintf(format, args...)
	r.line("%s", r.status)
}

// Count says how much there was so far.
func (r *Report) Count(operations, crashes, saved int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.operations, r.crashes, r.saved = operations, crashes, saved
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

// Judged counts a verdict.
func (r *Report) Judged(v model.Verdict, ops int, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.judged[v]++
	r.judgedOps += ops
	r.judging += took
}

// Slowest says how long an attempt took that was answered.
func (r *Report) Slowest(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slowest = max(r.slowest, d)
}

// Verified counts stores that were read again.
func (r *Report) Verified(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verified += n
}

// Wallet adds what a wallet saw.
func (r *Report) Wallet(t workload.Tally) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wallets.Calls += t.Calls
	r.wallets.Saved += t.Saved
	r.wallets.Errors = append(r.wallets.Errors, t.Errors...)
	r.wallets.Wrong = append(r.wallets.Wrong, t.Wrong...)
	if t.Longest > r.wallets.Longest {
		r.wallets.Longest, r.wallets.At = t.Longest, t.At
	}
}

// Row adds a line to the table.
func (r *Report) Row(what, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row{what, fmt.Sprintf(format, args...)})
}

// Violation is what must not be.
func (r *Report) Violation(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations[what] = append(r.violations[what], err)
	r.line("VIOLATION  %s: %v", what, err)
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

// Close writes the table, and says whether all was well.
func (r *Report) Close() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := []row{
		{"seed", fmt.Sprint(r.seed)},
		{"time", fmt.Sprintf("%.0f s", time.Since(r.begin).Seconds())},
		{"operations", fmt.Sprint(r.operations)},
		{"acknowledged writes", fmt.Sprint(r.saved)},
		{"crashes", fmt.Sprint(r.crashes)},
		{"histories judged", fmt.Sprintf("%d linearizable, %d so key by key, %d violated, %d undecided (%d operations in %.1f s)",
			r.judged[model.Linearizable], r.judged[model.KeyByKey], r.judged[model.Violated], r.judged[model.Undecided],
			r.judgedOps, r.judging.Seconds())},
		{"settled stores read again", fmt.Sprint(r.verified)},
		{"slowest answer", fmt.Sprintf("%.2f s", r.slowest.Seconds())},
		{"wallets", fmt.Sprintf("%d calls, %d errors, longest %.2f s (at %.1f s)", r.wallets.Calls, len(r.wallets.Errors),
			r.wallets.Longest.Seconds(), r.wallets.At.Seconds())},
	}
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		t := r.faults[name]
		figure := fmt.Sprintf("%d times", t.done)
		if len(t.notDone) > 0 {
			figure += fmt.Sprintf(", %d times not: %.100q", len(t.notDone), t.notDone[0])
		}
		rows = append(rows, row{name, figure})
	}
	rows = append(rows, r.rows...)
	width := 0
	for _, row := range rows {
		width = max(width, len(row.what))
	}
	fmt.Fprintln(r.w)
	for _, row := range rows {
		fmt.Fprintf(r.w, "  %-*s  %s\n", width, row.what, row.figure)
	}
	for _, what := range slices.Sorted(maps.Keys(r.violations)) {
		fmt.Fprintf(r.w, "  %-*s  %d, as: %.500v\n", width, strings.ToUpper(what), len(r.violations[what]), r.violations[what][0])
	}
	fmt.Fprintf(r.w, "\n%d violations\n", r.count())
	return r.count() == 0
}
