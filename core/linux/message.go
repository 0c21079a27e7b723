package linux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Socketpair is a connected pair of stream sockets, both close-on-exec. The first is ours, the second for another process.
func Socketpair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return polled(pair[0], "socketpair"), os.NewFile(uintptr(pair[1]), "socketpair"), nil
}

// polled is a socket at which a goroutine waits without a thread. It is not only the thread: while one is in a system
// call the Go runtime's monitor wakes up every tenth of a millisecond, for up to ten, and takes that time from the
// process that is waited for.
func polled(fd int, name string) *os.File {
	unix.SetNonblock(fd, true) //nolint:errcheck // else a thread waits
	return os.NewFile(uintptr(fd), name)
}

// maxFiles bounds the files that come along with a message: more are not received.
const maxFiles = 64

// SendFile sends data and a file over a unix stream socket.
func SendFile(socket *os.File, data []byte, file *os.File) error {
	if file == nil {
		return SendFiles(socket, data)
	}
	return SendFiles(socket, data, file)
}

// SendFiles sends data and files over a unix stream socket.
func SendFiles(socket *os.File, data []byte, files ...*os.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("sendmsg: %d files, expected at most %d", len(files), maxFiles)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	conn, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("sendmsg: %w", err)
	}
	for {
		var n int
		var failed error
		err := conn.Write(func(fd uintptr) bool {
			n, failed = RetryValue(func() (int, error) { return unix.SendmsgN(int(fd), data, rights, nil, unix.MSG_NOSIGNAL) })
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch err = errors.Join(err, failed); {
		case err != nil:
			return fmt.Errorf("sendmsg: %w", err)
		case n == len(data):
			return nil
		default:
			data, rights = data[n:], nil
		}
	}
}

// Receiver reads from a unix stream socket and keeps the files that came along, in order.
type Receiver struct {
	Socket *os.File
	Files  []*os.File
}

// Read reads bytes; io.EOF when the other side has closed or died.
func (r *Receiver) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	conn, err := r.Socket.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("recvmsg: %w", err)
	}
	var n, oobn int
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		failed = Retry(func() (err error) {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), p, oob, unix.MSG_CMSG_CLOEXEC)
			return err
		})
		return !errors.Is(failed, unix.EAGAIN)
	})
	switch err = errors.Join(err, failed); {
	case errors.Is(err, unix.ECONNRESET):
		return 0, io.EOF
	case err != nil:
		return 0, fmt.Errorf("recvmsg: %w", err)
	}
	if oobn > 0 {
		if err := r.keep(oob[:oobn]); err != nil {
			return n, err
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *Receiver) keep(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials and the like
		}
		for _, fd := range fds {
			r.Files = append(r.Files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return nil
}

// Take takes the oldest file that has come, or nil.
func (r *Receiver) Take() *os.File {
	if len(r.Files) == 0 {
		return nil
	}
	f := r.Files[0]
	r.Files = r.Files[1:]
	return f
}

// Close closes the files that nobody has taken. The socket stays open.
func (r *Receiver) Close() {
	for f := r.Take(); f != nil; f = r.Take() {
		f.Close()
	}
}

// maxSocketPath is the room of sockaddr_un.
const maxSocketPath = 107

// Listen makes a listening unix stream socket with the name in the directory. The directory is
// addressed by handle, so that its path may be of any length.
func Listen(dir *os.File, name string, backlog int) (*os.File, error) {
	fd, address, err := socketAt(dir, name)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, address); err != nil {
		unix.Close(fd)
		return nil, pathError("bind", name, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		unix.Close(fd)
		return nil, pathError("listen", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Connect connects to a unix stream socket with the name in the directory.
func Connect(dir *os.File, name string) (*os.File, error) {
	fd, address, err := socketAt(dir, name)
	if err != nil {
		return nil, err
	}
	if err := Retry(func() error { return unix.Connect(fd, address) }); err != nil {
		unix.Close(fd)
		return nil, pathError("connect", name, err)
	}
	return polled(fd, name), nil
}

func socketAt(dir *os.File, name string) (int, *unix.SockaddrUnix, error) {
	address := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)}
	if len(address.Name) > maxSocketPath {
		return -1, nil, pathError("socket", name, unix.ENAMETOOLONG)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	return fd, address, pathError("socket", name, err)
}

// Accept waits for one connection.
func Accept(listener *os.File) (*os.File, error) {
	fd, err := RetryValue(func() (int, error) {
		fd, _, err := unix.Accept4(int(listener.Fd()), unix.SOCK_CLOEXEC)
		return fd, err
	})
	return open(fd, "accept", listener.Name(), err)
}

// ConnectPath connects to the unix stream socket at a path that the user named, such as
// --console-socket.
func ConnectPath(name string) (*os.File, error) {
	dir, err := OpenAt(nil, filepath.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return Connect(dir, filepath.Base(name))
}
