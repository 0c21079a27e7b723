package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/dns"
)

// resolver is what a resolv.conf says; see resolv.conf(5).
type resolver struct {
	servers []netip.Addr
	search  []string
	options []string
	text    []byte
}

// systemdResolvConf has the real resolvers of a host whose resolv.conf names only the stub of
// systemd-resolved, which answers on the host's loopback interface.
const systemdResolvConf = "/run/systemd/resolve/resolv.conf"

var systemdStub = netip.MustParseAddr("127.0.0.53")

// hostResolver reads the host's resolv.conf, at each call: it changes when a laptop moves. One that
// cannot be read says nothing.
func (m *Manager) hostResolver() resolver {
	text, _ := os.ReadFile(m.o.ResolvConf)
	r := parseResolvConf(text)
	if len(r.servers) == 1 && r.servers[0] == systemdStub {
		if text, err := os.ReadFile(systemdResolvConf); err == nil {
			if real := parseResolvConf(text); len(real.servers) > 0 {
				return real
			}
		}
	}
	return r
}

func parseResolvConf(text []byte) resolver {
	r := resolver{text: text}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				r.servers = append(r.servers, a)
			}
		case "search", "domain":
			r.search = f[1:] // the last one holds
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	return r
}

// askedServers are the resolvers that the container, or else the daemon's options, name.
func (m *Manager) askedServers(rec record) (list []netip.Addr) {
	asked := rec.DNS
	if len(asked) == 0 {
		asked = m.o.DNS
	}
	for _, text := range asked {
		// Checked at the container's creation; what is no address would be no line of the file.
		if a, err := netip.ParseAddr(text); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// resolvConf is the contents of the container's /etc/resolv.conf.
func (m *Manager) resolvConf(rec record) []byte {
	host := m.hostResolver()
	asked := m.askedServers(rec)
	search := first(rec.DNSSearch, m.o.DNSSearch, host.search)
	options := first(rec.DNSOptions, m.o.DNSOptions, host.options)
	if rec.Host && len(asked) == 0 && len(rec.DNSSearch)+len(rec.DNSOptions)+len(m.o.DNSSearch)+len(m.o.DNSOptions) == 0 {
		return host.text
	}
	var servers []netip.Addr
	switch {
	case rec.Resolver:
		servers = []netip.Addr{dns.Address}
		// A name without a dot is one of a container, more often than not: ask for it as it is.
		if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
			options = append(slices.Clone(options), "ndots:0")
		}
	case len(asked) > 0:
		servers = asked
	case rec.Host:
		servers = host.servers
	default:
		servers = reachable(host.servers, rec)
	}
	var b bytes.Buffer
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	// "." is how a user says that nothing is to be searched.
	if len(search) > 0 && !slices.Equal(search, []string{"."}) {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.Bytes()
}

// reachable leaves out what the container cannot talk to: the host's loopback interface, and IPv6
// servers when it has no IPv6 address.
func reachable(servers []netip.Addr, rec record) (list []netip.Addr) {
	v6 := slices.ContainsFunc(rec.Endpoints, func(ep member) bool {
		return slices.ContainsFunc(ep.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	})
	for _, s := range servers {
		if !s.IsLoopback() && (s.Is4() || v6) {
			list = append(list, s)
		}
	}
	return list
}

func first(lists ...[]string) []string {
	for _, l := range lists {
		if len(l) > 0 {
			return l
		}
	}
	return nil
}

// loopbackHosts are the lines that every hosts file begins with, as in Docker.
const loopbackHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// hosts is the contents of the container's /etc/hosts.
func (m *Manager) hosts(rec record) ([]byte, error) {
	var b bytes.Buffer
	if rec.Host {
		text, err := os.ReadFile("/etc/hosts")
		if err != nil {
			text = []byte(loopbackHosts)
		}
		b.Write(text)
		if len(text) > 0 && text[len(text)-1] != '\n' {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString(loopbackHosts)
	}
	for _, line := range rec.ExtraHosts {
		name, address, _ := strings.Cut(line, ":")
		a, err := m.extraHost(line, name, address)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s\t%s\n", a, name)
	}
	names := rec.Hostname
	if rec.Domainname != "" && names != "" {
		names = rec.Hostname + "." + rec.Domainname + " " + rec.Hostname
	}
	for _, ep := range rec.Endpoints {
		for _, a := range ep.Addresses {
			if names != "" {
				fmt.Fprintf(&b, "%s\t%s\n", a.Addr(), names)
			}
		}
	}
	return b.Bytes(), nil
}

// extraHost returns the address of a line of ExtraHosts.
func (m *Manager) extraHost(line, name, text string) (netip.Addr, error) {
	wrong := &fault.Field{Field: "extra host", Given: shortened(line), Expected: "name:address, such as db:10.0.0.5, or name:host-gateway"}
	if name == "" || strings.ContainsAny(name, " \t\r\n") {
		return netip.Addr{}, wrong
	}
	if text == "host-gateway" {
		if a := m.hostGateway(); a.IsValid() {
			return a, nil
		}
		return netip.Addr{}, fault.New(fault.Invalid, "unable to derive the IP value for host-gateway: the default network has no gateway")
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		return netip.Addr{}, wrong
	}
	return a, nil
}

func (m *Manager) hostGateway() netip.Addr {
	if m.o.HostGateway.IsValid() {
		return m.o.HostGateway
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if e := m.named(bridgeName); e != nil {
		for _, s := range e.Subnets {
			return s.Gateway
		}
	}
	return netip.Addr{}
}
