package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// From linux/veth.h, linux/if_link.h: what x/sys lacks.
const (
	vethInfoPeer         = 1
	brportMode           = 4 // hairpin
	brportIsolated       = 33
	inet6AddrGenMode     = 8
	inet6AddrGenModeNone = 1
)

func endpointMark(n bridgeNetwork, e sdk.Endpoint) mark {
	return mark{n.Owner, "endpoint", e.ID[:12]}
}

// createPair makes the veth pair: the host's end in the bridge and up, the other in the namespace under its
// name there. One system call; the interface was never visible under another name or place.
func createPair(n bridgeNetwork, e sdk.Endpoint, bridge *link, ns *os.File) []request {
	name := hostInterface(e.ID)
	mtu := uint32(n.Options.MTU)
	peer := append(ifinfo(0, 0, 0), attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, e.Interface)
		ae.Bytes(unix.IFLA_ADDRESS, macFor(e))
		ae.Uint32(unix.IFLA_MTU, mtu)
		ae.Uint32(unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
	})...)
	requests := []request{{
		what: "create interface " + name,
		message: message(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, ifinfo(0, 0, 0), func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_IFNAME, name)
			ae.Uint32(unix.IFLA_MTU, mtu)
			nested(ae, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
				info.String(unix.IFLA_INFO_KIND, "veth")
				nested(info, unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) { data.Bytes(vethInfoPeer, peer) })
			})
		}),
	}}
	return append(requests, placePort(n, e, bridge)...)
}

// placePort marks the host's end, puts it into the bridge and brings it up.
func placePort(n bridgeNetwork, e sdk.Endpoint, bridge *link) []request {
	name := hostInterface(e.ID)
	requests := []request{{
		what: "put " + name + " into bridge " + bridge.name,
		message: message(unix.RTM_SETLINK, 0, ifinfo(0, unix.IFF_UP, unix.IFF_UP), func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_IFNAME, name)
			ae.String(unix.IFLA_IFALIAS, endpointMark(n, e).String())
			ae.Uint32(unix.IFLA_MASTER, uint32(bridge.index))
			// The port needs no address of its own.
			nested(ae, unix.IFLA_AF_SPEC, func(spec *netlink.AttributeEncoder) {
				nested(spec, unix.AF_INET6, func(v6 *netlink.AttributeEncoder) { v6.Uint8(inet6AddrGenMode, inet6AddrGenModeNone) })
			})
		}),
	}}
	// An isolated port talks to the bridge itself and to no other isolated port: bridge(8).
	isolated := flag(!n.Options.ICC)
	// With br_netfilter a packet to a published port of the network itself is turned round within the
	// bridge, and may have to leave by the port by which it came.
	_, err := os.Stat("/proc/sys/net/bridge")
	hairpin := flag(err == nil)
	return append(requests, request{
		what: "set up the bridge's port " + name,
		message: message(unix.RTM_NEWLINK, 0, ifinfo(0, 0, 0), func(ae *netlink.AttributeEncoder) {
			ae.String(unix.IFLA_IFNAME, name)
			nested(ae, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
				info.String(unix.IFLA_INFO_SLAVE_KIND, "bridge")
				nested(info, unix.IFLA_INFO_SLAVE_DATA, func(port *netlink.AttributeEncoder) {
					port.Uint8(brportIsolated, isolated)
					port.Uint8(brportMode, hairpin)
				})
			})
		}),
	})
}

// readyTimeout is for a machine in trouble: a kernel that idles needs a fraction of a millisecond.
const readyTimeout = 200 * time.Millisecond

// waitReady waits until the kernel's link watch has seen that an interface has a carrier. Before that
// it drops what it should send, and who sent the first ARP request asks again after a second.
func (r *rtnl) waitReady(names ...string) error {
	end := time.Now().Add(readyTimeout)
	for _, name := range names {
		for {
			l, err := r.linkByName(name)
			if err != nil {
				return err
			}
			if l == nil || l.ready || time.Now().After(end) {
				break
			}
			time.Sleep(50 * time.Microsecond)
		}
	}
	return nil
}

// waitAnswering waits, in the namespace of the calling thread, until the kernel answers neighbours that look
// for the IPv6 addresses: a worker of it joins the groups to which they send (RFC 4291, 2.7.1), after the
// address is there.
func waitAnswering(addresses []netip.Prefix) {
	end := time.Now().Add(readyTimeout)
	for _, p := range addresses {
		if !p.Addr().Is6() {
			continue
		}
		a := p.Addr().As16()
		group := fmt.Sprintf("ff0200000000000000000001ff%x", a[13:])
		for time.Now().Before(end) {
			groups, err := os.ReadFile("/proc/thread-self/net/igmp6")
			if err != nil || bytes.Contains(groups, []byte(group)) {
				break
			}
			time.Sleep(50 * time.Microsecond)
		}
	}
}

