// Package linux has the system calls that golang.org/x/sys/unix lacks or leaves bare: starting a
// process straight into namespaces and a cgroup (Spawn), paths that cannot leave a root (Root),
// the mount API by file descriptor, pidfds, capabilities, and files passed over sockets.
//
// Every function restarts what a signal interrupted, and returns an error that names the call and
// the path that it was about. Above this package nobody sees a bare error number.
package linux

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Retry calls f until it is not interrupted by a signal.
func Retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// RetryValue is Retry for a call with a result.
func RetryValue[T any](f func() (T, error)) (T, error) {
	for {
		if v, err := f(); !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// pathError is nil for a nil error, else an *os.PathError.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// open turns a descriptor and an error into a file and a wrapped error.
func open(fd int, op, name string, err error) (*os.File, error) {
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
