package netns

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestCreateHasLoopbackUp(t *testing.T) {
	ns, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = Do(ns, func() error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		if len(links) != 1 || links[0].Name != "lo" || links[0].Flags&net.FlagUp == 0 {
			t.Errorf("interfaces of a fresh namespace: %v, want lo up", links)
		}
		// A socket that is made inside stays inside.
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		return l.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCreateSettings checks what holds for every process and for interfaces to come.
func TestCreateSettings(t *testing.T) {
	ns, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = Do(ns, func() error {
		for name, want := range map[string]string{
			"ipv4/ip_unprivileged_port_start": "0", "ipv4/ping_group_range": "0\t2147483647",
			"ipv6/conf/default/disable_ipv6": "1", "ipv6/conf/lo/disable_ipv6": "0",
		} {
			got, err := os.ReadFile("/proc/sys/net/" + name)
			if errors.Is(err, os.ErrNotExist) {
				continue // a kernel without it
			}
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("net/%s is %q, %v; expected %q", name, got, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCreateInBelongsToUserNamespace(t *testing.T) {
	ids := []linux.IDMapping{{Inside: 0, Outside: 100000, Size: 1000}}
	user, err := linux.UserNamespace(ids, ids)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("no user namespace can be made on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	ns, err := CreateIn(user)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	fd, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		t.Fatal(err)
	}
	owner := os.NewFile(uintptr(fd), "owner")
	defer owner.Close()
	if inode(t, owner) != inode(t, user) {
		t.Error("it belongs to another user namespace")
	}
	err = Do(ns, func() error {
		text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
		if err == nil && string(text) != "0\n" {
			t.Errorf("ip_unprivileged_port_start is %q", text)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDoReturnsHome(t *testing.T) {
	ns, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	for range 50 {
		var inside uint64
		if err := Do(ns, func() error {
			f, err := current()
			if err != nil {
				return err
			}
			defer f.Close()
			inside = inode(t, f)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if inside != inode(t, ns) {
			t.Fatal("Do did not run in the namespace")
		}
		f, err := current()
		if err != nil {
			t.Fatal(err)
		}
		if inode(t, f) != inode(t, home) {
			t.Fatal("a thread stayed in the namespace")
		}
		f.Close()
	}
}

func TestDoSurvivesPanic(t *testing.T) {
	ns, err := Create()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := Do(ns, func() error { panic("inside") }); err == nil {
		t.Fatal("a panic inside is an error")
	}
}

func TestPoolGivesEachOnce(t *testing.T) {
	p := NewPool(2, slog.New(slog.DiscardHandler))
	defer p.Close()
	seen := map[uint64]bool{}
	for range 8 {
		f, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if n := inode(t, f); seen[n] {
			t.Fatal("the same namespace twice")
		} else {
			seen[n] = true
		}
	}
}
