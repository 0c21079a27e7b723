package orchestrator

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func reserves(cpu, memory int64) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) {
		s.TaskTemplate.Resources = &wire.TaskResources{Reservations: &wire.NodeResources{NanoCPUs: cpu, MemoryBytes: memory}}
	}
}

func placement(p wire.Placement) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) { s.TaskTemplate.Placement = &p }
}

func host(port uint32) wire.ServicePort {
	return wire.ServicePort{TargetPort: 80, PublishedPort: port, PublishMode: wire.PublishHost}
}

func TestNoSuitableNode(t *testing.T) {
	for _, tt := range []struct {
		name   string
		world  func(*world)
		spec   wire.ServiceSpec
		placed int
		err    string
	}{
		{"no node", nil, spec("web", 1), 0, "no suitable node"},
		{"constraint", nodes("a", "b"), spec("web", 1, constrained("node.role==manager")), 0, "no suitable node (scheduling constraints not satisfied on 2 nodes)"},
		{"constraint on one", nodes("a"), spec("web", 1, constrained("node.hostname!=host-a")), 0, "no suitable node (scheduling constraints not satisfied on 1 node)"},
		{"memory", nodes("a"), spec("web", 3, reserves(0, 3<<30)), 2, "no suitable node (insufficient resources on 1 node)"},
		{"processors", nodes("a", "b"), spec("web", 9, reserves(1e9, 0)), 8, "no suitable node (insufficient resources on 2 nodes)"},
		{"drained", func(w *world) { w.node("a", nil); w.available("a", wire.AvailabilityDrain) }, spec("web", 1), 0, "no suitable node (1 node not available for new tasks)"},
		{"down and constraint", func(w *world) { nodes("a", "b", "c")(w); w.state("b", wire.NodeDown) }, spec("web", 1, constrained("node.id==d")), 0, "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)"},
		{"platform", nodes("a"), spec("web", 1, placement(wire.Placement{Platforms: []wire.NodePlatform{{Architecture: "arm64", OS: "linux"}}})), 0, "no suitable node (unsupported platform on 1 node)"},
		{"host port", nodes("a", "b"), spec("web", 3, publishes(host(8080))), 2, "no suitable node (host-mode port already in use on 2 nodes)"},
		{"maximum", nodes("a", "b"), spec("web", 5, placement(wire.Placement{MaxReplicas: 2})), 4, "no suitable node (max replicas per node limit exceed)"},
		{"log driver", func(w *world) {
			w.node("a", func(n *wire.Node) { n.Description.Engine.Plugins = []wire.NodePlugin{{Type: "Log", Name: "json-file"}} })
		}, spec("web", 1, func(s *wire.ServiceSpec) { s.TaskTemplate.LogDriver = &wire.NamedDriver{Name: "gelf"} }), 0, "no suitable node (missing plugin on 1 node)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.world != nil {
				tt.world(w)
			}
			w.create(tt.spec)
			w.pass(time.Minute)
			running := 0
			for _, task := range w.wanted("web") {
				if task.Status.State == wire.TaskRunning {
					running++
					continue
				}
				expect(w, "state", task.Status.State, wire.TaskPending)
				expect(w, "message", task.Status.Message, "pending task scheduling")
				expect(w, "error", task.Status.Err, tt.err)
				expect(w, "node", task.NodeID, "")
			}
			expect(w, "tasks that run", running, tt.placed)
		})
	}
}

func nodes(ids ...string) func(*world) {
	return func(w *world) {
		for _, id := range ids {
			w.node(id, nil)
		}
	}
}

func TestPendingTaskIsPlacedWhenANodeComes(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 1, constrained("node.labels.disk == ssd")))
	w.settle()
	expect(w, "state", w.tasks("web")[0].Status.State, wire.TaskPending)
	w.label("a", "disk", "SSD")
	w.settle()
	expect(w, "state", w.tasks("web")[0].Status.State, wire.TaskRunning)
	expect(w, "error", w.tasks("web")[0].Status.Err, "")
}

func TestPlatforms(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 1, placement(wire.Placement{Platforms: []wire.NodePlatform{{Architecture: "arm64", OS: "linux"}, {Architecture: "amd64", OS: "linux"}}})))
	w.settle()
	expect(w, "state", w.tasks("web")[0].Status.State, wire.TaskRunning)
}

// A node may be as full as it is: what asks for nothing can still run there.
func TestFullNodeTakesWhatReservesNothing(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("big", 1, reserves(4e9, 8<<30)))
	w.create(spec("web", 1))
	w.settle()
	expect(w, "state", w.tasks("web")[0].Status.State, wire.TaskRunning)
}

func TestPreferences(t *testing.T) {
	w := newWorld(t, "a", "b", "c", "d")
	for id, zone := range map[string]string{"a": "north", "b": "north", "c": "north", "d": "south"} {
		w.label(id, "zone", zone)
	}
	w.create(spec("web", 6, placement(wire.Placement{Preferences: []wire.PlacementPreference{{Spread: &wire.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}})))
	w.settle()
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1, "c": 1, "d": 3}, w.on("web")); diff != "" {
		t.Error(diff)
	}
	// When the south is full, the north takes the rest.
	w.create(spec("big", 6, reserves(2e9, 0), placement(wire.Placement{Preferences: []wire.PlacementPreference{{Spread: &wire.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}})))
	w.settle()
	expect(w, "in the south", w.on("big")["d"], 2)
	expect(w, "nowhere", w.on("big")[""], 0)
}

