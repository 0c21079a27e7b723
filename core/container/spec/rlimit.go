package spec

import (
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// rlimits turns --ulimit, and what the daemon gives those who say nothing, into the runtime's. -1 is
// no limit.
func rlimits(given []wire.Ulimit, defaults map[string]wire.Ulimit) ([]specs.POSIXRlimit, error) {
	all := maps.Clone(defaults)
	if all == nil {
		all = map[string]wire.Ulimit{}
	}
	for _, u := range given {
		if !slices.Contains(wire.UlimitNames, u.Name) {
			return nil, &fault.Field{Field: "--ulimit", Given: u.Name, Expected: "one of " + strings.Join(wire.UlimitNames, ", "), Nearest: fault.Nearest(u.Name, wire.UlimitNames)}
		}
		if u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard) {
			return nil, fault.New(fault.Invalid, "--ulimit %s: soft limit %d is above the hard limit %d", u.Name, u.Soft, u.Hard)
		}
		if u.Hard < -1 || u.Soft < -1 {
			return nil, fault.New(fault.Invalid, "--ulimit %s: %d:%d: expected numbers, or -1 for no limit", u.Name, u.Soft, u.Hard)
		}
		all[u.Name] = u
	}
	var list []specs.POSIXRlimit
	for _, name := range slices.Sorted(maps.Keys(all)) {
		u := all[name]
		// -1 as an unsigned number is RLIM_INFINITY.
		list = append(list, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return list, nil
}

// CheckLimits reports what is wrong with limits by name, such as a daemon's defaults.
func CheckLimits(limits map[string]wire.Ulimit) error {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		u := limits[name]
		u.Name = name
		if _, err := rlimits([]wire.Ulimit{u}, nil); err != nil {
			return err
		}
	}
	return nil
}
