package volume

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/wire"
)

// TestOwner: with a mapping of ids volumes belong to its root, also those that an image fills.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away")
	}
	m := open(t, t.TempDir(), func(string) []string { return nil })
	m.o.UID, m.o.GID = 1234, 5678
	v, err := m.Create(t.Context(), wire.VolumeCreateRequest{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(v.Mountpoint, &st); err != nil || st.Uid != 1234 || st.Gid != 5678 {
			t.Errorf("it is of %d:%d, %v", st.Uid, st.Gid, err)
		}
	}
	check()
	err = m.Populate(t.Context(), "data", func(dir string) error { return os.WriteFile(filepath.Join(dir, "file"), nil, 0o600) })
	if err != nil {
		t.Fatal(err)
	}
	check()
}
