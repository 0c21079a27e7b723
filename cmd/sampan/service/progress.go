package service

import (
	"fmt"
	"maps"
	"slices"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// running shows the tasks of a service that shall run: as many as there are replicas, or one on each node.
type running struct {
	*display
	begun, done bool
	lines       map[int]int // by slot: which line
}

func (r *running) overall(have, of int, rollback bool) {
	text := fmt.Sprintf("%d out of %d tasks", have, of)
	if rollback {
		text = "rolling back update: " + text
	}
	r.line("overall progress", text)
}

func (r *running) update(s *wire.Service, tasks []wire.Task, up map[string]bool, rollback bool) (bool, error) {
	current := r.current(s, tasks, up)
	total := len(current)
	if replicated := s.Spec.Mode.Replicated; replicated != nil && replicated.Replicas != nil {
		total = int(*replicated.Replicas) //nolint:gosec // the daemon bounds it
	} else if !r.begun && total == 0 {
		r.line("overall progress", "waiting for new tasks") // none is made yet, or no node is fit for one
		return false, nil
	}
	if !r.begun {
		r.begun = true
		r.overall(0, total, rollback)
		for i := 1; s.Spec.Mode.Replicated != nil && i <= total && total <= mostBars; i++ {
			r.line(fmt.Sprintf("%d/%d", i, total), " ")
		}
	}
	if r.done && slices.ContainsFunc(current, func(t wire.Task) bool { return t.Status.State != wire.TaskRunning }) {
		r.done = false
	}
	have := 0
	for i := range current {
		t := &current[i]
		if s.Spec.Mode.Replicated == nil && !up[t.NodeID] {
			continue
		}
		if !ended(t.DesiredState) && t.Status.State == wire.TaskRunning {
			have++
		}
		if id := r.id(s, t, total); id != "" && (t.Status.Err != "" || !ended(t.DesiredState) && !ended(t.Status.State)) {
			r.bar(id, t, place(wire.TaskRunning))
		}
	}
	if !r.done {
		r.overall(have, total, rollback)
		r.done = have == total
	}
	return have == total, nil
}

// id is the name of a task's line; "" if it has none.
func (r *running) id(s *wire.Service, t *wire.Task, total int) string {
	if s.Spec.Mode.Replicated == nil {
		if r.done || total > mostBars {
			return ""
		}
		return cli.Short(t.NodeID)
	}
	line := r.lines[t.Slot]
	if line == 0 { // slots may have gaps, lines have none
		line = len(r.lines) + 1
		r.lines[t.Slot] = line
	}
	if r.done || total > mostBars || line > total {
		return ""
	}
	return fmt.Sprintf("%d/%d", line, total)
}

// current is the task of each slot, or of each node, that counts: of more than one that which is furthest from its
// end. In a slot only those count whose nodes are up.
func (r *running) current(s *wire.Service, tasks []wire.Task, up map[string]bool) []wire.Task {
	type where struct {
		slot int
		node string
	}
	counts := map[where]wire.Task{}
	for _, t := range tasks {
		if place(t.DesiredState) == 0 || place(t.Status.State) == 0 {
			continue
		}
		at := where{node: t.NodeID}
		if s.Spec.Mode.Replicated != nil {
			at = where{slot: t.Slot}
			if t.NodeID != "" && !up[t.NodeID] {
				continue
			}
		}
		if other, ok := counts[at]; !ok || before(&t, &other) {
			counts[at] = t
		}
	}
	return slices.SortedFunc(maps.Values(counts), func(a, b wire.Task) int {
		if a.Slot != b.Slot {
			return a.Slot - b.Slot
		}
		return cli.Natural(a.NodeID, b.NodeID)
	})
}

// before reports whether a task is further from its end than another: by what is wanted of it, then by what it is.
func before(t, other *wire.Task) bool {
	if a, b := place(t.DesiredState), place(other.DesiredState); a != b {
		return a < b
	}
	return place(t.Status.State) < place(other.Status.State)
}

// job shows the tasks of a service that shall end well: a number of them, or one on each node that there is at the
// beginning.
type job struct {
	*display
	begun bool
	total int
	nodes map[string]bool
}

func (j *job) update(s *wire.Service, tasks []wire.Task, up map[string]bool, _ bool) (bool, error) {
	tasks = slices.DeleteFunc(tasks, func(t wire.Task) bool {
		return s.JobStatus == nil || t.JobIteration == nil || *t.JobIteration != s.JobStatus.JobIteration || place(t.DesiredState) == 0 || place(t.Status.State) == 0
	})
	if s.Spec.Mode.GlobalJob != nil {
		return j.global(tasks, up)
	}
	replicated := s.Spec.Mode.ReplicatedJob
	if replicated == nil || replicated.TotalCompletions == nil || replicated.MaxConcurrent == nil {
		return false, fault.New(fault.Internal, "the daemon does not say how many tasks the job has")
	}
	j.total = int(*replicated.TotalCompletions)         //nolint:gosec // the daemon bounds it
	atOnce, active := int(*replicated.MaxConcurrent), 0 //nolint:gosec // the daemon bounds it
	if !j.begun {
		j.begun = true
		j.overall(0)
		j.active(0, atOnce, 0)
		for i := 1; i <= j.total && j.total <= mostBars; i++ {
			j.line(fmt.Sprintf("%d/%d", i, j.total), " ")
		}
	}
	complete := 0
	for _, t := range latest(tasks, func(t *wire.Task) string { return fmt.Sprintf("%09d", t.Slot) }) {
		switch {
		case t.Status.State == wire.TaskComplete:
			complete++
		case !ended(t.Status.State):
			active++
		}
		if j.total <= mostBars {
			j.bar(fmt.Sprintf("%d/%d", t.Slot+1, j.total), &t, place(wire.TaskComplete))
		}
	}
	j.overall(complete)
	j.active(active, atOnce, complete)
	return complete == j.total, nil
}

func (j *job) global(tasks []wire.Task, up map[string]bool) (bool, error) {
	if !j.begun {
		if len(tasks) == 0 && len(up) > 0 {
			j.line("job progress", "waiting for tasks")
			return false, nil
		}
		j.begun, j.nodes = true, map[string]bool{}
		for _, t := range tasks {
			j.nodes[t.NodeID] = true // those that come later are not waited for
		}
		j.total = len(j.nodes)
		j.overall(0)
	}
	tasks = slices.DeleteFunc(tasks, func(t wire.Task) bool { return !j.nodes[t.NodeID] })
	complete := 0
	for _, t := range latest(tasks, func(t *wire.Task) string { return t.NodeID }) {
		if j.total <= mostBars {
			j.bar(t.NodeID, &t, place(wire.TaskComplete))
		}
		if t.Status.State == wire.TaskComplete {
			complete++
		}
	}
	j.overall(complete)
	return complete == j.total, nil
}

// latest is the task at each place that is the furthest from its end, in the order of the places.
func latest(tasks []wire.Task, at func(*wire.Task) string) []wire.Task {
	by := map[string]wire.Task{}
	for _, t := range tasks {
		if other, ok := by[at(&t)]; !ok || place(t.Status.State) < place(other.Status.State) {
			by[at(&t)] = t
		}
	}
	list := make([]wire.Task, 0, len(by))
	for _, key := range slices.Sorted(maps.Keys(by)) {
		list = append(list, by[key])
	}
	return list
}

func (j *job) overall(complete int) {
	j.print(wire.Message{
		ID: "job progress", Status: fmt.Sprintf("%*d out of %d complete", digits(j.total), complete, j.total),
		ProgressDetail: &wire.Progress{Current: int64(complete), Total: int64(j.total), HideCounts: true},
	})
}

// active tells how many tasks are under way, out of as many as there may be.
func (j *job) active(now, atOnce, complete int) {
	width := digits(atOnce)
	j.line("active tasks", fmt.Sprintf("%*d out of %*d tasks", width, now, width, min(atOnce, j.total-complete)))
}
