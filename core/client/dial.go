package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

// dialer opens connections to one host.
type dialer struct {
	host    string // as given
	network string // unix, tcp, ssh
	address string // socket path, or host:port
	tls     *tls.Config
	ssh     *url.URL
	start   func(context.Context) error
	once    sync.Once
	started error
	wanted  atomic.Int32 // connections that are to be opened ahead, beside the next one
	spare   chan net.Conn
}

const (
	// maxSpare bounds the connections that are opened ahead.
	maxSpare = 4
	// spareTime is how long they are kept: a server closes what stays silent.
	spareTime = 2 * time.Second
)

func newDialer(o Options) (*dialer, error) {
	host := o.Host
	if host == "" {
		host = DefaultHost
	}
	d := &dialer{host: host, start: o.Start, spare: make(chan net.Conn, maxSpare)}
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		return nil, hostError(host)
	}
	switch scheme {
	case "unix":
		if rest == "" {
			return nil, hostError(host)
		}
		d.network, d.address = "unix", rest
		return d, nil
	case "ssh":
		u, err := url.Parse(host)
		if err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, hostError(host)
		}
		if _, secret := u.User.Password(); secret {
			return nil, fault.New(fault.Invalid, "host %q: a password in the address is not supported: use a key, or ssh's agent", u.Redacted())
		}
		d.network, d.ssh = "ssh", u
		return d, nil
	case "tcp", "http", "https":
		u, err := url.Parse(host)
		if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.User != nil {
			return nil, hostError(host)
		}
		if scheme == "https" && o.TLS == nil {
			o.TLS = &TLS{Verify: true}
		}
		if d.tls, err = o.TLS.config(u.Hostname()); err != nil {
			return nil, err
		}
		d.network, d.address = "tcp", net.JoinHostPort(u.Hostname(), port(u, d.tls != nil))
		return d, nil
	}
	return nil, hostError(host)
}

// CheckHost refuses an address that New would refuse.
func CheckHost(host string) error {
	_, err := newDialer(Options{Host: host})
	return err
}

func hostError(given string) error {
	if u, err := url.Parse(given); err == nil {
		if _, secret := u.User.Password(); secret {
			given = u.Redacted() // errors end up in logs
		}
	}
	if strings.HasPrefix(given, "npipe://") {
		return fault.New(fault.Invalid, "host %q: protocol not available: named pipes are Windows'", given)
	}
	return &fault.Field{Field: "host", Given: given, Expected: "unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT]"}
}

// port returns the port of u, or the one that IANA gave to Docker without and with TLS.
func port(u *url.URL, secure bool) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case secure:
		return "2376"
	}
	return "2375"
}

// config reads the files; a nil t is plain TCP.
func (t *TLS) config(server string) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{ServerName: server, MinVersion: tls.VersionTLS12, InsecureSkipVerify: !t.Verify} //nolint:gosec // --tls without --tlsverify asks for it
	if t.CA != "" && t.Verify {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read the certificate authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "%s: expected certificates in PEM form", t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read the client's certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// dummyHost stands in the Host header, where net/http wants a name that a unix socket has not.
const dummyHost = "sampan.localhost"

// authority is the Host header: by TCP the server checks that it is meant.
func (d *dialer) authority() string {
	if d.network == "tcp" {
		return d.address
	}
	return dummyHost
}

// ahead opens n connections, for dial to find. That none can be had is not told: dial will say so.
func (d *dialer) ahead(ctx context.Context, n int) {
	time.AfterFunc(spareTime, d.dropSpare)
	for range n {
		conn, err := d.connect(ctx)
		if err != nil {
			return
		}
		select {
		case d.spare <- conn:
		default:
			_ = conn.Close() // nothing was sent
			return
		}
	}
}

// dropSpare closes what was opened ahead and not used.
func (d *dialer) dropSpare() {
	for conn := d.takeSpare(); conn != nil; conn = d.takeSpare() {
		_ = conn.Close() // nothing was sent
	}
}

// takeSpare returns a connection that was opened ahead, or nil.
func (d *dialer) takeSpare() net.Conn {
	select {
	case conn := <-d.spare:
		return conn
	default:
		return nil
	}
}

// dial opens one connection. When nothing listens on a unix socket it starts the daemon, once.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	if conn := d.takeSpare(); conn != nil {
		return conn, nil
	}
	conn, err := d.connect(ctx)
	if err != nil && d.start != nil && d.network == "unix" && nobodyListens(err) {
		d.once.Do(func() { d.started = d.start(ctx) })
		if d.started != nil {
			return nil, &unreachable{d.started}
		}
		conn, err = d.connect(ctx)
	}
	if err != nil {
		return nil, &unreachable{d.explain(err)}
	}
	if n := d.wanted.Swap(0); n > 0 && d.network != "ssh" { // there each is a program on both sides
		go d.ahead(context.WithoutCancel(ctx), int(n))
	}
	return conn, nil
}

