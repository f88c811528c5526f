package report_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/vss-cloud/vss-cloud/tools/torture/history"
	"github.com/vss-cloud/vss-cloud/tools/torture/report"
)

// The last line is what .ci/run counts.
func TestTheLastLineCountsTheTable(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*report.Report)
		ok   bool
		last string
	}{
		"all passed": {func(r *report.Report) {
			r.Check("p", "f", "t", true, "%d of 2", 2)
			r.Skip("p", "g", "t", "no root")
		}, true, "1 passed, 0 failed"},
		"one failed": {func(r *report.Report) {
			r.Check("p", "f", "t", true, "fine")
			r.Check("p", "g", "t", false, "not fine")
		}, false, "1 passed, 1 failed"},
		"a violation that no line is about": {func(r *report.Report) {
			r.Check("p", "f", "t", true, "fine")
			r.Violation("lost", errors.New("a write"))
		}, false, "1 passed, 1 failed"},
	} {
		var out strings.Builder
		r := report.New(&out, 7)
		test.do(r)
		ok := r.Close()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if ok != test.ok || lines[len(lines)-1] != test.last {
			t.Errorf("%s: %t, %q", name, ok, lines[len(lines)-1])
		}
	}
}

func TestAFaultThatWasPreventedIsNotDone(t *testing.T) {
	r := report.New(&strings.Builder{}, 7)
	f := history.Fault{Name: "locks held"}
	r.Fault(f, errors.New("no connection"))
	if times, why := r.Done(f.Name); times != 0 || why == nil {
		t.Errorf("%d times, %v", times, why)
	}
	r.Fault(f, nil)
	if times, _ := r.Done(f.Name); times != 1 {
		t.Errorf("%d times", times)
	}
}
