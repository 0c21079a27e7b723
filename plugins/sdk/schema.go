package sdk

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

// Schema is the description of a driver's options, made from a struct:
//
//	type options struct {
//		MTU    int    `sampan:"mtu,default=1500,min=576,max=65535,alias=com.docker.network.driver.mtu" doc:"Largest packet."`
//		Mode   string `sampan:"mode,default=nat,enum=nat|routed,in_place" doc:"How packets leave."`
//		Parent string `sampan:"parent,required" doc:"Interface on the host."`
//	}
//
// After the name come default=VALUE, min=N, max=N, enum=A|B, alias=NAME (again for more), required
// and in_place. The Go type says the type: string, bool, the integers, [Size], [time.Duration],
// [netip.Addr]. A field without a sampan tag is no option. The doc is one sentence.
type Schema struct {
	options []option
}

// Size is a number of bytes, written with or without a unit: 1048576, 512k, 64m, 2g.
type Size int64

type option struct {
	attribute *pluginv1.Attribute
	index     int
	typ       reflect.Type
}

var (
	sizeType     = reflect.TypeFor[Size]()
	durationType = reflect.TypeFor[time.Duration]()
	addressType  = reflect.TypeFor[netip.Addr]()
)

// SchemaOf reads the tags of a struct. A mistake in them is the author's, and is an error here and
// never later: defaults are checked too.
func SchemaOf(options any) (*Schema, error) {
	s := &Schema{}
	if options == nil {
		return s, nil
	}
	t := reflect.TypeOf(options)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("options of type %v: expected a struct", t)
	}
	names := map[string]bool{}
	for i := range t.NumField() {
		tag, ok := t.Field(i).Tag.Lookup("sampan")
		if !ok {
			continue
		}
		o, err := parseOption(tag, t.Field(i))
		if err != nil {
			return nil, fmt.Errorf("field %s.%s: %w", t, t.Field(i).Name, err)
		}
		o.index = i
		for _, n := range append([]string{o.attribute.Name}, o.attribute.Aliases...) {
			if names[n] {
				return nil, fmt.Errorf("field %s.%s: name %q is there twice", t, t.Field(i).Name, n)
			}
			names[n] = true
		}
		s.options = append(s.options, o)
	}
	return s, nil
}

func parseOption(tag string, field reflect.StructField) (option, error) {
	parts := strings.Split(tag, ",")
	a := &pluginv1.Attribute{Name: parts[0], Doc: field.Tag.Get("doc")}
	if a.Name == "" || a.Doc == "" {
		return option{}, fmt.Errorf("an option needs a name and a doc")
	}
	if !field.IsExported() {
		return option{}, fmt.Errorf("an option's field must be exported")
	}
	var err error
	if a.Type, err = typeName(field.Type); err != nil {
		return option{}, err
	}
	for _, p := range parts[1:] {
		if err := setProperty(a, p); err != nil {
			return option{}, err
		}
	}
	o := option{attribute: a, typ: field.Type}
	if a.Required && a.Default != "" {
		return option{}, fmt.Errorf("a required option has no default")
	}
	if a.Default != "" {
		if _, err := o.parse(a.Default); err != nil {
			return option{}, fmt.Errorf("default: %w", err)
		}
	}
	return o, nil
}

func setProperty(a *pluginv1.Attribute, property string) error {
	key, value, _ := strings.Cut(property, "=")
	switch key {
	case "default":
		a.Default = value
	case "enum":
		a.Enum = strings.Split(value, "|")
	case "alias":
		a.Aliases = append(a.Aliases, value)
	case "required":
		a.Required = true
	case "in_place":
		a.InPlace = true
	case "min", "max":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%s %q: expected a number", key, value)
		}
		if key == "min" {
			a.Min = &n
		} else {
			a.Max = &n
		}
	default:
		return fmt.Errorf("%q: expected default, enum, min, max, alias, required or in_place", key)
	}
	return nil
}

func typeName(t reflect.Type) (string, error) {
	switch t {
	case sizeType:
		return "size", nil
	case durationType:
		return "duration", nil
	case addressType:
		return "address", nil
	}
	switch t.Kind() {
	case reflect.String:
		return "string", nil
	case reflect.Bool:
		return "bool", nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return "int", nil
	}
	return "", fmt.Errorf("type %v: expected string, bool, an integer, sdk.Size, time.Duration or netip.Addr", t)
}

// Proto is the schema as the engine gets it.
func (s *Schema) Proto() *pluginv1.Schema {
	out := &pluginv1.Schema{}
	for _, o := range s.options {
		out.Attributes = append(out.Attributes, o.attribute)
	}
	return out
}

// Decode fills the struct that into points to, of the type that the schema was made from, and
// returns every option as text by its first name: what was given, and defaults for the rest. A
// value that is wrong, missing or of an unknown name is a *FieldError.
func (s *Schema) Decode(given map[string]string, into any) (map[string]string, error) {
	v := reflect.ValueOf(into).Elem()
	settings := make(map[string]string, len(s.options))
	used := 0
	for _, o := range s.options {
		text, name, n, err := o.find(given)
		if err != nil {
			return nil, err
		}
		used += n
		if n == 0 && o.attribute.Required {
			return nil, &FieldError{Field: o.attribute.Name, Expected: "a value: " + o.attribute.Doc}
		}
		if text == "" {
			text = o.attribute.Default
		}
		if text == "" {
			settings[o.attribute.Name] = ""
			continue
		}
		value, wrong := o.parse(text)
		if wrong != nil {
			wrong.Field = name
			return nil, wrong
		}
		v.Field(o.index).Set(value)
		settings[o.attribute.Name] = o.text(value)
	}
	if used < len(given) {
		return nil, s.unknown(given)
	}
	return settings, nil
}

