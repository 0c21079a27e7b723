// Package userns is the mapping of ids that a daemon gives to all containers (daemon.json, userns-remap):
// root of a container is a user of the host without rights.
//
// The words are dockerd's ("Isolate containers with a user namespace"): whose subordinate ids are taken,
// from files of the form of subuid(5). What the ids are used for is elsewhere: the layers keep on disk
// the ids that containers see (core/mount, Detached), and processes are in a user namespace that maps
// them (core/runtime).
package userns

import (
	"fmt"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// DefaultUser is whose ids the word "default" takes; it is made when it is missing.
const DefaultUser = "sampanremap"

// Remap is a mapping.
type Remap struct {
	Name       string // as daemon.json has it
	UIDs, GIDs []linux.IDMapping
}

// Parse reads "default", "user", "user:group", or the same by numbers, and finds the subordinate ids in
// the files subuid and subgid of a directory, which is /etc.
func Parse(text, dir string) (*Remap, error) {
	name, group, both := strings.Cut(text, ":")
	if name == "" || both && group == "" || strings.Contains(group, ":") {
		return nil, &fault.Field{Field: "userns-remap", Given: text, Expected: "default, user, user:group, uid or uid:gid"}
	}
	if text == "default" {
		name = DefaultUser
		if err := ensureDefault(dir); err != nil {
			return nil, fmt.Errorf("userns-remap: %w", err)
		}
	}
	u, err := lookupUser(name)
	if err != nil {
		return nil, err
	}
	r := &Remap{Name: text}
	if r.UIDs, err = mapping(filepath.Join(dir, "subuid"), u.Username, u.Uid); err != nil {
		return nil, err
	}
	if !both {
		group = u.Username
	}
	g, err := lookupGroup(group)
	if err != nil {
		return nil, err
	}
	r.GIDs, err = mapping(filepath.Join(dir, "subgid"), g.Name, g.Gid)
	return r, err
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

func lookupUser(name string) (*user.User, error) {
	find := user.Lookup
	if isNumber(name) {
		find = user.LookupId
	}
	u, err := find(name)
	if err != nil {
		return nil, fault.New(fault.Invalid, "userns-remap: user %q: expected one of this host: %w", name, err)
	}
	return u, nil
}

func lookupGroup(name string) (*user.Group, error) {
	find := user.LookupGroup
	if isNumber(name) {
		find = user.LookupGroupId
	}
	g, err := find(name)
	if err != nil {
		return nil, fault.New(fault.Invalid, "userns-remap: group %q: expected one of this host: %w", name, err)
	}
	return g, nil
}

// mapping lays the ranges of a name one after the other, from id 0 on.
func mapping(file, name, number string) ([]linux.IDMapping, error) {
	all, err := readRanges(file)
	if err != nil {
		return nil, err
	}
	var list []linux.IDMapping
	next := uint64(0)
	for _, r := range all {
		if r.owner != name && r.owner != number {
			continue
		}
		size := min(r.count, 1<<32-1-next)
		if size == 0 {
			break
		}
		list = append(list, linux.IDMapping{Inside: uint32(next), Outside: uint32(r.start), Size: uint32(size)})
		next += size
	}
	if len(list) == 0 {
		return nil, fault.New(fault.Invalid, "userns-remap: %s has no ids for %q: expected a line such as %s:100000:65536", file, name, name)
	}
	return list, nil
}

// Root is what root of a container is on the host. A nil Remap leaves root what it is.
func (r *Remap) Root() (uid, gid int) {
	if r == nil {
		return 0, 0
	}
	u, _ := linux.Outside(r.UIDs, 0)
	g, _ := linux.Outside(r.GIDs, 0)
	return int(u), int(g)
}

// With calls fn with the mapping as mounts take it, nil for a nil Remap.
func (r *Remap) With(fn func(*mount.IDMap) error) error {
	if r == nil {
		return fn(nil)
	}
	ns, err := linux.UserNamespace(r.UIDs, r.GIDs)
	if err != nil {
		return err
	}
	defer ns.Close()
	uid, gid := r.Root()
	return fn(&mount.IDMap{UserNS: ns, UID: uid, GID: gid})
}

// Inside are the owner of a file of the host as the container sees it. Who is not mapped is nobody.
func (r *Remap) Inside(uid, gid int) (int, int) {
	if r == nil {
		return uid, gid
	}
	return shift(linux.Inside, r.UIDs, uid), shift(linux.Inside, r.GIDs, gid)
}

// Outside are an owner in the container as the host sees it.
func (r *Remap) Outside(uid, gid int) (int, int, error) {
	if r == nil {
		return uid, gid, nil
	}
	u, ok := linux.Outside(r.UIDs, uint32(uid))
	g, gok := linux.Outside(r.GIDs, uint32(gid))
	if !ok || !gok || uid < 0 || gid < 0 {
		return 0, 0, fault.New(fault.Invalid, "owner %d:%d is not mapped to the host", uid, gid)
	}
	return int(u), int(g), nil
}

// nobody is the kernel's overflow id (/proc/sys/kernel/overflowuid).
const nobody = 65534

func shift(by func([]linux.IDMapping, uint32) (uint32, bool), list []linux.IDMapping, id int) int {
	if n, ok := by(list, uint32(id)); ok {
		return int(n)
	}
	return nobody
}

// OfProcess is the mapping of the user namespace that a process is in, nil where it is the host's.
func OfProcess(pid int) (*Remap, error) {
	r := &Remap{}
	for _, k := range []struct {
		file string
		list *[]linux.IDMapping
	}{{"uid_map", &r.UIDs}, {"gid_map", &r.GIDs}} {
		list, err := linux.Mappings(pid, k.file)
		if err != nil {
			return nil, err
		}
		*k.list = list
	}
	if same(r.UIDs) && same(r.GIDs) {
		return nil, nil
	}
	return r, nil
}

func same(list []linux.IDMapping) bool {
	for _, m := range list {
		if m.Inside != m.Outside {
			return false
		}
	}
	return true
}
