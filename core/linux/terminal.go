package linux

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ReadMaster is read(2) of the master of a pseudo-terminal, with the error number bare, as pollers look at it. That
// nobody has the slave open any more is EIO, once all that was written to it has been read.
//
// The kernel says so too early now and then: it looks for output first, and whether the slave is closed second
// (drivers/tty/n_tty.c, n_tty_read). Who is held up between the two is told EIO of a slave that was written to and
// closed meanwhile. Nothing can come after that close, so that a second read has either the rest or the true end.
func ReadMaster(fd int, b []byte) (int, error) {
	return readToEnd(func() (int, error) { return RetryValue(func() (int, error) { return unix.Read(fd, b) }) })
}

func readToEnd(read func() (int, error)) (int, error) {
	n, err := read()
	if errors.Is(err, unix.EIO) {
		n, err = read()
	}
	return n, err
}

// Master reads the master of a pseudo-terminal as ReadMaster does, with an end that is io.EOF.
type Master struct{ File *os.File }

func (m Master) Read(b []byte) (int, error) {
	n, err := readToEnd(func() (int, error) { return m.File.Read(b) })
	if errors.Is(err, unix.EIO) {
		err = io.EOF
	}
	return n, err
}
