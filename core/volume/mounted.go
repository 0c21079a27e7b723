package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// A volume of options such as type=tmpfs, type=nfs or type=ext4 is a filesystem that is mounted on its
// directory while containers use it, as the same one must be seen by all of them: these are mounts on
// the host. Who uses it is kept in memory; after a start of the daemon Adopt is told of it.

// filesystem is what the local driver's options describe: a device that is mounted, or a directory that
// is bound (bind).
type filesystem struct {
	mount.Mount
	bind string // the directory itself, when nothing is to be mounted for it
}

// optionNames are those of the local driver.
var optionNames = []string{"device", "o", "size", "type"}

// parseOptions reads the local driver's options, `--opt type=tmpfs --opt device=tmpfs --opt o=size=100m`: the
// arguments of mount(8). Without options there is none.
func parseOptions(options map[string]string) (*filesystem, error) {
	if len(options) == 0 {
		return nil, nil
	}
	for key := range options {
		if !slices.Contains(optionNames, key) {
			return nil, fault.As(fault.Invalid, &fault.Field{Field: "volume option", Given: key, Expected: "device, o or type", Nearest: fault.Nearest(key, optionNames)})
		}
	}
	if options["size"] != "" {
		return nil, fault.New(fault.Invalid, "quota size requested but no quota support: for a volume in memory give type=tmpfs, device=tmpfs and o=size=%s", options["size"])
	}
	device, kind := options["device"], options["type"]
	if device == "" {
		return nil, fault.New(fault.Invalid, `missing required option: "device"`)
	}
	var flags []string
	bind := kind == "bind"
	for _, f := range strings.Split(options["o"], ",") {
		switch f = strings.TrimSpace(f); f {
		case "":
		case "bind", "rbind":
			bind = true
			flags = append(flags, f)
		default:
			flags = append(flags, f)
		}
	}
	if strings.ContainsRune(device+kind+options["o"], 0) || len(device)+len(options["o"]) > unix.PathMax {
		return nil, fault.As(fault.Invalid, &fault.Field{Field: "volume option", Given: shortened(device), Expected: "at most 4096 letters, and no zero"})
	}
	if !bind {
		if kind == "" {
			return nil, fault.New(fault.Invalid, `missing required option: "type"`)
		}
		return &filesystem{Mount: mount.Mount{Type: kind, Source: device, Options: flags}}, nil
	}
	if kind != "" && kind != "none" && kind != "bind" {
		return nil, fault.As(fault.Invalid, &fault.Field{Field: "volume option type", Given: kind, Expected: "none, as o has bind"})
	}
	if !filepath.IsAbs(device) {
		return nil, fault.As(fault.Invalid, &fault.Field{Field: "volume option device", Given: device, Expected: "an absolute path"})
	}
	fs := &filesystem{Mount: mount.Mount{Type: "bind", Source: filepath.Clean(device), Options: flags}}
	if !slices.ContainsFunc(flags, func(f string) bool { return f != "bind" && f != "rbind" }) {
		fs.bind = fs.Source
	}
	_, err := fs.ParseOptions()
	return fs, err
}

func shortened(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// Mount returns the host directory that a container binds, as Path does, and mounts what belongs there. It
// stays until every user of it has called Unmount.
func (m *Manager) Mount(ctx context.Context, name, user string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.rows[name]
	if !ok {
		return "", noSuch(name)
	}
	fs, err := parseOptions(r.Options)
	if err != nil {
		return "", fmt.Errorf("volume %s: %w", name, err)
	}
	if fs == nil || fs.bind != "" {
		return m.path(r, fs)
	}
	if err := m.makeDirectory(name); err != nil {
		return "", fmt.Errorf("volume %s: %w", name, err)
	}
	data := m.dataPath(name)
	there, err := mounted(data)
	if err == nil && !there {
		err = fs.on(ctx, data)
		crash.Point("volume", "mounted")
	}
	if err != nil {
		return "", fault.New(fault.Invalid, "error while mounting volume '%s': failed to mount local volume: %w", data, err)
	}
	if m.users[name] == nil {
		m.users[name] = map[string]bool{}
	}
	m.users[name][user] = true
	return data, nil
}

// Unmount takes away what Mount mounted for the user, if it is nobody else's. It may be called for one who
// has mounted nothing.
func (m *Manager) Unmount(_ context.Context, user string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for name, users := range m.users {
		if !users[user] {
			continue
		}
		delete(users, user)
		if len(users) > 0 {
			continue
		}
		delete(m.users, name)
		if err := unmount(m.dataPath(name)); err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", name, err))
		}
		crash.Point("volume", "unmounted")
	}
	return errors.Join(errs...)
}

// Adopt is called once after a start of the daemon with the users of each volume: what an earlier daemon has
// mounted for somebody else goes.
func (m *Manager) Adopt(_ context.Context, users map[string][]string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for name, r := range m.rows {
		fs, err := parseOptions(r.Options)
		if err != nil || fs == nil || fs.bind != "" {
			continue
		}
		if len(users[name]) == 0 {
			if err := unmount(m.dataPath(name)); err != nil {
				errs = append(errs, fmt.Errorf("volume %s: %w", name, err))
			}
			continue
		}
		m.users[name] = map[string]bool{}
		for _, u := range users[name] {
			m.users[name][u] = true
		}
	}
	return errors.Join(errs...)
}

// on mounts the filesystem on the directory. The kernel is given the address of a server that has a name:
// only mount(8) looks names up.
func (fs *filesystem) on(ctx context.Context, dir string) error {
	m := fs.Mount
	m.Target = "/"
	for i, o := range m.Options {
		if host, ok := strings.CutPrefix(o, "addr="); ok && (m.Type == "nfs" || m.Type == "nfs4" || m.Type == "cifs") {
			found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
			if err != nil || len(found) == 0 {
				return &fault.Field{Field: "volume option addr", Given: shortened(host), Expected: "an address, or a name that has one"}
			}
			m.Options = slices.Clone(m.Options)
			m.Options[i] = "addr=" + found[0].String()
		}
	}
	root, err := linux.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := m.Attach(root)
	if err != nil {
		return err
	}
	return f.Close()
}

// mounted reports whether something is mounted on the directory.
func mounted(dir string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", dir, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// unmount takes away all that is mounted on the directory. One that is in use, by somebody on the host, goes
// when that ends.
func unmount(dir string) error {
	for {
		there, err := mounted(dir)
		if err != nil || !there {
			return err
		}
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}
