package linux

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PidFD opens a handle of the process; ESRCH when there is none.
func PidFD(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	return open(fd, "pidfd_open", strconv.Itoa(pid), err)
}

// Signal sends a signal to the process of a pidfd; os.ErrProcessDone when it has ended.
func Signal(pidfd *os.File, sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(pidfd.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("send signal %d: %w", int(sig), err)
	}
	return nil
}

// Wait waits for the child of a pidfd and returns its status in the form of wait4(2).
func Wait(pidfd *os.File) (unix.WaitStatus, error) {
	var info unix.Siginfo
	err := Retry(func() error {
		return unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), &info, unix.WEXITED|unix.WALL, nil)
	})
	if err != nil {
		return 0, fmt.Errorf("waitid: %w", err)
	}
	return waitStatus(&info), nil
}

// waitStatus reads the SIGCHLD part of a siginfo: si_code says how to read si_status, which stands
// after pid and uid.
func waitStatus(info *unix.Siginfo) unix.WaitStatus {
	const cldExited, cldDumped = 1, 3
	// The union after signo, errno, code and padding starts with pid and uid.
	status := *(*int32)(unsafe.Add(unsafe.Pointer(info), 24))
	switch info.Code {
	case cldExited:
		return unix.WaitStatus(status & 0xff << 8)
	case cldDumped:
		return unix.WaitStatus(status | 0x80)
	default:
		return unix.WaitStatus(status)
	}
}

// Ended reports whether the process of a pidfd has ended, waited for or not.
func Ended(pidfd *os.File) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := RetryValue(func() (int, error) { return unix.Poll(poll, 0) })
	return err == nil && n > 0
}

// StartTime is the time after boot at which the process started, in clock ticks (field 22 of
// proc_pid_stat(5)). A pid and a start time name one process for ever. state is the letter of
// field 3: 'Z' for one that has ended and was not waited for.
func StartTime(pid int) (ticks uint64, state byte, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The second field is the name in parentheses, which may contain anything.
	end := strings.LastIndexByte(string(text), ')')
	if end < 0 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: no name", pid)
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %d fields, expected 20 or more", pid, len(fields))
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("/proc/%d/stat: start time: %w", pid, err)
	}
	return ticks, fields[0][0], nil
}
