package cgroup

import (
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Sub is a way into cgroups below the container's: by v1 controller, or "" for all that are
// not named, a path below the container's cgroup. It must be there: the container makes its own.
type Sub map[string]string

// Enter is what FD and Tasks are for the container's own cgroup.
func (m *Manager) Enter(sub Sub) (dir *os.File, tasks []*os.File, err error) {
	if err := m.checkSub(sub); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			for _, f := range append(tasks, dir) {
				if f != nil {
					f.Close()
				}
			}
			dir, tasks = nil, nil
		}
	}()
	for _, h := range m.joined() {
		at := h.mount + m.path
		if below := sub.of(h); below != "" {
			at = path.Join(at, below)
		}
		name, flags := at+"/tasks", unix.O_WRONLY|unix.O_CLOEXEC
		if h.unified {
			name, flags = at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC
		}
		fd, err := retryOpen(name, flags)
		if err != nil {
			return dir, tasks, fault.As(fault.Invalid, &os.PathError{Op: "open", Path: name, Err: err})
		}
		f := os.NewFile(uintptr(fd), name)
		if h.unified {
			dir = f
		} else {
			tasks = append(tasks, f)
		}
	}
	return dir, tasks, nil
}

// of is the path in a hierarchy.
func (s Sub) of(h *hierarchy) string {
	if !h.unified {
		for _, c := range h.controllers {
			if below, ok := s[strings.TrimPrefix(c, "name=")]; ok {
				return below
			}
		}
	}
	return s[""]
}

func (m *Manager) checkSub(sub Sub) error {
	for controller, below := range sub {
		// The way must lead down only, as it is written.
		if strings.Contains("/"+below+"/", "/../") || strings.ContainsAny(below, "\x00\n") {
			return &fault.Field{Field: "cgroup", Given: below, Expected: "a path below the container's cgroup"}
		}
		if controller == "" {
			continue
		}
		if m.host.pure() {
			return &fault.Field{Field: "cgroup", Given: controller + ":" + below, Expected: "a path without controllers: this host has cgroup v2 alone"}
		}
		known := false
		for _, h := range m.joined() {
			for _, c := range h.controllers {
				known = known || strings.TrimPrefix(c, "name=") == controller
			}
		}
		if !known {
			return &fault.Field{Field: "cgroup", Given: controller, Expected: "a controller that the container has"}
		}
	}
	return nil
}
