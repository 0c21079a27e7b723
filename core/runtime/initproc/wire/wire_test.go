package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fill gives every field a value, and every list, map and pointer one. No two numbers and texts are the same.
func fill(v reflect.Value, n *uint64) {
	*n++
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-int64(*n & 0x7f))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(*n & 0xff)
	case reflect.String:
		v.SetString(strings.Repeat("é", int(*n%200)))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n)
			fill(value, n)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	}
}

func linuxSpec(full bool) *specs.Spec {
	s := &specs.Spec{Version: "1.3.0", Process: &specs.Process{Args: []string{"true"}}, Linux: &specs.Linux{}}
	if full {
		n := uint64(0)
		fill(reflect.ValueOf(s).Elem(), &n)
		s.Windows = nil // it has an interface, and no runtime for Linux reads it
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	type numbers struct {
		Least, Most int64
		All         uint64
		Small       int8
		Bytes       []byte
		Table       map[string]map[uint32]*string
	}
	text := "x"
	for name, c := range map[string]struct{ in, out any }{
		"empty spec": {&specs.Spec{}, &specs.Spec{}},
		"small spec": {linuxSpec(false), &specs.Spec{}},
		"whole spec": {linuxSpec(true), &specs.Spec{}},
		"numbers": {
			&numbers{math.MinInt64, math.MaxInt64, math.MaxUint64, -128, []byte{0, 1, 255}, map[string]map[uint32]*string{"a": {1: &text, 2: nil}, "b": nil}},
			&numbers{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := Append([]byte("before"), c.in)
			if err != nil {
				t.Fatal(err)
			}
			data, ok := bytes.CutPrefix(data, []byte("before"))
			if !ok {
				t.Fatal("what was there before is gone")
			}
			if err := Decode(data, c.out); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.in, c.out); diff != "" {
				t.Error(diff)
			}
			for n := range data {
				if err := Decode(data[:n], reflect.New(reflect.TypeOf(c.out).Elem()).Interface()); err == nil {
					t.Fatalf("the first %d of %d bytes are read as the whole", n, len(data))
				}
			}
			if err := Decode(append(data, 0), reflect.New(reflect.TypeOf(c.out).Elem()).Interface()); err == nil || !strings.Contains(err.Error(), "1 bytes are left over") {
				t.Errorf("one byte more: %v", err)
			}
		})
	}
}

func TestNoForm(t *testing.T) {
	type node struct{ Next *node }
	around := &node{}
	around.Next = around
	for _, c := range []struct {
		v    any
		want string
	}{
		{specs.Spec{}, "expected a pointer"},
		{(*specs.Spec)(nil), "expected a pointer"},
		{&struct{ A any }{}, "there is no form for it"},
		{&struct{ A float64 }{}, "there is no form for it"},
		{&struct{ a int }{}, "is not exported"},
		{&struct{ A struct{} }{}, "expected fields"},
		{around, "more than 64 values in each other"},
	} {
		if _, err := Append(nil, c.v); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T: got %v, want %q", c.v, err, c.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	type node struct{ Next *node }
	for _, c := range []struct {
		data string
		into any
		want string
	}{
		{"\x02", new(bool), "2 in place of 0 or 1"},
		{"\x02", new(*int), "2 in place of 0 or 1"},
		{"\x80\x02", new(uint8), "256 is no uint8"},
		{"\x80\x02", new(int8), "128 is no int8"},
		{strings.Repeat("\xff", 9) + "\x02", new(uint64), "more than 64 bits"},
		{strings.Repeat("\xff", 20), new(uint64), "more than 64 bits"},
		{strings.Repeat("\xff", 3), new(uint64), "cut off"},
		{"\x05abc", new(string), "cut off"},
		{"\xff\xff\xff\xff\x0fa", new([]string), "cut off"},
		{"\xff\xff\xff\xff\x0fa", new([]byte), "cut off"},
		{"\xff\xff\xff\xff\x0fa", new(map[string]string), "cut off"},
		{"\x03abc", new([]specs.Mount), "cut off"},
		{strings.Repeat("\x01", 100), new(node), "more than 64 values in each other"},
		{"", new(any), "there is no form"},
		{"", new(struct{ a int }), "is not exported"},
	} {
		if err := Decode([]byte(c.data), c.into); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q into %T: got %v, want %q", c.data, c.into, err, c.want)
		}
	}
}

// TestDecodeTakesLittle has a short message say that there is much to come.
func TestDecodeTakesLittle(t *testing.T) {
	for _, into := range []any{new([]specs.Mount), new([]byte), new(map[string]string)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := Decode([]byte("\x80\x80\x80\x04abc"), into) // 8 Mi elements
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("%T: got %v", into, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%T: %d bytes were taken for a message of 7", into, got)
		}
	}
}

// FuzzDecode reads any data. What is read is the same after another round, and takes memory in proportion.
func FuzzDecode(f *testing.F) {
	for _, full := range []bool{false, true} {
		data, err := Append(nil, linuxSpec(full))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("\x00\x00\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		spec := new(specs.Spec)
		err := Decode(data, spec)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+512*len(data)); got > most {
			t.Fatalf("%d bytes took %d, expected at most %d", len(data), got, most)
		}
		if err != nil || spec.Windows != nil {
			return
		}
		again, err := Append(nil, spec)
		if err != nil {
			t.Fatal(err)
		}
		other := new(specs.Spec)
		if err := Decode(again, other); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(spec, other); diff != "" {
			t.Error(diff)
		}
	})
}

// BenchmarkFirst is about the first value of its type that a process meets only when it is run once: -benchtime=1x.
func BenchmarkFirst(b *testing.B) {
	spec := linuxSpec(true)
	b.Run("wire", func(b *testing.B) {
		for range b.N {
			data, err := Append(nil, spec)
			if err == nil {
				err = Decode(data, new(specs.Spec))
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		for range b.N {
			data, err := json.Marshal(spec)
			if err == nil {
				err = json.Unmarshal(data, new(specs.Spec))
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
