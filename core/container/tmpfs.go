package container

import (
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

func defaultTmpfs() []string { return []string{"noexec", "nosuid", "nodev"} }

// parseTmpfs reads --tmpfs DESTINATION[:OPTIONS].
func parseTmpfs(destination, options string) (mountPoint, error) {
	p := mountPoint{Type: "tmpfs", RW: true, Hidden: true, Data: defaultTmpfs()}
	var err error
	if p.Destination, err = mountTarget(destination); err != nil {
		return p, err
	}
	if options == "" {
		return p, nil
	}
	for o := range strings.SplitSeq(options, ",") {
		if err := checkTmpfsOption(o); err != nil {
			return p, fault.New(fault.Invalid, "--tmpfs %s: %w", destination, err)
		}
		// The opposite of a default takes its place.
		if opposite, ok := map[string]string{"exec": "noexec", "suid": "nosuid", "dev": "nodev"}[o]; ok {
			p.Data = slices.DeleteFunc(p.Data, func(d string) bool { return d == opposite })
		}
		p.Data = append(p.Data, o)
	}
	p.RW = !slices.Contains(p.Data, "ro")
	return p, nil
}

var tmpfsFlags = []string{"defaults", "async", "atime", "bind", "dev", "diratime", "dirsync", "exec", "noatime", "nodev",
	"nodiratime", "noexec", "norelatime", "nostrictatime", "nosuid", "private", "relatime", "ro", "rprivate", "rw",
	"shared", "slave", "strictatime", "suid", "sync", "rshared", "rslave"}

var tmpfsKeys = []string{"gid", "huge", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"}

func checkTmpfsOption(o string) error {
	key, value, has := strings.Cut(o, "=")
	if has && slices.Contains(tmpfsKeys, key) && value != "" && !strings.ContainsAny(value, ",\x00") {
		return nil
	}
	if !has && o != "bind" && slices.Contains(tmpfsFlags, o) {
		return nil
	}
	return &fault.Field{Field: "invalid tmpfs option", Given: shortened(o), Expected: "an option such as size=64m, mode=1777 or ro",
		Nearest: fault.Nearest(key, append(slices.Clone(tmpfsFlags), tmpfsKeys...))}
}