func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	var n net.Dialer
	switch {
	case d.network == "ssh":
		return dialSSH(d.ssh)
	case d.tls != nil:
		n.Timeout = 30 * time.Second
		return (&tls.Dialer{NetDialer: &n, Config: d.tls}).DialContext(ctx, "tcp", d.address)
	case d.network == "tcp":
		n.Timeout = 30 * time.Second
	}
	return n.DialContext(ctx, d.network, d.address)
}

func nobodyListens(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// unreachable marks an error of dialling, so that it is told from one of a broken connection below
// net/http's own wrapping.
type unreachable struct{ err error }

func (e *unreachable) Error() string { return e.err.Error() }
func (e *unreachable) Unwrap() error { return e.err }

// explain says in one line why nobody could be reached and what to do.
func (d *dialer) explain(err error) error {
	if ctxErr := context.Cause(context.Background()); ctxErr != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var alert tls.AlertError
	var authority x509.UnknownAuthorityError
	switch {
	case d.network == "unix" && errors.Is(err, fs.ErrPermission):
		return fault.New(fault.Forbidden, "permission denied while trying to connect to the sampan daemon socket at %s: run as root, or join the group that owns %s", d.host, d.address)
	case errors.As(err, &alert), errors.As(err, &authority), isRecordHeader(err):
		return fault.New(fault.Unavailable, "connect to the sampan daemon at %s: %w", d.host, err)
	case d.network == "ssh":
		return fault.New(fault.Unavailable, "connect to the sampan daemon at %s: %w", d.host, err)
	case nobodyListens(err):
		return fault.New(fault.Unavailable, "Cannot connect to the sampan daemon at %s. Is sampand running?", d.host)
	}
	return fault.New(fault.Unavailable, "Cannot connect to the sampan daemon at %s (%s). Is sampand running?", d.host, rootCause(err))
}

// isRecordHeader reports TLS spoken to a port that does not speak it.
func isRecordHeader(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record)
}

// rootCause drops the "dial tcp 1.2.3.4:5:" that net.OpError puts before what matters.
func rootCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// ParseHost completes what a person writes after -H: "host:port", ":port" and "tcp://host" get
// their scheme, host and port; whatever has a scheme stays as it is.
func ParseHost(given string, secure bool) (string, error) {
	s := strings.TrimSpace(given)
	standard := map[bool]string{false: "2375", true: "2376"}[secure]
	switch {
	case s == "":
		return DefaultHost, nil
	case s == "unix://":
		return DefaultHost, nil
	case strings.HasPrefix(s, "tcp://"):
		s = strings.TrimPrefix(s, "tcp://")
	case strings.HasPrefix(s, "http://"), strings.HasPrefix(s, "https://"):
		return "", hostError(given) // as docker's client says: tcp:// is the name for both
	case strings.Contains(s, "://"):
		if _, err := newDialer(Options{Host: s}); err != nil {
			return "", err
		}
		return s, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), standard
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
			return "", hostError(given)
		}
	}
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = standard
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strings.ContainsAny(host, "/ ") {
		return "", hostError(given)
	}
	return fmt.Sprintf("tcp://%s", net.JoinHostPort(host, port)), nil
}
