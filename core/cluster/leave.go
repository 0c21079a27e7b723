package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sampan-project/sampan/core/cluster/agent"
	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// LeaveSwarm ends this node's part for good: its tasks' containers are removed, and all that it knows of the swarm.
func (m *Manager) LeaveSwarm(ctx context.Context, force bool) error {
	if !force {
		if err := m.mayLeave(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.cancel() // a part that cannot be taken up is not tried again
	m.mu.Unlock()
	m.starts.Wait()
	m.change.Lock()
	defer m.change.Unlock()
	ctx, release := m.living(ctx)
	defer release()
	part, _, _ := m.part()
	if part == nil {
		state, err := loadLocal(m.dir)
		if err == nil && state == nil {
			return errNoSwarm
		}
		if err != nil && !force {
			return fmt.Errorf("%w: leave with --force to forget what is there", err)
		}
		if err != nil {
			state = &local{}
		}
		if err := m.finishLeave(ctx, state); err != nil {
			return err
		}
		m.set(nil)
		return nil
	}
	return m.abandon(ctx, part)
}

// abandon ends this node's part and forgets it. What it has done of that is on the disk: the next daemon goes on with it.
func (m *Manager) abandon(ctx context.Context, part *member) error {
	if err := part.save(func(l *local) { l.Phase = phaseLeave }); err != nil {
		return err
	}
	err := part.end(func() error { return part.agent.Clear(ctx) })
	if err == nil {
		err = forget(m.dir)
	}
	m.mu.Lock()
	m.member, m.failed = nil, err // what is left is in the way of another swarm: leave again
	m.mu.Unlock()
	return err
}

const managerLeaves = "You are attempting to leave the swarm on a node that is participating as a manager. "

const howToRestore = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message."

// mayLeave refuses a manager's leave, also of one whose part is not taken up.
func (m *Manager) mayLeave() error {
	if part, _, _ := m.part(); part != nil {
		return part.mayLeave()
	}
	if state, err := loadLocal(m.dir); err != nil || state == nil || state.Phase != phaseActive {
		return nil //nolint:nilerr // LeaveSwarm says what is wrong
	}
	who, err := identity.Load(filepath.Join(m.dir, certificatesDir))
	if err == nil && who.Role == wire.RoleManager {
		return fault.New(fault.Unavailable, managerLeaves+"Doing so may lose the consensus of your cluster. "+howToRestore)
	}
	return nil //nolint:nilerr // who has lost its certificate is no manager any more
}

// mayLeave refuses a manager's leave that its swarm would miss.
func (p *member) mayLeave() error {
	if p.who.Current().Role != wire.RoleManager {
		return nil
	}
	text := managerLeaves
	s, err := p.managing()
	if err != nil {
		text += "Doing so may lose the consensus of your cluster. "
	} else if managers := s.store.Managers(); !enough(managers) {
		if reachableOf(managers) <= 1 && len(managers) <= 1 {
			return fault.New(fault.Unavailable, "%sRemoving the last manager erases all current state of the swarm. Use `--force` to ignore this message. ", text)
		}
		text += fmt.Sprintf("Removing this node leaves %d managers out of %d. Without a Raft quorum your swarm will be inaccessible. ", reachableOf(managers)-1, len(managers))
	}
	return fault.New(fault.Unavailable, "%s%s", text, howToRestore)
}

func reachableOf(managers []store.Manager) (n int) {
	for _, m := range managers {
		if m.Reachable {
			n++
		}
	}
	return n
}

// enough reports whether the managers agree without one of those that are reachable.
func enough(managers []store.Manager) bool { return reachableOf(managers)-1 > len(managers)/2 }

// finishLeave forgets a swarm of which there is no running part: its containers are removed.
func (m *Manager) finishLeave(ctx context.Context, state *local) error {
	if state.NodeID != "" {
		a := agent.New(agent.Options{NodeID: state.NodeID, Containers: m.o.Containers, Images: m.o.Images, Events: m.o.Events, Info: m.o.Info, Logger: m.log})
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := a.Clear(ctx); err != nil {
			return errors.Join(err, a.Close())
		}
	}
	return forget(m.dir)
}
