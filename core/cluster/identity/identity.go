// Package identity says who is who in a swarm: keys, certificates, and what a node shows to join.
//
//	NewID        the names of swarms, nodes, services and tasks
//	Authority    the swarm's root certificate and its key, which managers have; it signs nodes' requests
//	NewToken     what a node has to show to join: the digest of the root, by which the node knows the swarm,
//	             and a secret, by which the swarm knows the node
//	NewRequest   a node's key, and the request for its certificate
//	Identity     a node's certificate, key and roots: immutable, one file on the disk
//	Source       who a node is now: certificates are renewed while connections live
//	ServerConfig, ClientConfig, JoinConfig   TLS between nodes
//	Peer         who is at the other end of such a connection
//
// Names in certificates are those of Docker's swarm mode: CN is the node, OU its role, O the swarm.
package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
)

// File is the name of the file of an identity in its directory. It has PEM blocks in this order: the node's
// certificate and those between it and the root, the key, the roots.
const File = "swarm-node.pem"

const maxFile = 256 << 10

// Identity is who a node is in its swarm. It never changes; a renewed certificate is another Identity.
type Identity struct {
	NodeID  string
	Role    string // wire.RoleWorker, wire.RoleManager
	SwarmID string

	Cert  []byte // PEM, the node's own first
	Key   []byte // PEM
	Roots []byte // PEM, what the node trusts

	NotBefore, NotAfter time.Time

	pair tls.Certificate
	pool *x509.CertPool
}

// New makes an identity of a certificate, its key and the roots that signed it. That it has expired is no error: who
// does not come back in time still knows who it was.
func New(cert, key, roots []byte) (*Identity, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fault.New(fault.Invalid, "node certificate: %w", err)
	}
	peer, err := peerOf(pair.Leaf)
	if err != nil {
		return nil, err
	}
	trusted, err := parseCertificates(roots)
	if err != nil {
		return nil, fault.New(fault.Invalid, "root certificates: %w", err)
	}
	i := &Identity{
		NodeID: peer.NodeID, Role: peer.Role, SwarmID: peer.SwarmID,
		Cert: bytes.Clone(cert), Key: bytes.Clone(key), Roots: encodeCertificates(trusted),
		NotBefore: pair.Leaf.NotBefore, NotAfter: pair.Leaf.NotAfter,
		pair: pair, pool: x509.NewCertPool(),
	}
	for _, c := range trusted {
		i.pool.AddCert(c)
	}
	if err := i.verify(); err != nil {
		return nil, fault.New(fault.Invalid, "node certificate of %s: %w", i.NodeID, err)
	}
	// A node that joins knows the root by its digest alone, so the root is shown with the rest.
	for _, c := range trusted {
		i.pair.Certificate = append(i.pair.Certificate, c.Raw)
	}
	return i, nil
}

// verify sees that the roots signed the certificate, at the last moment at which it is good.
func (i *Identity) verify() error {
	between := x509.NewCertPool()
	for _, der := range i.pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(c)
	}
	_, err := i.pair.Leaf.Verify(x509.VerifyOptions{
		Roots: i.pool, Intermediates: between, CurrentTime: i.NotAfter,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// Peer is this identity as others see it.
func (i *Identity) Peer() Peer {
	return Peer{NodeID: i.NodeID, Role: i.Role, SwarmID: i.SwarmID, Issued: issued(i.pair.Leaf)}
}

// Expired says whether the certificate is good no more.
func (i *Identity) Expired(now time.Time) bool { return now.After(i.NotAfter) }

// RenewAt is when to ask for another certificate: at a moment between a half and four fifths of its time, which
// is another for each certificate, so that the nodes of a swarm do not all come at once.
func (i *Identity) RenewAt() time.Time {
	from := issued(i.pair.Leaf)
	life := i.NotAfter.Sub(from)
	serial := i.pair.Leaf.SerialNumber.Bytes()
	part := time.Duration(serial[len(serial)-1]) // random, as the authority made it
	return from.Add(life/2 + life/10*3/256*part)
}

// Load reads the identity in the directory. Where there is none the error is fault.NotFound.
func Load(dir string) (*Identity, error) {
	f, err := os.Open(filepath.Join(dir, File))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "no node certificate: %w", err)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fault.New(fault.Invalid, "%s: larger than %d bytes", f.Name(), maxFile)
	}
	i, err := parseFile(data)
	if err != nil {
		return nil, fault.New(fault.ClassOf(err), "%s: %w", f.Name(), err)
	}
	return i, nil
}

func parseFile(data []byte) (*Identity, error) {
	var cert, key, roots []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch encoded := pem.EncodeToMemory(block); {
		case block.Type != pemCertificate && key == nil:
			key = encoded
		case block.Type != pemCertificate:
			return nil, fault.New(fault.Invalid, "a second key")
		case key == nil:
			cert = append(cert, encoded...)
		default:
			roots = append(roots, encoded...)
		}
	}
	return New(cert, key, roots)
}

// Save writes the identity into the directory, which is made if there is none. Certificate, key and roots are one file
// that takes its name when it is whole, so that they are of one another whenever the machine stops.
func (i *Identity) Save(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(dir, File)
	// One that was cut off is written over by the next: the name is always the same.
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(bytes.Join([][]byte{i.Cert, i.Key, i.Roots}, nil))
	err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	crash.Point("identity "+i.NodeID, "written")
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	crash.Point("identity "+i.NodeID, "renamed")
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
