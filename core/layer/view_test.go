package layer

import (
	"archive/tar"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// TestViewAt mounts paths of a chain in which the upper layer hides, adds, and leads elsewhere.
func TestViewAt(t *testing.T) {
	s := open(t)
	chain := unpack(t, s,
		[]file{
			{Name: "usr/"}, {Name: "usr/low"}, {Name: "usr/gone"},
			{Name: "new/"}, {Name: "new/old"},
			{Name: "a:b/"}, {Name: "pipe", Typeflag: tar.TypeFifo},
		},
		[]file{
			{Name: "usr/"}, {Name: "usr/top"}, {Name: "usr/.wh.gone"},
			{Name: "new/"}, {Name: "new/.wh..wh..opq"}, {Name: "new/only"},
			link("lib", "usr"), link("abs", "/usr"), link("out", "../../../usr"), link("usr/self", "self"), link("usr/back", "../lib/low"),
		})
	for _, c := range []struct {
		sub   string
		want  []string // names, or of a file its contents
		class fault.Class
	}{
		{sub: "usr", want: []string{"back", "low", "self", "top"}},
		{sub: "/usr//", want: []string{"back", "low", "self", "top"}},
		{sub: "lib", want: []string{"back", "low", "self", "top"}},
		{sub: "abs/.", want: []string{"back", "low", "self", "top"}},
		{sub: "out", want: []string{"back", "low", "self", "top"}},
		{sub: "../usr", want: []string{"back", "low", "self", "top"}},
		{sub: "new", want: []string{"only"}},
		{sub: "", want: []string{"a:b", "abs", "lib", "new", "out", "pipe", "usr"}},
		{sub: "lib/low", want: []string{"= usr/low"}},
		{sub: "abs/back", want: []string{"= usr/low"}},
		{sub: "new/old", class: fault.NotFound},
		{sub: "usr/gone", class: fault.NotFound},
		{sub: "usr/low/x", class: fault.Invalid},
		{sub: "usr/self", class: fault.Invalid},
		{sub: "pipe", class: fault.Invalid},
		{sub: "a:b", class: fault.NotImplemented},
		{sub: strings.Repeat("usr/../", 300) + "usr", want: []string{"back", "low", "self", "top"}},
	} {
		m, err := s.ViewAt(chain, c.sub)
		if c.want == nil {
			if !fault.Is(err, c.class) {
				t.Errorf("%q: %v, expected the class %v", c.sub, err, c.class)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.sub, err)
			continue
		}
		if got := seen(t, m); !cmp.Equal(got, c.want) {
			t.Errorf("%q: %v", c.sub, cmp.Diff(c.want, got))
		}
	}
}

func link(name, to string) file {
	return file{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

// seen is what a mount shows: names, or what is in a file; nothing can be written there.
func seen(t *testing.T, m mount.Mount) (list []string) {
	t.Helper()
	m.Target = "/at"
	mounted(t, []mount.Mount{{Type: "tmpfs", Source: "tmpfs", Target: "/"}, m}, func(root string) error {
		at := root + "/at"
		if m.Type == "bind" {
			data, err := os.ReadFile(at)
			list = []string{"= " + string(data)}
			if f, err := os.OpenFile(at, os.O_WRONLY, 0); err == nil {
				f.Close()
				t.Error("the file can be written")
			}
			return err
		}
		if err := os.Mkdir(at+"/x", 0o700); err == nil || err.(*os.PathError).Err != unix.EROFS { //nolint:errorlint // os.Mkdir's own
			t.Errorf("mkdir: %v, expected a read-only filesystem", err)
		}
		entries, err := os.ReadDir(at)
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return err
	})
	return list
}
