package container

import (
	"context"
	"slices"
	"testing"

	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/wire"
)

// places is a fakeNetwork that knows which networks a running container is on.
type places struct {
	*fakeNetwork
	on []string
}

func (p *places) ConnectRunning(_ context.Context, ref, _ string, _ int, _ *wire.EndpointSettings) (*network.Sandbox, error) {
	p.on = append(p.on, ref)
	return &network.Sandbox{}, nil
}

func (p *places) DisconnectRunning(_ context.Context, ref, _ string, _ int) (*network.Sandbox, error) {
	p.on = slices.DeleteFunc(p.on, func(o string) bool { return o == ref })
	return &network.Sandbox{}, nil
}

func (p *places) Settings(string) wire.NetworkSettings {
	s := wire.NetworkSettings{SandboxID: "there", Networks: map[string]*wire.EndpointSettings{}}
	for _, name := range p.on {
		s.Networks[name] = &wire.EndpointSettings{NetworkID: name}
	}
	return s
}

func (p *places) Resolve(ref string) (network.Network, error) {
	return network.Network{ID: ref, Name: ref}, nil
}

// A connect or disconnect that cannot be written down is taken back.
func TestNetworksThatCannotBeKept(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "box", nil)
	p := &places{fakeNetwork: h.network, on: []string{"bridge"}}
	h.o.Network = p
	if err := h.ConnectNetwork(t.Context(), "front", wire.NetworkConnect{Container: id}); err != nil {
		t.Fatal(err)
	}
	if err := h.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.ConnectNetwork(t.Context(), "back", wire.NetworkConnect{Container: id}); err == nil || !slices.Equal(p.on, []string{"bridge", "front"}) {
		t.Errorf("connect: %v, and it is on %v", err, p.on)
	}
	if err := h.DisconnectNetwork(t.Context(), "front", wire.NetworkDisconnect{Container: id}); err == nil || !slices.Equal(p.on, []string{"bridge", "front"}) {
		t.Errorf("disconnect: %v, and it is on %v", err, p.on)
	}
}
