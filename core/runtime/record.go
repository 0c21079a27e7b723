package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup/systemd"
	"github.com/sampan-project/sampan/core/runtime/specjson"
)

const (
	recordFile  = "state.json"
	seccompFile = "seccomp.bpf"
	socketName  = "start.sock"
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
	Spec        *specs.Spec   `json:"-"`                     // without the seccomp profile

	JSON *specjson.Spec `json:"spec"` // the same, on its way from and to the disk

	// Of the first process; 0 until there is one.
	Pid       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"startTime,omitempty"` // clock ticks after boot, see linux.StartTime
	// Init is the inode of the sealed program: what runs it has not been started yet.
	Init uint64 `json:"init,omitempty"`
}

func (c *Container) save() error {
	c.record.JSON = specjson.Of(c.record.Spec)
	data, err := json.Marshal(&c.record)
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
	if err := json.Unmarshal(data, &c.record); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(c.dir, recordFile), err)
	}
	c.record.Spec = c.record.JSON.Spec()
	if c.record.ID != filepath.Base(c.dir) || c.record.Spec == nil || c.record.Spec.Process == nil {
		return fmt.Errorf("%s: it is not the record of container %s", filepath.Join(c.dir, recordFile), filepath.Base(c.dir))
	}
	return nil
}
