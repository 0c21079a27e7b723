package container

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Networks is the flag --network: a name or mode, or name=NAME with options of the attachment.
type Networks struct{ values []attachment }

// attachment is one network to join and how.
type attachment struct {
	target   string
	settings wire.EndpointSettings
}

func (n *Networks) String() string { return "" }

// Type is the word for the value in help texts.
func (n *Networks) Type() string { return "network" }

// attachmentKeys are the options of the long form.
var attachmentKeys = []string{"name", "alias", "ip", "ip6", "mac-address", "link-local-ip", "driver-opt", "gw-priority"}

// Set parses one value.
func (n *Networks) Set(s string) error {
	if s == "" {
		return &fault.Field{Given: s, Expected: "the name of a network, or none, host, bridge or container:NAME"}
	}
	if !strings.Contains(s, "=") {
		n.values = append(n.values, attachment{target: s})
		return nil
	}
	fields, err := cli.Fields(s)
	if err != nil {
		return err
	}
	var a attachment
	for _, field := range fields {
		if err := a.set(field); err != nil {
			return err
		}
	}
	if a.target == "" {
		return &fault.Field{Given: s, Expected: "name=NETWORK among the options"}
	}
	n.values = append(n.values, a)
	return nil
}

func (a *attachment) set(field string) error {
	key, value, ok := strings.Cut(field, "=")
	key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
	if !ok || !slices.Contains(attachmentKeys, key) {
		return &fault.Field{Given: field, Expected: "KEY=VALUE with a key of " + strings.Join(attachmentKeys, ", "), Nearest: fault.Nearest(key, attachmentKeys)}
	}
	e := &a.settings
	switch key {
	case "name":
		a.target = value
	case "alias":
		e.Aliases = append(e.Aliases, value)
	case "ip", "ip6", "link-local-ip":
		addr, err := netip.ParseAddr(value)
		if err != nil || key == "ip" && !addr.Is4() || key == "ip6" && !addr.Is6() {
			return &fault.Field{Given: field, Expected: "an address such as ip=172.30.100.104 or ip6=2001:db8::33"}
		}
		setAddress(e, key, value)
	case "mac-address":
		e.MacAddress = value
	case "driver-opt":
		name, text, ok := strings.Cut(value, "=")
		if !ok || name == "" {
			return &fault.Field{Given: field, Expected: "driver-opt=NAME=VALUE"}
		}
		if e.DriverOpts == nil {
			e.DriverOpts = map[string]string{}
		}
		e.DriverOpts[name] = text
	case "gw-priority":
		n, err := strconv.Atoi(value)
		if err != nil {
			return &fault.Field{Given: field, Expected: "a whole number"}
		}
		e.GwPriority = n
	}
	return nil
}

func setAddress(e *wire.EndpointSettings, key, value string) {
	if e.IPAMConfig == nil {
		e.IPAMConfig = &wire.EndpointIPAM{}
	}
	switch key {
	case "ip":
		e.IPAMConfig.IPv4Address = value
	case "ip6":
		e.IPAMConfig.IPv6Address = value
	default:
		e.IPAMConfig.LinkLocalIPs = append(e.IPAMConfig.LinkLocalIPs, value)
	}
}

// userDefined reports whether mode is the name of a network that somebody made.
func userDefined(mode string) bool {
	switch mode {
	case "", "default", "bridge", "host", "none":
		return false
	}
	return !strings.HasPrefix(mode, "container:")
}

