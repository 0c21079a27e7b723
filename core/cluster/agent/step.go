package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// maxRefusals is how often in a row the engine may say that it cannot now before the task has failed.
const maxRefusals = 5

// forward is one step of a task that shall run; it reports whether there may be another one.
func (t *task) forward(ctx context.Context, want *session.Task) (more bool, err error) {
	now, desired := rank(t.status.State), rank(want.DesiredState)
	if ended(t.status.State) || now > desired {
		return false, nil
	}
	switch t.status.State {
	case wire.TaskPreparing: // what has begun goes on, though a ready task be all that is wanted
		return t.after(ctx, want, t.prepare(ctx, want), wire.TaskReady, "prepared")
	case wire.TaskStarting:
		return t.after(ctx, want, t.start(ctx, want), wire.TaskRunning, "started")
	case wire.TaskRunning:
		return t.after(ctx, want, t.wait(ctx, want), wire.TaskComplete, "finished")
	}
	switch {
	case now >= desired:
		return false, nil
	case now < accepted:
		if _, err := t.request(ctx, want); err != nil {
			return t.fail(ctx, want, err, "resolving controller failed")
		}
		return t.after(ctx, want, nil, wire.TaskAccepted, "accepted")
	case now < ready:
		return t.after(ctx, want, nil, wire.TaskPreparing, "preparing")
	}
	return t.after(ctx, want, nil, wire.TaskStarting, "starting")
}

// after makes the outcome of a step the task's status.
func (t *task) after(ctx context.Context, want *session.Task, err error, state, message string) (more bool, _ error) {
	if err != nil {
		return t.fail(ctx, want, err, t.status.Message)
	}
	t.refusals = 0
	s := t.status
	s.State, s.Message, s.Err = state, message, ""
	t.fill(want, &s)
	t.become(s)
	return true, nil
}

// fail ends the task with an error. One that says nothing of the task is returned, to be tried again.
func (t *task) fail(ctx context.Context, want *session.Task, err error, message string) (more bool, _ error) {
	switch {
	case ctx.Err() != nil:
		return false, err
	case fault.Is(err, fault.Unavailable) && t.refusals < maxRefusals:
		t.refusals++
		return false, err
	}
	s := t.status
	s.Message, s.Err = message, err.Error()
	if s.State = wire.TaskFailed; rank(t.status.State) < starting {
		s.State = wire.TaskRejected
	}
	t.fill(want, &s)
	t.become(s)
	return true, nil
}

// fill adds to a status what there is to say of the container.
func (t *task) fill(want *session.Task, s *wire.TaskStatus) {
	c, err := t.find(t.a.ctx, want)
	if err != nil {
		return // there is none, and what was known of it stays
	}
	s.ContainerStatus = &wire.TaskContainerStatus{ContainerID: c.ID, PID: c.State.Pid, ExitCode: c.State.ExitCode}
	s.PortStatus = wire.TaskPortStatus{}
	if c.NetworkSettings == nil {
		return
	}
	for port, bindings := range c.NetworkSettings.Ports {
		number, protocol, _ := strings.Cut(port, "/")
		target, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			continue
		}
		for _, b := range bindings {
			published, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue
			}
			p := wire.ServicePort{Protocol: protocol, TargetPort: uint32(target), PublishedPort: uint32(published), PublishMode: wire.PublishHost}
			if len(s.PortStatus.Ports) < maxPorts && !slices.Contains(s.PortStatus.Ports, p) { // once for IPv4, once for IPv6
				s.PortStatus.Ports = append(s.PortStatus.Ports, p)
			}
		}
	}
	slices.SortFunc(s.PortStatus.Ports, func(a, b wire.ServicePort) int {
		return cmp.Or(cmp.Compare(a.TargetPort, b.TargetPort), cmp.Compare(a.PublishedPort, b.PublishedPort), cmp.Compare(a.Protocol, b.Protocol))
	})
}

// find returns the task's container.
func (t *task) find(ctx context.Context, want *session.Task) (wire.ContainerInspect, error) {
	return t.a.find(ctx, want, containerID(&t.status))
}

