package network

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func on() *bool  { b := true; return &b }
func off() *bool { b := false; return &b }

func TestCreateAndInspect(t *testing.T) {
	h := newHouse(t)
	id := h.create(wire.NetworkCreateRequest{
		Name: "front", EnableIPv6: on(), Internal: true, Attachable: true,
		Labels:  map[string]string{"tier": "web"},
		Options: map[string]string{"com.docker.network.driver.mtu": "1400"},
		IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{
			Subnet: "198.19.0.0/16", IPRange: "198.19.5.0/24", Gateway: "198.19.0.254",
			AuxiliaryAddresses: map[string]string{"router": "198.19.5.1"},
		}}},
	})
	got, err := h.m.Inspect(t.Context(), id[:9])
	if err != nil {
		t.Fatal(err)
	}
	if len(got.IPAM.Config) != 2 || !strings.HasPrefix(got.IPAM.Config[1].Subnet, "fd") {
		t.Fatalf("subnets %+v", got.IPAM.Config)
	}
	want := wire.NetworkInspect{
		Name: "front", ID: id, Created: got.Created, Scope: "local", Driver: "bridge", EnableIPv4: true, EnableIPv6: true,
		IPAM: wire.IPAM{Driver: "default", Config: []wire.IPAMConfig{
			{Subnet: "198.19.0.0/16", IPRange: "198.19.5.0/24", Gateway: "198.19.0.254", AuxiliaryAddresses: map[string]string{"router": "198.19.5.1"}},
			got.IPAM.Config[1],
		}},
		Internal: true, Attachable: true, Containers: map[string]wire.NetworkEndpoint{},
		Options: map[string]string{"com.docker.network.driver.mtu": "1400"}, Labels: map[string]string{"tier": "web"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := h.driver.networks[id]; n.Options["mtu"] != "1400" || len(n.Options) != 1 {
		t.Errorf("the driver sees options %v", n.Options)
	}
	// The daemon's next life knows it as well.
	h.restart(nil)
	again, err := h.m.Inspect(t.Context(), "front")
	if d := cmp.Diff(got, again); err != nil || d != "" {
		t.Error(err, d)
	}
	sb := h.join(JoinRequest{ContainerID: "c1", ContainerName: "c1", Mode: "front", Endpoints: map[string]*wire.EndpointSettings{"front": {}}})
	ep := sb.Settings.Networks["front"]
	if ep.IPAddress != "198.19.5.0" || !strings.HasPrefix(ep.GlobalIPv6Address, "fd") || ep.Gateway != "" {
		t.Errorf("endpoint %+v: want the first free address of the range, an IPv6 one, and no way out", ep)
	}
	h.leave("c1")
	h.empty()
}

func TestCreateRefuses(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front", IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: "198.19.1.0/24"}}}})
	plan := func(c ...wire.IPAMConfig) wire.NetworkCreateRequest {
		return wire.NetworkCreateRequest{Name: "n", IPAM: &wire.IPAM{Config: c}}
	}
	for _, tc := range []struct {
		r     wire.NetworkCreateRequest
		class fault.Class
		want  string
	}{
		{wire.NetworkCreateRequest{}, fault.Invalid, "name is empty"},
		{wire.NetworkCreateRequest{Name: "a b"}, fault.Invalid, `invalid network name "a b"`},
		{wire.NetworkCreateRequest{Name: strings.Repeat("a", 300)}, fault.Invalid, "at most 255"},
		{wire.NetworkCreateRequest{Name: "bridge"}, fault.Forbidden, "operation is not permitted on predefined bridge network"},
		{wire.NetworkCreateRequest{Name: "front"}, fault.Conflict, "network with name front already exists"},
		{wire.NetworkCreateRequest{Name: "n", Driver: "host"}, fault.Forbidden, `only one instance of "host" network is allowed`},
		{wire.NetworkCreateRequest{Name: "n", Driver: "brige"}, fault.NotFound, "brige"},
		{wire.NetworkCreateRequest{Name: "n", Ingress: true}, fault.Forbidden, "Ingress network can only be global scope network"},
		{wire.NetworkCreateRequest{Name: "n", EnableIPv4: off()}, fault.Invalid, "IPv4 or IPv6 must be enabled"},
		{wire.NetworkCreateRequest{Name: "n", Options: map[string]string{"com.docker.network.driver.mtuu": "1"}}, fault.Invalid, `did you mean "com.docker.network.driver.mtu"?`},
		{wire.NetworkCreateRequest{Name: "n", Options: map[string]string{"mtu": "9"}}, fault.Invalid, "a whole number from 68 to 65535"},
		{wire.NetworkCreateRequest{Name: "n", Options: map[string]string{"icc": "maybe"}}, fault.Invalid, "true or false"},
		{plan(wire.IPAMConfig{Subnet: "198.19.2.1/24"}), fault.Invalid, "invalid subnet 198.19.2.1/24: it should be 198.19.2.0/24"},
		{plan(wire.IPAMConfig{Subnet: "many"}), fault.Invalid, "invalid CIDR block notation"},
		{plan(wire.IPAMConfig{Gateway: "198.19.2.1"}), fault.Invalid, "need a subnet"},
		{plan(wire.IPAMConfig{Subnet: "198.19.2.0/24", Gateway: "10.0.0.1"}), fault.Invalid, "parent subnet 198.19.2.0/24 doesn't contain this address"},
		{plan(wire.IPAMConfig{Subnet: "198.19.2.0/24", Gateway: "fd00::1"}), fault.Invalid, "parent subnet is an IPv4 block"},
		{plan(wire.IPAMConfig{Subnet: "198.19.2.0/24", IPRange: "198.19.3.0/25"}), fault.Invalid, "doesn't contain ip-range"},
		{plan(wire.IPAMConfig{Subnet: "198.19.0.0/16"}), fault.Forbidden, "Pool overlaps with other one on this address space"},
		{plan(wire.IPAMConfig{Subnet: "198.19.2.0/24"}, wire.IPAMConfig{Subnet: "198.19.2.0/25"}), fault.Forbidden, "Pool overlaps"},
		{wire.NetworkCreateRequest{Name: "n", IPAM: &wire.IPAM{Driver: "dhcp"}}, fault.Invalid, "IPAM driver"},
	} {
		t.Run(tc.want, func(t *testing.T) {
			_, err := h.m.Create(t.Context(), tc.r)
			if !fault.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v (%v), want %q (%v)", err, fault.ClassOf(err), tc.want, tc.class)
			}
		})
	}
	if n := len(h.driver.networks); n != 2 {
		t.Errorf("the driver has %d networks, want the default one and front", n)
	}
}

