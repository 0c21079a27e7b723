package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/linux"
)

func open(t *testing.T, dir string) *linux.Root {
	t.Helper()
	root, err := linux.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// describe lists a tree: type, mode, owner and contents of each file.
func describe(t *testing.T, dir string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		line := fmt.Sprintf("%s %o %d:%d %d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" links %d %q", st.Nlink, data)
		case unix.S_IFLNK:
			target, _ := os.Readlink(name)
			line += " -> " + target
		case unix.S_IFCHR:
			line += fmt.Sprintf(" %d", st.Rdev)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteExtractIsACopy(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	in := func(name string) string { return filepath.Join(from, name) }
	must(t, os.Mkdir(in("dir"), 0o750), os.WriteFile(in("dir/file"), []byte("data"), 0o644), os.Chown(in("dir/file"), 33, 44),
		os.Chmod(in("dir/file"), 0o644|os.ModeSetuid), os.Link(in("dir/file"), in("hard")), os.Symlink("/etc/passwd", in("link")),
		unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mkfifo(in("fifo"), 0o600), os.Chmod(from, 0o711))
	old := time.Unix(1e9, 0)
	must(t, os.Chtimes(in("dir"), old, old), os.Chtimes(from, old, old))
	var b bytes.Buffer
	must(t, Write(&b, open(t, from), WriteOptions{}), Extract(&b, open(t, to), ExtractOptions{}))
	if want, got := describe(t, from), describe(t, to); !slices.Equal(want, got) {
		t.Errorf("copied\n%s\nto\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// TestMappedOwners: the archive has the ids of the inside, and the files those of the host.
func TestMappedOwners(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	ids := func(first uint32) *userns.Remap {
		m := []linux.IDMapping{{Inside: 0, Outside: first, Size: 1000}}
		return &userns.Remap{UIDs: m, GIDs: m}
	}
	must(t, os.Chmod(to, 0o755), os.WriteFile(filepath.Join(from, "file"), nil, 0o600), os.Chown(filepath.Join(from, "file"), 100007, 100008), os.Chown(from, 100000, 100000))
	var b bytes.Buffer
	must(t, Write(&b, open(t, from), WriteOptions{IDs: ids(100000)}))
	archive := b.Bytes()
	must(t, Extract(bytes.NewReader(archive), open(t, to), ExtractOptions{IDs: ids(200000)}))
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(to, "file"), &st); err != nil || st.Uid != 200007 || st.Gid != 200008 {
		t.Errorf("the file is of %d:%d, %v", st.Uid, st.Gid, err)
	}
	in := tar.NewReader(bytes.NewReader(archive))
	for h, err := in.Next(); err == nil; h, err = in.Next() {
		if want := map[string]int{"./": 0, "file": 7}[h.Name]; h.Uid != want {
			t.Errorf("%s is of %d in the archive, want %d", h.Name, h.Uid, want)
		}
	}
	small := ids(200000)
	small.UIDs[0].Size = 7
	if err := Extract(bytes.NewReader(archive), open(t, to), ExtractOptions{IDs: small}); err == nil || !strings.Contains(err.Error(), "owner 7:8 is not mapped") {
		t.Errorf("an owner that is not mapped: %v", err)
	}
}

func TestExtractStaysInside(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	victim := filepath.Join(outside, "victim")
	must(t, os.WriteFile(victim, []byte("whole"), 0o644))
	archive := func(headers ...tar.Header) io.Reader {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Mode = 0o777
			if h.Typeflag == tar.TypeReg {
				h.Size = 3
			}
			must(t, w.WriteHeader(&h))
			if h.Size > 0 {
				_, err := w.Write([]byte("bad"))
				must(t, err)
			}
		}
		must(t, w.Close())
		return &b
	}
	for _, headers := range [][]tar.Header{
		{{Typeflag: tar.TypeReg, Name: "../../../../../../" + victim}},
		{{Typeflag: tar.TypeReg, Name: victim}},
		{{Typeflag: tar.TypeSymlink, Name: "out", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "out/victim"}},
		{{Typeflag: tar.TypeSymlink, Name: "up", Linkname: "../../../../../.." + outside}, {Typeflag: tar.TypeReg, Name: "up/victim"}},
		{{Typeflag: tar.TypeLink, Name: "hard", Linkname: "../../.." + victim}},
		{{Typeflag: tar.TypeSymlink, Name: "file", Linkname: victim}, {Typeflag: tar.TypeReg, Name: "file"}},
	} {
		_ = Extract(archive(headers...), open(t, dir), ExtractOptions{}) // an error is as good
		if data, err := os.ReadFile(victim); string(data) != "whole" || err != nil {
			t.Fatalf("%v: the file outside is %q, %v", headers, data, err)
		}
	}
}

func TestExtractKeepsKinds(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "dir"), 0o755), os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	for _, h := range []tar.Header{{Typeflag: tar.TypeReg, Name: "dir"}, {Typeflag: tar.TypeDir, Name: "file"}} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		must(t, w.WriteHeader(&h), w.Close())
		again := bytes.NewReader(b.Bytes())
		if err := Extract(&b, open(t, dir), ExtractOptions{KeepKind: true}); err == nil || !strings.Contains(err.Error(), "cannot overwrite") {
			t.Errorf("%s: %v", h.Name, err)
		}
		must(t, Extract(again, open(t, dir), ExtractOptions{}))
	}
}

func TestStat(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("four"), 0o640), os.Symlink("file", filepath.Join(dir, "link")))
	s, err := Stat(open(t, dir), "/link")
	if err != nil || s.LinkTarget != "/file" || os.FileMode(s.Mode)&os.ModeSymlink == 0 {
		t.Errorf("link: %+v, %v", s, err)
	}
	s, err = Stat(open(t, dir), "/file")
	if err != nil || s.Size != 4 || os.FileMode(s.Mode) != 0o640 || s.Name != "file" {
		t.Errorf("file: %+v, %v", s, err)
	}
}