func flag(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

func macFor(e sdk.Endpoint) net.HardwareAddr {
	if e.MAC != nil {
		return e.MAC
	}
	return macOf(e.ID)
}

// pair makes the endpoint's veth pair, or finds it. It reports whether it is new.
func (d *driver) pair(n bridgeNetwork, e sdk.Endpoint, bridge *link, ns *os.File) (fresh bool, err error) {
	err = d.host.do(createPair(n, e, bridge, ns)...)
	if !errors.Is(err, unix.EEXIST) {
		return true, err
	}
	// Either the host's end is there from before, or the name is taken inside.
	l, err := d.host.linkByName(hostInterface(e.ID))
	if err != nil {
		return false, err
	}
	inside, err := interfaceIn(ns, e.Interface)
	if err != nil {
		return false, err
	}
	switch {
	case l == nil:
		return false, sdk.Errorf(sdk.Conflict, "interface %s is in the namespace already", e.Interface)
	case l.alias != "" && l.alias != endpointMark(n, e).String():
		return false, sdk.Errorf(sdk.Conflict, "interface %s is there and has the mark %q", l.name, l.alias)
	case inside == nil:
		// The other end is in another namespace, or has another name.
		if err := d.host.do(deleteLink(l.name)); err != nil {
			return false, err
		}
		return true, d.host.do(createPair(n, e, bridge, ns)...)
	}
	return false, d.host.do(placePort(n, e, bridge)...)
}

func interfaceIn(ns *os.File, name string) (l *link, err error) {
	err = inNamespace(ns, func(r *rtnl) error {
		l, err = r.linkByName(name)
		return err
	})
	return l, err
}

// configure gives the interface in the namespace its addresses and routes and brings it up.
func configure(e sdk.Endpoint, ns *os.File, fresh bool) error {
	return inNamespace(ns, func(r *rtnl) error {
		l, err := r.linkByName(e.Interface)
		if err != nil {
			return err
		}
		if l == nil {
			return sdk.Errorf(sdk.NotFound, "interface %s is not in the namespace", e.Interface)
		}
		if err := insideSettings(e); err != nil {
			return err
		}
		var requests []request
		if !fresh {
			if requests, err = r.outdated(e, l.index); err != nil {
				return err
			}
		}
		for _, a := range e.Addresses {
			if a.Addr().Is4() {
				requests = append(requests, addAddress(l.index, a))
			}
		}
		requests = append(requests, setUp(e.Interface))
		for _, a := range e.Addresses {
			if a.Addr().Is6() {
				requests = append(requests, addAddress(l.index, a))
			}
		}
		for _, g := range e.Gateways {
			requests = append(requests, addDefaultRoute(l.index, g))
		}
		if err := r.do(requests...); err != nil {
			return err
		}
		if err := r.waitReady(e.Interface); err != nil {
			return err
		}
		waitAnswering(e.Addresses)
		return nil
	})
}

// outdated are the requests that take away what an endpoint had and should not have.
func (r *rtnl) outdated(e sdk.Endpoint, index int) ([]request, error) {
	have, err := r.addresses(index)
	if err != nil {
		return nil, err
	}
	var requests []request
	for _, a := range have {
		if !slices.Contains(e.Addresses, a) {
			requests = append(requests, deleteAddress(index, a))
		}
	}
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if !slices.ContainsFunc(e.Gateways, func(g netip.Addr) bool { return g.Is4() == any.Is4() }) {
			requests = append(requests, deleteDefaultRoute(index, any))
		}
	}
	return requests, nil
}

// insideSettings are the kernel's settings for the interface. Arp_notify has the neighbours told
// when it comes up: the address may have been another container's a moment ago.
func insideSettings(e sdk.Endpoint) error {
	settings := [][2]string{{"disable_ipv6", "1"}}
	for _, a := range e.Addresses {
		if a.Addr().Is6() {
			// No detection of duplicates: for a second or two nothing could be sent.
			settings = [][2]string{{"disable_ipv6", "0"}, {"accept_dad", "0"}}
		}
	}
	for _, s := range settings {
		if err := sysctl("ipv6/conf/"+e.Interface+"/"+s[0], s[1]); err != nil {
			return err
		}
	}
	if err := sysctl("ipv4/conf/"+e.Interface+"/arp_notify", "1"); err != nil {
		return err
	}
	wanted, err := endpointSysctls(e)
	if err != nil {
		return err
	}
	for _, s := range wanted {
		if err := sysctl(s[0], s[1]); err != nil {
			return &sdk.FieldError{Field: sysctlsOption, Given: strings.Join(s[:], "="), Expected: "a setting that the kernel takes: " + err.Error()}
		}
	}
	return nil
}

// sysctlsOption is Docker's option of an endpoint for settings of its interface:
// net.ipv4.conf.IFNAME.log_martians=1,... where IFNAME stands for the interface's name.
const sysctlsOption = "com.docker.network.endpoint.sysctls"

func endpointSysctls(e sdk.Endpoint) (list [][2]string, err error) {
	given := e.Options[sysctlsOption]
	if given == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(given, ",") {
		name, value, has := strings.Cut(text, "=")
		parts := strings.Split(name, ".")
		// Only what is the interface's: the rest is for --sysctl.
		if !has || len(parts) != 5 || parts[0] != "net" || parts[3] != "IFNAME" || strings.ContainsAny(name, "/ ") ||
			!slices.Contains([]string{"ipv4", "ipv6", "mpls"}, parts[1]) || !slices.Contains([]string{"conf", "neigh"}, parts[2]) || parts[4] == "" {
			return nil, &sdk.FieldError{Field: sysctlsOption, Given: text, Expected: "a setting such as net.ipv4.conf.IFNAME.log_martians=1"}
		}
		list = append(list, [2]string{parts[1] + "/" + parts[2] + "/" + e.Interface + "/" + parts[4], value})
	}
	return list, nil
}

// inNamespace runs fn on a thread in the namespace, with a socket there.
func inNamespace(ns *os.File, fn func(*rtnl) error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		defer home.Close()
		err = fmt.Errorf("panic in a network namespace")
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic in a network namespace: %v", p)
			}
			// A thread that cannot go home stays locked, and Go ends it with this goroutine.
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			result <- err
		}()
		if e := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); e != nil {
			err = fmt.Errorf("enter network namespace %s: %w", ns.Name(), e)
			return
		}
		r := &rtnl{}
		defer r.close()
		err = fn(r)
	}()
	return <-result
}
