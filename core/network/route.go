package network

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// hostRoutes returns the destinations of the host's routes but the default ones, and those of the
// device that is not to be counted. A file that cannot be read has none: then an overlap shows
// when the driver makes the network.
func hostRoutes(except string) []netip.Prefix {
	v4, _ := os.ReadFile("/proc/net/route")
	v6, _ := os.ReadFile("/proc/net/ipv6_route")
	return append(parseRoutes4(string(v4), except), parseRoutes6(string(v6), except)...)
}

// parseRoutes4 reads /proc/net/route: device, destination, ..., mask as the eighth field; numbers
// are the machine's words in hexadecimal, see proc_pid_net(5).
func parseRoutes4(text, except string) (list []netip.Prefix) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] == except {
			continue
		}
		destination, err1 := strconv.ParseUint(f[1], 16, 32)
		mask, err2 := strconv.ParseUint(f[7], 16, 32)
		if err1 != nil || err2 != nil || mask == 0 {
			continue
		}
		var a [4]byte
		binary.NativeEndian.PutUint32(a[:], uint32(destination))
		list = append(list, netip.PrefixFrom(netip.AddrFrom4(a), bits.OnesCount32(uint32(mask))).Masked())
	}
	return list
}

// parseRoutes6 reads /proc/net/ipv6_route: destination, prefix length, ..., device as the last field.
func parseRoutes6(text, except string) (list []netip.Prefix) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || f[9] == except || f[9] == "lo" {
			continue
		}
		raw, err := hex.DecodeString(f[0])
		length, err2 := strconv.ParseUint(f[1], 16, 8)
		if err != nil || len(raw) != 16 || err2 != nil || length == 0 || length > 128 {
			continue
		}
		a := netip.AddrFrom16([16]byte(raw))
		if a.IsLinkLocalUnicast() || a.IsMulticast() {
			continue
		}
		list = append(list, netip.PrefixFrom(a, int(length)).Masked())
	}
	return list
}