// find returns the container of a task, by its ID or by its name; one that says to be another's is not it. The name
// is unknown when the service was removed while no daemon was here: its label then says which container it is.
func (a *Agent) find(ctx context.Context, want *session.Task, id string) (wire.ContainerInspect, error) {
	name := nameOf(want)
	if name == "" && id == "" {
		left, err := a.ours(ctx)
		if err != nil {
			return wire.ContainerInspect{}, err
		}
		for _, c := range left {
			if c.Labels[labelTaskID] == want.ID {
				id = c.ID
			}
		}
	}
	for _, ref := range []string{id, name} {
		if ref == "" {
			continue
		}
		switch c, err := a.o.Containers.Inspect(ctx, ref, false); {
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return wire.ContainerInspect{}, err
		case c.Config != nil && c.State != nil && c.Config.Labels[labelTaskID] == want.ID:
			return c, nil
		}
	}
	return wire.ContainerInspect{}, fault.New(fault.NotFound, "No such container: %s", cmp.Or(name, id))
}

func containerID(s *wire.TaskStatus) string {
	if s.ContainerStatus == nil {
		return ""
	}
	return s.ContainerStatus.ContainerID
}

// prepare creates the container, unless it is there.
func (t *task) prepare(ctx context.Context, want *session.Task) error {
	if _, err := t.find(ctx, want); !fault.Is(err, fault.NotFound) {
		return err
	}
	req, err := t.request(ctx, want)
	if err != nil {
		return err
	}
	if err := t.pull(ctx, want); err != nil {
		return err
	}
	if err := t.a.enter(ctx); err != nil {
		return err
	}
	defer t.a.leave()
	made, err := t.a.o.Containers.Create(ctx, nameOf(want), "", req)
	for _, w := range made.Warnings {
		t.a.log.Warn("create the container of a task", "task", t.id, "warning", w)
	}
	return err
}

// enter waits for its turn to create or start a container.
func (a *Agent) enter(ctx context.Context) error {
	select {
	case a.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *Agent) leave() { <-a.gate }

// start starts the container, unless it was started before, and waits until it is healthy.
func (t *task) start(ctx context.Context, want *session.Task) error {
	c, err := t.find(ctx, want)
	if err != nil {
		return err
	}
	if c.State.Status == "created" {
		if err := t.a.enter(ctx); err != nil {
			return err
		}
		// A start is over soon, and one that was broken off would count as the task's fault.
		err := t.a.o.Containers.Start(context.WithoutCancel(ctx), c.ID)
		t.a.leave()
		if err != nil && !fault.Is(err, fault.NotModified) {
			return fmt.Errorf("starting container failed: %w", err)
		}
	}
	if !probed(&c) {
		return nil
	}
	end, err := t.watch(ctx, want, &c, true)
	if err != nil {
		return err
	}
	return end.failure()
}

// wait waits for the end of the container.
func (t *task) wait(ctx context.Context, want *session.Task) error {
	c, err := t.find(ctx, want)
	if err != nil {
		return err
	}
	if c.State.Status == "created" {
		// It ran, and the machine went down before that was written.
		return errors.New("task: the container is not the one that was started")
	}
	end, err := t.watch(ctx, want, &c, false)
	if err != nil {
		return err
	}
	return end.failure()
}

// stop ends the container, with its grace, and the task if it has not ended by itself.
func (t *task) stop(ctx context.Context, want *session.Task) error {
	c, err := t.find(ctx, want)
	if err == nil && c.State.Running {
		err = t.a.halt(ctx, c.ID, want)
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("stop: %w", err)
	}
	if ended(t.status.State) {
		return nil
	}
	s := t.status
	s.State, s.Message, s.Err = wire.TaskShutdown, "shutdown", ""
	t.fill(want, &s)
	t.become(s)
	return nil
}

// halt has a container stopped; that it is already, or gone, is as well.
func (a *Agent) halt(ctx context.Context, id string, want *session.Task) error {
	err := a.o.Containers.Stop(ctx, id, "", grace(want))
	if fault.Is(err, fault.NotModified) || fault.Is(err, fault.NotFound) {
		err = nil
	}
	return err
}

// remove stops the container and removes it.
func (t *task) remove(ctx context.Context, want *session.Task) error {
	if err := t.stop(ctx, want); err != nil {
		return err
	}
	c, err := t.find(ctx, want)
	if err == nil {
		err = t.a.o.Containers.Remove(ctx, c.ID, removal)
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("remove: %w", err)
	}
	t.gone()
	return nil
}

// grace is how long a container may take to end, in whole seconds; nil: what the container says.
func grace(want *session.Task) *int {
	spec := want.Spec.ContainerSpec
	if spec == nil || spec.StopGracePeriod == nil {
		return nil
	}
	seconds := *spec.StopGracePeriod / time.Second
	if *spec.StopGracePeriod%time.Second > 0 {
		seconds++
	}
	whole := int(min(seconds, math.MaxInt32))
	return &whole
}
