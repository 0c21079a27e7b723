package server

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/creack/pty"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime"
)

// fakeOCI starts plain processes of the host in place of containers: what the monitor does with
// streams, ends and clients is the same. Each is its own session, and so its own "container".
type fakeOCI struct {
	t  *testing.T
	mu sync.Mutex
	// containers that were created and not deleted
	containers map[string]*fakeContainer
	making     func() // what Create does first; nil: nothing
}

func newFakeOCI(t *testing.T) *fakeOCI {
	f := &fakeOCI{t: t, containers: map[string]*fakeContainer{}}
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for id, c := range f.containers {
			t.Errorf("container %s was not deleted", id)
			_ = c.Kill(unix.SIGKILL, true)
		}
	})
	return f
}

func (f *fakeOCI) Create(_ context.Context, id string, o runtime.CreateOptions) (ociContainer, error) {
	f.mu.Lock()
	making := f.making
	f.mu.Unlock()
	if making != nil {
		making()
	}
	gate, open, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	// The gate is what Start opens: until then the program is not executed.
	args := append([]string{"/bin/sh", "-c", `read go <&3 || exit 127; exec 3<&-; exec "$@"`, "sh"}, o.Spec.Process.Args...)
	p, err := startFake(o.Spec.Process, args, o.Stdin, o.Stdout, o.Stderr, gate)
	if err != nil {
		open.Close()
		return nil, err
	}
	c := &fakeContainer{fakeProcess: p, fake: f, id: id, gate: open, program: o.Spec.Process.Args[0]}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[id] = c
	return c, nil
}

func startFake(spec *specs.Process, args []string, stdin, stdout, stderr *os.File, extra ...*os.File) (*fakeProcess, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	p := &fakeProcess{}
	attr := &os.ProcAttr{Env: append([]string{"PATH=/usr/bin:/bin"}, spec.Env...), Sys: &syscall.SysProcAttr{Setsid: true}}
	if spec.Terminal {
		master, slave, err := pty.Open()
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		stdin, stdout, stderr = slave, slave, slave
		attr.Sys.Setctty = true
		p.console = master
	}
	for _, f := range []*os.File{stdin, stdout, stderr} {
		if f == nil {
			f = null
		}
		attr.Files = append(attr.Files, f)
	}
	attr.Files = append(attr.Files, extra...)
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, fault.New(fault.Invalid, "exec: %q: executable file not found in $PATH", args[0])
	}
	// Not os.StartProcess: nobody but the monitor may wait for it.
	files := make([]uintptr, len(attr.Files))
	for i, f := range attr.Files {
		files[i] = f.Fd()
	}
	p.pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{Env: attr.Env, Files: files, Sys: attr.Sys})
	return p, err
}

type fakeProcess struct {
	pid     int
	console *os.File
}

func (p *fakeProcess) Pid() int          { return p.pid }
func (p *fakeProcess) PidFD() *os.File   { return nil }
func (p *fakeProcess) Console() *os.File { return p.console }

type fakeContainer struct {
	*fakeProcess
	fake    *fakeOCI
	id      string
	program string
	gate    *os.File
	mu      sync.Mutex
	execs   []int
	panics  atomic.Bool
	removal func() error // what Delete does first; nil: nothing
}

func (c *fakeContainer) ID() string { return c.id }

func (c *fakeContainer) Start(context.Context) error {
	defer c.gate.Close()
	if _, err := exec.LookPath(c.program); err != nil {
		return fault.New(fault.Invalid, "exec: %q: executable file not found in $PATH", c.program)
	}
	_, err := c.gate.WriteString("go\n")
	return err
}

func (c *fakeContainer) Kill(sig unix.Signal, all bool) error {
	if c.panics.Load() {
		panic("kill panics")
	}
	pids := []int{c.pid}
	if all {
		c.mu.Lock()
		pids = append(pids, c.execs...)
		c.mu.Unlock()
	}
	var errs []error
	for _, p := range pids {
		errs = append(errs, unix.Kill(p, sig))
	}
	return errors.Join(errs...)
}

func (c *fakeContainer) State() (specs.State, error) {
	s := specs.State{ID: c.id, Pid: c.pid, Status: specs.StateRunning}
	if unix.Kill(c.pid, 0) != nil {
		s.Status = specs.StateStopped
	}
	return s, nil
}

func (c *fakeContainer) Delete(context.Context, bool) error {
	c.fake.mu.Lock()
	removal := c.removal
	c.fake.mu.Unlock()
	if removal != nil {
		if err := removal(); err != nil {
			return err
		}
	}
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	delete(c.fake.containers, c.id)
	return nil
}

// makeBy sets what Create of every container from now on does first.
func (f *fakeOCI) makeBy(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.making = do
}

// removeBy sets what Delete of a container does first.
func (f *fakeOCI) removeBy(id string, do func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[id].removal = do
}

func (c *fakeContainer) Exec(_ context.Context, o runtime.ExecOptions) (ociExec, error) {
	p, err := startFake(o.Process, o.Process.Args, o.Stdin, o.Stdout, o.Stderr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.execs = append(c.execs, p.pid)
	return p, nil
}

func (c *fakeContainer) Pause(context.Context) error        { return unix.Kill(c.pid, unix.SIGSTOP) }
func (c *fakeContainer) Resume(context.Context) error       { return unix.Kill(c.pid, unix.SIGCONT) }
func (c *fakeContainer) Update(*specs.LinuxResources) error { return nil }
func (c *fakeContainer) Stats() (cgroup.Stats, error) {
	return cgroup.Stats{Pids: cgroup.PidsStats{Current: 7}}, nil
}
func (c *fakeContainer) Pids() ([]int, error)      { return []int{c.pid}, nil }
func (c *fakeContainer) OOMKills() (uint64, error) { return 0, nil }
func (c *fakeContainer) Close() error              { return c.gate.Close() }

func (f *fakeOCI) Load(id string) (ociContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.containers[id]; ok {
		return c, nil
	}
	return nil, fault.New(fault.NotFound, "No such container: %s", id)
}

func (f *fakeOCI) List() ([]ociContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []ociContainer
	for _, c := range f.containers {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b ociContainer) int { return len(a.ID()) - len(b.ID()) })
	return list, nil
}
