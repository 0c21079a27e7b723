package network

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// dies has the driver's process die at the end of the next call of a method: that call fails though it has
// done its work, and so does every other until the driver comes back. Before it dies it does the rest.
func (d *fakeDriver) dies(method string, rest ...func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = func(now string) {
		if now != method {
			return
		}
		d.mu.Lock()
		d.hook = nil
		d.mu.Unlock()
		for _, do := range rest {
			do()
		}
		for _, m := range []string{"CreateNetwork", "DeleteNetwork", "Attach", "Detach", "Reconcile"} {
			d.set(m, fault.New(fault.Unavailable, "network driver bridge failed in %s: it ended: signal: killed", method))
		}
	}
}

// comesBack is the next process of the driver, which nobody was told of.
func (d *fakeDriver) comesBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.fail)
}

// networks are those of a container, by the daemon's knowledge and by its row.
func (h *house) networks(id string) (memory, row string) {
	h.t.Helper()
	rows, err := h.m.sandboxes.List()
	if err != nil {
		h.t.Fatal(err)
	}
	h.m.mu.RLock()
	defer h.m.mu.RUnlock()
	var known, written []string
	for _, ep := range h.m.joined[id].Endpoints {
		known = append(known, ep.Network)
	}
	for _, r := range rows {
		for _, ep := range r.Endpoints {
			if r.ContainerID == id && !r.Dead {
				written = append(written, ep.Network)
			}
		}
	}
	return strings.Join(known, " "), strings.Join(written, " ")
}

// on checks where a container is, by all who know.
func (h *house) on(id, want string) {
	h.t.Helper()
	memory, row := h.networks(id)
	var driver []string
	for _, network := range strings.Fields(memory) {
		n, err := h.m.Resolve(network)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, ep := range h.driver.holds()[id] {
			if ep.NetworkID == n.ID {
				driver = append(driver, network)
			}
		}
	}
	if has := len(h.driver.holds()[id]); memory != want || row != want || strings.Join(driver, " ") != want || has != len(driver) {
		h.t.Errorf("the container is on %q, by its row on %q, by the driver on %q and %d in all; want %q", memory, row, driver, has, want)
	}
}

// gateway returns the network through which the driver leads the container's default route.
func (h *house) gateway(id string) string {
	h.t.Helper()
	var names []string
	for _, ep := range h.driver.holds()[id] {
		if len(ep.Gateways) > 0 {
			n, err := h.m.Resolve(ep.NetworkID)
			if err != nil {
				h.t.Fatal(err)
			}
			names = append(names, n.Name)
		}
	}
	return strings.Join(names, " ")
}

// buried checks that nobody is among the dead, in memory and in the rows.
func (h *house) buried() {
	h.t.Helper()
	rows, err := h.m.sandboxes.List()
	if err != nil {
		h.t.Fatal(err)
	}
	h.m.mu.RLock()
	defer h.m.mu.RUnlock()
	for _, r := range rows {
		if r.Dead || len(h.m.dead) > 0 {
			h.t.Errorf("%d are dead, and there is the row %+v", len(h.m.dead), r)
		}
	}
}

// A driver that dies while it connects a container can take nothing back. The container is not on the network
// all the same, and what was made is removed when the driver is there again, whoever notices that first.
func TestDriverDiesInConnect(t *testing.T) {
	for name, back := range map[string]func(*house){
		"told of its restart": func(h *house) { h.drivers.restart("bridge") },
		"asked again":         func(h *house) { h.settled() },
		"asked by the next connect": func(h *house) {
			if _, err := h.m.ConnectRunning(t.Context(), "front", id(1), 0, nil); err != nil {
				t.Fatal(err)
			}
			h.on(id(1), "back front")
			if _, err := h.m.DisconnectRunning(t.Context(), "front", id(1), 0); err != nil {
				t.Fatal(err)
			}
		},
		"told by the next daemon": func(h *house) { h.restart(map[string]int{id(1): inside(t, h.m.joined[id(1)].ns)}) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.create(wire.NetworkCreateRequest{Name: "back"})
			h.create(wire.NetworkCreateRequest{Name: "front"})
			h.join(JoinRequest{ContainerID: id(1), ContainerName: "app", Mode: "back"})
			h.driver.dies("Attach")
			if _, err := h.m.ConnectRunning(t.Context(), "front", id(1), 0, nil); !fault.Is(err, fault.Unavailable) {
				t.Fatalf("connect: %v", err)
			}
			if memory, row := h.networks(id(1)); memory != "back" || row != "back" {
				t.Errorf("after the connect that failed it is on %q, by its row on %q", memory, row)
			}
			if got := h.driver.holds()[id(1)]; len(got) != 2 {
				t.Fatalf("the driver has %v: the test is about one that has made it", got)
			}
			// Until it is removed nobody else gets its address.
			front, err := h.m.find("front")
			if err != nil {
				t.Fatal(err)
			}
			if p, err := front.space.Reserve(netip.MustParseAddr("198.18.2.2")); err == nil {
				t.Errorf("the address %s of what is left is free", p)
			}
			h.driver.comesBack()
			back(h)
			h.settled()
			h.on(id(1), "back")
			h.buried()
			sb, err := h.m.ConnectRunning(t.Context(), "front", id(1), 0, nil)
			if err != nil || sb.Settings.Networks["front"].IPAddress != "198.18.2.2" {
				t.Errorf("connect again: %+v, %v", sb, err)
			}
			h.on(id(1), "back front")
			h.leave(id(1))
			h.empty()
		})
	}
}

