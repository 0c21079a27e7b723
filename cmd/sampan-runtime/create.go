package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime"
	"github.com/sampan-project/sampan/core/sparsejson"
)

// maxConfig bounds config.json and process.json.
const maxConfig = 16 << 20

// creation are the options that create and run share.
type creation struct {
	bundle, consoleSocket, pidFile string
	pidfdSocket                    string
	noPivot, noNewKeyring          bool
	preserve                       int
	startNext                      bool
	signals                        *soon  // which end the creation
	begun                          func() // nil: nothing; see runtime.CreateOptions
}

func (c *creation) flags(f *pflag.FlagSet) {
	f.StringVarP(&c.bundle, "bundle", "b", "", "the bundle's directory (default: the working directory)")
	f.StringVar(&c.consoleSocket, "console-socket", "", "unix socket that is sent the master of the container's terminal")
	f.StringVar(&c.pidFile, "pid-file", "", "file that the process ID is written to")
	f.StringVar(&c.pidfdSocket, "pidfd-socket", "", "unix socket that is sent a file descriptor of the container's first process")
	f.BoolVar(&c.noPivot, "no-pivot", false, "move the root filesystem to / without pivot_root, for machines that run from memory")
	f.BoolVar(&c.noNewKeyring, "no-new-keyring", false, "keep the session keyring of the caller")
	f.IntVar(&c.preserve, "preserve-fds", 0, "pass that many files from descriptor 3 on to the container")
}

func createFlags(p *program, f *pflag.FlagSet) action {
	var c creation
	c.flags(f)
	return func(args []string) error {
		ctx, signals := interruptibleSoon()
		defer signals.end(nil)
		c.signals = signals
		spec, err := c.spec()
		if err != nil {
			return err
		}
		if err := checkConsole(spec.Process, c.consoleSocket, true); err != nil {
			return err
		}
		container, err := p.create(ctx, args[0], spec, &c)
		if err != nil {
			return err
		}
		return container.Close()
	}
}

// interruptible is a context that ends with a signal that would end the program: what was begun is
// then undone.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}

// soon is interruptible, from when watched has returned.
type soon struct {
	asked chan struct{}
	end   context.CancelCauseFunc
	next  func() // nil: nothing
}

// interruptibleSoon returns a context that ends with a signal from when soon.watched has returned.
func interruptibleSoon() (context.Context, *soon) {
	ctx, cancel := context.WithCancelCause(context.Background())
	return ctx, &soon{asked: make(chan struct{}), end: cancel}
}

// ask asks for the signals, and does what is next to be done. Go asks for each in a round between threads, all of which take
// as long as much of what a start is made of: it is done while the kernel makes the namespaces, for which the caller waits.
func (s *soon) ask() {
	go func() {
		signals, _ := interruptible() // never given back: a program that has made a container does not die of a signal before it says so
		context.AfterFunc(signals, func() { s.end(context.Cause(signals)) })
		close(s.asked)
		if s.next != nil {
			s.next()
		}
	}()
}

// watched returns when signals are listened to. ask was called.
func (s *soon) watched() { <-s.asked }

// spec reads the bundle's config.json.
func (c *creation) spec() (*specs.Spec, error) {
	spec := &specs.Spec{}
	name := filepath.Join(c.bundle, "config.json")
	err := readJSON(name, spec)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Invalid, "JSON specification file %s not found", name)
	}
	return spec, err
}

func readJSON(name string, into any) error {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return err
		}
		defer f.Close()
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return err
	}
	if len(data) > maxConfig {
		return fault.New(fault.Invalid, "%s: more than %d bytes", name, maxConfig)
	}
	if err := sparsejson.Unmarshal(data, into); err != nil {
		return fault.New(fault.Invalid, "%s: %w", name, err)
	}
	return nil
}

