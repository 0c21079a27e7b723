// Package ipam chooses addresses: a subnet for a network (Choose, from pools), and addresses of
// that subnet for its endpoints (Space). It decides and touches nothing; what is taken comes from
// its caller, who keeps the records.
package ipam

import (
	"encoding/binary"
	"net/netip"

	"github.com/sampan-project/sampan/core/fault"
)

// Pool is a range that is cut into subnets of one size, given as a prefix length.
type Pool struct {
	Base netip.Prefix
	Bits int
}

// DefaultPools are Docker's: 15 subnets of 65,534 addresses, then 16 of 4,094.
func DefaultPools() []Pool {
	return []Pool{
		{netip.MustParsePrefix("172.17.0.0/16"), 16},
		{netip.MustParsePrefix("172.18.0.0/15"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/14"), 16},
		{netip.MustParsePrefix("172.28.0.0/14"), 16},
		{netip.MustParsePrefix("192.168.0.0/16"), 20},
	}
}

// LocalPool is the range of unique local IPv6 addresses (RFC 4193) that belongs to the seed: fd,
// 40 bits of the seed, and room for 65,536 subnets of 64 bits.
func LocalPool(seed [5]byte) Pool {
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:], seed[:])
	return Pool{netip.PrefixFrom(netip.AddrFrom16(a), 48), 64}
}

// Choose returns the first subnet of the pools that overlaps nothing taken. The error names the
// cure, because the person who meets it has used up hundreds of networks or has an odd route.
func Choose(pools []Pool, taken []netip.Prefix) (netip.Prefix, error) {
	for _, p := range pools {
		subnet := netip.PrefixFrom(p.Base.Masked().Addr(), p.Bits)
		for subnet.IsValid() && p.Base.Contains(subnet.Addr()) {
			hit, overlaps := overlapping(subnet, taken)
			if !overlaps {
				return subnet, nil
			}
			// What overlaps may be larger than one subnet: go on behind the larger of the two.
			if hit.Bits() > p.Bits {
				hit = subnet
			}
			next, ok := after(hit)
			if !ok {
				break
			}
			subnet = netip.PrefixFrom(next, p.Bits).Masked()
		}
	}
	return netip.Prefix{}, fault.New(fault.Conflict, "all predefined address pools have been fully subnetted: remove networks that are not used, or give a subnet")
}

func overlapping(p netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	for _, t := range taken {
		if t.Overlaps(p) {
			return t.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// after returns the first address behind the prefix.
func after(p netip.Prefix) (netip.Addr, bool) {
	next := last(p).Next()
	return next, next.IsValid()
}

// last returns the last address of the prefix; for IPv4 that is the broadcast address.
func last(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		bytes[i/8] |= 1 << (7 - i%8)
	}
	a := netip.AddrFrom16(bytes)
	if p.Addr().Is4() {
		a = a.Unmap()
	}
	return a
}

// MAC returns the hardware address that an endpoint with the IPv4 address has: the same address
// always has the same, so that neighbours' caches stay right when a container is started again.
// 02 says locally administered (IEEE 802-2014, 8.2.2); 42 is what Docker has there.
func MAC(a netip.Addr) [6]byte {
	mac := [6]byte{0x02, 0x42}
	if a.Is4() {
		b := a.As4()
		copy(mac[2:], b[:])
		return mac
	}
	b := a.As16()
	binary.BigEndian.PutUint32(mac[2:], binary.BigEndian.Uint32(b[8:])^binary.BigEndian.Uint32(b[12:]))
	return mac
}
