package cli

import (
	"encoding/csv"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/fault"
)

// List is a flag that may be given more than once; Check may refuse or rewrite a value. With Commas a
// value may be several, separated so, as pflag's string slices have it.
type List struct {
	Values []string
	Check  func(string) (string, error)
	Commas bool
}

// Set adds a value.
func (l *List) Set(s string) error {
	if !l.Commas {
		return l.add(s)
	}
	fields, err := Fields(s)
	if err != nil {
		return err
	}
	for _, field := range fields {
		if err := l.add(field); err != nil {
			return err
		}
	}
	return nil
}

func (l *List) add(s string) error {
	if l.Check != nil {
		var err error
		if s, err = l.Check(s); err != nil {
			return err
		}
	}
	l.Values = append(l.Values, s)
	return nil
}

func (l *List) String() string { return "" }

// Type is the word for the value in help texts.
func (l *List) Type() string {
	if l.Commas {
		return "strings"
	}
	return "list"
}

// GetSlice lets completion see the values.
func (l *List) GetSlice() []string { return l.Values }

// Map is a flag of KEY=VALUE pairs. A pair without "=" has the value "", or is refused if Strict.
type Map struct {
	Values map[string]string
	Strict bool
}

// Set adds a pair.
func (m *Map) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if key == "" || m.Strict && !ok {
		return &fault.Field{Given: s, Expected: "KEY=VALUE"}
	}
	if m.Values == nil {
		m.Values = map[string]string{}
	}
	m.Values[key] = value
	return nil
}

func (m *Map) String() string { return "" }

// Type is the word for the value in help texts.
func (m *Map) Type() string { return "map" }

// Texts is a List whose values are kept elsewhere.
type Texts struct{ Values *[]string }

// Set adds a value.
func (t Texts) Set(s string) error { *t.Values = append(*t.Values, s); return nil }

func (t Texts) String() string { return "" }

// Type is the word for the value in help texts.
func (t Texts) Type() string { return "list" }

// Word is a text flag whose help names its kind.
type Word struct {
	Value *string
	Kind  string
}

// Set takes the text.
func (w Word) Set(s string) error { *w.Value = s; return nil }

func (w Word) String() string {
	if w.Value == nil {
		return ""
	}
	return *w.Value
}

// Type is the word for the value in help texts.
func (w Word) Type() string { return w.Kind }

// ToMap makes a map of KEY=VALUE pairs; a pair without "=" has the value "".
func ToMap(pairs []string) map[string]string {
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		m[key] = value
	}
	return m
}

// Labels writes labels as lists show them: "a=1,b=2", in order.
func Labels(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for name, value := range labels {
		pairs = append(pairs, name+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// Bytes is a size flag in Docker's notation: a number with an optional unit b, k, m, g or t.
type Bytes struct {
	Value     int64
	Given     string // as it was written
	Unlimited bool   // -1 is permitted
}

// Set parses a size.
func (b *Bytes) Set(s string) error {
	b.Given = s
	if b.Unlimited && s == "-1" {
		b.Value = -1
		return nil
	}
	n, err := ParseBytes(s)
	if err != nil {
		return err
	}
	b.Value = n
	return nil
}

func (b *Bytes) String() string {
	if b.Value == 0 {
		return ""
	}
	return strconv.FormatInt(b.Value, 10)
}

// Type is the word for the value in help texts.
func (b *Bytes) Type() string { return "bytes" }

// ParseBytes parses a size such as 512m or 2g, in units of 1024.
func ParseBytes(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return 0, &fault.Field{Given: s, Expected: "a size such as 512m or 2g"}
	}
	return n, nil
}

// CPUs is a number of processors, in units of a billionth.
type CPUs struct{ Nano int64 }

// Set parses a decimal exactly, without the rounding of floating point.
func (c *CPUs) Set(s string) error {
	want := &fault.Field{Given: s, Expected: "a number of CPUs such as 2 or 0.5"}
	r, ok := new(big.Rat).SetString(s)
	if !ok || len(s) > 32 || strings.ContainsAny(s, "/eEpPxX_") {
		return want
	}
	nano := r.Mul(r, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		want.Expected = "a number of CPUs with at most nine digits after the point"
		return want
	}
	if nano.Sign() < 0 || !nano.Num().IsInt64() {
		return want
	}
	c.Nano = nano.Num().Int64()
	return nil
}

func (c *CPUs) String() string { return "" }

// Type is the word for the value in help texts.
func (c *CPUs) Type() string { return "decimal" }

// Filters is a flag of KEY=VALUE conditions, as the API takes them. The daemon checks the keys; those
// that it knows are named for completion.
type Filters struct {
	Values map[string][]string
	Keys   []string
}

// Set adds a condition.
func (f *Filters) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
	// "label!=x" arrives as the key "label!", which the API knows.
	if !ok || key == "" {
		return &fault.Field{Given: s, Expected: "KEY=VALUE"}
	}
	if f.Values == nil {
		f.Values = map[string][]string{}
	}
	f.Values[key] = append(f.Values[key], value)
	return nil
}

func (f *Filters) String() string { return "" }

// Type is the word for the value in help texts.
func (f *Filters) Type() string { return "filter" }

// Add adds a condition that the command itself wants.
func (f *Filters) Add(key, value string) {
	if f.Values == nil {
		f.Values = map[string][]string{}
	}
	f.Values[key] = append(f.Values[key], value)
}

// Fields splits a value in comma-separated notation, in which a field with a comma stands in quotes.
func Fields(s string) ([]string, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return nil, &fault.Field{Given: s, Expected: "KEY=VALUE[,KEY=VALUE...], with quotes around a field that has a comma"}
	}
	return fields, nil
}

// OneOf checks that a value is one of the choices.
func OneOf(field, given string, choices ...string) error {
	if slices.Contains(choices, given) {
		return nil
	}
	quoted := make([]string, len(choices))
	for i, c := range choices {
		quoted[i] = fmt.Sprintf("%q", c)
	}
	expected := strings.Join(quoted, ", ")
	if len(choices) > 1 {
		expected = "one of " + expected
	}
	return &fault.Field{Field: field, Given: given, Expected: expected, Nearest: fault.Nearest(given, choices)}
}