// checkConsole compares what the process wants and what the caller gave, in runc's words.
func checkConsole(process *specs.Process, socket string, detached bool) error {
	terminal := process != nil && process.Terminal
	switch {
	case detached && terminal && socket == "":
		return fault.New(fault.Invalid, "cannot allocate tty if runc will detach without setting console socket")
	case (!detached || !terminal) && socket != "":
		return fault.New(fault.Invalid, "cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// create creates a container, hands its terminal over and writes its pid file. After an error it
// is gone.
func (p *program) create(ctx context.Context, id string, spec *specs.Spec, o *creation) (*runtime.Container, error) {
	files, err := inherited(o.preserve)
	if err != nil {
		return nil, err
	}
	activate(spec.Process, len(files)-o.preserve)
	if err := p.notification(id).addTo(spec); err != nil {
		return nil, err
	}
	bundle := o.bundle
	if bundle == "" {
		if bundle, err = os.Getwd(); err != nil {
			return nil, err
		}
	}
	r, err := p.runtime(true)
	if err != nil {
		return nil, err
	}
	o.signals.ask()
	c, err := r.Create(ctx, id, runtime.CreateOptions{
		Bundle: bundle, Spec: spec, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: files,
		NoNewKeyring: o.noNewKeyring, NoPivot: o.noPivot, StartNext: o.startNext, Lasting: o.signals.watched, Begun: o.begun,
	})
	if fault.Is(err, fault.Exists) {
		return nil, fault.New(fault.Exists, "container with given ID already exists")
	}
	if err != nil {
		return nil, fmt.Errorf("%s create failed: %w", name, err)
	}
	if o.consoleSocket != "" {
		err = sendConsole(o.consoleSocket, c.Console())
	}
	if err == nil {
		err = sendPidFD(o.pidfdSocket, "standard", c.PidFD())
	}
	if err == nil {
		err = writePid(o.pidFile, c.Pid())
	}
	if err != nil {
		return nil, errors.Join(err, c.Delete(context.WithoutCancel(ctx), true), c.Close())
	}
	return c, nil
}

// activate tells a process of the sockets that it is given (sd_listen_fds(3)).
func activate(process *specs.Process, sockets int) {
	if process == nil || sockets <= 0 {
		return
	}
	process.Env = append(slices.Clone(process.Env), fmt.Sprintf("LISTEN_FDS=%d", sockets), "LISTEN_PID=1")
	if names := os.Getenv("LISTEN_FDNAMES"); names != "" {
		process.Env = append(process.Env, "LISTEN_FDNAMES="+names)
	}
}

// inherited are the files that the container gets from descriptor 3 on: those of systemd's socket
// activation (sd_listen_fds(3)), then those of --preserve-fds.
func inherited(preserve int) ([]*os.File, error) {
	if preserve < 0 || preserve > 4096 {
		return nil, &fault.Field{Field: "--preserve-fds", Given: strconv.Itoa(preserve), Expected: "a number from 0 to 4096"}
	}
	listen := 0
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && n > 0 && n <= 4096 {
			listen = n
		}
	}
	var files []*os.File
	for fd := 3; fd < 3+listen+preserve; fd++ {
		// What we have opened ourselves is close-on-exec; what was inherited is not.
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, &fault.Field{Field: "--preserve-fds", Given: strconv.Itoa(preserve), Expected: fmt.Sprintf("open files: descriptor %d is not open", fd)}
		}
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("descriptor %d", fd)))
	}
	return files, nil
}

// sendConsole sends the master of a terminal to the socket at a path, and closes it.
func sendConsole(path string, master *os.File) error {
	if master == nil {
		return fault.New(fault.Internal, "--console-socket: the container has no terminal")
	}
	defer master.Close()
	socket, err := linux.ConnectPath(path)
	if err != nil {
		return fmt.Errorf("--console-socket: %w", err)
	}
	defer socket.Close()
	if err := linux.SendFile(socket, []byte("/dev/ptmx"), master); err != nil {
		return fmt.Errorf("--console-socket %s: %w", path, err)
	}
	return nil
}

// sendPidFD sends a handle of a process (pidfd_open(2)) to the socket at a path, when there is one, with the word
// that runc sends along.
func sendPidFD(path, word string, pidfd *os.File) error {
	if path == "" {
		return nil
	}
	socket, err := linux.ConnectPath(path)
	if err != nil {
		return fmt.Errorf("--pidfd-socket: %w", err)
	}
	defer socket.Close()
	if err := linux.SendFile(socket, []byte(word), pidfd); err != nil {
		return fmt.Errorf("--pidfd-socket %s: %w", path, err)
	}
	return nil
}

// writePid writes a pid file that is there whole or not at all.
func writePid(path string, pid int) error {
	if path == "" {
		return nil
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	err := os.WriteFile(temporary, []byte(strconv.Itoa(pid)), 0o666)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("--pid-file: %w", err)
	}
	return nil
}
