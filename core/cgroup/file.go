package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// maxFile bounds what is read of one file. The longest are cgroup.procs and io.stat.
const maxFile = 4 << 20

// The files are read and written with bare system calls: package os would register each one with
// the poller, which cgroup files can do and nobody here needs.

func retryOpen(name string, flags int) (int, error) {
	return linux.RetryValue(func() (int, error) { return unix.Open(name, flags|unix.O_CLOEXEC, 0) })
}

func writeFile(name, value string) error {
	fd, err := retryOpen(name, unix.O_WRONLY)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return writeTo(fd, name, value)
}

func writeTo(fd int, name, value string) error {
	if err := linux.Retry(func() error { _, err := unix.Write(fd, []byte(value)); return err }); err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

func readFile(name string) (string, error) {
	fd, err := retryOpen(name, unix.O_RDONLY)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= maxFile {
				return "", fmt.Errorf("read %s: more than %d bytes", name, maxFile)
			}
			buf = append(buf, make([]byte, len(buf))...)[:len(buf)]
		}
		n, err := linux.RetryValue(func() (int, error) { return unix.Read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return "", &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return strings.TrimSuffix(string(buf), "\n"), nil
		}
		buf = buf[:len(buf)+n]
	}
}

func exists(name string) bool {
	return linux.Retry(func() error { return unix.Access(name, unix.F_OK) }) == nil
}

// gone reports whether an error says that the cgroup is not there, or was removed meanwhile.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) }

// number reads a file with one number. "max", -1 and the v1 kernel's highest value, which is
// PAGE_COUNTER_MAX in bytes, are math.MaxUint64. A file that is not there is 0.
func number(name string) (uint64, error) {
	text, err := readFile(name)
	if gone(err) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, ok := parseNumber(text)
	if !ok {
		return 0, fmt.Errorf("read %s: %q is not a number", name, text)
	}
	return n, nil
}

func parseNumber(text string) (uint64, bool) {
	if text == "max" || text == "-1" {
		return math.MaxUint64, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false
	}
	if n >= uint64(math.MaxInt64)&^0xffff { // rounded down to a page, of 64 KiB at most
		n = math.MaxUint64
	}
	return n, true
}

// numbers reads a file of lines "key number". A file that is not there is empty.
func numbers(name string) (map[string]uint64, error) {
	text, err := readFile(name)
	if gone(err) || errors.Is(err, unix.EOPNOTSUPP) {
		return map[string]uint64{}, nil
	}
	if err != nil {
		return nil, err
	}
	m := make(map[string]uint64, 48)
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			m[key] = n
		}
	}
	return m, nil
}
