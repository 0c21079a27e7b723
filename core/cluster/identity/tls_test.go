package identity

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const protocol = "test/1"

func TestHandshakes(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	manager, worker := newIdentity(t, a, wire.RoleManager, time.Hour), newIdentity(t, a, wire.RoleWorker, time.Hour)
	stranger, old := newIdentity(t, b, wire.RoleManager, time.Hour), newIdentity(t, a, wire.RoleManager, time.Nanosecond)
	// One authority that a user brought to two swarms.
	elsewhere := newIdentityOf(t, a, wire.RoleManager, NewID(), time.Hour)
	for name, c := range map[string]struct {
		server, client *Identity
		expect         string // whom the client expects
		want           string // the error of either side, "" for none
	}{
		"any manager":                {server: manager, client: worker, expect: AnyManager},
		"this manager":               {server: manager, client: worker, expect: manager.NodeID},
		"this worker":                {server: worker, client: manager, expect: worker.NodeID},
		"a worker for a manager":     {server: worker, client: manager, expect: AnyManager, want: "certificate is valid for"},
		"another node":               {server: worker, client: manager, expect: NewID(), want: "certificate is valid for"},
		"a role as the name":         {server: worker, client: manager, expect: "swarm-worker", want: "expected swarm-worker"},
		"server of another root":     {server: stranger, client: worker, expect: AnyManager, want: "signed by unknown authority"},
		"client of another root":     {server: manager, client: stranger, expect: AnyManager, want: "signed by unknown authority"},
		"server of another swarm":    {server: elsewhere, client: worker, expect: AnyManager, want: "is of swarm"},
		"client that has expired":    {server: manager, client: old, expect: AnyManager, want: "expired"},
		"server that has expired":    {server: old, client: manager, expect: AnyManager, want: "expired"},
		"server that left its swarm": {client: manager, expect: AnyManager, want: "no certificate of a swarm"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := ClientConfig(NewHolder(c.client), c.expect, protocol)
			if err != nil {
				t.Fatal(err)
			}
			var admitted *Peer
			atServer, atClient, err := shake(t, serverOf(c.server, &admitted), client)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := PeerOf(atServer); !ok || p != c.client.Peer() || admitted == nil || *admitted != p {
				t.Errorf("the server sees %v, admitted %v, want %v", p, admitted, c.client.Peer())
			}
			if p, ok := PeerOf(atClient); !ok || p != c.server.Peer() {
				t.Errorf("the client sees %v, want %v", p, c.server.Peer())
			}
		})
	}
}

