package client

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// body encodes a request. It says what json.Marshal says, but leaves out every field of a struct that has its zero
// value: a server takes what is not there for that.
//
// It is not json.Marshal because a client is a program that sends one such request in its life. Package json looks at
// all types that a container's configuration could have before it writes the first byte, which takes twenty times
// as long as the few fields that are set (docs/performance.md).
func body(v any) ([]byte, error) { return appendValue(nil, reflect.ValueOf(v)) }

var marshalers = []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()}

// marshals reports whether the type has a form of its own, or one that only package json knows.
func marshals(t reflect.Type) bool {
	for _, m := range marshalers {
		if t.Implements(m) || reflect.PointerTo(t).Implements(m) {
			return true
		}
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return t.Elem().Kind() == reflect.Uint8 // base64
	case reflect.Map:
		return t.Key().Kind() != reflect.String
	default:
		return false
	}
}

func appendValue(b []byte, v reflect.Value) ([]byte, error) {
	if !v.IsValid() {
		return append(b, "null"...), nil
	}
	if marshals(v.Type()) {
		return appendMarshaled(b, v)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return appendValue(b, v.Elem()) // that of nil is no value
	case reflect.Struct:
		b, err := appendFields(append(b, '{'), v)
		return append(b, '}'), err
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Slice, reflect.Array:
		return appendList(b, v)
	default:
		return appendMarshaled(b, v)
	}
}

func appendMarshaled(b []byte, v reflect.Value) ([]byte, error) {
	data, err := json.Marshal(v.Interface())
	return append(b, data...), err
}

// appendFields appends the fields that are set, each with a comma before it unless it is the object's first.
func appendFields(b []byte, v reflect.Value) (_ []byte, err error) {
	t := v.Type()
	for i := range t.NumField() {
		f, of := t.Field(i), v.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-" || of.IsZero() || !f.IsExported() && !f.Anonymous:
			continue
		case strings.Contains(options, "omitempty") && (of.Kind() == reflect.Map || of.Kind() == reflect.Slice) && of.Len() == 0:
			continue
		case f.Anonymous && name == "":
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			if b, err = appendFields(b, of); err != nil {
				return b, err
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if b, err = appendMember(b, name, of); err != nil {
			return b, err
		}
	}
	return b, nil
}

func appendMember(b []byte, name string, v reflect.Value) ([]byte, error) {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b, err := appendMarshaled(b, reflect.ValueOf(name))
	if err != nil {
		return b, err
	}
	return appendValue(append(b, ':'), v)
}

func appendMap(b []byte, v reflect.Value) (_ []byte, err error) {
	if v.IsNil() {
		return append(b, "null"...), nil
	}
	b = append(b, '{')
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
	for _, key := range keys {
		if b, err = appendMember(b, key.String(), v.MapIndex(key)); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendList(b []byte, v reflect.Value) (_ []byte, err error) {
	if v.Kind() == reflect.Slice && v.IsNil() {
		return append(b, "null"...), nil
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, v.Index(i)); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}
