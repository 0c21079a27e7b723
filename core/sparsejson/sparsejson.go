// Package sparsejson writes and reads JSON for programs that do it once in their life.
//
// Package encoding/json finds out how to handle every type that a value could reach before it looks at the first byte. For
// a container's configuration those are some hundred, and it takes half a millisecond, twenty times as long as the few
// fields that are set (docs/performance.md). Here value and text are walked, and nothing is remembered.
//
// It means the same: what Marshal writes, without the fields that are not set, encoding/json reads as the same value, and
// Unmarshal reads what encoding/json does, with its errors. Types with a form of their own are left to that package.
package sparsejson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// Marshal is json.Marshal, but for fields of structs that have their zero value: they are left out whatever their tags
// say. The option "string" of a tag and fields of embedded structs that have the same name are not supported.
func Marshal(v any) ([]byte, error) { return appendValue(nil, reflect.ValueOf(v)) }

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

// saysZero reports whether the type has an opinion of its own on what zero is, and the value is.
func saysZero(v reflect.Value) bool {
	if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		return false // one that is there
	}
	z, ok := v.Interface().(interface{ IsZero() bool })
	return ok && z.IsZero()
}

// appendFields appends the fields that are set, each with a comma before it unless it is the object's first.
func appendFields(b []byte, v reflect.Value) (_ []byte, err error) {
	t := v.Type()
	for i := range t.NumField() {
		f, of := t.Field(i), v.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-" || !f.IsExported() && !f.Anonymous || of.IsZero() || f.IsExported() && saysZero(of):
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
