package event

import (
	"maps"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// filterKeys are dockerd's. A key with a kind's name matches that kind's id or name.
var filterKeys = map[string]func(e wire.Event, values []string) bool{
	"type":  func(e wire.Event, v []string) bool { return slices.Contains(v, e.Type) },
	"scope": func(e wire.Event, v []string) bool { return slices.Contains(v, e.Scope) },
	"event": func(e wire.Event, v []string) bool {
		return slices.ContainsFunc(v, func(w string) bool { return isAction(e, w) })
	},
	"label":     hasLabels,
	"container": func(e wire.Event, v []string) bool { return names(e, Container, v) },
	"network":   func(e wire.Event, v []string) bool { return names(e, Network, v) },
	"volume":    func(e wire.Event, v []string) bool { return names(e, Volume, v) },
	"daemon":    func(e wire.Event, v []string) bool { return names(e, Daemon, v) },
	"plugin":    func(e wire.Event, v []string) bool { return names(e, Plugin, v) },
	"image":     aboutImage,
	"node":      func(e wire.Event, v []string) bool { return names(e, Node, v) },
	"service":   func(e wire.Event, v []string) bool { return names(e, Service, v) },
	// Things of a swarm that there are none of here: they are known words.
	"config": noEvent,
	"secret": noEvent,
}

func noEvent(wire.Event, []string) bool { return false }

// newFilter returns the test that all filters together are.
func newFilter(filters map[string][]string) (func(wire.Event) bool, error) {
	for key := range filters {
		if _, ok := filterKeys[key]; !ok {
			known := slices.Sorted(maps.Keys(filterKeys))
			return nil, fault.As(fault.Invalid, &fault.Field{Field: "invalid filter", Given: key,
				Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(key, known)})
		}
	}
	return func(e wire.Event) bool {
		for key, values := range filters {
			if len(values) > 0 && !filterKeys[key](e, values) {
				return false
			}
		}
		return true
	}, nil
}

// isAction also lets "exec_create" match the action "exec_create: sh -c x", and "health_status"
// that with its state.
func isAction(e wire.Event, want string) bool {
	return e.Action == want || strings.HasPrefix(e.Action, want+":")
}

func hasLabels(e wire.Event, want []string) bool {
	for _, w := range want {
		key, value, has := strings.Cut(w, "=")
		got, ok := e.Actor.Attributes[key]
		if !ok || has && got != value {
			return false
		}
	}
	return true
}

func names(e wire.Event, kind string, want []string) bool {
	if e.Type != kind {
		return e.Type == Network && kind == Container && slices.Contains(want, e.Actor.Attributes["container"])
	}
	return slices.ContainsFunc(want, func(w string) bool {
		w = strings.TrimPrefix(w, "/")
		return w != "" && (strings.HasPrefix(e.Actor.ID, w) || e.Actor.Attributes["name"] == w)
	})
}

// aboutImage matches events of the image and of containers made from it, with or without a tag.
func aboutImage(e wire.Event, want []string) bool {
	got := []string{e.Actor.ID}
	switch e.Type {
	case Image:
		got = append(got, e.Actor.Attributes["name"])
	case Container:
		got = []string{e.Actor.Attributes["image"]}
	default:
		return false
	}
	return slices.ContainsFunc(want, func(w string) bool {
		return slices.ContainsFunc(got, func(g string) bool { return g == w || repository(g) == w })
	})
}

// repository cuts the tag off a name: a colon after the last slash.
func repository(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
