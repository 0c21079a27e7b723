package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

// change is one change of tables.
func change(t *testing.T, m *store.Memory, fn func(store.Writer)) {
	t.Helper()
	if err := m.Update(t.Context(), func(w store.Writer) error { fn(w); return nil }); err != nil {
		t.Fatal(err)
	}
}

func tables(t *testing.T, now func() time.Time) *store.Memory {
	t.Helper()
	m := store.NewMemory(now)
	change(t, m, func(w store.Writer) {
		c := &store.Cluster{}
		c.ID, c.Spec.CAConfig.NodeCertExpiry = "swarm", time.Hour
		w.PutCluster(c)
		for i := range 4 {
			w.PutNode(newNode(fmt.Sprintf("n%d", i), wire.RoleWorker, wire.AvailabilityActive, "", "192.0.2.1:2377"))
		}
	})
	return m
}

// A node that was removed is remembered for as long as it may have a certificate, be that of a time when they were good for
// longer.
func TestRemovedNodesAreForgotten(t *testing.T) {
	now := time.Now()
	m := tables(t, func() time.Time { return now })
	is := func(want ...string) {
		t.Helper()
		got := []string{}
		for _, f := range m.Reader().Cluster().Removed {
			got = append(got, f.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	remove := func(id string) { change(t, m, func(w store.Writer) { expel(w, id, now) }) }
	remove("n0")
	if c := m.Reader().Cluster(); !c.HasRemoved("n0") || c.HasRemoved("n1") {
		t.Errorf("removed: %+v", c.Removed)
	}
	now = now.Add(time.Hour)
	remove("n1")
	is("n0", "n1")
	now = now.Add(identity.Skew + time.Second)
	change(t, m, func(w store.Writer) { // the user wants certificates of half that time
		c := *w.Cluster()
		c.LongestCert = longestCert(&c)
		c.Spec.CAConfig.NodeCertExpiry = time.Hour / 2
		w.PutCluster(&c)
	})
	remove("n2")
	is("n1", "n2")
	now = now.Add(time.Hour / 2)
	remove("n3")
	is("n1", "n2", "n3")
	if until := m.Reader().Cluster().Removed[2].Until; !until.Equal(now.Add(time.Hour + identity.Skew)) {
		t.Errorf("until %s", until)
	}
}

// A node is removed whatever it runs: its tasks may be more than one change can have.
func TestRemoveANodeOfManyTasks(t *testing.T) {
	m := tables(t, time.Now)
	const tasks = 60
	for i := range tasks {
		change(t, m, func(w store.Writer) {
			task := &wire.Task{ID: fmt.Sprintf("t%d", i), NodeID: "n0", Status: wire.TaskStatus{State: wire.TaskRunning}}
			task.Spec.ContainerSpec = &wire.ContainerSpec{Env: []string{"TEXT=" + strings.Repeat("a", 200<<10)}}
			w.PutTask(task)
		})
	}
	change(t, m, func(w store.Writer) { expel(w, "n0", time.Now()) })
	orphans := 0
	for _, task := range m.Reader().TasksOn("n0") {
		if task.Status.State == wire.TaskOrphaned {
			orphans++
		}
	}
	if m.Reader().Node("n0") != nil || orphans == 0 || orphans == tasks {
		t.Errorf("%d tasks are given up, and the node is %+v", orphans, m.Reader().Node("n0"))
	}
}
