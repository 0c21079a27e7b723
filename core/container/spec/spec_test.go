package spec

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/wire"
)

func built(t *testing.T, h wire.HostConfig) *specs.Spec {
	t.Helper()
	s, err := Build(Input{ID: "abc", Config: &wire.ContainerConfig{}, Host: &h, Args: []string{"sh"}, Cwd: "/", CgroupParent: "/sampan/"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaults(t *testing.T) {
	s := built(t, wire.HostConfig{MaskedPaths: DefaultMaskedPaths(), ReadonlyPaths: DefaultReadonlyPaths})
	if s.Linux.CgroupsPath != "/sampan/abc" {
		t.Errorf("cgroup %s", s.Linux.CgroupsPath)
	}
	if n := len(s.Process.Capabilities.Bounding); n > len(defaultCapabilities) {
		t.Errorf("%d capabilities, want at most %d", n, len(defaultCapabilities))
	}
	if s.Linux.Seccomp == nil || !slices.Contains(s.Linux.MaskedPaths, "/proc/kcore") {
		t.Error("no seccomp profile, or /proc/kcore is not masked")
	}
	if r := s.Linux.Resources.Devices; len(r) == 0 || r[0].Allow {
		t.Errorf("device rules %v, want one first that denies all", r)
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.NetworkNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind && n.Path == "" }) {
			t.Errorf("no %s namespace of its own", kind)
		}
	}
}

func TestPrivileged(t *testing.T) {
	s := built(t, wire.HostConfig{Privileged: true})
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths) > 0 || len(s.Process.Capabilities.Effective) != len(hostCapabilities()) {
		t.Errorf("seccomp %v, masked %v, %d capabilities", s.Linux.Seccomp, s.Linux.MaskedPaths, len(s.Process.Capabilities.Effective))
	}
}

func TestValidateRefuses(t *testing.T) {
	for want, h := range map[string]wire.HostConfig{
		`--cap-add "NET_ADMN"`: {CapAdd: []string{"NET_ADMN"}},
		"--gpus":               {Resources: wire.Resources{DeviceRequests: []wire.DeviceRequest{{}}}},
		"--security-opt":       {SecurityOpt: []string{"sekkomp=x"}},
		`sysctl "vm.overcommit_memory" is not in a separate kernel namespace`: {Sysctls: map[string]string{"vm.overcommit_memory": "1"}},
		"sysctl":   {NetworkMode: "host", Sysctls: map[string]string{"net.core.somaxconn": "1"}},
		"--ulimit": {Resources: wire.Resources{Ulimits: []wire.Ulimit{{Name: "nofiles", Soft: 1, Hard: 1}}}},
		"--pid":    {PidMode: "hots"},
	} {
		if err := Validate(&wire.ContainerConfig{}, &h); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestCgroupParent(t *testing.T) {
	for _, c := range []struct {
		parent    string
		bySystemd bool
		want      string // "" is no error
	}{
		{"", false, ""}, {"", true, ""}, {"/batch", false, ""}, {"batch/night", false, ""}, {"batch.slice", true, ""}, {"a-b.slice", true, ""},
		{"/../x", false, `--cgroup-parent "/../x"`}, {"batch.slice", false, "native.cgroupdriver=systemd"},
		{"/batch", true, "valid slice"}, {"a--b.slice", true, "valid slice"}, {"a:b.slice", true, "valid slice"}, {"a/b.slice", true, "valid slice"}, {".slice", true, "valid slice"},
	} {
		err := ValidateCgroupParent(c.parent, c.bySystemd)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, systemd %t: %v, want %q", c.parent, c.bySystemd, err, c.want)
		}
	}
	s, err := Build(Input{ID: "abc", Config: &wire.ContainerConfig{}, Host: &wire.HostConfig{}, Args: []string{"sh"}, Cwd: "/", CgroupParent: "a-b.slice", SystemdCgroup: true})
	if err != nil || s.Linux.CgroupsPath != "a-b.slice:sampan:abc" {
		t.Errorf("cgroup %v, %v", s, err)
	}
}

func TestArgs(t *testing.T) {
	if _, err := Args(&wire.ContainerConfig{}); err == nil || err.Error() != "no command specified" {
		t.Errorf("got %v", err)
	}
	got, err := Args(&wire.ContainerConfig{Entrypoint: []string{"a"}, Cmd: []string{"b", "c"}})
	if err != nil || !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDefaultCgroupns(t *testing.T) {
	for _, c := range []struct {
		configured     string
		privileged, v2 bool
		want           string
	}{
		{"", false, true, "private"}, {"", true, true, "private"}, {"host", false, true, "host"}, {"host", true, true, "host"},
		{"", false, false, "host"}, {"", true, false, "host"}, {"private", false, false, "private"}, {"private", true, false, "host"},
	} {
		if got := DefaultCgroupns(c.configured, c.privileged, c.v2); got != c.want {
			t.Errorf("configured %q, privileged %v, v2 %v: %s, expected %s", c.configured, c.privileged, c.v2, got, c.want)
		}
	}
}

// TestShares is about v1's bounds: a kernel with v2 alone has others, to which all shares are translated.
func TestShares(t *testing.T) {
	for shares, want := range map[int64]string{0: "", 2: "", 262144: "", 1: "the minimum allowed cpu-shares is 2", 262145: "the maximum allowed cpu-shares is 262144"} {
		h := wire.HostConfig{Resources: wire.Resources{CPUShares: shares}}
		if err := ValidateResources(&h.Resources); err != nil {
			t.Errorf("%d shares cannot be asked for: %v", shares, err)
		}
		if CgroupV2() {
			want = ""
		}
		if _, err := Resources(&h); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d shares: %v, expected %q", shares, err, want)
		}
	}
}
