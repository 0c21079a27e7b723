package task

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/enginetest"
)

// sweeper is an engine of which only what sweeping needs is called.
type sweeper struct{ *enginetest.Engine }

func (sweeper) ContainerAttach(context.Context, string, client.AttachOptions) (*client.Hijacked, error) {
	panic("not swept")
}
func (sweeper) ContainerWait(context.Context, string, string) (func() (wire.WaitResponse, error), error) {
	panic("not swept")
}
func (sweeper) ExecCreate(context.Context, string, wire.ExecConfig) (string, error) {
	panic("not swept")
}
func (sweeper) ExecAttach(context.Context, string, wire.ExecStart) (*client.Hijacked, error) {
	panic("not swept")
}
func (sweeper) ExecInspect(context.Context, string) (wire.ExecInspect, error) { panic("not swept") }
func (sweeper) CopyFrom(context.Context, string, string) (io.ReadCloser, wire.PathStat, error) {
	panic("not swept")
}
func (sweeper) CopyTo(context.Context, string, string, io.Reader, client.CopyOptions) error {
	panic("not swept")
}

func TestGone(t *testing.T) {
	self := owner()
	if self == "" {
		t.Fatal("this process has no owner's name")
	}
	parts := strings.Split(self, ":")
	with := func(pid, start string) string { return strings.Join([]string{parts[0], parts[1], pid, start}, ":") }
	for value, want := range map[string]bool{
		self:                              false,
		with(parts[2], "1"):               true, // the number is another process's now
		with("4194305", "1"):              true, // above the kernel's PID_MAX_LIMIT
		with("1/../self", "1"):            false,
		with("", "1"):                     false,
		"other-boot:" + parts[1] + ":1:1": false,
		parts[0] + ":1:4194305:1":         false, // another PID namespace
		"":                                false,
		parts[0] + ":" + parts[1]:         false,
	} {
		if got := gone(value); got != want {
			t.Errorf("gone(%q) = %v", value, got)
		}
	}
}

func TestSweep(t *testing.T) {
	e := &enginetest.Engine{}
	e.AddImage("busybox:latest")
	parts := strings.Split(owner(), ":")
	for name, value := range map[string]string{"left": parts[0] + ":" + parts[1] + ":4194305:1", "mine": owner(), "foreign": "b:1:1:1"} {
		labels := map[string]string{LabelOwner: value}
		if _, err := e.ContainerCreate(t.Context(), name, "", wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox:latest", Labels: labels}, HostConfig: &wire.HostConfig{}}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.NetworkCreate(t.Context(), wire.NetworkCreateRequest{Name: name, Labels: labels}); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	r := &runner{engine: sweeper{e}, owner: owner(), o: Options{Stderr: &said}}
	r.sweep(t.Context())
	if want := "removed what killed scripts left: 1 containers, 1 networks\n"; said.String() != want {
		t.Errorf("%q, want %q", said.String(), want)
	}
	for name, want := range map[string]bool{"left": false, "mine": true, "foreign": true} {
		_, err := e.NetworkInspect(t.Context(), name)
		if there := e.Container(name) != nil; there != want || (err == nil) != want {
			t.Errorf("%s: container %v, network %v", name, there, err)
		}
	}
}
