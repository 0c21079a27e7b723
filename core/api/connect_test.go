package api

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/sampan-project/sampan/core/fault"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make("ca", 0)
	return a
}

// path is where make put a certificate's ".pem" or key's ".key".
func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// make signs a certificate with that usage; without one it is the authority itself.
func (a *authority) make(name string, usage x509.ExtKeyUsage) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage, template.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(a.path(path), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// client returns the TLS of a client that trusts the authority and shows the certificate, if any.
func (a *authority) client(shows *authority, name string) *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(a.cert)
	if name != "" {
		pair, err := tls.LoadX509KeyPair(shows.path(name+".pem"), shows.path(name+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// Only a client whose certificate the daemon's authority signed for clients is served, by TLS 1.2 at least.
func TestMutualTLS(t *testing.T) {
	s := newServer(t)
	ours, others := newAuthority(t), newAuthority(t)
	ours.make("server", x509.ExtKeyUsageServerAuth)
	ours.make("client", x509.ExtKeyUsageClientAuth)
	others.make("client", x509.ExtKeyUsageClientAuth)
	config, err := ServerTLS(ours.path("ca.pem"), ours.path("server.pem"), ours.path("server.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := Listen("tcp://127.0.0.1:0", ListenOptions{TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(listeners[0]) //nolint:errcheck // ends with the server
	address := listeners[0].Addr().String()
	ask := func(c *tls.Config, header ...string) (int, error) {
		transport := &http.Transport{TLSClientConfig: c}
		defer transport.CloseIdleConnections()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+address+"/_ping", nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	if status, err := ask(ours.client(ours, "client")); status != 200 {
		t.Errorf("with a certificate: %d, %v", status, err)
	}
	if status, err := ask(ours.client(ours, "client"), "Origin", "https://"+address); status != 200 {
		t.Errorf("from the daemon's own origin: %d, %v", status, err)
	}
	if status, err := ask(ours.client(ours, "client"), "Origin", "https://evil.example"); status != 403 {
		t.Errorf("from a page: %d, %v", status, err)
	}
	old := ours.client(ours, "client")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for name, c := range map[string]*tls.Config{
		"no certificate": ours.client(nil, ""), "a stranger's": ours.client(others, "client"), "a server's": ours.client(ours, "server"), "TLS 1.1": old,
	} {
		if status, err := ask(c); err == nil {
			t.Errorf("%s: %d", name, status)
		}
	}
	resp, err := http.Get("http://" + address + "/_ping") //nolint:noctx // it is refused at once
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(body), "HTTP request to an HTTPS server") {
		t.Errorf("plain HTTP: %d %s", resp.StatusCode, body)
	}
}

// What is missing or no certificate is told by its flag's name, and without verification there is no way in
// from elsewhere.
func TestServerTLSRefusals(t *testing.T) {
	a := newAuthority(t)
	a.make("server", x509.ExtKeyUsageServerAuth)
	ca, cert, key := a.path("ca.pem"), a.path("server.pem"), a.path("server.key")
	for _, tt := range []struct{ ca, cert, key, want string }{
		{"", cert, key, "--tlscacert is missing"}, {ca, "", key, "--tlscert is missing"}, {ca, cert, "", "--tlskey is missing"},
		{key, cert, key, "--tlscacert " + key}, {a.path("none"), cert, key, "--tlscacert"}, {ca, cert, a.path("ca.key"), "private key does not match"},
	} {
		if _, err := ServerTLS(tt.ca, tt.cert, tt.key, true); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	config, err := ServerTLS("", cert, key, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("tcp://0.0.0.0:0", ListenOptions{TLS: config, AllowPlainTCP: true}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("TLS without client certificates, for everybody: %v", err)
	}
}

func (s *server) websocket(path string) (*websocket.Conn, error) {
	s.t.Helper()
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	config, err := websocket.NewConfig("ws://localhost"+path, "http://localhost")
	if err != nil {
		s.t.Fatal(err)
	}
	return websocket.NewClient(config, conn)
}

// Over a websocket come the container's bytes without frames of ours, and the client's go to its stdin.
func TestAttachWebsocket(t *testing.T) {
	s := newServer(t)
	for _, tty := range []string{"false", "true"} {
		name := "c" + tty
		s.create(name, `{"Image":"busybox","Cmd":["echo","hello"],"Tty":`+tty+`}`)
		ws, err := s.websocket("/v1.50/containers/" + name + "/attach/ws?stream=1&stdout=1&stderr=1")
		if err != nil {
			t.Fatal(err)
		}
		s.do("POST", "/v1.50/containers/"+name+"/start", nil)
		if got, err := io.ReadAll(ws); string(got) != "hello\n" || err != nil {
			t.Errorf("tty %s: got %q, %v", tty, got, err)
		}
	}
	s.create("cat", `{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"StdinOnce":true}`)
	ws, err := s.websocket("/containers/cat/attach/ws?stream=1&stdin=1&stdout=1")
	if err != nil {
		t.Fatal(err)
	}
	s.do("POST", "/v1.50/containers/cat/start", nil)
	if _, err := io.WriteString(ws, "some input"); err != nil {
		t.Fatal(err)
	}
	if err := ws.Close(); err != nil {
		t.Fatal(err)
	}
	// The end of the connection was the end of the container's input.
	if status, body, _ := s.do("POST", "/v1.50/containers/cat/wait", nil); status != 200 {
		t.Error(status, body)
	}
}

// The client's leaving ends the attachment, and the container goes on.
func TestWebsocketLeaves(t *testing.T) {
	s := newServer(t)
	s.create("c", `{"Image":"busybox","Cmd":["sleep"],"OpenStdin":true}`)
	ws, err := s.websocket("/v1.50/containers/c/attach/ws?stream=1&stdin=1&stdout=1")
	if err != nil {
		t.Fatal(err)
	}
	s.containers.mu.Lock()
	c, err := s.containers.find("c")
	if err != nil {
		t.Fatal(err)
	}
	stream := c.attached[0]
	s.containers.mu.Unlock()
	if err := ws.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.peer.Read(make([]byte, 1)); err == nil {
		t.Error("the stream goes on")
	}
}

func TestAttachWebsocketRefusals(t *testing.T) {
	s := newServer(t)
	s.create("c", `{"Image":"busybox","Cmd":["cat"]}`)
	ws := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version", "13"}
	for _, tt := range []struct {
		path, want string
		status     int
		header     []string
	}{
		{"/containers/none/attach/ws?stream=1", "No such container: none", 404, ws},
		{"/containers/c/attach/ws?stream=1", "expected the upgrade to a websocket", 400, nil},
		{"/containers/c/attach/ws?detachKeys=ctrl-!", "Invalid detach keys", 400, ws},
	} {
		if status, body, _ := s.do("GET", tt.path, nil, tt.header...); status != tt.status || !strings.Contains(message(body), tt.want) {
			t.Errorf("%s: %d %s", tt.path, status, body)
		}
	}
}

// A TCP listener has room for so many connections; the place of one that has gone is another's, and the
// listener ends also when it is full.
func TestLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 1)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	for range 2 {
		client, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
	}
	first := <-accepted
	if _, ok := first.(interface{ CloseWrite() error }); !ok {
		t.Error("the connection has lost its halves")
	}
	select {
	case <-accepted:
		t.Error("a second connection came before the first had gone")
	default:
	}
	first.Close()
	first.Close() // gives one place back, not two
	second := <-accepted
	l.Close()
	if _, more := <-accepted; more {
		t.Error("accepted after the end")
	}
	second.Close()
}

// No page may read an answer, and an unknown endpoint is unknown in every version and method.
func TestEdges(t *testing.T) {
	s := newServer(t)
	for _, tt := range []struct{ method, path string }{
		{"GET", "/v9.99/nothing"}, {"GET", "/v1.23/nothing"}, {"GET", "/nothing"}, {"POST", "/_ping"}, {"DELETE", "/v1.50/version"}, {"PATCH", "/containers/json"},
		{"OPTIONS", "/version"}, {"HEAD", "/version"}, {"GET", "/"}, {"GET", "/v1.50/../version"},
	} {
		status, body, h := s.do(tt.method, tt.path, nil, "Origin", "http://x")
		if status != 404 || tt.method != "HEAD" && body != "{\"message\":\"page not found\"}\n" {
			t.Errorf("%s %s: %d %q", tt.method, tt.path, status, body)
		}
		for name := range h {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s %s: header %s", tt.method, tt.path, name)
			}
		}
	}
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /_ping HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 2*maxHeader))
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge { //nolint:bodyclose // the connection is closed
		t.Errorf("a header without an end: %v", err)
	}
}
