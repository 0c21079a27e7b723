package external

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime"
)

// Container is a container of such a runtime. Its methods mean what those of runtime.Container do.
type Container struct {
	log    *slog.Logger
	dir    string
	record record

	mu      sync.Mutex
	console *os.File
}

// Process is a further process in a container.
type Process struct {
	pid     int
	console *os.File
}

// Pid is the process's number here.
func (p *Process) Pid() int { return p.pid }

// PidFD is nil: who wants one opens it, as the child stays until the caller has reaped it.
func (p *Process) PidFD() *os.File { return nil }

// Console is the master of the process's terminal, which belongs to the caller; nil without one.
func (p *Process) Console() *os.File { return p.console }

func (c *Container) file(name string) string { return filepath.Join(c.dir, name) }

// ID is the container's name.
func (c *Container) ID() string { return c.record.ID }

// Pid is the first process; 0 when there was none.
func (c *Container) Pid() int { return c.record.Pid }

// Console is the master of the container's terminal, the first time: it belongs to the caller.
func (c *Container) Console() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.console
	c.console = nil
	return f
}

// Close closes the terminal that nobody took.
func (c *Container) Close() error {
	if f := c.Console(); f != nil {
		return f.Close()
	}
	return nil
}

// Start lets the container's program run.
func (c *Container) Start(ctx context.Context) error {
	_, err := c.run(ctx, call{verb: "start", args: []string{c.record.ID}})
	return err
}

// alive reports whether the first process is there and not a zombie.
func (c *Container) alive() bool {
	if c.record.Pid == 0 {
		return false
	}
	start, state, err := linux.StartTime(c.record.Pid)
	return err == nil && start == c.record.StartTime && state != 'Z' && state != 'X'
}

// Kill sends a signal to the first process, or to all of the container: fault.Conflict when it has stopped.
func (c *Container) Kill(sig unix.Signal, all bool) error {
	if all && sig == unix.SIGKILL {
		// By the cgroup, which holds also when the first process is dead and others are not.
		if m, err := c.cgroups(); err == nil {
			if pids, err := m.Pids(); err == nil && len(pids) > 0 {
				return m.Kill(sig)
			}
		}
	}
	if !c.alive() {
		return fault.New(fault.Conflict, "container %s is not running", c.record.ID)
	}
	args := []string{c.record.ID, strconv.Itoa(int(sig))}
	if all {
		args = append([]string{"--all"}, args...)
	}
	_, err := c.run(context.Background(), call{verb: "kill", args: args})
	if err != nil && !c.alive() {
		return fault.New(fault.Conflict, "container %s is not running", c.record.ID)
	}
	return err
}

// State is what the runtime says, as long as the first process lives.
func (c *Container) State() (specs.State, error) {
	stopped := specs.State{Version: specVersion, ID: c.record.ID, Status: specs.StateStopped, Bundle: c.dir}
	if !c.alive() {
		return stopped, nil
	}
	text, err := c.run(context.Background(), call{verb: "state", args: []string{c.record.ID}})
	if err != nil {
		if !c.alive() {
			return stopped, nil
		}
		// A runtime that is not there any more keeps no process from running.
		c.log.Warn("state of a container", "container", c.record.ID, "error", err)
		return specs.State{Version: specVersion, ID: c.record.ID, Status: specs.StateRunning, Pid: c.record.Pid, Bundle: c.dir}, nil
	}
	var s specs.State
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("runtime %s: state: %w", c.record.Command.Name, err)
	}
	return s, nil
}

// Delete removes a container that has stopped, or with force any. One that is gone is no error.
func (c *Container) Delete(ctx context.Context, force bool) error {
	if !force && c.alive() {
		return fault.New(fault.Conflict, "cannot delete container %s that is not stopped", c.record.ID)
	}
	// With force, as a container that the runtime does not know any more is none to remove.
	if _, err := c.run(ctx, call{verb: "delete", args: []string{"--force", c.record.ID}}); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(c.sweep(), os.RemoveAll(c.dir))
}

// sweep ends what is left in the cgroup, of a create whose caller was killed before it could know the process.
func (c *Container) sweep() error {
	m, err := c.cgroups()
	if err != nil {
		return err
	}
	if pids, err := m.Pids(); err != nil || len(pids) == 0 {
		return err
	}
	return errors.Join(m.Kill(unix.SIGKILL), m.Delete())
}

// Exec starts a further process. An error of execve(2) is that of Exec.
func (c *Container) Exec(ctx context.Context, o runtime.ExecOptions) (*Process, error) {
	process, err := clamped(o.Process, o.ClampDefaults)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(process)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.dir, "exec-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	spec, pid := filepath.Join(dir, "process.json"), filepath.Join(dir, pidFile)
	if err := os.WriteFile(spec, text, 0o600); err != nil {
		return nil, err
	}
	args := []string{"--process", spec, "--detach", "--pid-file", pid}
	terminal, args, err := c.terminal(process, args)
	if err != nil {
		return nil, err
	}
	defer terminal.close()
	if _, err := c.run(ctx, call{verb: "exec", args: append(args, c.record.ID), stdin: o.Stdin, stdout: o.Stdout, stderr: o.Stderr}); err != nil {
		return nil, err
	}
	p := &Process{}
	if p.pid, err = readPid(pid); err != nil {
		return nil, fmt.Errorf("runtime %s: exec: %w", c.record.Command.Name, err)
	}
	if p.console, err = terminal.master(); err != nil {
		unix.Kill(p.pid, unix.SIGKILL) //nolint:errcheck // by number: nobody has reaped it
		return nil, err
	}
	return p, nil
}

// Pause freezes every process of the container.
func (c *Container) Pause(ctx context.Context) error {
	_, err := c.run(ctx, call{verb: "pause", args: []string{c.record.ID}})
	return err
}

// Resume lets a paused container go on.
func (c *Container) Resume(ctx context.Context) error {
	_, err := c.run(ctx, call{verb: "resume", args: []string{c.record.ID}})
	return err
}

// Update changes the limits that r names.
func (c *Container) Update(r *specs.LinuxResources) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = c.run(context.Background(), call{verb: "update", args: []string{"--resources", "-", c.record.ID}, input: text})
	return err
}

// cgroups are the container's, of which the files mean the same whoever made them.
func (c *Container) cgroups() (*cgroup.Manager, error) { return cgroup.Load(c.record.Cgroup) }

// Stats reads the counters of the container's cgroups.
func (c *Container) Stats() (cgroup.Stats, error) {
	m, err := c.cgroups()
	if err != nil {
		return cgroup.Stats{}, err
	}
	return m.Stats()
}

// Pids are the processes of the container.
func (c *Container) Pids() ([]int, error) {
	m, err := c.cgroups()
	if err != nil {
		return nil, err
	}
	return m.Pids()
}

// OOMKills says how often the kernel killed a process of the container for want of memory.
func (c *Container) OOMKills() (uint64, error) {
	m, err := c.cgroups()
	if err != nil {
		return 0, err
	}
	return m.OOMKills()
}
