package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/ipam"
	"github.com/sampan-project/sampan/core/wire"
)

// pairs is a flag of key=value pairs, and the same as an object of daemon.json.
type pairs map[string]string

func (p pairs) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return &fault.Field{Field: "option", Given: s, Expected: "key=value"}
	}
	p[key] = value
	return nil
}

func (p pairs) String() string { return "" }
func (p pairs) Type() string   { return "map" }

// number is a flag of a number that need not be given.
type number struct{ to **int }

func (n number) Set(text string) error {
	v, err := strconv.Atoi(text)
	if err != nil {
		return &fault.Field{Field: "number", Given: text, Expected: "a whole number"}
	}
	*n.to = &v
	return nil
}

func (n number) String() string { return "" }
func (n number) Type() string   { return "int" }

// size is a flag of bytes, and a number or text of daemon.json.
type size int64

func (s *size) Set(text string) error {
	n, err := units.RAMInBytes(text)
	if err != nil || n <= 0 {
		return &fault.Field{Field: "size", Given: text, Expected: "a size such as 64m"}
	}
	*s = size(n)
	return nil
}

func (s *size) String() string { return "" }
func (s *size) Type() string   { return "bytes" }

// UnmarshalJSON reads 67108864 or "64M".
func (s *size) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		text = string(data)
	}
	return s.Set(text)
}

// ulimits is a flag of limits, and an object by name of daemon.json.
type ulimits map[string]wire.Ulimit

func (u ulimits) Set(s string) error {
	limit, err := units.ParseUlimit(s)
	if err != nil {
		return &fault.Field{Field: "ulimit", Given: s, Expected: "name=soft[:hard], such as nofile=1024:2048"}
	}
	u[limit.Name] = wire.Ulimit{Name: limit.Name, Soft: limit.Soft, Hard: limit.Hard}
	return nil
}

func (u ulimits) String() string { return "" }
func (u ulimits) Type() string   { return "ulimit" }

// proxies are the proxies that the daemon itself uses, to reach registries.
type proxies struct {
	HTTP  string `json:"http-proxy"`
	HTTPS string `json:"https-proxy"`
	No    string `json:"no-proxy"`
}

// set puts them where Go's HTTP client looks (net/http.ProxyFromEnvironment), once, before its first use.
func (p proxies) set() error {
	for _, v := range []struct{ name, value string }{{"HTTP_PROXY", p.HTTP}, {"HTTPS_PROXY", p.HTTPS}, {"NO_PROXY", p.No}} {
		if v.value == "" {
			continue
		}
		for _, name := range []string{v.name, strings.ToLower(v.name)} {
			if err := os.Setenv(name, v.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// pools are default-address-pools: a list of objects, or flags such as base=10.8.0.0/16,size=24.
type pools []ipam.Pool

func (p *pools) Set(text string) error {
	var base, bits string
	for part := range strings.SplitSeq(text, ",") {
		switch key, value, _ := strings.Cut(part, "="); strings.TrimSpace(key) {
		case "base":
			base = value
		case "size":
			bits = value
		default:
			return &fault.Field{Field: "address pool", Given: text, Expected: "base=SUBNET,size=BITS, such as base=10.8.0.0/16,size=24"}
		}
	}
	n, err := strconv.Atoi(bits)
	if err != nil {
		return &fault.Field{Field: "address pool: size", Given: bits, Expected: "a prefix length such as 24"}
	}
	return p.add(base, n)
}

func (p *pools) add(base string, bits int) error {
	prefix, err := netip.ParsePrefix(base)
	if err != nil {
		return &fault.Field{Field: "address pool: base", Given: base, Expected: "a subnet such as 10.8.0.0/16"}
	}
	if !prefix.Addr().Is4() {
		return fault.New(fault.NotImplemented, "address pool %s is not supported: IPv6 subnets come from the daemon's own range (RFC 4193)", base)
	}
	if bits < prefix.Bits() || bits > 30 {
		return &fault.Field{Field: "address pool: size", Given: strconv.Itoa(bits), Expected: "a prefix length from " + strconv.Itoa(prefix.Bits()) + " to 30"}
	}
	*p = append(*p, ipam.Pool{Base: prefix.Masked(), Bits: bits})
	return nil
}

// UnmarshalJSON reads [{"base":"10.8.0.0/16","size":24}].
func (p *pools) UnmarshalJSON(data []byte) error {
	var list []struct {
		Base string `json:"base"`
		Size int    `json:"size"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return err
	}
	for _, e := range list {
		if err := p.add(e.Base, e.Size); err != nil {
			return err
		}
	}
	return nil
}

func (p *pools) String() string { return "" }
func (p *pools) Type() string   { return "pool-options" }

// networkOptions are the options of new networks by driver.
type networkOptions map[string]map[string]string

func (n networkOptions) Set(text string) error {
	driver, option, _ := strings.Cut(text, "=")
	key, value, ok := strings.Cut(option, "=")
	if !ok || driver == "" || key == "" {
		return &fault.Field{Field: "network option", Given: text, Expected: "DRIVER=OPTION=VALUE, such as bridge=com.docker.network.driver.mtu=1400"}
	}
	if n[driver] == nil {
		n[driver] = map[string]string{}
	}
	n[driver][key] = value
	return nil
}

func (n networkOptions) String() string { return "" }
func (n networkOptions) Type() string   { return "network-options" }