func TestJoining(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	digest, err := a.Digest()
	if err != nil {
		t.Fatal(err)
	}
	manager := newIdentity(t, a, wire.RoleManager, time.Hour)
	// Who has no key of the swarm can still show its root, behind a certificate of its own.
	false1 := newIdentity(t, b, wire.RoleManager, time.Hour)
	false1.pair.Certificate = append(false1.pair.Certificate, parseOne(t, a.Cert).Raw)
	for name, c := range map[string]struct {
		server *Identity
		want   string
	}{
		"a manager":                {manager, ""},
		"a worker":                 {newIdentity(t, a, wire.RoleWorker, time.Hour), "not swarm-manager"},
		"another swarm":            {newIdentity(t, b, wire.RoleManager, time.Hour), "remote CA does not match fingerprint. Expected: "},
		"expired":                  {newIdentity(t, a, wire.RoleManager, time.Nanosecond), "expired"},
		"a root that is not its":   {false1, "signed by unknown authority"},
		"no certificate of a node": {nil, "remote error"},
	} {
		t.Run(name, func(t *testing.T) {
			var admitted *Peer
			atServer, atClient, err := shake(t, serverOf(c.server, &admitted), JoinConfig(digest, protocol))
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				if name == "another swarm" && !errors.Is(err, ErrOtherRoot) {
					t.Errorf("%v is not ErrOtherRoot", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := PeerOf(atServer); ok || admitted != nil {
				t.Errorf("the server takes it for %v, admitted %v", p, admitted)
			}
			if p, ok := PeerOf(atClient); ok {
				t.Errorf("the client, which knows a root by its digest, says %v", p)
			}
		})
	}
}

// A certificate that is shown is verified though none is needed.
func TestNoProtocolNoConnection(t *testing.T) {
	a := newAuthority(t)
	manager, worker := newIdentity(t, a, wire.RoleManager, time.Hour), newIdentity(t, a, wire.RoleWorker, time.Hour)
	for name, offered := range map[string][]string{"none": nil, "another": {"other/1"}, "http/1.1": {"http/1.1"}} {
		t.Run(name, func(t *testing.T) {
			client, err := ClientConfig(NewHolder(worker), AnyManager, protocol)
			if err != nil {
				t.Fatal(err)
			}
			client.NextProtos, client.VerifyConnection = offered, nil
			if _, _, err := shake(t, serverOf(manager, new(*Peer)), client); err == nil {
				t.Error("it was let in")
			}
		})
	}
}

func TestNobodyIsNobody(t *testing.T) {
	if _, err := ClientConfig(&Holder{}, AnyManager, protocol); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	if p, ok := PeerOf(tls.ConnectionState{}); ok {
		t.Errorf("got %v", p)
	}
}

// A subject that the swarm would not have written is not taken apart by guessing.
func TestSubjects(t *testing.T) {
	a := newAuthority(t)
	leaf := parseOne(t, newIdentity(t, a, wire.RoleWorker, time.Hour).Cert)
	if _, err := peerOf(leaf); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(){
		"two roles": func() { leaf.Subject.OrganizationalUnit = []string{"swarm-worker", "swarm-manager"} },
		"no role":   func() { leaf.Subject.OrganizationalUnit = nil },
		"no prefix": func() { leaf.Subject.OrganizationalUnit = []string{"manager"} },
		"two swarms": func() {
			leaf.Subject.Organization = append(leaf.Subject.Organization, NewID())
		},
		"no node": func() { leaf.Subject.CommonName = strings.Repeat("x", 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			kept := leaf.Subject
			defer func() { leaf.Subject = kept }()
			change()
			if p, err := peerOf(leaf); err == nil || len(err.Error()) > 200 {
				t.Errorf("got %v, %v", p, err)
			}
		})
	}
}

// A certificate that a swarm's node shows is exchanged for the connections that come after.
func TestTheNextConnectionShowsTheNewCertificate(t *testing.T) {
	a := newAuthority(t)
	server, before, after := newIdentity(t, a, wire.RoleManager, time.Hour), newIdentity(t, a, wire.RoleWorker, time.Hour), newIdentity(t, a, wire.RoleManager, time.Hour)
	holder := NewHolder(before)
	for _, want := range []*Identity{before, after} {
		holder.Set(want)
		client, err := ClientConfig(holder, AnyManager, protocol)
		if err != nil {
			t.Fatal(err)
		}
		state, _, err := shake(t, serverOf(server, new(*Peer)), client)
		if err != nil {
			t.Fatal(err)
		}
		if p, _ := PeerOf(state); p != want.Peer() {
			t.Errorf("the server sees %v, want %v", p, want.Peer())
		}
	}
}

func TestRefusedByAdmit(t *testing.T) {
	a := newAuthority(t)
	server := ServerConfig(NewHolder(newIdentity(t, a, wire.RoleManager, time.Hour)), []string{protocol}, func(p *Peer, _ string) error {
		return errors.New("removed")
	})
	client, err := ClientConfig(NewHolder(newIdentity(t, a, wire.RoleWorker, time.Hour)), AnyManager, protocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := shake(t, server, client); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("got %v", err)
	}
}

func TestTheRootIsShownOnce(t *testing.T) {
	i := newIdentity(t, newAuthority(t), wire.RoleManager, time.Hour)
	if n := len(i.pair.Certificate); n != 2 || bytes.Equal(i.pair.Certificate[0], i.pair.Certificate[1]) {
		t.Errorf("%d certificates are shown, want the node's and the root", n)
	}
}

func serverOf(i *Identity, admitted **Peer) *tls.Config {
	return ServerConfig(NewHolder(i), []string{protocol}, func(p *Peer, _ string) error {
		*admitted = p
		return nil
	})
}

// shake makes a connection, and a byte of the server, which the client gets only if it was let in.
func shake(t *testing.T, server, client *tls.Config) (atServer, atClient tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer raw.Close()
		c := tls.Server(raw, server)
		if err = c.HandshakeContext(t.Context()); err == nil {
			atServer = c.ConnectionState()
			_, err = c.Write([]byte("x"))
		}
		served <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, client)
	err = c.HandshakeContext(t.Context())
	if err == nil {
		atClient = c.ConnectionState()
		_, err = c.Read(make([]byte, 1))
	}
	raw.Close()
	return atServer, atClient, errors.Join(err, <-served)
}
