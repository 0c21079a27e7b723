package cluster

import (
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// anyPrefix reports whether s begins with one of the values; without values everything passes.
func anyPrefix(s string, values []string) bool {
	return len(values) == 0 || slices.ContainsFunc(values, func(v string) bool { return strings.HasPrefix(s, v) })
}

// anyOf reports whether s is one of the values; without values everything passes.
func anyOf(s string, values []string) bool {
	return len(values) == 0 || slices.Contains(values, s)
}

// hasLabels reports whether the labels have all that are wanted, as KEY or KEY=VALUE.
func hasLabels(labels map[string]string, want []string) bool {
	for _, w := range want {
		key, value, has := strings.Cut(w, "=")
		got, ok := labels[key]
		if !ok || has && got != value {
			return false
		}
	}
	return true
}

// find is the object that ref means: its ID, its name, or the beginning of its ID when no other begins so.
func find[T any](noun, ref string, all []T, id, name func(T) string) (found T, err error) {
	var none T
	for _, o := range all {
		if id(o) == ref {
			return o, nil
		}
	}
	if ref == "" {
		return none, fault.New(fault.Invalid, "the %s is not named", noun)
	}
	for _, match := range []func(T) bool{
		func(o T) bool { return name(o) == ref },
		func(o T) bool { return strings.HasPrefix(id(o), ref) },
	} {
		matches := 0
		for _, o := range all {
			if match(o) {
				found = o
				matches++
			}
		}
		switch {
		case matches == 1:
			return found, nil
		case matches > 1:
			return none, fault.New(fault.Invalid, "%s %s is ambiguous (%d matches found)", noun, ref, matches)
		}
	}
	return none, fault.New(fault.NotFound, "%s %s not found", noun, ref)
}

// outOfSequence refuses a change of an object that has changed since the client saw it.
func outOfSequence(seen, is uint64) error {
	if seen == is {
		return nil
	}
	// 500 with these words is what clients know dockerd by, to look again and repeat.
	return fault.New(fault.Internal, "update out of sequence: version %d was seen, the newest is %d", seen, is)
}
