package linux

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// IDMapping maps a range of ids of a user namespace to those of its parent (user_namespaces(7)).
type IDMapping struct {
	Inside, Outside, Size uint32
}

// maxMappings is the kernel's bound, UID_GID_MAP_MAX_EXTENTS.
const maxMappings = 340

// mapText is the mappings as uid_map and gid_map take them.
func mapText(list []IDMapping) string {
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "%d %d %d\n", m.Inside, m.Outside, m.Size)
	}
	return b.String()
}

// Outside is the id of the parent namespace that an id of the namespace stands for.
func Outside(list []IDMapping, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.Inside && id-m.Inside < m.Size {
			return m.Outside + (id - m.Inside), true
		}
	}
	return 0, false
}

// Mappings reads uid_map or gid_map of a process: what its ids are to the caller.
func Mappings(pid int, file string) ([]IDMapping, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	if err != nil {
		return nil, err
	}
	var list []IDMapping
	for line := range strings.Lines(string(text)) {
		var m IDMapping
		if _, err := fmt.Sscan(line, &m.Inside, &m.Outside, &m.Size); err != nil {
			return nil, fmt.Errorf("/proc/%d/%s: %q: %w", pid, file, line, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// InUserNamespace reports whether the caller's user namespace is not the initial one, where every id
// is itself: its root has no rights on the host. False when that cannot be known.
func InUserNamespace() bool {
	list, err := Mappings(os.Getpid(), "uid_map")
	return err == nil && (len(list) != 1 || list[0] != IDMapping{Size: 1<<32 - 1})
}

// WriteMappings maps the ids of a process that was made with a user namespace, and waits. With the
// right to it the maps are written. Else the kernel lets a user map the own id alone, and only where
// groups cannot be given up (setgroups(2), CVE-2014-8989); what goes beyond it is asked of
// newuidmap(1) and newgidmap(1), which know what ids an administrator has given to the user.
func WriteMappings(pid int, uids, gids []IDMapping) error {
	for _, k := range []struct {
		file, helper string
		list         []IDMapping
		capability   int
		own          int
	}{
		{"uid_map", "newuidmap", uids, unix.CAP_SETUID, os.Geteuid()},
		{"gid_map", "newgidmap", gids, unix.CAP_SETGID, os.Getegid()},
	} {
		if len(k.list) == 0 || len(k.list) > maxMappings {
			return fault.New(fault.Invalid, "%s: %d mappings, expected 1 to %d", k.file, len(k.list), maxMappings)
		}
		have, err := Capabilities()
		if err != nil {
			return err
		}
		may := have&(1<<k.capability) != 0
		single := len(k.list) == 1 && k.list[0].Size == 1 && k.list[0].Outside == uint32(k.own)
		switch {
		case !may && !single:
			err = mapByHelper(k.helper, pid, k.list)
		case !may && k.file == "gid_map":
			if err = writeProcess(pid, "setgroups", "deny"); err != nil {
				break
			}
			fallthrough
		default:
			err = writeProcess(pid, k.file, mapText(k.list))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeProcess writes to a file of a process in procfs, with one write: these take no second.
func writeProcess(pid int, name, value string) error {
	f, err := OpenAt(nil, "/proc/"+strconv.Itoa(pid)+"/"+name, unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := unix.Write(int(f.Fd()), []byte(value)); err != nil {
		return fmt.Errorf("write %s %q: %w", name, strings.TrimSpace(value), err)
	}
	return nil
}

// helperDirs are where the helpers are looked for: they have set-user-ID rights, so PATH has no say.
var helperDirs = []string{"/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"}

func mapByHelper(helper string, pid int, list []IDMapping) error {
	args := []string{strconv.Itoa(pid)}
	for _, m := range list {
		for _, n := range []uint32{m.Inside, m.Outside, m.Size} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	for _, dir := range helperDirs {
		program := path.Join(dir, helper)
		if unix.Access(program, unix.X_OK) != nil {
			continue
		}
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			return fault.New(fault.Forbidden, "%s: %w: %s", strings.Join(append([]string{helper}, args...), " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	return fault.New(fault.Forbidden, "id mappings of user %d: expected its own id alone, or %s to be installed", os.Geteuid(), helper)
}

// WriteTimeOffsets sets the clocks of the time namespace that the process has made and that nobody
// has entered yet (time_namespaces(7)): by name, seconds and nanoseconds.
func WriteTimeOffsets(pid int, offsets map[string][2]int64) error {
	var text string
	for _, name := range []string{"monotonic", "boottime"} {
		if o, ok := offsets[name]; ok {
			text += fmt.Sprintf("%s %d %d\n", name, o[0], o[1])
		}
	}
	if text == "" {
		return nil
	}
	err := writeProcess(pid, "timens_offsets", text)
	if errors.Is(err, unix.ERANGE) {
		return fault.New(fault.Invalid, "linux.timeOffsets: expected offsets that leave the clocks between 0 and 146 years: %w", err)
	}
	return err
}

// errMade ends the process whose user namespace was wanted.
var errMade = errors.New("made")

// UserNamespace makes a user namespace that only its file keeps: the mapping of a mount.
func UserNamespace(uids, gids []IDMapping) (*os.File, error) {
	ns, err := hold("user", Spawn{Flags: unix.CLONE_NEWUSER}, func(pid int) error { return WriteMappings(pid, uids, gids) })
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	return ns, nil
}

// NetworkIn makes a network namespace that belongs to a user namespace, as it must for who is root there
// to rule it. Only its file keeps it.
func NetworkIn(user *os.File) (*os.File, error) {
	s := Spawn{Join: []Join{{File: user, Type: unix.CLONE_NEWUSER}}, Fork: true, Flags: unix.CLONE_NEWNET}
	ns, err := hold("net", s, func(int) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return ns, nil
}

// hold opens a namespace of a process that ends before it executes anything.
func hold(kind string, s Spawn, prepare func(pid int) error) (ns *os.File, err error) {
	null, err := OpenAt(nil, os.DevNull, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	s.Program, s.Args = null, []string{"-"}
	s.Prepare = func(pid int) (err error) {
		if err = prepare(pid); err != nil {
			return err
		}
		if ns, err = OpenAt(nil, "/proc/"+strconv.Itoa(pid)+"/ns/"+kind, unix.O_RDONLY, 0); err != nil {
			return err
		}
		return errMade
	}
	if _, err := s.Start(); !errors.Is(err, errMade) {
		return nil, err
	}
	return ns, nil
}

// Inside is the id of the namespace that an id of its parent is: the reverse of Outside.
func Inside(list []IDMapping, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.Outside && id-m.Outside < m.Size {
			return m.Inside + (id - m.Outside), true
		}
	}
	return 0, false
}
