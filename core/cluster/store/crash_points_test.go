//go:build crashpoints

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A manager that is killed at each point of its life, one after the other, opens again with all that it had
// acknowledged, and goes on. Run it with -tags crashpoints.
func TestKilledAtEveryPoint(t *testing.T) {
	life := []string{"bootstrap"}
	for i := range 14 {
		life = append(life, fmt.Sprint("put n", i))
	}
	life = append(life, "snapshot", "put last", "snapshot", "put after", "close")
	died := 0
	for point := 1; ; point++ {
		arm := t.TempDir()
		if err := os.WriteFile(filepath.Join(arm, "arm"), []byte(fmt.Sprint(point)), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newProcess(t, filepath.Join(t.TempDir(), "p"))
		p.env = []string{"SAMPAN_CRASH=" + arm}
		p.start()
		var acknowledged []string
		whole := true
		for _, line := range life {
			answer := p.ask(line)
			if id, ok := strings.CutPrefix(line, "put "); ok && answer == "ok" {
				acknowledged = append(acknowledged, id)
			}
			if whole = answer == "ok"; !whole {
				break
			}
		}
		p.kill()
		trace, err := os.ReadFile(filepath.Join(arm, "trace"))
		if err != nil {
			t.Fatal(err)
		}
		points := strings.Split(strings.TrimSpace(string(trace)), "\n")
		if whole {
			t.Logf("%d points; the last: %s", len(points), points[len(points)-1])
			break
		}
		died++
		if len(points) != point {
			t.Fatalf("it has died at point %d, not at %d", len(points), point)
		}
		where := points[point-1]
		p.env = nil
		p.start()
		if len(acknowledged) == 0 {
			if got := p.ask("bootstrap"); got != "ok" && !strings.Contains(got, "is of another swarm") {
				t.Errorf("%d %s: bootstrap: %s", point, where, got)
			}
		}
		eventually(t, where+": a leader", func() bool { return p.ask("leads") == "ok" })
		p.must("put again")
		list := " " + p.ask("list") + " "
		for _, id := range acknowledged {
			if !strings.Contains(list, " "+id+" ") {
				t.Errorf("%d %s: %s was acknowledged and is lost", point, where, id)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(p.dir, "snapshots", "*.tmp")); len(left) > 0 {
			t.Errorf("%d %s: %v is left", point, where, left)
		}
		p.kill()
	}
	if died < 40 {
		t.Errorf("there were %d points only", died)
	}
}
