package container

import (
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// propagations are the mount propagations of -v and --mount.
var propagations = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}

// volumeModes are the words after the second colon of -v; cached and its like meant something to
// Docker on macOS and are accepted.
var volumeModes = append([]string{"ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated"}, propagations...)

// volumeSpecs parses -v values, [SOURCE:]TARGET[:MODE,...]: those with a source are binds, the
// others anonymous volumes. A source that begins with a dot is made absolute.
func volumeSpecs(specs []string) (binds []string, anonymous map[string]struct{}, err error) {
	for _, spec := range specs {
		parts := strings.Split(spec, ":")
		bad := func(expected string) error {
			return &fault.Field{Field: "--volume", Given: spec, Expected: expected}
		}
		if len(parts) > 3 || slices.Contains(parts, "") {
			return nil, nil, bad("[SOURCE:]TARGET[:MODE]")
		}
		target := parts[min(len(parts), 2)-1]
		if !path.IsAbs(target) {
			return nil, nil, bad("an absolute path in the container")
		}
		if path.Clean(target) == "/" {
			return nil, nil, bad("a path in the container other than /")
		}
		if len(parts) == 1 {
			if anonymous == nil {
				anonymous = map[string]struct{}{}
			}
			anonymous[target] = struct{}{}
			continue
		}
		if parts[0], err = volumeSource(parts[0], bad); err != nil {
			return nil, nil, err
		}
		if len(parts) == 3 {
			if err := volumeMode(spec, parts[2]); err != nil {
				return nil, nil, err
			}
		}
		binds = append(binds, strings.Join(parts, ":"))
	}
	return binds, anonymous, nil
}

func volumeSource(source string, bad func(string) error) (string, error) {
	switch {
	case path.IsAbs(source):
		return source, nil
	case strings.HasPrefix(source, "."):
		return filepath.Abs(source)
	case !isVolumeName(source):
		return "", bad("a host path that begins with / or ./, or the name of a volume (two or more of letters, digits, _ . -)")
	}
	return source, nil
}

// isVolumeName is the rule for names of Docker's local volumes.
func isVolumeName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return len(s) >= 2
}

func volumeMode(spec, modes string) error {
	for mode := range strings.SplitSeq(modes, ",") {
		if !slices.Contains(volumeModes, mode) {
			return &fault.Field{Field: "--volume", Given: spec, Expected: "a mode of " + strings.Join(volumeModes, ", "), Nearest: fault.Nearest(mode, volumeModes)}
		}
	}
	return nil
}

// mountKeys are the options of --mount; those marked true may stand alone.
var mountKeys = map[string]bool{
	"type": false, "source": false, "src": false, "target": false, "destination": false, "dst": false,
	"readonly": true, "ro": true, "consistency": false,
	"bind-propagation": false, "bind-recursive": false, "bind-nonrecursive": true, "bind-create-src": true,
	"volume-nocopy": true, "volume-label": false, "volume-driver": false, "volume-opt": false, "volume-subpath": false,
	"tmpfs-size": false, "tmpfs-mode": false, "image-subpath": false,
}

// Mounts is the flag --mount.
type Mounts struct{ Values []wire.MountSpec }

func (m *Mounts) String() string { return "" }

// Type is the word for the value in help texts.
func (m *Mounts) Type() string { return "mount" }

// Set parses one type=TYPE,source=SOURCE,target=TARGET[,OPTION...].
func (m *Mounts) Set(s string) error {
	fields, err := cli.Fields(s)
	if err != nil {
		return err
	}
	spec := wire.MountSpec{Type: "volume"}
	for _, field := range fields {
		if err := setMountOption(&spec, field); err != nil {
			return err
		}
	}
	if err := checkMount(s, &spec); err != nil {
		return err
	}
	m.Values = append(m.Values, spec)
	return nil
}

