package cgroup

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Cgroups look empty until the first process is in them. Another creation does not take them for old ones.
func TestCgroupOfACreation(t *testing.T) {
	needCgroups(t)
	t.Cleanup(removeParent)
	m, err := New(name(t), permitted(nil), Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := inodes(t, m)
	other, err := New(m.path, permitted(nil), Options{})
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), m.path+" is being used by another creation") || strings.Contains(err.Error(), "\n") {
		t.Errorf("manager %v, error %v; expected one line of a conflict", other, err)
	}
	if now := inodes(t, m); now != before {
		t.Errorf("directories %s, before %s", now, before)
	}
	m.Release()
	m.Release()
	if other, err = New(m.path, permitted(nil), Options{}); err != nil {
		t.Fatalf("after the release: %v", err)
	}
	if !m.DeleteEmpty() || inodes(t, other) == "" {
		t.Error("the first one's removal took the cgroups that replaced its own")
	}
	if err := other.Delete(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(other.host.first().mount + other.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its own removal: %v", err)
	}
	other.Release()
}

// inodes tell the cgroups of a manager from others of the same path.
func inodes(t *testing.T, m *Manager) (list string) {
	t.Helper()
	for _, h := range m.made {
		n, err := inode(h.mount + m.path)
		if err != nil {
			t.Error(err)
		}
		list += " " + strconv.FormatUint(n, 10)
	}
	return list
}

// Of many creations of one path at the same time one has it, whole, while others come and go.
func TestManyCreationsOfOnePath(t *testing.T) {
	needCgroups(t)
	t.Cleanup(removeParent)
	removeParent()
	var group sync.WaitGroup
	var having, made atomic.Int32
	for range 8 {
		group.Go(func() {
			for range 20 {
				m, err := New(name(t), permitted(nil), Options{})
				if fault.Is(err, fault.Conflict) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				made.Add(1)
				if n := having.Add(1); n != 1 {
					t.Errorf("%d have the path", n)
				}
				inodes(t, m) // says so when one is missing
				having.Add(-1)
				if err := m.Delete(); err != nil {
					t.Error(err)
				}
				m.Release()
			}
		})
	}
	group.Wait()
	if made.Load() == 0 {
		t.Error("none was made")
	}
}

// The lock ends with the process that has it, and what it has left is replaced.
func TestCgroupsOfACreationThatWasCutOff(t *testing.T) {
	needCgroups(t)
	t.Cleanup(removeParent)
	m, err := New(name(t), permitted(nil), Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.lock.Close() // which is what a kill comes to
	other, err := New(m.path, permitted(nil), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Delete(); err != nil {
		t.Error(err)
	}
	other.Release()
}

// A process does not begin in fewer cgroups than were made for it.
func TestAMissingCgroupIsAnError(t *testing.T) {
	m := create(t, nil, Options{})
	if m.Unified() {
		t.Skip("needs a host with cgroup v1")
	}
	h := m.made[len(m.made)-1]
	if err := unix.Rmdir(h.mount + m.path); err != nil {
		t.Fatal(err)
	}
	for what, open := range map[string]func() ([]*os.File, error){"tasks": m.Tasks, "joins": m.Joins} {
		files, err := open()
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), h.mount+m.path+"/tasks") {
			t.Errorf("%s: %d files, %v; expected an error that names %s", what, len(files), err, h.mount)
		}
	}
	// Those that were there before are joined as they are.
	loaded, err := Load(m.path)
	if err != nil {
		t.Fatal(err)
	}
	files, err := loaded.Tasks()
	if err != nil || len(files) != len(m.made)-1 {
		t.Errorf("%d files, %v; expected %d", len(files), err, len(m.made)-1)
	}
	for _, f := range files {
		f.Close()
	}
}
