// Package runtime makes, starts, enters and removes containers from OCI bundles (runtime-spec,
// runtime.md and config.md).
//
// The life of a container:
//
//	Create   validates the spec, writes the record, makes the cgroup, starts this program,
//	         sealed, into the namespaces (core/linux, Spawn) and lets it make the filesystem
//	         (core/runtime/initproc). It then waits on a listening socket in the container's directory.
//	         On cgroup v1 the cgroups are made while the program starts, which is the longer part of
//	         both. It joins them itself before it does anything.
//	Start    calls that socket, from this process or any other, and hears what execve(2) came to.
//	Exec     starts a further process into namespaces and cgroup.
//	Delete   ends what is left, removes cgroup, record and directory.
//
//	<root>/<id>/state.json     the record, written before the process is told anything
//	<root>/<id>/seccomp.bpf    the compiled seccomp program, for Exec
//	<root>/<id>/cgroup         a link to the number of its cgroup (cgroup.Manager.ID), when we have made one
//	<root>/<id>/start.sock     is there until the container is started
//
// The record exists before what it tells of, so that a crash at any point leaves something that
// Delete with force removes; a first process whose creator dies in mid-way ends by itself.
//
// In a user namespace (userns.go) the first process is root over less than the host. What it may not do
// the parent does: it maps the ids, and makes the trees of bind mounts and of the root for it. An
// ordinary user makes containers in a user namespace alone; they have cgroups where the user has some.
//
// The caller of Create and Exec is the parent of the process and waits for it.
package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// Options say where a Runtime keeps its containers and what runs inside them.
type Options struct {
	Root          string       // directory of the containers' state, such as /run/sampan/runtime
	Init          *os.File     // the program that has the init verb, sealed (SealSelf); needed by Create and Exec
	Logger        *slog.Logger // nil: discard
	SystemdCgroup bool         // systemd makes the cgroups of new containers
}

// Runtime is the containers below one root directory. It may be used by several goroutines, and
// several processes may use one root.
type Runtime struct {
	options    Options
	log        *slog.Logger
	unreadable unreadable // see initFor
}

// New returns the Runtime of a root directory, which is made when it is needed.
func New(o Options) (*Runtime, error) {
	root, err := filepath.Abs(o.Root)
	if o.Root == "" || err != nil {
		return nil, &fault.Field{Field: "root", Given: o.Root, Expected: "a directory for the state of containers"}
	}
	o.Root = root
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Runtime{options: o, log: o.Logger}, nil
}

// CreateOptions describe a container.
type CreateOptions struct {
	Bundle                string // directory; Spec.Root.Path is relative to it
	Spec                  *specs.Spec
	RootMounts            []mount.Mount // performed in order inside the new mount namespace before everything else; Target "/" is the root
	Stdin, Stdout, Stderr *os.File      // nil: /dev/null; ignored with Spec.Process.Terminal
	NetNS                 *os.File      // the network namespace, over the spec's; nil: as the spec says
	ExtraFiles            []*os.File    // fd 3 and on of the process
	// NoNewKeyring: the container has the session keyring of the caller, not a new one. NoPivot: the root
	// filesystem is moved to /, where pivot_root(2) cannot be used, as on a machine that runs from memory.
	NoNewKeyring, NoPivot bool
	// ClampDefaults: a limit that the host does not permit is lowered with a warning, not an error.
	ClampDefaults bool
	// SystemdCgroup: systemd makes the cgroup of this one, as with that of Options of all.
	SystemdCgroup bool
	// StartNext: Start follows, and there is nothing that the program would have to wait for until then. It is called
	// while the container is made, and may run, and end, before Create returns.
	StartNext bool
	// Lasting, unless nil, is called once before anything is made that stays when the caller is killed: it listens to
	// signals from then on. The first process may have been started before, which ends with its caller.
	Lasting func()
	// Begun, unless nil, is called once before Create waits for somebody else: for the first process, which makes the
	// container meanwhile, or for systemd. What the caller has to do too costs no time then.
	Begun func()
}

// ExecOptions describe a further process in a running container.
type ExecOptions struct {
	Process               *specs.Process
	Stdin, Stdout, Stderr *os.File // nil: /dev/null; ignored with Process.Terminal
	ExtraFiles            []*os.File
	ClampDefaults         bool
	// Cgroup: below the container's cgroup, where the process is to be. IgnorePaused: also in a paused
	// container; the process is frozen then, and Exec waits until somebody lets the container go on.
	Cgroup       cgroup.Sub
	IgnorePaused bool
}

// checkID is by hand: a compiled expression would cost every start of the init.
func checkID(id string) error {
	const first, more = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", "+-."
	if id == "" || len(id) > 1024 || !strings.ContainsRune(first, rune(id[0])) || strings.Trim(id, first+more) != "" {
		return &fault.Field{Field: "container id", Given: id, Expected: "letters, digits and _ . + -"}
	}
	return nil
}

func notFound(id string) error {
	return fault.New(fault.NotFound, "container %q does not exist", id)
}

// Load returns an existing container; fault.NotFound when there is none.
func (r *Runtime) Load(id string) (*Container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &Container{runtime: r, dir: filepath.Join(r.options.Root, id)}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// List returns the containers of the root, sorted by id.
func (r *Runtime) List() ([]*Container, error) {
	entries, err := os.ReadDir(r.options.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var list []*Container
	for _, e := range entries {
		c, err := r.Load(e.Name())
		switch {
		case err == nil:
			list = append(list, c)
		case fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid):
			// Deleted meanwhile, or no container of ours.
		default:
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b *Container) int { return cmp.Compare(a.ID(), b.ID()) })
	return list, nil
}
