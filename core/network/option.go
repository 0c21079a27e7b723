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

// Docker's spelling of driver options: what comes behind one of these is the name in the schema.
var optionPrefixes = []string{"com.docker.network.bridge.", "com.docker.network.driver.", "com.docker.network."}

// driverOptions checks the options of a request against the driver's schema and returns them by
// the schema's names. of is how the user wrote where they stand, such as "driver option".
func driverOptions(schema wire.Schema, given map[string]string, of string) (map[string]string, error) {
	attributes := map[string]wire.Attribute{}
	for _, a := range schema.Attributes {
		attributes[a.Name] = a
	}
	found := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		a, ok := attributes[optionName(name, attributes)]
		if !ok {
			known := slices.Sorted(maps.Keys(attributes))
			expected := "an option of driver " + schema.Driver
			if len(known) > 0 {
				expected += ": " + strings.Join(known, ", ")
			} else {
				expected = "none: driver " + schema.Driver + " has no options"
			}
			return nil, &fault.Field{Field: of, Given: shortened(name), Expected: expected,
				Nearest: fault.Nearest(optionTail(name), known)}
		}
		if expected := mismatch(a, given[name]); expected != "" {
			return nil, &fault.Field{Field: of + " " + shortened(name), Given: shortened(given[name]), Expected: expected}
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

// optionName returns the schema's name for an option as the user wrote it.
func optionName(name string, attributes map[string]wire.Attribute) string {
	if _, ok := attributes[name]; ok {
		return name
	}
	return optionTail(name)
}

func optionTail(name string) string {
	for _, p := range optionPrefixes {
		if tail, ok := strings.CutPrefix(name, p); ok {
			return tail
		}
	}
	return name
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
