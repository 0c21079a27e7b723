package protocol

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Listen makes the socket at path, mode 0600, and returns it for a monitor to be started with. A
// socket file that is there is replaced: the caller has made sure that nobody serves it, and holds
// the Lock.
func Listen(path string) (*os.File, error) {
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return nil, fmt.Errorf("remove stale socket %s: %w", path, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	err = withAddress(path, func(a string) error {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: a}); err != nil {
			return err
		}
		// Nobody can connect before listen(2): there is no moment at which the mode is too wide.
		if err := unix.Chmod(path, 0o600); err != nil {
			return err
		}
		return unix.Listen(fd, 128)
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return f, nil
}

// Dial connects to the socket at path. When nobody listens the error is fault.Unavailable.
func Dial(path string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FileConn has its own duplicate
	err = withAddress(path, func(a string) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: a}) })
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, fault.New(fault.Unavailable, "no monitor at %s: %w", path, err)
	default:
		return nil, fmt.Errorf("connect to the monitor at %s: %w", path, err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("connect to the monitor at %s: %w", path, err)
	}
	return NewConn(c.(*net.UnixConn)), nil
}

// withAddress calls fn with a name for the socket at path that fits into an address: sun_path has
// 108 bytes (unix(7)), and a data root may be deep. A longer path is spoken of by its directory's
// descriptor.
func withAddress(path string, fn func(string) error) error {
	if len(path) < 108 {
		return fn(path)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)))
}

// Lock takes the lock on the socket's existence: who holds it may make, replace or remove the
// socket file. It is the directory that is locked, so that no lock file remains. With wait false
// and the lock taken by another, the error is fault.Conflict.
func Lock(socket string, wait bool) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(dir.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.New(fault.Conflict, "another process is starting or ending the monitor at %s", socket)
		}
		return nil, fmt.Errorf("lock %s: %w", filepath.Dir(socket), err)
	}
	return func() { dir.Close() }, nil
}

// Peer returns the user id of the process at the other end, as it was when it connected
// (SO_PEERCRED, unix(7)).
func Peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