func TestCreateFailsInTheDriver(t *testing.T) {
	h := newHouse(t)
	h.driver.set("CreateNetwork", errors.New("no such device"))
	if _, err := h.m.Create(t.Context(), wire.NetworkCreateRequest{Name: "front"}); err == nil {
		t.Fatal("no error")
	}
	h.driver.set("CreateNetwork", nil)
	if n := len(h.driver.networks); n != 1 {
		t.Errorf("the driver has %d networks, want 1", n)
	}
	h.create(wire.NetworkCreateRequest{Name: "front"})
}

func TestCreateSaysWhichSubnetIsNotUsed(t *testing.T) {
	h := newHouse(t)
	n, err := h.m.Create(t.Context(), wire.NetworkCreateRequest{Name: "n", EnableIPv6: off(), IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: "fd00:1::/64"}}}})
	if err != nil || !strings.Contains(n.Warning, "fd00:1::/64") {
		t.Errorf("got %+v, %v", n, err)
	}
	id := h.create(wire.NetworkCreateRequest{Name: "six", EnableIPv4: off(), IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: "fd00:2::/64"}}}})
	sb := h.join(JoinRequest{ContainerID: "c1", Mode: id})
	if ep := sb.Settings.Networks["six"]; ep.IPAddress != "" || ep.GlobalIPv6Address != "fd00:2::2" || ep.IPv6Gateway != "fd00:2::1" {
		t.Errorf("endpoint %+v", ep)
	}
}

func names(list []wire.NetworkInspect) (names []string) {
	for _, n := range list {
		names = append(names, n.Name)
	}
	return names
}

func TestListFilters(t *testing.T) {
	h := newHouse(t)
	front := h.create(wire.NetworkCreateRequest{Name: "front", Labels: map[string]string{"tier": "web", "env": "x"}})
	h.create(wire.NetworkCreateRequest{Name: "back"})
	h.join(JoinRequest{ContainerID: id(1), Mode: "front"})
	for _, tc := range []struct {
		filters map[string][]string
		want    []string
	}{
		{map[string][]string{"name": {"fro"}}, []string{"front"}},
		{map[string][]string{"name": {"^ba.k$"}}, []string{"back"}},
		{map[string][]string{"id": {front[:20]}}, []string{"front"}},
		{map[string][]string{"driver": {"host", "null"}, "name": {"host"}}, []string{"host"}},
		{map[string][]string{"type": {"custom"}}, []string{"front", "back"}},
		{map[string][]string{"label": {"tier=web", "env"}}, []string{"front"}},
		{map[string][]string{"label": {"tier=web", "env=y"}}, nil},
		{map[string][]string{"dangling": {"true"}}, []string{"back"}},
		{map[string][]string{"dangling": {"false"}, "type": {"custom"}}, []string{"front"}},
		{map[string][]string{"scope": {"swarm"}}, nil},
	} {
		list, err := h.m.List(t.Context(), tc.filters)
		if d := cmp.Diff(tc.want, names(list)); err != nil || d != "" {
			t.Errorf("%v: %v %s", tc.filters, err, d)
		}
	}
	if list, err := h.m.List(t.Context(), nil); err != nil || len(list) != 5 {
		t.Errorf("all: %v, %v", names(list), err)
	}
	if _, err := h.m.List(t.Context(), map[string][]string{"nam": {"x"}}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `did you mean "name"?`) {
		t.Errorf("unknown filter: %v", err)
	}
}

