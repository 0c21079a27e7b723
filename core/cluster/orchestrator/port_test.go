package orchestrator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

func anyPort(target uint32) wire.ServicePort { return wire.ServicePort{TargetPort: target} }

func fixed(target, published uint32) wire.ServicePort {
	return wire.ServicePort{TargetPort: target, PublishedPort: published}
}

// ports are those that a service has.
func (w *world) ports(service string) []uint32 {
	var ports []uint32
	for _, p := range w.service(service).Endpoint.Ports {
		ports = append(ports, p.PublishedPort)
	}
	return ports
}

func TestPorts(t *testing.T) {
	w := newWorld(t)
	has := func(service string, want ...uint32) {
		t.Helper()
		w.settle()
		if diff := cmp.Diff(want, w.ports(service)); diff != "" {
			t.Errorf("%s: %s", service, diff)
		}
	}
	w.create(spec("web", 0, publishes(anyPort(80), fixed(81, 8081), anyPort(82), host(0))))
	has("web", 30000, 8081, 30001, 0)
	w.create(spec("db", 0, publishes(fixed(80, 30002))))
	w.create(spec("app", 0, publishes(anyPort(80))))
	has("app", 30003)
	has("db", 30002)
	// What it has been given stays.
	w.change("web", publishes(anyPort(83), anyPort(82), anyPort(80)))
	has("web", 30004, 30001, 30000)
	// And may be asked for by number, which takes it from nobody.
	w.change("web", publishes(fixed(80, 30001), anyPort(82)))
	has("web", 30001, 30005)
	w.change("web", func(s *wire.ServiceSpec) { s.EndpointSpec = nil })
	has("web")
	if e := w.service("web").Endpoint; e.Spec.Mode != "" || e.Ports != nil {
		t.Errorf("endpoint %v", e)
	}
	w.create(spec("next", 0, publishes(anyPort(80))))
	has("next", 30000)
	w.create(spec("twice", 0, publishes(anyPort(80), anyPort(80))))
	has("twice", 30001, 30004)
	w.change("twice", publishes(anyPort(80), anyPort(80), anyPort(81)))
	has("twice", 30001, 30004, 30005)
	endpoint := w.service("db").Endpoint
	want := wire.ServicePort{Protocol: "tcp", TargetPort: 80, PublishedPort: 30002, PublishMode: "ingress"}
	if endpoint.Spec.Mode != "vip" || endpoint.Ports[0] != want || endpoint.Spec.Ports[0] != want {
		t.Errorf("endpoint %+v", endpoint)
	}
}

func TestAllPortsAreTaken(t *testing.T) {
	w := newWorld(t)
	many := make([]wire.ServicePort, lastPort-firstPort+1)
	for i := range many {
		many[i] = anyPort(uint32(i + 1))
	}
	w.create(spec("web", 0, publishes(many...)))
	w.settle()
	w.create(spec("db", 0, publishes(anyPort(80))))
	w.settle()
	if diff := cmp.Diff([]uint32{0}, w.ports("db")); diff != "" {
		t.Error(diff)
	}
	w.update(func(tx store.Writer) { tx.DeleteService("web") })
	w.settle()
	if diff := cmp.Diff([]uint32{30000}, w.ports("db")); diff != "" {
		t.Error(diff)
	}
}

func TestPortConflicts(t *testing.T) {
	udp := wire.ServicePort{Protocol: "udp", TargetPort: 80, PublishedPort: 8080, PublishMode: wire.PublishHost}
	for name, tt := range map[string]struct {
		ports []wire.ServicePort
		err   string
	}{
		"ingress":            {[]wire.ServicePort{fixed(80, 80)}, "port '80' is already in use by service 'web' (web) as an ingress port"},
		"host over ingress":  {[]wire.ServicePort{host(80)}, "port '80' is already in use by service 'web' (web) as an ingress port"},
		"one that was given": {[]wire.ServicePort{fixed(80, 30000)}, "port '30000' is already in use by service 'web' (web) as an ingress port"},
		"ingress over host":  {[]wire.ServicePort{fixed(80, 8080)}, "port '8080' is already in use by service 'web' (web) as a host-published port"},
		"host and host":      {[]wire.ServicePort{host(8080)}, ""},
		"other protocol":     {[]wire.ServicePort{udp}, ""},
		"free":               {[]wire.ServicePort{fixed(80, 81), anyPort(80)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.create(spec("web", 0, publishes(fixed(80, 80), anyPort(81), host(8080))))
			w.settle()
			s := spec("db", 0, publishes(tt.ports...))
			w.update(func(tx store.Writer) {
				_, err := Create(tx, "db", s, w.now)
				if got := message(err); got != tt.err {
					t.Errorf("create: %q, want %q", got, tt.err)
				}
			})
			if tt.err == "" {
				return
			}
			w.create(spec("other", 0))
			w.update(func(tx store.Writer) {
				s.Name = "other"
				_, err := Change(tx, "other", tx.Service("other").Version.Index, s, w.now)
				if got := message(err); got != tt.err {
					t.Errorf("change: %q, want %q", got, tt.err)
				}
			})
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A service whose published ports change gets new tasks, as their nodes publish them.
func TestNewPortsNeedNewTasks(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 1, publishes(host(8080))))
	w.settle()
	w.change("web", publishes(host(8081)))
	w.pass(time.Minute)
	expect(w, "tasks", len(w.tasks("web")), 2)
	expect(w, "update", w.service("web").UpdateStatus.State, wire.UpdateCompleted)
}
