package container

import (
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestStorageOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		given  map[string]string
		daemon uint64
		limits bool
		want   uint64
		err    string
	}{
		{name: "none", limits: true},
		{name: "a size", given: map[string]string{"size": "10m"}, limits: true, want: 10 << 20},
		{name: "the daemon's", daemon: 5, limits: true, want: 5},
		{name: "its own over the daemon's", given: map[string]string{"Size": "1g"}, daemon: 5, limits: true, want: 1 << 30},
		{name: "none over the daemon's", given: map[string]string{"size": "0"}, daemon: 5, limits: true},
		{name: "no limits here", given: map[string]string{"size": "10m"}, err: "no limits here"},
		{name: "no size", given: map[string]string{"size": "1x"}, limits: true, err: "invalid size: '1x'"},
		{name: "negative", given: map[string]string{"size": "-1"}, limits: true, err: "invalid size: '-1'"},
		{name: "another", given: map[string]string{"nosuch": "1"}, err: "Unknown option nosuch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.o.StorageSize = c.daemon
			if c.limits {
				h.layers.limits = map[string]uint64{}
			}
			made, err := h.Create(t.Context(), "", "", wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox", Cmd: []string{"x"}},
				HostConfig: &wire.HostConfig{StorageOpt: c.given}})
			if c.err != "" {
				if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, expected %q", err, c.err)
				}
				return
			}
			if err != nil || h.layers.limits[made.ID] != c.want {
				t.Errorf("limit %d, %v; expected %d", h.layers.limits[made.ID], err, c.want)
			}
		})
	}
}
