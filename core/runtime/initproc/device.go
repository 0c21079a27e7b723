package initproc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// DefaultDevices are in every container (runtime-spec, config-linux.md, "Default Devices").
var DefaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// devLinks are links that programs expect (runtime-spec, runtime-linux.md, "Dev symbolic links").
var devLinks = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
	{"pts/ptmx", "ptmx"},
}

// ownDev reports whether /dev is the host's or somebody's, to which nothing is added.
func (p *process) ownDev() bool {
	return slices.ContainsFunc(p.Spec.Mounts, func(m specs.Mount) bool {
		return path.Clean(m.Destination) == "/dev" && (slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind"))
	})
}

// devices makes the default and the container's own device nodes, and the links.
func (p *process) devices() error {
	// Nodes have exactly the modes that are asked for.
	defer unix.Umask(unix.Umask(0))
	own := map[string]bool{}
	for _, d := range p.Spec.Linux.Devices {
		own[path.Clean(d.Path)] = true
	}
	for _, d := range DefaultDevices {
		if own[d.Path] {
			continue
		}
		if err := p.device(d); err != nil {
			return err
		}
	}
	for _, d := range p.Spec.Linux.Devices {
		if err := p.device(d); err != nil {
			return fmt.Errorf("linux.devices: %w", err)
		}
	}
	dev, err := p.root.MkdirAll("/dev", 0o755)
	if err != nil {
		return err
	}
	defer dev.Close()
	for _, l := range devLinks {
		if l[1] == "ptmx" {
			// An image may bring a node, which would open the host's terminals.
			unix.Unlinkat(int(dev.Fd()), l[1], 0) //nolint:errcheck // the link below says what is wrong
		}
		if err := unix.Symlinkat(l[0], int(dev.Fd()), l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return &fs.PathError{Op: "symlink", Path: "/dev/" + l[1], Err: err}
		}
	}
	return nil
}

var deviceTypes = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

// device makes one node. What is at its place is replaced, unless it is the same device already.
func (p *process) device(d specs.LinuxDevice) error {
	typ, ok := deviceTypes[d.Type]
	if !ok {
		return &fault.Field{Field: "linux.devices: type of " + d.Path, Given: d.Type, Expected: "c, u, b or p"}
	}
	mode, uid, gid := os.FileMode(0o666), 0, 0
	if d.FileMode != nil {
		mode = *d.FileMode & 0o7777
	}
	if d.UID != nil {
		uid = int(*d.UID)
	}
	if d.GID != nil {
		gid = int(*d.GID)
	}
	dir, name, err := p.root.Parent(d.Path, 0o755)
	if err != nil {
		return fmt.Errorf("device %s: %w", d.Path, err)
	}
	defer dir.Close()
	number := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	err = unix.Mknodat(int(dir.Fd()), name, typ|uint32(mode), int(number))
	if errors.Is(err, unix.EEXIST) {
		if same(dir, name, typ, number) {
			return nil
		}
		if err = unix.Unlinkat(int(dir.Fd()), name, 0); err == nil {
			err = unix.Mknodat(int(dir.Fd()), name, typ|uint32(mode), int(number))
		}
	}
	if errors.Is(err, unix.EPERM) && typ != unix.S_IFIFO {
		return p.bindDevice(dir, name, d, typ, number)
	}
	if err != nil {
		return fmt.Errorf("device %s: mknod: %w", d.Path, err)
	}
	if uid != 0 || gid != 0 {
		if err := unix.Fchownat(int(dir.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("device %s: chown: %w", d.Path, err)
		}
	}
	return nil
}

func same(dir *os.File, name string, typ uint32, number uint64) bool {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false
	}
	return st.Mode&unix.S_IFMT == typ && (typ == unix.S_IFIFO || uint64(st.Rdev) == number) //nolint:unconvert // its type differs between architectures
}

// null opens the container's /dev/null and makes sure that it is that (CVE-2025-31133).
func (p *process) null() (*os.File, error) {
	f, err := p.root.OpenNoFollow("/dev/null", unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	st, err := linux.Fstat(f)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || uint64(st.Rdev) != unix.Mkdev(1, 3)) { //nolint:unconvert // see same
		err = fmt.Errorf("/dev/null is not the null device")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
