package plugintest

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	networkv1 "github.com/sampan-project/sampan/proto/sampan/network/v1"
	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

var (
	attributeName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	types         = []string{"string", "bool", "int", "size", "duration", "address"}
)

// testDescribe is about what people and scripts see of the driver.
func (s *suite) testDescribe(t *testing.T) {
	kind, name := s.config.kindAndName(t)
	d := s.describe
	if d.GetKind() != kind || d.GetName() != name {
		t.Errorf("it says %s-%s: expected %s-%s, as its file is called", d.GetKind(), d.GetName(), kind, name)
	}
	if d.GetVersion() == "" || d.GetDoc() == "" {
		t.Errorf("version %q, doc %q: expected both", d.GetVersion(), d.GetDoc())
	}
	seen := map[string]bool{}
	for _, a := range d.GetSchema().GetAttributes() {
		if !attributeName.MatchString(a.GetName()) {
			t.Errorf("option %q: expected small letters, digits and _, so that a script can write it", a.GetName())
		}
		if !slices.Contains(types, a.GetType()) {
			t.Errorf("option %s has the type %q: expected one of %v", a.GetName(), a.GetType(), types)
		}
		if a.GetDoc() == "" || strings.Contains(a.GetDoc(), "\n") {
			t.Errorf("option %s has the doc %q: expected one sentence", a.GetName(), a.GetDoc())
		}
		if a.GetRequired() && a.GetDefault() != "" {
			t.Errorf("option %s is required and has a default", a.GetName())
		}
		for _, n := range append([]string{a.GetName()}, a.GetAliases()...) {
			if seen[n] {
				t.Errorf("option name %s is there twice", n)
			}
			seen[n] = true
		}
	}
}

// testOptions: every option comes back with its value, and a slip of the fingers is told.
func (s *suite) testOptions(t *testing.T) {
	n := s.network()
	settings := s.create(t, n).GetSettings()
	for _, a := range s.describe.GetSchema().GetAttributes() {
		got, ok := settings[a.GetName()]
		if _, given := s.config.Options[a.GetName()]; !ok || (!given && got != a.GetDefault() && a.GetType() == "string") {
			t.Errorf("setting %s is %q: expected every option, with its default %q", a.GetName(), got, a.GetDefault())
		}
	}
	wrong := s.network()
	wrong.Options = maps.Clone(s.config.Options)
	if wrong.Options == nil {
		wrong.Options = map[string]string{}
	}
	wrong.Options["no_such_option"] = "1"
	_, err := s.driver.CreateNetwork(s.ctx(t), &networkv1.CreateNetworkRequest{Network: wrong})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("unknown option: %v, expected INVALID_ARGUMENT", err)
	}
	field := false
	for _, d := range status.Convert(err).Details() {
		if f, ok := d.(*pluginv1.FieldError); ok && f.GetGiven() == "no_such_option" {
			field = true
		}
	}
	if !field {
		t.Errorf("unknown option: expected a FieldError that names it among the details of %v", err)
	}
	s.delete(t, wrong) // and removing needs no valid options
}

// testMalformed sends what no engine sends. Each is refused, and the driver lives on.
func (s *suite) testMalformed(t *testing.T) {
	good := s.network()
	s.create(t, good)
	ns := newNamespace(t)
	long := strings.Repeat("x", 1<<16)
	for name, damage := range map[string]func(*networkv1.Network, *networkv1.Endpoint){
		"no network":           func(n *networkv1.Network, _ *networkv1.Endpoint) { proto.Reset(n) },
		"network id":           func(n *networkv1.Network, _ *networkv1.Endpoint) { n.Id = "../../etc" },
		"owner":                func(n *networkv1.Network, _ *networkv1.Endpoint) { n.Owner = "me" },
		"subnet":               func(n *networkv1.Network, _ *networkv1.Endpoint) { n.Subnets[0].Prefix = "10.0.0.0/99" },
		"gateway outside":      func(n *networkv1.Network, _ *networkv1.Endpoint) { n.Subnets[0].Gateway = "192.0.2.1" },
		"no endpoint":          func(_ *networkv1.Network, e *networkv1.Endpoint) { proto.Reset(e) },
		"endpoint id":          func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Id = long },
		"endpoint elsewhere":   func(_ *networkv1.Network, e *networkv1.Endpoint) { e.NetworkId = newID() },
		"no namespace":         func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Netns = "" },
		"missing namespace":    func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Netns = "/nonexistent" },
		"another namespace":    func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Netns = "/proc/self/ns/uts" },
		"a file for namespace": func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Netns = "/etc/passwd" },
		"interface":            func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Interface = "a/b" },
		"long interface":       func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Interface = long },
		"mac":                  func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Mac = "zz" },
		"address":              func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Addresses[0] = "10.0.0.300/8" },
		"default gateway":      func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Gateways[0] = "nowhere" },
		"protocol":             func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Ports[0].Protocol = "icmp" },
		"port 0":               func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Ports[0].ContainerPort = 0 },
		"port 65616":           func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Ports[0].ContainerPort = 65616 },
		"host address":         func(_ *networkv1.Network, e *networkv1.Endpoint) { e.Ports[0].HostAddress = long },
	} {
		n := proto.Clone(good).(*networkv1.Network)
		e := endpoint(n, 2, ns)
		e.Ports = []*networkv1.Port{{Protocol: "tcp", HostAddress: "0.0.0.0", HostPort: 8080, ContainerPort: 80}}
		damage(n, e)
		_, err := s.driver.Attach(s.ctx(t), &networkv1.AttachRequest{Network: n, Endpoint: e})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, expected INVALID_ARGUMENT", name, err)
		}
		absent(t, ns, "eth0")
	}
	// The driver is not confused.
	s.attach(t, good, endpoint(good, 2, ns))
}
