package network

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Inspect describes the network of a name, ID or unique prefix of an ID.
func (m *Manager) Inspect(_ context.Context, ref string) (wire.NetworkInspect, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, err := m.find(ref)
	if err != nil {
		return wire.NetworkInspect{}, err
	}
	return m.describe(e), nil
}

// List describes the networks that pass the filters, the latest last.
func (m *Manager) List(_ context.Context, filters map[string][]string) ([]wire.NetworkInspect, error) {
	passes, err := m.filter(filters)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var found []*entry
	for _, e := range m.entries {
		if passes(e) {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *entry) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	list := make([]wire.NetworkInspect, 0, len(found))
	for _, e := range found {
		list = append(list, m.describe(e))
	}
	return list, nil
}

// describe is a network as the API shows it. The caller holds mu.
func (m *Manager) describe(e *entry) wire.NetworkInspect {
	n := wire.NetworkInspect{
		Name: e.Name, ID: e.ID, Created: e.Created.Format(time.RFC3339Nano), Scope: "local", Driver: e.Driver,
		EnableIPv4: e.IPv4 || e.Default && builtin(e.Driver), EnableIPv6: e.IPv6,
		IPAM:     wire.IPAM{Driver: "default", Options: maps.Clone(e.IPAMOption), Config: []wire.IPAMConfig{}},
		Internal: e.Internal, Attachable: e.Attachable,
		ConfigOnly: e.ConfigOnly, ConfigFrom: wire.ConfigReference{Network: e.ConfigFrom},
		Containers: map[string]wire.NetworkEndpoint{},
		Options:    cloned(e.Options), Labels: cloned(e.Labels),
	}
	if e.Default && e.Driver != hostDriver && e.Driver != nullDriver {
		n.Options = defaultShown(e.Options, e.Settings)
	}
	byFamily := slices.SortedStableFunc(slices.Values(e.Subnets), func(a, b Subnet) int {
		return a.Prefix.Addr().BitLen() - b.Prefix.Addr().BitLen()
	})
	for _, s := range byFamily {
		if !s.Prefix.IsValid() { // of a configuration: any
			continue
		}
		c := wire.IPAMConfig{Subnet: s.Prefix.String()}
		if s.Range.IsValid() {
			c.IPRange = s.Range.String()
		}
		if s.Gateway.IsValid() {
			c.Gateway = s.Gateway.String()
		}
		for name, a := range s.Auxiliary {
			if c.AuxiliaryAddresses == nil {
				c.AuxiliaryAddresses = map[string]string{}
			}
			c.AuxiliaryAddresses[name] = a.String()
		}
		n.IPAM.Config = append(n.IPAM.Config, c)
	}
	for id, sb := range m.joined {
		for _, ep := range sb.Endpoints {
			if ep.NetworkID != e.ID {
				continue
			}
			shown := wire.NetworkEndpoint{Name: sb.Name, EndpointID: ep.ID, MacAddress: ep.MAC}
			for _, a := range ep.Addresses {
				if a.Addr().Is4() {
					shown.IPv4Address = a.String()
				} else {
					shown.IPv6Address = a.String()
				}
			}
			n.Containers[id] = shown
		}
	}
	return n
}

// defaultShown are the options of the default network as dockerd has always shown them: clients look
// there for the bridge's name and MTU.
func defaultShown(given, settings map[string]string) map[string]string {
	shown := cloned(given)
	shown["com.docker.network.bridge.default_bridge"] = "true"
	for option, setting := range map[string]string{
		"com.docker.network.bridge.enable_icc":           "icc",
		"com.docker.network.bridge.enable_ip_masquerade": "masquerade",
		"com.docker.network.driver.mtu":                  "mtu",
	} {
		if _, ok := shown[option]; !ok && settings[setting] != "" {
			shown[option] = settings[setting]
		}
	}
	if _, ok := shown["com.docker.network.bridge.host_binding_ipv4"]; !ok {
		shown["com.docker.network.bridge.host_binding_ipv4"] = cmp.Or(settings["host_binding"], "0.0.0.0")
	}
	return shown
}

// cloned is a copy that clients may iterate over.
func cloned(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

// test is one filter: whether a network passes for one of its values. It is called under mu.
type test func(m *Manager, e *entry, value string) bool

// filters are those of GET /networks. Values of one key are alternatives, but labels, which must all be there.
var filters = map[string]test{
	"driver": func(_ *Manager, e *entry, v string) bool { return e.Driver == v },
	"id":     func(_ *Manager, e *entry, v string) bool { return like(e.ID, v) },
	"name":   func(_ *Manager, e *entry, v string) bool { return like(e.Name, v) },
	"scope":  func(_ *Manager, _ *entry, v string) bool { return v == "local" },
	"type": func(_ *Manager, e *entry, v string) bool {
		return v == "builtin" && e.Default || v == "custom" && !e.Default
	},
	"label": func(_ *Manager, e *entry, v string) bool { return labelled(e.Labels, v) },
	"dangling": func(m *Manager, e *entry, v string) bool {
		want, _ := strconv.ParseBool(v)
		return (!e.Default && m.inUse(e.ID) == nil) == want
	},
}

// filter returns the test that all filters together are.
func (m *Manager) filter(given map[string][]string) (func(*entry) bool, error) {
	for key, values := range given {
		if _, ok := filters[key]; !ok {
			return nil, unknownFilter(key, slices.Sorted(maps.Keys(filters)))
		}
		for _, v := range values {
			if key == "type" && v != "builtin" && v != "custom" {
				return nil, &fault.Field{Field: "invalid filter: type", Given: shortened(v), Expected: "builtin or custom"}
			}
			if _, err := strconv.ParseBool(v); key == "dangling" && err != nil {
				return nil, &fault.Field{Field: "invalid filter: dangling", Given: shortened(v), Expected: "true or false"}
			}
		}
	}
	return func(e *entry) bool {
		for key, values := range given {
			matches := func(v string) bool { return filters[key](m, e, v) }
			if key == "label" {
				if slices.ContainsFunc(values, func(v string) bool { return !matches(v) }) {
					return false
				}
			} else if len(values) > 0 && !slices.ContainsFunc(values, matches) {
				return false
			}
		}
		return true
	}, nil
}

func unknownFilter(key string, known []string) error {
	return &fault.Field{Field: "invalid filter", Given: shortened(key),
		Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(key, known)}
}

// like matches as Docker's filters do: the text itself, or a regular expression in it.
func like(text, pattern string) bool {
	if strings.Contains(text, pattern) {
		return true
	}
	const longest = 256
	if len(pattern) > longest {
		return false
	}
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(text)
}

// labelled reports whether the labels have "key" or "key=value".
func labelled(labels map[string]string, want string) bool {
	key, value, has := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!has || got == value)
}
