package linux

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadToEnd(t *testing.T) {
	type answer struct {
		n   int
		err error
	}
	gone := &os.PathError{Op: "read", Path: "/dev/ptmx", Err: unix.EIO}
	for _, test := range []struct {
		name    string
		answers []answer
		want    answer
		asked   int
	}{
		{"output", []answer{{3, nil}}, answer{3, nil}, 1},
		{"nothing yet", []answer{{-1, unix.EAGAIN}}, answer{-1, unix.EAGAIN}, 1},
		{"told too early", []answer{{-1, unix.EIO}, {4, nil}}, answer{4, nil}, 2},
		{"told too early, of a file", []answer{{0, gone}, {4, nil}}, answer{4, nil}, 2},
		{"opened again", []answer{{-1, unix.EIO}, {-1, unix.EAGAIN}}, answer{-1, unix.EAGAIN}, 2},
		{"the end", []answer{{-1, unix.EIO}, {-1, unix.EIO}}, answer{-1, unix.EIO}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := 0
			n, err := readToEnd(func() (int, error) {
				asked++
				return test.answers[asked-1].n, test.answers[asked-1].err
			})
			if n != test.want.n || !errors.Is(err, test.want.err) || asked != test.asked {
				t.Errorf("%d, %v, asked %d times; want %d, %v, %d times", n, err, asked, test.want.n, test.want.err, test.asked)
			}
		})
	}
}

func TestMaster(t *testing.T) {
	for range 100 { // now and then the kernel itself tells it too early
		master, slave := openTerminal(t)
		go func() {
			slave.WriteString("a\nbc") //nolint:errcheck // what arrives tells
			slave.Close()
		}()
		out, err := io.ReadAll(Master{master})
		if err != nil || string(out) != "a\r\nbc" {
			t.Errorf("%q, %v", out, err)
		}
		master.Close()
	}
}

// openTerminal opens both sides of a terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	return master, os.NewFile(fd, "slave")
}