func TestRemove(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.join(JoinRequest{ContainerID: id(1), ContainerName: "db", Mode: "front"})
	for ref, tc := range map[string]struct {
		class fault.Class
		want  string
	}{
		"front":   {fault.Forbidden, `network front has active endpoints (name:"db" id:"` + id(1)[:12] + `")`},
		"bridge":  {fault.Forbidden, "bridge is a pre-defined network and cannot be removed"},
		"nowhere": {fault.NotFound, "network nowhere not found"},
		"":        {fault.NotFound, "network  not found"},
	} {
		if err := h.m.Remove(t.Context(), ref); !fault.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	h.leave(id(1))
	if err := h.m.Remove(t.Context(), "front"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.m.Resolve("front"); !fault.Is(err, fault.NotFound) {
		t.Errorf("after its removal: %v", err)
	}
	if n := len(h.driver.networks); n != 1 {
		t.Errorf("the driver has %d networks", n)
	}
	h.empty()
	// Its subnet is free again.
	again := h.create(wire.NetworkCreateRequest{Name: "next"})
	if n, _ := h.m.Resolve(again); n.Subnets[0].Prefix != netip.MustParsePrefix("198.18.1.0/24") {
		t.Errorf("subnet %v", n.Subnets)
	}
}

func TestRemoveFailsInTheDriver(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.driver.set("DeleteNetwork", errors.New("busy"))
	if err := h.m.Remove(t.Context(), "front"); err == nil {
		t.Fatal("no error")
	}
	h.driver.set("DeleteNetwork", nil)
	h.join(JoinRequest{ContainerID: id(1), Mode: "front"}) // it is whole
	h.leave(id(1))
	if err := h.m.Remove(t.Context(), "front"); err != nil {
		t.Fatal(err)
	}
}

func TestPrune(t *testing.T) {
	h := newHouse(t)
	for _, n := range []string{"used", "old", "kept"} {
		h.create(wire.NetworkCreateRequest{Name: n, Labels: map[string]string{n: "1"}})
	}
	h.join(JoinRequest{ContainerID: id(1), Mode: "used"})
	got, err := h.m.Prune(t.Context(), map[string][]string{"until": {"1h"}})
	if err != nil || len(got.NetworksDeleted) != 0 {
		t.Errorf("all are younger than an hour: %v, %v", got, err)
	}
	got, err = h.m.Prune(t.Context(), map[string][]string{"label!": {"kept"}})
	if d := cmp.Diff([]string{"old"}, got.NetworksDeleted); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, filters := range []map[string][]string{{"name": {"x"}}, {"until": {"soon"}}, {"until": {"1h", "2h"}}} {
		if _, err := h.m.Prune(t.Context(), filters); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", filters, err)
		}
	}
}

func TestDefaultBridge(t *testing.T) {
	h := newHouse(t)
	first, err := h.m.Resolve("default")
	if err != nil || first.Name != "bridge" || h.driver.networks[first.ID].Options["name"] != "sampan0" {
		t.Fatalf("got %+v, %v", first, err)
	}
	h.restart(nil)
	if again, _ := h.m.Resolve("bridge"); again.ID != first.ID {
		t.Error("the same options make the same network")
	}
	h.options.BIP, h.options.DefaultOption = "198.18.77.1/24", map[string]string{"mtu": "1400"}
	h.restart(nil)
	n, _ := h.m.Resolve("bridge")
	if n.Subnets[0].Prefix.String() != "198.18.77.0/24" || n.Subnets[0].Gateway.String() != "198.18.77.1" {
		t.Errorf("subnets %+v", n.Subnets)
	}
	if got := h.driver.networks[n.ID].Options; got["mtu"] != "1400" || len(h.driver.networks) != 1 {
		t.Errorf("the driver has %v", h.driver.networks)
	}
}

// A daemon comes up without its driver; the first container that needs it has it made.
func TestDriverIsThereLater(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.driver.set("Reconcile", errors.New("not ready"))
	h.stop()
	h.open()
	clear(h.driver.networks)
	if err := h.m.Reconcile(context.Background(), nil); err == nil {
		t.Fatal("no error")
	}
	h.join(JoinRequest{ContainerID: id(1), Mode: "front"})
	h.leave(id(1))
	h.driver.set("Reconcile", nil) // for which it is asked until it does
	h.empty()
}

// An engine that is off leaves nothing on the host, and makes it again when it comes up.
func TestDown(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	if err := h.m.Down(t.Context()); err != nil || len(h.driver.networks) != 0 {
		t.Errorf("after the end: %v, %v", h.driver.networks, err)
	}
	h.restart(nil)
	if len(h.driver.networks) != 2 {
		t.Errorf("after the next start: %v", h.driver.networks)
	}
	h.join(JoinRequest{ContainerID: id(1), Mode: "front"})
	h.leave(id(1))
	h.empty()
}
