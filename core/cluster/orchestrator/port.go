package orchestrator

import (
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// The ports that services are given that ask for any.
const (
	firstPort = 30000
	lastPort  = 32767
)

// allocatePorts gives the services' published ports to them: Endpoint says which they have. A port once given stays.
func (s *step) allocatePorts() {
	services := s.Services()
	taken := map[hostPort]bool{}
	for _, service := range services {
		for _, p := range publishedBy(service) {
			taken[hostPort{p.Protocol, p.PublishedPort}] = true
		}
	}
	for _, service := range services {
		if s.Full() {
			return
		}
		if endpoint := endpointFor(service, taken); !same(endpoint, service.Endpoint) {
			s.putService(service, func(service *wire.Service) { service.Endpoint = endpoint })
		}
	}
}

// publishedBy are the ports that a service asks for and has.
func publishedBy(service *wire.Service) []wire.ServicePort {
	var ports []wire.ServicePort
	if e := service.Spec.EndpointSpec; e != nil {
		ports = append(ports, e.Ports...)
	}
	return append(ports, service.Endpoint.Ports...)
}

// endpointFor is the service's endpoint with all its ports chosen, as long as there are any; taken are all that are not free.
func endpointFor(service *wire.Service, taken map[hostPort]bool) wire.ServiceEndpoint {
	spec := service.Spec.EndpointSpec
	if spec == nil || len(spec.Ports) == 0 {
		return wire.ServiceEndpoint{} // as Docker shows it
	}
	endpoint := wire.ServiceEndpoint{Spec: *spec}
	reused := map[int]bool{}
	for _, p := range spec.Ports {
		if p.PublishMode == wire.PublishIngress && p.PublishedPort == 0 {
			p.PublishedPort = choosePort(service, p, reused, taken)
		}
		endpoint.Ports = append(endpoint.Ports, p)
	}
	return endpoint
}

// choosePort is the port that the service has already for p, or the first that is free; 0 when none is.
func choosePort(service *wire.Service, p wire.ServicePort, reused map[int]bool, taken map[hostPort]bool) uint32 {
	for i, old := range service.Endpoint.Ports {
		if !reused[i] && old.PublishMode == wire.PublishIngress && old.Name == p.Name && old.Protocol == p.Protocol &&
			old.TargetPort == p.TargetPort && old.PublishedPort != 0 && !asksFor(service, old) {
			reused[i] = true
			return old.PublishedPort
		}
	}
	for port := uint32(firstPort); port <= lastPort; port++ {
		if k := (hostPort{p.Protocol, port}); !taken[k] {
			taken[k] = true
			return port
		}
	}
	return 0
}

// asksFor says that the service wants this very port, so that it cannot be the one that stands for any.
func asksFor(service *wire.Service, p wire.ServicePort) bool {
	for _, q := range service.Spec.EndpointSpec.Ports {
		if q.Protocol == p.Protocol && q.PublishedPort == p.PublishedPort {
			return true
		}
	}
	return false
}

// CheckPorts refuses a specification that publishes a port that another service has. id is the service that it is for,
// or "" for a new one.
func CheckPorts(r store.Reader, spec *wire.ServiceSpec, id string) error {
	if spec.EndpointSpec == nil {
		return nil
	}
	wants := map[hostPort]string{} // by mode
	for _, p := range spec.EndpointSpec.Ports {
		if p.PublishedPort != 0 {
			wants[hostPort{protocolOf(p), p.PublishedPort}] = modeOf(p)
		}
	}
	if len(wants) == 0 {
		return nil
	}
	for _, service := range r.Services() {
		if service.ID == id {
			continue
		}
		for _, p := range publishedBy(service) {
			if p.PublishedPort == 0 {
				continue
			}
			mode := wants[hostPort{protocolOf(p), p.PublishedPort}]
			switch {
			case mode == "":
			case modeOf(p) == wire.PublishIngress:
				return fault.New(fault.Invalid, "port '%d' is already in use by service '%s' (%s) as an ingress port", p.PublishedPort, service.Spec.Name, service.ID)
			case mode == wire.PublishIngress:
				return fault.New(fault.Invalid, "port '%d' is already in use by service '%s' (%s) as a host-published port", p.PublishedPort, service.Spec.Name, service.ID)
			}
		}
	}
	return nil
}

func protocolOf(p wire.ServicePort) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return p.Protocol
}

func modeOf(p wire.ServicePort) string {
	if p.PublishMode == "" {
		return wire.PublishIngress
	}
	return p.PublishMode
}
