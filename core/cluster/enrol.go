package cluster

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// joinRequest is a node's that has a token and no certificate.
type joinRequest struct {
	Token        string `json:"token"`
	CSR          []byte `json:"csr"` // PEM
	Hostname     string `json:"hostname"`
	Availability string `json:"availability"`
	Advertise    string `json:"advertise,omitempty"` // host:port; empty: as the manager sees it
	Port         string `json:"port"`                // where it listens
}

// certificate is what a node gets.
type certificate struct {
	Cert      []byte           `json:"cert"`  // PEM
	Roots     []byte           `json:"roots"` // PEM
	Managers  []wire.SwarmPeer `json:"managers"`
	Advertise string           `json:"advertise,omitempty"` // for who has joined
}

type renewRequest struct {
	CSR []byte `json:"csr"` // PEM
}

// seatRequest is a manager's who wants to be counted among the managers.
type seatRequest struct {
	Advertise string `json:"advertise"` // host:port
}

const (
	// maxHostname is longer than what sethostname(2) takes.
	maxHostname = 255
	// callBackTime is how long the leader tries to reach a node at the address that it says to have, as dockerd's.
	callBackTime = 5 * time.Second
)

// answerJoin gives a certificate to who has a token. The role is the token's.
func (p *member) answerJoin(w http.ResponseWriter, r *http.Request) error {
	s, err := p.leader()
	if err != nil {
		return err
	}
	var req joinRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	if err := req.complete(r.RemoteAddr); err != nil {
		return err
	}
	id := identity.NewID()
	var given certificate
	err = s.update(r.Context(), func(w store.Writer) error {
		c := w.Cluster()
		if c == nil {
			return errNoLeader
		}
		role := roleOf(strings.TrimSpace(req.Token), c)
		if role == "" {
			return fault.New(fault.Invalid, "A valid join token is necessary to join this cluster")
		}
		if given, err = sign(c, req.CSR, id, role); err != nil {
			return err
		}
		w.PutNode(newNode(id, role, req.Availability, req.Hostname, req.Advertise))
		return nil
	})
	if err != nil {
		return err
	}
	given.Managers, given.Advertise = s.peers(), req.Advertise
	return writeJSON(w, given)
}

// roleOf is the role that a token gives, "" for one that gives none.
func roleOf(token string, c *store.Cluster) string {
	switch {
	case identity.SameSecret(token, c.WorkerToken):
		return wire.RoleWorker
	case identity.SameSecret(token, c.ManagerToken):
		return wire.RoleManager
	}
	return ""
}

// complete checks what a stranger says of itself, and fills in what it leaves to the manager.
func (q *joinRequest) complete(from string) error {
	if q.Availability == "" {
		q.Availability = wire.AvailabilityActive
	}
	if err := checkAvailability(q.Availability); err != nil {
		return err
	}
	if len(q.Hostname) > maxHostname {
		return fault.New(fault.Invalid, "hostname: longer than %d bytes", maxHostname)
	}
	if q.Advertise == "" {
		host, _, err := net.SplitHostPort(from)
		if err != nil {
			return err
		}
		q.Advertise = net.JoinHostPort(host, q.Port)
	}
	return checkPeerAddr(q.Advertise)
}

// checkPeerAddr accepts host:port with the IP address of a machine, which is what nodes advertise.
func checkPeerAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || ip == nil || ip.IsUnspecified() || perr != nil || n == 0 {
		return &fault.Field{Field: "node address", Given: addr[:min(len(addr), 64)], Expected: "IP:PORT"}
	}
	return nil
}

func sign(c *store.Cluster, csr []byte, id, role string) (certificate, error) {
	cert, err := identity.Authority{Cert: c.RootCert, Key: c.RootKey}.Sign(csr, id, role, c.ID, c.Spec.CAConfig.NodeCertExpiry)
	return certificate{Cert: cert, Roots: c.RootCert}, err
}

// answerRenew gives a node its next certificate, of the role that it shall have.
func (p *member) answerRenew(w http.ResponseWriter, r *http.Request, peer identity.Peer) error {
	s, err := p.leader()
	if err != nil {
		return err
	}
	var req renewRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	given, err := s.renewed(req.CSR, peer.NodeID)
	if err != nil {
		return err
	}
	return writeJSON(w, given)
}

// renewed signs a node's request. A manager that shall be a worker gets its certificate when it is out of the log.
func (s *seat) renewed(csr []byte, id string) (certificate, error) {
	r := s.store.Reader()
	c, n := r.Cluster(), r.Node(id)
	switch {
	case c == nil:
		return certificate{}, errNoLeader
	case n == nil || c.HasRemoved(id):
		return certificate{}, fault.New(fault.Forbidden, "node %s is not in this swarm", id)
	case n.Spec.Role == wire.RoleWorker && s.isManager(id):
		return certificate{}, fault.New(fault.Unavailable, "node %s is still counted among the managers", id)
	}
	given, err := sign(c, csr, id, n.Spec.Role)
	given.Managers = s.peers()
	return given, err
}

func (s *seat) isManager(id string) bool {
	return slices.ContainsFunc(s.store.Managers(), func(m store.Manager) bool { return m.ID == id })
}

// answerManager counts a node among the managers, of which the swarm has said that it shall be one.
func (p *member) answerManager(w http.ResponseWriter, r *http.Request, peer identity.Peer) error {
	s, err := p.leader()
	if err != nil {
		return err
	}
	var req seatRequest
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	if err := checkPeerAddr(req.Advertise); err != nil {
		return err
	}
	n := s.store.Reader().Node(peer.NodeID)
	if n == nil || n.Spec.Role != wire.RoleManager || peer.Role != wire.RoleManager {
		return fault.New(fault.Forbidden, "node %s is to be no manager", peer.NodeID)
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	if err := p.callBack(ctx, peer.NodeID, req.Advertise); err != nil {
		return err
	}
	if err := s.store.AddManager(ctx, peer.NodeID, req.Advertise); err != nil {
		return err
	}
	return writeJSON(w, struct{}{})
}

// callBack refuses a node that is not the one that answers at its address: its log would never follow.
func (p *member) callBack(ctx context.Context, nodeID, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, callBackTime)
	defer cancel()
	conn, err := p.net.DialTunnel(ctx, nodeID, addr)
	if err != nil {
		return fault.New(fault.Invalid, "could not connect to prospective new cluster member using its advertised address: %w", err)
	}
	_ = conn.Close() // nothing was said
	return nil
}
