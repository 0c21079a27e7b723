package orchestrator

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

// What updates do when they are not told otherwise.
const (
	defaultParallelism = 1
	defaultMonitor     = 5 * time.Second
)

// The failure actions and orders of updates.
const (
	onFailurePause    = "pause"
	onFailureContinue = "continue"
	onFailureRollback = "rollback"
	stopFirst         = "stop-first"
	startFirst        = "start-first"
)

// update is a rolling update of a service, as far as it is. A place belongs to it when its tasks are outdated, or when
// the update has made its one task there.
type update struct {
	*step
	service *wire.Service
	config  wire.UpdateConfig
	key     string // Origin.Update of the tasks that it makes
	places  []place
	todo    []place      // outdated, and the update has not made its task yet
	made    []*wire.Task // the tasks that it made
}

// update carries on with the exchange of tasks that are not of the service's present specification. places are those
// that the service keeps.
func (s *step) update(service *wire.Service, places []place) {
	for _, p := range places {
		for _, t := range p.live() {
			s.adopt(service, t)
		}
	}
	status := service.UpdateStatus
	if status != nil && (status.State == wire.UpdatePaused || status.State == wire.UpdateRollbackPaused) {
		return
	}
	u := &update{step: s, service: service, places: places}
	if status == nil {
		if !slices.ContainsFunc(places, u.stale) {
			return
		}
		started := s.now
		u.service = s.putService(service, func(service *wire.Service) {
			service.UpdateStatus = &wire.UpdateStatus{State: wire.UpdateUpdating, StartedAt: &started, Message: "update in progress"}
		})
	}
	u.config = updateConfig(u.service)
	u.key = updateKey(u.service.UpdateStatus)
	u.look()
	if u.fail() {
		return
	}
	u.proceed()
}

// stale says that a place has to be worked at: its task is outdated, or it has more than one.
func (u *update) stale(p place) bool {
	live := p.live()
	switch len(live) {
	case 0:
		return u.outdated(u.service, p.newest())
	case 1:
		return u.outdated(u.service, live[0])
	}
	return true
}

// updateConfig is what an update of the service, or its rollback, goes by.
func updateConfig(service *wire.Service) wire.UpdateConfig {
	given := service.Spec.UpdateConfig
	if service.UpdateStatus.State == wire.UpdateRollbackStarted {
		given = service.Spec.RollbackConfig
	}
	config := wire.UpdateConfig{Parallelism: defaultParallelism}
	if given != nil {
		config = *given
	}
	if config.Monitor == 0 {
		config.Monitor = defaultMonitor
	}
	return config
}

// updateKey names an update or rollback. A rollback has the times of the update that it takes back.
func updateKey(status *wire.UpdateStatus) string {
	kind := "update"
	switch status.State {
	case wire.UpdateRollbackStarted, wire.UpdateRollbackPaused, wire.UpdateRollbackCompleted:
		kind = "rollback"
	}
	if status.StartedAt == nil {
		return kind
	}
	return kind + "@" + strconv.FormatInt(status.StartedAt.UnixNano(), 10)
}

// look finds out where the update is, and notes when its tasks began to run and when they ended.
func (u *update) look() {
	for _, p := range u.places {
		i := slices.IndexFunc(p.tasks, u.isMine)
		if i < 0 {
			if u.stale(p) {
				u.todo = append(u.todo, p)
			}
			continue
		}
		t := u.notLater(p.tasks[i])
		origin := originOf(t)
		switch {
		case t.Status.State == wire.TaskRunning && origin.Ran.IsZero():
			t = u.put(t, func(t *wire.Task) { t.Origin.Ran = u.now })
		case (ended(t) || !wanted(t)) && origin.Ended.IsZero():
			t = u.put(t, func(t *wire.Task) { t.Origin.Ended = u.now })
		}
		u.made = append(u.made, t)
	}
}

// notLater has what was seen of a task be of now, when the clock was set back since: else the update would wait until the
// clock is there again.
func (u *update) notLater(t *wire.Task) *wire.Task {
	origin := originOf(t)
	if !origin.Ran.After(u.now) && !origin.Ended.After(u.now) {
		return t
	}
	return u.put(t, func(t *wire.Task) {
		for _, at := range []*time.Time{&t.Origin.Ran, &t.Origin.Ended} {
			if at.After(u.now) {
				*at = u.now
			}
		}
	})
}

// isMine says that the update has made the task. The specification may have changed twice at one time of the clock.
func (u *update) isMine(t *wire.Task) bool {
	return originOf(t).Update == u.key && !u.outdated(u.service, t)
}

// settled is when a task of the update came to run, or was given up without; ok says that it has.
func settled(t *wire.Task) (at time.Time, ok bool) {
	origin := originOf(t)
	if origin.Ran.IsZero() {
		return origin.Ended, !origin.Ended.IsZero()
	}
	return origin.Ran, true
}

// failed says that a task of the update ended by itself before it had run for as long as it is watched.
func (u *update) failed(t *wire.Task) bool {
	switch t.Status.State {
	case wire.TaskComplete, wire.TaskFailed, wire.TaskRejected:
		origin := originOf(t)
		return origin.Ran.IsZero() || origin.Ended.Sub(origin.Ran) <= u.config.Monitor
	}
	return false
}

