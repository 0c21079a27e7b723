package route

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// FilterKeys are the filters of an endpoint. The check of a key, where there is one, refuses values.
type FilterKeys map[string]FilterCheck

// A FilterCheck returns what would have been right, or "" when the value is.
type FilterCheck func(value string) (expected string)

// IsBool accepts the spellings that Docker does.
func IsBool(value string) string {
	switch value {
	case "1", "0", "true", "false":
		return ""
	}
	return "true or false"
}

// IsNumber accepts whole numbers.
func IsNumber(value string) string {
	if _, err := strconv.Atoi(value); err != nil {
		return "a whole number"
	}
	return ""
}

// OneOf accepts the words.
func OneOf(words ...string) FilterCheck {
	return func(value string) string {
		if slices.Contains(words, value) {
			return ""
		}
		return "one of " + strings.Join(words, ", ")
	}
}

// Filters returns the parameter "filters": JSON of a list for each key, {"label":["a","b"]}, or of a
// set, {"label":{"a":true}}. A key that the endpoint lacks is an error that begins with Docker's
// words. The values of a set come sorted, so that the same request asks the same.
func (q *Query) Filters(keys FilterKeys) map[string][]string {
	given := q.values.Get("filters")
	if given == "" {
		return nil
	}
	filters, err := parseFilters(given)
	if err != nil {
		q.fail("filters", given, `JSON such as {"key":["value"]}`)
		return nil
	}
	known := slices.Sorted(maps.Keys(keys))
	for _, key := range slices.Sorted(maps.Keys(filters)) {
		check, ok := keys[key]
		if !ok {
			q.failFilter(key, "one of "+strings.Join(known, ", "), fault.Nearest(key, known))
			continue
		}
		for _, value := range filters[key] {
			if check == nil {
				break
			}
			if expected := check(value); expected != "" {
				q.failFilter(key+"="+value, expected, "")
			}
		}
	}
	return filters
}

// failFilter does not use fault.Field: clients and their tests look for "invalid filter 'x'".
func (q *Query) failFilter(given, expected, nearest string) {
	if q.err != nil {
		return
	}
	hint := ""
	if nearest != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", nearest)
	}
	q.err = fault.New(fault.Invalid, "invalid filter '%s': expected %s%s", given, expected, hint)
}

func parseFilters(s string) (map[string][]string, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s), &raw); err != nil {
		return nil, err
	}
	filters := make(map[string][]string, len(raw))
	for key, value := range raw {
		var list []string
		if err := json.Unmarshal(value, &list); err == nil {
			filters[key] = list
			continue
		}
		var set map[string]bool
		if err := json.Unmarshal(value, &set); err != nil {
			return nil, err
		}
		for v, wanted := range set {
			if wanted {
				filters[key] = append(filters[key], v)
			}
		}
		slices.Sort(filters[key])
	}
	return filters, nil
}