func TestTwoPreferences(t *testing.T) {
	w := newWorld(t)
	for i, at := range []struct{ zone, rack string }{{"n", "0"}, {"n", "0"}, {"n", "1"}, {"s", "0"}, {"s", "1"}, {"s", "1"}} {
		w.node(fmt.Sprint(i), func(n *wire.Node) {
			n.Spec.Labels = map[string]string{"zone": at.zone, "rack": at.rack}
		})
	}
	spread := func(keys ...string) (all []wire.PlacementPreference) {
		for _, k := range keys {
			all = append(all, wire.PlacementPreference{Spread: &wire.SpreadOver{SpreadDescriptor: "node.labels." + k}})
		}
		return all
	}
	w.create(spec("web", 4, placement(wire.Placement{Preferences: spread("zone", "rack")})))
	w.settle()
	if diff := cmp.Diff(map[string]int{"0": 1, "2": 1, "3": 1, "4": 1}, w.on("web")); diff != "" {
		t.Error(diff)
	}
	w.change("web", scale(8))
	w.settle()
	if diff := cmp.Diff(map[string]int{"0": 1, "1": 1, "2": 2, "3": 2, "4": 1, "5": 1}, w.on("web")); diff != "" {
		t.Error(diff)
	}
}

// Tasks that are about to end do not make a node look full.
func TestTasksThatEndDoNotCount(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("old", 2, constrained("node.id==a")))
	w.create(spec("other", 1, constrained("node.id==b")))
	w.settle()
	w.change("old", scale(0))
	w.step()
	w.create(spec("web", 1))
	w.step()
	if diff := cmp.Diff(map[string]int{"a": 1}, w.on("web")); diff != "" {
		t.Error(diff)
	}
}

// A node on which the service fails again and again is given no more of it, as long as there is another.
func TestFailingNodeIsAvoided(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.fate = func(task *wire.Task) string {
		if task.NodeID == "a" {
			return wire.TaskFailed
		}
		return ""
	}
	w.create(spec("web", 4, restarts(wire.RestartAny, time.Second, 0, 0)))
	w.pass(time.Minute)
	if diff := cmp.Diff(map[string]int{"b": 4}, w.on("web")); diff != "" {
		t.Errorf("%s\n%s", diff, w.list())
	}
}

func TestHostPortIsFreeOnceTheOldTaskEnded(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 1, publishes(host(8080))))
	w.settle()
	w.change("web", image(2))
	w.step()
	expect(w, "error", w.wanted("web")[0].Status.Err, "no suitable node (host-mode port already in use on 1 node)")
	w.pass(time.Minute)
	expect(w, "state", w.wanted("web")[0].Status.State, wire.TaskRunning)
}

func TestConstraints(t *testing.T) {
	node := &wire.Node{ID: "n1"}
	node.Spec.Role = wire.RoleManager
	node.Spec.Labels = map[string]string{"Zone": "north"}
	node.Status.Addr = "10.0.0.7"
	node.Description = wire.NodeDescription{Hostname: "Host", Platform: wire.NodePlatform{OS: "linux", Architecture: "x86_64"}}
	node.Description.Engine.Labels = map[string]string{"gpu": "2"}
	for text, want := range map[string]bool{
		"node.id==n1": true, "node.id == N1": true, "node.id!=n1": false, "node.id==n2": false,
		"node.hostname==host": true, "NODE.HOSTNAME==host": true, "node.hostname!=other": true,
		"node.role==manager": true, "node.role!=manager": false, "node.role==worker": false,
		"node.platform.os==linux": true, "node.platform.arch==x86_64": true, "node.platform.arch==arm64": false,
		"node.labels.Zone==north": true, "node.labels.zone==north": false, "node.labels.zone!=north": true, "node.labels.none!=x": true,
		"engine.labels.gpu==2": true, "engine.labels.gpu!=2": false,
		"node.ip==10.0.0.7": true, "node.ip==10.0.0.0/8": true, "node.ip!=10.0.0.0/8": false, "node.ip==11.0.0.0/8": false, "node.ip==ten": false, "node.ip!=ten": false,
		"node.color==red": false, "node.color!=red": false,
	} {
		all, err := parseConstraints([]string{text})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := matches(all, node); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestConstraintsThatMeanNothing(t *testing.T) {
	for text, want := range map[string]string{
		"node.role":         "constraint expected one operator from ==, !=",
		"node.role=manager": "constraint expected one operator from ==, !=",
		"":                  "constraint expected one operator from ==, !=",
		"1node==a":          "key '1node' is invalid",
		"node.role==":       "value '' is invalid",
		"node.role==a;b":    "value 'a;b' is invalid",
		"node.role==>a":     "value '>a' is invalid",
	} {
		_, err := parseConstraints([]string{text})
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
