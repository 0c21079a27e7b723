package sdk

import (
	"context"

	networkv1 "github.com/sampan-project/sampan/proto/sampan/network/v1"
)

// networkServer is the gRPC side of a NetworkDriver: it checks what comes in, so that no driver
// sees a malformed value.
type networkServer[O any] struct {
	networkv1.UnimplementedNetworkDriverServer
	driver NetworkDriver[O]
	schema *Schema
}

func (s *networkServer[O]) CreateNetwork(ctx context.Context, r *networkv1.CreateNetworkRequest) (*networkv1.CreateNetworkResponse, error) {
	n, settings, err := parseNetwork[O](r.GetNetwork(), s.schema)
	if err != nil {
		return nil, err
	}
	c, err := s.driver.CreateNetwork(ctx, n)
	if err != nil {
		return nil, err
	}
	out := &networkv1.CreateNetworkResponse{Settings: settings, InterfacePrefix: c.InterfacePrefix}
	if out.InterfacePrefix == "" {
		out.InterfacePrefix = "eth"
	}
	if c.PublishAddress.IsValid() {
		out.PublishAddress = c.PublishAddress.String()
	}
	return out, nil
}

func (s *networkServer[O]) DeleteNetwork(ctx context.Context, r *networkv1.DeleteNetworkRequest) (*networkv1.DeleteNetworkResponse, error) {
	n, err := parseOldNetwork[O](r.GetNetwork(), s.schema)
	if err != nil {
		return nil, err
	}
	return &networkv1.DeleteNetworkResponse{}, s.driver.DeleteNetwork(ctx, n)
}

func (s *networkServer[O]) Attach(ctx context.Context, r *networkv1.AttachRequest) (*networkv1.AttachResponse, error) {
	n, e, err := s.both(r.GetNetwork(), r.GetEndpoint())
	if err != nil {
		return nil, err
	}
	if e.NetNS == "" || e.Interface == "" {
		return nil, &FieldError{Field: "netns", Given: e.NetNS, Expected: "the path of a network namespace, and a name for the interface"}
	}
	a, err := s.driver.Attach(ctx, n, e)
	if err != nil {
		return nil, err
	}
	return &networkv1.AttachResponse{HostInterface: a.HostInterface, Mac: a.MAC.String()}, nil
}

func (s *networkServer[O]) Detach(ctx context.Context, r *networkv1.DetachRequest) (*networkv1.DetachResponse, error) {
	n, err := parseOldNetwork[O](r.GetNetwork(), s.schema)
	if err != nil {
		return nil, err
	}
	e, err := endpointOf(n.ID, r.GetEndpoint())
	if err != nil {
		return nil, err
	}
	return &networkv1.DetachResponse{}, s.driver.Detach(ctx, n, e)
}

func (s *networkServer[O]) Reconcile(ctx context.Context, r *networkv1.ReconcileRequest) (*networkv1.ReconcileResponse, error) {
	if err := checkHex("owner", r.GetOwner(), 12); err != nil {
		return nil, err
	}
	var networks []Network[O]
	known := map[string]bool{}
	for _, p := range r.GetNetworks() {
		n, _, err := parseNetwork[O](p, s.schema)
		if err != nil {
			return nil, err
		}
		known[n.ID] = true
		networks = append(networks, n)
	}
	var endpoints []Endpoint
	for _, p := range r.GetEndpoints() {
		e, err := parseEndpoint(p)
		if err != nil {
			return nil, err
		}
		if !known[e.NetworkID] {
			return nil, &FieldError{Field: "network of endpoint", Given: e.NetworkID, Expected: "one of the networks of the same call"}
		}
		endpoints = append(endpoints, e)
	}
	return &networkv1.ReconcileResponse{}, s.driver.Reconcile(ctx, r.GetOwner(), networks, endpoints)
}

func (s *networkServer[O]) both(pn *networkv1.Network, pe *networkv1.Endpoint) (Network[O], Endpoint, error) {
	n, _, err := parseNetwork[O](pn, s.schema)
	if err != nil {
		return n, Endpoint{}, err
	}
	e, err := endpointOf(n.ID, pe)
	return n, e, err
}

func endpointOf(networkID string, p *networkv1.Endpoint) (Endpoint, error) {
	e, err := parseEndpoint(p)
	if err == nil && e.NetworkID != networkID {
		err = &FieldError{Field: "network of endpoint", Given: e.NetworkID, Expected: "the network of the same call, " + networkID}
	}
	return e, err
}
