package container

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// deviceMappings parses --device values: HOST[:CONTAINER][:rwm].
func deviceMappings(specs []string) ([]wire.DeviceMapping, error) {
	var devices []wire.DeviceMapping
	for _, spec := range specs {
		bad := &fault.Field{Field: "--device", Given: spec, Expected: "HOST_PATH[:CONTAINER_PATH][:PERMISSIONS], with permissions of r, w and m"}
		parts := strings.Split(spec, ":")
		d := wire.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
		switch {
		case len(parts) > 3:
			return nil, bad
		case len(parts) == 3:
			d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
		case len(parts) == 2 && isDeviceMode(parts[1]):
			d.CgroupPermissions = parts[1]
		case len(parts) == 2:
			d.PathInContainer = parts[1]
		}
		if !path.IsAbs(d.PathOnHost) || !path.IsAbs(d.PathInContainer) || !isDeviceMode(d.CgroupPermissions) {
			return nil, bad
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// isDeviceMode reports a word of r, w and m, each at most once.
func isDeviceMode(s string) bool {
	for i, c := range s {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(s[:i], c) {
			return false
		}
	}
	return s != ""
}

// checkDeviceRule checks --device-cgroup-rule: "TYPE MAJOR:MINOR ACCESS" of the devices cgroup
// (Documentation/admin-guide/cgroup-v1/devices.rst).
func checkDeviceRule(s string) (string, error) {
	fields := strings.Split(s, " ")
	if len(fields) == 3 {
		major, minor, ok := strings.Cut(fields[1], ":")
		if ok && slices.Contains([]string{"a", "b", "c"}, fields[0]) && isDeviceNumber(major) && isDeviceNumber(minor) && isDeviceMode(fields[2]) {
			return s, nil
		}
	}
	return "", &fault.Field{Given: s, Expected: `a rule such as "c 1:3 rwm" or "b 8:* r"`}
}

func isDeviceNumber(s string) bool {
	if s == "*" {
		return true
	}
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

// splitDevice takes DEVICE:VALUE apart.
func splitDevice(s string) (device, value string, ok bool) {
	device, value, ok = strings.Cut(s, ":")
	return device, value, ok && strings.HasPrefix(device, "/dev/")
}

// weightDevices is the flag --blkio-weight-device.
type weightDevices struct{ values []wire.WeightDevice }

func (w *weightDevices) String() string { return "" }
func (w *weightDevices) Type() string   { return "list" }
func (w *weightDevices) Set(s string) error {
	device, value, ok := splitDevice(s)
	n, err := strconv.ParseUint(value, 10, 16)
	if !ok || err != nil || n != 0 && (n < 10 || n > 1000) {
		return &fault.Field{Given: s, Expected: "DEVICE:WEIGHT such as /dev/sda:500, with a weight from 10 to 1000, or 0"}
	}
	w.values = append(w.values, wire.WeightDevice{Path: device, Weight: uint16(n)})
	return nil
}

// throttleDevices is a flag that limits a device's rate: in bytes if bytes, else in operations.
type throttleDevices struct {
	values []wire.ThrottleDevice
	bytes  bool
}

func (t *throttleDevices) String() string { return "" }
func (t *throttleDevices) Type() string   { return "list" }
func (t *throttleDevices) Set(s string) error {
	device, value, ok := splitDevice(s)
	expected := "DEVICE:RATE such as /dev/sda:1000"
	var n int64
	var err error
	if t.bytes {
		expected = "DEVICE:RATE such as /dev/sda:1mb"
		n, err = units.RAMInBytes(value)
	} else {
		n, err = strconv.ParseInt(value, 10, 64)
	}
	if !ok || err != nil || n < 0 {
		return &fault.Field{Given: s, Expected: expected}
	}
	t.values = append(t.values, wire.ThrottleDevice{Path: device, Rate: uint64(n)})
	return nil
}

// Ulimits is the flag --ulimit; the last one of a name counts.
type Ulimits struct{ Values []wire.Ulimit }

func (u *Ulimits) String() string { return "" }

// Type is the word for the value in help texts.
func (u *Ulimits) Type() string { return "ulimit" }

// Set parses one limit.
func (u *Ulimits) Set(s string) error {
	l, err := parseUlimit(s)
	if err != nil {
		return err
	}
	u.Values = slices.DeleteFunc(u.Values, func(v wire.Ulimit) bool { return v.Name == l.Name })
	u.Values = append(u.Values, l)
	return nil
}

// parseUlimit reads NAME=SOFT[:HARD]; -1 is no limit, and a hard limit that is not given is the soft one.
func parseUlimit(s string) (wire.Ulimit, error) {
	name, limits, ok := strings.Cut(s, "=")
	if !ok || name == "" || limits == "" {
		return wire.Ulimit{}, &fault.Field{Given: s, Expected: "NAME=SOFT[:HARD] such as nofile=1024:2048"}
	}
	if !slices.Contains(wire.UlimitNames, name) {
		return wire.Ulimit{}, &fault.Field{Given: s, Expected: "a name out of " + strings.Join(wire.UlimitNames, ", ") + ", not " + strconv.Quote(name),
			Nearest: fault.Nearest(name, wire.UlimitNames)}
	}
	softText, hardText, two := strings.Cut(limits, ":")
	if !two {
		hardText = softText
	}
	soft, softErr := strconv.ParseInt(softText, 10, 64)
	hard, hardErr := strconv.ParseInt(hardText, 10, 64)
	for _, limit := range []struct {
		which, text string
		wrong       bool
	}{{"soft", softText, softErr != nil || soft < -1}, {"hard", hardText, hardErr != nil || hard < -1}} {
		if limit.wrong {
			return wire.Ulimit{}, &fault.Field{Given: s, Expected: fmt.Sprintf("a number as the %s limit, or -1 for none, not %q", limit.which, limit.text)}
		}
	}
	if hard != -1 && (soft == -1 || soft > hard) {
		return wire.Ulimit{}, &fault.Field{Given: s, Expected: fmt.Sprintf("a soft limit of at most the hard one: %s is above %s", softText, hardText)}
	}
	return wire.Ulimit{Name: name, Soft: soft, Hard: hard}, nil
}
