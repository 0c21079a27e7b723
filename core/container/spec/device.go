package spec

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func validateDevices(c *wire.ContainerConfig, h *wire.HostConfig) error {
	for _, d := range h.Devices {
		switch {
		case !path.IsAbs(d.PathOnHost):
			return &fault.Field{Field: "--device", Given: d.PathOnHost, Expected: "an absolute path such as /dev/fuse"}
		case d.PathInContainer != "" && !path.IsAbs(d.PathInContainer):
			return &fault.Field{Field: "--device", Given: d.PathInContainer, Expected: "an absolute path in the container"}
		case strings.Trim(d.CgroupPermissions, "rwm") != "":
			return &fault.Field{Field: "--device " + d.PathOnHost, Given: d.CgroupPermissions, Expected: "letters of rwm"}
		}
	}
	_, err := cgroupRules(h.DeviceCgroupRules)
	return err
}

// deviceNodes returns the nodes to be made beside the default ones, and the rules of the device cgroup.
func deviceNodes(h *wire.HostConfig) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	if h.Privileged {
		nodes, err := hostDevices("/dev", "/dev")
		return nodes, []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, err
	}
	rules := defaultDeviceRules()
	var nodes []specs.LinuxDevice
	for _, d := range h.Devices {
		in := d.PathInContainer
		if in == "" {
			in = d.PathOnHost
		}
		access := d.CgroupPermissions
		if access == "" {
			access = "rwm"
		}
		found, err := devicesAt(d.PathOnHost, in)
		if err != nil {
			return nil, nil, err
		}
		for _, n := range found {
			nodes = append(nodes, n)
			rules = append(rules, deviceRule(n.Type, n.Major, n.Minor, access))
		}
	}
	more, err := cgroupRules(h.DeviceCgroupRules)
	return nodes, append(rules, more...), err
}

// devicesAt returns the device at the host's path, or all below it when it is a directory.
func devicesAt(host, in string) ([]specs.LinuxDevice, error) {
	resolved, err := filepath.EvalSymlinks(host)
	if err != nil {
		return nil, fault.New(fault.Invalid, "error gathering device information while adding custom device %q: no such file or directory", host)
	}
	d, err := device(resolved, in)
	switch {
	case err == nil:
		return []specs.LinuxDevice{d}, nil
	case !errors.Is(err, errNotDevice):
		return nil, err
	}
	if info, err := os.Stat(resolved); err != nil || !info.IsDir() {
		return nil, fault.New(fault.Invalid, "error gathering device information while adding custom device %q: not a device node", host)
	}
	return hostDevices(resolved, in)
}

var errNotDevice = errors.New("not a device node")

// device describes the node at a path of the host as one at in. It does not follow a symlink.
func device(host, in string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Lstat(host, &st); err != nil {
		return specs.LinuxDevice{}, &fs.PathError{Op: "lstat", Path: host, Err: err}
	}
	var kind string
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		kind = "b"
	case unix.S_IFCHR:
		kind = "c"
	default:
		return specs.LinuxDevice{}, errNotDevice
	}
	mode := os.FileMode(st.Mode & 0o777)
	return specs.LinuxDevice{Path: in, Type: kind, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: &mode, UID: &st.Uid, GID: &st.Gid}, nil
}

// hostDevices returns all devices below the directory but those that every container has of its own.
func hostDevices(dir, in string) ([]specs.LinuxDevice, error) {
	own := []string{"pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".lxd-mounts", ".udev"}
	var nodes []specs.LinuxDevice
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // unplugged meanwhile
			}
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if dir == "/dev" && slices.Contains(own, rel) {
			if e.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 {
			return nil
		}
		d, err := device(p, path.Join(in, rel))
		if errors.Is(err, errNotDevice) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		nodes = append(nodes, d)
		return err
	})
	return nodes, err
}

// rulePattern is the form of --device-cgroup-rule: "c 42:* rmw".
var rulePattern = regexp.MustCompile(`^([acb]) (\d{1,7}|\*):(\d{1,7}|\*) ([rwm]{1,3})$`)

func cgroupRules(given []string) ([]specs.LinuxDeviceCgroup, error) {
	var rules []specs.LinuxDeviceCgroup
	for _, g := range given {
		m := rulePattern.FindStringSubmatch(g)
		if m == nil {
			return nil, &fault.Field{Field: "--device-cgroup-rule", Given: g, Expected: `type, numbers and access such as "c 42:* rmw"`}
		}
		number := func(s string) int64 {
			if n, err := strconv.ParseInt(s, 10, 64); err == nil {
				return n
			}
			return -1
		}
		rules = append(rules, deviceRule(m[1], number(m[2]), number(m[3]), m[4]))
	}
	return rules, nil
}
