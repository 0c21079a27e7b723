package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/content"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// room is a solver on real stores, with commands that run in this process.
type room struct {
	*testing.T
	solver *Solver
	images *image.Store
	layers *layer.Store
	exec   *fakeExecutor
	base   *image.Image
}

func newRoom(t *testing.T) *room {
	t.Helper()
	dir := t.TempDir()
	db, err := state.Open(filepath.Join(dir, "state.db"), state.Options{})
	must(t, err)
	layers, err := layer.Open(filepath.Join(dir, "overlay2"), nil)
	must(t, err)
	blobs, err := content.Open(filepath.Join(dir, "images"))
	must(t, err)
	images, err := image.Open(image.Options{Content: blobs, Layers: layers, DB: db, Registry: registry.New(registry.Options{})})
	must(t, err)
	t.Cleanup(func() {
		must(t, layers.Close())
		must(t, db.Close())
	})
	r := &room{T: t, images: images, layers: layers, exec: &fakeExecutor{}}
	r.solver = New(Options{Images: images, Layers: layers, Executor: r.exec, DB: db, Root: filepath.Join(dir, "build")})
	r.importBase("base", []tar.Header{
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, Linkname: "www:x:33:34::/:/bin/sh\n"},
		{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644, Linkname: "staff:x:50:\n"},
		{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin", Mode: 0o777},
		{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/../../../../../../tmp/sampan-escape", Mode: 0o777},
		{Name: "file", Typeflag: tar.TypeReg, Mode: 0o600, Linkname: "of the base"},
	})
	r.base, err = images.Get(t.Context(), "base")
	must(t, err)
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// importBase makes an image; a regular file's Linkname is its content.
func (r *room) importBase(name string, files []tar.Header) {
	r.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range files {
		text := ""
		if h.Typeflag == tar.TypeReg {
			text, h.Linkname = h.Linkname, ""
			h.Size = int64(len(text))
		}
		h.ModTime = time.Unix(1_500_000_000, 0)
		must(r.T, w.WriteHeader(&h))
		_, err := io.WriteString(w, text)
		must(r.T, err)
	}
	must(r.T, w.Close())
	_, err := r.images.Import(r.Context(), &b, name, "", []string{"ENV A=1", `CMD ["sh"]`}, func(wire.Message) {})
	must(r.T, err)
}

// solve runs a build and returns the image and what was told.
func (r *room) solve(g wire.BuildGraph, locals map[string]string) (*image.Image, string, error) {
	r.Helper()
	var mu sync.Mutex
	var said strings.Builder
	id, err := r.solver.Solve(r.Context(), g, locals, func(m wire.Message) {
		mu.Lock()
		defer mu.Unlock()
		said.WriteString(m.Stream)
	})
	if err != nil {
		return nil, said.String(), err
	}
	img, err := r.images.Get(r.Context(), id.String())
	must(r.T, err)
	return img, said.String(), nil
}

// tree lists the files of an image as "mode uid:gid text".
func (r *room) tree(img *image.Image) map[string]string {
	r.Helper()
	mounts, err := r.layers.View(img.ChainID)
	must(r.T, err)
	root, err := openRoot(mounts)
	must(r.T, err)
	defer root.Close()
	list := map[string]string{}
	var walk func(dir *os.File, at string)
	walk = func(dir *os.File, at string) {
		all, err := names(dir)
		must(r.T, err)
		for _, n := range all {
			f, err := linux.OpenAt(dir, n, unix.O_PATH|unix.O_NOFOLLOW, 0)
			must(r.T, err)
			st, err := linux.Fstat(f)
			must(r.T, err)
			text := ""
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFREG:
				data, err := os.ReadFile(procPath(f))
				must(r.T, err)
				text = " " + string(data)
			case unix.S_IFLNK:
				target, err := readlink(f)
				must(r.T, err)
				text = " -> " + target
			case unix.S_IFDIR:
				text = "/"
				walk(f, path.Join(at, n))
			}
			list[path.Join(at, n)] = fmt.Sprintf("%o %d:%d%s", st.Mode&0o7777, st.Uid, st.Gid, text)
			f.Close()
		}
	}
	walk(root.Dir(), "")
	return list
}

// has checks some files of an image; "" is no such file.
func (r *room) has(img *image.Image, want map[string]string) {
	r.Helper()
	got := r.tree(img)
	for name, text := range want {
		if got[name] != text {
			r.Errorf("%s: %q: expected %q", name, got[name], text)
		}
	}
}

// fakeExecutor knows the commands write PATH TEXT, cat PATH, fail STATUS and wait.
type fakeExecutor struct {
	mu    sync.Mutex
	steps []Step
	gate  chan struct{} // wait waits for it
	ready chan struct{} // told by wait
}

func (e *fakeExecutor) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.steps)
}

