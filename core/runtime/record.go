package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup/systemd"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/sparsejson"
)

const (
	recordFile  = "state.json"
	seccompFile = "seccomp.bpf"
	socketName  = "start.sock"
	cgroupLink  = "cgroup"
)

// record is what is known of a container, on disk. Nothing of it survives a reboot, so nothing is
// synced.
type record struct {
	ID          string        `json:"id"`
	Bundle      string        `json:"bundle"`
	Created     time.Time     `json:"created"`
	Cgroup      string        `json:"cgroup"`
	Namespaces  uint64        `json:"namespaces"`            // CLONE_NEW* that differ from the creator's
	Filter      *uint         `json:"filter,omitempty"`      // flags of the seccomp program, when there is one
	Unit        *systemd.Unit `json:"unit,omitempty"`        // systemd's, which has the cgroup
	NoCgroup    bool          `json:"noCgroup,omitempty"`    // it is where its creator was: an ordinary user to whom none is delegated
	Agent       *agent        `json:"agent,omitempty"`       // of the seccomp program, see notify.go
	KeepKeyring bool          `json:"keepKeyring,omitempty"` // processes have their caller's session keyring
	FewPids     *int64        `json:"fewPids,omitempty"`     // limit of processes that is yet to be set, see withoutFewPids
	Spec        *specs.Spec   `json:"spec"`                  // without the seccomp profile

	// Of the first process; 0 until there is one.
	Pid       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"startTime,omitempty"` // clock ticks after boot, see linux.StartTime
	// Init is the inode of the sealed program: what runs it has not been started yet.
	Init uint64 `json:"init,omitempty"`
}

func taken(id string) error { return fault.New(fault.Exists, "container with id exists: %s", id) }

// recorded reports whether the container has a record: one is being made, or there is one.
func (c *Container) recorded() bool {
	_, err := os.Lstat(filepath.Join(c.dir, recordFile))
	return err == nil
}

// claim locks the directory of a container that has no record yet. It is the caller's alone until the returned file is
// closed. A lock ends with its process: a directory without a record that nobody has locked is what was left of a
// creation that was cut off, and whoever comes next has it. fault.Exists when it is another's.
func (c *Container) claim() (*os.File, error) {
	dir, err := linux.OpenAt(nil, c.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || err == nil && (c.recorded() || !c.at(dir)) {
		err = taken(filepath.Base(c.dir))
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// at reports whether the directory is still where it was opened: it may have been removed since.
func (c *Container) at(dir *os.File) bool {
	opened, err := dir.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(c.dir)
	return err == nil && os.SameFile(opened, now)
}

// hold locks the directory for the removal of the container: whoever makes one of its id, or removes it too, waits or is
// told that the id is taken. It returns nil when the container is gone, also when another one has its id by now.
func (c *Container) hold() (*os.File, error) {
	dir, err := linux.OpenAt(nil, c.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := linux.Retry(func() error { return unix.Flock(int(dir.Fd()), unix.LOCK_EX) }); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", c.dir, err)
	}
	if !c.at(dir) || !c.same() {
		dir.Close()
		return nil, nil
	}
	return dir, nil
}

// same reports whether the record is this container's. It looks for the time of creation alone, which is the first of
// that name in it: text of callers is quoted there.
func (c *Container) same() bool {
	data, err := os.ReadFile(filepath.Join(c.dir, recordFile))
	if err != nil {
		return false
	}
	_, after, _ := bytes.Cut(data, []byte(`"created":`))
	created, err := json.Marshal(c.record.Created)
	return err == nil && bytes.HasPrefix(after, created)
}

// remove removes the directory. A creation that goes on meanwhile, as it does not know yet, may put a file into it between
// the removal of all files and that of the directory: it has few.
func (c *Container) remove() (err error) {
	for range 8 {
		if err = os.RemoveAll(c.dir); !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
	}
	return err
}

// Clear removes what a creation of the id has left that was cut off before there was a container. It is no error
// when there is nothing; a container, and one that is being made, stay.
func (r *Runtime) Clear(id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	c := &Container{runtime: r, dir: filepath.Join(r.options.Root, id)}
	dir, err := c.claim()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || fault.Is(err, fault.Exists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return c.remove()
}

// ClearAll is Clear for every id. It is for the start of a program that has the root to itself.
func (r *Runtime) ClearAll() error {
	entries, err := os.ReadDir(r.options.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if checkID(e.Name()) == nil {
			errs = append(errs, r.Clear(e.Name()))
		}
	}
	return errors.Join(errs...)
}

func (c *Container) save() error {
	data, err := sparsejson.Marshal(&c.record)
	if err != nil {
		return fmt.Errorf("record of container %s: %w", c.record.ID, err)
	}
	name := filepath.Join(c.dir, recordFile)
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func (c *Container) load() error {
	data, err := os.ReadFile(filepath.Join(c.dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return notFound(filepath.Base(c.dir))
	}
	if err != nil {
		return err
	}
	if err := sparsejson.Unmarshal(data, &c.record); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(c.dir, recordFile), err)
	}
	if c.record.ID != filepath.Base(c.dir) || c.record.Spec == nil || c.record.Spec.Process == nil {
		return fmt.Errorf("%s: it is not the record of container %s", filepath.Join(c.dir, recordFile), filepath.Base(c.dir))
	}
	return nil
}
