package cluster

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/transport"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// JoinSwarm makes this node one of a swarm, as what its token is for.
func (m *Manager) JoinSwarm(ctx context.Context, req wire.SwarmJoinRequest) error {
	part, err := m.join(ctx, req)
	if err != nil {
		return err
	}
	timer := time.NewTimer(requestTime)
	defer timer.Stop()
	err = part.awaitUp(timer.C)
	if _, refused := errors.AsType[refusedError](err); refused {
		return errors.Join(err, m.takeBack(ctx, part))
	}
	return err
}

// refusedError is why the swarm does not take a node in that has its certificate.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// takeBack undoes a join that the swarm has refused, as if it had never been asked for.
func (m *Manager) takeBack(ctx context.Context, part *member) error {
	m.change.Lock()
	defer m.change.Unlock()
	ctx, release := m.living(ctx)
	defer release()
	if now, _, _ := m.part(); now != part {
		return nil // somebody was faster, with a leave
	}
	return m.abandon(ctx, part)
}

func (m *Manager) join(ctx context.Context, req wire.SwarmJoinRequest) (*member, error) {
	m.change.Lock()
	defer m.change.Unlock()
	ctx, release := m.living(ctx)
	defer release()
	if err := m.free(); err != nil {
		return nil, err
	}
	state, ask, err := m.checkJoin(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := tryListen(state.Listen); err != nil {
		return nil, err
	}
	if err := m.enrol(ctx, state, ask, req); err != nil {
		return nil, errors.Join(err, forget(m.dir))
	}
	// From here on it is in: what does not work yet goes on in the background.
	part, err := m.newMember(ctx, state, true)
	if err != nil {
		return nil, errors.Join(err, forget(m.dir))
	}
	m.set(part)
	return part, nil
}

// awaitUp waits until the leader has spoken, and until a manager can answer for the swarm.
func (p *member) awaitUp(over <-chan time.Time) error {
	select {
	case <-p.up:
	case why := <-p.refused:
		return refusedError{why}
	case <-p.ctx.Done():
		return errNoSwarm
	case <-over:
		return errJoinTime
	}
	for p.who.Current().Role == wire.RoleManager {
		s, err := p.managing()
		if err == nil {
			if id, _ := s.store.Leader(); id != "" && s.isManager(p.who.Current().NodeID) && s.store.Reader().Cluster() != nil {
				return nil
			}
		}
		select {
		case why := <-p.refused:
			return refusedError{why}
		case <-p.ctx.Done():
			return errNoSwarm
		case <-over:
			return errJoinTime
		case <-time.After(firstPause / 2):
		}
	}
	return nil
}

// checkJoin refuses what cannot be, before anything is made.
func (m *Manager) checkJoin(ctx context.Context, req wire.SwarmJoinRequest) (*local, joinRequest, error) {
	q := joinRequest{Token: req.JoinToken, Availability: req.Availability}
	if req.ListenAddr == "" {
		return nil, q, errNoListenAddr
	}
	switch {
	case len(req.RemoteAddrs) == 0:
		return nil, q, fault.New(fault.Invalid, "at least 1 RemoteAddr is required to join")
	case slices.Contains(req.RemoteAddrs, ""):
		return nil, q, fault.New(fault.Invalid, `invalid remoteAddr "": invalid empty address`)
	}
	if req.DataPathAddr != "" {
		return nil, q, fault.New(fault.NotImplemented, "DataPathAddr: swarms have no overlay networks in this daemon")
	}
	if req.Availability != "" {
		if err := checkAvailability(req.Availability); err != nil {
			return nil, q, err
		}
	}
	if _, _, err := identity.ParseToken(req.JoinToken); err != nil {
		return nil, q, err
	}
	listen, err := listenAddr(req.ListenAddr)
	if err != nil {
		return nil, q, err
	}
	if given := cmp.Or(req.AdvertiseAddr, m.o.AdvertiseAddr); given != "" {
		if q.Advertise, err = advertiseAddr(given, listen, m.ours(ctx)); err != nil {
			return nil, q, err
		}
	} else if host, _, err := net.SplitHostPort(listen); err == nil && !net.ParseIP(host).IsUnspecified() {
		q.Advertise = listen
	}
	_, q.Port, _ = net.SplitHostPort(listen)
	q.Hostname, _ = os.Hostname() //nolint:errcheck // the node's description follows
	return &local{Phase: phaseJoin, Listen: listen}, q, nil
}

// enrol gets this node its certificate. With it the node is one of the swarm.
func (m *Manager) enrol(ctx context.Context, state *local, q joinRequest, req wire.SwarmJoinRequest) error {
	if err := state.save(m.dir); err != nil {
		return err
	}
	digest, _, err := identity.ParseToken(req.JoinToken)
	if err != nil {
		return err
	}
	key, csr, err := identity.NewRequest()
	if err != nil {
		return err
	}
	q.CSR = csr
	client := transport.JoinClient(digest)
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	var given certificate
	for _, remote := range req.RemoteAddrs {
		var host, port string
		if host, port, err = hostPort("RemoteAddr", remote, ""); err != nil {
			return err
		}
		if err = ask(ctx, client, net.JoinHostPort(host, port), "/v1/join", q, &given); err == nil || fault.Is(err, fault.Invalid) {
			break
		}
	}
	if err != nil {
		return err
	}
	who, err := identity.New(given.Cert, key, given.Roots)
	if err != nil {
		return err
	}
	if err := who.Save(filepath.Join(m.dir, certificatesDir)); err != nil {
		return err
	}
	state.Phase, state.NodeID, state.Advertise, state.Managers = phaseActive, who.NodeID, given.Advertise, given.Managers
	return state.save(m.dir)
}
