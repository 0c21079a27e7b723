// Package orchestrator decides on the leader of a swarm which tasks there are, what shall become of them and on
// which nodes they run, so that the services get what they ask for.
//
//	Step      the whole decision: from one state of the swarm to the next, a function of that state and a time
//	Run       the leader's loop around Step
//	Create,   a service as users make, change and take back it: what the API calls inside of a store's Update;
//	Change,   Validate, Complete and Defaults are about its specification
//	Revert
//	Status    how many tasks a service has
//	Advances  whether a node's report of a task may be believed
//
// Nothing is remembered between two steps but what is in the store, so that any manager can go on where another
// one stopped. A Step changes nothing when it is asked again at the same time: all that it does follows from what
// is, not from what has happened. It learns what became of the tasks from their Status, which their nodes report
// and the dispatcher puts into the store.
//
// The life of a task, by its DesiredState: ready (it is prepared, and waits for the end of the task that it
// replaces and for the delay of the restart policy), running or, for jobs, complete; shutdown, when another one takes
// its place; remove, when its place or its service is gone. The files:
//
//	task.go       states; new tasks; whether one is of its service's present specification
//	place.go      the tasks of one slot, or of a global service on one node
//	replicated.go, global.go, job.go   what the modes of services want
//	restart.go    tasks that ended are replaced, as the restart policy says
//	update.go     rolling updates and rollbacks
//	schedule.go, filter.go, constraint.go, room.go   which node takes a task
//	enforce.go    tasks that their node may not keep
//	history.go    which ended tasks are kept
//	port.go       published ports
//	service.go, validate.go, complete.go   services as users give them
//
// The behaviour, the states and the messages are those of Docker's swarm mode (SwarmKit).
package orchestrator

import (
	"context"
	"log/slog"
	"time"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

// Options are the same for every Step of a swarm.
type Options struct {
	NewID  func() string    // of tasks
	Now    func() time.Time // for Run; nil is time.Now
	Logger *slog.Logger     // for Run; nil is none
}

const (
	// soon is when a Step wants to go on that had more to change than one Update takes.
	soon = time.Millisecond
	// rounds bound how often one Step looks at its own result. Few are needed: a new task is started in the round
	// after that in which it was made.
	rounds = 8
)

// step is one Step under way.
type step struct {
	store.Writer
	now     time.Time
	newID   func() string
	again   time.Time // when something falls due; zero for never
	changed bool
	parsed  map[string][]constraint
}

// Step brings the state nearer to what the services want. It answers how long after now it must be asked again
// though nothing changed; 0 is not before something does.
func Step(w store.Writer, now time.Time, o Options) time.Duration {
	s := &step{Writer: w, now: now.UTC().Round(0), newID: o.NewID, parsed: map[string][]constraint{}}
	for range rounds {
		s.changed, s.again = false, time.Time{}
		s.round()
		if !s.changed || s.Full() {
			break
		}
	}
	if s.changed { // there may be more to do
		s.due(s.now.Add(soon))
	}
	if s.again.IsZero() {
		return 0
	}
	return max(s.again.Sub(s.now), soon)
}

func (s *step) round() {
	s.allocatePorts()
	s.abandon()
	s.enforce()
	s.release()
	for _, service := range s.Services() {
		s.reconcile(service)
	}
	s.schedule()
	s.forget()
}

func (s *step) reconcile(service *wire.Service) {
	switch m := service.Spec.Mode; {
	case m.Replicated != nil:
		s.replicated(service, replicas(service))
	case m.Global != nil:
		s.global(service)
	case m.ReplicatedJob != nil:
		s.replicatedJob(service)
	case m.GlobalJob != nil:
		s.globalJob(service)
	}
}

// due has the Step asked again at t.
func (s *step) due(t time.Time) {
	if s.again.IsZero() || t.Before(s.again) {
		s.again = t
	}
}

// put puts a copy of t that change has changed, and answers with it. t itself stays as it is, and so does all that
// it points to: change may only exchange fields, of the Origin too.
func (s *step) put(t *wire.Task, change func(*wire.Task)) *wire.Task {
	changed := *t
	origin := originOf(t)
	changed.Origin = &origin
	change(&changed)
	s.PutTask(&changed)
	s.changed = true
	return &changed
}

func (s *step) putService(service *wire.Service, change func(*wire.Service)) *wire.Service {
	changed := *service
	change(&changed)
	s.PutService(&changed)
	s.changed = true
	return &changed
}

func (s *step) delete(t *wire.Task) {
	s.DeleteTask(t.ID)
	s.changed = true
}

// Updater is the part of a store that Run needs.
type Updater interface {
	Update(ctx context.Context, fn func(store.Writer) error) error
	Changed() <-chan struct{}
	IsLeader() bool
}

// retry is how long Run waits after an Update that failed.
const retry = time.Second

// Run asks for a Step whenever the state has changed or something falls due, as long as this manager leads. It
// returns when ctx is done.
func Run(ctx context.Context, s Updater, o Options) {
	now, log := o.Now, o.Logger
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := s.Changed()
		timer.Stop()
		if s.IsLeader() {
			var again time.Duration
			err := s.Update(ctx, func(w store.Writer) error {
				again = Step(w, now(), o)
				return nil
			})
			if err != nil && ctx.Err() == nil && s.IsLeader() {
				log.Error("the tasks of the swarm's services could not be brought up to date", "error", err)
				again = retry
			}
			if again > 0 {
				timer.Reset(again)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer.C:
		}
	}
}
