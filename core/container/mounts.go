package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/volume"
	"github.com/sampan-project/sampan/core/wire"
)

// mountPoint is one mount of a container as the record keeps it.
type mountPoint struct {
	Type        string            `json:"type"` // bind, volume, tmpfs, image
	Name        string            `json:"name,omitempty"`
	Source      string            `json:"source,omitempty"` // of a bind
	Destination string            `json:"destination"`
	Mode        string            `json:"mode,omitempty"` // as the user wrote it
	RW          bool              `json:"rw"`
	Propagation string            `json:"propagation,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`  // of a volume that is to be made
	Options     map[string]string `json:"options,omitempty"` // likewise
	Data        []string          `json:"data,omitempty"`    // mount options of a tmpfs
	Subpath     string            `json:"subpath,omitempty"` // below the volume or the image
	Image       digest.Digest     `json:"image,omitempty"`   // that was of the name at the creation
	Chain       digest.Digest     `json:"chain,omitempty"`   // of that image

	Anonymous    bool `json:"anonymous,omitempty"`    // the volume goes with the container
	NoCopy       bool `json:"nocopy,omitempty"`       // leave an empty volume empty
	CreateSource bool `json:"createSource,omitempty"` // a missing directory of the host is made
	NonRecursive bool `json:"nonRecursive,omitempty"`
	Hidden       bool `json:"hidden,omitempty"` // --tmpfs: inspect shows it elsewhere
}

func (p mountPoint) request() wire.VolumeCreateRequest {
	labels := maps.Clone(p.Labels)
	if p.Anonymous {
		if labels == nil {
			labels = map[string]string{}
		}
		labels[volume.AnonymousLabel] = ""
	}
	return wire.VolumeCreateRequest{Name: p.Name, Labels: labels, DriverOpts: p.Options}
}

// mountSet collects mounts by destination. Explicit ones must not meet; the volumes of other
// containers and of the image give way.
type mountSet struct {
	points   []mountPoint
	explicit map[string]bool
}

func (s *mountSet) add(p mountPoint, explicit bool) error {
	if i := slices.IndexFunc(s.points, func(o mountPoint) bool { return o.Destination == p.Destination }); i >= 0 {
		if explicit && s.explicit[p.Destination] {
			return fault.New(fault.Invalid, "Duplicate mount point: %s", p.Destination)
		}
		if !explicit {
			return nil
		}
		s.points = slices.Delete(s.points, i, i+1)
	}
	s.points = append(s.points, p)
	if explicit {
		s.explicit[p.Destination] = true
	}
	return nil
}

