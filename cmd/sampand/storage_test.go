package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTryOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: overlays are mounted")
	}
	good := t.TempDir()
	if err := os.Mkdir(good+"/tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := tryOverlay(good); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(good + "/tmp"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	// The data of an engine inside a container without a volume is on the container's own overlay.
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work", "at"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := unix.Mount("overlay", dir+"/at", "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir+"/at", unix.MNT_DETACH) //nolint:errcheck // the test's directory says so
	if err := os.Mkdir(dir+"/at/tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := tryOverlay(dir + "/at"); err == nil || !strings.Contains(err.Error(), "overlay2 cannot work on overlayfs") || !strings.Contains(err.Error(), "expected a filesystem such as ext4") {
		t.Errorf("an overlay on an overlay: %v", err)
	}
}