func (e *fakeExecutor) RunStep(ctx context.Context, s Step) (int, error) {
	e.mu.Lock()
	e.steps = append(e.steps, s)
	e.mu.Unlock()
	root, err := openRoot(s.RootMounts)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	for _, m := range s.Mounts { // as a runtime does
		if f, err := root.MkdirAll(m.Target, 0o755); err == nil {
			f.Close()
		}
	}
	switch s.Args[0] {
	case "write":
		f, err := root.Open(s.Args[1], unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
		if err != nil {
			return 1, err
		}
		defer f.Close()
		fmt.Fprintf(s.Stdout, "writing %s\n", s.Args[1])
		_, err = f.WriteString(s.Args[2])
		return 0, err
	case "cat":
		for _, m := range s.Mounts {
			if rest, ok := strings.CutPrefix(s.Args[1], m.Target); ok && m.Type == "bind" {
				data, err := os.ReadFile(m.Source + rest)
				fmt.Fprintf(s.Stdout, "%s", data)
				return 0, err
			}
		}
		return 1, errors.New("cat: no such mount")
	case "fail":
		_, _ = io.WriteString(s.Stderr, "about to fail")
		return 7, nil
	case "wait":
		e.ready <- struct{}{}
		_, _ = io.WriteString(s.Stdout, "waiting\n")
		select {
		case <-e.gate:
			return 0, nil
		case <-ctx.Done():
			return 137, ctx.Err()
		}
	}
	return 127, nil
}

func imageNode(ref string) wire.BuildNode {
	return wire.BuildNode{Op: "image", Image: &wire.BuildImage{Ref: ref}, Position: "build.star:1:1"}
}

func localNode(name string) wire.BuildNode {
	return wire.BuildNode{Op: "local", Local: &wire.BuildLocal{Name: name}}
}

func runNode(base int, args ...string) wire.BuildNode {
	return wire.BuildNode{Op: "run", Run: &wire.BuildRun{Base: base, Args: args}, Position: "build.star:2:5"}
}

func copyNode(c wire.BuildCopy) wire.BuildNode {
	return wire.BuildNode{Op: "copy", Copy: &c, Position: "build.star:3:5"}
}

func configNode(c wire.BuildConfig) wire.BuildNode {
	return wire.BuildNode{Op: "config", Config: &c, Position: "build.star:4:5"}
}

// last makes a graph of which the last node is the target.
func last(nodes ...wire.BuildNode) wire.BuildGraph {
	return wire.BuildGraph{Nodes: nodes, Target: len(nodes) - 1}
}

// write makes files below a fresh directory; a name that ends with / is a directory, a text that
// begins with -> a symlink.
func (r *room) files(list map[string]string) string {
	r.Helper()
	dir := r.TempDir()
	for _, name := range slices.Sorted(maps.Keys(list)) {
		p := filepath.Join(dir, name)
		must(r.T, os.MkdirAll(filepath.Dir(p), 0o755))
		if target, ok := strings.CutPrefix(list[name], "-> "); ok {
			must(r.T, os.Symlink(target, p))
		} else if strings.HasSuffix(name, "/") {
			must(r.T, os.MkdirAll(p, 0o750))
		} else {
			must(r.T, os.WriteFile(p, []byte(list[name]), 0o640))
		}
	}
	return dir
}
