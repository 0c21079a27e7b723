package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

func openDir(t *testing.T, dir string) *linux.Root {
	t.Helper()
	root, err := linux.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// A copy from an image is like its original in everything that a layer can hold.
func TestCopierKeeps(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	file := filepath.Join(from, "a")
	must(t, os.WriteFile(file, []byte("text"), 0o600))
	must(t, os.Link(file, filepath.Join(from, "b")))
	must(t, unix.Mkfifo(filepath.Join(from, "fifo"), 0o640))
	must(t, unix.Mknod(filepath.Join(from, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Symlink("a", filepath.Join(from, "link")))
	must(t, os.Chown(file, 12, 34))
	must(t, os.Chmod(file, 0o755|os.ModeSetuid))
	// cap_net_raw, as ping has it.
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(file, "security.capability", capability, 0))
	old := time.Unix(1_000_000_000, 5)
	must(t, os.Chtimes(file, old, old))

	c := copier{ctx: t.Context(), from: openDir(t, from), to: openDir(t, to)}
	must(t, c.copy("/", "/"))
	var a, b, fifo, null unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"a": &a, "b": &b, "fifo": &fifo, "null": &null} {
		must(t, unix.Lstat(filepath.Join(to, name), st))
	}
	if a.Ino != b.Ino || a.Uid != 12 || a.Gid != 34 || a.Mode != unix.S_IFREG|0o4755 || a.Mtim.Nano() != old.UnixNano() {
		t.Errorf("a: %+v, b has inode %d", a, b.Ino)
	}
	if fifo.Mode&unix.S_IFMT != unix.S_IFIFO || null.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("fifo %o, device %x", fifo.Mode, null.Rdev)
	}
	got := make([]byte, 64)
	if n, err := unix.Getxattr(filepath.Join(to, "a"), "security.capability", got); err != nil || string(got[:n]) != string(capability) {
		t.Errorf("capability %x %v", got, err)
	}
	if target, err := os.Readlink(filepath.Join(to, "link")); err != nil || target != "a" {
		t.Errorf("link to %q: %v", target, err)
	}
}

func TestCopierRefuses(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	must(t, unix.Mknod(filepath.Join(from, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.MkdirAll(filepath.Join(from, "deep", strings.Repeat("d/", maxDepth+1)), 0o755))
	must(t, os.MkdirAll(filepath.Join(to, "null"), 0o755))
	c := copier{ctx: t.Context(), from: openDir(t, from), to: openDir(t, to), plain: true}
	for source, want := range map[string]string{"null": "is a device", "deep": "nested more than"} {
		if err := c.copy(source, "/x/"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
	c.plain = false
	must(t, os.Mkdir(filepath.Join(from, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(from, "d", "null"), nil, 0o644))
	if err := c.copy("d", "/"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "/null is a directory") {
		t.Errorf("file over a directory: %v", err)
	}
}

func TestLocalDigest(t *testing.T) {
	make1 := func(change func(dir string)) string {
		dir := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "d", "a"), []byte("text"), 0o644))
		must(t, os.Symlink("a", filepath.Join(dir, "d", "l")))
		change(dir)
		d, err := (&localTree{name: "x", dir: dir, digests: map[string]digest.Digest{}}).digest(t.Context(), "")
		must(t, err)
		return d.String()
	}
	same := make1(func(string) {})
	for name, test := range map[string]struct {
		change func(dir string)
		equal  bool
	}{
		"time":    {func(dir string) { must(t, os.Chtimes(filepath.Join(dir, "d/a"), time.Unix(1, 0), time.Unix(1, 0))) }, true},
		"owner":   {func(dir string) { must(t, os.Chown(filepath.Join(dir, "d/a"), 5, 5)) }, true},
		"content": {func(dir string) { must(t, os.WriteFile(filepath.Join(dir, "d/a"), []byte("texx"), 0o644)) }, false},
		"mode":    {func(dir string) { must(t, os.Chmod(filepath.Join(dir, "d/a"), 0o755)) }, false},
		"name":    {func(dir string) { must(t, os.Rename(filepath.Join(dir, "d/a"), filepath.Join(dir, "d/b"))) }, false},
		"place":   {func(dir string) { must(t, os.Rename(filepath.Join(dir, "d/a"), filepath.Join(dir, "a"))) }, false},
		"link":    {func(dir string) { p := filepath.Join(dir, "d/l"); must(t, os.Remove(p)); must(t, os.Symlink("b", p)) }, false},
		"more":    {func(dir string) { must(t, os.Mkdir(filepath.Join(dir, "e"), 0o755)) }, false},
	} {
		if got := make1(test.change); (got == same) != test.equal {
			t.Errorf("%s: equal is %v: expected %v", name, got == same, test.equal)
		}
	}
}
