package layer

import (
	"archive/tar"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestCompare(t *testing.T) {
	s := open(t)
	base := []file{
		{Name: "etc/"}, {Name: "etc/same"}, {Name: "etc/mode"}, {Name: "etc/gone"}, {Name: "kept/"}, {Name: "kept/x"},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "a"}, {Name: "dir/"}, {Name: "dir/sub/"}, {Name: "dir/sub/file"}, {Name: "turn"},
	}
	a := unpack(t, s, base)
	b := unpack(t, s, base, []file{
		{Name: "etc/mode", Mode: 0o600}, {Name: "etc/.wh.gone"}, {Name: ".wh.dir"}, {Name: "link", Typeflag: tar.TypeSymlink, Linkname: "b"},
		{Name: "etc/new/"}, {Name: "etc/new/file"}, {Name: "turn/", Typeflag: tar.TypeDir}, {Name: "turn/in"}, {Name: "etc/same"},
	})
	for _, tt := range []struct {
		name     string
		from, to int
		want     []string
	}{
		{"forward", 0, 1, []string{"2 /dir", "0 /etc", "2 /etc/gone", "0 /etc/mode", "1 /etc/new", "1 /etc/new/file", "0 /link", "0 /turn", "1 /turn/in"}},
		{"back", 1, 0, []string{"1 /dir", "1 /dir/sub", "1 /dir/sub/file", "0 /etc", "1 /etc/gone", "0 /etc/mode", "2 /etc/new", "0 /link", "0 /turn"}},
		{"itself", 1, 1, nil},
	} {
		changes, err := s.Compare(t.Context(), []digest.Digest{a, b}[tt.from], []digest.Digest{a, b}[tt.to])
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range changes {
			got = append(got, fmt.Sprintf("%d %s", c.Kind, c.Path))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	whole, err := s.Compare(t.Context(), "", a)
	if err != nil || len(whole) != len(base) {
		t.Errorf("against nothing: %d changes, %v", len(whole), err)
	}
}
