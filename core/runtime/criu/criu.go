// Package criu talks with CRIU (criu.org), the program that writes processes to disk and makes them from
// there again. It is started as `criu swrk`, and told on a socket what to do; it asks back at each step
// (criu(8) and images/rpc.proto of CRIU, criu.org/RPC).
//
//	Find      the program, new enough
//	Call      one request with its notifications
//	wire.go   the protocol's messages
//	log.go    what CRIU's log says about a failure
package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// Minimum is the oldest version that is used, as Version numbers it. It knows pid and network namespaces
// that are not its own, and says when its page server is ready.
const Minimum = 31500

// Kind is what is to be done.
type Kind uint64

// Kinds, as in criu_req_type.
const (
	Dump         Kind = 1
	Restore      Kind = 2
	notify       Kind = 6
	featureCheck Kind = 9
	version      Kind = 10
	PreDump      Kind = 13 // one alone; CRIU ends after it
)

// Program is CRIU as it is installed.
type Program struct {
	path    string
	version int
}

// Find returns the program that is in $PATH. fault.Unavailable when it is missing, too old, or when it
// cannot work on this machine.
func Find(ctx context.Context) (*Program, error) {
	path, err := exec.LookPath("criu")
	if err != nil {
		return nil, fault.New(fault.Unavailable, "CRIU is needed and not installed: criu: executable file not found in $PATH")
	}
	p := &Program{path: path}
	a, err := p.ask(ctx, version, nil)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "%s does not tell its version: %w", path, err)
	}
	if p.version = a.version; p.version < Minimum {
		return nil, fault.New(fault.Unavailable, "%s is version %s, expected %s or newer", path, versionName(p.version), versionName(Minimum))
	}
	return p, nil
}

// versionName writes 31500 as 3.15.
func versionName(v int) string {
	s := fmt.Sprintf("%d.%d", v/10000, v/100%100)
	if v%100 != 0 {
		s += fmt.Sprintf(".%d", v%100)
	}
	return s
}

// Version is 41203 for 4.12.3.
func (p *Program) Version() int { return p.version }

// Require is nil when the program is new enough for an option.
func (p *Program) Require(option string, v int) error {
	if p.version >= v {
		return nil
	}
	return fault.New(fault.Unavailable, "%s: %s is version %s, expected %s or newer", option, p.path, versionName(p.version), versionName(v))
}

// Features are what kernel and program together can do.
type Features struct{ MemoryTracking, LazyPages bool }

// Features asks for them.
func (p *Program) Features(ctx context.Context) (Features, error) {
	var f message
	f.yes(1, true)
	f.yes(2, true)
	a, err := p.ask(ctx, featureCheck, func(m *message) { m.bytes(5, f) })
	if err != nil {
		return Features{}, fmt.Errorf("ask %s for its features: %w", p.path, err)
	}
	return a.features, nil
}

// ask sends a request without options and returns the answer.
func (p *Program) ask(ctx context.Context, kind Kind, more func(*message)) (*answer, error) {
	var said bytes.Buffer
	s, err := p.start(&exec.Cmd{Stderr: &limited{to: &said}}, nil)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, s.kill)()
	var m message
	m.number(1, uint64(kind))
	if more != nil {
		more(&m)
	}
	a, err := s.exchange(m)
	s.end() //nolint:errcheck // it answered, or see below
	if err != nil {
		if line := telling(&said); line != "" {
			return nil, errors.New(line)
		}
		return nil, err
	}
	return a, nil
}

// Notification is a step that CRIU has come to.
type Notification struct {
	Step string   // such as "setup-namespaces", "post-restore"
	Pid  int      // of the tree's root, as CRIU sees it; 0 where it tells none
	File *os.File // orphan-pts-master: the master of a terminal, which belongs to the receiver
}

// Call is one dump or restore.
type Call struct {
	Kind    Kind
	Options Options
	// Stdin, Stdout and Stderr are CRIU's, and descriptors 0 to 2 for InheritFiles. nil: the null device; of
	// Stderr a few lines are kept for an error.
	Stdin, Stdout, Stderr *os.File
	Files                 []*os.File // descriptors FirstFile and on
	// Thread starts CRIU on a thread of the caller's making; nil: on any.
	Thread func(start func() error) error
	// Started is called before CRIU is told anything. It may still change the options.
	Started func(pid int, o *Options) error
	// Notify is called at each step; its error ends the call.
	Notify func(Notification) error
	// MayKill says whether CRIU may be killed at this moment when the context ends: while it works inside of
	// other processes it would leave them in pieces. nil: never.
	MayKill func() bool
}

// FirstFile is the descriptor in CRIU of the first of a call's files: after the standard streams and the
// socket.
const FirstFile = 4

// Do does it, and returns the pid of a restored tree's root.
func (p *Program) Do(ctx context.Context, c *Call) (pid int, err error) {
	var said bytes.Buffer
	cmd := &exec.Cmd{ExtraFiles: c.Files}
	set := func(to *io.Writer, f *os.File) {
		if f != nil {
			*to = f
		}
	}
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	set(&cmd.Stdout, c.Stdout)
	cmd.Stderr = &limited{to: &said}
	if c.Kind == Restore {
		cmd.Stderr = nil // what is restored has it for as long as it lives
	}
	set(&cmd.Stderr, c.Stderr)
	s, err := p.start(cmd, c.Thread)
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() {
		if c.MayKill != nil && c.MayKill() {
			s.kill()
		}
	})()
	if c.Started != nil {
		if err := c.Started(cmd.Process.Pid, &c.Options); err != nil {
			return 0, errors.Join(err, s.end())
		}
	}
	pid, err = s.converse(c)
	ended := s.end()
	switch {
	case ctx.Err() != nil && s.killed.Load():
		return 0, context.Cause(ctx)
	case err != nil:
		if line := telling(&said); line != "" && errors.Is(err, io.EOF) {
			err = errors.New(line)
		}
		return 0, err
	case ended != nil:
		return 0, fmt.Errorf("criu: %w", ended)
	}
	return pid, nil
}

