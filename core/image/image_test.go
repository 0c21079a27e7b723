package image

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestGet(t *testing.T) {
	w := newWorld(t)
	id := w.load(t, made(t, "1"), "demo:latest", "quay.io/team/demo:v1")
	other := w.load(t, made(t, "2"), id.Encoded()[:4]+":latest") // its name is the beginning of the other's ID
	for ref, want := range map[string]digest.Digest{
		"demo": id, "demo:latest": id, "docker.io/library/demo": id, "index.docker.io/library/demo:latest": id, "quay.io/team/demo:v1": id,
		id.String(): id, id.Encoded(): id, id.Encoded()[:12]: id, id.String()[:20]: id,
		id.Encoded()[:4]: other,
	} {
		got, err := w.Get(t.Context(), ref)
		if err != nil || got.ID != want {
			t.Errorf("%s: got %v, %v", ref, got, err)
		}
	}
	for ref, want := range map[string]string{
		"nothing": "No such image: nothing:latest", "demo:3": "No such image: demo:3", "quay.io/team/demo": "No such image: quay.io/team/demo:latest",
		strings.Repeat("0", 64):                   "No such image: " + strings.Repeat("0", 64),
		"demo@" + digest.FromString("x").String(): "No such image: demo@" + digest.FromString("x").String(),
	} {
		if _, err := w.Get(t.Context(), ref); !fault.Is(err, fault.NotFound) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", ref, err, want)
		}
	}
	for _, ref := range []string{"", "UPPER", "a b", "demo:"} {
		if _, err := w.Get(t.Context(), ref); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want class invalid", ref, err)
		}
	}
}

func TestListInspectHistory(t *testing.T) {
	w := newWorld(t)
	id := w.load(t, made(t, "1"), "demo:1", "demo:2")
	w.load(t, made(t, "2"), "other:1")
	ctx := t.Context()
	for _, c := range []struct {
		filter, value string
		want          int
	}{
		{"label", "label", 2}, {"label", "label=1", 1}, {"label", "none", 0}, {"label!", "label=1", 1},
		{"reference", "demo", 1}, {"reference", "demo:2", 1}, {"reference", "*:1", 2}, {"dangling", "true", 0}, {"dangling", "false", 2},
		{"since", "demo:1", 0}, {"before", "demo:1", 0}, {"until", "1h", 2}, {"until", "2001-01-01", 0},
	} {
		list, err := w.List(ctx, ListOptions{Filters: map[string][]string{c.filter: {c.value}}})
		if err != nil || len(list) != c.want {
			t.Errorf("%s=%s: %d images, want %d, %v", c.filter, c.value, len(list), c.want, err)
		}
	}
	for filter, value := range map[string]string{"dangling": "maybe", "lable": "x", "until": "soon"} {
		if _, err := w.List(ctx, ListOptions{Filters: map[string][]string{filter: {value}}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", filter, err)
		}
	}
	list, err := w.List(ctx, ListOptions{SharedSize: true, Filters: map[string][]string{"reference": {"demo:2"}}})
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len("base/one") + len("base/two") + len("top"))
	want := []wire.ImageSummary{{ID: id.String(), RepoTags: []string{"demo:2"}, RepoDigests: []string{}, Created: stamp.Unix(), Size: size, SharedSize: size, Labels: map[string]string{"label": "1"}}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Error(diff)
	}
	if n, err := w.LayersSize(ctx); err != nil || n != size {
		t.Errorf("all layers: %d, %v", n, err)
	}
	i, err := w.Inspect(ctx, "demo:1")
	if err != nil {
		t.Fatal(err)
	}
	if i.Created != "2023-11-14T22:13:20Z" || i.GraphDriver.Data["UpperDir"] == "" || i.GraphDriver.Data["LowerDir"] == "" || i.Config.Env[0] != "A=b" || len(i.RootFS.Layers) != 2 {
		t.Errorf("inspect: %+v", i)
	}
	h, err := w.History(ctx, "demo:1")
	if err != nil {
		t.Fatal(err)
	}
	wantHistory := []wire.ImageHistory{
		{ID: id.String(), Created: stamp.Unix(), CreatedBy: "COPY top", Tags: []string{"demo:1", "demo:2"}, Size: 3},
		{ID: "<missing>", Created: stamp.Unix(), CreatedBy: "COPY base/one", Tags: []string{}, Size: 16},
	}
	if diff := cmp.Diff(wantHistory, h); diff != "" {
		t.Error(diff)
	}
}

