package sdk

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

type testOptions struct {
	MTU    int           `sampan:"mtu,default=1500,min=576,max=9000,alias=com.example.mtu" doc:"Largest packet."`
	Mode   string        `sampan:"mode,default=nat,enum=nat|routed,in_place" doc:"How packets leave."`
	Limit  Size          `sampan:"limit,default=64m" doc:"A size."`
	Every  time.Duration `sampan:"every,default=1m30s" doc:"A duration."`
	Host   netip.Addr    `sampan:"host" doc:"An address."`
	On     bool          `sampan:"on,default=true" doc:"A switch."`
	Small  uint8         `sampan:"small,default=0" doc:"A small number."`
	Secret string
}

func decode(given map[string]string) (testOptions, map[string]string, error) {
	s, err := SchemaOf(testOptions{})
	if err != nil {
		return testOptions{}, nil, err
	}
	var o testOptions
	settings, err := s.Decode(given, &o)
	return o, settings, err
}

func TestDecode(t *testing.T) {
	o, settings, err := decode(map[string]string{"com.example.mtu": "9000", "limit": "2G", "host": "192.0.2.1", "on": "0"})
	if err != nil {
		t.Fatal(err)
	}
	want := testOptions{MTU: 9000, Mode: "nat", Limit: 2 << 30, Every: 90 * time.Second, Host: netip.MustParseAddr("192.0.2.1")}
	if d := cmp.Diff(want, o, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{
		"mtu": "9000", "mode": "nat", "limit": "2147483648", "every": "1m30s", "host": "192.0.2.1", "on": "false", "small": "0",
	}, settings); d != "" {
		t.Error(d)
	}
	again, _, err := decode(settings)
	if err != nil || again != o {
		t.Errorf("settings are no valid options: %+v, %v", again, err)
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, c := range []struct {
		given map[string]string
		want  FieldError
	}{
		{map[string]string{"mtu": "9"}, FieldError{"mtu", "9", "a number from 576 to 9000", ""}},
		{map[string]string{"com.example.mtu": "x"}, FieldError{"com.example.mtu", "x", "a number from 576 to 9000", ""}},
		{map[string]string{"mtu": "99999999999999999999"}, FieldError{"mtu", "99999999999999999999", "a number from 576 to 9000", ""}},
		{map[string]string{"mtu": "1400", "com.example.mtu": "1300"}, FieldError{"com.example.mtu", "1300", `the same value as mtu, which is "1400"`, ""}},
		{map[string]string{"mode": "rooted"}, FieldError{"mode", "rooted", "nat or routed", "routed"}},
		{map[string]string{"limit": "9999999999g"}, FieldError{"limit", "9999999999g", "a size such as 512k or 2g", ""}},
		{map[string]string{"every": "soon"}, FieldError{"every", "soon", "a duration such as 500ms or 1m30s", ""}},
		{map[string]string{"host": "here"}, FieldError{"host", "here", "an IP address", ""}},
		{map[string]string{"on": "maybe"}, FieldError{"on", "maybe", "true or false", ""}},
		{map[string]string{"small": "256"}, FieldError{"small", "256", "a number", ""}},
		{map[string]string{"mtuu": "1", "zzz": "1"}, FieldError{"option", "mtuu", "every, host, limit, mode, mtu, on or small", "mtu"}},
	} {
		_, _, err := decode(c.given)
		var got *FieldError
		if !errors.As(err, &got) {
			t.Errorf("%v: %v", c.given, err)
			continue
		}
		if d := cmp.Diff(c.want, *got); d != "" {
			t.Errorf("%v: %s", c.given, d)
		}
	}
}

func TestDecodeKnownTakesWhatItCan(t *testing.T) {
	s, err := SchemaOf(testOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var o testOptions
	s.decodeKnown(map[string]string{"mtu": "9", "mode": "routed", "of-old": "1"}, &o)
	if o.MTU != 1500 || o.Mode != "routed" || !o.On {
		t.Errorf("%+v", o)
	}
}

func TestMistakesOfTheAuthor(t *testing.T) {
	for want, options := range map[string]any{
		"expected a struct": 7,
		"a name and a doc": struct {
			A int `sampan:"a"`
		}{},
		"must be exported": struct {
			a int `sampan:"a" doc:"A."`
		}{},
		"type float64": struct {
			A float64 `sampan:"a" doc:"A."`
		}{},
		"default:": struct {
			A int `sampan:"a,default=x" doc:"A."`
		}{},
		"is there twice": struct {
			A int `sampan:"a" doc:"A."`
			B int `sampan:"b,alias=a" doc:"B."`
		}{},
		"has no default": struct {
			A int `sampan:"a,required,default=1" doc:"A."`
		}{},
		`"requird"`: struct {
			A int `sampan:"a,requird" doc:"A."`
		}{},
	} {
		if _, err := SchemaOf(options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expected %q in %v", want, err)
		}
	}
	s, err := SchemaOf(struct {
		A int `sampan:"a,required" doc:"A number."`
	}{})
	if err != nil {
		t.Fatal(err)
	}
	var o struct {
		A int `sampan:"a,required" doc:"A number."`
	}
	if _, err := s.Decode(nil, &o); err == nil || !strings.Contains(err.Error(), "A number.") {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("mtu", "1500")
	f.Add("limit", "1k")
	s, err := SchemaOf(testOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		var o testOptions
		settings, err := s.Decode(map[string]string{key: value}, &o)
		if err != nil {
			return
		}
		var again testOptions
		if _, err := s.Decode(settings, &again); err != nil || again != o {
			t.Errorf("%q=%q: %+v, then %+v, %v", key, value, o, again, err)
		}
	})
}
