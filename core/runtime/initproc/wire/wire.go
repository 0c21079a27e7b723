// Package wire turns a Go value into bytes and back, for two processes of one and the same program.
//
// Package encoding/json builds tables for each type that it meets, which is most of what a small message
// costs a process that reads one and then executes another program (docs/performance.md). Here both sides
// have the same types, so that there are neither names nor tables: fields come in their order.
//
//	bool            1 byte, 0 or 1
//	int, uint       varint (encoding/binary), int zigzag
//	string, slice   length as uvarint, then the bytes or the elements
//	struct          the fields
//	map             as a slice of keys and values
//	pointer         1 byte, 0 for nil or 1, then what it points at
//
// Slices and maps of no elements are read as nil. What else there is (interfaces, floats, arrays, unexported fields,
// structs without any) is an error. The format has no version: it must not be stored, nor sent to another build of
// the program.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
)

// maxDepth bounds how deep values lie in each other. A specification has a tenth.
const maxDepth = 64

var errShort = errors.New("message is cut off")

// Append appends the value that v points at.
func Append(data []byte, v any) ([]byte, error) {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return nil, fmt.Errorf("encode %T: expected a pointer to a value", v)
	}
	w := writer{data}
	err := w.value(p.Elem(), 0)
	return w.data, err
}

type writer struct{ data []byte }

func (w *writer) uint(n uint64) { w.data = binary.AppendUvarint(w.data, n) }

func (w *writer) bool(b bool) {
	n := byte(0)
	if b {
		n = 1
	}
	w.data = append(w.data, n)
}

func (w *writer) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("encode %s: more than %d values in each other", v.Type(), maxDepth)
	}
	switch v.Kind() {
	case reflect.Bool:
		w.bool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		w.data = binary.AppendVarint(w.data, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		w.uint(v.Uint())
	case reflect.String:
		w.uint(uint64(v.Len()))
		w.data = append(w.data, v.String()...)
	case reflect.Slice:
		w.uint(uint64(v.Len()))
		if v.Type().Elem().Kind() == reflect.Uint8 {
			w.data = append(w.data, v.Bytes()...)
			return nil
		}
		return w.elements(v, depth)
	case reflect.Map:
		w.uint(uint64(v.Len()))
		for entries := v.MapRange(); entries.Next(); {
			for _, part := range []reflect.Value{entries.Key(), entries.Value()} {
				settable := reflect.New(part.Type()).Elem()
				settable.Set(part)
				if err := w.value(settable, depth+1); err != nil {
					return err
				}
			}
		}
	case reflect.Pointer:
		w.bool(!v.IsNil())
		if !v.IsNil() {
			return w.value(v.Elem(), depth+1)
		}
	case reflect.Struct:
		return w.fields(v, depth)
	default:
		return fmt.Errorf("encode %s: there is no form for it", v.Type())
	}
	return nil
}

