package layer

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// quotaStore is a store on a small XFS that keeps limits of projects, on a loop device.
func quotaStore(t *testing.T) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a filesystem is mounted as root alone")
	}
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		t.Skip("there is no mkfs.xfs")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 320<<20), os.Mkdir(at, 0o700)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.xfs", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.xfs: %s", out)
	}
	if out, err := exec.Command("mount", "-o", "loop,pquota", image, at).CombinedOutput(); err != nil {
		t.Skipf("this machine mounts no XFS with quotas: %s", out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	return reopen(t, filepath.Join(at, "overlay2"))
}

func reopen(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) //nolint:errcheck // the test is over
	return s
}

// fill writes up to a mebibyte more than limit into a snapshot, through its overlay, and returns what was taken and
// why no more was.
func fill(t *testing.T, s *Store, key string, limit int) (written int, failed error) {
	t.Helper()
	mounts, err := s.Mounts(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, mounts, func(root string) error {
		f, err := os.Create(root + "/big")
		if err != nil {
			return err
		}
		defer f.Close()
		for block := make([]byte, 1<<16); failed == nil && written < limit+1<<20; {
			var n int
			n, failed = f.Write(block)
			written += n
		}
		if failed == nil {
			failed = f.Sync()
		}
		return os.Remove(root + "/big")
	})
	return written, failed
}

// TestLimit writes beyond the limits of snapshots, of which each has its own, also after the store was opened again.
func TestLimit(t *testing.T) {
	s := quotaStore(t)
	if err := s.CanLimit(); err != nil {
		t.Fatal(err)
	}
	chain := unpack(t, s, base)
	limits := map[string]int{"small": 4 << 20, "big": 8 << 20, "free": 0}
	for key, limit := range limits {
		if _, err := s.Prepare(t.Context(), key, chain); err != nil {
			t.Fatal(err)
		}
		if limit > 0 {
			if err := s.Limit(t.Context(), key, uint64(limit)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		for key, limit := range limits {
			n, err := fill(t, s, key, limit)
			switch {
			case limit == 0 && err != nil:
				t.Errorf("%s: %v after %d bytes, expected no limit", key, err, n)
			case limit > 0 && (!errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) || n > limit || n < limit/2):
				t.Errorf("%s: %v after %d bytes, expected no space after about %d", key, err, n, limit)
			}
		}
		s.Close() //nolint:errcheck // it is opened again
		s = reopen(t, s.root)
	}
	// The next has a project that nobody has; a removed one's limit is gone.
	if _, err := s.Prepare(t.Context(), "next", chain); err != nil {
		t.Fatal(err)
	}
	if err := s.Limit(t.Context(), "next", 1<<20); err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]string{}
	for key := range map[string]bool{"small": true, "big": true, "next": true} {
		name, _, err := s.snapshot(key)
		if err != nil {
			t.Fatal(err)
		}
		id, err := projectOf(filepath.Join(s.root, name))
		if err != nil || id == 0 || seen[id] != "" {
			t.Errorf("%s has the project %d, as has %q; %v", key, id, seen[id], err)
		}
		seen[id] = key
		if err := s.Remove(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	s.removals.Wait()
	report, err := exec.Command("xfs_quota", "-x", "-c", "report -p -n -N", filepath.Dir(s.root)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, report)
	}
	for line := range strings.Lines(string(report)) { // #ID used soft hard ...
		if f := strings.Fields(line); len(f) > 3 && f[0] != "#0" && (f[1] != "0" || f[3] != "0") {
			t.Errorf("after the removal: %s", line)
		}
	}
}

// TestLimitBelowAnother is about a store whose directory has a project itself, as administrators give it, from which
// nothing can be renamed into another.
func TestLimitBelowAnother(t *testing.T) {
	s := quotaStore(t)
	if out, err := exec.Command("xfs_quota", "-x", "-c", "project -s -p "+s.root+" 900", filepath.Dir(s.root)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := s.Prepare(t.Context(), "box", unpack(t, s, base)); err != nil {
		t.Fatal(err)
	}
	if err := s.Limit(t.Context(), "box", 1<<20); err != nil {
		t.Fatal(err)
	}
	name, _, err := s.snapshot("box")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := projectOf(filepath.Join(s.root, name)); err != nil || id != 901 {
		t.Errorf("the project is %d, %v; expected 901", id, err)
	}
	if _, err := fill(t, s, "box", 1<<20); err == nil {
		t.Error("it was written beyond the limit")
	}
	if err := s.Remove(t.Context(), "box"); err != nil {
		t.Error(err)
	}
}

// TestEase mounts a snapshot that is full: while it is eased, so that what fills it can be removed, and no more.
func TestEase(t *testing.T) {
	s := quotaStore(t)
	if _, err := s.Prepare(t.Context(), "box", unpack(t, s, base)); err != nil {
		t.Fatal(err)
	}
	if err := s.Limit(t.Context(), "box", 1<<20); err != nil {
		t.Fatal(err)
	}
	mounts, err := s.Mounts(t.Context(), "box")
	if err != nil {
		t.Fatal(err)
	}
	full := func(root string) error {
		f, err := os.OpenFile(root+"/big", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		for block := make([]byte, 1<<12); err == nil; {
			_, err = f.Write(block)
		}
		if info, statErr := f.Stat(); statErr != nil || info.Size() > 1<<20 || !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			t.Errorf("%v, then %v and %v; expected no space", info, err, statErr)
		}
		return nil
	}
	mounted(t, mounts, full)
	if err := s.Ease(t.Context(), "box", true); err != nil {
		t.Fatal(err)
	}
	mounted(t, mounts, func(root string) error {
		if err := s.Ease(t.Context(), "box", false); err != nil {
			return err
		}
		if err := full(root); err != nil {
			return err
		}
		return os.Remove(root + "/big")
	})
}

// TestNoLimit is about all other filesystems, on which a limit is refused.
func TestNoLimit(t *testing.T) {
	s := open(t)
	if err := s.CanLimit(); err == nil || !strings.Contains(err.Error(), "only for overlay over xfs with 'pquota'") {
		if onXFS(s.root) {
			t.Skip("the temporary directory is an XFS with quotas")
		}
		t.Errorf("%v", err)
	}
}
