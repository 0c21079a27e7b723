// Package dns answers name queries inside of containers' namespaces.
//
// In each namespace of a container on networks that users made, a Server listens on 127.0.0.11 and
// a port that the kernel chose; two rules in the namespace send port 53 of that address there, so
// that the container may run a name server of its own on port 53. Names of containers are answered
// from Names; all others are forwarded, from the host's namespace, to the resolvers that Upstreams
// says. Whatever comes from a container is untrusted: messages, connections and queries under way
// are bounded.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/sampan-project/sampan/core/network/netns"
)

// Address is where containers find the server, as in Docker; it stands in their resolv.conf.
var Address = netip.MustParseAddr("127.0.0.11")

const (
	ttl        = 5 // seconds: a container that starts again may have another address
	timeout    = 4 * time.Second
	perServer  = 2 * time.Second // so that a second resolver gets a chance before resolv.conf's 5 s
	maxQueries = 128             // forwarded at the same time, by one container
)

// Names are what the server answers itself. The methods are called in parallel.
type Names interface {
	// Lookup returns the addresses of a name, in lower case and without a final dot. found says
	// that the name is one of ours, with no address of some family perhaps.
	Lookup(name string) (addresses []netip.Addr, found bool)
	// Reverse returns the names of an address of ours, with their network as domain.
	Reverse(a netip.Addr) []string
	// Upstreams are the resolvers for all other names; none: these do not exist.
	Upstreams() []netip.AddrPort
}

// Server answers in one namespace.
type Server struct {
	names   Names
	log     *slog.Logger
	udp     *dns.Server
	tcp     *dns.Server
	slots   chan struct{}
	context context.Context
	cancel  context.CancelFunc
}

// Serve opens the sockets in the namespace, sets the rules and answers until Close. Rules of an
// earlier server in the namespace are replaced.
func Serve(ns *os.File, names Names, log *slog.Logger) (_ *Server, err error) {
	s := &Server{names: names, log: log, slots: make(chan struct{}, maxQueries)}
	var packets net.PacketConn
	var listener net.Listener
	err = netns.Do(ns, func() (err error) {
		here := netip.AddrPortFrom(Address, 0).String()
		if packets, err = net.ListenPacket("udp4", here); err != nil {
			return err
		}
		if listener, err = net.Listen("tcp4", here); err != nil {
			_ = packets.Close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("name server: %w", err)
	}
	err = redirect(ns, uint16(packets.LocalAddr().(*net.UDPAddr).Port), uint16(listener.Addr().(*net.TCPAddr).Port))
	if err != nil {
		_ = packets.Close()
		listener.Close()
		return nil, fmt.Errorf("name server: rules in the namespace: %w", err)
	}
	s.context, s.cancel = context.WithCancel(context.Background())
	s.udp = &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(s.handle), UDPSize: dns.DefaultMsgSize}
	s.tcp = &dns.Server{Listener: listener, Handler: dns.HandlerFunc(s.handle), MaxTCPQueries: 128,
		IdleTimeout: func() time.Duration { return 10 * time.Second }}
	for _, server := range []*dns.Server{s.udp, s.tcp} {
		go func() {
			if err := server.ActivateAndServe(); err != nil && s.context.Err() == nil && !errors.Is(err, net.ErrClosed) {
				log.Warn("name server of a container ended", "error", err)
			}
		}()
	}
	return s, nil
}

// Close ends the server. The rules go with the namespace.
func (s *Server) Close() {
	s.cancel()
	// The sockets are closed here and not only by Shutdown, which refuses when the server's
	// goroutine has not come to run yet.
	_ = s.udp.PacketConn.Close()
	s.tcp.Listener.Close()
	_ = s.udp.Shutdown()
	_ = s.tcp.Shutdown()
}

func (s *Server) handle(w dns.ResponseWriter, q *dns.Msg) {
	answer := s.answer(q, w.RemoteAddr().Network())
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(max(o.UDPSize(), dns.MinMsgSize))
		}
		answer.Truncate(size)
	}
	if err := w.WriteMsg(answer); err != nil {
		s.log.Debug("answer to a name query", "error", err)
	}
}

func (s *Server) answer(q *dns.Msg, network string) *dns.Msg {
	// One question, in the Internet class: nobody asks otherwise (RFC 9619).
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 {
		return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
	}
	question := q.Question[0]
	if question.Qclass == dns.ClassINET {
		if a := s.own(q, question); a != nil {
			return a
		}
	}
	return s.forward(q, network)
}

// own answers from Names; nil is a name that is not ours.
func (s *Server) own(q *dns.Msg, question dns.Question) *dns.Msg {
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	header := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: question.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	a := new(dns.Msg).SetReply(q)
	a.RecursionAvailable = true
	if question.Qtype == dns.TypePTR {
		address, ok := fromReverse(name)
		if !ok {
			return nil
		}
		names := s.names.Reverse(address)
		if len(names) == 0 {
			return nil
		}
		for _, n := range names {
			a.Answer = append(a.Answer, &dns.PTR{Hdr: header(dns.TypePTR), Ptr: dns.Fqdn(n)})
		}
		return a
	}
	addresses, found := s.names.Lookup(name)
	if !found {
		return nil
	}
	// Who asks for a name of several containers takes the first: let it be another each time.
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	for _, address := range addresses {
		switch {
		case question.Qtype == dns.TypeA && address.Is4():
			a.Answer = append(a.Answer, &dns.A{Hdr: header(dns.TypeA), A: address.AsSlice()})
		case question.Qtype == dns.TypeAAAA && address.Is6():
			a.Answer = append(a.Answer, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: address.AsSlice()})
		}
	}
	// A name of ours without a record of this type: no error and no answer (RFC 2308, 2.2), or a
	// client would take the AAAA's NXDOMAIN as the end of the name.
	return a
}

func (s *Server) forward(q *dns.Msg, network string) *dns.Msg {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return new(dns.Msg).SetRcode(q, dns.RcodeRefused)
	}
	upstreams := s.names.Upstreams()
	if len(upstreams) == 0 {
		return new(dns.Msg).SetRcode(q, dns.RcodeNameError)
	}
	ctx, cancel := context.WithTimeout(s.context, timeout)
	defer cancel()
	client := dns.Client{Net: network, Timeout: perServer, UDPSize: dns.MaxMsgSize}
	for _, u := range upstreams {
		a, _, err := client.ExchangeContext(ctx, q, u.String())
		if err != nil {
			s.log.Debug("name query", "server", u, "error", err)
			continue
		}
		if a.Rcode == dns.RcodeServerFailure || a.Rcode == dns.RcodeRefused {
			continue
		}
		return a
	}
	return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
}

// fromReverse decodes a name below in-addr.arpa (RFC 1035, 3.5) or ip6.arpa (RFC 3596, 2.5).
func fromReverse(name string) (netip.Addr, bool) {
	if labels, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(labels, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil && a.Is4()
	}
	labels, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(labels) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		b.WriteByte(labels[i])
		if i > 0 && labels[i-1] != '.' {
			return netip.Addr{}, false
		}
		if i%8 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is6()
}
