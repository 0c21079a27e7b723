package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// AnyManager is the name that every manager's certificate has, beside the node's own: whom to expect where it does not
// matter which manager answers.
const AnyManager = "swarm-manager"

// Peer is who is at the other end of a verified connection.
type Peer struct {
	NodeID  string
	Role    string // wire.RoleWorker, wire.RoleManager
	SwarmID string
	// Issued is when its certificate was made, by the clock of the leader of that time: a node that has lost its role
	// since may still show it.
	Issued time.Time
}

// PeerOf says who is at the other end, if it showed a certificate and the handshake verified it. A connection to join has
// no Peer on either side: the manager does not know the node, and the node knows a root by its digest alone.
func PeerOf(state tls.ConnectionState) (Peer, bool) {
	if len(state.VerifiedChains) == 0 {
		return Peer{}, false
	}
	p, err := peerOf(state.VerifiedChains[0][0])
	return p, err == nil
}

func organizationalUnit(role string) string { return "swarm-" + role }

func peerOf(c *x509.Certificate) (Peer, error) {
	s := c.Subject
	if len(s.OrganizationalUnit) != 1 || len(s.Organization) != 1 {
		return Peer{}, fault.New(fault.Invalid, "certificate of %.64q: expected one role and one swarm", s.CommonName)
	}
	p := Peer{NodeID: s.CommonName, Role: strings.TrimPrefix(s.OrganizationalUnit[0], "swarm-"), SwarmID: s.Organization[0], Issued: issued(c)}
	if p.Role == s.OrganizationalUnit[0] {
		p.Role = "" // without the prefix it is no role
	}
	return p, p.check()
}

func (p Peer) check() error {
	switch {
	case p.Role != wire.RoleWorker && p.Role != wire.RoleManager:
		return &fault.Field{Field: "node role", Given: clip(p.Role), Expected: "worker or manager"}
	case !base36(p.NodeID, idLength):
		return &fault.Field{Field: "node ID", Given: clip(p.NodeID), Expected: "25 digits and small letters"}
	case !base36(p.SwarmID, idLength):
		return &fault.Field{Field: "swarm ID", Given: clip(p.SwarmID), Expected: "25 digits and small letters"}
	}
	return nil
}

// issued is when Sign made a certificate, which is good from some time before.
func issued(c *x509.Certificate) time.Time { return c.NotBefore.Add(backdate) }

func clip(s string) string { return s[:min(len(s), 64)] }

// Source knows who this node is now, and nil while it is in no swarm.
type Source interface{ Current() *Identity }

// Holder is a Source that is told. Its zero value is in no swarm.
type Holder struct{ current atomic.Pointer[Identity] }

// NewHolder returns a Holder of the identity.
func NewHolder(i *Identity) *Holder {
	h := &Holder{}
	h.Set(i)
	return h
}

// Current returns the identity that was set last.
func (h *Holder) Current() *Identity { return h.current.Load() }

// Set changes who this node is. Connections that are there stay as they were made.
func (h *Holder) Set(i *Identity) { h.current.Store(i) }

var errNoIdentity = errors.New("this node has no certificate of a swarm")

// ServerConfig is TLS for who is connected to. Those who connect need no certificate, as who joins has none yet; one
// that is shown is verified. admit has the last word on each connection, before anything is read from it: peer is nil
// without a certificate, and protocol is one of those that were given.
func ServerConfig(who Source, protocols []string, admit func(peer *Peer, protocol string) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			i := who.Current()
			if i == nil {
				return nil, errNoIdentity
			}
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				Certificates:           []tls.Certificate{i.pair},
				ClientAuth:             tls.VerifyClientCertIfGiven,
				ClientCAs:              i.pool,
				NextProtos:             protocols,
				SessionTicketsDisabled: true, // each connection is verified anew
				VerifyConnection: func(state tls.ConnectionState) error {
					return i.admit(state, protocols, admit)
				},
			}, nil
		},
	}
}

