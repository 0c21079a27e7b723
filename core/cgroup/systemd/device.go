package systemd

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
)

// deviceAllow is an element of DeviceAllow, (ss).
type deviceAllow struct{ Path, Access string }

// devices translates device rules. systemd knows lists of what is allowed, by number or by all of a
// kind. Our own rules on the files hold beside its; and where they have more to say than systemd
// understands, they hold alone:
//
//   - v2: systemd is told to allow all, so that its program is not there. Ours is not systemd's, and stays
//     when it is reloaded.
//   - v1: both write the same file, and a reload of systemd takes ours away. It is told what it understands and
//     to deny the rest, so that a reload never allows more.
func (t *translation) devices(rules []specs.LinuxDeviceCgroup) {
	list, all, ok, err := cgroup.AllowedDevices(rules)
	if err != nil {
		t.fail(err)
		return
	}
	allowed := []deviceAllow{}
	for _, d := range list {
		path := t.devicePath(d)
		if path == "" {
			ok = false
			continue
		}
		allowed = append(allowed, deviceAllow{path, d.Access})
	}
	policy := "strict"
	if all || !ok && t.Unified {
		policy, allowed = "auto", nil
	}
	// An empty list takes away what was there before; others are added to it.
	t.put("DeviceAllow", []deviceAllow{})
	t.put("DevicePolicy", policy)
	if len(allowed) > 0 {
		t.put("DeviceAllow", allowed)
	}
}

// devicePath names devices; "" when there are no words for them.
func (t *translation) devicePath(d cgroup.Device) string {
	kind := map[byte]string{'b': "block", 'c': "char"}[d.Type]
	switch {
	case d.Major < 0 && d.Minor < 0:
		return kind + "-*"
	case d.Major < 0, t.Version < sinceDeviceMajor:
		return ""
	case d.Minor < 0:
		return fmt.Sprintf("%s-%d", kind, d.Major)
	}
	return fmt.Sprintf("/dev/%s/%d:%d", kind, d.Major, d.Minor)
}
