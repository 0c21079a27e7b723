package agent

import (
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// here returns what is wanted and known of a task of this node.
func (a *Agent) here(taskID string) (want session.Task, s wire.TaskStatus, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[taskID]
	if t == nil {
		return want, s, fault.New(fault.NotFound, "task %s not found on this node", shortened(taskID, 64))
	}
	return t.want, t.status, nil
}

// Endpoint returns where a running task serves a port that its service publishes in ingress mode: for the mesh.
func (a *Agent) Endpoint(ctx context.Context, taskID string, targetPort uint32) (netip.AddrPort, error) {
	want, s, err := a.here(taskID)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !slices.ContainsFunc(want.Ports, func(p wire.ServicePort) bool {
		return p.PublishMode != wire.PublishHost && p.TargetPort == targetPort && protocolOf(p) == "tcp"
	}) {
		return netip.AddrPort{}, fault.New(fault.Forbidden, "task %s: port %d is not published in ingress mode", want.ID, targetPort)
	}
	if s.State != wire.TaskRunning {
		return netip.AddrPort{}, fault.New(fault.Unavailable, "task %s is not running", want.ID)
	}
	c, err := a.o.Containers.Inspect(ctx, containerID(&s), false)
	if err != nil {
		return netip.AddrPort{}, err
	}
	address, err := addressOf(&c)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(address, uint16(targetPort)), nil
}

// addressOf is where the host reaches a container.
func addressOf(c *wire.ContainerInspect) (netip.Addr, error) {
	if c.HostConfig != nil && c.HostConfig.NetworkMode == "host" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	if c.NetworkSettings != nil {
		for _, e := range c.NetworkSettings.Networks {
			if e == nil {
				continue
			}
			for _, text := range []string{e.IPAddress, e.GlobalIPv6Address} {
				if address, err := netip.ParseAddr(text); err == nil {
					return address, nil
				}
			}
		}
	}
	return netip.Addr{}, fault.New(fault.Unavailable, "container %s has no address", c.Name)
}

// logPoll is how often Logs looks whether the container is there.
const logPoll = 100 * time.Millisecond

// Logs writes what a task's container wrote: a frame for each line, also of a terminal's. With Follow it waits for a
// container that is not started yet. A task that is not of this node is fault.NotFound.
func (a *Agent) Logs(ctx context.Context, taskID string, o wire.LogOptions, w io.Writer) error {
	for {
		want, s, err := a.here(taskID)
		if err != nil {
			return err
		}
		c, err := a.find(ctx, &want, containerID(&s))
		waits := o.Follow && rank(s.State) < rank(wire.TaskRunning)
		if err == nil && (!waits || c.State.Status != "created") {
			if c.Config.Tty {
				w = framed{w}
			}
			return a.o.Containers.Logs(ctx, c.ID, container.LogOptions{Stdout: o.Stdout, Stderr: o.Stderr, Follow: o.Follow,
				Timestamps: o.Timestamps, Details: o.Details, Since: o.Since, Until: o.Until, Tail: o.Tail}, w)
		}
		if !waits || err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		select {
		case <-time.After(logPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.ctx.Done():
			return fault.New(fault.Unavailable, "the node leaves the swarm, or its daemon ends")
		}
	}
}

// framed puts what a terminal wrote, a line at a time, into Docker's frames.
type framed struct{ w io.Writer }

func (f framed) Write(line []byte) (int, error) {
	frame := make([]byte, 8, 8+len(line))
	frame[0] = 1 // stdout
	binary.BigEndian.PutUint32(frame[4:], uint32(len(line)))
	if _, err := f.w.Write(append(frame, line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
