package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// certificate writes a certificate for 127.0.0.1 that signs itself, and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// logger is a TLS server that wants the certificate of clients; it sends on what it gets, and closes.
func logger(t *testing.T, cert, key, clients string) (address string, got <-chan string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(clients)
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	lines := make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, err := bufio.NewReader(c).ReadString('\n')
			if err == nil {
				lines <- fmt.Sprintf("%d %s", len(c.(*tls.Conn).ConnectionState().PeerCertificates), line)
			}
			c.Close()
		}
	}()
	return l.Addr().String(), lines
}

func TestForward(t *testing.T) {
	cert, key := certificate(t)
	mine, secret := certificate(t)
	address, got := logger(t, cert, key, mine)
	notPEM := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(notPEM, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    options
		want string // what the logger has, or "!" and what is wrong
	}{
		{options{ca: cert}, "0 hello\n"},
		{options{ca: cert, cert: mine, key: secret}, "1 hello\n"},
		{options{skipVerify: true}, "0 hello\n"},
		{options{}, "!certificate"},
		{options{ca: mine}, "!certificate"},
		{options{ca: notPEM}, "!expected PEM certificates"},
		{options{ca: notPEM + "x"}, "!syslog-tls-ca-cert: open"},
		{options{ca: cert, cert: mine, key: key}, "!private key does not match"},
	} {
		c.o.address = address
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
		done := make(chan error, 1)
		go func() {
			done <- run(c.o, theirs)
			theirs.Close()
		}()
		status, err := bufio.NewReader(ours).ReadString('\n')
		wrong, refused := strings.CutPrefix(c.want, "!")
		switch {
		case err != nil:
			t.Errorf("%+v: %v", c.o, err)
		case refused:
			if !strings.Contains(status, wrong) {
				t.Errorf("%+v: says %q, want %q", c.o, status, wrong)
			}
		default:
			if _, err := ours.WriteString("hello\n"); err != nil || status != "\n" {
				t.Errorf("%+v: says %q, %v", c.o, status, err)
			} else if line := <-got; line != c.want {
				t.Errorf("%+v: the logger has %q, want %q", c.o, line, c.want)
			}
		}
		// The logger has closed, or there was none: it ends by itself.
		if err := <-done; (err != nil) != refused {
			t.Errorf("%+v: %v", c.o, err)
		}
		ours.Close()
	}
}
