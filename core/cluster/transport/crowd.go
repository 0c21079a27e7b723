package transport

import (
	"net"
	"net/netip"
	"slices"
	"sync"
)

// A crowd is a bounded number of connections of people who have not said who they are. Nobody is turned away for others
// being there: the newcomer takes the place of the oldest of its own address, or of the address that has the most.
// A handshake that is meant takes milliseconds, so who is old is who only holds the place.
type crowd struct {
	max, maxPerAddress int

	mu     sync.Mutex
	closed bool
	oldest []member // in the order in which they came
	by     map[netip.Prefix]int
}

type member struct {
	conn net.Conn
	from netip.Prefix
}

func newCrowd(most, perAddress int) *crowd {
	return &crowd{max: most, maxPerAddress: perAddress, by: map[netip.Prefix]int{}}
}

// enter makes room for the connection and keeps it until leave.
func (c *crowd) enter(conn net.Conn) {
	from := network(conn.RemoteAddr())
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		conn.Close()
		return
	}
	victim := c.victim(from)
	c.oldest = append(c.oldest, member{conn, from})
	c.by[from]++
	c.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
}

// victim takes out who has to go for one more of the network, if anybody.
func (c *crowd) victim(from netip.Prefix) net.Conn {
	switch {
	case c.by[from] >= c.maxPerAddress:
	case len(c.oldest) >= c.max:
		for p, count := range c.by {
			if count > c.by[from] || c.by[from] == 0 {
				from = p
			}
		}
	default:
		return nil
	}
	for i, m := range c.oldest {
		if m.from == from {
			c.remove(i)
			return m.conn
		}
	}
	return nil
}

func (c *crowd) remove(i int) {
	from := c.oldest[i].from
	c.oldest = slices.Delete(c.oldest, i, i+1)
	if c.by[from]--; c.by[from] == 0 {
		delete(c.by, from)
	}
}

// leave forgets the connection; it says whether it was still there.
func (c *crowd) leave(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range c.oldest {
		if m.conn == conn {
			c.remove(i)
			return true
		}
	}
	return false
}

// close ends all that are there, and those that come.
func (c *crowd) close() {
	c.mu.Lock()
	all := c.oldest
	c.oldest, c.by, c.closed = nil, map[netip.Prefix]int{}, true
	c.mu.Unlock()
	for _, m := range all {
		m.conn.Close()
	}
}

// network is what counts as one address: one of IPv4, and the 64 bits of IPv6 that one customer has.
func network(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := t.AddrPort().Addr().Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.WithZone("").Prefix(bits) // never fails: the bits are those of the family
	return p
}
