package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/runtime"
)

// A service manager that starts this program as a service of type notify wants to hear when the service is
// ready (sd_notify(3)), and the container is the service. It cannot reach the manager's socket, so it gets
// one of its own at /run/notify/notify.sock, and READY=1 that comes there is passed on, with the process
// that the manager is to watch from then on. As in runc, nothing else is.
//
//	<root>/.notify/<id>/notify.sock	bound by run or start, and removed by delete

const (
	notifyInside = "/run/notify"
	notifyFile   = "notify.sock"
)

// notification is the socket of one container; nil when nobody wants to hear.
type notification struct {
	manager, dir string
	conn         *net.UnixConn
}

func (p *program) notification(id string) *notification {
	manager := os.Getenv("NOTIFY_SOCKET")
	if manager == "" {
		return nil
	}
	return &notification{manager: manager, dir: p.notifyDir(id)}
}

func (p *program) notifyDir(id string) string {
	return filepath.Join(p.root, ".notify", filepath.Base(id))
}

// addTo mounts the socket's directory into a container that is about to be made.
func (n *notification) addTo(spec *specs.Spec) error {
	if n == nil || spec.Process == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(n.dir), 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(n.dir, 0o755); err != nil { // #nosec G301 -- its parent keeps others out
		return err
	}
	dir, err := filepath.Abs(n.dir)
	if err != nil {
		return err
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: notifyInside, Type: "bind", Source: dir, Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	spec.Process.Env = append(spec.Process.Env, "NOTIFY_SOCKET="+notifyInside+"/"+notifyFile)
	return nil
}

// listen binds the socket, before the program of the container runs.
func (n *notification) listen() error {
	if n == nil {
		return nil
	}
	if _, err := os.Stat(n.dir); errors.Is(err, os.ErrNotExist) {
		return nil // the container was created without
	}
	name := filepath.Join(n.dir, notifyFile)
	os.Remove(name) //nolint:errcheck // of a start that did not come to its end
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	// Any user of the container may say that it is ready.
	if err := os.Chmod(name, 0o777); err != nil { // #nosec G302 -- see addTo
		return errors.Join(err, conn.Close())
	}
	n.conn = conn
	return nil
}

// forward waits until the container is ready, or has ended, and tells the manager. main is the process that
// the manager is to watch; 0: it watches this one already.
func (n *notification) forward(c *runtime.Container, main int) error {
	if n == nil || n.conn == nil {
		return nil
	}
	defer n.conn.Close() //nolint:errcheck // it was only read
	buf := make([]byte, 4096)
	for {
		n.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) //nolint:errcheck // then the read tells
		size, err := n.conn.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s, err := c.State(); err != nil || s.Status == specs.StateStopped {
				return nil //nolint:nilerr // deleted: there is nothing to tell
			}
		case err != nil:
			return fmt.Errorf("NOTIFY_SOCKET: %w", err)
		case isReady(buf[:size]):
			return n.tell(main)
		}
	}
}

func isReady(message []byte) bool {
	for line := range bytes.SplitSeq(message, []byte("\n")) {
		if string(line) == "READY=1" {
			return true
		}
	}
	return false
}

func (n *notification) tell(main int) error {
	address := n.manager
	if strings.HasPrefix(address, "@") {
		address = "\x00" + address[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer conn.Close() //nolint:errcheck // what counts was sent
	text := "READY=1\n"
	if main != 0 {
		// In one message: after READY=1 the manager may no longer wait for another.
		text += fmt.Sprintf("MAINPID=%d\n", main)
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}

// forget removes what addTo has made.
func (p *program) forget(id string) {
	os.RemoveAll(p.notifyDir(id))               //nolint:errcheck // it is of no use to anybody
	os.Remove(filepath.Join(p.root, ".notify")) //nolint:errcheck // others may have theirs there
}
