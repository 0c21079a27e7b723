package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// A mark is the alias of a link: whose it is, what it is, and of which network or endpoint.
type mark struct{ owner, what, id string }

func (m mark) String() string { return "sampan " + m.owner + " " + m.what + " " + m.id }

func parseMark(alias string) (mark, bool) {
	parts := strings.Split(alias, " ")
	if len(parts) != 4 || parts[0] != "sampan" || len(parts[3]) < 12 {
		return mark{}, false
	}
	return mark{parts[1], parts[2], parts[3]}, true
}

func networkMark(n bridgeNetwork) mark { return mark{n.Owner, "network", n.ID[:12]} }

// ensureBridge makes the network's bridge, or finds the one of this name. One without any mark of
// ours is somebody else's: it is used and never deleted.
func (d *driver) ensureBridge(n bridgeNetwork) (*link, error) {
	name := bridgeName(n)
	l, err := d.host.linkByName(name)
	if err != nil {
		return nil, err
	}
	if l == nil {
		if err := d.host.do(createBridge(n)...); err != nil {
			return nil, err
		}
		if l, err = d.host.linkByName(name); err != nil || l == nil {
			return nil, fmt.Errorf("bridge %s is gone: %w", name, err)
		}
		return l, nil
	}
	if l.kind != "bridge" {
		return nil, sdk.Errorf(sdk.Conflict, "interface %s is there and is no bridge", name)
	}
	if m, ok := parseMark(l.alias); ok && m != networkMark(n) {
		if err := d.takeOver(n, l, m); err != nil {
			return nil, err
		}
	}
	if !l.up {
		return l, d.host.do(setUp(name))
	}
	return l, nil
}

// takeOver makes a marked bridge ours that nobody uses: the engine that made it has lost its data.
// What was left of its network goes.
func (d *driver) takeOver(n bridgeNetwork, l *link, old mark) error {
	links, err := d.host.links()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(links, func(o *link) bool { return o.master == l.index }) {
		return sdk.Errorf(sdk.Conflict, "bridge %s belongs to network %s of the engine %s, which has containers in it: choose another name",
			l.name, old.id, old.owner)
	}
	if err := d.dropTable(old.id); err != nil {
		return err
	}
	return d.host.do(setAlias(l.name, networkMark(n)))
}

func createBridge(n bridgeNetwork) []request {
	name := bridgeName(n)
	create := request{what: "create bridge " + name, message: message(unix.RTM_NEWLINK, netlink.Create|netlink.Excl,
		ifinfo(0, 0, 0), func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_IFNAME, name)
			// Without an address of its own a bridge has that of its lowest port, and changes it.
			ae.Bytes(unix.IFLA_ADDRESS, macOf(n.ID))
			ae.Uint32(unix.IFLA_MTU, uint32(n.Options.MTU))
			nested(ae, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) { info.String(unix.IFLA_INFO_KIND, "bridge") })
		})}
	return []request{create, setAlias(name, networkMark(n)), setUp(name)}
}

func setAlias(name string, m mark) request {
	return request{what: "mark " + name, message: message(unix.RTM_SETLINK, 0, ifinfo(0, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, name)
		ae.String(unix.IFLA_IFALIAS, m.String())
	})}
}

func setUp(name string) request {
	return request{what: "bring up " + name, message: message(unix.RTM_SETLINK, 0, ifinfo(0, unix.IFF_UP, unix.IFF_UP), func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, name)
	})}
}

// setBridgeAddresses gives the bridge the gateways' addresses. Others that our bridge has go: its
// subnets may have changed while the engine was away.
func (d *driver) setBridgeAddresses(n bridgeNetwork, l *link) error {
	var want []netip.Prefix
	for _, s := range n.Subnets {
		v4 := s.Prefix.Addr().Is4()
		if s.Gateway.IsValid() && mode(n, v4) != modeIsolated && !(v4 && n.Options.InhibitIPv4) {
			want = append(want, netip.PrefixFrom(s.Gateway, s.Prefix.Bits()))
		}
	}
	have, err := d.host.addresses(l.index)
	if err != nil {
		return err
	}
	var requests []request
	if m, ok := parseMark(l.alias); ok && m == networkMark(n) {
		for _, a := range have {
			if !slices.Contains(want, a) {
				requests = append(requests, deleteAddress(l.index, a))
			}
		}
	}
	for _, a := range want {
		if !slices.Contains(have, a) {
			requests = append(requests, addAddress(l.index, a))
		}
	}
	return d.host.do(requests...)
}

// setKernel makes the settings without which nothing is forwarded.
func setKernel(n bridgeNetwork) error {
	name := bridgeName(n)
	// Packets from 127.0.0.1 to a published port leave by the bridge; rules.go keeps containers
	// from using the same door in the other direction.
	settings := [][2]string{{"ipv4/conf/" + name + "/route_localnet", "1"}}
	if !n.Internal {
		settings = append(settings, [2]string{"ipv4/ip_forward", "1"})
	}
	off := "1"
	if n.IPv6 {
		off = "0"
		if !n.Internal {
			if err := forwardIPv6(); err != nil {
				return err
			}
		}
	}
	settings = append(settings,
		// Neighbours are asked with the link-local address: it must not wait for the detection of
		// duplicates.
		[2]string{"ipv6/conf/" + name + "/accept_dad", "0"},
		[2]string{"ipv6/conf/" + name + "/disable_ipv6", off})
	for _, s := range settings {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// forwardIPv6 turns forwarding on. A host that forwards ignores router advertisements, so that
// interfaces that learned their route from one would lose it: they are told to go on (accept_ra 2,
// Documentation/networking/ip-sysctl).
func forwardIPv6() error {
	const dir = "ipv6/conf/"
	if now, err := os.ReadFile("/proc/sys/net/" + dir + "all/forwarding"); err == nil && strings.TrimSpace(string(now)) == "1" {
		return nil
	}
	interfaces, _ := filepath.Glob("/proc/sys/net/" + dir + "*/accept_ra")
	for _, path := range interfaces {
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == "1" {
			// One that goes away meanwhile has no route to lose.
			if err := os.WriteFile(path, []byte("2"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("keep the host's IPv6 routes: %w", err)
			}
		}
	}
	return sysctl(dir+"all/forwarding", "1")
}

// sysctl sets a value below /proc/sys/net, in the namespace of the calling thread, when it is not
// set. A kernel without IPv6 lacks some, and then there is nothing to set.
func sysctl(name, value string) error {
	path := "/proc/sys/net/" + name
	now, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "ipv6/") {
		return nil
	}
	if err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		return fmt.Errorf("set %s to %s: %w", strings.ReplaceAll("net/"+name, "/", "."), value, err)
	}
	return nil
}
