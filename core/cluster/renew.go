package cluster

import (
	"context"
	"path/filepath"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/wire"
)

// keepIdentity keeps this node's certificate good, and makes it what the swarm wants it to be: a worker or a manager.
func (p *member) keepIdentity(ctx context.Context) {
	role := p.who.Current().Role
	pause := time.Duration(0)
	for {
		who := p.who.Current()
		wait := time.Until(who.RenewAt())
		if pause > 0 {
			wait = pause
		}
		timer := time.NewTimer(min(max(wait, 0), time.Hour)) // clocks are set, and machines sleep
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case role = <-p.role:
			timer.Stop()
			if role == who.Role && time.Now().Before(who.RenewAt()) && p.sits(role) {
				pause = 0
				continue
			}
		case <-timer.C:
			if pause == 0 && time.Now().Before(who.RenewAt()) {
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err := p.become(ctx, role); err != nil {
			pause = min(max(2*pause, 10*firstPause), longPause)
			p.log.Debug("renew this node's certificate", "role", role, "error", err)
			continue
		}
		pause = 0
	}
}

// sits reports whether the node has a seat as its role says.
func (p *member) sits(role string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seat == nil || role != wire.RoleManager {
		return (p.seat != nil) == (role == wire.RoleManager)
	}
	select {
	case <-p.seat.store.Done():
		return false
	default:
		return true
	}
}

// become gets a certificate, and takes or leaves the seat of a manager.
func (p *member) become(ctx context.Context, role string) error {
	who := p.who.Current()
	if role != who.Role || !time.Now().Before(who.RenewAt()) {
		next, err := p.renew(ctx)
		if err != nil {
			return err
		}
		if who.Role == wire.RoleWorker {
			if err := p.forgetSeat(); err != nil { // what an earlier seat has left is not what is agreed on
				return err
			}
		}
		if err := next.Save(filepath.Join(p.m.dir, certificatesDir)); err != nil {
			return err
		}
		p.who.Set(next)
		p.log.Info("this node has a new certificate", "role", next.Role, "until", next.NotAfter)
		who = next
	}
	if p.sits(who.Role) {
		return nil
	}
	p.leaveSeat() // also one whose log has ended
	if who.Role == wire.RoleManager {
		return p.takeSeat(ctx, false)
	}
	return p.forgetSeat()
}

// renew asks the leader for a certificate for a new key.
func (p *member) renew(ctx context.Context) (*identity.Identity, error) {
	key, csr, err := identity.NewRequest()
	if err != nil {
		return nil, err
	}
	given, err := p.askRenewal(ctx, csr)
	if err != nil {
		return nil, err
	}
	return identity.New(given.Cert, key, given.Roots)
}

func (p *member) askRenewal(ctx context.Context, csr []byte) (given certificate, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	if s, err := p.managing(); err == nil && s.leads() {
		return s.renewed(csr, p.who.Current().NodeID)
	}
	err = errNoLeader
	me := p.who.Current().NodeID
	for _, m := range p.state().Managers {
		if m.NodeID == me {
			continue
		}
		if err = ask(ctx, p.net.Client(), m.Addr, "/v1/renew", renewRequest{csr}, &given); err == nil {
			return given, nil
		}
	}
	return given, err
}
