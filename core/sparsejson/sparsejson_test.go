package sparsejson_test

import (
	"encoding/json"
	"math/rand"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/sparsejson"
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
		reflect.TypeFor[wire.ServiceSpec](), reflect.TypeFor[wire.NetworkCreateRequest](), reflect.TypeFor[wire.VolumeCreateRequest](), reflect.TypeFor[odd](), reflect.TypeFor[specs.Spec](),
		reflect.TypeFor[map[string]any](), reflect.TypeFor[[]string](), reflect.TypeFor[string](),
	} {
		for range 300 {
			v := reflect.New(of)
			f.fill(v.Elem(), 0)
			ours, err := sparsejson.Marshal(v.Interface())
			if err != nil {
				t.Fatalf("%s: %v", of, err)
			}
			full, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			want := reflect.New(of)
			if err := json.Unmarshal(full, want.Interface()); err != nil {
				t.Fatal(err)
			}
			for _, text := range [][]byte{ours, full} {
				for _, read := range []func([]byte, any) error{json.Unmarshal, sparsejson.Unmarshal} {
					got := reflect.New(of)
					if err := read(text, got.Interface()); err != nil {
						t.Fatalf("%s: %v: %s", of, err, text)
					}
					if !reflect.DeepEqual(got.Interface(), want.Interface()) {
						t.Fatalf("%s: %s\nand not %s", of, text, full)
					}
				}
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
		got, err := sparsejson.Marshal(c.of)
		if diff := cmp.Diff(c.want, string(got)); diff != "" || err != nil {
			t.Error(diff, err)
		}
	}
	if _, err := sparsejson.Marshal(map[string]any{"a": make(chan int)}); err == nil || !strings.Contains(err.Error(), "unsupported type") {
		t.Error(err)
	}
}

// same compares with package json what is read of a text: value and error.
func same[T any](t *testing.T, text []byte) {
	t.Helper()
	var got, want T
	err, wantErr := sparsejson.Unmarshal(text, &got), json.Unmarshal(text, &want)
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
		t.Errorf("%T from %q: %+v, %v\nwant %+v, %v", got, text, got, err, want, wantErr)
	}
}

type thing struct {
	Name    string            `json:"name"`
	Count   int8              `json:"count,omitempty"`
	Size    uint16            // no tag
	Yes     *bool             `json:"yes"`
	Inside  *thing            `json:"inside"`
	List    []thing           `json:"list"`
	Words   []string          `json:"words"`
	Map     map[string][]int  `json:"map"`
	Named   map[name]*float64 `json:"named"`
	Any     any               `json:"any"`
	Bytes   []byte            `json:"bytes"`
	Time    *time.Time        `json:"time"`
	Array   [2]int            `json:"array"`
	Number  json.Number       `json:"number"`
	Quoted  int               `json:"-"`
	private int
	inner
}

type inner struct {
	Deep  string `json:"deep"`
	Count string // of another name in JSON than the other
}

type name string

var texts = []string{
	``, ` `, `null`, `{}`, ` { } `, `[]`, `"a"`, `1`, `{"name":"a"}`, `{"name" : "a\n\u00e9\ud800" , "count":-128}`, `{"count":128}`, `{"count":1e1}`,
	`{"count":1.0}`, `{"NAME":"a"}`, `{"name":"a","Name":"b"}`, `{"name":"a","name":"b"}`, `{"n\u0061me":"x"}`, `{"name":1}`, `{"name":null,"count":null,"list":null}`,
	`{"Size":65535}`, `{"size":1}`, `{"Size":-1}`, `{"yes":true}`, `{"yes":false}`, `{"yes":null}`, `{"yes":"true"}`, `{"inside":{"inside":{"name":"x"}}}`,
	`{"inside":{"inside":5}}`, `{"list":[{},{"name":"x"},null]}`, `{"list":{}}`, `{"list":[]}`, `{"words":["a",null,"b"]}`, `{"words":["a" , "b" ]}`,
	`{"map":{"a":[1,2],"b":[],"c":null}}`, `{"map":{"a":[1],"a":[2]}}`, `{"map":[]}`, `{"named":{"x":1.5e3,"y":null}}`, `{"any":{"a":[1,"x",null]}}`, `{"any":null}`,
	`{"bytes":"AEw="}`, `{"bytes":"!"}`, `{"bytes":[1]}`, `{"time":"2026-01-02T03:04:05Z"}`, `{"time":"x"}`, `{"array":[1,2]}`, `{"number":12,"x":"}{][,:\"\\"}`,
	`{"number":"12"}`, `{"number":"x"}`, `{"unknown":{"a":["}"]},"name":"after"}`, `{"name":"a"`, `{"name":"a"}x`, `{"name":"a",}`, `{"Quoted":1,"private":1,"-":1}`,
	"{\"name\":\"\xff\"}", "\t{\r\n\"name\"\t:\"b\"}\n", `{"":1}`, `{"name":{"a":1}}`, `{"yes":{}}`, `{"count":"1"}`, `{"count":true}`,
	`{"deep":"x","name":"y"}`, `{"DEEP":"x"}`, `{"Count":"1"}`, `{"Count":1}`, `{"deep":"x","deep":"y"}`,
}

func TestUnmarshal(t *testing.T) {
	for _, text := range texts {
		same[thing](t, []byte(text))
		same[map[string]string](t, []byte(text))
		same[[]string](t, []byte(text))
		same[specs.Spec](t, []byte(text))
	}
	full := thing{Name: "old"}
	if err := sparsejson.Unmarshal([]byte(`{"count":1}`), &full); err != nil || full.Name != "old" || full.Count != 1 {
		t.Errorf("into what is not empty: %+v, %v", full, err)
	}
	if err := sparsejson.Unmarshal([]byte(`{}`), full); err == nil {
		t.Error("into no pointer: no error")
	}
	full.private = 1 // used by reflection alone
}

func FuzzUnmarshal(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		same[thing](t, text)
		same[wire.ContainerCreateRequest](t, text)
		same[specs.Spec](t, text)
	})
}
