// Command sampan-log-tls carries the log of one container to a logger that wants TLS (RFC 5425). The monitor
// starts it with a stream socket as standard input: it says on it in one line what kept it from connecting, an
// empty one when nothing did, and from then on sends on what it reads. It ends with either side.
//
// It is a program of its own so that the monitor, which every container begins with, has no TLS in it: its start
// would take longer, and it is the program with all rights.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

// patience bounds how long connecting may take, and how long a logger may not read.
const patience = 5 * time.Second

// linger is how long the logger may take to close.
const linger = 3 * time.Second

type options struct {
	address, ca, cert, key string
	skipVerify             bool
}

func main() {
	var o options
	flag.StringVar(&o.address, "address", "", "`HOST:PORT` of the logger")
	flag.StringVar(&o.ca, "ca", "", "PEM `file` of authorities that are trusted beside the host's")
	flag.StringVar(&o.cert, "cert", "", "PEM `file` of the certificate to show")
	flag.StringVar(&o.key, "key", "", "PEM `file` of its key")
	flag.BoolVar(&o.skipVerify, "skip-verify", false, "take any certificate of the logger")
	flag.Parse()
	if err := run(o, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "sampan-log-tls:", err)
		os.Exit(1)
	}
}

func run(o options, f *os.File) error {
	from, err := net.FileConn(f)
	if err != nil {
		return fault.New(fault.Invalid, "standard input: expected a socket: %w", err)
	}
	defer from.Close()
	to, err := connect(o)
	if err != nil {
		fmt.Fprintln(from, err)
		return err
	}
	defer to.Close() //nolint:errcheck // what was sent was sent
	if _, err := fmt.Fprintln(from); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		// A logger says nothing: what comes is its end, of which the monitor must hear before it sends more.
		_, _ = io.Copy(io.Discard, to)
		from.Close()
	}()
	if _, err = io.Copy(patient{to}, from); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	// The end is told, and the logger may close. To close before what it has sent on its own, such as session
	// tickets, has come would reset the connection, and destroy what it has not read.
	_ = to.CloseWrite()
	select {
	case <-gone:
	case <-time.After(linger):
	}
	return nil
}

func connect(o options) (*tls.Conn, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", o.address, config)
}

func (o options) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.skipVerify} //nolint:gosec // the user said so
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, fault.New(fault.Invalid, "syslog-tls-ca-cert: %w", err)
		}
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "syslog-tls-ca-cert %s: expected PEM certificates", o.ca)
		}
	}
	if o.cert != "" || o.key != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, fault.New(fault.Invalid, "syslog-tls-cert %s, syslog-tls-key %s: %w", o.cert, o.key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// patient is a connection whose writes end in time.
type patient struct{ net.Conn }

func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}
