package container

import (
	"cmp"
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
			return nil, fault.New(fault.NotFound, "No public port '%s' published for %s", args[1], args[0])
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

// span is a run of ports that follow one another at one address, "" for ports that are not published.
type span struct {
	ip, proto   string
	first, last uint16
}

func (s span) String() string {
	text := fmt.Sprint(s.first)
	if s.last != s.first {
		text = fmt.Sprintf("%d-%d", s.first, s.last)
	}
	if s.ip != "" {
		text = net.JoinHostPort(s.ip, text) + "->" + text
	}
	return text + "/" + s.proto
}

// portText is the column PORTS: "0.0.0.0:9000-9002->9000-9002/udp, 0.0.0.0:8080->80/tcp". As in Docker's
// client neighbours are one range only where a port is the same inside and outside; those that are not
// stand one by one at the end.
func portText(ports []wire.Port) string {
	if len(ports) == 0 {
		return ""
	}
	ports = slices.Clone(ports)
	slices.SortStableFunc(ports, func(a, b wire.Port) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), strings.Compare(a.IP, b.IP), cmp.Compare(a.PublicPort, b.PublicPort), strings.Compare(a.Type, b.Type))
	})
	var broken, moved []string
	var spans []span // the last one of each address and protocol
	for _, p := range ports {
		if p.IP != "" && p.PublicPort != p.PrivatePort {
			moved = append(moved, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(p.IP, fmt.Sprint(p.PublicPort)), p.PrivatePort, p.Type))
			continue
		}
		next := span{p.IP, p.Type, p.PrivatePort, p.PrivatePort}
		i := slices.IndexFunc(spans, func(s span) bool { return s.ip == next.ip && s.proto == next.proto })
		switch {
		case i < 0:
			spans = append(spans, next)
		case next.first == spans[i].last+1:
			spans[i].last = next.last
		default:
			broken = append(broken, spans[i].String())
			spans[i] = next
		}
	}
	for _, s := range spans {
		broken = append(broken, s.String())
	}
	return strings.Join(append(broken, moved...), ", ")
}
