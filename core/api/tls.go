package api

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync/atomic"

	"github.com/sampan-project/sampan/core/fault"
)

// Certificates are the configuration of TCP listeners from PEM files, which may be read again.
type Certificates struct {
	ca, cert, key string
	verify        bool
	now           atomic.Pointer[tls.Config]
}

// LoadCertificates reads the files. With verify, clients must show a certificate that an authority of ca signed.
func LoadCertificates(ca, cert, key string, verify bool) (*Certificates, error) {
	c := &Certificates{ca: ca, cert: cert, key: key, verify: verify}
	return c, c.Reload()
}

// Reload reads the files again, for connections that come from now on. When they are wrong those of before hold.
func (c *Certificates) Reload() error {
	config, err := ServerTLS(c.ca, c.cert, c.key, c.verify)
	if err == nil {
		c.now.Store(config)
	}
	return err
}

// Config is what a listener gets: each connection has the certificates as they are when it begins.
func (c *Certificates) Config() *tls.Config {
	config := c.now.Load().Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now.Load(), nil }
	return config
}

// ServerTLS returns the configuration of a TCP listener from PEM files. With verify, clients must
// show a certificate that an authority of ca signed. HTTP/2 is not offered: a stream of it cannot
// be taken over by attach.
func ServerTLS(ca, cert, key string, verify bool) (*tls.Config, error) {
	for _, file := range []struct {
		flag, path string
		needed     bool
	}{{"--tlscacert", ca, verify}, {"--tlscert", cert, true}, {"--tlskey", key, true}} {
		if file.needed && file.path == "" {
			return nil, fault.New(fault.Invalid, "%s is missing: expected the path of a PEM file, as TLS is on", file.flag)
		}
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fault.New(fault.Invalid, "--tlscert %s, --tlskey %s: %w", cert, key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
	}
	if !verify {
		return config, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fault.New(fault.Invalid, "--tlscacert: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "--tlscacert %s: expected PEM certificates", ca)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}
