package service

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/container"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// ports is the flag --publish.
type ports struct{ values []wire.ServicePort }

func (p *ports) String() string { return "" }

// Type is the word for the value in help texts.
func (p *ports) Type() string { return "port" }

// Set parses [HOST:]CONTAINER[/PROTO], or target=PORT[,published=PORT][,protocol=PROTO][,mode=MODE].
func (p *ports) Set(s string) error {
	var added []wire.ServicePort
	var err error
	if strings.Contains(s, "=") {
		added, err = longPort(s)
	} else {
		added, err = shortPorts(s)
	}
	if err != nil {
		return err
	}
	if p.values = append(p.values, added...); len(p.values) > maxPorts {
		return &fault.Field{Given: s, Expected: fmt.Sprintf("at most %d ports of one service", maxPorts)}
	}
	return nil
}

// maxPorts bounds how many ports one service may name.
const maxPorts = 1 << 16

var portKeys = []string{"target", "published", "protocol", "mode"}

func longPort(s string) ([]wire.ServicePort, error) {
	fields, err := cli.Fields(strings.ToLower(s))
	if err != nil {
		return nil, err
	}
	p := wire.ServicePort{Protocol: "tcp", PublishMode: wire.PublishIngress}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		bad := func(expected string) ([]wire.ServicePort, error) {
			return nil, &fault.Field{Given: field, Expected: expected}
		}
		n, err := strconv.ParseUint(value, 10, 16)
		switch key {
		case "protocol":
			if p.Protocol = value; !slices.Contains([]string{"tcp", "udp", "sctp"}, value) {
				return bad("protocol=tcp, protocol=udp or protocol=sctp")
			}
		case "mode":
			if p.PublishMode = value; value != wire.PublishIngress && value != wire.PublishHost {
				return bad("mode=ingress or mode=host")
			}
		case "target":
			if p.TargetPort = uint32(n); err != nil {
				return bad("a port from 1 to 65535")
			}
		case "published":
			if p.PublishedPort = uint32(n); err != nil {
				return bad("a port from 0 to 65535")
			}
		default:
			return nil, &fault.Field{Given: field, Expected: "KEY=VALUE with a key of " + strings.Join(portKeys, ", "), Nearest: fault.Nearest(key, portKeys)}
		}
	}
	if p.TargetPort == 0 {
		return nil, &fault.Field{Given: s, Expected: "target=PORT"}
	}
	return []wire.ServicePort{p}, nil
}

// shortPorts reads what run --publish reads too. A range of the host's ports for one of the container is all of them.
func shortPorts(s string) ([]wire.ServicePort, error) {
	bindings, err := container.PortBindings([]string{s})
	if err != nil {
		var field *fault.Field
		if errors.As(err, &field) {
			field.Field = "" // it is one of --publish, --publish-add and --publish-rm
		}
		return nil, err
	}
	var list []wire.ServicePort
	for _, target := range slices.Sorted(maps.Keys(bindings)) {
		port, protocol, _ := strings.Cut(target, "/")
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, err
		}
		for _, b := range bindings[target] {
			if b.HostIP != "" {
				return nil, &fault.Field{Given: s, Expected: "no address: a service is published on all of a node"}
			}
			first, last, err := published(b.HostPort)
			if err != nil {
				return nil, err
			}
			for host := first; host <= last; host++ {
				list = append(list, wire.ServicePort{Protocol: protocol, TargetPort: uint32(number), PublishedPort: uint32(host), PublishMode: wire.PublishIngress})
			}
		}
	}
	slices.SortFunc(list, func(a, b wire.ServicePort) int {
		return cmp.Or(int(a.TargetPort)-int(b.TargetPort), int(a.PublishedPort)-int(b.PublishedPort))
	})
	return list, nil
}

// published is a range of ports; "" is 0, which is any.
func published(s string) (first, last uint64, err error) {
	if s == "" {
		return 0, 0, nil
	}
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		b = a
	}
	first, err = strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	last, err = strconv.ParseUint(b, 10, 16)
	return first, last, err
}

// portKey tells ports apart.
func portKey(p wire.ServicePort) string {
	return fmt.Sprintf("%d:%d/%s/%s", p.PublishedPort, p.TargetPort, p.Protocol, p.PublishMode)
}

// editPorts takes ports away by what is published and how, and adds others.
func editPorts(have, remove, add []wire.ServicePort) []wire.ServicePort {
	same := func(a, b wire.ServicePort) bool {
		return a.TargetPort == b.TargetPort && cmp.Or(a.Protocol, "tcp") == cmp.Or(b.Protocol, "tcp") &&
			cmp.Or(a.PublishMode, wire.PublishIngress) == cmp.Or(b.PublishMode, wire.PublishIngress)
	}
	var list []wire.ServicePort
	known := map[string]bool{}
	for _, p := range have {
		removed := slices.ContainsFunc(remove, func(r wire.ServicePort) bool { return same(p, r) })
		if !known[portKey(p)] && !removed {
			list = append(list, p)
		}
		known[portKey(p)] = true
	}
	for _, p := range add {
		if !known[portKey(p)] {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b wire.ServicePort) int { return cmp.Compare(portKey(a), portKey(b)) })
	return list
}

// span is consecutive published ports and where they lead: to consecutive targets, or all to one.
type span struct {
	first, last     uint32
	target, through uint32
	protocol        string
}

func (s span) String() string {
	text := func(a, b uint32) string {
		if b > a {
			return fmt.Sprintf("%d-%d", a, b)
		}
		return strconv.FormatUint(uint64(a), 10)
	}
	return fmt.Sprintf("*:%s->%s/%s", text(s.first, s.last), text(s.target, s.through), s.protocol)
}

// follows reports whether a port goes on where the span ends.
func (s span) follows(p wire.ServicePort) bool {
	if p.Protocol != s.protocol || p.PublishedPort != s.last+1 {
		return false
	}
	toOne, oneToOne := s.target == s.through, s.through-s.target == s.last-s.first
	return toOne && p.TargetPort == s.through || oneToOne && p.TargetPort == s.through+1
}

// portText is how ls shows the ports that every node publishes.
func portText(list []wire.ServicePort) string {
	list = slices.DeleteFunc(slices.Clone(list), func(p wire.ServicePort) bool { return p.PublishMode != wire.PublishIngress || p.PublishedPort == 0 })
	slices.SortFunc(list, func(a, b wire.ServicePort) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.PublishedPort, b.PublishedPort))
	})
	var spans []string
	var now *span
	for _, p := range list {
		if now != nil && now.follows(p) {
			now.last, now.through = p.PublishedPort, p.TargetPort
			continue
		}
		if now != nil {
			spans = append(spans, now.String())
		}
		now = &span{p.PublishedPort, p.PublishedPort, p.TargetPort, p.TargetPort, p.Protocol}
	}
	if now != nil {
		spans = append(spans, now.String())
	}
	return strings.Join(spans, ", ")
}