func (i *Identity) admit(state tls.ConnectionState, protocols []string, admit func(*Peer, string) error) error {
	// crypto/tls lets HTTP/1.1 and clients that offer nothing through, without a protocol.
	if !slices.Contains(protocols, state.NegotiatedProtocol) {
		return fmt.Errorf("no protocol was offered that is spoken here")
	}
	if len(state.PeerCertificates) == 0 {
		return admit(nil, state.NegotiatedProtocol)
	}
	peer, err := i.peer(state)
	if err != nil {
		return err
	}
	return admit(&peer, state.NegotiatedProtocol)
}

// peer is who showed a certificate, if it is of this swarm.
func (i *Identity) peer(state tls.ConnectionState) (Peer, error) {
	if len(state.VerifiedChains) == 0 {
		return Peer{}, errors.New("no verified certificate")
	}
	peer, err := peerOf(state.VerifiedChains[0][0])
	if err == nil && peer.SwarmID != i.SwarmID {
		err = fmt.Errorf("node %s is of swarm %s, not %s", peer.NodeID, peer.SwarmID, i.SwarmID)
	}
	return peer, err
}

// ClientConfig is TLS of this node, as it is now, to the node with the ID, or to AnyManager.
func ClientConfig(who Source, name, protocol string) (*tls.Config, error) {
	i := who.Current()
	if i == nil {
		return nil, fault.As(fault.Unavailable, errNoIdentity)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.pair},
		RootCAs:      i.pool,
		ServerName:   name,
		NextProtos:   []string{protocol},
		VerifyConnection: func(state tls.ConnectionState) error {
			peer, err := i.peer(state)
			switch {
			case err != nil:
				return err
			case name == AnyManager && peer.Role != wire.RoleManager, name != AnyManager && peer.NodeID != name:
				return fmt.Errorf("expected %s, not the %s %s", name, peer.Role, peer.NodeID)
			}
			return spoken(state, protocol)
		},
	}, nil
}

func spoken(state tls.ConnectionState, protocol string) error {
	if state.NegotiatedProtocol != protocol {
		return fmt.Errorf("the other end does not speak %s", protocol)
	}
	return nil
}

// JoinConfig is TLS of a node that has a token and nothing else. The manager shows the root with its certificate; it
// must be the one with the token's digest, and have signed the certificate. Only after that can anything be sent, so that
// the token's secret is seen by managers of that swarm alone.
func JoinConfig(digest, protocol string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		ServerName: AnyManager,
		// No root is known yet that crypto/tls could start from: VerifyConnection does all that it leaves out.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := verifyDigest(state.PeerCertificates, digest); err != nil {
				return err
			}
			return spoken(state, protocol)
		},
	}
}

// ErrOtherRoot says that who answered is not of the swarm that a token is of.
var ErrOtherRoot = errors.New("remote CA does not match fingerprint")

// otherRoot has the words of Docker, which shows the digest in base 16.
func otherRoot(digest string) error {
	n, ok := new(big.Int).SetString(digest, len(digits))
	if !ok {
		return ErrOtherRoot
	}
	return fmt.Errorf("%w. Expected: %064x", ErrOtherRoot, n)
}

func verifyDigest(shown []*x509.Certificate, digest string) error {
	if len(shown) > 2*maxCertificates || len(shown) < 2 {
		return otherRoot(digest)
	}
	others := x509.NewCertPool()
	var root *x509.Certificate
	for _, c := range shown[1:] {
		if digestOf(encodeCertificates([]*x509.Certificate{c})) == digest {
			root = c
		} else {
			others.AddCert(c)
		}
	}
	if root == nil {
		return otherRoot(digest)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	if _, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: AnyManager,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return err
	}
	peer, err := peerOf(shown[0])
	if err == nil && peer.Role != wire.RoleManager {
		err = fmt.Errorf("node %s is no manager", peer.NodeID)
	}
	return err
}
