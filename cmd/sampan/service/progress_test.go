package service

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

// record returns a display, and what it has shown since the last call.
func record() (*display, func() []string) {
	var lines []string
	d := &display{show: func(m wire.Message) error {
		line := m.ID + ": " + strings.TrimSpace(m.Status)
		if m.ProgressDetail != nil {
			line += " |"
		}
		lines = append(lines, line)
		return nil
	}}
	return d, func() []string {
		shown := lines
		lines = nil
		return shown
	}
}

func aTask(slot int, node, desired, state string) wire.Task {
	return wire.Task{Slot: slot, NodeID: node, DesiredState: desired, Status: wire.TaskStatus{State: state}}
}

func replicated(n uint64) *wire.Service {
	return &wire.Service{Spec: wire.ServiceSpec{Mode: wire.ServiceMode{Replicated: &wire.Replicated{Replicas: &n}}}}
}

// step is a look at the tasks, and what is shown of it.
type step struct {
	tasks    []wire.Task
	rollback bool
	done     bool
	want     []string
}

func checkSteps(t *testing.T, s *wire.Service, up map[string]bool, steps []step) {
	t.Helper()
	d, shown := record()
	v, err := newView(s, d)
	if err != nil {
		t.Fatal(err)
	}
	for i, st := range steps {
		done, err := v.update(s, st.tasks, up, st.rollback)
		if diff := cmp.Diff(st.want, shown()); diff != "" || done != st.done || err != nil {
			t.Errorf("step %d: %t, %v\n%s", i, done, err, diff)
		}
	}
}

func TestReplicatedView(t *testing.T) {
	failed := aTask(5, "up", "running", "preparing")
	failed.Status.Err = "no\nsuch image"
	checkSteps(t, replicated(2), map[string]bool{"up": true}, []step{
		{nil, false, false, []string{"overall progress: 0 out of 2 tasks", "1/2: ", "2/2: ", "overall progress: 0 out of 2 tasks"}},
		{
			[]wire.Task{
				aTask(5, "up", "running", "running"), aTask(3, "down", "running", "running"), aTask(3, "", "running", "pending"),
				aTask(3, "up", "shutdown", "running"), aTask(3, "up", "running", "orphaned"),
			}, false, false,
			[]string{"1/2: pending |", "2/2: running |", "overall progress: 1 out of 2 tasks"},
		},
		{[]wire.Task{aTask(3, "up", "running", "starting"), failed}, true, false, []string{"1/2: starting |", "2/2: no such image", "overall progress: rolling back update: 0 out of 2 tasks"}},
		{[]wire.Task{aTask(3, "up", "running", "running"), aTask(5, "up", "running", "running")}, false, true, []string{"1/2: running |", "2/2: running |", "overall progress: 2 out of 2 tasks"}},
		{[]wire.Task{aTask(3, "up", "running", "running"), aTask(5, "up", "running", "running")}, false, true, nil},
		{[]wire.Task{aTask(3, "up", "running", "running"), aTask(5, "up", "running", "failed")}, false, false, []string{"1/2: running |", "overall progress: 1 out of 2 tasks"}},
	})
	checkSteps(t, replicated(30), nil, []step{{nil, false, false, []string{"overall progress: 0 out of 30 tasks", "overall progress: 0 out of 30 tasks"}}})
	checkSteps(t, replicated(0), nil, []step{{nil, false, true, []string{"overall progress: 0 out of 0 tasks", "overall progress: 0 out of 0 tasks"}}})
}

func TestGlobalView(t *testing.T) {
	s := &wire.Service{Spec: wire.ServiceSpec{Mode: wire.ServiceMode{Global: &wire.Global{}}}}
	checkSteps(t, s, map[string]bool{"a": true, "b": true}, []step{
		{nil, false, false, []string{"overall progress: waiting for new tasks"}},
		{
			[]wire.Task{aTask(0, "b", "running", "new"), aTask(0, "a", "running", "running"), aTask(0, "c", "running", "running")}, false, false,
			[]string{"overall progress: 0 out of 3 tasks", "a: running |", "b: new |", "overall progress: 1 out of 3 tasks"},
		},
		{[]wire.Task{aTask(0, "b", "running", "running"), aTask(0, "a", "running", "running")}, false, true, []string{"a: running |", "b: running |", "overall progress: 2 out of 2 tasks"}},
	})
}

func TestJobView(t *testing.T) {
	of := func(iteration uint64, tasks ...wire.Task) []wire.Task {
		for i := range tasks {
			tasks[i].JobIteration = &wire.ObjectVersion{Index: iteration}
		}
		return tasks
	}
	total, atOnce := uint64(3), uint64(2)
	s := &wire.Service{
		Spec:      wire.ServiceSpec{Mode: wire.ServiceMode{ReplicatedJob: &wire.ReplicatedJob{MaxConcurrent: &atOnce, TotalCompletions: &total}}},
		JobStatus: &wire.JobStatus{JobIteration: wire.ObjectVersion{Index: 2}},
	}
	checkSteps(t, s, nil, []step{
		{
			of(1, aTask(0, "", "complete", "complete")), false, false,
			[]string{"job progress: 0 out of 3 complete |", "active tasks: 0 out of 2 tasks", "1/3: ", "2/3: ", "3/3: ", "job progress: 0 out of 3 complete |", "active tasks: 0 out of 2 tasks"},
		},
		{
			of(2, aTask(0, "", "complete", "complete"), aTask(1, "", "complete", "running"), aTask(2, "", "complete", "pending")), false, false,
			[]string{"1/3: complete |", "2/3: running |", "3/3: pending |", "job progress: 1 out of 3 complete |", "active tasks: 2 out of 2 tasks"},
		},
		{
			of(2, aTask(0, "", "complete", "complete"), aTask(1, "", "complete", "complete"), aTask(2, "", "complete", "complete")), false, true,
			[]string{"1/3: complete |", "2/3: complete |", "3/3: complete |", "job progress: 3 out of 3 complete |", "active tasks: 0 out of 0 tasks"},
		},
	})
	s.Spec.Mode = wire.ServiceMode{GlobalJob: &wire.Global{}}
	checkSteps(t, s, map[string]bool{"a": true}, []step{
		{nil, false, false, []string{"job progress: waiting for tasks"}},
		{of(2, aTask(0, "a", "complete", "running")), false, false, []string{"job progress: 0 out of 1 complete |", "a: running |", "job progress: 0 out of 1 complete |"}},
		{of(2, aTask(0, "a", "complete", "complete"), aTask(0, "b", "complete", "running")), false, true, []string{"a: complete |", "job progress: 1 out of 1 complete |"}},
	})
}

func TestUpdateStatus(t *testing.T) {
	d, shown := record()
	w := &waiter{display: *d}
	for _, tt := range []struct {
		state, message string
		done           bool
		fails          string
		want           []string
	}{
		{"updating", "", false, "", nil},
		{"rollback_started", "why", false, "", []string{"rollback: why"}},
		{"rollback_started", "why", false, "", nil},
		{"paused", "why", true, "service update paused: why", nil},
		{"rollback_paused", "why", true, "service rollback paused: why", nil},
		{"completed", "", true, "", nil},
		{"something", "", false, "", nil},
	} {
		done, err := w.status(&wire.UpdateStatus{State: tt.state, Message: tt.message})
		if (err != nil) != (tt.fails != "") || err != nil && err.Error() != tt.fails || done != tt.done {
			t.Errorf("%s: %t, %v", tt.state, done, err)
		}
		if diff := cmp.Diff(tt.want, shown()); diff != "" {
			t.Errorf("%s: %s", tt.state, diff)
		}
	}
}
