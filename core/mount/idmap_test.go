package mount

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

func TestTreeMapsIDs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts are made by root")
	}
	userns, err := linux.UserNamespace([]linux.IDMapping{{Inside: 7, Outside: 70, Size: 1}}, []linux.IDMapping{{Inside: 8, Outside: 80, Size: 1}})
	if errors.Is(err, unix.EPERM) {
		t.Skip("the kernel makes no user namespace here")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer userns.Close()
	dir := t.TempDir()
	if err := os.Chown(dir, 7, 8); err != nil {
		t.Fatal(err)
	}
	bind := Mount{Type: "bind", Source: dir, Target: "/x", Options: []string{"idmap"}}
	tree, err := bind.Tree(userns)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if st, err := linux.Fstat(tree); err != nil || st.Uid != 70 || st.Gid != 80 {
		t.Errorf("got %d:%d, %v; want 70:80", st.Uid, st.Gid, err)
	}
	bind.Source = "/proc"
	if _, err := bind.Tree(userns); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("a filesystem that cannot: got %v, want class not implemented", err)
	}
}

func TestIDMapIsForBinds(t *testing.T) {
	if _, err := (Mount{Type: "tmpfs", Options: []string{"idmap"}}).ParseOptions(); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("got %v, want class not implemented", err)
	}
	root, err := linux.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := (Mount{Type: "bind", Source: "/", Target: "/x", Options: []string{"ridmap"}}).Attach(root); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("without a mapping: got %v, want class not implemented", err)
	}
}
