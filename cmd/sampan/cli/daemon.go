package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

// daemonLog is where a daemon that a client started writes.
const daemonLog = "/var/log/sampand.log"

// daemonPatience bounds the wait for a started daemon that says nothing. One that goes on, as with a thousand containers
// to reconcile on a slow machine, is waited for as long as it takes.
const daemonPatience = 60 * time.Second

// start is what a daemon that starts has written.
type start struct {
	size int64
	at   time.Time // when it was seen
}

// late reports whether a daemon whose log has that size now has been silent for too long.
func (p *start) late(size int64, now time.Time) bool {
	if size != p.size {
		p.size, p.at = size, now
	}
	return now.Sub(p.at) >= daemonPatience
}

// DaemonProgram returns the path of sampand: beside this executable, else in PATH.
func DaemonProgram() (string, error) {
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), "sampand"); isFile(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath("sampand")
	if err != nil {
		return "", fault.New(fault.NotFound, "sampand is neither beside sampan nor in PATH")
	}
	return path, nil
}

// startDaemon starts sampand in a session of its own and waits until it listens on the default
// socket. Of two clients that do so at once one daemon finds the other's lock and ends; both clients
// go on with the one that is left.
func (c *CLI) startDaemon(ctx context.Context, host string) error {
	program, err := DaemonProgram()
	if err != nil {
		return fault.New(fault.Unavailable, "Cannot connect to the sampan daemon at %s, and to start it: %w", host, err)
	}
	log, err := os.OpenFile(daemonLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fault.New(fault.Unavailable, "start sampand: %w", err)
	}
	defer log.Close()
	from, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fault.New(fault.Unavailable, "start sampand: %w", err)
	}
	fmt.Fprintf(c.Err, "sampan: no daemon at %s: started %s (process %d), which logs to %s\n", host, program, cmd.Process.Pid, daemonLog)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return awaitSocket(ctx, strings.TrimPrefix(host, "unix://"), ended, from)
}

// awaitSocket polls until the socket takes connections. After the daemon's end it tries for one
// more second, for the daemon that another client may have started.
func awaitSocket(ctx context.Context, socket string, ended <-chan error, logFrom int64) error {
	heard := start{size: logFrom, at: time.Now()}
	var deadline <-chan time.Time
	var failure error
	for {
		if conn, err := net.Dial("unix", socket); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline:
			return fault.New(fault.Unavailable, "start sampand: %w; see %s", failure, daemonLog)
		case err := <-ended:
			ended, deadline = nil, time.After(time.Second)
			failure = fmt.Errorf("it ended: %s", lastLine(logFrom, err))
		case <-time.After(5 * time.Millisecond):
		}
		size := int64(-1)
		if info, err := os.Stat(daemonLog); err == nil {
			size = info.Size()
		}
		if failure == nil && heard.late(size, time.Now()) {
			return fault.New(fault.Unavailable, "start sampand: it does not listen on %s, and has written nothing for %v; see %s", socket, daemonPatience, daemonLog)
		}
	}
}

// lastLine is the last thing that the daemon wrote, or how it ended if it wrote nothing.
func lastLine(from int64, ended error) string {
	f, err := os.Open(daemonLog)
	if err == nil {
		defer f.Close()
		buf := make([]byte, 64*1024)
		if n, _ := f.ReadAt(buf, from); n > 0 { // the end of the file is an error, and expected
			text := bytes.TrimSpace(buf[:n])
			return string(text[bytes.LastIndexByte(text, '\n')+1:])
		}
	}
	if ended == nil {
		return "exit status 0"
	}
	return ended.Error()
}