func (w *writer) elements(v reflect.Value, depth int) error {
	for i := range v.Len() {
		if err := w.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) fields(v reflect.Value, depth int) error {
	if v.NumField() == 0 {
		return fmt.Errorf("encode %s: expected fields", v.Type())
	}
	for i := range v.NumField() {
		f := v.Field(i)
		if !f.CanSet() {
			return fmt.Errorf("encode %s: field %d is not exported", v.Type(), i)
		}
		if err := w.value(f, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Decode reads the value that v points at, which is to be a zero one. It takes no more memory than in
// proportion to the data. Data that is left over is an error.
func Decode(data []byte, v any) error {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("decode %T: expected a pointer to a value", v)
	}
	r := reader{string(data)} // of which the strings are parts
	if err := r.value(p.Elem(), 0); err != nil {
		return fmt.Errorf("decode %s: %w", p.Type().Elem(), err)
	}
	if len(r.data) > 0 {
		return fmt.Errorf("decode %s: %d bytes are left over", p.Type().Elem(), len(r.data))
	}
	return nil
}

type reader struct{ data string }

// take takes bytes off the data.
func (r *reader) take(n uint64) (string, error) {
	if n > uint64(len(r.data)) {
		return "", errShort
	}
	taken := r.data[:n]
	r.data = r.data[n:]
	return taken, nil
}

func (r *reader) uint() (uint64, error) {
	var n uint64
	for i := 0; i < len(r.data) && i < binary.MaxVarintLen64; i++ {
		b := r.data[i]
		if i == binary.MaxVarintLen64-1 && b > 1 {
			break
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.data = r.data[i+1:]
			return n, nil
		}
	}
	if len(r.data) < binary.MaxVarintLen64 {
		return 0, errShort
	}
	return 0, errors.New("number of more than 64 bits")
}

func (r *reader) bool() (bool, error) {
	b, err := r.take(1)
	if err == nil && b[0] > 1 {
		err = fmt.Errorf("%d in place of 0 or 1", b[0])
	}
	return err == nil && b[0] == 1, err
}

// count is the number of elements of which each takes at least so many bytes.
func (r *reader) count(each int) (int, error) {
	n, err := r.uint()
	if err == nil && n > uint64(len(r.data)/max(1, each)) {
		err = errShort
	}
	return int(n), err
}

func (r *reader) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d values in each other", maxDepth)
	}
	switch v.Kind() {
	case reflect.Bool:
		b, err := r.bool()
		v.SetBool(b)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		u, err := r.uint()
		n := int64(u>>1) ^ -int64(u&1)
		if err == nil && v.OverflowInt(n) {
			err = fmt.Errorf("%d is no %s", n, v.Type())
		}
		v.SetInt(n)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := r.uint()
		if err == nil && v.OverflowUint(n) {
			err = fmt.Errorf("%d is no %s", n, v.Type())
		}
		v.SetUint(n)
		return err
	case reflect.String:
		s, err := r.text()
		v.SetString(s)
		return err
	case reflect.Slice:
		return r.slice(v, depth)
	case reflect.Map:
		return r.entries(v, depth)
	case reflect.Pointer:
		there, err := r.bool()
		if err != nil || !there {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return r.value(v.Elem(), depth+1)
	case reflect.Struct:
		return r.fields(v, depth)
	default:
		return fmt.Errorf("there is no form for %s", v.Type())
	}
}

func (r *reader) text() (string, error) {
	n, err := r.uint()
	if err != nil {
		return "", err
	}
	return r.take(n)
}

func (r *reader) slice(v reflect.Value, depth int) error {
	of := v.Type().Elem()
	if of.Kind() == reflect.Uint8 {
		s, err := r.text()
		if s != "" {
			v.SetBytes([]byte(s))
		}
		return err
	}
	n, err := r.count(least(of))
	if err != nil || n == 0 {
		return err
	}
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	return r.elements(v, depth)
}

func (r *reader) elements(v reflect.Value, depth int) error {
	for i := range v.Len() {
		if err := r.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) entries(v reflect.Value, depth int) error {
	t := v.Type()
	n, err := r.count(least(t.Key()) + least(t.Elem()))
	if err != nil || n == 0 {
		return err
	}
	v.Set(reflect.MakeMapWithSize(t, n))
	for range n {
		key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := r.value(key, depth+1); err != nil {
			return err
		}
		if err := r.value(value, depth+1); err != nil {
			return err
		}
		v.SetMapIndex(key, value)
	}
	return nil
}

func (r *reader) fields(v reflect.Value, depth int) error {
	for i := range v.NumField() {
		f := v.Field(i)
		if !f.CanSet() {
			return fmt.Errorf("field %d of %s is not exported", i, v.Type())
		}
		if err := r.value(f, depth+1); err != nil {
			return fmt.Errorf("%s: %w", v.Type().Field(i).Name, err)
		}
	}
	return nil
}

// least is a number of bytes that any value of the type takes.
func least(t reflect.Type) int {
	if t.Kind() == reflect.Struct {
		return t.NumField() // of which each takes one
	}
	return 1
}
