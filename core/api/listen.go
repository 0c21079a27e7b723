package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// ListenOptions say who may connect.
type ListenOptions struct {
	// Group is the name or number of the group that may use a unix socket; "" is root's, and so is
	// DefaultGroup where there is no such group.
	Group string
	// TLS is the configuration of TCP listeners, from ServerTLS.
	TLS *tls.Config
	// AllowPlainTCP permits TCP without TLS, on loopback addresses only.
	AllowPlainTCP bool
}

// DefaultGroup is the group that may use the socket if there is one of that name.
const DefaultGroup = "sampan"

// hosts are the forms that Listen reads.
const hosts = "unix:///path, tcp://host:port or fd://"

// Listen opens the sockets that host names: one, or those that systemd hands over (fd://).
func Listen(host string, o ListenOptions) ([]net.Listener, error) {
	switch kind, address, _ := strings.Cut(host, "://"); kind {
	case "unix":
		l, err := listenUnix(address, o)
		return one(l, err)
	case "tcp":
		l, err := listenTCP(host, address, o)
		return one(l, err)
	case "fd":
		return listenActivated(host, address, o)
	}
	return nil, unknownHost(host)
}

// Check reports what Listen would refuse of what it is told, and opens nothing. What systemd hands over is known to the
// service alone.
func Check(host string, o ListenOptions) (err error) {
	switch kind, address, _ := strings.Cut(host, "://"); kind {
	case "unix":
		_, err = unixGroup(address, o)
	case "tcp":
		_, err = tcpAddress(host, address, o)
	case "fd":
	default:
		return unknownHost(host)
	}
	return err
}

func unknownHost(host string) error {
	kind, _, ok := strings.Cut(host, "://")
	if !ok {
		return &fault.Field{Field: "--host", Given: host, Expected: hosts}
	}
	return &fault.Field{Field: "--host", Given: host, Expected: hosts, Nearest: fault.Nearest(kind, []string{"unix", "tcp", "fd"})}
}

func one(l net.Listener, err error) ([]net.Listener, error) {
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

// listenUnix makes a socket that only its owner and group may use. Connecting needs the write
// permission (unix(7)), so the socket is born without any for others, and gets the group's last.
func listenUnix(path string, o ListenOptions) (net.Listener, error) {
	gid, err := unixGroup(path, o)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	// bind(2) makes the file with the mode of the socket's own inode, less the umask. Setting that
	// beforehand leaves no moment in which others could connect, and no umask to change for all threads.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var modeErr error
		err := c.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, modeErr)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	if err := errors.Join(os.Lchown(path, os.Getuid(), gid), os.Chmod(path, 0o660)); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	return l, nil
}

// unixGroup is the group of a socket, if the two can be.
func unixGroup(path string, o ListenOptions) (int, error) {
	if !filepath.IsAbs(path) {
		return 0, &fault.Field{Field: "--host", Given: "unix://" + path, Expected: "an absolute path"}
	}
	return groupID(o.Group)
}

// removeStale removes the socket that a killed daemon left. One that answers is another daemon's,
// and what is no socket is not ours.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fault.New(fault.Exists, "there is a %s of that name: expected a socket, or nothing", info.Mode().Type())
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fault.New(fault.Conflict, "another daemon answers there")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

func groupID(name string) (int, error) {
	if name == "" {
		return os.Getgid(), nil
	}
	g, err := user.LookupGroup(name)
	if err == nil {
		return strconv.Atoi(g.Gid)
	}
	if name == DefaultGroup {
		return os.Getgid(), nil
	}
	if id, numErr := strconv.ParseUint(name, 10, 31); numErr == nil {
		return int(id), nil
	}
	return 0, &fault.Field{Field: "--group", Given: name, Expected: "the name or number of a group"}
}

// listenTCP opens a port. Whoever can use it is root on this host: so clients prove themselves by a
// certificate, or the port is on loopback and the user said that every local user may be root.
func listenTCP(host, address string, o ListenOptions) (net.Listener, error) {
	address, err := tcpAddress(host, address, o)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", host, err)
	}
	return guard(l, o), nil
}

