// Package systemd lets systemd make a container's cgroup: a transient scope, or a slice, whose
// properties are the limits.
//
//	cgroupsPath  machine.slice:sampan:web     (annotations org.systemd.property.*)
//	      │
//	      ▼ Parse, Annotations
//	Unit         sampan-web.scope in machine.slice
//	      │
//	      ▼ Limits: what of the resources systemd has a property for
//	Bus          StartTransientUnit, SetUnitProperties, AttachProcessesToUnit, StopUnit
//
// systemd knows some of the limits. All of them, those too, are then written to the files of the cgroup
// by core/cgroup (Adopt, Set): systemd must know what it knows, since it writes its files again whenever
// it is reloaded, and the files have the last word on what it does not know.
//
// A scope begins with its first process: a child that waits is moved into it by systemd, and goes on
// when the unit is there and has its limits (core/linux, Spawn.Place). The container is in its cgroup
// before it is anything.
//
// Root talks to /run/systemd/private, a socket of systemd itself, so that no bus need run. An ordinary
// user, or root of a user namespace, talks to the user's own systemd, by its private socket or by the
// session bus.
//
// Facts: systemd.resource-control(5), systemd.scope(5), systemd.unit(5), org.freedesktop.systemd1(5);
// the form of cgroupsPath, the properties and the annotations are runc's (docs/systemd.md there).
package systemd

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// Unit names the unit of a container.
type Unit struct {
	Name  string `json:"name"`           // sampan-web.scope
	Slice string `json:"slice"`          // machine.slice
	User  bool   `json:"user,omitempty"` // of the user's systemd, not of the system's
}

// maxName is UNIT_NAME_MAX less its final zero.
const maxName = 255

// Parse reads the spec's cgroupsPath, slice:prefix:name. An empty one is ::id with the prefix sampan. The
// unit is prefix-name.scope, or name itself when that ends in .slice.
func Parse(cgroupsPath, id string, user bool) (Unit, error) {
	const field = "linux.cgroupsPath"
	if cgroupsPath == "" {
		cgroupsPath = ":sampan:" + id
	}
	shown := short(cgroupsPath)
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 {
		// runc's words.
		return Unit{}, fault.New(fault.Invalid, `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got %q instead`, shown)
	}
	u := Unit{Slice: parts[0], User: user}
	switch {
	case u.Slice == "" && user:
		u.Slice = "user.slice"
	case u.Slice == "":
		u.Slice = "system.slice"
	case u.Slice == "-":
		u.Slice = "-.slice"
	}
	if _, err := expand(u.Slice); err != nil {
		return Unit{}, err
	}
	u.Name = parts[2]
	if !strings.HasSuffix(u.Name, ".slice") {
		u.Name = parts[1] + "-" + parts[2] + ".scope"
	} else if _, err := expand(u.Name); err != nil {
		return Unit{}, err
	} else if u.Name == "-.slice" {
		return Unit{}, &fault.Field{Field: field, Given: shown, Expected: "a unit below the root slice"}
	}
	if !valid(u.Name) {
		return Unit{}, &fault.Field{Field: field, Given: shown, Expected: fmt.Sprintf("a unit's name of letters, digits and _ . - \\ @, at most %d", maxName)}
	}
	return u, nil
}

// short is what was given, for an error.
func short(s string) string {
	if len(s) > 128 {
		s = s[:64] + "..."
	}
	return s
}

// valid is systemd's unit_name_is_valid without templates.
func valid(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
	return len(name) <= maxName && strings.Trim(name, letters) == "" && !strings.HasPrefix(name, "@") && !strings.Contains(name, "@.")
}

// slice reports whether the unit is a slice, which has no process of its own for systemd.
func (u Unit) slice() bool { return strings.HasSuffix(u.Name, ".slice") }

// Delegated reports whether what is below the unit's cgroup is the container's own: that of a slice is
// systemd's.
func (u Unit) Delegated() bool { return !u.slice() }

// SlicePath is where the cgroup of a slice is: a dash in its name is a level, a-b.slice is in a.slice.
func SlicePath(name string) (string, error) { return expand(name) }

// expand is where a slice's cgroup is: a dash in its name is a level, a-b.slice is in a.slice.
func expand(slice string) (string, error) {
	bad := &fault.Field{Field: "linux.cgroupsPath", Given: short(slice), Expected: "a slice's name such as machine.slice or a-b.slice"}
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || !valid(slice) {
		return "", bad
	}
	if name == "-" {
		return "/", nil
	}
	p, above := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", bad
		}
		p, above = path.Join(p, above+part+".slice"), above+part+"-"
	}
	return p, nil
}

// Path is where the unit's cgroup is, below the cgroup that its systemd has.
func (u Unit) Path(root string) (string, error) {
	if u.slice() {
		// A slice is where its own name says.
		p, err := expand(u.Name)
		return path.Join("/", root, p), err
	}
	p, err := expand(u.Slice)
	return path.Join("/", root, p, u.Name), err
}

// Running reports whether this host was booted with systemd, as sd_booted(3) finds it out.
func Running() error {
	st, err := os.Lstat("/run/systemd/system")
	if err != nil || !st.IsDir() {
		return fault.New(fault.Unavailable, "systemd not running on this host, cannot use systemd cgroups manager")
	}
	return nil
}

// Ordinary reports whether we are an ordinary user outside, and so have a systemd of our own: also as
// root of a user namespace. uid is the one outside.
func Ordinary() (uid int, ordinary bool) {
	uid = os.Geteuid()
	list, err := linux.Mappings(os.Getpid(), "uid_map")
	if err != nil {
		return uid, uid != 0
	}
	if out, ok := linux.Outside(list, uint32(uid)); ok {
		uid = int(out)
	}
	return uid, uid != 0
}
