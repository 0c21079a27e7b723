package specjson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestLayout compares the types with those of the runtime-spec, which a cast makes of them.
func TestLayout(t *testing.T) {
	for _, types := range [][2]reflect.Type{
		{reflect.TypeFor[Spec](), reflect.TypeFor[specs.Spec]()},
		{reflect.TypeFor[Linux](), reflect.TypeFor[specs.Linux]()},
		{reflect.TypeFor[Resources](), reflect.TypeFor[specs.LinuxResources]()},
	} {
		ours, theirs := types[0], types[1]
		if ours.NumField() != theirs.NumField() || ours.Size() != theirs.Size() {
			t.Errorf("%v: %d fields and %d bytes, expected %d and %d of %v", ours, ours.NumField(), ours.Size(), theirs.NumField(), theirs.Size(), theirs)
			continue
		}
		for i := range ours.NumField() {
			our, their := ours.Field(i), theirs.Field(i)
			name := func(f reflect.StructField) string { n, _, _ := strings.Cut(f.Tag.Get("json"), ","); return n }
			if our.Name != their.Name || our.Offset != their.Offset || name(our) != name(their) || !same(our.Type, their.Type) {
				t.Errorf("%v.%s %v: expected %s %v", ours, our.Name, our.Type, their.Name, their.Type)
			}
		}
	}
}

// same reports whether a field's type is the other, a Part of it, or a pointer to its counterpart here.
func same(our, their reflect.Type) bool {
	switch {
	case our == their:
		return true
	case our.Kind() == reflect.Struct && strings.HasPrefix(our.Name(), "Part["):
		return our.NumField() == 1 && our.Field(0).Type == their
	}
	return our == reflect.TypeFor[*Linux]() && their == reflect.TypeFor[*specs.Linux]() ||
		our == reflect.TypeFor[*Resources]() && their == reflect.TypeFor[*specs.LinuxResources]()
}

// fill gives every field a value, and every list, map and pointer one.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth)
		}
	case reflect.Slice:
		if depth == 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth-1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth)
		fill(value, depth)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Interface:
		v.Set(reflect.ValueOf("x"))
	default:
		if v.CanInt() {
			v.SetInt(7)
		} else if v.CanUint() {
			v.SetUint(7)
		}
	}
}

// TestSame reads and writes what package json itself does.
func TestSame(t *testing.T) {
	var whole specs.Spec
	fill(reflect.ValueOf(&whole).Elem(), 4)
	for name, spec := range map[string]*specs.Spec{
		"whole": &whole,
		"empty": {},
		"lists without elements": {Linux: &specs.Linux{
			Devices: []specs.LinuxDevice{}, TimeOffsets: map[string]specs.LinuxTimeOffset{}, Resources: &specs.LinuxResources{},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(Of(spec))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("written (-json +specjson):\n%s", diff)
			}
			var theirs specs.Spec
			var ours Spec
			if err := json.Unmarshal(want, &theirs); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(want, &ours); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&theirs, ours.Spec()); diff != "" {
				t.Errorf("read (-json +specjson):\n%s", diff)
			}
		})
	}
}

// TestBad refuses in a Part what package json refuses there.
func TestBad(t *testing.T) {
	for _, text := range []string{`{"hooks":7}`, `{"linux":{"seccomp":[]}}`, `{"linux":{"resources":{"memory":{"limit":"x"}}}}`, `{"vm":`} {
		if err := json.Unmarshal([]byte(text), new(Spec)); err == nil {
			t.Errorf("%s was read", text)
		}
	}
	var s Spec
	if err := json.Unmarshal([]byte(`{"hooks":null,"linux":{"devices":null}}`), &s); err != nil || s.Spec().Hooks != nil {
		t.Errorf("null: %v, %v", s.Hooks, err)
	}
}