// tcpAddress is the whole address of a port, if it may be opened.
func tcpAddress(host, address string, o ListenOptions) (string, error) {
	address, err := withPort(host, address, o.TLS != nil)
	if err != nil {
		return "", err
	}
	verified := o.TLS != nil && o.TLS.ClientAuth == tls.RequireAndVerifyClientCert
	if !verified {
		switch loopback, err := isLoopback(address); {
		case err != nil:
			return "", fmt.Errorf("listen on %s: %w", host, err)
		case !loopback:
			return "", fault.New(fault.Forbidden, "listen on %s: whoever connects would be root on this host: use --tlsverify with --tlscacert, --tlscert and --tlskey", host)
		case o.TLS == nil && !o.AllowPlainTCP:
			return "", fault.New(fault.Forbidden, "listen on %s: every local user who connects would be root: use --tlsverify, or --allow-plain-tcp if that is meant", host)
		}
	}
	return address, nil
}

// guard bounds the connections of a TCP listener, and gives it TLS.
func guard(l net.Listener, o ListenOptions) net.Listener {
	l = limit(l, maxConnections)
	if o.TLS == nil {
		return l
	}
	return tls.NewListener(l, o.TLS)
}

// withPort completes an address by Docker's ports: 2376 with TLS, 2375 without.
func withPort(host, address string, secure bool) (string, error) {
	port := "2375"
	if secure {
		port = "2376"
	}
	if _, p, err := net.SplitHostPort(address); err == nil {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 && p != "0" {
			return "", &fault.Field{Field: "--host", Given: host, Expected: "a port from 0 to 65535"}
		}
		return address, nil
	}
	bare := trimBrackets(address)
	if strings.ContainsAny(address, "/?#") || strings.Contains(bare, ":") && net.ParseIP(bare) == nil {
		return "", &fault.Field{Field: "--host", Given: host, Expected: "tcp://host:port"}
	}
	return net.JoinHostPort(bare, port), nil
}

// isLoopback reports whether every address that the host stands for is this host's alone.
func isLoopback(address string) (bool, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return false, err
	}
	addresses, err := net.LookupIP(host)
	for _, ip := range addresses {
		if !ip.IsLoopback() {
			return false, nil
		}
	}
	return err == nil && len(addresses) > 0, err
}

// listenActivated takes sockets over from systemd (sd_listen_fds(3)): all, or those of the name, or the one
// of the file descriptor's number, that is given. Permissions of unix sockets are the unit's.
func listenActivated(host, name string, o ListenOptions) ([]net.Listener, error) {
	files := activation.Files(true)
	var chosen []net.Listener
	fail := func(err error) ([]net.Listener, error) {
		for _, l := range chosen {
			l.Close()
		}
		return nil, err
	}
	for i, f := range files {
		wanted := name == "" || name == "*" || f.Name() == name || strconv.Itoa(firstActivated+i) == name
		if !wanted {
			f.Close()
			continue
		}
		l, err := net.FileListener(f)
		f.Close() // it was duplicated
		if err != nil {
			return fail(fmt.Errorf("listen on %s: %s is no listening stream socket: %w", host, f.Name(), err))
		}
		if l.Addr().Network() == "tcp" {
			if l, err = guardActivated(host, l, o); err != nil {
				return fail(err)
			}
		}
		chosen = append(chosen, l)
	}
	if len(chosen) == 0 {
		return nil, fault.New(fault.NotFound, "listen on %s: systemd handed over %d sockets, none of that name; is the socket unit started?", host, len(files))
	}
	return chosen, nil
}

// firstActivated is the number of the first descriptor of systemd (SD_LISTEN_FDS_START).
const firstActivated = 3

// guardActivated holds a TCP socket of systemd to the rules of our own.
func guardActivated(host string, l net.Listener, o ListenOptions) (net.Listener, error) {
	address, _ := l.Addr().(*net.TCPAddr)
	verified := o.TLS != nil && o.TLS.ClientAuth == tls.RequireAndVerifyClientCert
	if local := address != nil && address.IP.IsLoopback(); !verified && (!local || o.TLS == nil && !o.AllowPlainTCP) {
		defer l.Close()
		return nil, fault.New(fault.Forbidden, "listen on %s: %s has no client certificates: use --tlsverify with --tlscacert, --tlscert and --tlskey", host, l.Addr())
	}
	return guard(l, o), nil
}