// fail does what the service asks for when too many tasks of the update failed. It answers whether that is so.
func (u *update) fail() bool {
	state := u.service.UpdateStatus.State
	if u.config.FailureAction == onFailureContinue || (state != wire.UpdateUpdating && state != wire.UpdateRollbackStarted) {
		return false
	}
	failures, last := 0, ""
	for _, t := range u.made {
		if u.failed(t) {
			failures, last = failures+1, t.ID
		}
	}
	if failures == 0 || float32(failures)/float32(len(u.made)+len(u.todo)) <= u.config.MaxFailureRatio {
		return false
	}
	message := func(what string) string {
		return fmt.Sprintf("%s due to failure or early termination of task %s", what, last)
	}
	switch {
	case state == wire.UpdateRollbackStarted: // a rollback is never rolled back
		u.status(wire.UpdateRollbackPaused, message("rollback paused"))
	case u.config.FailureAction == onFailureRollback && u.service.PreviousSpec != nil:
		u.putService(u.service, func(service *wire.Service) {
			service.Spec, service.PreviousSpec = *service.PreviousSpec, nil
			status := *service.UpdateStatus
			status.State, status.Message = wire.UpdateRollbackStarted, message("update rolled back")
			service.UpdateStatus = &status
		})
	default:
		u.status(wire.UpdatePaused, message("update paused"))
	}
	return true
}

func (u *update) status(state, message string) {
	u.service = u.putService(u.service, func(service *wire.Service) {
		status := *service.UpdateStatus
		status.State, status.Message = state, message
		if state == wire.UpdateCompleted || state == wire.UpdateRollbackCompleted {
			at := u.now
			status.CompletedAt = &at
		}
		service.UpdateStatus = &status
	})
}

// proceed exchanges the next tasks, or completes the update.
func (u *update) proceed() {
	for _, p := range u.places {
		u.finish(p)
	}
	busy, open := 0, len(u.todo)
	var last time.Time
	if started := u.service.UpdateStatus.StartedAt; started != nil && !started.After(u.now) { // the clock may have been set back
		last = *started
	}
	for _, t := range u.made {
		at, ok := settled(t)
		if !ok {
			busy++
			open++
			continue
		}
		if at = at.Add(u.config.Delay); u.now.Before(at) {
			u.due(at)
			busy++
		}
		if at.After(last) {
			last = at
		}
	}
	for _, p := range u.todo {
		if u.Full() || (u.config.Parallelism > 0 && uint64(busy) >= u.config.Parallelism) {
			return
		}
		if u.exchange(p) {
			busy++
		}
	}
	if open == 0 {
		u.complete(last)
	}
}

// finish leaves a place with the task of the present specification, once that may stand alone.
func (u *update) finish(p place) {
	live := p.live()
	if len(live) < 2 {
		return
	}
	current := u.current(live)
	if current == nil || (u.config.Order == startFirst && current.Status.State != wire.TaskRunning) {
		return
	}
	for _, t := range live {
		if t != current {
			u.shutDown(t)
		}
	}
}

// current is the best of the tasks that are of the present specification, or nil.
func (u *update) current(live []*wire.Task) *wire.Task {
	return bestOf(slices.DeleteFunc(slices.Clone(live), func(t *wire.Task) bool { return u.outdated(u.service, t) }))
}

// bestOf is a task that runs before one that shall, and that before one that waits; nil of none.
func bestOf(tasks []*wire.Task) *wire.Task {
	var best *wire.Task
	for _, t := range tasks {
		if best == nil || merit(t) > merit(best) {
			best = t
		}
	}
	return best
}

func merit(t *wire.Task) int {
	switch {
	case t.Status.State == wire.TaskRunning:
		return 2
	case t.DesiredState == wire.TaskRunning:
		return 1
	}
	return 0
}

// exchange makes the task that takes a place over. It answers whether it did: a place may have one already.
func (u *update) exchange(p place) bool {
	live := p.live()
	if u.current(live) != nil {
		return false
	}
	old, kept := "", (*wire.Task)(nil)
	if u.config.Order == startFirst {
		kept = bestOf(live) // the one that serves until the new one does
	}
	for _, t := range live {
		if t != kept {
			u.shutDown(t)
			old = t.ID
		}
	}
	if kept != nil {
		old = ""
	}
	u.newTask(u.service, place{slot: p.slot, node: p.node}, p.newest(), func(t *wire.Task) {
		t.DesiredState = wire.TaskReady
		t.Origin.After, t.Origin.Update = old, u.key
	})
	return true
}

// complete ends an update whose last task has run for as long as it is watched.
func (u *update) complete(last time.Time) {
	monitor := u.config.Monitor
	if u.config.Delay >= monitor {
		monitor = u.config.Delay + time.Second
	}
	state, message := wire.UpdateCompleted, "update completed"
	switch u.service.UpdateStatus.State {
	case wire.UpdateUpdating:
	case wire.UpdateRollbackStarted:
		state, message = wire.UpdateRollbackCompleted, "rollback completed"
	default:
		return
	}
	if end := last.Add(monitor); u.now.Before(end) {
		u.due(end)
		return
	}
	u.status(state, message)
}
