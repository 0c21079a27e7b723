package main

import (
	"net"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// net127 is a server on the host's 127.0.0.1, where no container may come.
func net127(t *testing.T) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("secret"))
			c.Close()
		}
	}()
	return l.Addr().String(), nil
}

// route127 sends 127.0.0.1 of a container to the host: what somebody would try who wants in.
func route127(index int, gateway netip.Addr) netlink.Message {
	m := defaultRoute(unix.RTM_NEWROUTE, netlink.Create|netlink.Replace, index, gateway)
	header := append([]byte{}, m.Data[:unix.SizeofRtMsg]...)
	header[1] = 32
	return message(unix.RTM_NEWROUTE, m.Header.Flags, header, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.RTA_DST, []byte{127, 0, 0, 1})
		ae.Uint32(unix.RTA_OIF, uint32(index))
		ae.Bytes(unix.RTA_GATEWAY, gateway.AsSlice())
	})
}
