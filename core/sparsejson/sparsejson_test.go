package sparsejson

import (
	"encoding/json"
	"math/rand"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/runtime/specjson"
	"github.com/sampan-project/sampan/core/wire"
)

// filler makes values of any type in which each field is left out with some probability.
type filler struct{ *rand.Rand }

func (f filler) fill(v reflect.Value, depth int) {
	if depth > 8 || f.Intn(3) == 0 {
		return
	}
	if v.Type() == reflect.TypeFor[json.RawMessage]() {
		v.SetBytes([]byte(`{"raw": [1]}`))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.Intn(100)) - 50)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.Intn(100)))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(f.NormFloat64())
	case reflect.String:
		v.SetString([]string{"", "a", "<b>&\"\\\n\u2028{", "name,=é"}[f.Intn(4)])
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth+1)
	case reflect.Interface:
		if v.NumMethod() == 0 {
			v.Set(reflect.ValueOf([]any{"x", 1.5, map[string]any{"k": true, "n": nil}}[f.Intn(3)]))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), f.Intn(3), 3))
		f.fillAll(v, depth)
	case reflect.Array:
		f.fillAll(v, depth)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range f.Intn(4) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key, depth+1)
			f.fill(value, depth+1)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(int64(f.Intn(1e9)), 5).UTC()))
			return
		}
		for i := range v.NumField() {
			if field := v.Field(i); field.CanSet() {
				f.fill(field, depth+1)
			}
		}
	default:
	}
}

func (f filler) fillAll(v reflect.Value, depth int) {
	for i := range v.Len() {
		f.fill(v.Index(i), depth+1)
	}
}

// A server reads the same from our form as from package json's, which also spells the zero values out.
func TestMeansTheSame(t *testing.T) {
	type odd struct {
		Left    int `json:"-"`
		Named   int `json:"named"`
		Plain   []byte
		Any     any
		Numbers map[int]string
		Address netip.Addr
		Raw     json.RawMessage `json:",omitempty"`
		wire.NetworkingConfig
	}
	f := filler{rand.New(rand.NewSource(1))}
	for _, of := range []reflect.Type{
		reflect.TypeFor[wire.ContainerCreateRequest](), reflect.TypeFor[wire.UpdateRequest](), reflect.TypeFor[wire.ExecConfig](),
		reflect.TypeFor[wire.ServiceSpec](), reflect.TypeFor[wire.NetworkCreateRequest](), reflect.TypeFor[wire.VolumeCreateRequest](), reflect.TypeFor[odd](), reflect.TypeFor[specjson.Spec](),
		reflect.TypeFor[map[string]any](), reflect.TypeFor[[]string](), reflect.TypeFor[string](),
	} {
		for range 300 {
			v := reflect.New(of)
			f.fill(v.Elem(), 0)
			ours, err := Marshal(v.Interface())
			if err != nil {
				t.Fatalf("%s: %v", of, err)
			}
			full, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			got, want := reflect.New(of), reflect.New(of)
			if err := json.Unmarshal(ours, got.Interface()); err != nil {
				t.Fatalf("%s: %v: %s", of, err, ours)
			}
			if err := json.Unmarshal(full, want.Interface()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Interface(), want.Interface()) {
				t.Fatalf("%s: %s\nand not %s", of, ours, full)
			}
		}
	}
}

func TestMarshal(t *testing.T) {
	no := false
	for _, c := range []struct {
		of   any
		want string
	}{
		{nil, "null"},
		{wire.ContainerCreateRequest{}, "{}"},
		{&wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "a", Cmd: []string{}}, HostConfig: &wire.HostConfig{Init: &no}},
			`{"Cmd":[],"Image":"a","HostConfig":{"Init":false}}`},
		{map[string][]string{"b": nil, "a": {"<"}}, `{"a":["\u003c"],"b":null}`},
	} {
		got, err := Marshal(c.of)
		if diff := cmp.Diff(c.want, string(got)); diff != "" || err != nil {
			t.Error(diff, err)
		}
	}
	if _, err := Marshal(map[string]any{"a": make(chan int)}); err == nil || !strings.Contains(err.Error(), "unsupported type") {
		t.Error(err)
	}
}
