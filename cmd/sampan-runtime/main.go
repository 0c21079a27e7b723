// Command sampan-runtime runs OCI bundles. It has the verbs, options, exit statuses and error texts of
// runc, so that containerd, Podman and Kubernetes can call it in its place, and two verbs of its own:
//
//	init      what runs inside a container's namespaces before its program (core/runtime/initproc)
//	monitor   the parent of all containers of a daemon (core/monitor)
//
// It is the small privileged program of the house. What a verb does is in core/runtime; here are
// options, output, terminals and signals.
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime"
)

const name = "sampan-runtime"

// program is one call of the program.
type program struct {
	root          string
	rootGiven     bool
	systemdCgroup bool
	log           *slog.Logger
	toFile        bool // the log goes to a file, so that errors are said on stderr too
	debug         bool
	init          *os.File // the program for containers; nil until one is to be started
}

// verb is one of the program's.
type verb struct {
	name, arguments, does string
	// flags declares the options and returns what is to be done when they are parsed.
	flags func(*program, *pflag.FlagSet) action
	least int  // arguments
	most  int  // -1: any number
	plain bool // options end at the first argument: what follows is somebody else's
}

// action does what a verb is for. The exit status is 1 after an error, unless it is an exitStatus.
type action func(args []string) error

// exitStatus is an error that is the exit status of a process, or has one beside its cause.
type exitStatus struct {
	code  int
	cause error
}

func (e *exitStatus) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.cause.Error()
}

func (e *exitStatus) Unwrap() error { return e.cause }

func verbs() []verb {
	return []verb{
		{"checkpoint", "CONTAINER", "freeze a container onto disk with CRIU", checkpointFlags, 1, 1, false},
		{"create", "CONTAINER", "create a container, whose program start lets run", createFlags, 1, 1, false},
		{"delete", "CONTAINER", "remove a stopped container and all it has", deleteFlags, 1, 1, false},
		{"events", "CONTAINER", "print statistics and out-of-memory events as JSON lines", eventsFlags, 1, 1, false},
		{"exec", "CONTAINER COMMAND [ARG...]", "run a further process in a container", execFlags, 1, -1, true},
		{"features", "", "print what this runtime can do, as JSON", featuresFlags, 0, 0, false},
		{"kill", "CONTAINER [SIGNAL]", "send a signal (SIGTERM) to the container's first process", killFlags, 1, 2, false},
		{"list", "", "list containers", listFlags, 0, 0, false},
		{"monitor", "", "be the parent of a daemon's containers", monitorFlags, 0, 0, false},
		{"pause", "CONTAINER", "freeze all processes of a container", pauseFlags, 1, 1, false},
		{"ps", "CONTAINER [PS OPTION...]", "list the processes of a container", psFlags, 1, -1, true},
		{"restore", "CONTAINER", "make a container from a checkpoint with CRIU", restoreFlags, 1, 1, false},
		{"resume", "CONTAINER", "let a paused container go on", resumeFlags, 1, 1, false},
		{"run", "CONTAINER", "create a container, run its program and remove it", runFlags, 1, 1, false},
		{"spec", "", "write a config.json to begin with", specFlags, 0, 0, false},
		{"start", "CONTAINER", "let the program of a created container run", startFlags, 1, 1, false},
		{"state", "CONTAINER", "print a container's state as JSON", stateFlags, 1, 1, false},
		{"update", "CONTAINER", "change the limits of a container", updateFlags, 1, 1, false},
	}
}

func main() {
	// A verb does one thing after the other, at times two, and threads that look for more to do take time from it. The
	// monitor, which has more, takes it back.
	goruntime.GOMAXPROCS(min(2, goruntime.GOMAXPROCS(0)))
	os.Exit(run(os.Args[1:]))
}

// run is the program; it returns the exit status.
func run(args []string) int {
	p := &program{log: slog.New(slog.DiscardHandler)}
	err := p.call(args)
	var status *exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status) && status.cause == nil:
		return status.code
	}
	p.log.Error(err.Error())
	if p.toFile {
		fmt.Fprintln(os.Stderr, err)
	}
	if status != nil {
		return status.code
	}
	return 1
}

