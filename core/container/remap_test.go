package container

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/wire"
)

func remapped() *userns.Remap {
	ids := []linux.IDMapping{{Inside: 0, Outside: 100000, Size: 65536}}
	return &userns.Remap{Name: "root", UIDs: ids, GIDs: ids}
}

// TestUsernsRefused has dockerd's incompatibilities, and what --userns host makes of them.
func TestUsernsRefused(t *testing.T) {
	h := newHouse(t)
	for _, k := range []struct {
		remap bool
		host  wire.HostConfig
		want  string // "" for no error
	}{
		{true, wire.HostConfig{}, ""},
		{true, wire.HostConfig{Privileged: true}, "privileged mode is incompatible with user namespaces"},
		{true, wire.HostConfig{PidMode: "host"}, "cannot share the host PID namespace"},
		{true, wire.HostConfig{NetworkMode: "host"}, "cannot share the host's network namespace"},
		{true, wire.HostConfig{UsernsMode: "host", Privileged: true, PidMode: "host", NetworkMode: "host"}, ""},
		{true, wire.HostConfig{UsernsMode: "root"}, `--userns "root"`},
		{false, wire.HostConfig{Privileged: true, PidMode: "host", NetworkMode: "host"}, ""},
		{false, wire.HostConfig{UsernsMode: "host"}, ""},
	} {
		h.o.Remap = nil
		if k.remap {
			h.o.Remap = remapped()
		}
		err := h.validateUserns(&record{Host: k.host})
		if k.want == "" && err != nil || k.want != "" && (err == nil || !strings.Contains(err.Error(), k.want)) {
			t.Errorf("remap %v, %+v: %v, want %q", k.remap, k.host.UsernsMode, err, k.want)
		}
	}
}

// TestUserNamespaceOf: a container that shares a namespace is in the other's user namespace.
func TestUserNamespaceOf(t *testing.T) {
	h := newHouse(t)
	other := h.runs(t, "other", nil)
	c, err := h.find(other)
	if err != nil {
		t.Fatal(err)
	}
	if ns, err := h.userNamespace(&wire.HostConfig{}); ns != nil || err != nil {
		t.Errorf("without a mapping: %v, %v", ns, err)
	}
	h.o.Remap = remapped()
	if ns, err := h.userNamespace(&wire.HostConfig{UsernsMode: "host"}); ns != nil || err != nil {
		t.Errorf("--userns host: %v, %v", ns, err)
	}
	c.mu.Lock()
	c.state.Pid = os.Getpid() // a process in the host's user namespace
	c.mu.Unlock()
	for _, host := range []wire.HostConfig{{PidMode: "container:" + other}, {IpcMode: "container:" + other}, {NetworkMode: "container:" + other}} {
		if _, err := h.userNamespace(&host); err == nil || !strings.Contains(err.Error(), "expected --userns host") {
			t.Errorf("%+v: %v", host.PidMode+host.IpcMode+host.NetworkMode, err)
		}
	}
}

// TestJoinIPC: only what is shareable is shared, and only while it runs.
func TestJoinIPC(t *testing.T) {
	h := newHouse(t)
	private := h.runs(t, "private", nil)
	shareable := h.runs(t, "shareable", func(r *wire.ContainerCreateRequest) { r.HostConfig.IpcMode = "shareable" })
	if _, err := h.joinPaths(&wire.HostConfig{IpcMode: "container:" + private}); err == nil || !strings.Contains(err.Error(), "non-shareable IPC") {
		t.Errorf("private: %v", err)
	}
	c, err := h.find(shareable)
	if err != nil {
		t.Fatal(err)
	}
	_, st := c.snapshot()
	paths, err := h.joinPaths(&wire.HostConfig{IpcMode: "container:" + shareable})
	if want := fmt.Sprintf("/proc/%d/ns/ipc", st.Pid); err != nil || paths["ipc"] != want {
		t.Errorf("shareable: %v, %v, want %s", paths, err, want)
	}
	c.mu.Lock()
	c.state.Phase = exited
	c.mu.Unlock()
	if _, err := h.joinPaths(&wire.HostConfig{IpcMode: "container:" + shareable}); err == nil || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("ended: %v", err)
	}
}
