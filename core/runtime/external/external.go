// Package external has containers made by another OCI runtime, such as runc: a program that is driven
// through its command line (create, start, kill, delete, exec, pause, resume, update, state), by the
// conventions that runc has set and containerd's shim relies on.
//
//	Runtimes ──Create──▶ Container ──Start, Exec, Pause ...──▶ PROGRAM --root DIR/state --log FILE VERB ID
//
// # A directory
//
// Each container has a directory below the root, and what is in it is all that is known of it: the bundle
// (config.json, and rootfs, which is empty), the runtime's own state, and record.json, by which Load finds
// the program again. It goes with Delete.
//
// # The root filesystem
//
// The runtime wants to find it mounted in the bundle. So `create` runs in a mount namespace of its own,
// where it is; the container's namespace is a copy of that, and the first one is gone when the runtime
// has made the second. On the host nothing is ever mounted, and nothing is left there by a crash.
//
// # Processes
//
// The runtime makes a process and ends, which leaves the process an orphan. The caller must be the
// reaper of its orphans (PR_SET_CHILD_SUBREAPER) to be its parent then, and learn its exit status.
//
// # What is not done
//
// What the specification has beyond version 1.0.2, which runc 1.1 reads, is expressed by older means or
// refused: a runtime ignores what it does not know. A user namespace and shared mount propagation are
// refused, as the former's root is made with rights that the runtime does not take over, and the latter
// ends at the namespace between.
package external

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/runtime"
)

// Command is how a runtime is called.
type Command struct {
	Name string   `json:"name"` // by which the user knows it
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"` // before the verb
}

// Runtimes keeps the containers of all such runtimes below one directory.
type Runtimes struct {
	root string
	log  *slog.Logger
}

// New opens the directory, which is made when it is needed.
func New(root string, log *slog.Logger) *Runtimes {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Runtimes{root: root, log: log}
}

// The files of a container's directory.
const (
	recordFile = "record.json"
	configFile = "config.json" // runtime-spec, bundle.md
	rootDir    = "rootfs"
	pidFile    = "pid"
	stateDir   = "state"
)

// record is what must be known of a container by who did not make it.
type record struct {
	ID            string  `json:"id"`
	Command       Command `json:"command"`
	Cgroup        string  `json:"cgroup"` // below the roots of the hierarchies
	SystemdCgroup bool    `json:"systemdCgroup,omitempty"`
	Pid           int     `json:"pid,omitempty"`       // 0: not made yet
	StartTime     uint64  `json:"startTime,omitempty"` // of that process: the number alone may be another's later
}

// Create makes a container: its first process exists and waits for Start. Nothing is left when it fails.
func (r *Runtimes) Create(ctx context.Context, id string, command Command, o runtime.CreateOptions) (_ *Container, err error) {
	spec, err := adapted(command.Name, o)
	if err != nil {
		return nil, err
	}
	c := &Container{log: r.log, dir: filepath.Join(r.root, id), record: record{ID: id, Command: command, SystemdCgroup: o.SystemdCgroup}}
	if c.record.Cgroup, err = cgroupOf(id, spec.Linux.CgroupsPath, o.SystemdCgroup); err != nil {
		return nil, err
	}
	if err := c.makeDirectory(spec); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.undo(context.WithoutCancel(ctx))
		}
	}()
	args := []string{"--bundle", c.dir, "--pid-file", c.file(pidFile)}
	terminal, args, err := c.terminal(spec.Process, args)
	if err != nil {
		return nil, err
	}
	defer terminal.close()
	_, err = c.run(ctx, call{
		verb: "create", args: append(args, id), stdin: o.Stdin, stdout: o.Stdout, stderr: o.Stderr,
		around: func(start func() error) error { return c.withRoot(o, start) },
	})
	if err != nil {
		return nil, err
	}
	if err := c.made(); err != nil {
		return nil, err
	}
	c.console, err = terminal.master()
	return c, err
}

// makeDirectory makes the container's directory with the bundle.
func (c *Container) makeDirectory(spec *specs.Spec) error {
	config, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o711); err != nil {
		return err
	}
	err = os.Mkdir(c.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Exists, "container %s exists already", c.record.ID)
	}
	if err == nil {
		err = os.Mkdir(c.file(rootDir), 0o700)
	}
	if err == nil {
		err = os.WriteFile(c.file(configFile), config, 0o600)
	}
	return errors.Join(err, c.write())
}

// write writes the record, at once or not at all.
func (c *Container) write() error {
	text, err := json.Marshal(c.record)
	if err != nil {
		return err
	}
	fresh := c.file(recordFile + ".new")
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, c.file(recordFile))
}

// made notes the first process.
func (c *Container) made() (err error) {
	if c.record.Pid, err = readPid(c.file(pidFile)); err != nil {
		return fmt.Errorf("runtime %s: create: %w", c.record.Command.Name, err)
	}
	if c.record.StartTime, _, err = linux.StartTime(c.record.Pid); err != nil {
		return err
	}
	return c.write()
}

// undo removes what a Create that failed has made.
func (c *Container) undo(ctx context.Context) {
	if _, err := c.run(ctx, call{verb: "delete", args: []string{"--force", c.record.ID}}); err != nil {
		c.log.Debug("undo a create", "container", c.record.ID, "runtime", c.record.Command.Name, "error", err)
	}
	if f := c.console; f != nil {
		f.Close()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.log.Warn("undo a create", "container", c.record.ID, "error", err)
	}
}

// withRoot calls start in a mount namespace where the root filesystem is in the bundle.
func (c *Container) withRoot(o runtime.CreateOptions, start func() error) error {
	if len(o.RootMounts) == 0 {
		return start()
	}
	place, err := filepath.EvalSymlinks(c.file(rootDir))
	if err != nil {
		return err
	}
	return linux.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		// What the host mounts and unmounts meanwhile comes here, for mounts with slave propagation, and
		// nothing goes from here.
		if err := mount.Propagate("/", unix.MS_SLAVE|unix.MS_REC); err != nil {
			return err
		}
		root, err := mount.All(place, o.RootMounts)
		if err != nil {
			return fmt.Errorf("root.path: %w", err)
		}
		defer root.Close()
		return start()
	})
}

// Load finds a container that was made before: fault.NotFound.
func (r *Runtimes) Load(id string) (*Container, error) {
	c := &Container{log: r.log, dir: filepath.Join(r.root, id)}
	text, err := os.ReadFile(c.file(recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "No such container: %s", id)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &c.record); err != nil {
		return nil, fmt.Errorf("%s: %w", c.file(recordFile), err)
	}
	if c.record.Pid == 0 { // whoever made it died just then
		if err := c.made(); err != nil {
			c.record.Pid = 0
		}
	}
	return c, nil
}

// List finds all containers that were made before. A directory without a record is of a Create that was cut
// off before it called the runtime, and is removed.
func (r *Runtimes) List() ([]*Container, error) {
	entries, err := os.ReadDir(r.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []*Container
	for _, e := range entries {
		c, err := r.Load(e.Name())
		if fault.Is(err, fault.NotFound) {
			err = os.RemoveAll(filepath.Join(r.root, e.Name()))
		} else if err == nil {
			all = append(all, c)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readPid reads the file in which a runtime tells the number of a process.
func readPid(name string) (int, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0, fault.New(fault.Internal, "%s: %.32q: expected a process ID", filepath.Base(name), text)
	}
	return pid, nil
}
