package image

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// ListOptions choose images for List.
type ListOptions struct {
	All        bool                // also nameless images that others were made from
	Filters    map[string][]string // dangling, label, label!, before, since, until, reference
	SharedSize bool                // count shared bytes, and containers
	Manifests  bool                // describe the platforms of each
}

// List returns the images, the latest first.
func (s *Store) List(_ context.Context, o ListOptions) ([]wire.ImageSummary, error) {
	choose, err := s.filter(o.Filters)
	if err != nil {
		return nil, err
	}
	all := s.all()
	parents := map[digest.Digest]bool{}
	users := map[digest.Digest]int{} // layers, by how many images have them
	for _, e := range all {
		parents[e.record.Parent] = true
		for _, l := range e.Layers {
			users[l.Chain]++
		}
	}
	list := []wire.ImageSummary{}
	for _, e := range all {
		if !choose(e) || !o.All && e.hidden(parents) {
			continue
		}
		sum := e.summary()
		if patterns := o.Filters["reference"]; len(patterns) > 0 {
			other := func(ref string) bool { return !matchesReference(patterns, ref) }
			sum.RepoTags = slices.DeleteFunc(sum.RepoTags, other)
			sum.RepoDigests = slices.DeleteFunc(sum.RepoDigests, other)
		}
		if o.SharedSize {
			sum.SharedSize = 0
			for _, l := range e.Layers {
				if found, err := s.o.Layers.Get(l.Chain); err == nil && users[l.Chain] > 1 {
					sum.SharedSize += found.Size
				}
			}
			sum.Containers = int64(len(s.o.InUse(e.record.ID.String())))
		}
		if o.Manifests {
			d := wireDescriptor(e.Manifest)
			sum.Descriptor, sum.Manifests = &d, s.manifests(e)
			// Who asks for the platforms adds up their sizes, which are with the packed layers, as dockerd's are.
			sum.Size = 0
			for _, m := range sum.Manifests {
				sum.Size += m.Size.Total
			}
		}
		list = append(list, sum)
	}
	slices.SortStableFunc(list, func(a, b wire.ImageSummary) int { return int(b.Created - a.Created) })
	return list, nil
}

// hidden reports whether an image shows only among all: a nameless one that others were made from, and what
// is shown as another platform of a name.
func (e *entry) hidden(parents map[digest.Digest]bool) bool {
	return e.dangling() && parents[e.record.ID] || len(e.Tags) == 0 && len(e.Others) > 0
}

func (e *entry) summary() wire.ImageSummary {
	sum := wire.ImageSummary{
		ID: e.record.ID.String(), ParentID: e.record.Parent.String(),
		RepoTags: slices.Clone(e.Names), RepoDigests: slices.Clone(e.Image.Digests),
		Size: e.Size, SharedSize: -1, Containers: -1, Labels: e.ContainerConfig.Labels,
	}
	if t := e.created(); !t.IsZero() {
		sum.Created = t.Unix()
	}
	return sum
}

// filter returns the test that filters describe. Values of one filter are alternatives, except for
// labels, which must all be there; an image must pass every filter.
func (s *Store) filter(filters map[string][]string) (func(*entry) bool, error) {
	var tests []func(*entry) bool
	for name, values := range filters {
		test, err := s.filterOf(name, values)
		if err != nil {
			return nil, err
		}
		if len(values) > 0 {
			tests = append(tests, test)
		}
	}
	return func(e *entry) bool {
		for _, test := range tests {
			if !test(e) {
				return false
			}
		}
		return true
	}, nil
}

func (s *Store) filterOf(name string, values []string) (func(*entry) bool, error) {
	switch name {
	case "dangling":
		return filterDangling(values)
	case "label":
		return func(e *entry) bool {
			return !slices.ContainsFunc(values, func(v string) bool { return !hasLabel(e.ContainerConfig.Labels, v) })
		}, nil
	case "label!":
		return func(e *entry) bool {
			return !slices.ContainsFunc(values, func(v string) bool { return hasLabel(e.ContainerConfig.Labels, v) })
		}, nil
	case "before", "since":
		return s.filterAge(name, values)
	case "until":
		return filterUntil(values)
	case "reference":
		return func(e *entry) bool {
			return slices.ContainsFunc(slices.Concat(e.Names, e.Image.Digests), func(ref string) bool { return matchesReference(values, ref) })
		}, nil
	}
	known := []string{"dangling", "label", "label!", "before", "since", "until", "reference"}
	return nil, &fault.Field{Field: "filter", Given: name, Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(name, known)}
}

func parseBool(filter, value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fault.New(fault.Invalid, "invalid filter '%s=[%s]'", filter, value)
	}
	return b, nil
}

func filterDangling(values []string) (func(*entry) bool, error) {
	want := map[bool]bool{}
	for _, v := range values {
		b, err := parseBool("dangling", v)
		if err != nil {
			return nil, err
		}
		want[b] = true
	}
	return func(e *entry) bool { return want[e.dangling()] }, nil
}

func hasLabel(labels map[string]string, wanted string) bool {
	key, value, given := strings.Cut(wanted, "=")
	has, ok := labels[key]
	return ok && (!given || has == value)
}

func (s *Store) filterAge(name string, values []string) (func(*entry) bool, error) {
	var limit time.Time
	for _, v := range values {
		e, err := s.find(v)
		if err != nil {
			return nil, err
		}
		t := e.created()
		if limit.IsZero() || name == "before" && t.Before(limit) || name == "since" && t.After(limit) {
			limit = t
		}
	}
	return func(e *entry) bool {
		if name == "before" {
			return e.created().Before(limit)
		}
		return e.created().After(limit)
	}, nil
}

// filterUntil takes times as Docker does: RFC 3339, seconds since 1970, or how long ago.
func filterUntil(values []string) (func(*entry) bool, error) {
	var limit time.Time
	for _, v := range values {
		t, err := parseTime(v)
		if err != nil {
			return nil, err
		}
		if limit.IsZero() || t.Before(limit) {
			limit = t
		}
	}
	return func(e *entry) bool { return e.created().Before(limit) }, nil
}

func parseTime(v string) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	if seconds, err := strconv.ParseFloat(v, 64); err == nil {
		return time.UnixMicro(int64(seconds * 1e6)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &fault.Field{Field: "filter until", Given: v, Expected: "a time such as 2026-01-31T12:00:00Z, or an age such as 24h"}
}

// matchesReference reports whether a familiar reference, with or without its tag, matches a pattern.
func matchesReference(patterns []string, ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	for _, p := range patterns {
		if ok, err := reference.FamiliarMatch(p, named); err == nil && ok {
			return true
		}
	}
	return false
}
