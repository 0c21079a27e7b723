package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Names and times of certificates, as in Docker's swarm mode.
const (
	authorityName = "swarm-ca"
	authorityLife = 20 * 365 * 24 * time.Hour
	// backdate is from how long before it was made a certificate is good.
	backdate = Skew
)

// Skew is by how much the clocks of nodes may differ.
const Skew = time.Hour

const (
	pemCertificate = "CERTIFICATE"
	pemRequest     = "CERTIFICATE REQUEST"
	pemKey         = "PRIVATE KEY"

	maxRequest      = 16 << 10
	maxRoots        = 64 << 10
	maxCertificates = 8
)

// Authority is what makes certificates of a swarm: its root and the root's key, in PEM. The key never leaves the managers.
type Authority struct{ Cert, Key []byte }

// NewAuthority makes the root of a new swarm: ECDSA P-256, good for 20 years.
func NewAuthority() (Authority, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return Authority{}, err
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: authorityName},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLen: 1,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return Authority{}, err
	}
	return Authority{Cert: pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}), Key: keyPEM}, nil
}

// ParseAuthority takes the root and the key that a user brings, and says what is wrong with them.
func ParseAuthority(cert, key []byte) (Authority, error) {
	a := Authority{Cert: cert, Key: key}
	root, _, err := a.parse()
	if err != nil {
		return Authority{}, err
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return Authority{}, fault.New(fault.Invalid, "root certificate is not signed by itself: %w", err)
	}
	return Authority{Cert: encodeCertificates([]*x509.Certificate{root}), Key: key}, nil
}

// Digest is what tokens have of the root: SHA-256 of its PEM in 50 digits of base 36.
func (a Authority) Digest() (string, error) {
	root, err := a.root()
	if err != nil {
		return "", err
	}
	return digestOf(encodeCertificates([]*x509.Certificate{root})), nil
}

// Sign makes the certificate of a node, for what it shows as a client and as a server. Of the request it takes the public
// key alone. It is good from an hour ago, as clocks differ, until after the time that is given, within the root's.
func (a Authority) Sign(csr []byte, nodeID, role, swarmID string, expiry time.Duration) ([]byte, error) {
	request, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	peer := Peer{NodeID: nodeID, Role: role, SwarmID: swarmID}
	if err := peer.check(); err != nil {
		return nil, err
	}
	if expiry <= 0 {
		return nil, &fault.Field{Field: "certificate expiry", Given: expiry.String(), Expected: "a duration above 0"}
	}
	root, key, err := a.parse()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if now.After(root.NotAfter) {
		return nil, fault.New(fault.Conflict, "the swarm's root certificate expired at %s", root.NotAfter.Format(time.RFC3339))
	}
	names := []string{organizationalUnit(role), nodeID}
	if role == wire.RoleManager {
		names = append(names, authorityName)
	}
	leaf := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: nodeID, OrganizationalUnit: []string{organizationalUnit(role)}, Organization: []string{swarmID}},
		DNSNames:     names,
		NotBefore:    latest(now.Add(-backdate), root.NotBefore),
		NotAfter:     earliest(now.Add(expiry), root.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},

		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, request.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der}), nil
}

// NewRequest makes a node's key and the request for its certificate, both in PEM.
func NewRequest() (key, csr []byte, err error) {
	signer, key, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, signer)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: der}), nil
}

func parseRequest(csr []byte) (*x509.CertificateRequest, error) {
	if len(csr) > maxRequest {
		return nil, fault.New(fault.Invalid, "certificate request: larger than %d bytes", maxRequest)
	}
	block, rest := pem.Decode(csr)
	if block == nil || block.Type != pemRequest || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fault.New(fault.Invalid, "certificate request: expected one PEM block of type %q", pemRequest)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fault.New(fault.Invalid, "certificate request: %w", err)
	}
	// Nodes' keys are what NewRequest makes; others would make the strength of the swarm the requester's choice.
	if k, ok := request.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, fault.New(fault.Invalid, "certificate request: expected a key of ECDSA P-256")
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fault.New(fault.Invalid, "certificate request: %w", err)
	}
	return request, nil
}

// TLSInfo is what the API shows of the roots. Issuer is the first of them.
func TLSInfo(roots []byte) (wire.SwarmTLSInfo, error) {
	certs, err := parseCertificates(roots)
	if err != nil {
		return wire.SwarmTLSInfo{}, fault.New(fault.Invalid, "root certificates: %w", err)
	}
	return wire.SwarmTLSInfo{
		TrustRoot:           string(encodeCertificates(certs)),
		CertIssuerSubject:   certs[0].RawSubject,
		CertIssuerPublicKey: certs[0].RawSubjectPublicKeyInfo,
	}, nil
}

// parse reads both halves and sees that they are of one another.
func (a Authority) parse() (*x509.Certificate, crypto.Signer, error) {
	root, err := a.root()
	if err != nil {
		return nil, nil, err
	}
	key, err := parseKey(a.Key)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "root key: %w", err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(root.PublicKey) {
		return nil, nil, fault.New(fault.Invalid, "root key: not that of the root certificate")
	}
	return root, key, nil
}

func (a Authority) root() (*x509.Certificate, error) {
	certs, err := parseCertificates(a.Cert)
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "root certificate: %w", err)
	case len(certs) != 1:
		return nil, fault.New(fault.Invalid, "root certificate: expected one, not %d", len(certs))
	}
	root := certs[0]
	if !root.IsCA || !root.BasicConstraintsValid || root.KeyUsage != 0 && root.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fault.New(fault.Invalid, "root certificate: may not sign certificates")
	}
	return root, nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

// newSerial makes a serial number of 127 bits, with its highest set so that it always has 16 bytes.
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (its documentation, since Go 1.24)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// parseCertificates reads one or more certificates in PEM; there is nothing else between them.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxRoots {
		return nil, fmt.Errorf("larger than %d bytes", maxRoots)
	}
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != pemCertificate {
			return nil, fmt.Errorf("expected PEM blocks of type %q", pemCertificate)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if certs = append(certs, c); len(certs) > maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM block")
	}
	return certs, nil
}

// encodeCertificates writes certificates in the one form that digests are made of.
func encodeCertificates(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: pemCertificate, Bytes: c.Raw}) // no headers, and a Buffer takes all
	}
	return b.Bytes()
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
