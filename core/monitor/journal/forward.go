package journal

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// TLS says how a logger at a tcp+tls address is spoken with.
type TLS struct {
	CA         string `json:"ca,omitempty"`   // PEM file of authorities beside the host's
	Cert       string `json:"cert,omitempty"` // PEM files of what is shown to the logger
	Key        string `json:"key,omitempty"`
	SkipVerify bool   `json:"skipVerify,omitempty"`
}

// forwarder is the program that has TLS, beside this one or in PATH (cmd/sampan-log-tls).
const forwarder = "sampan-log-tls"

func forwarderPath() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), forwarder)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath(forwarder)
	if err != nil { // not in the words of a container's program that is missing
		return "", fault.New(fault.Unavailable, "program %s: expected it beside the runtime or in PATH", forwarder)
	}
	return path, nil
}

// dial starts the forwarder, and returns the connection with it when it has one with the logger.
func (t TLS) dial(address string) (net.Conn, error) {
	program, err := forwarderPath()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	args := []string{"-address", address, "-ca", t.CA, "-cert", t.Cert, "-key", t.Key}
	if t.SkipVerify {
		args = append(args, "-skip-verify")
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdin = "/", theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, err
	}
	go cmd.Wait()                                      //nolint:errcheck // what it has to say it says on the socket, whose end is its end
	ours.SetReadDeadline(time.Now().Add(2 * patience)) //nolint:errcheck // the read tells
	// Nothing comes behind the line, so the reader holds nothing back.
	line, err := bufio.NewReader(ours).ReadString('\n')
	if err == nil && line != "\n" {
		err = errors.New(strings.TrimSpace(line))
	} else if err != nil {
		err = fmt.Errorf("%s: %w", forwarder, err)
	}
	if err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	mine := os.NewFile(uintptr(fds[0]), "log")
	defer mine.Close() // it is duplicated
	theirs = os.NewFile(uintptr(fds[1]), "log")
	if ours, err = net.FileConn(mine); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}