func TestTag(t *testing.T) {
	w := newWorld(t)
	one, two := w.load(t, made(t, "1"), "one"), w.load(t, made(t, "2"), "two")
	ctx := t.Context()
	if err := w.Tag(ctx, "one", "example.com/x:1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Tag(ctx, two.Encoded()[:8], "example.com/x:1"); err != nil {
		t.Fatal(err)
	}
	w = w.reopen(t)
	for id, want := range map[digest.Digest][]string{one: {"one:latest"}, two: {"example.com/x:1", "two:latest"}} {
		i, err := w.Get(ctx, id.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, i.Names); diff != "" {
			t.Error(diff)
		}
	}
	for target, class := range map[string]fault.Class{"Bad": fault.Invalid, "x@" + one.String(): fault.Invalid, "sha256:x": fault.Invalid} {
		if err := w.Tag(ctx, "one", target); !fault.Is(err, class) {
			t.Errorf("%s: %v", target, err)
		}
	}
	if err := w.Tag(ctx, "none", "x"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// Docker's rules of rmi.
func TestRemove(t *testing.T) {
	image := made(t, "1")
	id := idOf(t, image)
	layers := func(w *world) []string {
		e := w.byID(id)
		return []string{"D " + id.String(), "D " + e.Layers[1].Chain.String(), "D " + e.Layers[0].Chain.String()}
	}
	for _, c := range []struct {
		name  string
		names []string
		users []User
		ref   string
		force bool
		want  []string // without the deletions
		gone  bool
		err   string
	}{
		{"last name", []string{"a:1"}, nil, "a:1", false, []string{"U a:1"}, true, ""},
		{"one of two names", []string{"a:1", "b:1"}, nil, "a:1", false, []string{"U a:1"}, false, ""},
		{"ID with one name", []string{"a:1"}, nil, id.Encoded()[:12], false, []string{"U a:1"}, true, ""},
		{"ID with two names", []string{"a:1", "b:1"}, nil, id.String(), false, nil, false, "conflict: unable to delete " + short(id) + " (must be forced) - image is referenced in multiple repositories"},
		{"ID with two names forced", []string{"a:1", "b:1"}, nil, id.String(), true, []string{"U a:1", "U b:1"}, true, ""},
		{"last name in use", []string{"a:1"}, []User{{"0123456789abcdef", false}}, "a:1", false, nil, false,
			`conflict: unable to remove repository reference "a:1" (must force) - container 0123456789ab is using its referenced image ` + short(id)},
		{"last name in use by a stopped one forced", []string{"a:1"}, []User{{"0123456789abcdef", false}}, "a:1", true, []string{"U a:1"}, true, ""},
		{"last name in use by a running one forced", []string{"a:1"}, []User{{"0123456789abcdef", true}}, "a:1", true, []string{"U a:1"}, false, ""},
		{"ID in use by a running one", []string{"a:1"}, []User{{"0123456789abcdef", true}}, id.String(), true, nil, false,
			"conflict: unable to delete " + short(id) + " (cannot be forced) - image is being used by running container 0123456789ab"},
		{"ID in use by a stopped one", []string{"a:1"}, []User{{"0123456789abcdef", false}}, id.String(), false, nil, false,
			"conflict: unable to delete " + short(id) + " (must be forced) - image is being used by stopped container 0123456789ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.load(t, image, c.names...)
			w.users[id.String()] = c.users
			want := c.want
			if c.gone {
				want = append(want, layers(w)...)
			}
			out, err := w.Remove(t.Context(), c.ref, c.force, false)
			if c.err != "" && (!fault.Is(err, fault.Conflict) || err.Error() != c.err) || c.err == "" && err != nil {
				t.Errorf("got error %v, want %s", err, c.err)
			}
			var got []string
			for _, o := range out {
				if o.Untagged != "" {
					got = append(got, "U "+o.Untagged)
				} else {
					got = append(got, "D "+o.Deleted)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if n := w.leftovers(t); c.gone && n != "0 0 0 0" {
				t.Errorf("left %s", n)
			}
		})
	}
}

func TestRemoveSharedAndUsedLayers(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	base := made(t, "1")
	w.load(t, base, "base:1")
	top := w.load(t, extend(t, base, "2", "more"), "top:1")
	i, err := w.Get(ctx, "top:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.o.Layers.Prepare(ctx, "box", i.ChainID); err != nil {
		t.Fatal(err)
	}
	w.users[top.String()] = []User{{"box", false}}
	if _, err := w.Remove(ctx, "top:1", true, false); err != nil {
		t.Fatal(err)
	}
	if n := len(w.o.Layers.Layers()); n != 3 {
		t.Errorf("%d layers while a container stands on them, want 3", n)
	}
	if err := w.o.Layers.Remove(ctx, "box"); err != nil {
		t.Fatal(err)
	}
	if n := len(w.o.Layers.Layers()); n != 2 {
		t.Errorf("%d layers when it is gone, want 2", n)
	}
	if _, err := w.Remove(ctx, "base:1", false, false); err != nil {
		t.Fatal(err)
	}
	if n := w.leftovers(t); n != "0 0 0 0" {
		t.Errorf("left %s", n)
	}
}

func TestCommit(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	baseID := w.load(t, made(t, "1"), "demo:1")
	base, err := w.Get(ctx, "demo:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.o.Layers.Prepare(ctx, "box", base.ChainID); err != nil {
		t.Fatal(err)
	}
	// What a container would write; the overlay itself is tested in core/layer.
	if err := os.WriteFile(filepath.Join(w.o.Layers.Paths("box")["UpperDir"], "new"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := base.ContainerConfig
	config.Cmd = []string{"/new"}
	request := CommitRequest{Base: base, SnapshotKey: "box", Config: config, Author: "me", Comment: "why", CreatedBy: "touch", Names: []string{"demo:2"}, Created: stamp}
	i, err := w.Commit(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.Commit(ctx, request)
	if err != nil || again.ID != i.ID {
		t.Errorf("the same commit gives %v, %v", again, err)
	}
	if i.Parent != baseID || i.Size != base.Size+5 || i.ContainerConfig.Cmd[0] != "/new" || i.Config.Author != "me" || i.Comment != "why" {
		t.Errorf("got %+v", i)
	}
	h, err := w.History(ctx, "demo:2")
	if err != nil || len(h) != 3 || h[0].ID != i.ID.String() || h[1].ID != baseID.String() || h[2].ID != "<missing>" {
		t.Errorf("history %v, %v", h, err)
	}
	nameless, err := w.Commit(ctx, CommitRequest{Base: i, Config: config, CreatedBy: "CMD"})
	if err != nil || nameless.ChainID != i.ChainID {
		t.Fatalf("an image of configuration only: %v, %v", nameless, err)
	}
	scratch, err := w.Commit(ctx, CommitRequest{Config: wire.ContainerConfig{}, CreatedBy: "scratch", Names: []string{"empty"}})
	if err != nil || scratch.ChainID != "" {
		t.Fatalf("an empty image: %v, %v", scratch, err)
	}
	for _, ref := range []string{i.ID.String(), i.ID.Encoded()[:10], "demo", "demo:2"} {
		var b bytes.Buffer
		if err := w.Save(ctx, []string{ref}, &b); err != nil {
			t.Errorf("save %s: %v", ref, err)
		}
		n := newWorld(t)
		if err := n.Load(ctx, &b, nil); err != nil || n.byID(i.ID) == nil {
			t.Errorf("saved by %s and loaded: %v", ref, err)
		}
	}
	if err := w.Save(ctx, []string{"nothing"}, io.Discard); !fault.Is(err, fault.NotFound) {
		t.Errorf("saved nothing: %v", err)
	}
	if _, err := w.Remove(ctx, i.ID.String(), true, false); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "image has dependent child images") {
		t.Errorf("removed a parent: %v", err)
	}
	pruned, err := w.Prune(ctx, nil)
	if err != nil || len(pruned.ImagesDeleted) != 1 {
		t.Errorf("pruned %v, %v", pruned, err)
	}
	if err := w.o.Layers.Remove(ctx, "box"); err != nil {
		t.Fatal(err)
	}
	pruned, err = w.Prune(ctx, map[string][]string{"dangling": {"false"}})
	if err != nil || pruned.SpaceReclaimed == 0 {
		t.Errorf("pruned %v, %v", pruned, err)
	}
	pruned, err = w.Prune(ctx, map[string][]string{"dangling": {"false"}})
	if err != nil {
		t.Error(err)
	}
	if n := w.leftovers(t); n != "0 0 0 0" {
		t.Errorf("left %s after %v", n, pruned)
	}
}

// What a killed daemon leaves between the layers and the row goes at the next start.
func TestReconcile(t *testing.T) {
	w := newWorld(t)
	w.load(t, made(t, "1"), "demo:1")
	if _, err := w.o.Layers.Unpack(t.Context(), "", bytes.NewReader(layerTar(t, "stray"))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"images/blobs/sha256/" + digest.FromString("stray").Encoded(), "images/ingest/blob-1"} {
		if err := os.WriteFile(filepath.Join(w.dir, path), []byte("stray"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damaged := w.load(t, extend(t, made(t, "2"), "2", "x"), "damaged:1")
	if err := os.Remove(filepath.Join(w.dir, "images/blobs/sha256", damaged.Encoded())); err != nil {
		t.Fatal(err)
	}
	w = w.reopen(t)
	// Of the damaged image the manifest and the layer that is its own stay, see damaged.go.
	if n := w.leftovers(t); n != "6 0 3 0" {
		t.Errorf("left %s", n)
	}
	if _, err := w.Get(t.Context(), "demo:1"); err != nil {
		t.Error(err)
	}
	if _, err := w.Get(t.Context(), "damaged:1"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestParseChanges(t *testing.T) {
	seconds := int64(1e9)
	for _, c := range []struct {
		changes []string
		want    wire.ContainerConfig
	}{
		{[]string{`CMD ["a", "b"]`}, wire.ContainerConfig{Cmd: []string{"a", "b"}}},
		{[]string{"cmd a b"}, wire.ContainerConfig{Cmd: []string{"/bin/sh", "-c", "a b"}}},
		{[]string{`CMD ["old"]`, `ENTRYPOINT ["new"]`}, wire.ContainerConfig{Cmd: []string{"old"}, Entrypoint: []string{"new"}}},
		{[]string{"ENV A=1 B='two words' C=\"x y\"", "ENV A 3 4"}, wire.ContainerConfig{Env: []string{"B=two words", "C=x y", "A=3 4"}}},
		{[]string{"EXPOSE 80 53/udp 8000-8001"}, wire.ContainerConfig{ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}}},
		{[]string{"LABEL a=b c=\"d e\""}, wire.ContainerConfig{Labels: map[string]string{"a": "b", "c": "d e"}}},
		{[]string{"USER u:g", "STOPSIGNAL SIGUSR1", "WORKDIR /a", "WORKDIR b"}, wire.ContainerConfig{User: "u:g", StopSignal: "SIGUSR1", WorkingDir: "/a/b"}},
		{[]string{`VOLUME ["/a b"]`, "VOLUME /c /d"}, wire.ContainerConfig{Volumes: map[string]struct{}{"/a b": {}, "/c": {}, "/d": {}}}},
		{[]string{"ONBUILD RUN x"}, wire.ContainerConfig{OnBuild: []string{"RUN x"}}},
		{[]string{"HEALTHCHECK --interval=1s --retries=3 CMD curl x"}, wire.ContainerConfig{Healthcheck: &wire.Healthcheck{Test: []string{"CMD-SHELL", "curl x"}, Interval: seconds, Retries: 3}}},
		{[]string{"HEALTHCHECK NONE"}, wire.ContainerConfig{Healthcheck: &wire.Healthcheck{Test: []string{"NONE"}}}},
	} {
		var got wire.ContainerConfig
		if err := ParseChanges(&got, c.changes); err != nil {
			t.Errorf("%v: %v", c.changes, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v: %s", c.changes, diff)
		}
	}
	for _, bad := range []string{"", "RUN x", "FROM x", "CMD", "ENV A", "ENV A=1 B", "EXPOSE x", "EXPOSE 0", "EXPOSE 80/xyz", "ONBUILD FROM x", "HEALTHCHECK x", "HEALTHCHECK --interval=x CMD y", "SHELL bash", "ENV A='1"} {
		if err := ParseChange(&wire.ContainerConfig{}, bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v, want class invalid", bad, err)
		}
	}
}
