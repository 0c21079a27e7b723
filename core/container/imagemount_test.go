package container

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/wire"
)

// imageOn is a mount of the only image that there is.
func imageOn(target, subpath string) func(*wire.ContainerCreateRequest) {
	return func(r *wire.ContainerCreateRequest) {
		r.HostConfig.Mounts = []wire.MountSpec{
			{Type: "tmpfs", Target: "/t"},
			{Type: "image", Source: "busybox", Target: target, ImageOptions: &wire.MountImageOptions{Subpath: subpath}},
		}
	}
}

// TestImageMount follows what holds the layers of a mounted image: from the creation to the removal, over the
// daemon's death, and made again when it was lost.
func TestImageMount(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "box", imageOn("/at", "bin"))
	held := holdKey(id, 1)
	h.crash(t)
	h.open(t)
	if keys := strings.Join(h.Snapshots(), " "); keys != id+" "+held {
		t.Errorf("the snapshots to be kept are %s", keys)
	}
	if err := h.layers.Remove(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context(), id, "", nil); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := h.layers.Mounts(t.Context(), held); err != nil {
		t.Errorf("after a start with what was lost: %v", err)
	}
	if users := h.ImageUsers(digest.FromString("image").String()); len(users) != 1 || users[0] != (image.User{ContainerID: id, Running: true}) {
		t.Errorf("users of the image: %v", users)
	}
	got, err := h.Inspect(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	want := wire.MountPoint{Type: "image", Name: "busybox", Destination: "/at", Propagation: "rprivate"}
	if len(got.Mounts) != 2 || got.Mounts[1] != want {
		t.Errorf("mounts %+v, expected %+v", got.Mounts, want)
	}
	if err := h.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if n := h.layers.count(); n != 0 {
		t.Errorf("%d snapshots are left after the removal", n)
	}
}

func TestImageMountRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		mount wire.MountSpec
		err   string
	}{
		{"no source", wire.MountSpec{Type: "image", Target: "/x"}, "field Source must not be empty"},
		{"no image", wire.MountSpec{Type: "image", Source: "nosuch", Target: "/x"}, "No such image: nosuch:latest"},
		{"outside", wire.MountSpec{Type: "image", Source: "busybox", Target: "/x", ImageOptions: &wire.MountImageOptions{Subpath: "a/../../b"}}, "relative path within the image"},
		{"another's options", wire.MountSpec{Type: "image", Source: "busybox", Target: "/x", TmpfsOptions: &wire.MountTmpfsOptions{}}, "field TmpfsOptions must not be specified"},
		{"options of another", wire.MountSpec{Type: "volume", Target: "/x", ImageOptions: &wire.MountImageOptions{}}, "field ImageOptions must not be specified"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			_, err := h.Create(t.Context(), "", "", wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox", Cmd: []string{"x"}},
				HostConfig: &wire.HostConfig{Mounts: []wire.MountSpec{c.mount}}})
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, expected %q, of the class invalid", err, c.err)
			}
			if n := h.layers.count(); n != 0 {
				t.Errorf("%d snapshots are left", n)
			}
		})
	}
}

// TestImageMountParts is about a part of the image that is not there: the container can be made, and not started.
func TestImageMountParts(t *testing.T) {
	h := newHouse(t)
	req := wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox", Cmd: []string{"x"}}, HostConfig: &wire.HostConfig{}}
	imageOn("/at", "nosuch")(&req)
	made, err := h.Create(t.Context(), "", "", req)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.find(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.imageMounts(t.Context(), &c.rec); err == nil || !strings.Contains(err.Error(), `mount image busybox on /at: path "nosuch"`) {
		t.Errorf("%v", err)
	}
}

func TestUncovered(t *testing.T) {
	at := func(kind, target string) mountPoint { return mountPoint{Type: kind, Destination: target} }
	for _, c := range []struct {
		points []mountPoint
		over   string // what covers
	}{
		{[]mountPoint{at("image", "/a/b"), at("volume", "/ab"), at("tmpfs", "/a/b/c"), at("image", "/a")}, ""},
		{[]mountPoint{at("image", "/a/b"), at("volume", "/a")}, "/a"},
		{[]mountPoint{at("image", "/dev/x")}, "/dev"},
	} {
		err := uncovered(c.points)
		if (err == nil) != (c.over == "") || err != nil && (!fault.Is(err, fault.NotImplemented) || !strings.HasSuffix(err.Error(), " "+c.over)) {
			t.Errorf("%v: %v, expected %q to be in the way", c.points, err, c.over)
		}
	}
}
