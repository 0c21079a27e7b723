package spec

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/container/apparmor"
	"github.com/sampan-project/sampan/core/wire"
)

func joining(t *testing.T, h wire.HostConfig, paths map[specs.LinuxNamespaceType]string) *specs.Spec {
	t.Helper()
	if err := Validate(&wire.ContainerConfig{}, &h); err != nil {
		t.Fatal(err)
	}
	s, err := Build(Input{ID: "abc", Config: &wire.ContainerConfig{}, Host: &h, Args: []string{"sh"}, Cwd: "/", JoinPaths: paths, AppArmor: apparmor.Profile})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mountAt(s *specs.Spec, destination string) *specs.Mount {
	if i := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == destination }); i >= 0 {
		return &s.Mounts[i]
	}
	return nil
}

func pathOf(s *specs.Spec, kind specs.LinuxNamespaceType) (string, bool) {
	for _, n := range s.Linux.Namespaces {
		if n.Type == kind {
			return n.Path, true
		}
	}
	return "", false
}

func TestIpcModes(t *testing.T) {
	donor := map[specs.LinuxNamespaceType]string{specs.IPCNamespace: "/proc/7/ns/ipc"}
	for _, k := range []struct {
		mode, path, shm string
		own             bool
		paths           map[specs.LinuxNamespaceType]string
	}{
		{"", "", "shm", true, nil},
		{"private", "", "shm", true, nil},
		{"shareable", "", "shm", true, nil},
		{"none", "", "", true, nil},
		{"host", "", "/dev/shm", false, nil},
		{"container:donor", "/proc/7/ns/ipc", "/proc/7/root/dev/shm", true, donor},
	} {
		s := joining(t, wire.HostConfig{IpcMode: k.mode}, k.paths)
		if path, own := pathOf(s, specs.IPCNamespace); path != k.path || own != k.own {
			t.Errorf("%q: namespace %q %v, want %q %v", k.mode, path, own, k.path, k.own)
		}
		shm := ""
		if m := mountAt(s, "/dev/shm"); m != nil {
			shm = m.Source
		}
		if shm != k.shm {
			t.Errorf("%q: /dev/shm is %q, want %q", k.mode, shm, k.shm)
		}
	}
	in := Input{Config: &wire.ContainerConfig{}, Host: &wire.HostConfig{IpcMode: "container:gone"}, Args: []string{"sh"}}
	if _, err := Build(in); err == nil {
		t.Error("a namespace that nobody has found is joined")
	}
}

func TestUserNamespace(t *testing.T) {
	user := map[specs.LinuxNamespaceType]string{specs.UserNamespace: "/proc/7/fd/8"}
	s := joining(t, wire.HostConfig{}, user)
	if path, ok := pathOf(s, specs.UserNamespace); !ok || path != "/proc/7/fd/8" {
		t.Errorf("user namespace %q %v", path, ok)
	}
	// Groups that the namespace does not map cannot be written there.
	if _, set := s.Linux.Sysctl["net.ipv4.ping_group_range"]; set {
		t.Errorf("sysctls %v", s.Linux.Sysctl)
	}
	if _, ok := pathOf(joining(t, wire.HostConfig{}, nil), specs.UserNamespace); ok {
		t.Error("a user namespace that nobody asked for")
	}
}

func TestOOMScore(t *testing.T) {
	want := max(0, ownOOMScore())
	if score := joining(t, wire.HostConfig{}, nil).Process.OOMScoreAdj; score == nil || *score != want {
		t.Errorf("got %v, want %d: the daemon's is not to be inherited", score, want)
	}
	if score := joining(t, wire.HostConfig{OomScoreAdj: 5}, nil).Process.OOMScoreAdj; score == nil || *score != 5 {
		t.Errorf("got %v, want 5", score)
	}
}

func TestAppArmorProfile(t *testing.T) {
	on := apparmor.Enabled()
	for _, k := range []struct {
		h    wire.HostConfig
		want string
	}{
		{wire.HostConfig{}, apparmor.Profile},
		{wire.HostConfig{Privileged: true}, apparmor.Unconfined},
		{wire.HostConfig{SecurityOpt: []string{"apparmor=unconfined"}}, apparmor.Unconfined},
		{wire.HostConfig{SecurityOpt: []string{"apparmor:mine"}, Privileged: true}, "mine"},
	} {
		want := k.want
		if !on {
			want = "" // nothing is asked of a kernel that has no profiles
		}
		if on || !slices.Contains(k.h.SecurityOpt, "apparmor:mine") {
			if got := AppArmorProfile(&k.h, apparmor.Profile); got != want {
				t.Errorf("%+v: %q, want %q", k.h.SecurityOpt, got, want)
			}
		}
	}
	h := wire.HostConfig{}
	p, err := ExecProcess(&h, Exec{Args: []string{"sh"}, AppArmor: apparmor.Profile, Privileged: true})
	if err != nil {
		t.Fatal(err)
	}
	if on && p.ApparmorProfile != apparmor.Unconfined || !on && p.ApparmorProfile != "" {
		t.Errorf("exec --privileged has %q", p.ApparmorProfile)
	}
}
