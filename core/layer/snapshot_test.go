package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// What a snapshot changed, unpacked on the same chain, shows the same files as the snapshot.
func TestDiffRoundTrip(t *testing.T) {
	s := open(t)
	chain := unpack(t, s, base)
	mounts, err := s.Prepare(t.Context(), "box", chain)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	mounted(t, mounts, func(root string) (err error) {
		do := func(f func() error) {
			if err == nil {
				err = f()
			}
		}
		do(func() error { return os.Remove(root + "/a/one") })
		do(func() error { return os.RemoveAll(root + "/b") })
		do(func() error { return os.MkdirAll(root+"/b/deep", 0o711) })
		do(func() error { return os.WriteFile(root+"/b/deep/five", []byte("5"), 0o600) })
		do(func() error { return os.Link(root+"/b/deep/five", root+"/b/six") })
		do(func() error { return os.WriteFile(root+"/a/two", []byte("changed"), 0o755) })
		do(func() error { return os.Symlink("/b", root+"/to-b") })
		do(func() error { return unix.Mkfifo(root+"/fifo", 0o640) })
		do(func() error { return unix.Mknod(root+"/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) })
		do(func() error { return os.Chown(root+"/pipe", 1, 2) })
		do(func() error { return unix.Setxattr(root+"/b/six", "user.note", []byte("hi"), 0) })
		do(func() error { return os.Remove(root + "/.dockerenv") })
		do(func() error { want, err = tree(root); return err })
		return err
	})
	var one, two bytes.Buffer
	for _, w := range []io.Writer{&one, &two} {
		if err := s.Diff(t.Context(), "box", w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two diffs of the same files differ")
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(one.Bytes())); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	wantNames := []string{"a/", "a/.wh.one", "a/two", "b/", "b/.wh..wh..opq", "b/deep/", "b/deep/five", "b/six", "fifo", "pipe", "to-b", "zero"}
	if diff := cmp.Diff(wantNames, names); diff != "" {
		t.Error(diff)
	}
	changes, err := s.Changes(t.Context(), "box")
	if err != nil {
		t.Fatal(err)
	}
	wantChanges := []Change{{"/a", Modified}, {"/a/one", Deleted}, {"/a/two", Modified}, {"/b", Modified}, {"/b/deep", Modified},
		{"/b/deep/five", Added}, {"/b/six", Added}, {"/fifo", Added}, {"/pipe", Modified}, {"/to-b", Added}, {"/zero", Added}}
	if diff := cmp.Diff(wantChanges, changes); diff != "" {
		t.Error(diff)
	}
	if n, err := s.Usage(t.Context(), "box"); err != nil || n != int64(len("changed")+1+len("/b")) {
		t.Errorf("usage %d, %v", n, err)
	}
	l, err := s.Unpack(t.Context(), chain, &one)
	if err != nil {
		t.Fatal(err)
	}
	mounts, err = s.Prepare(t.Context(), "again", l.ChainID)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, mounts, func(root string) error {
		got, err := tree(root)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		return err
	})
}

func TestSnapshotLife(t *testing.T) {
	s := open(t)
	chain := unpack(t, s, base)
	ctx := t.Context()
	if _, err := s.Prepare(ctx, "box", chain); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(ctx, "box", chain); !fault.Is(err, fault.Exists) {
		t.Errorf("a second snapshot of the same key: %v", err)
	}
	if _, err := s.Prepare(ctx, "box2", digest.FromString("x")); !fault.Is(err, fault.NotFound) {
		t.Errorf("a snapshot on nothing: %v", err)
	}
	if _, err := s.Prepare(ctx, "../box", chain); !fault.Is(err, fault.Invalid) {
		t.Errorf("a snapshot outside: %v", err)
	}
	if p := s.Paths("box"); p["UpperDir"] == "" || p["LowerDir"] == "" || p["WorkDir"] == "" || p["MergedDir"] == "" {
		t.Errorf("paths %v", p)
	}
	if err := s.Release(ctx, chain); !fault.Is(err, fault.Conflict) {
		t.Errorf("released a layer in use: %v", err)
	}
	for range 2 {
		if err := s.Remove(ctx, "box"); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Get(chain); !fault.Is(err, fault.NotFound) {
		t.Errorf("the released layer outlived its last user: %v", err)
	}
	if _, err := s.Mounts(ctx, "box"); !fault.Is(err, fault.NotFound) {
		t.Errorf("mounts of a removed snapshot: %v", err)
	}
}

// A volatile mount is asked for by its own name alone, and leaves nothing that a further mount of either kind fails on.
func TestVolatile(t *testing.T) {
	s := open(t)
	if !s.volatile {
		t.Skip("this kernel has no volatile overlay")
	}
	if _, err := s.Prepare(t.Context(), "box", unpack(t, s, base)); err != nil {
		t.Fatal(err)
	}
	for i, mounts := range []func(context.Context, string) ([]mount.Mount, error){s.Volatile, s.Volatile, s.Mounts, s.Mounts} {
		list, err := mounts(t.Context(), "box")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := slices.Contains(list[0].Options, "volatile"), i < 2; got != want {
			t.Errorf("mount %d: %v", i, list[0].Options)
		}
		mounted(t, list, func(root string) error {
			return os.WriteFile(fmt.Sprintf("%s/file%d", root, i), nil, 0o600)
		})
	}
	files, err := filepath.Glob(s.Paths("box")["UpperDir"] + "/file*")
	if len(files) != 4 || err != nil {
		t.Errorf("in the snapshot: %v, %v", files, err)
	}
	if _, err := s.Volatile(t.Context(), "box2"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a snapshot that is not there: %v", err)
	}
}

// remover removes a snapshot, with all its files, at the first write.
type remover struct {
	remove func()
	n      int
}

func (r *remover) Write(p []byte) (int, error) {
	if r.n++; r.n == 1 {
		r.remove()
	}
	return len(p), nil
}

// A snapshot that is removed while it is read is an error, and no smaller snapshot.
func TestReadWhileItIsRemoved(t *testing.T) {
	s := open(t)
	chain := unpack(t, s, base)
	for range 2 {
		mounts, err := s.Prepare(t.Context(), "box", chain)
		if err != nil {
			t.Fatal(err)
		}
		mounted(t, mounts, func(root string) (err error) {
			for i := range 100 {
				err = errors.Join(err, os.WriteFile(fmt.Sprintf("%s/file%d", root, i), make([]byte, 10_000), 0o600))
			}
			return err
		})
		removing := &remover{remove: func() {
			if err := s.Remove(t.Context(), "box"); err != nil {
				t.Error(err)
			}
			s.removals.Wait()
		}}
		if err := s.Diff(t.Context(), "box", removing); !fault.Is(err, fault.NotFound) {
			t.Errorf("a diff of what was removed meanwhile: %v", err)
		}
		if err := s.Whole(t.Context(), "box"); !fault.Is(err, fault.NotFound) {
			t.Errorf("what was removed is whole: %v", err)
		}
	}
	if _, err := s.Prepare(t.Context(), "box", chain); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Whole(t.Context(), "box"), s.Diff(t.Context(), "box", io.Discard)); err != nil {
		t.Error(err)
	}
}

func TestScratchHasMountPoints(t *testing.T) {
	s := open(t)
	mounts, err := s.Prepare(t.Context(), "box", "")
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, mounts, func(root string) error {
		for _, m := range mountPoints {
			var st unix.Stat_t
			if err := unix.Lstat(root+"/"+m.path, &st); err != nil || st.Mode&unix.S_IFMT != m.kind {
				t.Errorf("%s: %v, mode %o", m.path, err, st.Mode)
			}
		}
		return nil
	})
	changes, err := s.Changes(t.Context(), "box")
	if err != nil || len(changes) != 0 {
		t.Errorf("changes %v, %v", changes, err)
	}
}

func TestReopenAndReconcile(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	low := unpack(t, s, base)
	l, err := s.Unpack(ctx, low, archive(t, file{Name: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	lost, err := s.Unpack(ctx, l.ChainID, archive(t, file{Name: "y"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"kept", "forgotten"} {
		if _, err := s.Prepare(ctx, key, l.ChainID); err != nil {
			t.Fatal(err)
		}
	}
	// What a crash leaves: a staged layer, a layer without its description, half a snapshot.
	for _, dir := range []string{"tmp/layer-1/diff", strings.Repeat("ab", 32) + "/diff", "half/diff"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open(s.root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(lost.ChainID); err != nil {
		t.Error(err)
	}
	if err := s.Reconcile(context.Background(), []string{"kept"}, nil); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := s.Mounts(ctx, "kept"); err != nil {
		t.Error(err)
	}
	if _, err := s.Mounts(ctx, "forgotten"); !fault.Is(err, fault.NotFound) {
		t.Errorf("forgotten snapshot: %v", err)
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(entries); n != 6 { // two layers, the snapshot, empty, l, tmp
		t.Errorf("%d directories are left: %v", n, entries)
	}
	for dir, want := range map[string]int{"tmp": 0, "l": 6} {
		left, err := os.ReadDir(filepath.Join(s.root, dir))
		if err != nil || len(left) != want {
			t.Errorf("%s has %d entries, want %d: %v", dir, len(left), want, err)
		}
	}
	// No image has the layers any more: they go with the last snapshot, also when they were released before the end.
	if err := s.Remove(ctx, "kept"); err != nil {
		t.Error(err)
	}
	if list := s.Layers(); len(list) > 0 {
		t.Errorf("layers are left when nobody uses them: %v", list)
	}
}

func TestManyLayers(t *testing.T) {
	s := open(t)
	var chain digest.Digest
	for i := range 120 {
		l, err := s.Unpack(t.Context(), chain, archive(t, file{Name: fmt.Sprint(i)}))
		if err != nil {
			t.Fatal(err)
		}
		chain = l.ChainID
	}
	mounts, err := s.Prepare(t.Context(), "box", chain)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, mounts, func(root string) error {
		got, err := tree(root)
		if len(got) != 120 {
			t.Errorf("%d files", len(got))
		}
		return err
	})
}
