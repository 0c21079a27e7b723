package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime"
)

// execFailed is the exit status of exec for everything that is not that of the process.
const execFailed = 255

// execution are the options of exec.
type execution struct {
	consoleSocket, pidFile, processFile      string
	pidfdSocket                              string
	cwd, user, label, apparmor               string
	env, capabilities                        []string
	groups, subCgroups                       []string
	tty, detach, noNewPrivileges, evenPaused bool
	preserve                                 int
}

func execFlags(p *program, f *pflag.FlagSet) action {
	var e execution
	f.StringVar(&e.consoleSocket, "console-socket", "", "unix socket that is sent the master of the process's terminal")
	f.StringVar(&e.cwd, "cwd", "", "working directory in the container")
	f.StringArrayVarP(&e.env, "env", "e", nil, "set a variable of the environment")
	f.BoolVarP(&e.tty, "tty", "t", false, "give the process a terminal")
	f.StringVarP(&e.user, "user", "u", "", "UID[:GID]")
	f.StringSliceVarP(&e.groups, "additional-gids", "g", nil, "additional group IDs")
	f.StringVarP(&e.processFile, "process", "p", "", "process.json in place of a command")
	f.BoolVarP(&e.detach, "detach", "d", false, "leave the process running and return")
	f.StringVar(&e.pidFile, "pid-file", "", "file that the process ID is written to")
	f.StringVar(&e.pidfdSocket, "pidfd-socket", "", "unix socket that is sent a file descriptor of the process")
	f.StringVar(&e.label, "process-label", "", "SELinux label of the process")
	f.StringVar(&e.apparmor, "apparmor", "", "AppArmor profile of the process")
	f.BoolVar(&e.noNewPrivileges, "no-new-privs", false, "the process can gain no privileges")
	f.StringArrayVarP(&e.capabilities, "cap", "c", nil, "add a capability")
	f.IntVar(&e.preserve, "preserve-fds", 0, "pass that many files from descriptor 3 on to the process")
	f.StringArrayVar(&e.subCgroups, "cgroup", nil, "[CONTROLLER[,CONTROLLER...]:]PATH of an existing cgroup below the container's for the process")
	f.BoolVar(&e.evenPaused, "ignore-paused", false, "start also in a paused container, and wait until it goes on")
	return func(args []string) error {
		code, err := p.exec(&e, args)
		if err != nil {
			return &exitStatus{execFailed, fmt.Errorf("exec failed: %w", inWords(err))}
		}
		if code != 0 {
			return &exitStatus{code: code}
		}
		return nil
	}
}

func (p *program) exec(e *execution, args []string) (code int, err error) {
	ctx, stop := interruptible()
	defer stop()
	r, err := p.runtime(true)
	if err != nil {
		return 0, err
	}
	c, err := r.Load(args[0])
	if err != nil {
		return 0, err
	}
	process, err := e.process(c.Spec().Process, args[1:])
	if err != nil {
		return 0, err
	}
	if err := checkConsole(process, e.consoleSocket, e.detach); err != nil {
		return 0, err
	}
	files, err := inherited(e.preserve)
	if err != nil {
		return 0, err
	}
	activate(process, len(files)-e.preserve)
	sub, err := subCgroups(e.subCgroups)
	if err != nil {
		return 0, err
	}
	if !e.detach {
		// Before there is a child, so that the signal of its end is not missed.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return 0, fmt.Errorf("become subreaper: %w", err)
		}
	}
	made, err := c.Exec(ctx, runtime.ExecOptions{
		Process: process, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: files,
		Cgroup: sub, IgnorePaused: e.evenPaused,
	})
	if err != nil {
		return 0, err
	}
	defer made.PidFD().Close()
	p.leaveInit()
	err = errors.Join(writePid(e.pidFile, made.Pid()), sendPidFD(e.pidfdSocket, "setns", made.PidFD()))
	if err == nil && e.consoleSocket != "" {
		err = sendConsole(e.consoleSocket, made.Console())
	}
	if err != nil {
		return 0, errors.Join(err, unix.PidfdSendSignal(int(made.PidFD().Fd()), unix.SIGKILL, nil, 0))
	}
	if e.detach {
		return 0, nil
	}
	relay, err := newForeground(foregroundSignals(), made.Console(), made.Pid(), made.PidFD())
	stop()
	if err != nil {
		return 0, errors.Join(err, unix.PidfdSendSignal(int(made.PidFD().Fd()), unix.SIGKILL, nil, 0))
	}
	return relay.wait()
}

// process is that of --process, or the container's own with what the options change.
func (e *execution) process(of *specs.Process, command []string) (*specs.Process, error) {
	switch {
	case e.processFile != "":
		p := &specs.Process{}
		if err := readJSON(e.processFile, p); err != nil {
			return nil, err
		}
		complete(p, of)
		return p, nil
	case len(command) == 0:
		return nil, fault.New(fault.Invalid, "process args cannot be empty")
	case of == nil:
		return nil, fault.New(fault.Invalid, "the container has no process to take the environment from, expected --process")
	}
	p := *of
	p.Args, p.Terminal, p.ConsoleSize = command, e.tty, nil
	p.Env = append(slices.Clone(of.Env), e.env...)
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	if e.noNewPrivileges {
		p.NoNewPrivileges = true
	}
	if len(e.capabilities) > 0 {
		p.Capabilities = withCapabilities(of.Capabilities, e.capabilities)
	}
	return &p, e.identity(&p)
}

// complete gives a process of --process what it does not say and the container's process does, as runc does: so
// a short process.json has no more rights than the container.
func complete(p, of *specs.Process) {
	if of == nil {
		return
	}
	if p.Capabilities == nil {
		p.Capabilities = of.Capabilities
	}
	if p.ApparmorProfile == "" {
		p.ApparmorProfile = of.ApparmorProfile
	}
	if p.SelinuxLabel == "" {
		p.SelinuxLabel = of.SelinuxLabel
	}
	if len(p.Rlimits) == 0 {
		p.Rlimits = of.Rlimits
	}
	if p.IOPriority == nil {
		p.IOPriority = of.IOPriority
	}
	if p.Scheduler == nil {
		p.Scheduler = of.Scheduler
	}
	if p.ExecCPUAffinity == nil {
		p.ExecCPUAffinity = of.ExecCPUAffinity
	}
}

// withCapabilities adds capabilities as runc does: never to the inheritable set, and to the ambient one only
// where something is inheritable, since what is not cannot be ambient (capabilities(7)).
func withCapabilities(of *specs.LinuxCapabilities, more []string) *specs.LinuxCapabilities {
	c := specs.LinuxCapabilities{}
	if of != nil {
		c = *of
	}
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		*set = append(slices.Clone(*set), more...)
	}
	if len(c.Inheritable) > 0 {
		c.Ambient = append(slices.Clone(c.Ambient), more...)
	}
	return &c
}

// identity reads --user and --additional-gids.
func (e *execution) identity(p *specs.Process) error {
	number := func(option, s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n > 1<<32-2 {
			return 0, &fault.Field{Field: option, Given: s, Expected: "a number"}
		}
		return uint32(n), nil
	}
	if e.user != "" {
		uid, gid, hasGID := strings.Cut(e.user, ":")
		var err error
		if p.User.UID, err = number("--user", uid); err != nil {
			return err
		}
		if hasGID {
			if p.User.GID, err = number("--user", gid); err != nil {
				return err
			}
		}
	}
	p.User.AdditionalGids = slices.Clone(p.User.AdditionalGids)
	for _, g := range e.groups {
		n, err := number("--additional-gids", g)
		if err != nil {
			return err
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, n)
	}
	return nil
}