func (p *program) call(args []string) error {
	global := newFlags(name, true)
	logFile := global.String("log", "", "file for the log, instead of stderr")
	format := global.String("log-format", "text", "form of the log: text or json")
	global.BoolVar(&p.debug, "debug", os.Getenv("SAMPAN_DEBUG") != "", "log more")
	global.StringVar(&p.root, "root", defaultRoot(), "directory for the containers' state, in memory")
	global.BoolVar(&p.systemdCgroup, "systemd-cgroup", false, "let systemd make the cgroups of new containers: cgroupsPath is slice:prefix:name")
	global.String("rootless", "auto", "taken for runc's sake, without effect")
	global.String("criu", "", "taken for runc's sake, without effect")
	version := global.BoolP("version", "v", false, "print the version")
	help := global.BoolP("help", "h", false, "print this help")
	err := global.Parse(args)
	if lerr := p.openLog(*logFile, *format); lerr != nil {
		return lerr
	}
	p.rootGiven = global.Changed("root")
	rest := global.Args()
	switch {
	case err != nil:
		return usageError("", err)
	case *version:
		return printVersion(os.Stdout)
	case *help, len(rest) == 0, rest[0] == "help":
		return printHelp(os.Stdout, global)
	}
	all := verbs()
	i := slices.IndexFunc(all, func(v verb) bool { return v.name == rest[0] })
	if i < 0 {
		return p.unknown(rest[0], all)
	}
	return p.verb(all[i], rest[1:])
}

// unknown is the error about a verb that is not there.
func (p *program) unknown(given string, all []verb) error {
	var names []string
	for _, v := range all {
		names = append(names, v.name)
	}
	return &fault.Field{Field: "command", Given: given, Expected: "one of " + strings.Join(names, ", "), Nearest: fault.Nearest(given, names)}
}

func (p *program) verb(v verb, args []string) error {
	f := newFlags(v.name, v.plain)
	help := f.BoolP("help", "h", false, "print this help")
	do := v.flags(p, f)
	if err := f.Parse(args); err != nil {
		return usageError(v.name, err)
	}
	if *help {
		fmt.Printf("Usage: %s %s [OPTION...] %s\n\n%s.\n\n%s", name, v.name, v.arguments, strings.ToUpper(v.does[:1])+v.does[1:], f.FlagUsages())
		return nil
	}
	// runc's words.
	switch n := f.NArg(); {
	case v.least == v.most && n != v.least:
		return fault.New(fault.Invalid, "%s: %q requires exactly %d argument(s)", name, v.name, v.least)
	case n < v.least:
		return fault.New(fault.Invalid, "%s: %q requires a minimum of %d argument(s)", name, v.name, v.least)
	case v.most >= 0 && n > v.most:
		return fault.New(fault.Invalid, "%s: %q requires a maximum of %d argument(s)", name, v.name, v.most)
	}
	p.log.Debug("call", "verb", v.name, "root", p.root)
	return inWords(do(f.Args()))
}

// inWords gives an error that callers look for the words that they look for: runc's.
func inWords(err error) error {
	if fault.Is(err, fault.NotFound) && strings.HasPrefix(err.Error(), "container ") {
		return fault.New(fault.NotFound, "container does not exist")
	}
	return err
}

func newFlags(name string, plain bool) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetInterspersed(!plain)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return f
}

func usageError(verb string, err error) error {
	return fault.New(fault.Invalid, "%s: %w (see %s --help)", strings.TrimSpace(name+" "+verb), err, strings.TrimSpace(name+" "+verb))
}

// defaultRoot is below /run, or in the user's own directory there. Root of a user namespace is a user
// whose rootless engine has made it, such as Podman, unless the variable is left over from the host's root.
func defaultRoot() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir != "" && (os.Geteuid() != 0 || linux.InUserNamespace() && os.Getenv("USER") != "root") {
		return filepath.Join(dir, name)
	}
	return "/run/" + name
}

// runtime opens the containers below the root. sealed says that processes are to be started.
func (p *program) runtime(sealed bool) (*runtime.Runtime, error) {
	o := runtime.Options{Root: p.root, Logger: p.log, SystemdCgroup: p.systemdCgroup}
	if sealed {
		init, err := runtime.SealSelf()
		if err != nil {
			return nil, err
		}
		o.Init, p.init = init, init
	}
	return runtime.New(o)
}

// leaveInit closes the program for containers when none is to be started any more. The kernel takes the mount apart on
// which it is, and waits meanwhile for all processors: here while there is nothing to do, else at the end.
func (p *program) leaveInit() {
	if p.init != nil {
		p.init.Close()
		p.init = nil
	}
}

// load is the container that an argument names.
func (p *program) load(id string) (*runtime.Container, error) {
	r, err := p.runtime(false)
	if err != nil {
		return nil, err
	}
	return r.Load(id)
}
