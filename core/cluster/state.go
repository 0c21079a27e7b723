package cluster

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Names below the directory of the swarm. Its existence says that this node is in a swarm, or was on its way
// into one or out of it: stateFile says which.
const (
	stateFile       = "state.json"
	certificatesDir = "certificates"
	raftDir         = "raft"
	agentDir        = "tasks"
)

// Phases of this node's part in a swarm. All but phaseActive are of a request that was not done: the next daemon
// takes back what was being made, and goes on with what was being left.
const (
	phaseInit   = "init"
	phaseJoin   = "join"
	phaseActive = "active"
	phaseLeave  = "leave"
)

// local is what this node remembers of its part. Who it is, is in its certificate.
type local struct {
	Phase     string           `json:"phase"`
	NodeID    string           `json:"nodeID,omitempty"`
	Listen    string           `json:"listen"`             // host:port
	Advertise string           `json:"advertise"`          // host:port
	Managers  []wire.SwarmPeer `json:"managers,omitempty"` // whom to ask first after a start
	// ForceNew says that a manager of this swarm shall go on alone: the next start does it.
	ForceNew bool `json:"forceNew,omitempty"`
}

const maxStateFile = 1 << 20

// loadLocal reads the state; without a swarm it is nil.
func loadLocal(dir string) (*local, error) {
	path := filepath.Join(dir, stateFile)
	f, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no swarm is no error
	}
	if err != nil {
		return nil, err
	}
	if f.Size() > maxStateFile {
		return nil, fault.New(fault.Internal, "%s: larger than %d bytes", path, maxStateFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var l local
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fault.New(fault.Internal, "%s: %w", path, err)
	}
	switch l.Phase {
	case phaseInit, phaseJoin, phaseActive, phaseLeave:
		return &l, nil
	}
	return nil, fault.New(fault.Internal, "%s: unknown phase %q", path, l.Phase)
}

// save writes the state; a crash leaves the old one or the new one.
func (l *local) save(dir string) error {
	text, err := json.MarshalIndent(l, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, stateFile)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	crash.Point("swarm state "+l.Phase, "written")
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	crash.Point("swarm state "+l.Phase, "renamed")
	return syncDir(dir)
}

// forget removes all that is kept of a swarm. The state goes last, so that what is cut off is gone on with.
func forget(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != stateFile {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
			crash.Point("swarm state "+e.Name(), "removed")
		}
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
