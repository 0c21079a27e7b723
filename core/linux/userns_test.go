package linux

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/fault"
)

func TestOutside(t *testing.T) {
	list := []IDMapping{{0, 1000, 1}, {1, 100000, 10}}
	for _, c := range []struct {
		inside, want uint32
		ok           bool
	}{{0, 1000, true}, {1, 100000, true}, {10, 100009, true}, {11, 0, false}, {1 << 31, 0, false}} {
		if got, ok := Outside(list, c.inside); got != c.want || ok != c.ok {
			t.Errorf("%d: got %d, %v; want %d, %v", c.inside, got, ok, c.want, c.ok)
		}
	}
}

func TestUserNamespace(t *testing.T) {
	needUserNamespaces(t)
	uids, gids := []IDMapping{{0, 1000, 1}, {1, 100000, 10}}, []IDMapping{{0, 2000, 5}}
	if os.Geteuid() != 0 {
		uids, gids = []IDMapping{{0, uint32(os.Geteuid()), 1}}, []IDMapping{{0, uint32(os.Getegid()), 1}}
	}
	ns, err := UserNamespace(uids, gids)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	// Joined by a process, it has the mappings.
	var seen []IDMapping
	s := Spawn{
		Join: []Join{{ns, 0}}, Fork: true, Root: true,
		Prepare: func(pid int) (err error) { seen, err = Mappings(pid, "uid_map"); return err },
	}
	out, status := run(t, s, "cat /proc/self/gid_map; id -u")
	want := append(strings.Fields(mapText(gids)), "0")
	if got := strings.Fields(out); !slices.Equal(got, want) || status.ExitStatus() != 0 {
		t.Errorf("got %q, status %d", out, status.ExitStatus())
	}
	if !slices.Equal(seen, uids) {
		t.Errorf("the mappings are %v, want %v", seen, uids)
	}
}

func TestWriteMappingsRefuses(t *testing.T) {
	for _, list := range [][]IDMapping{nil, make([]IDMapping, maxMappings+1)} {
		if err := WriteMappings(os.Getpid(), list, list); !fault.Is(err, fault.Invalid) {
			t.Errorf("%d mappings: got %v, want class invalid", len(list), err)
		}
	}
}

// A failing Prepare must leave no process behind, neither the one in between nor the last.
func TestSpawnEndsBothWhenPrepareFails(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s := Spawn{Program: null, Args: []string{"-"}, Fork: true, Prepare: func(int) error { return errMade }}
	if _, err := s.Start(); err != errMade { //nolint:errorlint // passed on as it is
		t.Errorf("got %v, want what Prepare returned", err)
	}
	if children, err := os.ReadFile("/proc/thread-self/children"); err == nil && len(children) > 0 {
		t.Errorf("children %q are left", children)
	}
}
