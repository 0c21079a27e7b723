package container

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/container/rootfs"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

// keepExecs is how many ended execs of a container can be inspected; older ones are forgotten.
const keepExecs = 100

// execution is one exec instance. It lives in memory: after a restart of the daemon its process goes
// on, and nobody can ask for it any more, as with Docker.
type execution struct {
	id        string
	container *Container
	config    wire.ExecConfig
	made      time.Time

	// What follows is guarded by the container's mutex.
	started, running bool
	pid              int
	code             *int
}

func noSuchExec(id string) error {
	return fault.New(fault.NotFound, "No such exec instance: %s", shortened(id))
}

// ExecCreate makes an exec instance for a container that runs.
func (m *Manager) ExecCreate(ctx context.Context, ref string, config wire.ExecConfig) (string, error) {
	c, err := m.find(ref)
	if err != nil {
		return "", err
	}
	rec, st := c.snapshot()
	if err := canExec(&rec, &st); err != nil {
		return "", err
	}
	if len(config.Cmd) == 0 || slices.ContainsFunc(config.Cmd, hasNUL) || config.Cmd[0] == "" {
		return "", fault.New(fault.Invalid, "No exec command specified")
	}
	for _, e := range config.Env {
		if e == "" || e[0] == '=' || hasNUL(e) {
			return "", fault.New(fault.Invalid, "invalid environment variable: %s", shortened(e))
		}
	}
	if config.WorkingDir != "" && config.WorkingDir[0] != '/' {
		return "", fault.New(fault.Invalid, "Cwd must be an absolute path")
	}
	e := &execution{id: newID(), container: c, config: config, made: time.Now()}
	m.mu.Lock()
	m.execs[e.id] = e
	m.forgetOldExecs(c)
	m.mu.Unlock()
	m.emit(&rec, "exec_create: "+commandLine(config.Cmd), "execID", e.id)
	return e.id, nil
}

