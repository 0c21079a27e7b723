package arg

import (
	"fmt"
	"math"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/diag"
)

// Type is what an argument may be: Convert makes the Go value, or says what was expected.
type Type struct {
	Name    string   // in messages and the reference: "string", "list of network"
	Choices []string // the only values, where there are few
	Convert func(starlark.Value) (any, *Reject)
}

// Reject says why a value is not of a type.
type Reject struct {
	Expected string // "network"
	Given    starlark.Value
	Path     []diag.Step
	Nearest  string
	Cure     string
	Message  string // instead of "expected ..., got ..."
	Cause    error
}

func (r *Reject) problem(subject, name string, positional int) *diag.Problem {
	message := r.Message
	if message == "" {
		message = fmt.Sprintf("expected %s, got %s", r.Expected, diag.Given(r.Given))
	}
	return &diag.Problem{
		Subject: subject, Arg: name, Positional: positional, Path: r.Path,
		Message: message, Nearest: r.Nearest, Cure: r.Cure, Cause: r.Cause,
	}
}

// below prefixes the path, when the value was found inside of another.
func (r *Reject) below(s diag.Step) *Reject {
	r.Path = append([]diag.Step{s}, r.Path...)
	return r
}

// Of makes a type from a conversion that answers false when the value is not of it.
func Of[T any](name string, convert func(starlark.Value) (T, bool)) Type {
	return Type{Name: name, Convert: func(v starlark.Value) (any, *Reject) {
		if x, ok := convert(v); ok {
			return x, nil
		}
		return nil, &Reject{Expected: name, Given: v}
	}}
}

// The plain types.
var (
	Any    = Of("any value", func(v starlark.Value) (starlark.Value, bool) { return v, true })
	String = Of("string", func(v starlark.Value) (string, bool) { return starlark.AsString(v) })
	Bool   = Of("bool", func(v starlark.Value) (bool, bool) { b, ok := v.(starlark.Bool); return bool(b), ok })
	// Function is a function of the script.
	Function = Of("function", func(v starlark.Value) (starlark.Callable, bool) { c, ok := v.(starlark.Callable); return c, ok })
)

// Int is a whole number in [low, high].
func Int(low, high int64) Type {
	name := "int"
	switch {
	case high < math.MaxInt64:
		name = fmt.Sprintf("int from %d to %d", low, high)
	case low > math.MinInt64:
		name = fmt.Sprintf("int of at least %d", low)
	}
	return Of(name, func(v starlark.Value) (int64, bool) {
		i, ok := v.(starlark.Int)
		if !ok {
			return 0, false
		}
		n, ok := i.Int64()
		return n, ok && n >= low && n <= high
	})
}

// Matching is a string that matches the pattern; what names it for people.
func Matching(what string, pattern func() *regexp.Regexp) Type {
	return Of(what, func(v starlark.Value) (string, bool) {
		s, ok := starlark.AsString(v)
		return s, ok && pattern().MatchString(s)
	})
}

