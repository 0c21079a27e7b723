package container

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// maxPorts bounds how many ports one container may name, so that a range of a typing error is an
// error and no megabyte of request.
const maxPorts = 1 << 16

// portRange is first to last, both included; 0 to 0 with empty is "any".
type portRange struct {
	first, last uint16
	empty       bool
}

func (r portRange) count() int { return int(r.last) - int(r.first) + 1 }

func parseRange(s string) (portRange, bool) {
	if s == "" {
		return portRange{empty: true}, true
	}
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	first, ok1 := parsePort(a)
	last, ok2 := parsePort(b)
	return portRange{first: first, last: last}, ok1 && ok2 && first <= last
}

func parsePort(s string) (uint16, bool) {
	if s == "" || s[0] == '+' || s[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}

// parseProto takes a "/proto" off the end; none is tcp.
func parseProto(s string) (rest, proto string, ok bool) {
	rest, proto, found := strings.Cut(s, "/")
	if !found {
		return rest, "tcp", true
	}
	proto = strings.ToLower(proto)
	return rest, proto, proto == "tcp" || proto == "udp" || proto == "sctp"
}

// PortBindings parses --publish values: [IP:][HOST]:CONTAINER[/PROTO], where HOST and CONTAINER may
// be ranges of the same length, or HOST a range of which one port is taken; or the long form
// target=80,published=8080,protocol=tcp.
func PortBindings(specs []string) (map[string][]wire.PortBinding, error) {
	bindings := map[string][]wire.PortBinding{}
	total := 0
	for _, spec := range specs {
		if strings.Contains(spec, "=") {
			var err error
			if spec, err = shortPort(spec); err != nil {
				return nil, err
			}
		}
		n, err := addBinding(bindings, spec)
		if err != nil {
			return nil, err
		}
		if total += n; total > maxPorts {
			return nil, &fault.Field{Field: "--publish", Given: spec, Expected: fmt.Sprintf("at most %d ports of one container", maxPorts)}
		}
	}
	return bindings, nil
}

// shortPort turns the long form into the short one.
func shortPort(spec string) (string, error) {
	fields, err := cli.Fields(spec)
	if err != nil {
		return "", err
	}
	values := map[string]string{"protocol": "tcp"}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case ok && (key == "target" || key == "published" || key == "protocol"):
			values[key] = value
		default:
			known := []string{"target", "published", "protocol"}
			return "", &fault.Field{Field: "--publish", Given: spec, Expected: "target=PORT[,published=PORT][,protocol=PROTO]", Nearest: fault.Nearest(key, known)}
		}
	}
	return values["published"] + ":" + values["target"] + "/" + values["protocol"], nil
}

func addBinding(bindings map[string][]wire.PortBinding, spec string) (int, error) {
	bad := func(expected string) (int, error) {
		return 0, &fault.Field{Field: "--publish", Given: spec, Expected: expected}
	}
	rest, proto, ok := parseProto(spec)
	if !ok {
		return bad("a protocol of tcp, udp or sctp after the /")
	}
	ip, host, container := splitPort(rest)
	if ip != "" {
		if bracketed := strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]"); bracketed {
			ip = ip[1 : len(ip)-1]
		}
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return bad("an IP address before the host's port, such as 127.0.0.1:8080:80")
		}
		ip = addr.String()
	}
	to, ok := parseRange(container)
	if !ok || to.empty || to.first == 0 {
		return bad("a container port from 1 to 65535, or a range of them")
	}
	from, ok := parseRange(host)
	if !ok {
		return bad("a host port from 0 to 65535, or a range of them")
	}
	if !from.empty && from.count() != to.count() && to.count() > 1 {
		return bad("ranges of the same length on both sides of the colon")
	}
	for i := range to.count() {
		port := strconv.Itoa(int(to.first)+i) + "/" + proto
		bindings[port] = append(bindings[port], wire.PortBinding{HostIP: ip, HostPort: hostPort(from, to, i)})
	}
	return to.count(), nil
}

// hostPort is the host's side of the i-th container port: "" for any, a range where the daemon is
// to choose one of it.
func hostPort(from, to portRange, i int) string {
	switch {
	case from.empty:
		return ""
	case to.count() == 1 && from.count() > 1:
		return fmt.Sprintf("%d-%d", from.first, from.last)
	}
	return strconv.Itoa(int(from.first) + i)
}

// splitPort takes IP:HOST:CONTAINER apart from the end, because an IPv6 address has colons too.
func splitPort(s string) (ip, host, container string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", s
	}
	s, container = s[:i], s[i+1:]
	if i = strings.LastIndexByte(s, ':'); i < 0 {
		return "", s, container
	}
	return s[:i], s[i+1:], container
}

// exposedPorts parses --expose values, PORT[-PORT][/PROTO], and adds every published port.
func exposedPorts(specs []string, bindings map[string][]wire.PortBinding) (map[string]struct{}, error) {
	ports := make(map[string]struct{}, len(bindings))
	for port := range bindings {
		ports[port] = struct{}{}
	}
	for _, spec := range specs {
		rest, proto, ok := parseProto(spec)
		r, valid := parseRange(rest)
		if !ok || !valid || r.empty || r.first == 0 {
			return nil, &fault.Field{Field: "--expose", Given: spec, Expected: "a port or a range such as 80, 53/udp or 7000-7010"}
		}
		for i := range r.count() {
			ports[strconv.Itoa(int(r.first)+i)+"/"+proto] = struct{}{}
		}
	}
	if len(ports) == 0 {
		return nil, nil
	}
	return ports, nil
}
