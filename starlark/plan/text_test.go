package plan_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/plan"
)

func TestPrint(t *testing.T) {
	web := graph.Address{Kind: graph.KindContainer, Name: "web"}
	old := map[string]any{"image": "a:1", "memory": int64(64 << 20), "env": map[string]string{"A": "1", "B": "2"}, "cpus": int64(5e8),
		"health": graph.Health{Test: []string{"CMD-SHELL", "true"}, Interval: 1e9}}
	wanted := map[string]any{"image": "a:1", "memory": int64(80 << 20), "env": map[string]string{"A": "1", "C": "3"}, "cpus": int64(2e9), "tty": true, "ports": []string{":80:80/tcp"},
		"health": graph.Health{Test: []string{"CMD", "check", "-q"}, Interval: 15e8, StartPeriod: 60e9, Retries: 2}}
	p := &plan.Plan{Env: "shop", Unchanged: 2, Changes: []plan.Change{
		{Action: plan.Replace, Address: web, At: "env.star:1:1", Attributes: plan.Compare(graph.Canonical(old), graph.Canonical(wanted))},
		{Action: plan.Start, Address: web, Reason: "it has ended with status 1"},
		{Action: plan.Delete, Address: graph.Address{Kind: graph.KindVolume, Name: "data"}, Reason: "no longer declared"},
	}}
	var b strings.Builder
	p.Print(&b)
	want := `± container.web: replace  (env.star:1:1)
    cpus: 0.5 -> 2
    env["B"]: "2" -> (not set)
    env["C"]: (not set) -> "3"
    health: probe.shell("true", interval = "1s") -> probe.exec(["check", "-q"], interval = "1.5s", start_period = "1m0s", retries = 2)
    memory: "64m" -> "80m"
    ports: (not set) -> [":80:80/tcp"]
    tty: (not set) -> True
> container.web: start: it has ended with status 1
- volume.data: delete: no longer declared  its data is lost
shop: 1 to replace, 1 to start, 1 to delete, 2 as wanted
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