// commandLine is how Docker's events write a command: the program, a space, and its arguments.
func commandLine(command []string) string {
	return command[0] + " " + strings.Join(command[1:], " ")
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

func canExec(rec *record, st *runState) error {
	switch st.Phase {
	case running:
		return nil
	case paused:
		return fault.New(fault.Conflict, "Container %s is paused, unpause the container before exec", strings.TrimPrefix(rec.Name, "/"))
	case restarting:
		return fault.New(fault.Conflict, "Container %s is restarting, wait until the container is running", rec.ID)
	}
	return notRunningError(rec)
}

// forgetOldExecs is called with Manager.mu held.
func (m *Manager) forgetOldExecs(c *Container) {
	var ended []*execution
	c.mu.Lock()
	for _, e := range m.execs {
		if e.container == c && !e.running && e.started {
			ended = append(ended, e)
		}
	}
	c.mu.Unlock()
	if len(ended) <= keepExecs {
		return
	}
	slices.SortFunc(ended, func(a, b *execution) int { return cmp.Compare(a.made.UnixNano(), b.made.UnixNano()) })
	for _, e := range ended[:len(ended)-keepExecs] {
		delete(m.execs, e.id)
	}
}

func (m *Manager) exec(id string) (*execution, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if e, ok := m.execs[id]; ok {
		return e, nil
	}
	return nil, noSuchExec(id)
}

// ExecStart runs the command. The stream is nil for a detached start. A command that cannot be run is
// fault.Invalid, and the exit code that a shell would give it is ExecInspect's.
func (m *Manager) ExecStart(ctx context.Context, id string, s wire.ExecStart) (Stream, error) {
	e, err := m.exec(id)
	if err != nil {
		return nil, err
	}
	c := e.container
	rec, st := c.snapshot()
	if err := canExec(&rec, &st); err != nil {
		return nil, err
	}
	c.mu.Lock()
	if e.started {
		defer c.mu.Unlock()
		if e.running {
			return nil, fault.New(fault.Conflict, "Error: Exec command %s is already running", e.id)
		}
		return nil, fault.New(fault.Conflict, "Error: Exec command %s has already run", e.id)
	}
	e.started, e.running = true, true
	c.mu.Unlock()

	// Before the process, which may be at its end by the time that it is known to have begun.
	m.emit(&rec, "exec_start: "+commandLine(e.config.Cmd), "execID", e.id)
	op := m.o.Operations.Begin("container", "exec", rec.ID)
	status, stream, err := m.runExec(ctx, &rec, &st, e, s)
	op.End(err)
	if err != nil {
		err = explain(err)
		m.execEnded(e.id, monitor.Exit{Code: execExitCode(err)})
		return nil, err
	}
	c.mu.Lock()
	if e.running { // its end may have been told first
		e.pid = status.Pid
	}
	c.mu.Unlock()
	return stream, nil
}

// execExitCode is a shell's, also when the engine is at fault: docker exits with 126.
func execExitCode(err error) int {
	if code := startExitCode(err); code != unknownExit {
		return code
	}
	return 126
}

func (m *Manager) runExec(ctx context.Context, rec *record, st *runState, e *execution, s wire.ExecStart) (monitor.Status, Stream, error) {
	process, err := m.execProcess(e.container, rec, st, &e.config)
	if err != nil {
		return monitor.Status{}, nil, err
	}
	config := monitor.ExecConfig{ID: e.id, Process: process, OpenStdin: e.config.AttachStdin && !s.Detach}
	for _, size := range []*[2]uint{e.config.ConsoleSize, s.ConsoleSize} {
		if size != nil {
			config.ConsoleHeight, config.ConsoleWidth = uint16(size[0]), uint16(size[1])
		}
	}
	if s.Detach {
		status, err := m.o.Monitor.Exec(ctx, rec.ID, config)
		return status, nil, err
	}
	status, f, err := m.o.Monitor.ExecAttach(ctx, rec.ID, config, monitor.AttachConfig{
		Stdin: e.config.AttachStdin, Stdout: e.config.AttachStdout, Stderr: e.config.AttachStderr})
	if err != nil {
		return status, nil, err
	}
	return status, &execStream{fileStream: fileStream{f}, m: m, e: e}, nil
}

// execProcess describes the process of an exec.
func (m *Manager) execProcess(c *Container, rec *record, st *runState, config *wire.ExecConfig) (*specs.Process, error) {
	a, err := m.execUser(c, rec, st, config.User)
	if err != nil {
		return nil, err
	}
	env := environment(overlay(rec.Config.Env, config.Env), rec.Config.Hostname, a.Home, config.Tty)
	cwd := cmp.Or(config.WorkingDir, rec.Config.WorkingDir, "/")
	return spec.ExecProcess(m.hardened(&rec.Host), spec.Exec{Args: config.Cmd, Env: env, Cwd: cwd, User: a.User, Terminal: config.Tty,
		Privileged: config.Privileged, DefaultUlimits: m.o.DefaultUlimits, AppArmor: m.o.AppArmor})
}

// execUser is the container's own user unless another is named, who is looked up in the files as they
// are now.
func (m *Manager) execUser(c *Container, rec *record, st *runState, name string) (account, error) {
	c.mu.Lock()
	own := c.account
	c.mu.Unlock()
	if name == "" && own != nil {
		return *own, nil
	}
	root, err := rootfs.OfProcess(st.Pid)
	if err != nil {
		return account{}, err
	}
	defer root.Close()
	return lookupUser(root, cmp.Or(name, rec.Config.User), rec.Host.GroupAdd)
}

// execStream is the stream of an exec. When it has ended the exit status is known, as clients ask for
// it at once.
type execStream struct {
	fileStream
	m *Manager
	e *execution
}

// statusWait bounds how long the end of the output waits for the exit status.
const statusWait = 10 * time.Second

func (s *execStream) Read(p []byte) (int, error) {
	n, err := s.fileStream.Read(p)
	if errors.Is(err, io.EOF) {
		s.awaitStatus()
	}
	return n, err
}

// WriteTo is what io.Copy calls: the file's own, which would not wait, must not be reached.
func (s *execStream) WriteTo(w io.Writer) (int64, error) {
	n, err := s.fileStream.WriteTo(w)
	if err == nil {
		s.awaitStatus()
	}
	return n, err
}

func (s *execStream) awaitStatus() {
	ctx, cancel := context.WithTimeout(s.m.ctx, statusWait)
	defer cancel()
	if exit, err := s.m.o.Monitor.Wait(ctx, s.e.container.id, s.e.id); err == nil {
		s.m.execEnded(s.e.id, exit)
	}
}

// execEnded notes the end of an exec; it may be told more than once.
func (m *Manager) execEnded(id string, exit monitor.Exit) {
	e, err := m.exec(id)
	if err != nil {
		return
	}
	c := e.container
	c.mu.Lock()
	if !e.running {
		c.mu.Unlock()
		return
	}
	e.running, e.pid, e.code = false, 0, &exit.Code
	rec := c.rec
	c.mu.Unlock()
	m.emit(&rec, "exec_die", "execID", id, "exitCode", strconv.Itoa(exit.Code))
	m.later(func() {
		// An exec that could not be started is not known there.
		if err := m.o.Monitor.DeleteExec(m.ctx, c.id, id); err != nil && !fault.Is(err, fault.NotFound) && m.ctx.Err() == nil {
			m.log.Debug("forget an exec", "container", c.id, "exec", id, "error", err)
		}
	})
}

// missedExecs notes the end of the execs that the monitor does not know: they are lost with one that ended. Those
// that have no process yet are in the hands of who starts them.
func (m *Manager) missedExecs(ctx context.Context) {
	lost := map[string]string{} // container of each
	m.mu.RLock()
	for id, e := range m.execs {
		e.container.mu.Lock()
		if e.running && e.pid != 0 {
			lost[id] = e.container.id
		}
		e.container.mu.Unlock()
	}
	m.mu.RUnlock()
	for id, container := range lost {
		// Signal 0 only asks (kill(2)).
		if err := m.o.Monitor.KillExec(ctx, container, id, 0); fault.Is(err, fault.NotFound) {
			m.execEnded(id, monitor.Exit{Code: lostExit, Lost: true})
		}
	}
}

// endExecs notes that the execs ended with their container.
func (m *Manager) endExecs(c *Container) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range m.execs {
		if e.container == c && e.running {
			killed := 137
			e.running, e.pid, e.code = false, 0, &killed
		}
	}
}

