package network

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/wire"
)

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name     string
		breaks   func(t *testing.T, h *house, sb *Sandbox) (running map[string]int)
		problem  string
		mendable bool
	}{
		{"no row", func(t *testing.T, h *house, sb *Sandbox) map[string]int {
			e, err := h.m.find("front")
			if err != nil {
				t.Fatal(err)
			}
			if err := h.m.networks.Delete(e.ID); err != nil {
				t.Fatal(err)
			}
			return nil
		}, "the database does not have it", true},
		{"a strange row", func(t *testing.T, h *house, _ *Sandbox) map[string]int {
			if err := h.m.sandboxes.Put("other", record{ID: "other", ContainerID: id(9)}); err != nil {
				t.Fatal(err)
			}
			return nil
		}, "a row of a container that left", true},
		{"no container", func(*testing.T, *house, *Sandbox) map[string]int { return map[string]int{} }, "its container does not run", true},
		{"a strange link", func(t *testing.T, h *house, _ *Sandbox) map[string]int {
			link(t, "sptcheck0", "sampan "+h.m.owner+" endpoint "+id(9))
			return nil
		}, "a network or endpoint that is no more", true},
		{"a link of another", func(t *testing.T, _ *house, _ *Sandbox) map[string]int {
			link(t, "sptcheck0", "sampan 0123456789ab endpoint "+id(9))
			return nil
		}, "", false},
		// The driver of this test makes no interfaces.
		{"no interface", func(*testing.T, *house, *Sandbox) map[string]int { return nil }, "its interface eth0 on network front is missing", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			h.create(wire.NetworkCreateRequest{Name: "front"})
			sb := h.join(JoinRequest{ContainerID: id(1), ContainerName: "web", Mode: "front"})
			pid := inside(t, sb.NetNS)
			running := test.breaks(t, h, sb)
			if running == nil {
				running = map[string]int{id(1): pid}
			}
			look := func() (lines []string, mend func() error) {
				found, err := h.m.Check(t.Context(), running)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range found {
					if strings.Contains(f.Problem, "its interface eth0") && test.problem != "its interface eth0 on network front is missing" {
						continue
					}
					lines = append(lines, f.String())
					if f.Mend != nil {
						mend = func() error { return f.Mend(t.Context()) }
					}
				}
				return lines, mend
			}
			lines, mend := look()
			if test.problem == "" {
				if len(lines) > 0 {
					t.Errorf("found %v", lines)
				}
				return
			}
			if len(lines) != 1 || !strings.Contains(lines[0], test.problem) || (mend != nil) != test.mendable {
				t.Fatalf("found %v, expected one with %q, mendable %t", lines, test.problem, test.mendable)
			}
			if !test.mendable || test.name == "a strange link" { // which this test's driver does not remove
				return
			}
			if err := mend(); err != nil {
				t.Fatal(err)
			}
			if lines, _ = look(); len(lines) > 0 {
				t.Errorf("after it was mended: %v", lines)
			}
		})
	}
}

// link makes a link on the host with an alias; it goes with the test.
func link(t *testing.T, name, alias string) {
	t.Helper()
	for _, args := range [][]string{{"link", "add", name, "type", "bridge"}, {"link", "set", name, "alias", alias}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "delete", name).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}
