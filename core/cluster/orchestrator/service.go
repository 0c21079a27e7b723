package orchestrator

import (
	"time"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// errSequence answers who changes a service of which somebody else has made a newer version. Clients know dockerd by
// these words, and by the status of an internal error.
var errSequence = fault.New(fault.Internal, "update out of sequence")

// Create puts a new service into the store: it has the specification as Complete makes it.
func Create(w store.Writer, id string, spec wire.ServiceSpec, now time.Time) (*wire.Service, error) {
	spec = Complete(spec)
	if err := Validate(&spec); err != nil {
		return nil, err
	}
	if err := CheckPorts(w, &spec, ""); err != nil {
		return nil, err
	}
	if w.ServiceNamed(spec.Name) != nil {
		return nil, fault.New(fault.Exists, "name conflicts with an existing object: service %s already exists", spec.Name)
	}
	service := &wire.Service{ID: id, Spec: spec}
	if isJob(&spec) {
		service.JobStatus = &wire.JobStatus{LastExecution: now.UTC()}
	}
	w.PutService(service)
	return service, nil
}

// Change gives the service another specification, of which tasks are made from then on; those that there are are
// exchanged in a rolling update. version is the one that who asks for it has seen.
func Change(w store.Writer, id string, version uint64, spec wire.ServiceSpec, now time.Time) (*wire.Service, error) {
	old, err := current(w, id, version)
	if err != nil {
		return nil, err
	}
	spec = Complete(spec)
	if err := Validate(&spec); err != nil {
		return nil, err
	}
	if err := CheckPorts(w, &spec, id); err != nil {
		return nil, err
	}
	if modeOfService(&spec) != modeOfService(&old.Spec) {
		return nil, fault.New(fault.NotImplemented, "service mode change is not allowed")
	}
	if spec.Name != old.Spec.Name {
		return nil, fault.New(fault.NotImplemented, "renaming services is not supported")
	}
	changed := *old
	previous := old.Spec
	changed.Spec, changed.PreviousSpec, changed.UpdateStatus = spec, &previous, nil
	return putChanged(w, &changed, now), nil
}

// Revert exchanges the service's specification for its previous one, and that for it.
func Revert(w store.Writer, id string, version uint64, now time.Time) (*wire.Service, error) {
	old, err := current(w, id, version)
	if err != nil {
		return nil, err
	}
	if old.PreviousSpec == nil {
		return nil, fault.New(fault.Invalid, "service %s does not have a previous spec", id)
	}
	if err := CheckPorts(w, old.PreviousSpec, id); err != nil {
		return nil, err
	}
	changed := *old
	previous, started := old.Spec, now.UTC()
	changed.Spec, changed.PreviousSpec = *old.PreviousSpec, &previous
	changed.UpdateStatus = &wire.UpdateStatus{State: wire.UpdateRollbackStarted, StartedAt: &started, Message: "manually requested rollback"}
	return putChanged(w, &changed, now), nil
}

func current(r store.Reader, id string, version uint64) (*wire.Service, error) {
	service := r.Service(id)
	switch {
	case service == nil:
		return nil, fault.New(fault.NotFound, "service %s not found", id)
	case service.Version.Index != version:
		return nil, errSequence
	}
	return service, nil
}

// putChanged puts a service that was changed by its user. A job is run again then.
func putChanged(w store.Writer, service *wire.Service, now time.Time) *wire.Service {
	if isJob(&service.Spec) {
		job := wire.JobStatus{LastExecution: now.UTC()}
		if service.JobStatus != nil {
			job.JobIteration.Index = service.JobStatus.JobIteration.Index + 1
		}
		service.JobStatus = &job
		service.UpdateStatus = nil
	}
	w.PutService(service)
	return service
}

func modeOfService(spec *wire.ServiceSpec) string {
	switch m := spec.Mode; {
	case m.Global != nil:
		return "global"
	case m.ReplicatedJob != nil:
		return "replicated-job"
	case m.GlobalJob != nil:
		return "global-job"
	}
	return "replicated"
}

// Status counts the tasks of a service.
func Status(r store.Reader, service *wire.Service) wire.ServiceStatus {
	var n wire.ServiceStatus
	global := isGlobal(&service.Spec)
	switch m := service.Spec.Mode; {
	case m.Replicated != nil:
		n.DesiredTasks = replicas(service)
	case m.ReplicatedJob != nil:
		n.DesiredTasks, _ = jobSize(&service.Spec)
	}
	for _, t := range r.TasksOf(service.ID) {
		complete := t.Status.State == wire.TaskComplete
		if isJob(&service.Spec) {
			if t.JobIteration == nil || service.JobStatus == nil || *t.JobIteration != service.JobStatus.JobIteration {
				continue
			}
			if complete {
				n.CompletedTasks++
			}
		}
		if t.Status.State == wire.TaskRunning {
			n.RunningTasks++
		}
		if global && (t.DesiredState == wire.TaskRunning || (t.DesiredState == wire.TaskComplete && !complete)) {
			n.DesiredTasks++
		}
	}
	return n
}