// networking returns the network mode, which is the first --network, and the endpoints: what the
// flags --ip, --ip6, --network-alias, --link, --link-local-ip and --mac-address say is of the first.
func (o *options) networking() (mode string, config *wire.NetworkingConfig, err error) {
	attachments := slices.Clone(o.networks.values)
	if len(attachments) == 0 {
		attachments = []attachment{{target: "default"}}
	}
	mode = attachments[0].target
	endpoints := map[string]*wire.EndpointSettings{}
	for i := range attachments {
		a := &attachments[i]
		if i == 0 {
			if err := o.applyToFirst(a); err != nil {
				return "", nil, err
			}
		}
		if userDefined(a.target) != userDefined(mode) {
			return "", nil, fault.New(fault.Invalid, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if len(a.settings.Aliases) > 0 && !userDefined(a.target) {
			return "", nil, fault.New(fault.Invalid, "network-scoped aliases are only supported for user-defined networks")
		}
		if _, twice := endpoints[a.target]; twice {
			return "", nil, fault.New(fault.Invalid, "network %q is specified multiple times", a.target)
		}
		if m := a.settings.MacAddress; m != "" {
			if _, err := net.ParseMAC(m); err != nil {
				return "", nil, &fault.Field{Field: "--mac-address", Given: m, Expected: "an address such as 92:d0:c6:0a:29:33"}
			}
		}
		if len(attachments) > 1 || !isZero(a.settings) {
			endpoints[a.target] = &a.settings
		}
	}
	return mode, &wire.NetworkingConfig{EndpointsConfig: endpoints}, nil
}

// isZero reports that an attachment says nothing but the network's name.
func isZero(e wire.EndpointSettings) bool {
	return e.IPAMConfig == nil && e.Links == nil && e.Aliases == nil && e.MacAddress == "" && e.DriverOpts == nil && e.GwPriority == 0
}

func (o *options) applyToFirst(a *attachment) error {
	e := &a.settings
	conflict := func(flag, option string) error {
		return fault.New(fault.Invalid, "conflicting options: cannot specify both %s and per-network %s", flag, option)
	}
	ipam := wire.EndpointIPAM{}
	if e.IPAMConfig != nil {
		ipam = *e.IPAMConfig
	}
	switch {
	case len(o.aliases.Values) > 0 && len(e.Aliases) > 0:
		return conflict("--network-alias", "alias")
	case o.ip != "" && ipam.IPv4Address != "":
		return conflict("--ip", "IPv4 address")
	case o.ip6 != "" && ipam.IPv6Address != "":
		return conflict("--ip6", "IPv6 address")
	case o.macAddress != "" && e.MacAddress != "":
		return conflict("--mac-address", "MAC address")
	case len(o.linkLocal.Values) > 0 && len(ipam.LinkLocalIPs) > 0:
		return conflict("--link-local-ip", "link-local IP addresses")
	}
	e.Aliases = append(e.Aliases, o.aliases.Values...)
	if userDefined(a.target) {
		e.Links = append(e.Links, o.links.Values...)
	}
	if o.macAddress != "" {
		e.MacAddress = o.macAddress
	}
	for _, ip := range []struct{ flag, key, value string }{{"--ip", "ip", o.ip}, {"--ip6", "ip6", o.ip6}} {
		if ip.value == "" {
			continue
		}
		addr, err := netip.ParseAddr(ip.value)
		if err != nil || addr.Is4() != (ip.key == "ip") {
			return &fault.Field{Field: ip.flag, Given: ip.value, Expected: map[string]string{"ip": "an address such as 172.30.100.104", "ip6": "an address such as 2001:db8::33"}[ip.key]}
		}
		setAddress(e, ip.key, ip.value)
	}
	for _, ip := range o.linkLocal.Values {
		setAddress(e, "link-local-ip", ip)
	}
	return nil
}

// CheckIP is the check of flags that take addresses.
func CheckIP(s string) (string, error) {
	if _, err := netip.ParseAddr(s); err != nil {
		return "", &fault.Field{Given: s, Expected: "an IP address"}
	}
	return s, nil
}

// CheckHost checks --add-host: NAME:IP or NAME=IP, where IP may be host-gateway and an IPv6
// address may stand in brackets. The API wants NAME:IP.
func CheckHost(s string) (string, error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 {
		return "", &fault.Field{Given: s, Expected: "NAME:IP"}
	}
	name, ip := s[:i], s[i+1:]
	if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
		ip = ip[1 : len(ip)-1]
	}
	if ip != "host-gateway" {
		if _, err := netip.ParseAddr(ip); err != nil {
			return "", &fault.Field{Given: s, Expected: "NAME:IP, with an IP address or host-gateway"}
		}
	}
	return name + ":" + ip, nil
}

// checkLink checks --link: NAME[:ALIAS].
func checkLink(s string) (string, error) {
	name, alias, ok := strings.Cut(s, ":")
	if name == "" || ok && (alias == "" || strings.Contains(alias, ":")) {
		return "", &fault.Field{Given: s, Expected: "CONTAINER[:ALIAS]"}
	}
	return s, nil
}
