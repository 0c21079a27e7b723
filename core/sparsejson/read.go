package sparsejson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Unmarshal is json.Unmarshal. It reads what has the form that programs write, and leaves all else to that package:
// names in another case, names that come twice, values of another type, and every error.
func Unmarshal(data []byte, v any) error {
	to := reflect.ValueOf(v)
	if to.Kind() != reflect.Pointer || to.IsNil() || !to.Elem().IsZero() || !json.Valid(data) {
		return json.Unmarshal(data, v)
	}
	r := reader{data: data, fields: map[reflect.Type][]named{}}
	if r.value(to.Elem()) {
		return nil
	}
	to.Elem().SetZero()
	return json.Unmarshal(data, v)
}

// reader reads valid JSON. Its methods return false when the form is another than is known here.
type reader struct {
	data   []byte
	at     int
	fields map[reflect.Type][]named // of those met so far; nil: one whose fields are not known here
}

var unmarshalers = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}

// unmarshals reports whether the type has a form of its own, or one that only package json knows.
func unmarshals(t reflect.Type) bool {
	for _, u := range unmarshalers {
		if reflect.PointerTo(t).Implements(u) {
			return true
		}
	}
	return t.Kind() == reflect.Interface || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 || t == reflect.TypeFor[json.Number]()
}

// next is the first byte of the next token. The text is valid, so there is one.
func (r *reader) next() byte {
	for {
		switch c := r.data[r.at]; c {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return c
		}
	}
}

func (r *reader) value(v reflect.Value) bool {
	if unmarshals(v.Type()) {
		return json.Unmarshal(r.skip(), v.Addr().Interface()) == nil
	}
	first := r.next()
	if first == 'n' { // null, which leaves what is zero as it is
		r.skip()
		return true
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return r.value(v.Elem())
	case reflect.Struct:
		return first == '{' && r.object(v)
	case reflect.Map:
		return first == '{' && v.Type().Key().Kind() == reflect.String && !unmarshals(v.Type().Key()) && r.entries(v)
	case reflect.Slice:
		return first == '[' && r.list(v)
	default:
		return r.plain(v, first)
	}
}

// plain reads a string, a number, true or false.
func (r *reader) plain(v reflect.Value, first byte) bool {
	text := string(r.skip())
	var err error
	switch v.Kind() {
	case reflect.String:
		if first != '"' {
			return false
		}
		s, ok := unquoted(text)
		v.SetString(s)
		return ok
	case reflect.Bool:
		v.SetBool(first == 't')
		return text == "true" || text == "false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var n int64
		n, err = strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var n uint64
		n, err = strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
	default:
		return false
	}
	return err == nil
}

// unquoted is the string that a token stands for.
func unquoted(token string) (string, bool) {
	inside := token[1 : len(token)-1]
	for i := range len(inside) {
		if inside[i] == '\\' || inside[i] >= 0x80 {
			var s string
			err := json.Unmarshal([]byte(token), &s)
			return s, err == nil
		}
	}
	return inside, true
}

// members calls read for each member of an object, of which it has read the name and the colon.
func (r *reader) members(read func(name string) bool) bool {
	for r.at++; r.next() != '}'; {
		name, ok := unquoted(string(r.skip()))
		if r.next(); !ok {
			return false
		}
		r.at++ // the colon
		if !read(name) {
			return false
		}
		if r.next() == ',' {
			r.at++
		}
	}
	r.at++
	return true
}

func (r *reader) object(v reflect.Value) bool {
	list, met := r.fields[v.Type()]
	if !met {
		if all, ok := fields(nil, v.Type(), nil); ok && len(all) <= 64 {
			list = all
		}
		r.fields[v.Type()] = list
	}
	if list == nil && v.NumField() > 0 {
		return false
	}
	var seen uint64
	next := 0 // the field that the text probably has next: programs write them in their order
	return r.members(func(name string) bool {
		i, ok := find(list, name, next)
		switch {
		case !ok:
			return false
		case i < 0:
			r.skip()
			return true
		case seen&(1<<i) != 0:
			return false
		}
		seen |= 1 << i
		next = i + 1
		return r.value(v.FieldByIndex(list[i].index))
	})
}

// named is a field with its name in JSON.
type named struct {
	name  string
	index []int // see reflect.Value.FieldByIndex
}

// fields appends the fields of a struct and of those embedded in it.
func fields(list []named, t reflect.Type, outer []int) (_ []named, ok bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		index := append(outer[:len(outer):len(outer)], i)
		switch {
		case strings.Contains(options, "string"):
			return nil, false
		case f.Anonymous && (name != "" || f.Type.Kind() != reflect.Struct || outer != nil):
			return nil, false
		case f.Anonymous:
			if list, ok = fields(list, f.Type, index); !ok {
				return nil, false
			}
			continue
		case tag == "-" || !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		list = append(list, named{name, index})
	}
	return list, true
}

// find finds a field: -1 when there is none. Which one package json takes of two, or by a name in another case, is not known here.
func find(list []named, name string, next int) (at int, ok bool) {
	if next < len(list) && list[next].name == name {
		at = next
	} else {
		at = slices.IndexFunc(list, func(n named) bool { return n.name == name })
	}
	for i := range list {
		if i != at && strings.EqualFold(list[i].name, name) {
			return -1, false
		}
	}
	return at, true
}

func (r *reader) entries(v reflect.Value) bool {
	v.Set(reflect.MakeMap(v.Type()))
	return r.members(func(name string) bool {
		key, value := reflect.ValueOf(name).Convert(v.Type().Key()), reflect.New(v.Type().Elem()).Elem()
		if v.MapIndex(key).IsValid() || !r.value(value) {
			return false
		}
		v.SetMapIndex(key, value)
		return true
	})
}

func (r *reader) list(v reflect.Value) bool {
	v.Set(reflect.MakeSlice(v.Type(), 0, 4))
	for r.at++; r.next() != ']'; {
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if !r.value(v.Index(v.Len() - 1)) {
			return false
		}
		if r.next() == ',' {
			r.at++
		}
	}
	r.at++
	return true
}

// skip passes one value and returns it.
func (r *reader) skip() []byte {
	r.next()
	begin, depth := r.at, 0
	for {
		switch r.data[r.at] {
		case '"':
			r.at++
			for r.data[r.at] != '"' {
				if r.data[r.at] == '\\' {
					r.at++
				}
				r.at++
			}
			r.at++
		case '{', '[':
			depth++
			r.at++
			continue
		case '}', ']':
			depth--
			r.at++
		case ' ', '\t', '\r', '\n', ',', ':':
			r.at++
			continue
		default: // a number, true, false or null
			for r.at < len(r.data) && !strings.ContainsRune(" \t\r\n,:]}", rune(r.data[r.at])) {
				r.at++
			}
		}
		if depth == 0 {
			return r.data[begin:r.at]
		}
	}
}
