package env

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/graph"
)

// maxPorts bounds the ports of one entry.
const maxPorts = 1000

// portsType is one entry of ports; its Go value is the normalised HOSTIP:HOSTPORT:PORT/PROTOCOL of
// each port of a range. Host port "" is a free one.
var portsType = graph.PlainText(arg.Of(`a port such as "8080:80", "127.0.0.1:8080:80/udp" or 80`, func(v starlark.Value) ([]string, bool) {
	switch v := v.(type) {
	case starlark.Int:
		return parsePort(v.String())
	case starlark.String:
		return parsePort(string(v))
	}
	return nil, false
}))

func parsePort(text string) ([]string, bool) {
	text, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return nil, false
	}
	ip, host, inside, ok := cutPort(text)
	if !ok {
		return nil, false
	}
	first, last, ok := portRange(inside)
	if !ok || last-first >= maxPorts {
		return nil, false
	}
	if host == "" {
		var out []string
		for p := first; p <= last; p++ {
			out = append(out, fmt.Sprintf("%s::%d/%s", ip, p, protocol))
		}
		return out, true
	}
	low, high, ok := portRange(host)
	if !ok || high-low != last-first {
		return nil, false
	}
	var out []string
	for p := first; p <= last; p++ {
		out = append(out, fmt.Sprintf("%s:%d:%d/%s", ip, low+p-first, p, protocol))
	}
	return out, true
}

// cutPort separates IP:HOST:PORT, HOST:PORT and PORT; an IPv6 address is in brackets.
func cutPort(s string) (ip, host, inside string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", s, true
	}
	rest, inside := s[:i], s[i+1:]
	if j := strings.LastIndexByte(rest, ':'); j >= 0 && !strings.HasSuffix(rest, "]") {
		ip, host = rest[:j], rest[j+1:]
	} else {
		return "", rest, inside, true
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
	a, err := netip.ParseAddr(bare)
	if err != nil || a.Is6() != (bare != ip) {
		return "", "", "", false
	}
	if a.Is4() && a.IsUnspecified() {
		return "", host, inside, true // the same as none
	}
	return ip, host, inside, true
}

func portRange(s string) (first, last int, ok bool) {
	low, high, ranged := strings.Cut(s, "-")
	a, err := strconv.ParseUint(low, 10, 16)
	if err != nil || a == 0 {
		return 0, 0, false
	}
	if !ranged {
		return int(a), int(a), true
	}
	b, err := strconv.ParseUint(high, 10, 16)
	return int(a), int(b), err == nil && b >= a
}
