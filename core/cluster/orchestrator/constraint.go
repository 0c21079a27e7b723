package orchestrator

import (
	"net/netip"
	"regexp"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// constraint is one condition on a node: "node.role==manager", "node.labels.zone!=a". Keys and values are compared
// without regard to case, but the names of labels.
type constraint struct {
	key, value string
	not        bool
}

const (
	nodeLabels   = "node.labels."
	engineLabels = "engine.labels."
)

var (
	constraintKey   = regexp.MustCompile(`^(?i)[a-z_][a-z0-9\-_.]+$`)
	constraintValue = regexp.MustCompile(`^(?i)[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+$`)
)

func parseConstraints(given []string) ([]constraint, error) {
	var all []constraint
	for _, text := range given {
		key, value, ok := strings.Cut(text, "==")
		not := !ok
		if not {
			if key, value, ok = strings.Cut(text, "!="); !ok {
				return nil, fault.New(fault.Invalid, "constraint expected one operator from ==, !=")
			}
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !constraintKey.MatchString(key) {
			return nil, fault.New(fault.Invalid, "key '%s' is invalid", key)
		}
		if !constraintValue.MatchString(value) {
			return nil, fault.New(fault.Invalid, "value '%s' is invalid", value)
		}
		all = append(all, constraint{key: key, value: value, not: not})
	}
	return all, nil
}

// constraintsOf are those of a placement, which was checked when it was given.
func (s *step) constraintsOf(p *wire.Placement) []constraint {
	if p == nil || len(p.Constraints) == 0 {
		return nil
	}
	text := strings.Join(p.Constraints, "\x00")
	parsed, ok := s.parsed[text]
	if !ok {
		var err error
		if parsed, err = parseConstraints(p.Constraints); err != nil {
			parsed = []constraint{{}} // no node satisfies it
		}
		s.parsed[text] = parsed
	}
	return parsed
}

// matches says that a node satisfies all constraints.
func matches(all []constraint, n *wire.Node) bool {
	for _, c := range all {
		if !c.matches(n) {
			return false
		}
	}
	return true
}

// matches says that a node satisfies the constraint. None satisfies one whose key means nothing.
func (c constraint) matches(n *wire.Node) bool {
	if strings.EqualFold(c.key, "node.ip") {
		return c.matchesAddress(n.Status.Addr)
	}
	value, ok := attribute(n, c.key)
	return ok && strings.EqualFold(c.value, value) != c.not
}

func (c constraint) matchesAddress(text string) bool {
	addr, _ := netip.ParseAddr(text)
	if want, err := netip.ParseAddr(c.value); err == nil {
		return (want.Unmap() == addr.Unmap()) != c.not
	}
	if net, err := netip.ParsePrefix(c.value); err == nil {
		return net.Contains(addr.Unmap()) != c.not
	}
	return false
}

// attribute is what a constraint or a placement preference names of a node; ok says that the key means something.
func attribute(n *wire.Node, key string) (value string, ok bool) {
	switch strings.ToLower(key) {
	case "node.id":
		return n.ID, true
	case "node.hostname":
		return n.Description.Hostname, true
	case "node.role":
		return n.Spec.Role, true
	case "node.platform.os":
		return n.Description.Platform.OS, true
	case "node.platform.arch":
		return n.Description.Platform.Architecture, true
	}
	if label, ok := labelOf(key, nodeLabels); ok {
		return n.Spec.Labels[label], true
	}
	if label, ok := labelOf(key, engineLabels); ok {
		return n.Description.Engine.Labels[label], true
	}
	return "", false
}

// labelOf is the name of the label that a key such as node.labels.zone has after the prefix.
func labelOf(key, prefix string) (label string, ok bool) {
	if len(key) <= len(prefix) || !strings.EqualFold(key[:len(prefix)], prefix) {
		return "", false
	}
	return key[len(prefix):], true
}