var resourceName = diag.Pattern(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// Name is the name of a resource.
var Name = Matching("a name of letters, digits, _ . and -, such as \"db\"", resourceName)

// OneOf is one of the given words.
func OneOf(words ...string) Type {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	name := strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
	return Type{Name: name, Choices: words, Convert: func(v starlark.Value) (any, *Reject) {
		s, ok := starlark.AsString(v)
		for _, w := range words {
			if ok && s == w {
				return s, nil
			}
		}
		return nil, &Reject{Expected: name, Given: v, Nearest: fault.Nearest(s, words)}
	}}
}

// Either takes what the first or else the second type takes; both make the same Go type, or the
// caller takes any.
func Either(a, b Type) Type {
	name := a.Name + " or " + b.Name
	return Type{Name: name, Convert: func(v starlark.Value) (any, *Reject) {
		x, first := a.Convert(v)
		if first == nil {
			return x, nil
		}
		x, second := b.Convert(v)
		if second == nil {
			return x, nil
		}
		if len(first.Path) > 0 { // it is a list or dict, as a wants, with a wrong element
			return nil, first
		}
		if len(second.Path) > 0 {
			return nil, second
		}
		if first.Message != "" {
			return nil, first
		}
		return nil, &Reject{Expected: name, Given: v}
	}}
}

// most bounds the elements of one argument: more is a mistake, or hostile.
const most = 100_000

// List is a list or tuple; its Go value is []T.
func List[T any](of Type) Type {
	name := "list of " + of.Name
	return Type{Name: name, Choices: of.Choices, Convert: func(v starlark.Value) (any, *Reject) {
		seq, ok := v.(starlark.Sequence)
		if _, text := v.(starlark.String); !ok || text || seq.Len() > most {
			return nil, &Reject{Expected: name, Given: v, Cure: bracket(v, of)}
		}
		if _, dict := v.(*starlark.Dict); dict {
			return nil, &Reject{Expected: name, Given: v}
		}
		out := make([]T, 0, seq.Len())
		it := seq.Iterate()
		defer it.Done()
		var x starlark.Value
		for i := 0; it.Next(&x); i++ {
			e, reject := of.Convert(x)
			if reject != nil {
				return nil, reject.below(diag.Index(i))
			}
			out = append(out, e.(T))
		}
		return out, nil
	}}
}

// bracket is the cure for a lone element where a list of them is expected.
func bracket(v starlark.Value, of Type) string {
	if _, reject := of.Convert(v); reject != nil {
		return ""
	}
	if s, ok := v.(starlark.String); ok && len(s) < 40 {
		return "put it in brackets: [" + s.String() + "]"
	}
	return "put it in brackets: [...]"
}

// Dict is a dict with string keys; its Go value is map[string]T.
func Dict[T any](of Type) Type {
	name := "dict of " + of.Name
	return Type{Name: name, Convert: func(v starlark.Value) (any, *Reject) {
		d, ok := v.(*starlark.Dict)
		if !ok || d.Len() > most {
			return nil, &Reject{Expected: name, Given: v}
		}
		out := make(map[string]T, d.Len())
		for _, item := range d.Items() {
			k, ok := starlark.AsString(item[0])
			if !ok {
				return nil, &Reject{Message: fmt.Sprintf("expected a string as key, got %s", diag.Given(item[0]))}
			}
			e, reject := of.Convert(item[1])
			if reject != nil {
				return nil, reject.below(diag.Key(k))
			}
			out[k] = e.(T)
		}
		return out, nil
	}}
}

// Size is an amount of memory or disk in bytes: an int, or a string with a unit of 1024.
var Size = Of("a size such as 512m or 2g", func(v starlark.Value) (int64, bool) {
	if i, ok := v.(starlark.Int); ok {
		n, ok := i.Int64()
		return n, ok && n >= 0
	}
	s, _ := starlark.AsString(v)
	n, err := ParseSize(s)
	return n, err == nil
})

var sizePattern = diag.Pattern(`^(\d{1,15}(?:\.\d{1,6})?)\s*([kmgtp]?)i?b?$`)

// ParseSize reads 512m, 1.5g or 1048576; units are powers of 1024, as Docker's --memory has them.
func ParseSize(s string) (int64, error) {
	m := sizePattern().FindStringSubmatch(strings.ToLower(strings.TrimSpace(s)))
	if m == nil {
		return 0, &fault.Field{Field: "size", Given: s, Expected: "a size such as 512m or 2g"}
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, err
	}
	n *= math.Pow(1024, float64(strings.Index("_kmgtp", m[2]))) // no unit is found at 0
	if n > math.MaxInt64/2 {
		return 0, &fault.Field{Field: "size", Given: s, Expected: "a size such as 512m or 2g"}
	}
	return int64(n), nil
}

// Duration is a time span: "1m30s", or an int of seconds.
var Duration = Of(`a duration such as "30s" or "1m30s"`, func(v starlark.Value) (time.Duration, bool) {
	if i, ok := v.(starlark.Int); ok {
		n, ok := i.Int64()
		return time.Duration(n) * time.Second, ok && n >= 0 && n < 1<<31
	}
	s, ok := starlark.AsString(v)
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
})

// CPUs is a number of processors, as --cpus has it; the Go value is billionths.
var CPUs = Of("a number of CPUs such as 0.5 or 2", func(v starlark.Value) (int64, bool) {
	var f float64
	switch v := v.(type) {
	case starlark.Int, starlark.Float:
		f, _ = starlark.AsFloat(v)
	case starlark.String:
		n, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return 0, false
		}
		f = n
	default:
		return 0, false
	}
	return int64(math.Round(f * 1e9)), f >= 0.001 && f <= 1<<20
})

// Absolute is a path inside of a container or image, which begins with "/".
var Absolute = Of(`an absolute path such as "/data"`, func(v starlark.Value) (string, bool) {
	s, ok := starlark.AsString(v)
	return path.Clean("/" + s), ok && strings.HasPrefix(s, "/") && !strings.Contains(s, "\x00")
})

// Keys returns a map's keys, sorted: maps from scripts are always walked in this order.
func Keys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