func setMountOption(m *wire.MountSpec, field string) error {
	key, value, hasValue := strings.Cut(field, "=")
	key = strings.ToLower(key)
	alone, known := mountKeys[key]
	switch {
	case !known:
		keys := make([]string, 0, len(mountKeys))
		for k := range mountKeys {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		return &fault.Field{Given: field, Expected: "an option of " + strings.Join(keys, ", "), Nearest: fault.Nearest(key, keys)}
	case !hasValue && !alone:
		return &fault.Field{Given: field, Expected: "KEY=VALUE"}
	case hasValue && (value == "" || strings.TrimSpace(value) != value):
		return &fault.Field{Given: field, Expected: "a value without spaces around it"}
	}
	on := func(to *bool) error { return mountBool(to, field, value, hasValue) }
	switch key {
	case "type":
		m.Type = strings.ToLower(value)
	case "source", "src":
		m.Source = value
		if strings.HasPrefix(value, ".") {
			abs, err := filepath.Abs(value)
			if err != nil {
				return err
			}
			m.Source = abs
		}
	case "target", "destination", "dst":
		m.Target = value
	case "readonly", "ro":
		return on(&m.ReadOnly)
	case "consistency":
		m.Consistency = strings.ToLower(value)
	case "bind-propagation", "bind-recursive", "bind-nonrecursive", "bind-create-src":
		return setBindOption(m, key, field, value, on)
	case "volume-nocopy", "volume-label", "volume-driver", "volume-opt", "volume-subpath":
		return setVolumeOption(m, key, value, on)
	case "tmpfs-size", "tmpfs-mode":
		return setTmpfsOption(m, key, field, value)
	case "image-subpath":
		m.ImageOptions = &wire.MountImageOptions{Subpath: value}
	}
	return nil
}

func mountBool(to *bool, field, value string, hasValue bool) error {
	switch {
	case !hasValue || value == "1" || value == "true":
		*to = true
	case value == "0" || value == "false":
		*to = false
	default:
		return &fault.Field{Given: field, Expected: "true, 1, false or 0 after the ="}
	}
	return nil
}

func setBindOption(m *wire.MountSpec, key, field, value string, on func(*bool) error) error {
	if m.BindOptions == nil {
		m.BindOptions = &wire.MountBindOptions{}
	}
	o := m.BindOptions
	switch key {
	case "bind-nonrecursive": // what bind-recursive=disabled was called before Docker 25
		return on(&o.NonRecursive)
	case "bind-create-src":
		return on(&o.CreateMountpoint)
	case "bind-propagation":
		o.Propagation = strings.ToLower(value)
		if !slices.Contains(propagations, o.Propagation) {
			return &fault.Field{Given: field, Expected: "one of " + strings.Join(propagations, ", "), Nearest: fault.Nearest(value, propagations)}
		}
	case "bind-recursive":
		switch value {
		case "enabled":
		case "disabled":
			o.NonRecursive = true
		case "writable":
			o.ReadOnlyNonRecursive = true
		case "readonly":
			o.ReadOnlyForceRecursive = true
		default:
			return &fault.Field{Given: field, Expected: "enabled, disabled, writable or readonly"}
		}
	}
	return nil
}

func setVolumeOption(m *wire.MountSpec, key, value string, on func(*bool) error) error {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &wire.MountVolumeOptions{}
	}
	o := m.VolumeOptions
	if o.DriverConfig == nil && (key == "volume-driver" || key == "volume-opt") {
		o.DriverConfig = &wire.VolumeDriver{}
	}
	name, text, _ := strings.Cut(value, "=")
	switch key {
	case "volume-nocopy":
		return on(&o.NoCopy)
	case "volume-subpath":
		o.Subpath = value
	case "volume-driver":
		o.DriverConfig.Name = value
	case "volume-label":
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[name] = text
	case "volume-opt":
		if o.DriverConfig.Options == nil {
			o.DriverConfig.Options = map[string]string{}
		}
		o.DriverConfig.Options[name] = text
	}
	return nil
}

func setTmpfsOption(m *wire.MountSpec, key, field, value string) error {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &wire.MountTmpfsOptions{}
	}
	if key == "tmpfs-size" {
		n, err := cli.ParseBytes(value)
		if err != nil {
			return &fault.Field{Given: field, Expected: "a size such as 512m or 2g after the ="}
		}
		m.TmpfsOptions.SizeBytes = n
		return nil
	}
	mode, err := strconv.ParseUint(value, 8, 12)
	if err != nil {
		return &fault.Field{Given: field, Expected: "a mode in octal such as 1777"}
	}
	m.TmpfsOptions.Mode = uint32(mode)
	return nil
}

// checkMount refuses options of another type than the mount's, and what cannot go together.
func checkMount(given string, m *wire.MountSpec) error {
	bad := func(expected string) error { return &fault.Field{Given: given, Expected: expected} }
	types := []string{"bind", "volume", "tmpfs", "image"}
	switch {
	case !slices.Contains(types, m.Type):
		return &fault.Field{Given: given, Expected: "type=bind, type=volume, type=tmpfs or type=image", Nearest: fault.Nearest(m.Type, types)}
	case m.Target == "":
		return bad("target=PATH")
	case !path.IsAbs(m.Target):
		return bad("an absolute path as target")
	case m.BindOptions != nil && m.Type != "bind":
		return bad("bind-* options only with type=bind")
	case m.VolumeOptions != nil && m.Type != "volume":
		return bad("volume-* options only with type=volume")
	case m.TmpfsOptions != nil && m.Type != "tmpfs":
		return bad("tmpfs-* options only with type=tmpfs")
	case m.ImageOptions != nil && m.Type != "image":
		return bad("image-* options only with type=image")
	case m.Type == "image" && m.Source == "":
		return bad("source=IMAGE with type=image")
	case m.Type == "bind" && m.Source == "":
		return bad("source=PATH with type=bind")
	case m.Type == "bind" && !path.IsAbs(m.Source):
		return bad("an absolute host path, or one that begins with a dot, as source")
	case m.Type == "tmpfs" && m.Source != "":
		return bad("no source with type=tmpfs")
	}
	if o := m.BindOptions; o != nil && (o.ReadOnlyNonRecursive || o.ReadOnlyForceRecursive) && !m.ReadOnly {
		return bad("readonly beside bind-recursive=writable and bind-recursive=readonly")
	}
	if o := m.BindOptions; o != nil && o.ReadOnlyForceRecursive && o.Propagation != "rprivate" {
		return bad("bind-propagation=rprivate beside bind-recursive=readonly")
	}
	return nil
}
