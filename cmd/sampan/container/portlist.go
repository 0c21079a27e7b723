package container

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// portLines are the lines of `port`: all mappings, or the addresses of the one port that args name.
func portLines(ports map[string][]wire.PortBinding, args []string) ([]string, error) {
	if len(args) == 2 {
		number, proto, _ := strings.Cut(args[1], "/")
		if proto == "" {
			proto = "tcp"
		}
		if _, ok := parsePort(number); !ok {
			return nil, &fault.Field{Field: "PRIVATE_PORT", Given: args[1], Expected: "a port such as 80 or 53/udp"}
		}
		bindings := ports[number+"/"+strings.ToLower(proto)]
		if len(bindings) == 0 {
			return nil, fault.New(fault.NotFound, "no public port '%s' published for %s", number+"/"+proto, args[0])
		}
		return addresses("", bindings), nil
	}
	keys := make([]string, 0, len(ports))
	for port := range ports {
		keys = append(keys, port)
	}
	slices.SortFunc(keys, comparePorts)
	var lines []string
	for _, port := range keys {
		lines = append(lines, addresses(port+" -> ", ports[port])...)
	}
	return lines, nil
}

func addresses(prefix string, bindings []wire.PortBinding) []string {
	var lines []string
	for _, b := range bindings {
		lines = append(lines, prefix+net.JoinHostPort(b.HostIP, b.HostPort))
	}
	return lines
}

// comparePorts orders "80/tcp" by number, then by protocol.
func comparePorts(a, b string) int {
	x, xp, _ := strings.Cut(a, "/")
	y, yp, _ := strings.Cut(b, "/")
	m, _ := parsePort(x)
	n, _ := parsePort(y)
	if m != n {
		return int(m) - int(n)
	}
	return strings.Compare(xp, yp)
}

// portText is the column PORTS: "0.0.0.0:8080->80/tcp, 9000-9002/udp". Neighbours with the same
// distance between inside and outside are one range.
func portText(ports []wire.Port) string {
	type span struct {
		wire.Port
		count uint16
	}
	ports = slices.Clone(ports)
	slices.SortStableFunc(ports, func(a, b wire.Port) int {
		switch {
		case a.PrivatePort != b.PrivatePort:
			return int(a.PrivatePort) - int(b.PrivatePort)
		case a.IP != b.IP:
			return strings.Compare(a.IP, b.IP)
		case a.PublicPort != b.PublicPort:
			return int(a.PublicPort) - int(b.PublicPort)
		}
		return strings.Compare(a.Type, b.Type)
	})
	var spans []span
next:
	for _, p := range ports {
		for i := range spans {
			s := &spans[i]
			follows := p.PrivatePort == s.PrivatePort+s.count && p.IP == s.IP && p.Type == s.Type
			if follows && (p.PublicPort == 0 && s.PublicPort == 0 || s.PublicPort != 0 && p.PublicPort == s.PublicPort+s.count) {
				s.count++
				continue next
			}
		}
		spans = append(spans, span{p, 1})
	}
	var parts []string
	for _, s := range spans {
		text := portRangeText(s.PrivatePort, s.count) + "/" + s.Type
		if s.PublicPort != 0 {
			text = net.JoinHostPort(s.IP, portRangeText(s.PublicPort, s.count)) + "->" + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func portRangeText(first, count uint16) string {
	if count == 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, first+count-1)
}
