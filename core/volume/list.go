package volume

import (
	"context"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// checkFilters refuses keys that are not in known.
func checkFilters(filters map[string][]string, known ...string) error {
	for _, key := range slices.Sorted(maps.Keys(filters)) {
		if !slices.Contains(known, key) {
			return &fault.Field{Field: "invalid filter", Given: key, Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(key, known)}
		}
	}
	return nil
}

// List returns the volumes that match all filters, by name.
func (m *Manager) List(ctx context.Context, filters map[string][]string) (wire.VolumeList, error) {
	rows, err := m.matching(filters, "dangling", "driver", "label", "name")
	if err != nil {
		return wire.VolumeList{}, err
	}
	list := wire.VolumeList{Volumes: []*wire.Volume{}}
	for _, r := range rows {
		v := m.volume(r)
		list.Volumes = append(list.Volumes, &v)
	}
	return list, nil
}

// matching returns the rows that match, by name. Keys beyond known are refused.
func (m *Manager) matching(filters map[string][]string, known ...string) ([]row, error) {
	if err := checkFilters(filters, known...); err != nil {
		return nil, err
	}
	dangling, err := wantDangling(filters["dangling"])
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	rows := slices.SortedFunc(maps.Values(m.rows), func(a, b row) int { return strings.Compare(a.Name, b.Name) })
	m.mu.RUnlock()
	return slices.DeleteFunc(rows, func(r row) bool {
		switch {
		case len(filters["driver"]) > 0 && !slices.Contains(filters["driver"], DriverName):
			return true
		case len(filters["name"]) > 0 && !slices.ContainsFunc(filters["name"], func(n string) bool { return strings.Contains(r.Name, n) }):
			return true
		case !hasLabels(r.Labels, filters["label"]):
			return true
		case len(filters["label!"]) > 0 && hasLabels(r.Labels, filters["label!"]):
			return true
		case dangling != nil && *dangling != (len(m.o.InUse(r.Name)) == 0):
			return true
		}
		return false
	}), nil
}

func wantDangling(values []string) (*bool, error) {
	var want *bool
	for _, v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return nil, &fault.Field{Field: "filter dangling", Given: v, Expected: "true or false"}
		}
		want = &b
	}
	return want, nil
}

// hasLabels reports whether every "key" or "key=value" of want is there.
func hasLabels(labels map[string]string, want []string) bool {
	for _, w := range want {
		key, value, has := strings.Cut(w, "=")
		got, ok := labels[key]
		if !ok || has && got != value {
			return false
		}
	}
	return true
}

// Prune removes the volumes that no container names: anonymous ones alone, unless the filter "all"
// says true.
func (m *Manager) Prune(ctx context.Context, filters map[string][]string) (wire.VolumesPrune, error) {
	pruned := wire.VolumesPrune{VolumesDeleted: []string{}}
	all := false
	for _, v := range filters["all"] {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return pruned, &fault.Field{Field: "filter all", Given: v, Expected: "true or false"}
		}
		all = b
	}
	rows, err := m.matching(filters, "all", "label", "label!")
	if err != nil {
		return pruned, err
	}
	for _, r := range rows {
		if _, anonymous := r.Labels[AnonymousLabel]; !all && !anonymous {
			continue
		}
		if err := ctx.Err(); err != nil {
			return pruned, err
		}
		size := m.size(r)
		switch err := m.Remove(ctx, r.Name, true); {
		case fault.Is(err, fault.Conflict): // in use, or taken into use since
		case err != nil:
			return pruned, err
		default:
			pruned.VolumesDeleted = append(pruned.VolumesDeleted, r.Name)
			pruned.SpaceReclaimed += uint64(max(size, 0))
		}
	}
	m.o.Events("prune", "", map[string]string{"reclaimed": strconv.FormatUint(pruned.SpaceReclaimed, 10)})
	return pruned, nil
}

// Usage returns all volumes with their size and number of users, by name.
func (m *Manager) Usage(ctx context.Context) ([]*wire.Volume, error) {
	rows, err := m.matching(nil)
	if err != nil {
		return nil, err
	}
	list := []*wire.Volume{}
	for _, r := range rows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v := m.volume(r)
		v.UsageData = &wire.VolumeUsage{RefCount: int64(len(m.o.InUse(r.Name))), Size: m.size(r)}
		list = append(list, &v)
	}
	return list, nil
}

// size is the bytes of the files in the volume's own directory, hard links counted once, or -1.
func (m *Manager) size(r row) int64 {
	var total int64
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	err := filepath.WalkDir(m.dataPath(r.Name), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a file that goes away while we look has no size
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() {
			return nil //nolint:nilerr // as above
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			key := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // its type differs between architectures
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		total += info.Size()
		return nil
	})
	if err != nil {
		return -1
	}
	return total
}
