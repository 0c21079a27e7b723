package ipam

import (
	"net/netip"

	"github.com/sampan-project/sampan/core/fault"
)

// maxProbe bounds the search for a free address: a subnet that is full to this depth is full.
const maxProbe = 1 << 20

// Subnet is one subnet of a network.
type Subnet struct {
	Prefix netip.Prefix
	Range  netip.Prefix // where addresses are chosen from; zero: all of Prefix
}

// Space is the addresses of one network. It is not safe for parallel use.
type Space struct {
	subnets []Subnet
	taken   map[netip.Addr]bool
}

// NewSpace returns a space in which nothing is taken.
func NewSpace(subnets []Subnet) *Space {
	return &Space{subnets: subnets, taken: map[netip.Addr]bool{}}
}

// Mark takes the address, whoever had it: for what records say.
func (s *Space) Mark(a netip.Addr) { s.taken[a] = true }

// Release gives the address back.
func (s *Space) Release(a netip.Addr) { delete(s.taken, a) }

// Reserve takes the address that a user asked for.
func (s *Space) Reserve(a netip.Addr) (netip.Prefix, error) {
	for _, n := range s.subnets {
		if !n.Prefix.Contains(a) {
			continue
		}
		if !usable(n.Prefix, a) {
			return netip.Prefix{}, fault.New(fault.Invalid, "invalid address %s: it is the network's or broadcast address of subnet %s", a, n.Prefix)
		}
		if s.taken[a] {
			return netip.Prefix{}, fault.New(fault.Forbidden, "Address already in use: %s", a)
		}
		s.taken[a] = true
		return netip.PrefixFrom(a, n.Prefix.Bits()), nil
	}
	return netip.Prefix{}, fault.New(fault.Invalid, "invalid address %s: It does not belong to any of this network's subnets", a)
}

// Take takes the lowest free address of the family.
func (s *Space) Take(v6 bool) (netip.Prefix, error) {
	none := true
	for _, n := range s.subnets {
		if n.Prefix.Addr().Is6() != v6 {
			continue
		}
		none = false
		if a, ok := s.free(n); ok {
			s.taken[a] = true
			return netip.PrefixFrom(a, n.Prefix.Bits()), nil
		}
	}
	if none {
		return netip.Prefix{}, fault.New(fault.Invalid, "the network has no subnet of this address family")
	}
	return netip.Prefix{}, fault.New(fault.Conflict, "no available IPv%d addresses on this network's address pools", map[bool]int{false: 4, true: 6}[v6])
}

func (s *Space) free(n Subnet) (netip.Addr, bool) {
	within := n.Prefix.Masked()
	if n.Range.IsValid() {
		within = n.Range.Masked()
	}
	a := within.Addr()
	for range maxProbe {
		if !a.IsValid() || !within.Contains(a) {
			break
		}
		if !s.taken[a] && usable(n.Prefix, a) {
			return a, true
		}
		a = a.Next()
	}
	return netip.Addr{}, false
}

// usable reports whether a host may have the address: not the network's own nor the broadcast
// address, which a subnet of two addresses or one does not have (RFC 3021).
func usable(p netip.Prefix, a netip.Addr) bool {
	if a.BitLen()-p.Bits() < 2 {
		return true
	}
	if a == p.Masked().Addr() {
		// For IPv6 it is the subnet-router anycast address (RFC 4291, 2.6.1).
		return false
	}
	return a.Is6() || a != last(p)
}
