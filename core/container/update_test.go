package container

import (
	"slices"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/wire"
)

// TestUpdateConflict is about what an update may not say, as something else was said before.
func TestUpdateConflict(t *testing.T) {
	resources := func(set func(*wire.Resources)) wire.Resources {
		var r wire.Resources
		set(&r)
		return r
	}
	for _, c := range []struct {
		name   string
		host   wire.HostConfig
		update wire.UpdateRequest
		want   string
	}{
		{"nothing", wire.HostConfig{}, wire.UpdateRequest{}, ""},
		{
			"a quota beside CPUs", wire.HostConfig{Resources: resources(func(r *wire.Resources) { r.NanoCPUs = 1e9 })},
			wire.UpdateRequest{Resources: resources(func(r *wire.Resources) { r.CPUQuota = 5000 })},
			"Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
		},
		{
			"CPUs beside a period", wire.HostConfig{Resources: resources(func(r *wire.Resources) { r.CPUPeriod = 5000 })},
			wire.UpdateRequest{Resources: resources(func(r *wire.Resources) { r.NanoCPUs = 1e9 })},
			"Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
		},
		{
			"memory above the swap that was asked for", wire.HostConfig{Resources: resources(func(r *wire.Resources) { r.Memory, r.MemorySwap = 64<<20, 96<<20 })},
			wire.UpdateRequest{Resources: resources(func(r *wire.Resources) { r.Memory = 128 << 20 })},
			"Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
		},
		{
			"memory above the swap that follows it", wire.HostConfig{Resources: resources(func(r *wire.Resources) { r.Memory, r.MemorySwap = 64<<20, 128<<20 })},
			wire.UpdateRequest{Resources: resources(func(r *wire.Resources) { r.Memory = 256 << 20 })}, "",
		},
		{
			"a policy beside --rm", wire.HostConfig{AutoRemove: true}, wire.UpdateRequest{RestartPolicy: wire.RestartPolicy{Name: "always"}},
			"Restart policy cannot be updated because AutoRemove is enabled for the container",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := updateConflict(&c.host, &c.update); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("updateConflict: got %q, want %q", got, c.want)
			}
		})
	}
}

// TestUpdateSwap: swap that an update sets alone is compared with the memory that the container has.
func TestUpdateSwap(t *testing.T) {
	for _, c := range []struct {
		name              string
		memory, swap, set int64
		want              string
	}{
		{"above the memory", 50 << 20, 100 << 20, 80 << 20, ""},
		{"without a limit", 50 << 20, 100 << 20, -1, ""},
		{"below the memory", 50 << 20, 100 << 20, 40 << 20, "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{"no memory", 0, 0, 80 << 20, "You should always set the Memory limit when using Memoryswap limit, see usage"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := wire.HostConfig{Resources: wire.Resources{Memory: c.memory, MemorySwap: c.swap}}
			update := wire.UpdateRequest{Resources: wire.Resources{MemorySwap: c.set}}
			if err := updateConflict(&host, &update); err != nil {
				t.Fatal(err)
			}
			overResources(&host.Resources, &update.Resources)
			got := ""
			if err := spec.ValidateResources(&host.Resources); err != nil {
				got = err.Error()
			}
			if got != c.want || host.Memory != c.memory || host.MemorySwap != c.set {
				t.Errorf("--memory-swap %d beside --memory %d: got %d and %d, error %q, want %q", c.set, c.memory, host.Memory, host.MemorySwap, got, c.want)
			}
		})
	}
}

// TestArchiveName: a client that asked for "DIR/." puts its own name in place of the dot.
func TestArchiveName(t *testing.T) {
	for given, want := range map[string]string{"/etc": "etc", "/etc/": "etc", "etc/.": ".", "/etc/passwd": "passwd", "/": "/", "/.": "/"} {
		if got := archiveName(given); got != want {
			t.Errorf("archiveName(%q): got %q, want %q", given, got, want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for _, given := range []string{"NOSUCH", "0", "65", "-1"} {
		if sig, err := parseSignal(given); err == nil {
			t.Errorf("parseSignal(%q): got %d, want an error", given, sig)
		}
	}
	for _, given := range []string{"9", "KILL", "SIGKILL", "64", "RTMAX"} {
		if _, err := parseSignal(given); err != nil {
			t.Errorf("parseSignal(%q): %v", given, err)
		}
	}
}

// What an update does not change is told, unless it is so already, as with a client that sends back what it was shown.
func TestUpdateTellsWhatItLeaves(t *testing.T) {
	few, yes := int64(10), true
	ulimits := []wire.Ulimit{{Name: "nofile", Soft: 1024, Hard: 1024}}
	for _, c := range []struct {
		name         string
		have, update wire.Resources
		want         []string
	}{
		{"nothing", wire.Resources{Ulimits: ulimits}, wire.Resources{Devices: []wire.DeviceMapping{}}, nil},
		{
			"all that can be changed", wire.Resources{Memory: 1 << 20, MemorySwap: 2 << 20},
			wire.Resources{
				CPUShares: 2, NanoCPUs: 3, CPUPeriod: 4, CPUQuota: 5, CPURealtimePeriod: 6, CPURealtimeRuntime: 7, CpusetCpus: "0", CpusetMems: "0",
				BlkioWeight: 10, MemoryReservation: 1 << 20, Memory: 8 << 20, MemorySwap: -1, PidsLimit: &few,
			}, nil,
		},
		{"what is so already", wire.Resources{Ulimits: ulimits, OomKillDisable: &yes}, wire.Resources{Ulimits: slices.Clone(ulimits), OomKillDisable: &yes}, nil},
		{
			"what cannot be changed", wire.Resources{CgroupParent: "/a"},
			wire.Resources{CgroupParent: "/b", BlkioDeviceReadBps: []wire.ThrottleDevice{{Path: "/dev/x", Rate: 1}}, Ulimits: ulimits, CPUShares: 5},
			[]string{"CgroupParent", "BlkioDeviceReadBps", "Ulimits"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			overResources(&c.have, &c.update)
			if got := unchanged(&c.have, &c.update); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	h := newHouse(t)
	c := h.made(t, "web", nil)
	got, err := h.Update(t.Context(), c.id, wire.UpdateRequest{Resources: wire.Resources{Ulimits: ulimits}})
	if err != nil || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "Ulimits") {
		t.Errorf("got %q, %v", got.Warnings, err)
	}
}