// What gave its default route up to a network that it then was not connected to has it again.
func TestDriverDiesWhileGatewayMoves(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "back"})
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.join(JoinRequest{ContainerID: id(1), Mode: "front"})
	h.driver.dies("Attach") // of front, which gives the route up for back
	if _, err := h.m.ConnectRunning(t.Context(), "back", id(1), 0, nil); err == nil {
		t.Fatal("no error")
	}
	h.driver.comesBack()
	h.settled()
	h.on(id(1), "front")
	if got := h.gateway(id(1)); got != "front" {
		t.Errorf("default route through %q, want front", got)
	}
	// A disconnect that has come to pass holds when the driver dies before it has moved the route.
	if _, err := h.m.ConnectRunning(t.Context(), "back", id(1), 0, nil); err != nil {
		t.Fatal(err)
	}
	h.driver.dies("Attach")
	if _, err := h.m.DisconnectRunning(t.Context(), "back", id(1), 0); err != nil {
		t.Fatal(err)
	}
	h.driver.mu.Lock()
	for id, e := range h.driver.endpoints {
		e.Gateways = nil
		h.driver.endpoints[id] = e
	}
	h.driver.mu.Unlock()
	h.driver.comesBack()
	h.settled()
	h.on(id(1), "front")
	if got := h.gateway(id(1)); got != "front" {
		t.Errorf("default route through %q, want front", got)
	}
	h.leave(id(1))
	h.empty()
}

// A disconnect that failed has not been: what the driver had removed already it makes again.
func TestDriverDiesInDisconnect(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.join(JoinRequest{ContainerID: id(1), Mode: "front"})
	restarted := make(chan struct{})
	h.driver.dies("Detach", func() {
		h.driver.mu.Lock()
		defer h.driver.mu.Unlock()
		clear(h.driver.endpoints)
		// The next process is there before the engine has seen that this call failed.
		go func() {
			defer close(restarted)
			for h.driver.count("Detach") == 0 {
				time.Sleep(time.Millisecond)
			}
			h.driver.comesBack()
			h.drivers.restart("bridge")
		}()
	})
	if _, err := h.m.DisconnectRunning(t.Context(), "front", id(1), 0); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("disconnect: %v", err)
	}
	<-restarted
	h.settled()
	h.on(id(1), "front")
	h.leave(id(1))
	h.empty()
}

// A network whose removal failed is there, also when its driver had removed it.
func TestDriverDiesInRemove(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.driver.dies("DeleteNetwork", func() {
		h.driver.mu.Lock()
		defer h.driver.mu.Unlock()
		clear(h.driver.networks)
	})
	if err := h.m.Remove(t.Context(), "front"); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("remove: %v", err)
	}
	h.driver.comesBack()
	h.join(JoinRequest{ContainerID: id(1), Mode: "front"}) // it need not wait for that
	h.on(id(1), "front")
	h.leave(id(1))
	h.settled()
	if len(h.driver.networks) != 2 {
		t.Errorf("the driver has %d networks, want 2", len(h.driver.networks))
	}
	if err := h.m.Remove(t.Context(), "front"); err != nil {
		t.Error(err)
	}
	h.empty()
}

// What a driver made of a network whose creation failed it removes when it can.
func TestDriverDiesInCreate(t *testing.T) {
	h := newHouse(t)
	h.driver.dies("CreateNetwork")
	if _, err := h.m.Create(t.Context(), wire.NetworkCreateRequest{Name: "front"}); err == nil {
		t.Fatal("no error")
	}
	if len(h.driver.networks) != 2 {
		t.Fatalf("the driver has %d networks: the test is about one that has made it", len(h.driver.networks))
	}
	h.driver.comesBack()
	h.settled()
	if len(h.driver.networks) != 1 {
		t.Errorf("the driver has %d networks, want the default one", len(h.driver.networks))
	}
	h.create(wire.NetworkCreateRequest{Name: "front"})
}

// A container that was starting, or has ended, gives its address and its ports back when the driver is there
// again, without a restart of the daemon.
func TestDriverDiesInJoinAndLeave(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.create(wire.NetworkCreateRequest{Name: "back"})
	r := web(1, freePort(t))
	r.Mode = "back"
	r.Endpoints = map[string]*wire.EndpointSettings{"back": {}, "front": {}}
	h.driver.dies("Attach")
	if _, err := h.m.Join(t.Context(), r); err == nil {
		t.Fatal("no error")
	}
	h.driver.comesBack()
	h.join(r).close() // at once: it is not kept from its own port
	h.on(id(1), "back front")
	h.driver.dies("Detach")
	h.leave(id(1))
	h.m.drain(t.Context())
	h.driver.comesBack()
	h.empty()
	r.ContainerID = id(2)
	if sb := h.join(r); sb.Settings.Networks["front"].IPAddress != "198.18.1.2" {
		t.Errorf("address %s, want that of the one that left", sb.Settings.Networks["front"].IPAddress)
	}
	h.leave(id(2))
	h.empty()
}
