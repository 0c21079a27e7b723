package network

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// driverOptions checks the options of a request against the driver's schema and returns them by
// the schema's names. of is how the user wrote where they stand, such as "driver option".
func driverOptions(schema wire.Schema, given map[string]string, of string) (map[string]string, error) {
	found := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		a := attribute(schema, name)
		if a == nil {
			return nil, unknownOption(schema, name, of)
		}
		if expected := mismatch(*a, given[name]); expected != "" {
			return nil, &fault.Field{Field: of + " " + shortened(name), Given: shortened(given[name]), Expected: expected}
		}
		if other, twice := found[a.Name]; twice && other != given[name] {
			return nil, &fault.Field{Field: of + " " + a.Name, Given: shortened(other) + " and " + shortened(given[name]), Expected: "one value: it is given by two of its names"}
		}
		found[a.Name] = given[name]
	}
	for _, a := range schema.Attributes {
		if _, ok := found[a.Name]; a.Required && !ok {
			return nil, &fault.Field{Field: of + " " + a.Name, Given: "", Expected: "a value: driver " + schema.Driver + " needs it"}
		}
	}
	return found, nil
}

// withDefaults adds the daemon's options for networks of the driver where the request has none, by
// that or by another of the option's names.
func withDefaults(schema wire.Schema, asked, defaults map[string]string) map[string]string {
	if len(defaults) == 0 {
		return asked
	}
	all := maps.Clone(asked)
	if all == nil {
		all = map[string]string{}
	}
	for name, value := range defaults {
		given := func(other string) bool {
			return other == name || attribute(schema, name) != nil && attribute(schema, other) == attribute(schema, name)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(asked)), given) {
			all[name] = value
		}
	}
	return all
}

// attribute returns the one of the name, which may be an alias such as Docker's, or nil.
func attribute(schema wire.Schema, name string) *wire.Attribute {
	for i := range schema.Attributes {
		if a := &schema.Attributes[i]; a.Name == name || slices.Contains(a.Aliases, name) {
			return a
		}
	}
	return nil
}

func unknownOption(schema wire.Schema, name, of string) error {
	var known, all []string
	for _, a := range schema.Attributes {
		known = append(known, a.Name)
		all = append(append(all, a.Name), a.Aliases...)
	}
	slices.Sort(known)
	expected := "no option: driver " + schema.Driver + " has none"
	if len(known) > 0 {
		expected = "an option of driver " + schema.Driver + ": " + strings.Join(known, ", ")
	}
	return &fault.Field{Field: of, Given: shortened(name), Expected: expected, Nearest: fault.Nearest(name, all)}
}

// mismatch returns what would have been right, or "" when the value is.
func mismatch(a wire.Attribute, value string) string {
	if len(a.Enum) > 0 {
		if slices.Contains(a.Enum, value) {
			return ""
		}
		return "one of " + strings.Join(a.Enum, ", ")
	}
	switch a.Type {
	case "bool":
		if _, err := strconv.ParseBool(value); err != nil {
			return "true or false"
		}
	case "int":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || a.Min != nil && n < *a.Min || a.Max != nil && n > *a.Max {
			return "a whole number" + bounds(a)
		}
	case "duration":
		if _, err := time.ParseDuration(value); err != nil {
			return "a duration such as 30s"
		}
	}
	// Strings, sizes, lists and maps are the driver's to read: it answers with a Field of its own.
	return ""
}

func bounds(a wire.Attribute) string {
	switch {
	case a.Min != nil && a.Max != nil:
		return " from " + strconv.FormatInt(*a.Min, 10) + " to " + strconv.FormatInt(*a.Max, 10)
	case a.Min != nil:
		return " of at least " + strconv.FormatInt(*a.Min, 10)
	case a.Max != nil:
		return " of at most " + strconv.FormatInt(*a.Max, 10)
	}
	return ""
}
