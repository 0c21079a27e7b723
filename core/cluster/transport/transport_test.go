package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// A swarm makes identities of itself.
type swarm struct {
	t         *testing.T
	id        string
	authority identity.Authority
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	a, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return &swarm{t, identity.NewID(), a}
}

func (s *swarm) identity(nodeID, role string, expiry time.Duration) *identity.Identity {
	s.t.Helper()
	key, csr, err := identity.NewRequest()
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := s.authority.Sign(csr, nodeID, role, s.id, expiry)
	if err != nil {
		s.t.Fatal(err)
	}
	i, err := identity.New(cert, key, s.authority.Cert)
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// A node of a test, and whom it takes itself for.
type node struct {
	*Node
	id   string
	addr string
	who  *identity.Holder
}

func (s *swarm) node(role string, o Options) *node {
	s.t.Helper()
	id := identity.NewID()
	who := identity.NewHolder(s.identity(id, role, time.Hour))
	n, err := Listen("127.0.0.1:0", who, o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := n.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return &node{n, id, n.Addr().String(), who}
}

// greet answers with who asks.
func greet(w http.ResponseWriter, r *http.Request) {
	if p, ok := identity.PeerOf(*r.TLS); ok {
		fmt.Fprintf(w, "%s %s %s", r.Proto, p.Role, p.NodeID)
		return
	}
	n, err := io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "%s stranger %d %v", r.Proto, n, err)
}

func get(ctx context.Context, c *http.Client, addr string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/", nil)
	if err != nil {
		return "", err
	}
	answer, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

func TestRequestsSayWhoAsks(t *testing.T) {
	s := newSwarm(t)
	manager, worker := s.node(wire.RoleManager, Options{}), s.node(wire.RoleWorker, Options{})
	manager.Serve(http.HandlerFunc(greet))
	worker.Serve(http.HandlerFunc(greet))
	digest, err := s.authority.Digest()
	if err != nil {
		t.Fatal(err)
	}
	joining := JoinClient(digest)
	defer joining.CloseIdleConnections()
	toWorker, toOther := manager.NodeClient(worker.id, worker.addr), manager.NodeClient(identity.NewID(), worker.addr)
	defer toWorker.CloseIdleConnections()
	for _, c := range []struct {
		name, addr string
		client     *http.Client
		want, err  string
	}{
		{"worker to manager", manager.addr, worker.Client(), "HTTP/2.0 worker " + worker.id, ""},
		{"manager to itself", manager.addr, manager.Client(), "HTTP/2.0 manager " + manager.id, ""},
		{"manager to worker", "whatever.invalid", toWorker, "HTTP/2.0 manager " + manager.id, ""},
		{"joining", manager.addr, joining, "HTTP/2.0 stranger 0 <nil>", ""},
		{"worker where a manager was expected", worker.addr, worker.Client(), "", "certificate is valid for"},
		{"another worker than was expected", "whatever.invalid", toOther, "", "certificate is valid for"},
		{"joining at a worker", worker.addr, joining, "", "not swarm-manager"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := get(t.Context(), c.client, c.addr)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v, want %q, %q", got, err, c.want, c.err)
			}
		})
	}
	t.Run("no plain text", func(t *testing.T) {
		for _, client := range []*http.Client{worker.Client(), toWorker, joining} {
			answer, err := client.Post("http://"+manager.addr, "", strings.NewReader("secret"))
			if err == nil {
				answer.Body.Close()
			}
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestStrangers(t *testing.T) {
	s, other := newSwarm(t), newSwarm(t)
	manager, elsewhere := s.node(wire.RoleManager, Options{MaxBody: 1000}), other.node(wire.RoleManager, Options{})
	manager.Serve(http.HandlerFunc(greet))
	elsewhere.Serve(http.HandlerFunc(greet))
	digest, _ := s.authority.Digest()

	t.Run("another swarm is told nothing", func(t *testing.T) {
		joining := JoinClient(digest)
		if _, err := get(t.Context(), joining, elsewhere.addr); !errors.Is(err, identity.ErrOtherRoot) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a node of another swarm", func(t *testing.T) {
		if _, err := get(t.Context(), elsewhere.Client(), manager.addr); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a node of another swarm, that does not mind", func(t *testing.T) {
		config, err := identity.ClientConfig(elsewhere.who, identity.AnyManager, HTTP)
		if err != nil {
			t.Fatal(err)
		}
		config.InsecureSkipVerify, config.VerifyConnection = true, nil
		refused(t, manager.addr, config)
	})
	t.Run("a certificate that has expired", func(t *testing.T) {
		worker := s.node(wire.RoleWorker, Options{})
		worker.who.Set(s.identity(worker.id, wire.RoleWorker, time.Nanosecond))
		if got, err := get(t.Context(), worker.Client(), manager.addr); err == nil {
			t.Errorf("got %q", got)
		}
	})
	t.Run("no certificate for raft and tunnels", func(t *testing.T) {
		manager.Raft()
		manager.Tunnels(func(context.Context, net.Conn, identity.Peer) { t.Error("a tunnel of nobody") })
		for _, protocol := range []string{Raft, Tunnel} {
			refused(t, manager.addr, identity.JoinConfig(digest, protocol))
		}
	})
	t.Run("a protocol that nobody speaks", func(t *testing.T) {
		for _, protocols := range [][]string{nil, {"http/1.1"}, {"sampan-raft/2"}} {
			config := identity.JoinConfig(digest, HTTP)
			config.NextProtos, config.VerifyConnection = protocols, nil
			refused(t, manager.addr, config)
		}
	})
	t.Run("a body that is larger than it may be", func(t *testing.T) {
		joining := JoinClient(digest)
		defer joining.CloseIdleConnections()
		for size, want := range map[int]string{1000: "HTTP/2.0 stranger 1000 <nil>", 1001: "HTTP/2.0 stranger 1000 http: request body too large"} {
			answer, err := joining.Post("https://"+manager.addr, "", strings.NewReader(strings.Repeat("x", size)))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if string(body) != want {
				t.Errorf("%d: got %q, want %q", size, body, want)
			}
		}
	})
}

// refused sees that the other end refuses a connection with the configuration in the handshake.
func refused(t *testing.T, addr string, config *tls.Config) {
	t.Helper()
	if err := try(t, addr, config); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		t.Errorf("%v: got %v, want an alert", config.NextProtos, err)
	}
}

// try makes a connection and reads from it.
func try(t *testing.T, addr string, config *tls.Config) error {
	t.Helper()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(t.Context()); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

// The session of a node: a request whose body goes on while lines of the answer arrive.
func TestStreamsBothWays(t *testing.T) {
	s := newSwarm(t)
	manager, worker := s.node(wire.RoleManager, Options{}), s.node(wire.RoleWorker, Options{})
	ended := make(chan error, 1)
	manager.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w)
		_ = flush.Flush()
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				ended <- err
				return
			}
			fmt.Fprintf(w, "%s again", strings.TrimSpace(line))
			fmt.Fprintln(w)
			_ = flush.Flush()
		}
	}))
	body, input := io.Pipe()
	answer, err := worker.Client().Post("https://"+manager.addr+"/v1/session", "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	for i := range 3 { // each is written after the answer to the one before
		fmt.Fprintf(input, "%d\n", i)
		if got, err := lines.ReadString('\n'); got != fmt.Sprintf("%d again\n", i) || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	_ = input.Close()
	if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
		t.Errorf("after the end: %q, %v", rest, err)
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("the body ended with %v", err)
	}
}