// ExecInspect describes an exec instance.
func (m *Manager) ExecInspect(ctx context.Context, id string) (wire.ExecInspect, error) {
	e, err := m.exec(id)
	if err != nil {
		return wire.ExecInspect{}, err
	}
	e.container.mu.Lock()
	defer e.container.mu.Unlock()
	privileged := e.config.Privileged
	return wire.ExecInspect{
		ID: e.id, Running: e.running, ExitCode: e.code, ContainerID: e.container.id, Pid: e.pid,
		ProcessConfig: wire.ExecProcessConfig{Tty: e.config.Tty, Entrypoint: e.config.Cmd[0], Arguments: e.config.Cmd[1:],
			Privileged: &privileged, User: e.config.User},
		OpenStdin: e.config.AttachStdin, OpenStdout: e.config.AttachStdout, OpenStderr: e.config.AttachStderr,
		CanRemove: e.started && !e.running, DetachKeys: e.config.DetachKeys,
	}, nil
}

// ExecResize sets the size of an exec's terminal.
func (m *Manager) ExecResize(ctx context.Context, id string, height, width uint16) error {
	e, err := m.exec(id)
	if err != nil {
		return err
	}
	e.container.mu.Lock()
	live := e.running
	e.container.mu.Unlock()
	if !live {
		return fault.New(fault.Conflict, "exec %s is not running", id)
	}
	return m.o.Monitor.Resize(ctx, e.container.id, id, height, width)
}

// runningExecs are the ids that inspect shows; nil when there are none.
func (m *Manager) runningExecs(c *Container) (ids []string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range m.execs {
		if e.container == c && e.running {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
