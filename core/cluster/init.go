package cluster

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// The address pool, subnet size and data path port of Docker's swarm mode. There are no overlay networks here that would
// use them; clients show them.
const (
	defaultPool     = "10.0.0.0/8"
	defaultSubnet   = 24
	defaultDataPort = 4789
)

// InitSwarm makes a swarm of which this node is the first manager.
func (m *Manager) InitSwarm(ctx context.Context, req wire.SwarmInitRequest) (string, error) {
	m.change.Lock()
	defer m.change.Unlock()
	ctx, release := m.living(ctx)
	defer release()
	if req.ForceNewCluster {
		if part, _, _ := m.part(); part != nil {
			return m.forceNew(ctx, part)
		}
	}
	if err := m.free(); err != nil {
		return "", err
	}
	if err := checkInit(&req); err != nil {
		return "", err
	}
	listen, err := listenAddr(req.ListenAddr)
	if err != nil {
		return "", err
	}
	advertise, err := advertiseAddr(cmp.Or(req.AdvertiseAddr, m.o.AdvertiseAddr), listen, m.ours(ctx))
	if err != nil {
		return "", err
	}
	state := &local{Phase: phaseInit, NodeID: identity.NewID(), Listen: listen, Advertise: advertise}
	if err := m.begin(ctx, state, req); err != nil {
		return "", errors.Join(err, forget(m.dir))
	}
	return state.NodeID, nil
}

// free refuses what only a node can do that is in no swarm.
func (m *Manager) free() error {
	part, pending, failed := m.part()
	if part != nil || pending || failed != nil {
		return errExists
	}
	return nil
}

// checkInit fills in what the request leaves open, and refuses what is not there.
func checkInit(req *wire.SwarmInitRequest) error {
	for _, missing := range []struct {
		given bool
		field string
	}{
		{len(req.DefaultAddrPool) > 0, "DefaultAddrPool"}, {req.SubnetSize != 0 && req.SubnetSize != defaultSubnet, "SubnetSize"},
		{req.DataPathPort != 0 && req.DataPathPort != defaultDataPort, "DataPathPort"}, {req.DataPathAddr != "", "DataPathAddr"},
	} {
		if missing.given {
			return fault.New(fault.NotImplemented, "%s: swarms have no overlay networks in this daemon", missing.field)
		}
	}
	if req.AutoLockManagers {
		return errAutolock
	}
	if req.Availability == "" {
		req.Availability = wire.AvailabilityActive
	}
	if err := checkAvailability(req.Availability); err != nil {
		return err
	}
	completeSpec(&req.Spec)
	return checkSpec(req.Spec)
}

// begin makes the swarm. Whatever it has made when it fails is the caller's to forget.
func (m *Manager) begin(ctx context.Context, state *local, req wire.SwarmInitRequest) error {
	if err := state.save(m.dir); err != nil {
		return err
	}
	authority, err := identity.NewAuthority()
	if err != nil {
		return err
	}
	swarm := &store.Cluster{RootCert: authority.Cert, RootKey: authority.Key}
	swarm.ID, swarm.Spec = identity.NewID(), req.Spec
	swarm.DefaultAddrPool, swarm.SubnetSize, swarm.DataPathPort = []string{defaultPool}, defaultSubnet, defaultDataPort
	if swarm.TLSInfo, err = identity.TLSInfo(authority.Cert); err != nil {
		return err
	}
	for _, token := range []*string{&swarm.WorkerToken, &swarm.ManagerToken} {
		if *token, err = identity.NewToken(authority); err != nil {
			return err
		}
	}
	key, csr, err := identity.NewRequest()
	if err != nil {
		return err
	}
	cert, err := authority.Sign(csr, state.NodeID, wire.RoleManager, swarm.ID, swarm.Spec.CAConfig.NodeCertExpiry)
	if err != nil {
		return err
	}
	who, err := identity.New(cert, key, authority.Cert)
	if err != nil {
		return err
	}
	if err := who.Save(filepath.Join(m.dir, certificatesDir)); err != nil {
		return err
	}
	return m.found(ctx, state, swarm, req.Availability)
}

// found starts this node's part and writes the first state.
func (m *Manager) found(ctx context.Context, state *local, swarm *store.Cluster, availability string) (err error) {
	part, err := m.newMember(ctx, state, true)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, part.end(func() error { return part.agent.Clear(context.WithoutCancel(ctx)) }))
		}
	}()
	s, err := part.managing()
	if err != nil {
		return err
	}
	if err := s.awaitLead(ctx); err != nil {
		return err
	}
	hostname, _ := os.Hostname() //nolint:errcheck // the node's description follows
	err = s.update(ctx, func(w store.Writer) error {
		w.PutCluster(swarm)
		w.PutNode(newNode(state.NodeID, wire.RoleManager, availability, hostname, state.Advertise))
		return nil
	})
	if err != nil {
		return err
	}
	crash.Point("swarm "+swarm.ID, "founded")
	if err := part.save(func(l *local) { l.Phase = phaseActive }); err != nil {
		return err
	}
	select { // the node is ready when its client hears of it, if all is well
	case <-part.up:
	case <-time.After(settleTime):
	case <-ctx.Done():
	}
	m.set(part)
	return nil
}

// awaitLead waits until this manager leads.
func (s *seat) awaitLead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	for {
		changed := s.store.Changed()
		if s.leads() {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(firstPause):
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "this node does not come to lead its swarm: %w", ctx.Err())
		}
	}
}

// forceNew has this manager go on alone with the state that it has: the others are gone for good.
func (m *Manager) forceNew(ctx context.Context, part *member) (string, error) {
	if _, err := part.managing(); err != nil {
		return "", err
	}
	if err := part.save(func(l *local) { l.ForceNew, l.Managers = true, nil }); err != nil {
		return "", err
	}
	state := part.state()
	m.mu.Lock()
	m.member, m.pending = nil, true
	m.mu.Unlock()
	fresh, err := m.alone(ctx, part, &state)
	m.mu.Lock()
	m.member, m.pending, m.failed = fresh, false, err
	m.mu.Unlock()
	return state.NodeID, err
}

func (m *Manager) alone(ctx context.Context, part *member, state *local) (*member, error) {
	if err := part.close(); err != nil {
		m.log.Warn("end this node's part in its old swarm", "error", err)
	}
	fresh, err := m.newMember(ctx, state, false)
	if err != nil {
		return nil, err
	}
	return fresh, fresh.goAlone(ctx)
}

// goAlone takes the other managers out of the swarm: one that came back with its log would outvote this one.
func (p *member) goAlone(ctx context.Context) error {
	s, err := p.managing()
	if err != nil {
		return err
	}
	if err := s.awaitLead(ctx); err != nil {
		return err
	}
	me := p.who.Current().NodeID
	err = s.update(ctx, func(w store.Writer) error {
		for _, n := range w.Nodes() {
			if n.ID != me && n.Spec.Role == wire.RoleManager {
				expel(w, n.ID, time.Now())
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.save(func(l *local) { l.ForceNew = false })
}