// decodeKnown fills in what is known and right, and defaults for the rest.
func (s *Schema) decodeKnown(given map[string]string, into any) {
	v := reflect.ValueOf(into).Elem()
	for _, o := range s.options {
		text, _, _, err := o.find(given)
		if err != nil || text == "" {
			text = o.attribute.Default
		}
		value, wrong := o.parse(text)
		if wrong != nil && text != o.attribute.Default {
			value, wrong = o.parse(o.attribute.Default)
		}
		if wrong == nil {
			v.Field(o.index).Set(value)
		}
	}
}

// find looks for the option under its name and its aliases; the same value under two names is
// taken, two values are refused.
func (o option) find(given map[string]string) (text, name string, found int, err error) {
	text, name = o.attribute.Default, o.attribute.Name
	for _, n := range append([]string{o.attribute.Name}, o.attribute.Aliases...) {
		value, ok := given[n]
		if !ok {
			continue
		}
		if found++; found > 1 && value != text {
			return "", "", 0, &FieldError{Field: n, Given: value, Expected: fmt.Sprintf("the same value as %s, which is %q", name, text)}
		}
		text, name = value, n
	}
	return text, name, found, nil
}

func (s *Schema) unknown(given map[string]string) *FieldError {
	var names, all []string
	for _, o := range s.options {
		names = append(names, o.attribute.Name)
		all = append(append(all, o.attribute.Name), o.attribute.Aliases...)
	}
	// The first in order, so that the same mistake gives the same message.
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(all, key) {
			slices.Sort(names)
			return &FieldError{Field: "option", Given: key, Expected: oneOf(names), Nearest: nearest(key, all)}
		}
	}
	return &FieldError{Field: "option", Expected: oneOf(names)}
}

func oneOf(words []string) string {
	switch len(words) {
	case 0:
		return "none: this driver takes no options"
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// parse reads a value. The error lacks the name of the field.
func (o option) parse(text string) (reflect.Value, *FieldError) {
	v := reflect.New(o.typ).Elem()
	wrong := func(expected string) (reflect.Value, *FieldError) {
		return v, &FieldError{Field: o.attribute.Name, Given: text, Expected: expected}
	}
	if len(o.attribute.Enum) > 0 && !slices.Contains(o.attribute.Enum, text) {
		_, e := wrong(oneOf(o.attribute.Enum))
		e.Nearest = nearest(text, o.attribute.Enum)
		return v, e
	}
	number := int64(0)
	switch o.attribute.Type {
	case "string":
		v.SetString(text)
		number = int64(len(text))
	case "bool":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return wrong("true or false")
		}
		v.SetBool(b)
		return v, nil
	case "address":
		a, err := netip.ParseAddr(text)
		if err != nil {
			return wrong("an IP address")
		}
		v.Set(reflect.ValueOf(a))
		return v, nil
	case "duration":
		d, err := time.ParseDuration(text)
		if err != nil {
			return wrong("a duration such as 500ms or 1m30s")
		}
		v.SetInt(int64(d))
		number = int64(d)
	case "size", "int":
		n, err := parseNumber(text, o.attribute.Type == "size")
		if err != nil {
			return wrong(o.numbers())
		}
		if v.CanUint() {
			if n < 0 || v.OverflowUint(uint64(n)) {
				return wrong(o.numbers())
			}
			v.SetUint(uint64(n))
		} else {
			if v.OverflowInt(n) {
				return wrong(o.numbers())
			}
			v.SetInt(n)
		}
		number = n
	}
	if (o.attribute.Min != nil && number < *o.attribute.Min) || (o.attribute.Max != nil && number > *o.attribute.Max) {
		return wrong(o.numbers())
	}
	return v, nil
}

// numbers says which values are right.
func (o option) numbers() string {
	noun := map[string]string{
		"int": "a number", "size": "a size such as 512k or 2g", "duration": "a duration", "string": "a length",
	}[o.attribute.Type]
	switch a := o.attribute; {
	case a.Min != nil && a.Max != nil:
		return fmt.Sprintf("%s from %d to %d", noun, *a.Min, *a.Max)
	case a.Min != nil:
		return fmt.Sprintf("%s of at least %d", noun, *a.Min)
	case a.Max != nil:
		return fmt.Sprintf("%s of at most %d", noun, *a.Max)
	}
	return noun
}

func (o option) text(v reflect.Value) string {
	switch o.attribute.Type {
	case "bool":
		return strconv.FormatBool(v.Bool())
	case "string":
		return v.String()
	case "duration", "address":
		return fmt.Sprint(v.Interface())
	}
	return fmt.Sprintf("%d", v.Interface())
}

// parseNumber reads an integer, with a binary unit (k, m, g, t, with or without a b) when units.
func parseNumber(text string, units bool) (int64, error) {
	shift := 0
	if units {
		text = strings.TrimSuffix(strings.ToLower(text), "b")
		if i := strings.IndexAny(text, "kmgt"); i >= 0 && i == len(text)-1 {
			shift = 10 * (1 + strings.IndexByte("kmgt", text[i]))
			text = text[:i]
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if scaled := n << shift; scaled>>shift == n {
		return scaled, nil
	}
	return 0, strconv.ErrRange
}

// nearest is the candidate that is one slip of the fingers in three letters away, or "".
func nearest(word string, candidates []string) string {
	best, limit := "", len(word)/3+1
	for _, c := range candidates {
		if d := edits(strings.ToLower(word), strings.ToLower(c)); d <= limit && d < max(len(word), len(c)) && (best == "" || d < limit) {
			best, limit = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
