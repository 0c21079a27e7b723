package cluster

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/sampan-project/sampan/core/fault"
)

// defaultPort is where a node listens for the others of its swarm, unless it is told otherwise.
const defaultPort = "2377"

// errNoListenAddr has dockerd's words: the address that is used without one is a client's choice.
var errNoListenAddr = fault.New(fault.Invalid, `invalid ListenAddr "": invalid empty address`)

// hostPort completes an address of a request: a host, an interface, ":port" or host:port.
func hostPort(field, given, defaultHost string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(given)
	if err != nil { // no port
		host, port = given, defaultPort
		if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
	}
	if host == "" {
		host = defaultHost
	}
	if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
		return "", "", &fault.Field{Field: field, Given: given, Expected: "an address as HOST:PORT"}
	}
	return host, port, nil
}

// listenAddr is the address to listen on: an IP address, or an interface, which stands for its address.
func listenAddr(given string) (string, error) {
	if given == "" {
		return "", errNoListenAddr
	}
	host, port, err := hostPort("ListenAddr", given, "0.0.0.0")
	if err != nil {
		return "", err
	}
	ip, err := addressOf(host)
	if err != nil {
		return "", err
	}
	if !ip.IsValid() {
		return "", fault.New(fault.Invalid, "ListenAddr %q: listen address must be an IP address or network interface (with optional port number)", given)
	}
	return net.JoinHostPort(ip.String(), port), nil
}

// tryListen refuses an address that cannot be listened on, before anybody is told of it.
func tryListen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fault.New(fault.Unavailable, "swarm listen address: %w", err)
	}
	return l.Close()
}

// advertiseAddr is the address at which the other nodes reach this one. Without a given one it is that of listen, or
// the only one that the machine has; ours says which addresses are of this engine's own networks.
func advertiseAddr(given, listen string, ours func(netip.Addr) bool) (string, error) {
	listenHost, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if given == "" {
		if ip, err := netip.ParseAddr(listenHost); err == nil && !ip.IsUnspecified() {
			return listen, nil
		}
		ip, err := onlyAddress(ours)
		if err != nil {
			return "", err
		}
		return net.JoinHostPort(ip.String(), port), nil
	}
	host := given
	if h, p, err := net.SplitHostPort(given); err == nil {
		host, port = h, p
	}
	ip, err := addressOf(host)
	if err != nil {
		return "", err
	}
	if !ip.IsValid() || ip.IsUnspecified() {
		return "", fault.New(fault.Invalid, "AdvertiseAddr %q: advertise address must be a non-zero IP address or network interface (with optional port number)", given)
	}
	return net.JoinHostPort(ip.String(), port), nil
}

// addressOf is the address of an interface, or the one that is given; invalid when it is neither.
func addressOf(host string) (netip.Addr, error) {
	link, err := net.InterfaceByName(host)
	if err != nil {
		ip, _ := netip.ParseAddr(host) //nolint:errcheck // what is none is invalid, and the caller says so
		return ip.Unmap(), nil         //nolint:nilerr // no interface is no error: it may be an address
	}
	v4, v6 := addressesOn(link)
	switch {
	case len(v4) > 1:
		return netip.Addr{}, fault.New(fault.Invalid, "interface %s has more than one IPv4 address (%s and %s)", host, v4[0], v4[1])
	case len(v4) == 1:
		return v4[0], nil
	case len(v6) > 1:
		return netip.Addr{}, fault.New(fault.Invalid, "interface %s has more than one IPv6 address (%s and %s)", host, v6[0], v6[1])
	case len(v6) == 1:
		return v6[0], nil
	}
	return netip.Addr{}, fault.New(fault.Invalid, "interface %s has no usable IPv4 or IPv6 address", host)
}

// addressesOn lists the addresses of an interface that others can reach, also those of loopback.
func addressesOn(link *net.Interface) (v4, v6 []netip.Addr) {
	addrs, err := link.Addrs()
	if err != nil {
		return nil, nil
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		switch ip := prefix.Addr().Unmap(); {
		case ip.Is4():
			v4 = append(v4, ip)
		case !ip.IsLinkLocalUnicast():
			v6 = append(v6, ip)
		}
	}
	return v4, v6
}

// onlyAddress is the one address of this machine by which it is known outside, IPv4 before IPv6.
func onlyAddress(ours func(netip.Addr) bool) (netip.Addr, error) {
	links, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, err
	}
	type found struct {
		ip   netip.Addr
		link string
	}
	var four, six []found
	for _, link := range links {
		if link.Flags&net.FlagUp == 0 || link.Flags&net.FlagLoopback != 0 {
			continue
		}
		v4, v6 := addressesOn(&link)
		for _, ip := range append(v4, v6...) {
			switch {
			case !ip.IsGlobalUnicast() || ours(ip):
			case ip.Is4():
				four = append(four, found{ip, link.Name})
			default:
				six = append(six, found{ip, link.Name})
			}
		}
	}
	all := four
	if len(all) == 0 {
		all = six
	}
	switch {
	case len(all) == 0:
		return netip.Addr{}, fault.New(fault.Invalid, "could not find the system's IP address - specify one with --advertise-addr")
	case len(all) == 1:
		return all[0].ip, nil
	case all[0].link == all[1].link:
		return netip.Addr{}, fault.New(fault.Invalid,
			"could not choose an IP address to advertise since this system has multiple addresses on interface %s (%s and %s) - specify one with --advertise-addr", all[0].link, all[0].ip, all[1].ip)
	}
	return netip.Addr{}, fault.New(fault.Invalid,
		"could not choose an IP address to advertise since this system has multiple addresses on different interfaces (%s on %s and %s on %s) - specify one with --advertise-addr",
		all[0].ip, all[0].link, all[1].ip, all[1].link)
}
