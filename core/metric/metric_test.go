package metric

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrite(t *testing.T) {
	r := NewRegistry()
	r.Func("states", "gauge", "By \"state\".\n\\", []string{"state"}, func() []Value { return []Value{{[]string{"run\"n\\ing\n"}, 2}, {[]string{"paused"}, 0}} })
	total := r.Counter("checks_total", "Checks.")
	r.Counter("by_total", "By.", "kind", "how").Add(1.5, "a", "b")
	h := r.Histogram("actions_seconds", "Actions.", []float64{0.1, 1}, "action")
	for _, v := range []float64{0.05, 0.1, 0.5, 7} {
		h.Observe(v, "start")
	}
	total.Add(1)
	total.Add(2)
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	const want = `# HELP actions_seconds Actions.
# TYPE actions_seconds histogram
actions_seconds_bucket{action="start",le="0.1"} 2
actions_seconds_bucket{action="start",le="1"} 3
actions_seconds_bucket{action="start",le="+Inf"} 4
actions_seconds_sum{action="start"} 7.65
actions_seconds_count{action="start"} 4
# HELP by_total By.
# TYPE by_total counter
by_total{kind="a",how="b"} 1.5
# HELP checks_total Checks.
# TYPE checks_total counter
checks_total 3
# HELP states By "state".\n\\
# TYPE states gauge
states{state="run\"n\\ing\n"} 2
states{state="paused"} 0
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
