package store

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sampan-project/sampan/core/wire"
)

// numbers are the parts of a dump that count entries of a log: Raft has some of its own between ours.
var numbers = regexp.MustCompile(`"(index|Index)":\d+`)

func like(t *testing.T, s state) string { return numbers.ReplaceAllString(dump(t, s), `"$1":0`) }

// step is one change of the state, drawn.
type step struct {
	kind, id, value string
	remove          bool
	at              time.Time
}

func steps(rt *rapid.T) []step {
	one := rapid.Custom(func(rt *rapid.T) step {
		return step{
			kind:   rapid.SampledFrom([]string{kindCluster, kindNode, kindService, kindTask, kindAuth}).Draw(rt, "kind"),
			id:     rapid.SampledFrom([]string{"a", "b", "c", "ab", "é<&>"}).Draw(rt, "id"),
			value:  rapid.SampledFrom([]string{"", "a", "b", "c", "ab", "\u2028"}).Draw(rt, "value"),
			remove: rapid.Bool().Draw(rt, "remove"),
			at:     time.Unix(rapid.Int64Range(-1, 1).Draw(rt, "at"), 5),
		}
	})
	return rapid.SliceOfN(one, 1, 6).Draw(rt, "steps")
}

// do makes the steps in an Update, which fails at its end when it is told so.
func do(list []step, fail bool) func(Writer) error {
	return func(w Writer) error {
		for _, s := range list {
			s.do(w)
		}
		if fail {
			return errors.New("no")
		}
		return nil
	}
}

func (s step) do(w Writer) {
	meta := wire.ObjectMeta{}
	if s.value == "ab" {
		meta.CreatedAt = s.at
	}
	switch {
	case s.kind == kindCluster:
		w.PutCluster(&Cluster{SwarmInfo: wire.SwarmInfo{ID: "swarm", ObjectMeta: meta}, WorkerToken: s.value, RootKey: []byte(s.id)})
	case s.kind == kindNode && s.remove:
		w.DeleteNode(s.id)
	case s.kind == kindNode:
		w.PutNode(&wire.Node{ID: s.id, ObjectMeta: meta, Description: wire.NodeDescription{Resources: wire.NodeResources{GenericResources: []any{s.value}}}})
	case s.kind == kindService && s.remove:
		w.DeleteService(s.id)
	case s.kind == kindService:
		n := uint64(len(s.value))
		w.PutService(&wire.Service{ID: s.id, ObjectMeta: meta, Spec: wire.ServiceSpec{
			Annotations: wire.Annotations{Name: s.value, Labels: map[string]string{"z": s.value, "a": s.id}},
			Mode:        wire.ServiceMode{Replicated: &wire.Replicated{Replicas: &n}},
		}})
	case s.kind == kindTask && s.remove:
		w.DeleteTask(s.id)
	case s.kind == kindTask:
		w.PutTask(&wire.Task{ID: s.id, ObjectMeta: meta, NodeID: s.value, ServiceID: s.id, Status: wire.TaskStatus{Timestamp: s.at}})
	case s.remove:
		w.PutAuth(s.id, "")
	default:
		w.PutAuth(s.id, s.value)
	}
}

// sound fails unless the indexes of a state say what its tables do.
func sound(t *testing.T, rt *rapid.T, r Reader) {
	t.Helper()
	of, on := 0, 0
	for _, owner := range []string{"", "a", "b", "c", "ab", "é<&>", "\u2028"} {
		for _, task := range r.TasksOf(owner) {
			if of++; task.ServiceID != owner || r.Task(task.ID) != task {
				rt.Errorf("TasksOf(%q) has %+v", owner, task)
			}
		}
		for _, task := range r.TasksOn(owner) {
			if on++; task.NodeID != owner || r.Task(task.ID) != task {
				rt.Errorf("TasksOn(%q) has %+v", owner, task)
			}
		}
	}
	if all := len(r.Tasks()); of != all || on != all {
		rt.Errorf("%d tasks, %d of services, %d on nodes", all, of, on)
	}
	if !slices.IsSortedFunc(r.Tasks(), func(a, b *wire.Task) int {
		return a.CreatedAt.Compare(b.CreatedAt)
	}) {
		rt.Error("tasks are not in the order of their creation")
	}
}

// Whatever is changed, and whoever restarts in between: all managers, and tables without managers, have the same.
func TestManagersHaveWhatMemoryHas(t *testing.T) {
	s := three(t, Options{SnapshotEntries: 8, KeepEntries: 2})
	// A time for both: the store asks once, then the tables.
	var mu sync.Mutex
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("here", 3600))
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return at
	}
	for _, m := range s.members {
		m.now = now
	}
	s.options.Now = now
	memory := NewMemory(now)
	rounds := 0
	rapid.Check(t, func(rt *rapid.T) {
		mu.Lock()
		at = at.Add(time.Duration(rapid.Int64Range(-5, 100).Draw(rt, "seconds")) * time.Second)
		mu.Unlock()
		list, fail := steps(rt), rapid.IntRange(0, 9).Draw(rt, "fail") == 0
		want := memory.Update(limited(t), do(list, fail))
		var got error
		for again := true; again; {
			got = s.leader().Update(limited(t), do(list, fail))
			again = errors.Is(got, ErrNotLeader)
			if errors.Is(got, ErrUncertain) { // the next leader knows
				got = want
				again = like(t, *s.leader().current()) != like(t, *memory.current())
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			rt.Fatalf("the store: %v; memory: %v", got, want)
		}
		if rounds++; rounds%10 == 0 {
			m := s.members[rounds/10%3]
			m.kill()
			m.start()
		}
		is := *s.leader().current()
		if diff := cmp.Diff(like(t, *memory.current()), like(t, is)); diff != "" {
			rt.Fatal(diff)
		}
		sound(t, rt, &is)
		if rounds%5 == 0 {
			s.agree()
		}
	})
	s.agree()
}
