package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/monitor"
)

// exits is the directory in which the ends of containers are written down: one file each from the
// end to Delete. It is for the monitor after one that was killed.
type exits string

// record is what such a file has.
type record struct {
	Started time.Time    `json:"started,omitzero"`
	Exit    monitor.Exit `json:"exit"`
}

func openExits(dir string) (exits, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("exit statuses: %w", err)
	}
	return exits(dir), nil
}

func (x exits) path(id string) string { return filepath.Join(string(x), id+".json") }

// write needs no sync: a machine that goes down takes the containers with it. A file that is cut
// off by a full disk or a kill is taken for none.
func (x exits) write(id string, r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(x.path(id), data, 0o600)
}

func (x exits) read(id string) (r record, ok bool) {
	data, err := os.ReadFile(x.path(id))
	return r, err == nil && json.Unmarshal(data, &r) == nil
}

func (x exits) remove(id string) { os.Remove(x.path(id)) }

// clean removes the files of containers that are not known.
func (x exits) clean(known func(id string) bool) error {
	entries, err := os.ReadDir(string(x))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("exit statuses: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); filepath.Ext(name) == ".json" && !known(name[:len(name)-len(".json")]) {
			os.Remove(filepath.Join(string(x), name))
		}
	}
	return nil
}

// adopt takes over what a monitor that was killed left: see the package comment of core/monitor.
func (s *Server) adopt() error {
	list, err := s.made()
	if err != nil {
		return err
	}
	for _, oc := range list {
		c := &container{
			id: oc.ID(), oci: oc, adopted: true,
			init: &process{pid: oc.Pid(), exited: make(chan struct{})},
		}
		s.containers[c.id] = c
		if r, ok := s.exits.read(c.id); ok {
			c.started, c.init.exit = r.Started, r.Exit
			c.init.out.end()
			close(c.init.exited)
			continue
		}
		st, err := oc.State()
		if err != nil {
			return fmt.Errorf("container %s: %w", c.id, err)
		}
		if st.Status != specs.StateCreated {
			c.started = time.Now() // when is not known
		}
		if !s.follow(c, st) {
			c.init.exit = monitor.Exit{Code: 255, At: time.Now(), Lost: true}
			c.init.out.end()
			close(c.init.exited)
		}
		s.log.Warn("container of an earlier monitor", "container", c.id, "state", st.Status, "pid", st.Pid)
	}
	return s.exits.clean(func(id string) bool { return s.containers[id] != nil })
}

// follow waits for the end of a container that runs without our having made it.
func (s *Server) follow(c *container, st specs.State) bool {
	if st.Status == specs.StateStopped || c.init.pid <= 0 {
		return false
	}
	pidfd, err := openPidfd(c.init.pid)
	if err != nil {
		return false
	}
	// The number may have gone to another process between the two: ask again, now that we hold it.
	if again, err := c.oci.State(); err != nil || again.Status == specs.StateStopped {
		pidfd.Close()
		return false
	}
	c.init.pidfd = pidfd
	c.paused = st.Status == "paused"
	go s.superviseInit(c)
	return true
}