// mountPoints reads every way in which a request can speak of mounts, in Docker's order: the volumes
// of other containers, binds, mounts, tmpfs, and the volumes of the configuration.
func (m *Manager) mountPoints(ctx context.Context, rec *record) ([]mountPoint, error) {
	set := &mountSet{explicit: map[string]bool{}}
	for _, from := range rec.Host.VolumesFrom {
		points, err := m.volumesFrom(from)
		if err != nil {
			return nil, err
		}
		for _, p := range points {
			if i := slices.IndexFunc(set.points, func(o mountPoint) bool { return o.Destination == p.Destination }); i >= 0 {
				set.points = slices.Delete(set.points, i, i+1) // the later container wins
			}
			set.points = append(set.points, p)
		}
	}
	for _, b := range rec.Host.Binds {
		p, err := parseBind(b)
		if err == nil {
			err = set.add(p, true)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, spec := range rec.Host.Mounts {
		p, err := parseMount(spec)
		if err == nil && p.Type == "image" {
			p, err = m.imagePoint(ctx, p, spec)
		}
		if err == nil {
			err = set.add(p, true)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, destination := range slices.Sorted(maps.Keys(rec.Host.Tmpfs)) {
		p, err := parseTmpfs(destination, rec.Host.Tmpfs[destination])
		if err == nil {
			err = set.add(p, true)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, destination := range slices.Sorted(maps.Keys(rec.Config.Volumes)) {
		clean, err := mountTarget(destination)
		if err != nil {
			return nil, err
		}
		p := mountPoint{Type: "volume", Name: volume.NewName(), Destination: clean, RW: true, Anonymous: true}
		if err := set.add(p, false); err != nil {
			return nil, err
		}
	}
	if m.remap(&rec.Host) != nil {
		if err := uncovered(set.points); err != nil {
			return nil, err
		}
	}
	return set.points, checkVolumes(set.points)
}

// checkVolumes validates volumes that are to be made, before anything is.
func checkVolumes(points []mountPoint) error {
	for _, p := range points {
		if p.Type != "volume" {
			continue
		}
		if err := volume.Validate(p.request()); err != nil {
			return err
		}
	}
	return nil
}

// mountTarget checks a path inside the container.
func mountTarget(p string) (string, error) {
	if !path.IsAbs(p) {
		return "", fault.New(fault.Invalid, "invalid mount path: '%s' mount path must be absolute", shortened(p))
	}
	if strings.ContainsRune(p, 0) {
		return "", fault.New(fault.Invalid, "invalid mount path: it holds a NUL byte")
	}
	if p = path.Clean(p); p == "/" {
		return "", fault.New(fault.Invalid, "invalid specification: destination can't be '/'")
	}
	return p, nil
}

// parseBind reads "source:destination[:mode]" of -v. A source that is no absolute path names a volume.
func parseBind(given string) (mountPoint, error) {
	parts := strings.Split(given, ":")
	p := mountPoint{RW: true, CreateSource: true}
	var err error
	switch len(parts) {
	case 1:
		p.Type, p.Name, p.Anonymous = "volume", volume.NewName(), true
		p.Destination, err = mountTarget(parts[0])
		return p, err
	case 3:
		p.Mode = parts[2]
	case 2:
	default:
		return p, fault.New(fault.Invalid, "invalid volume specification: '%s'", shortened(given))
	}
	source, destination := parts[0], parts[1]
	if source == "" || destination == "" {
		return p, fault.New(fault.Invalid, "invalid volume specification: '%s'", shortened(given))
	}
	if path.IsAbs(source) {
		p.Type, p.Source, p.Propagation = "bind", path.Clean(source), "rprivate"
	} else {
		p.Type, p.Name = "volume", source
	}
	if p.Destination, err = mountTarget(destination); err != nil {
		return p, fault.New(fault.Invalid, "invalid volume specification: '%s': invalid mount config for type %q: %w", shortened(given), p.Type, err)
	}
	if p.Type == "volume" {
		if strings.ContainsAny(source, "/") {
			return p, fault.New(fault.Invalid, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", source, shortened(source))
		}
	}
	if err := p.applyMode(); err != nil {
		return p, err
	}
	if p.Type == "volume" && p.Mode == "" {
		p.Mode = "z" // what Docker shows
	}
	return p, nil
}

var propagationModes = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}

// applyMode reads the last part of -v. z and Z, SELinux's labels, mean nothing without it.
func (p *mountPoint) applyMode() error {
	if p.Mode == "" {
		return nil
	}
	seen := map[string]bool{}
	for o := range strings.SplitSeq(p.Mode, ",") {
		kind := o
		switch {
		case o == "ro" || o == "rw":
			p.RW, kind = o == "rw", "rw"
		case o == "z" || o == "Z":
			kind = "label"
		case o == "nocopy" && p.Type == "volume":
			p.NoCopy = true
		case slices.Contains(propagationModes, o) && p.Type == "bind":
			p.Propagation, kind = o, "propagation"
		default:
			return fault.New(fault.Invalid, "invalid mode: %s", shortened(p.Mode))
		}
		if seen[kind] {
			return fault.New(fault.Invalid, "invalid mode: %s", shortened(p.Mode))
		}
		seen[kind] = true
	}
	return nil
}

// volumesFrom takes over the mounts of another container; ":ro" makes them read-only.
func (m *Manager) volumesFrom(given string) ([]mountPoint, error) {
	ref, mode, _ := strings.Cut(given, ":")
	if mode != "" && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
		return nil, fault.New(fault.Invalid, "invalid mode: %s", shortened(mode))
	}
	other, err := m.find(ref)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	rec, _ := other.snapshot()
	var points []mountPoint
	for _, p := range rec.Mounts {
		if p.Hidden {
			continue
		}
		p.Anonymous, p.NoCopy = false, true // the other's to remove, and filled already
		p.RW = p.RW && mode != "ro"
		points = append(points, p)
	}
	return points, nil
}

// parseMount reads one --mount.
func parseMount(s wire.MountSpec) (mountPoint, error) {
	p := mountPoint{Type: s.Type, RW: !s.ReadOnly}
	invalid := func(format string, args ...any) (mountPoint, error) {
		return p, fault.New(fault.Invalid, "invalid mount config for type %q: %w", s.Type, fmt.Errorf(format, args...))
	}
	var err error
	if s.Target == "" {
		return invalid("field Target must not be empty")
	}
	if p.Destination, err = mountTarget(s.Target); err != nil {
		return invalid("%w", err)
	}
	for _, o := range []struct {
		set  bool
		name string
		kind string
	}{
		{s.BindOptions != nil, "BindOptions", "bind"},
		{s.VolumeOptions != nil, "VolumeOptions", "volume"},
		{s.TmpfsOptions != nil, "TmpfsOptions", "tmpfs"},
		{s.ImageOptions != nil, "ImageOptions", "image"},
	} {
		if o.set && o.kind != s.Type {
			return invalid("field %s must not be specified", o.name)
		}
	}
	switch s.Type {
	case "bind":
		return parseBindMount(p, s)
	case "volume":
		p.Name, p.Mode = s.Source, "z" // the mode that Docker shows
		if p.Name == "" {
			p.Name, p.Anonymous = volume.NewName(), true
		} else if err := volume.ValidName(p.Name); err != nil {
			return p, err
		}
		if o := s.VolumeOptions; o != nil {
			p.NoCopy, p.Labels, p.Subpath = o.NoCopy, o.Labels, o.Subpath
			if d := o.DriverConfig; d != nil {
				if d.Name != "" && d.Name != volume.DriverName {
					return invalid("volume driver %q: expected \"local\"", d.Name)
				}
				p.Options = d.Options
			}
			if p.Subpath != "" && !isLocal(p.Subpath) {
				return invalid("subpath %q must be a relative path within the volume", shortened(p.Subpath))
			}
		}
		return p, nil
	case "image":
		if s.Source == "" {
			return invalid("field Source must not be empty")
		}
		if o := s.ImageOptions; o != nil && o.Subpath != "" && !isLocal(o.Subpath) {
			return invalid("subpath %q must be a relative path within the image", shortened(o.Subpath))
		}
		return p, nil
	case "tmpfs":
		if s.Source != "" {
			return invalid("field Source must not be specified")
		}
		p.Data = defaultTmpfs()
		if o := s.TmpfsOptions; o != nil {
			if o.SizeBytes < 0 {
				return invalid("the size must not be negative")
			}
			if o.SizeBytes > 0 {
				p.Data = append(p.Data, fmt.Sprintf("size=%d", o.SizeBytes))
			}
			if o.Mode != 0 {
				p.Data = append(p.Data, fmt.Sprintf("mode=%o", o.Mode))
			}
			for _, pair := range o.Options {
				option := strings.Join(pair, "=")
				if err := checkTmpfsOption(option); err != nil {
					return invalid("%w", err)
				}
				p.Data = append(p.Data, option)
			}
		}
		return p, nil
	}
	kinds := []string{"bind", "volume", "tmpfs", "image"}
	return p, &fault.Field{Field: "mount type", Given: shortened(s.Type), Expected: "bind, volume, tmpfs or image", Nearest: fault.Nearest(s.Type, kinds)}
}

func parseBindMount(p mountPoint, s wire.MountSpec) (mountPoint, error) {
	if s.Source == "" {
		return p, fault.New(fault.Invalid, "invalid mount config for type \"bind\": field Source must not be empty")
	}
	if !path.IsAbs(s.Source) {
		return p, fault.New(fault.Invalid, "invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute", shortened(s.Source))
	}
	p.Source, p.Propagation = path.Clean(s.Source), "rprivate"
	if o := s.BindOptions; o != nil {
		if o.Propagation != "" {
			if !slices.Contains(propagationModes, o.Propagation) {
				return p, &fault.Field{Field: "bind-propagation", Given: shortened(o.Propagation), Expected: "one of " + strings.Join(propagationModes, ", "), Nearest: fault.Nearest(o.Propagation, propagationModes)}
			}
			p.Propagation = o.Propagation
		}
		p.NonRecursive, p.CreateSource = o.NonRecursive, o.CreateMountpoint
	}
	if _, err := os.Lstat(p.Source); err != nil && !p.CreateSource {
		if errors.Is(err, os.ErrNotExist) {
			return p, fault.New(fault.Invalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", p.Source)
		}
		return p, fault.New(fault.Invalid, "invalid mount config for type \"bind\": %w", err)
	}
	return p, nil
}

// isLocal reports whether the relative path stays below its start.
func isLocal(p string) bool {
	clean := path.Clean(p)
	return !path.IsAbs(p) && clean != ".." && !strings.HasPrefix(clean, "../")
}

// specMounts are the record's mounts as the runtime takes them, but those of images (imageMounts). Directories that are missing on the
// host are made where the user's words allow it.
//
// Volumes are in use by user from now on, until Unmount.
func (m *Manager) specMounts(ctx context.Context, rec *record, user string) ([]specs.Mount, error) {
	var list []specs.Mount
	for _, p := range rec.Mounts {
		s := specs.Mount{Destination: p.Destination, Type: p.Type}
		switch p.Type {
		case "image":
			continue
		case "tmpfs":
			s.Source, s.Options = "tmpfs", slices.Clone(p.Data)
			if !p.RW && !slices.Contains(s.Options, "ro") {
				s.Options = append(s.Options, "ro")
			}
			list = append(list, s)
			continue
		case "volume":
			dir, err := m.volumePath(ctx, p, user)
			if err != nil {
				return nil, err
			}
			s.Source = dir
		case "bind":
			if err := bindSource(p); err != nil {
				return nil, err
			}
			s.Source = p.Source
		}
		s.Type, s.Options = "bind", p.bindOptions()
		list = append(list, s)
	}
	return list, nil
}

func (p mountPoint) bindOptions() []string {
	options := []string{"rbind"}
	if p.NonRecursive {
		options[0] = "bind"
	}
	if !p.RW {
		options = append(options, "ro")
	}
	propagation := p.Propagation
	if propagation == "" {
		propagation = "rprivate"
	}
	return append(options, propagation)
}

func bindSource(p mountPoint) error {
	_, err := os.Stat(p.Source)
	if errors.Is(err, os.ErrNotExist) {
		if !p.CreateSource {
			return fault.New(fault.Invalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", p.Source)
		}
		err = os.MkdirAll(p.Source, 0o755)
	}
	if err != nil {
		return fault.New(fault.Invalid, "error while creating mount source path '%s': %w", p.Source, err)
	}
	return nil
}

// volumePath is the directory of the volume, or of the part of it that the mount names. A volume that
// was removed by force since, or lost with a power failure, is made again.
func (m *Manager) volumePath(ctx context.Context, p mountPoint, user string) (string, error) {
	dir, err := m.o.Volumes.Mount(ctx, p.Name, user)
	if fault.Is(err, fault.NotFound) {
		if _, err = m.o.Volumes.Create(ctx, p.request()); err == nil {
			dir, err = m.o.Volumes.Mount(ctx, p.Name, user)
		}
	}
	if err != nil || p.Subpath == "" {
		return dir, err
	}
	return confined(dir, p.Subpath)
}

// confined resolves a path below the volume: a symlink in it, which a container may have made, must
// not lead to the host (CVE-2024-24557's kind). os.Root refuses those that do.
func confined(dir, sub string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close() //nolint:errcheck // a handle of a directory
	info, err := root.Lstat(sub)
	if err != nil {
		return "", fault.New(fault.Invalid, "subpath %s of the volume: %w", shortened(sub), err)
	}
	if info.Mode()&os.ModeSymlink != 0 {
		return "", fault.New(fault.Invalid, "subpath %s of the volume is a symbolic link", shortened(sub))
	}
	return path.Join(dir, sub), nil
}

// mountsForInspect are the mounts as inspect and ps show them.
func (m *Manager) mountsForInspect(ctx context.Context, rec *record) []wire.MountPoint {
	list := []wire.MountPoint{}
	for i, p := range rec.Mounts {
		if p.Hidden {
			continue
		}
		w := wire.MountPoint{Type: p.Type, Name: p.Name, Source: p.Source, Destination: p.Destination, Mode: p.Mode, RW: p.RW, Propagation: p.Propagation}
		if p.Type == "volume" {
			w.Driver = volume.DriverName
			if v, err := m.o.Volumes.Inspect(ctx, p.Name); err == nil {
				w.Source = v.Mountpoint
			}
		}
		if p.Type == "image" { // where Docker would have it, as with the root
			w.Source = m.o.Layers.Paths(holdKey(rec.ID, i))["MergedDir"]
		}
		list = append(list, w)
	}
	return list
}
