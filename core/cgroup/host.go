package cgroup

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// hierarchy is one mounted cgroup filesystem.
type hierarchy struct {
	mount       string
	controllers []string // on the unified one those of cgroup.controllers at its root
	unified     bool
}

func (h *hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

// host is what this machine has. It is read once: hierarchies do not come and go while it runs.
type host struct {
	all     []*hierarchy
	unified *hierarchy   // nil: none
	named   []*hierarchy // without a controller, such as systemd's: only systemd makes cgroups there
}

// pure reports whether there is the unified hierarchy alone.
func (h *host) pure() bool { return len(h.all) == 1 && h.unified != nil }

// of returns the hierarchy of a controller, or nil. A v1 hierarchy comes before the unified one,
// where a controller can be only in one of them.
func (h *host) of(controller string) *hierarchy {
	for _, x := range h.all {
		if x.has(controller) {
			return x
		}
	}
	return nil
}

// UnifiedMounted reports whether /sys/fs/cgroup is the unified hierarchy. It is what tells cgroup v2 from others
// without looking for them.
func UnifiedMounted() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// Survey finds out what this machine has, which the first use of a cgroup does else.
func Survey() { thisHost() } //nolint:errcheck // that use tells

var thisHost = sync.OnceValues(func() (*host, error) {
	var h *host
	if UnifiedMounted() {
		h = &host{unified: &hierarchy{mount: "/sys/fs/cgroup", unified: true}}
		h.all = []*hierarchy{h.unified}
	} else {
		text, err := readFile("/proc/self/mountinfo")
		if err != nil {
			return nil, fmt.Errorf("cgroup: %w", err)
		}
		h = parseMounts(text)
	}
	if len(h.all) == 0 {
		return nil, fault.New(fault.Unavailable, "cgroup: no cgroup filesystem is mounted on this host, expected one at /sys/fs/cgroup")
	}
	if h.unified != nil {
		list, err := readFile(h.unified.mount + "/cgroup.controllers")
		if err != nil {
			return nil, fmt.Errorf("cgroup: %w", err)
		}
		h.unified.controllers = strings.Fields(list)
	}
	return h, nil
})

// parseMounts finds the cgroup filesystems in the text of /proc/self/mountinfo (proc_pid_mountinfo(5)):
//
//	35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
//
// Of several mounts of one hierarchy the first counts, and one that shows its root before one that
// shows a part of it.
func parseMounts(text string) *host {
	h := &host{}
	seen := map[string]*hierarchy{} // by device
	whole := map[string]bool{}
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 || right[0] != "cgroup" && right[0] != "cgroup2" {
			continue
		}
		device, root, mount := left[2], left[3], unescape(left[4])
		if old := seen[device]; old != nil {
			if !whole[device] && root == "/" {
				old.mount, whole[device] = mount, true
			}
			continue
		}
		found := &hierarchy{mount: mount, unified: right[0] == "cgroup2"}
		if !found.unified {
			found.controllers = legacyControllers(right[2])
			if len(found.controllers) == 0 {
				h.named = append(h.named, found)
				continue
			}
		}
		seen[device], whole[device] = found, root == "/"
		h.all = append(h.all, found)
		if found.unified {
			h.unified = found
		}
	}
	return h
}

// known are the controllers of v1, as the super block's options name them.
var known = []string{
	"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "net_cls", "net_prio", "blkio",
	"perf_event", "hugetlb", "pids", "rdma", "misc",
}

func legacyControllers(options string) []string {
	var list []string
	for o := range strings.SplitSeq(options, ",") {
		if slices.Contains(known, o) {
			list = append(list, o)
		}
	}
	return list
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
