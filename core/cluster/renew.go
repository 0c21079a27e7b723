package cluster

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	// lookAgain is how often a node looks at the clock: clocks are set, and machines sleep.
	lookAgain = time.Hour
	// calm is the least time between two changes of what a node is.
	calm = time.Second
)

// keepIdentity keeps this node's certificate good, and makes it what the swarm wants it to be: a worker or a manager.
func (p *member) keepIdentity(ctx context.Context) {
	role := p.who.Current().Role
	var pause time.Duration
	var next time.Time // not before it is anything tried again
	for {
		wait := min(time.Until(p.who.Current().RenewAt()), lookAgain)
		if !p.fits(role) {
			wait = time.Until(next)
		}
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
		case role = <-p.role:
		case <-p.broken:
			if !p.sits(wire.RoleManager) {
				p.leaveSeat()
				next = time.Now().Add(calm)
			}
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		if p.fits(role) || time.Now().Before(next) {
			continue
		}
		if err := p.become(ctx, role); err != nil {
			pause = min(max(2*pause, firstPause), longPause)
			next = time.Now().Add(pause)
			p.log.Debug("make this node what its swarm wants", "role", role, "error", err)
			continue
		}
		// The certificate says what it is now. If the leader wants something else it says so again.
		role, pause, next = p.who.Current().Role, 0, time.Now().Add(calm)
	}
}

// fits reports whether the node is all that it shall be.
func (p *member) fits(role string) bool {
	who := p.who.Current()
	return role == who.Role && time.Now().Before(who.RenewAt()) && p.sits(role) && !p.state().ForceNew
}

// sits reports whether the node has a seat as its role says. A worker has nothing of a former one either.
func (p *member) sits(role string) bool {
	p.mu.Lock()
	seat := p.seat
	p.mu.Unlock()
	if role != wire.RoleManager {
		_, err := os.Lstat(p.raftDir())
		return seat == nil && errors.Is(err, fs.ErrNotExist)
	}
	if seat == nil {
		return false
	}
	select {
	case <-seat.store.Done():
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
	if !p.sits(who.Role) {
		p.leaveSeat() // also one whose log has ended
		if who.Role == wire.RoleWorker {
			return p.forgetSeat()
		}
		if err := p.takeSeat(ctx, false); err != nil {
			p.log.Error("open the swarm's log", "error", err)
			return err
		}
	}
	if p.state().ForceNew {
		return p.goAlone(ctx)
	}
	return nil
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