// A handler that reads nothing does not hold up the session beside it, on the same connection.
func TestAStreamThatIsNotReadHoldsUpNoOther(t *testing.T) {
	s := newSwarm(t)
	manager, worker := s.node(wire.RoleManager, Options{}), s.node(wire.RoleWorker, Options{})
	release, connections := make(chan struct{}), sync.Map{}
	manager.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections.Store(r.RemoteAddr, true)
		if r.URL.Path == "/stuck" {
			_ = http.NewResponseController(w).Flush()
			<-release
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}))
	client := worker.Client()
	for range 8 {
		body, input := io.Pipe()
		go func() { _, _ = io.Copy(input, zeros{}) }() // until the body is closed
		answer, err := client.Post("https://"+manager.addr+"/stuck", "", body)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		defer func() { _ = body.Close() }()
	}
	defer close(release)
	answer, err := client.Post("https://"+manager.addr+"/", "", io.LimitReader(zeros{}, 8<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got, err := io.ReadAll(answer.Body); string(got) != "8388608" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	count := 0
	connections.Range(func(any, any) bool { count++; return true })
	if count != 1 {
		t.Errorf("%d connections, so this shows nothing", count)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Who has become a manager is one with the next request, and what it has open goes on.
func TestANewCertificateWhileConnectionsLive(t *testing.T) {
	s := newSwarm(t)
	manager, worker := s.node(wire.RoleManager, Options{}), s.node(wire.RoleWorker, Options{})
	manager.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_ = http.NewResponseController(w).Flush()
			_, _ = io.Copy(w, r.Body)
			return
		}
		greet(w, r)
	}))
	body, input := io.Pipe()
	answer, err := worker.Client().Post("https://"+manager.addr, "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got, err := get(t.Context(), worker.Client(), manager.addr); got != "HTTP/2.0 worker "+worker.id || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}

	worker.who.Set(s.identity(worker.id, wire.RoleManager, time.Hour))
	manager.who.Set(s.identity(manager.id, wire.RoleManager, time.Hour))
	if got, err := get(t.Context(), worker.Client(), manager.addr); got != "HTTP/2.0 manager "+worker.id || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	fmt.Fprint(input, "still here")
	_ = input.Close()
	if got, err := io.ReadAll(answer.Body); string(got) != "still here" || err != nil {
		t.Errorf("the stream of before: %q, %v", got, err)
	}
	// Nobody is left who would use the connection of before.
	worker.who.Set(nil)
	if _, err := get(t.Context(), worker.Client(), manager.addr); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after it left the swarm: %v", err)
	}
}

func TestListenSaysWhatIsWrong(t *testing.T) {
	for _, addr := range []string{"nonsense", "127.0.0.1:-1"} {
		if _, err := Listen(addr, &identity.Holder{}, Options{}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "swarm listen address") {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
