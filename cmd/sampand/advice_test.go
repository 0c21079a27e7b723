package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOtherImages(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"overlay2/x", "overlay/abc", "vfs", "aufs/diff"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	got := otherImages(root)
	if len(got) != 2 || !strings.Contains(got[0], "storage driver aufs,") || !strings.Contains(got[1], "storage driver overlay,") {
		t.Errorf("%q", got)
	}
}

func TestUnlabelled(t *testing.T) {
	root, enforce := t.TempDir(), filepath.Join(t.TempDir(), "enforce")
	for _, test := range []struct {
		state, label string
		warns        bool
	}{
		{"1", "", true}, {"1\n", "system_u:object_r:container_var_lib_t:s0", false}, {"1", "system_u:object_r:container_ro_file_t:s0:c1", false},
		{"1", "system_u:object_r:default_t:s0", true}, {"0", "system_u:object_r:default_t:s0", false}, {"", "", false},
	} {
		if err := os.WriteFile(enforce, []byte(test.state), 0o600); err != nil {
			t.Fatal(err)
		}
		if test.label != "" {
			if err := unix.Setxattr(root, "security.selinux", []byte(test.label+"\x00"), 0); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
				t.Skip("the filesystem keeps no labels")
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if got := unlabelled(enforce, root); (len(got) > 0) != test.warns || test.warns && !strings.Contains(got[0], `"`+test.label+`"`) {
			t.Errorf("%+v: %q", test, got)
		}
	}
	if got := unlabelled(enforce+"s", root); len(got) > 0 {
		t.Errorf("a machine without SELinux: %q", got)
	}
}
