package cgroup

import (
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveEmpty removes a cgroup that containers were below, from every hierarchy in which nothing is
// left in it. It is not an error that something is.
func RemoveEmpty(name string) error {
	m, err := Load(name)
	if err != nil {
		return err
	}
	// The named ones too: others, such as runc, make a cgroup there for each container, and the way to it.
	for _, h := range slices.Concat(m.joined(), m.host.named) {
		_ = unix.Rmdir(h.mount + m.path) // EBUSY: it is in use
	}
	return nil
}

// Delegated is the topmost cgroup of v2 above this process in which its user may make others, as systemd
// makes one for each: a cgroup that has processes itself, such as our own, cannot hand controllers on
// (cgroups(7)). Without any it is our own, and "/" where there is no v2.
func Delegated() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "/"
	}
	own := "/"
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			own = path.Clean("/" + name)
		}
	}
	top := own
	for at := own; at != "/"; at = path.Dir(at) {
		if unix.Access("/sys/fs/cgroup"+at+"/cgroup.procs", unix.W_OK) != nil || unix.Access("/sys/fs/cgroup"+at, unix.W_OK) != nil {
			break
		}
		top = at
	}
	return top
}
