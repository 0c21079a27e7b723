package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/linux"
)

func files(t *testing.T, subuid, subgid string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"subuid": subuid, "subgid": subgid} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestParse(t *testing.T) {
	dir := files(t, "# ids\nother:1:2\nroot:100000:65536\n0:300000:10\n", "root:200000:1000\ndaemon:400000:1000\n")
	want := []linux.IDMapping{{Inside: 0, Outside: 100000, Size: 65536}, {Inside: 65536, Outside: 300000, Size: 10}}
	for text, gid := range map[string]uint32{"root": 200000, "0": 200000, "0:0": 200000, "root:daemon": 400000} {
		r, err := Parse(text, dir)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, r.UIDs); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
		if uid, g := r.Root(); uid != 100000 || g != int(gid) {
			t.Errorf("%s: root is %d:%d, want 100000:%d", text, uid, g, gid)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := "root:100000:65536\n"
	for _, k := range []struct{ text, subuid, subgid, want string }{
		{"", good, good, "userns-remap"},
		{"root:", good, good, `"root:"`},
		{"root:root:root", good, good, "userns-remap"},
		{"no-such-user", good, good, "no-such-user"},
		{"4000000000", good, good, "4000000000"},
		{"root:no-such-group", good, good, "no-such-group"},
		{"root", "daemon:1:2\n", good, "subuid has no ids"},
		{"root", good, "", "subgid has no ids"},
		{"root", "root:100000\n", good, "line 1"},
		{"root", good + "root:4294967295:10\n", good, "line 2"},
		{"root", "root:-1:10\n", good, "line 1"},
		{"root", "root:x:10\n", good, "line 1"},
	} {
		if _, err := Parse(k.text, files(t, k.subuid, k.subgid)); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%q with %q: %v, want an error with %q", k.text, k.subuid, err, k.want)
		}
	}
}

func TestShift(t *testing.T) {
	r := &Remap{UIDs: []linux.IDMapping{{Inside: 0, Outside: 1000, Size: 10}}, GIDs: []linux.IDMapping{{Inside: 0, Outside: 2000, Size: 5}}}
	if uid, gid := r.Inside(1003, 2004); uid != 3 || gid != 4 {
		t.Errorf("got %d:%d", uid, gid)
	}
	if uid, gid := r.Inside(0, 2005); uid != nobody || gid != nobody {
		t.Errorf("got %d:%d for who is not mapped", uid, gid)
	}
	if uid, gid, err := r.Outside(9, 0); uid != 1009 || gid != 2000 || err != nil {
		t.Errorf("got %d:%d, %v", uid, gid, err)
	}
	if _, _, err := r.Outside(10, 0); err == nil {
		t.Error("an id that is not mapped has an id outside")
	}
	if uid, gid, err := (*Remap)(nil).Outside(10, 11); uid != 10 || gid != 11 || err != nil {
		t.Errorf("without a mapping: %d:%d, %v", uid, gid, err)
	}
}

func TestFreeRange(t *testing.T) {
	if got, err := freeRange(nil); got != "100000-165535" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := freeRange([]idRange{{"a", 165536, 65536}, {"b", 100000, 65536}}); got != "231072-296607" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := freeRange([]idRange{{"a", 1 << 31, 1<<31 - 2}}); err == nil {
		t.Error("a range beyond the last id")
	}
}

func FuzzReadRanges(f *testing.F) {
	f.Add("root:100000:65536\n")
	f.Add("a:1\n#\n::")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "subuid")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readRanges(file)
		if err != nil {
			return
		}
		for _, r := range list {
			if r.count == 0 || r.start+r.count > 1<<32-1 {
				t.Errorf("%+v", r)
			}
		}
	})
}

func TestOfProcess(t *testing.T) {
	if r, err := OfProcess(os.Getpid()); r != nil || err != nil {
		t.Errorf("the host's own namespace: %v, %v", r, err)
	}
}
