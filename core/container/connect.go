package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/wire"
)

// undoPatience bounds what is taken back of a change that could not be kept.
const undoPatience = 30 * time.Second

// ConnectNetwork puts a container into one more network, now when it runs, and at each start.
func (m *Manager) ConnectNetwork(ctx context.Context, ref string, r wire.NetworkConnect) error {
	return m.changeNetwork(ctx, ref, r.Container, func(c *Container, rec *record, st *runState, n network.Network) (*network.Sandbox, error) {
		if _, there := rec.Wanted[n.Name]; there {
			return nil, fault.New(fault.Forbidden, "endpoint with name %s already exists in network %s", rec.Name, n.Name)
		}
		settings := r.EndpointConfig
		if settings == nil {
			settings = &wire.EndpointSettings{}
		}
		rec.Wanted[n.Name] = settings
		if !st.live() {
			return nil, nil
		}
		return m.o.Network.ConnectRunning(ctx, n.ID, rec.ID, st.Pid, settings)
	})
}

// DisconnectNetwork takes a container off a network, now and for its later starts.
func (m *Manager) DisconnectNetwork(ctx context.Context, ref string, r wire.NetworkDisconnect) error {
	return m.changeNetwork(ctx, ref, r.Container, func(c *Container, rec *record, st *runState, n network.Network) (*network.Sandbox, error) {
		if _, there := rec.Wanted[n.Name]; !there {
			the := "the " // Docker's two phrases
			if st.live() {
				the = ""
			}
			return nil, fault.New(fault.Invalid, "container %s is not connected to %snetwork %s", rec.ID, the, n.Name)
		}
		delete(rec.Wanted, n.Name)
		if !st.live() {
			return nil, nil
		}
		return m.o.Network.DisconnectRunning(ctx, n.ID, rec.ID, st.Pid)
	})
}

// changeNetwork lets change do its work on a copy of the record, and keeps the copy.
func (m *Manager) changeNetwork(ctx context.Context, ref, container string, change func(*Container, *record, *runState, network.Network) (*network.Sandbox, error)) error {
	c, err := m.find(container)
	if err != nil {
		return err
	}
	n, err := m.o.Network.Resolve(ref)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	rec, st := c.snapshot()
	if mode := rec.Host.NetworkMode; !ownNetworks(mode) && mode != "none" {
		what := "host"
		if _, joined := spec.Joined(mode); joined {
			what = "container"
		}
		return fault.New(fault.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network (its network mode is %s)", what)
	}
	rec.Wanted = maps.Clone(rec.Wanted)
	if rec.Wanted == nil {
		rec.Wanted = map[string]*wire.EndpointSettings{}
	}
	s, err := change(c, &rec, &st, n)
	if err != nil {
		return err
	}
	if err := m.putRecord(c, rec); err != nil {
		err = fmt.Errorf("network of container %s: %w", rec.Name, err)
		// Not kept is not done: it goes back to the networks of the record that stands.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
		defer cancel()
		return errors.Join(err, m.conform(undo, c))
	}
	if s == nil {
		return nil
	}
	// A monitor of before an upgrade has no such verb, and no such sockets.
	if err := m.o.Monitor.Forward(ctx, rec.ID, s.Forward); err != nil && !fault.Is(err, fault.NotImplemented) {
		return fmt.Errorf("published ports of container %s: %w", rec.Name, err)
	}
	return m.writeNetworkFiles(rec.ID, s)
}
