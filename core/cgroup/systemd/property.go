package systemd

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/sampan-project/sampan/core/fault"
)

// Property is a property of a unit, as D-Bus carries it: (sv).
type Property struct {
	Name  string
	Value dbus.Variant
}

func property(name string, value any) Property { return Property{name, dbus.MakeVariant(value)} }

// properties are those that every unit of a container has.
func (u Unit) properties(pid int) []Property {
	list := []Property{property("Description", "sampan container "+strings.TrimSuffix(strings.TrimSuffix(u.Name, ".scope"), ".slice"))}
	if u.slice() {
		list = append(list, property("Wants", []string{u.Slice}))
	} else {
		// Delegate: what is below its cgroup is the container's business, not systemd's.
		list = append(list, property("Slice", u.Slice), property("Delegate", true), property("PIDs", []uint32{uint32(pid)}))
	}
	// Without default dependencies it is not stopped before the daemon at a shutdown.
	return append(list, property("DefaultDependencies", false))
}

// accounting switches the controllers on, whatever the limits are.
func accounting(unified bool) []Property {
	io := "BlockIOAccounting"
	if unified {
		io = "IOAccounting"
	}
	var list []Property
	for _, name := range []string{"CPUAccounting", io, "MemoryAccounting", "TasksAccounting"} {
		list = append(list, property(name, true))
	}
	return list
}

const (
	annotation = "org.systemd.property."
	// maxValue bounds a property's text: the parser descends into each bracket.
	maxValue = 16 << 10
)

// Annotations are the properties that a spec's annotations name. The value is in GVariant's text form;
// what is called Sec in systemd's files is USec here, and is converted.
func Annotations(annotations map[string]string) ([]Property, error) {
	var list []Property
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, annotation)
		if !ok {
			continue
		}
		bad := &fault.Field{Field: "annotations." + key, Given: short(annotations[key])}
		if len(name) < 3 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			bad.Field, bad.Given, bad.Expected = "annotations", short(key), "the name of a property after "+annotation+", of letters, at least 3"
			return nil, bad
		}
		value, err := parseValue(annotations[key])
		if err != nil {
			bad.Expected = fmt.Sprintf("a value in GVariant's text form such as uint64 5 or 'text' (%v)", err)
			return nil, bad
		}
		if stem, ok := strings.CutSuffix(name, "Sec"); ok && stem != "" && stem[len(stem)-1] >= 'a' && stem[len(stem)-1] <= 'z' {
			us, ok := microseconds(value)
			if !ok {
				bad.Expected = "a number of seconds"
				return nil, bad
			}
			name, value = stem+"USec", us
		}
		list = append(list, Property{name, value})
	}
	return list, nil
}

// parseValue parses GVariant's text form. The library's parser panics at some that is not well-formed,
// such as "@b []".
func parseValue(text string) (v dbus.Variant, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("it cannot be parsed")
		}
	}()
	if len(text) > maxValue {
		return v, fmt.Errorf("at most %d bytes", maxValue)
	}
	if !plain(text) {
		return v, errors.New("other characters than ASCII's belong in quotes")
	}
	if v, err = dbus.ParseVariant(text, dbus.Signature{}); err != nil {
		err = fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "dbus: "))
	}
	return v, err
}

// plain reports whether all is ASCII outside of quotes: the parser does not come to an end at the digits
// of other scripts.
func plain(text string) bool {
	var quote rune
	escaped := false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quote != 0:
			if escaped = c == '\\'; c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c >= 0x80:
			return false
		}
	}
	return true
}

// microseconds converts seconds, unless they are negative or too many.
func microseconds(v dbus.Variant) (dbus.Variant, bool) {
	const million = 1000000
	var n uint64
	switch s := v.Value().(type) {
	case byte:
		n = uint64(s)
	case int16:
		n = uint64(s)
	case uint16:
		n = uint64(s)
	case int32:
		n = uint64(s)
	case uint32:
		n = uint64(s)
	case int64:
		n = uint64(s)
	case uint64:
		n = s
	case float64:
		return dbus.MakeVariant(uint64(s * million)), s >= 0 && s < math.MaxUint64/million
	default:
		return v, false
	}
	// A negative number is a very large one here.
	return dbus.MakeVariant(n * million), n <= math.MaxUint64/million
}