// session is a CRIU that runs.
type session struct {
	cmd    *exec.Cmd
	socket *os.File
	killed atomic.Bool
	ended  chan error // what Wait said
}

// start starts CRIU as a session of its own: a ^C at the terminal is not for it.
func (p *Program) start(cmd *exec.Cmd, thread func(func() error) error) (*session, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "criu"), os.NewFile(uintptr(pair[1]), "criu")
	defer theirs.Close()
	cmd.Path, cmd.Args = p.path, []string{"criu", "swrk", "3"}
	cmd.ExtraFiles = append([]*os.File{theirs}, cmd.ExtraFiles...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	start := cmd.Start
	if thread != nil {
		start = func() error { return thread(cmd.Start) }
	}
	if err := start(); err != nil {
		ours.Close()
		return nil, err
	}
	s := &session{cmd: cmd, socket: ours, ended: make(chan error, 1)}
	go func() {
		err := cmd.Wait()
		// What it was restoring may live and hold the socket: CRIU's end is the end of the conversation.
		unix.Shutdown(int(ours.Fd()), unix.SHUT_RDWR) //nolint:errcheck // then it is closed on the other side
		s.ended <- err
	}()
	return s, nil
}

func (s *session) kill() {
	s.killed.Store(true)
	s.cmd.Process.Kill() //nolint:errcheck // it may have ended
}

// end waits for CRIU, which ends when nobody speaks to it any more.
func (s *session) end() error {
	unix.Shutdown(int(s.socket.Fd()), unix.SHUT_RDWR) //nolint:errcheck // it may be so already
	err := <-s.ended
	s.socket.Close()
	return err
}

// converse sends the request and answers the notifications.
func (s *session) converse(c *Call) (pid int, err error) {
	var m message
	m.number(1, uint64(c.Kind))
	m.bytes(2, c.Options.encode())
	for {
		a, err := s.exchange(m)
		if err != nil {
			return 0, err
		}
		if a.kind != notify {
			return a.pid, nil
		}
		if c.Notify != nil {
			err = c.Notify(a.notification)
		} else if a.notification.File != nil {
			a.notification.File.Close()
		}
		m = nil
		m.number(1, uint64(notify))
		m.number(3, boolean(err == nil))
		if err != nil {
			// CRIU undoes what it has done, and says no more than that it failed.
			s.exchange(m) //nolint:errcheck // the hook's error is the one
			return 0, err
		}
	}
}

func boolean(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// answer is the message criu_resp.
type answer struct {
	kind         Kind
	success      bool
	pid          int
	notification Notification
	features     Features
	errno        int
	message      string
	version      int
}

// maxAnswer bounds an answer, which has a name and a few numbers.
const maxAnswer = 64 << 10

// exchange sends a message and waits for the answer. One without success is an error.
func (s *session) exchange(m message) (*answer, error) {
	fd := int(s.socket.Fd())
	err := linux.Retry(func() error { return unix.Sendto(fd, m, unix.MSG_NOSIGNAL, nil) })
	if err != nil {
		return nil, fmt.Errorf("criu: %w", errors.Join(io.EOF, err))
	}
	r := linux.Receiver{Socket: s.socket}
	defer r.Close()
	buf := make([]byte, maxAnswer)
	n, err := r.Read(buf)
	if err != nil {
		return nil, fmt.Errorf("criu ended without an answer: %w", err)
	}
	a := &answer{}
	if err := a.decode(buf[:n]); err != nil {
		return nil, err
	}
	a.notification.File = r.Take()
	if !a.success {
		return nil, a.failure()
	}
	return a, nil
}

// failure is what CRIU itself says about one.
func (a *answer) failure() error {
	switch {
	case a.message != "":
		return errors.New(strings.TrimSpace(a.message))
	case a.errno != 0:
		return unix.Errno(a.errno)
	}
	return errors.New("criu tells no cause")
}

func (a *answer) decode(data []byte) error {
	v := map[int]int{}
	err := fields(data, func(field int, number uint64, sub []byte) error {
		switch field {
		case 1:
			a.kind = Kind(number)
		case 2:
			a.success = number != 0
		case 4: // criu_restore_resp
			return fields(sub, func(field int, number uint64, _ []byte) error {
				if field == 1 {
					a.pid = int(int32(number)) //nolint:gosec // an int32 on the wire
				}
				return nil
			})
		case 5: // criu_notify
			return fields(sub, func(field int, number uint64, text []byte) error {
				switch field {
				case 1:
					a.notification.Step = string(text)
				case 2:
					a.notification.Pid = int(int32(number)) //nolint:gosec // an int32 on the wire
				}
				return nil
			})
		case 7:
			a.errno = int(int32(number)) //nolint:gosec // an int32 on the wire
		case 8: // criu_features
			return fields(sub, func(field int, number uint64, _ []byte) error {
				switch field {
				case 1:
					a.features.MemoryTracking = number != 0
				case 2:
					a.features.LazyPages = number != 0
				}
				return nil
			})
		case 9:
			a.message = string(sub)
		case 10: // criu_version
			return fields(sub, func(field int, number uint64, _ []byte) error {
				v[field] = int(int32(number)) //nolint:gosec // an int32 on the wire
				return nil
			})
		}
		return nil
	})
	a.version = v[1]*10000 + v[2]*100 + v[4]
	return err
}

// limited keeps the first bytes of what a program says.
type limited struct{ to *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 16<<10 - l.to.Len(); room > 0 {
		l.to.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
