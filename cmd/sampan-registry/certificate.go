package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// validity is how long a certificate of our own is good, and renewal how long before its end a new one is made.
const (
	validity = 825 * 24 * time.Hour
	renewal  = 30 * 24 * time.Hour
)

// ensureCertificate makes a certificate that signs itself, unless there is one for the same names that is still
// good: clients that were told to trust it go on. It is for the address listened on, this machine's name
// and the loopback; clients have it as /etc/docker/certs.d/HOST:PORT/ca.crt.
func ensureCertificate(cert, key, listen string, now time.Time) error {
	template := x509.Certificate{
		SerialNumber: nil, Subject: pkix.Name{CommonName: "sampan registry"}, // crypto/x509 draws the number
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	addNames(&template, listen)
	if pair, err := tls.LoadX509KeyPair(cert, key); err == nil && covers(pair.Leaf, &template, now) {
		return nil
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(cert), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644) //nolint:gosec // it is public
}

func addNames(c *x509.Certificate, listen string) {
	c.DNSNames = []string{"localhost"}
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	host, _, _ := net.SplitHostPort(listen) //nolint:errcheck // it was checked
	names := []string{host}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	for _, name := range names {
		ip := net.ParseIP(name)
		switch {
		case name == "" || ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) || slices.Contains(c.DNSNames, name):
		case ip != nil:
			c.IPAddresses = append(c.IPAddresses, ip)
		default:
			c.DNSNames = append(c.DNSNames, name)
		}
	}
}

// covers reports whether a certificate is still good for all the names.
func covers(have, want *x509.Certificate, now time.Time) bool {
	return now.After(have.NotBefore) && now.Add(renewal).Before(have.NotAfter) && slices.Equal(have.DNSNames, want.DNSNames) &&
		slices.EqualFunc(have.IPAddresses, want.IPAddresses, net.IP.Equal)
}
