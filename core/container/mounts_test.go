package container

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func TestParseBind(t *testing.T) {
	for _, c := range []struct {
		given string
		want  mountPoint
		err   string
	}{
		{given: "/host:/in", want: mountPoint{Type: "bind", Source: "/host", Destination: "/in", RW: true, Propagation: "rprivate", CreateSource: true}},
		{given: "/host/../x:/in/:ro,rslave", want: mountPoint{Type: "bind", Source: "/x", Destination: "/in", Mode: "ro,rslave", Propagation: "rslave", CreateSource: true}},
		{given: "data:/in", want: mountPoint{Type: "volume", Name: "data", Destination: "/in", Mode: "z", RW: true, CreateSource: true}},
		{given: "data:/in:nocopy", want: mountPoint{Type: "volume", Name: "data", Destination: "/in", Mode: "nocopy", RW: true, NoCopy: true, CreateSource: true}},
		{given: "/host:in", err: "mount path must be absolute"},
		{given: "/host:/", err: "destination can't be '/'"},
		{given: "/a:/b:ro,rw", err: "invalid mode: ro,rw"},
		{given: "a/b:/c", err: "includes invalid characters for a local volume name"},
		{given: "a:b:c:d", err: "invalid volume specification"},
	} {
		got, err := parseBind(c.given)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.given, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.given, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.given, diff)
		}
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"A=1", "PATH=/bin", "GONE", "A=2"}, "host", "/home/x", true)
	if diff := cmp.Diff([]string{"PATH=/bin", "HOSTNAME=host", "TERM=xterm", "A=2", "HOME=/home/x"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMerge(t *testing.T) {
	image := wire.ContainerConfig{Cmd: []string{"image"}, Entrypoint: []string{"enter"}, Env: []string{"A=image", "B=image"}, User: "u", WorkingDir: "/w", Labels: map[string]string{"l": "image"}}
	for _, c := range []struct {
		name string
		own  wire.ContainerConfig
		want []string // entrypoint and command
	}{
		{"nothing", wire.ContainerConfig{}, []string{"enter", "image"}},
		{"command", wire.ContainerConfig{Cmd: []string{"own"}}, []string{"enter", "own"}},
		{"entrypoint", wire.ContainerConfig{Entrypoint: []string{"own"}}, []string{"own"}},
		{"none", wire.ContainerConfig{Entrypoint: []string{""}, Cmd: []string{"own"}}, []string{"own"}},
	} {
		merge(&c.own, &image)
		if diff := cmp.Diff(c.want, append(append([]string{}, c.own.Entrypoint...), c.own.Cmd...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestProcessTable(t *testing.T) {
	out := "UID PID CMD\nroot 12 sleep 1000 x\nroot 13 other\n"
	got, err := processTable(out, []int{12})
	want := wire.TopResponse{Titles: []string{"UID", "PID", "CMD"}, Processes: [][]string{{"root", "12", "sleep 1000 x"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := processTable("USER CMD\n", nil); err == nil {
		t.Error("output without PID is taken")
	}
}
