package container

import (
	"cmp"
	"context"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// filters are the keys of List and Prune. Values of one key are alternatives, except of "label".
var filters = map[string]func(m *Manager, ctx context.Context, values []string) (func(view) bool, error){
	"id":        patterns(func(v view) []string { return []string{v.rec.ID} }),
	"name":      patterns(func(v view) []string { return []string{v.rec.Name, "/" + v.rec.Name} }),
	"label":     labels(true),
	"label!":    labels(false),
	"status":    words(func(v view) string { return string(v.state.Phase) }),
	"health":    words(healthWord),
	"exited":    exitCodes,
	"ancestor":  (*Manager).ofImage,
	"before":    (*Manager).olderThan,
	"since":     (*Manager).youngerThan,
	"until":     createdUntil,
	"volume":    mountsOf,
	"network":   (*Manager).inNetwork,
	"publish":   portFilter(func(p wire.Port) uint16 { return p.PublicPort }),
	"expose":    portFilter(func(p wire.Port) uint16 { return p.PrivatePort }),
	"isolation": words(func(v view) string { return cmp.Or(v.rec.Host.Isolation, "default") }),
	"is-task":   words(func(view) string { return "false" }),
}

// newFilter returns the test that all filters together are.
func (m *Manager) newFilter(ctx context.Context, given map[string][]string) (func(view) bool, error) {
	var tests []func(view) bool
	for _, key := range slices.Sorted(maps.Keys(given)) {
		compile, ok := filters[key]
		if !ok {
			known := slices.Sorted(maps.Keys(filters))
			return nil, &fault.Field{Field: "invalid filter", Given: shortened(key), Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(key, known)}
		}
		if len(given[key]) == 0 {
			continue
		}
		test, err := compile(m, ctx, given[key])
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
	}
	return func(v view) bool {
		return !slices.ContainsFunc(tests, func(test func(view) bool) bool { return !test(v) })
	}, nil
}

type filterMaker = func(*Manager, context.Context, []string) (func(view) bool, error)

// patterns matches values as regular expressions, as Docker does; one that is none is taken literally.
func patterns(of func(view) []string) filterMaker {
	return func(_ *Manager, _ context.Context, values []string) (func(view) bool, error) {
		var tests []func(string) bool
		for _, value := range values {
			re, err := regexp.Compile(value)
			tests = append(tests, func(s string) bool { return s == value || err == nil && re.MatchString(s) })
		}
		return func(v view) bool {
			return slices.ContainsFunc(of(v), func(s string) bool {
				return slices.ContainsFunc(tests, func(test func(string) bool) bool { return test(s) })
			})
		}, nil
	}
}

func words(of func(view) string) filterMaker {
	return func(_ *Manager, _ context.Context, values []string) (func(view) bool, error) {
		return func(v view) bool { return slices.Contains(values, of(v)) }, nil
	}
}

// labels wants all of them, or, for what a prune keeps, none.
func labels(want bool) filterMaker {
	return func(_ *Manager, _ context.Context, values []string) (func(view) bool, error) {
		return func(v view) bool {
			return want == !slices.ContainsFunc(values, func(w string) bool {
				key, value, has := strings.Cut(w, "=")
				got, ok := v.rec.Config.Labels[key]
				return !ok || has && got != value
			})
		}, nil
	}
}

func healthWord(v view) string {
	if v.state.Health == nil {
		return "none"
	}
	return v.state.Health.Status
}

func exitCodes(_ *Manager, _ context.Context, values []string) (func(view) bool, error) {
	var codes []int
	for _, value := range values {
		code, err := strconv.Atoi(value)
		if err != nil {
			return nil, &fault.Field{Field: "filter exited", Given: shortened(value), Expected: "a number"}
		}
		codes = append(codes, code)
	}
	return func(v view) bool {
		return v.state.Phase == exited && !v.state.StartedAt.IsZero() && slices.Contains(codes, v.state.ExitCode)
	}, nil
}

// ofImage matches containers made from the image. A name that means no image matches containers that
// were made by that name.
func (m *Manager) ofImage(ctx context.Context, values []string) (func(view) bool, error) {
	var ids []string
	for _, value := range values {
		if img, err := m.o.Images.Get(ctx, value); err == nil {
			ids = append(ids, img.ID.String())
		}
	}
	return func(v view) bool {
		return slices.Contains(ids, v.rec.ImageID.String()) || slices.Contains(values, v.rec.Config.Image)
	}, nil
}

func (m *Manager) olderThan(_ context.Context, values []string) (func(view) bool, error) {
	return m.byAge(values, func(created, other time.Time) bool { return created.Before(other) })
}

func (m *Manager) youngerThan(_ context.Context, values []string) (func(view) bool, error) {
	return m.byAge(values, func(created, other time.Time) bool { return created.After(other) })
}

func (m *Manager) byAge(values []string, test func(created, other time.Time) bool) (func(view) bool, error) {
	var others []time.Time
	for _, value := range values {
		c, err := m.find(value)
		if err != nil {
			return nil, err
		}
		rec, _ := c.snapshot()
		others = append(others, rec.Created)
	}
	return func(v view) bool {
		return slices.ContainsFunc(others, func(other time.Time) bool { return test(v.rec.Created, other) })
	}, nil
}

// createdUntil reads a time, or how long ago it was: 2006-01-02T15:04:05, 1136073600, 24h.
func createdUntil(_ *Manager, _ context.Context, values []string) (func(view) bool, error) {
	if len(values) != 1 {
		return nil, fault.New(fault.Invalid, "filter until: expected one value, got %d", len(values))
	}
	until, err := parseTime(values[0], time.Now())
	if err != nil {
		return nil, err
	}
	return func(v view) bool { return v.rec.Created.Before(until) }, nil
}

func parseTime(value string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(value); err == nil {
		return now.Add(-d), nil
	}
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		return time.Unix(0, int64(seconds*float64(time.Second))), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, value, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &fault.Field{Field: "filter until", Given: shortened(value), Expected: "a time such as 2006-01-02T15:04:05Z, or a duration such as 24h"}
}

func mountsOf(_ *Manager, _ context.Context, values []string) (func(view) bool, error) {
	return func(v view) bool {
		return slices.ContainsFunc(v.rec.Mounts, func(p mountPoint) bool {
			return slices.ContainsFunc(values, func(w string) bool {
				return w == p.Name && w != "" || path.Clean(w) == p.Destination
			})
		})
	}, nil
}

func (m *Manager) inNetwork(_ context.Context, values []string) (func(view) bool, error) {
	wanted := slices.Clone(values)
	for _, value := range values {
		if n, err := m.o.Network.Resolve(value); err == nil {
			wanted = append(wanted, n.Name)
		}
	}
	return func(v view) bool {
		s := m.networkSettings(&v.rec, &v.state)
		return slices.ContainsFunc(wanted, func(w string) bool { _, in := s.Networks[w]; return in })
	}, nil
}

// portFilter matches PORT[-PORT][/PROTOCOL] with a number of each port that `ps` shows.
func portFilter(number func(wire.Port) uint16) filterMaker {
	return func(m *Manager, _ context.Context, values []string) (func(view) bool, error) {
		type span struct {
			low, high uint16
			protocol  string
		}
		var spans []span
		for _, value := range values {
			numbers, protocol, _ := strings.Cut(value, "/")
			low, high, isRange := strings.Cut(numbers, "-")
			if !isRange {
				high = low
			}
			from, protocol, err := parsePort(low + "/" + cmp.Or(protocol, "tcp"))
			if err != nil {
				return nil, err
			}
			to, _, err := parsePort(high)
			if err != nil {
				return nil, err
			}
			spans = append(spans, span{from, to, protocol})
		}
		return func(v view) bool {
			return slices.ContainsFunc(ports(&v.rec, &v.state, m.networkSettings(&v.rec, &v.state).Ports), func(p wire.Port) bool {
				return slices.ContainsFunc(spans, func(s span) bool {
					return s.protocol == p.Type && s.low <= number(p) && number(p) <= s.high
				})
			})
		}, nil
	}
}
