package env

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/graph"
)

var (
	name  = graph.PlainText(arg.Name)
	plain = graph.PlainText(arg.String)
)

// prefix is a subnet.
var prefix = arg.Of(`a subnet such as "10.90.1.0/24"`, func(v starlark.Value) (netip.Prefix, bool) {
	s, _ := starlark.AsString(v)
	p, err := netip.ParsePrefix(s)
	return p, err == nil && p.Masked() == p
})

var address = arg.Of(`an address such as "10.90.1.1"`, func(v starlark.Value) (netip.Addr, bool) {
	s, _ := starlark.AsString(v)
	a, err := netip.ParseAddr(s)
	return a, err == nil
})

// option is a driver option's value: numbers and truth values are strings to the engine.
var option = arg.Of("string, int or bool", func(v starlark.Value) (string, bool) {
	switch v := v.(type) {
	case starlark.String:
		return string(v), true
	case starlark.Int:
		return v.String(), true
	case starlark.Bool:
		return strconv.FormatBool(bool(v)), true
	}
	return "", false
})

// label refuses the labels by which plan finds resources again.
func labels(c *arg.Call, given []string) error {
	for _, l := range given {
		if strings.HasPrefix(l, "sh.sampan.") {
			return c.Problem("labels", "the label %q is sampan's own: labels beginning with sh.sampan. cannot be given", l)
		}
	}
	return nil
}

var (
	optionsParam = arg.Param{Name: "options", Type: arg.Dict[string](option), Doc: "Options of the driver; `sampan plugin schema` lists them."}
	labelsParam  = arg.Param{Name: "labels", Type: arg.Dict[string](plain), Doc: "Labels."}
)

func (e *evaluation) networkFunc() arg.Func {
	return arg.Func{
		Name: "network", Positional: 1, Named: true, Returns: "network",
		Doc:     "A network. Containers in it reach each other by their names.",
		Example: `front = network("front", subnet = "10.90.1.0/24")`,
		Params: []arg.Param{
			{Name: "name", Type: name, Required: true, Doc: "Its name in the environment."},
			{Name: "driver", Type: plain, Default: "bridge", Doc: "The network driver."},
			{Name: "subnet", Type: prefix, Default: netip.Prefix{}, Shows: "a free one", Doc: "Its addresses."},
			{Name: "gateway", Type: address, Default: netip.Addr{}, Shows: "the first address", Doc: "The address of its gateway."},
			{Name: "ip_range", Type: prefix, Default: netip.Prefix{}, Shows: "the subnet", Doc: "The addresses that containers get, a part of the subnet."},
			{Name: "internal", Type: arg.Bool, Default: false, Doc: "No way out of the network."},
			{Name: "ipv6", Type: arg.Bool, Default: false, Doc: "With IPv6 addresses."},
			optionsParam, labelsParam,
		},
		Do: e.network,
	}
}

func (e *evaluation) network(c *arg.Call) (starlark.Value, error) {
	subnet, gateway, ipRange := arg.Get[netip.Prefix](c, "subnet"), arg.Get[netip.Addr](c, "gateway"), arg.Get[netip.Prefix](c, "ip_range")
	n := &graph.Network{
		Driver: arg.Get[string](c, "driver"), Internal: arg.Get[bool](c, "internal"), IPv6: arg.Get[bool](c, "ipv6"),
		Options: arg.Get[map[string]string](c, "options"), Labels: arg.Get[map[string]string](c, "labels"),
	}
	for name, text := range map[string]string{"gateway": gateway.String(), "ip_range": ipRange.String()} {
		if c.Given(name) && !subnet.IsValid() {
			return nil, c.Problem(name, "%s is a part of the subnet, and there is no subnet", text)
		}
	}
	if subnet.IsValid() {
		n.Subnet = subnet.String()
	}
	if gateway.IsValid() {
		if n.Gateway = gateway.String(); !subnet.Contains(gateway) {
			return nil, c.Problem("gateway", "expected an address of %s, got %q", subnet, n.Gateway)
		}
	}
	if ipRange.IsValid() {
		if n.IPRange = ipRange.String(); !subnet.Contains(ipRange.Addr()) || ipRange.Bits() < subnet.Bits() {
			return nil, c.Problem("ip_range", "expected a part of %s, got %q", subnet, n.IPRange)
		}
	}
	if err := labels(c, arg.Keys(n.Labels)); err != nil {
		return nil, err
	}
	if err := e.checkOptions(c, "network", nil); err != nil {
		return nil, err
	}
	name := arg.Get[string](c, "name")
	return e.declare(c, graph.KindNetwork, name, &graph.Resource{Address: graph.Address{Kind: graph.KindNetwork, Name: name}, Spec: n})
}

func (e *evaluation) volumeFunc() arg.Func {
	return arg.Func{
		Name: "volume", Positional: 1, Named: true, Returns: "volume",
		Doc:     "A volume: data that outlives containers. destroy removes it.",
		Example: `data = volume("data")`,
		Params: []arg.Param{
			{Name: "name", Type: name, Required: true, Doc: "Its name in the environment."},
			{Name: "driver", Type: plain, Default: "local", Doc: "The volume driver."},
			optionsParam, labelsParam,
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			v := &graph.Volume{Driver: arg.Get[string](c, "driver"), Options: arg.Get[map[string]string](c, "options"), Labels: arg.Get[map[string]string](c, "labels")}
			if err := labels(c, arg.Keys(v.Labels)); err != nil {
				return nil, err
			}
			if err := e.checkOptions(c, "volume", []string{"local"}); err != nil {
				return nil, err
			}
			name := arg.Get[string](c, "name")
			return e.declare(c, graph.KindVolume, name, &graph.Resource{Address: graph.Address{Kind: graph.KindVolume, Name: name}, Spec: v})
		},
	}
}

// fits says what a driver option should have been, or "".
func fits(a wire.Attribute, value string) string {
	if len(a.Enum) > 0 {
		for _, e := range a.Enum {
			if e == value {
				return ""
			}
		}
		return "one of " + strings.Join(a.Enum, ", ")
	}
	var n int64
	var err error
	var expected string
	switch a.Type {
	case "bool":
		_, err = strconv.ParseBool(value)
		expected = "true or false"
	case "int":
		n, err = strconv.ParseInt(value, 10, 64)
		expected = "a whole number"
	case "size":
		n, err = arg.ParseSize(value)
		expected = "a size such as 512m or 2g"
	case "duration":
		var d time.Duration
		d, err = time.ParseDuration(value)
		n, expected = int64(d), "a duration such as 30s"
	default:
		return ""
	}
	low, high := a.Min != nil && n < *a.Min, a.Max != nil && n > *a.Max
	if err == nil && !low && !high {
		return ""
	}
	if a.Min != nil && a.Max != nil {
		return fmt.Sprintf("%s from %d to %d", expected, *a.Min, *a.Max)
	} else if a.Min != nil {
		return fmt.Sprintf("%s of at least %d", expected, *a.Min)
	} else if a.Max != nil {
		return fmt.Sprintf("%s of at most %d", expected, *a.Max)
	}
	return expected
}
