package linux

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzRoot resolves any path in a tree with any symlink in it, in every way that there is. Nothing is
// opened and nothing is made outside.
func FuzzRoot(f *testing.F) {
	for _, seed := range [][2]string{
		{"/a/b", "x"}, {"link", "/"}, {"link/x", "../../../.."}, {"/link/new/file", "/proc/self/root"}, {"link/link/link", "link"},
		{"../../etc/new", "real/../.."}, {"link/../../x", "HOST"}, {"real/link", "HOST/secret"}, {"", ""}, {"/..", "."}, {"//link//", "//nothing//here/.."},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, link string) {
		if len(name) > 512 || len(link) > 512 || strings.ContainsRune(name, 0) || strings.ContainsRune(link, 0) {
			return
		}
		outside := t.TempDir()
		dir := filepath.Join(outside, "root")
		for _, d := range []string{filepath.Join(dir, "real"), filepath.Join(outside, "secret")} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		link = strings.ReplaceAll(link, "HOST", outside)
		os.Symlink(link, filepath.Join(dir, "link"))      //nolint:errcheck // an empty one cannot be made
		os.Symlink(link, filepath.Join(dir, "real/link")) //nolint:errcheck // see above
		root, err := OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		inside := func(how string, file *os.File, err error) {
			if err != nil {
				return
			}
			defer file.Close()
			at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
			if err != nil || at != dir && !strings.HasPrefix(at, dir+"/") {
				t.Errorf("%s(%q) with the link %q has opened %q, %v", how, name, link, at, err)
			}
		}
		file, err := root.Open(name, unix.O_PATH, 0)
		inside("Open", file, err)
		file, err = root.OpenNoFollow(name, unix.O_PATH, 0)
		inside("OpenNoFollow", file, err)
		file, err = root.OpenOne(name, unix.O_PATH, 0)
		inside("OpenOne", file, err)
		file, base, err := root.Parent(name, 0o755)
		inside("Parent", file, err)
		if err == nil && (base == "" || base == "." || base == ".." || strings.Contains(base, "/")) {
			t.Errorf("Parent(%q) has the name %q", name, base)
		}
		file, err = root.CreateFile(name, 0o644, 0o755)
		inside("CreateFile", file, err)
		file, err = root.MkdirAll(name, 0o755)
		inside("MkdirAll", file, err)
		for at, want := range map[string]int{outside: 2, filepath.Join(outside, "secret"): 0} {
			if entries, err := os.ReadDir(at); err != nil || len(entries) != want {
				t.Errorf("%q with the link %q: %v is in %s, %v", name, link, entries, at, err)
			}
		}
	})
}
