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
	free := freePorts{taken: map[hostPort]bool{}, next: map[string]uint32{}}
	for _, service := range services {
		for _, p := range publishedBy(service) {
			free.taken[hostPort{p.Protocol, p.PublishedPort}] = true
		}
	}
	for _, service := range services {
		if s.Full() {
			return
		}
		if endpoint := endpointFor(service, free); !same(endpoint, service.Endpoint) {
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

// endpointFor is the service's endpoint with all its ports chosen, as long as there are any.
func endpointFor(service *wire.Service, free freePorts) wire.ServiceEndpoint {
	spec := service.Spec.EndpointSpec
	if spec == nil || len(spec.Ports) == 0 {
		return wire.ServiceEndpoint{} // as Docker shows it
	}
	endpoint := wire.ServiceEndpoint{Spec: *spec}
	has := givenPorts(service)
	for _, p := range spec.Ports {
		if p.PublishMode == wire.PublishIngress && p.PublishedPort == 0 {
			if given := has[p]; len(given) > 0 {
				p.PublishedPort, has[p] = given[0], given[1:]
			} else {
				p.PublishedPort = free.take(p.Protocol)
			}
		}
		endpoint.Ports = append(endpoint.Ports, p)
	}
	return endpoint
}

// givenPorts are the published ports that the service was given, by what it asked for, but those that it asks for by number now.
func givenPorts(service *wire.Service) map[wire.ServicePort][]uint32 {
	asked := map[hostPort]bool{}
	for _, p := range service.Spec.EndpointSpec.Ports {
		asked[hostPort{p.Protocol, p.PublishedPort}] = true
	}
	has := map[wire.ServicePort][]uint32{}
	for _, p := range service.Endpoint.Ports {
		if given := p.PublishedPort; p.PublishMode == wire.PublishIngress && given != 0 && !asked[hostPort{p.Protocol, given}] {
			p.PublishedPort = 0
			has[p] = append(has[p], given)
		}
	}
	return has
}

// freePorts are those that no service has.
type freePorts struct {
	taken map[hostPort]bool
	next  map[string]uint32 // by protocol, the first that may be free
}

// take answers with a free port, or 0 when there is none.
func (f freePorts) take(protocol string) uint32 {
	port := max(f.next[protocol], firstPort)
	for port <= lastPort && f.taken[hostPort{protocol, port}] {
		port++
	}
	f.next[protocol] = port + 1
	if port > lastPort {
		return 0
	}
	return port
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
