package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if !base36(id, 25) || seen[id] {
			t.Fatalf("NewID() = %q: expected 25 new digits of base 36", id)
		}
		seen[id] = true
	}
}

func TestSignNamesTheNode(t *testing.T) {
	a := newAuthority(t)
	node, swarm := NewID(), NewID()
	for _, c := range []struct {
		role  string
		names []string
	}{
		{wire.RoleWorker, []string{"swarm-worker", node}},
		{wire.RoleManager, []string{"swarm-manager", node, "swarm-ca"}},
	} {
		t.Run(c.role, func(t *testing.T) {
			_, csr, err := NewRequest()
			if err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			cert, err := a.Sign(csr, node, c.role, swarm, 2*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			leaf := parseOne(t, cert)
			if diff := cmp.Diff(c.names, leaf.DNSNames); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			if got, want := leaf.Subject.String(), "CN="+node+",OU=swarm-"+c.role+",O="+swarm; got != want {
				t.Errorf("subject %s, want %s", got, want)
			}
			if got := leaf.NotAfter.Sub(before).Round(time.Minute); got != 2*time.Hour {
				t.Errorf("good for %s, want 2h", got)
			}
			// The root of the test is of this moment too, and nothing is good before its root.
			if root := parseOne(t, a.Cert); leaf.NotBefore.Before(root.NotBefore) || before.Sub(leaf.NotBefore) < 59*time.Minute {
				t.Errorf("good from %s, root from %s, made at %s", leaf.NotBefore, root.NotBefore, before)
			}
			if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 2 {
				t.Errorf("usage: CA %v, %v, %v", leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage)
			}
		})
	}
}

func TestSignTakesNothingButTheKeyOfARequest(t *testing.T) {
	a := newAuthority(t)
	_, csr, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(csr)
	block, _ := pem.Decode(broken)
	block.Bytes[len(block.Bytes)-1] ^= 1
	node, swarm := NewID(), NewID()
	for name, c := range map[string]struct {
		csr               []byte
		node, role, swarm string
		expiry            time.Duration
		want              string
	}{
		"signature":   {csr: pem.EncodeToMemory(block), node: node, role: "worker", swarm: swarm, expiry: time.Hour, want: "certificate request: "},
		"nothing":     {csr: nil, node: node, role: "worker", swarm: swarm, expiry: time.Hour, want: "expected one PEM block"},
		"a key":       {csr: a.Key, node: node, role: "worker", swarm: swarm, expiry: time.Hour, want: "expected one PEM block"},
		"two":         {csr: append(bytes.Clone(csr), csr...), node: node, role: "worker", swarm: swarm, expiry: time.Hour, want: "expected one PEM block"},
		"large":       {csr: bytes.Repeat([]byte("a"), maxRequest+1), node: node, role: "worker", swarm: swarm, expiry: time.Hour, want: "larger than"},
		"role":        {csr: csr, node: node, role: "swarm-manager", swarm: swarm, expiry: time.Hour, want: `node role "swarm-manager": expected worker or manager`},
		"node":        {csr: csr, node: "x", role: "worker", swarm: swarm, expiry: time.Hour, want: `node ID "x"`},
		"name of all": {csr: csr, node: "swarm-manager", role: "worker", swarm: swarm, expiry: time.Hour, want: `node ID "swarm-manager"`},
		"swarm":       {csr: csr, node: node, role: "worker", swarm: strings.ToUpper(swarm) + "A", expiry: time.Hour, want: "swarm ID"},
		"expiry":      {csr: csr, node: node, role: "worker", swarm: swarm, expiry: -time.Hour, want: `certificate expiry "-1h0m0s"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.Sign(c.csr, c.node, c.role, c.swarm, c.expiry)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestAnAuthorityThatAUserBrings(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	i := newIdentity(t, a, wire.RoleManager, time.Hour)
	for name, c := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"good":             {append([]byte("\n"), a.Cert...), a.Key, ""},
		"key of another":   {a.Cert, b.Key, "root key: not that of the root certificate"},
		"no key":           {a.Cert, nil, "root key: no PEM block"},
		"two roots":        {append(bytes.Clone(a.Cert), b.Cert...), a.Key, "expected one, not 2"},
		"a node":           {i.Cert, i.Key, "may not sign certificates"},
		"no certificate":   {[]byte("x"), a.Key, "expected PEM blocks"},
		"something behind": {append(bytes.Clone(a.Cert), 'x'), a.Key, "expected PEM blocks"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseAuthority(c.cert, c.key)
			if c.want == "" {
				if err != nil || !bytes.Equal(got.Cert, a.Cert) {
					t.Errorf("got %v, %s", err, got.Cert)
				}
				return
			}
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certificates")
	if _, err := Load(dir); !fault.Is(err, fault.NotFound) {
		t.Fatalf("without a directory: %v", err)
	}
	a := newAuthority(t)
	for _, role := range []string{wire.RoleWorker, wire.RoleManager} { // the second takes the place of the first
		want := newIdentity(t, a, role, time.Hour)
		if err := want.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Peer(), got.Peer()); diff != "" || got.Role != role {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !bytes.Equal(want.Cert, got.Cert) || !bytes.Equal(want.Key, got.Key) || !bytes.Equal(want.Roots, got.Roots) || !got.NotAfter.Equal(want.NotAfter) {
			t.Error("certificate, key, roots or their time are not those that were saved")
		}
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, File): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %o", path, info.Mode().Perm(), err, want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// What a kill in the middle of Save leaves does not count, and the next Save takes its place.
func TestACutOffSaveDoesNotCount(t *testing.T) {
	dir, a := t.TempDir(), newAuthority(t)
	first, second := newIdentity(t, a, wire.RoleWorker, time.Hour), newIdentity(t, a, wire.RoleWorker, time.Hour)
	if err := first.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, File+".new"), second.Cert[:100], 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(dir); err != nil || got.NodeID != first.NodeID {
		t.Fatalf("got %v, %v", got, err)
	}
	if err := second.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil || got.NodeID != second.NodeID {
		t.Fatalf("got %v, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(dir, File)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: what was cut off gave its mode", info.Mode(), err)
	}
}

func TestLoadRefusesWhatIsNotWhole(t *testing.T) {
	a := newAuthority(t)
	i, other := newIdentity(t, a, wire.RoleWorker, time.Hour), newIdentity(t, newAuthority(t), wire.RoleWorker, time.Hour)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, data := range map[string][]byte{
		"nothing":            {},
		"no key":             join(i.Cert, i.Roots),
		"two keys":           join(i.Cert, i.Key, i.Key, i.Roots),
		"key of another":     join(i.Cert, other.Key, i.Roots),
		"root of another":    join(i.Cert, i.Key, other.Roots),
		"no roots":           join(i.Cert, i.Key),
		"root as node":       join(a.Cert, a.Key, a.Cert),
		"cut off":            join(i.Cert, i.Key, i.Roots[:len(i.Roots)-30]),
		"larger than it may": bytes.Repeat([]byte("x"), maxFile+1),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, File), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), filepath.Join(dir, File)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAnExpiredIdentityIsStillKnown(t *testing.T) {
	i := newIdentity(t, newAuthority(t), wire.RoleWorker, time.Nanosecond)
	if !i.Expired(time.Now().Add(time.Second)) || i.Expired(time.Now().Add(-time.Minute)) {
		t.Errorf("expires at %s", i.NotAfter)
	}
	dir := t.TempDir()
	if err := i.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(dir); err != nil || got.NodeID != i.NodeID {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRenewAt(t *testing.T) {
	a := newAuthority(t)
	moments := map[time.Duration]bool{}
	for range 32 {
		i := newIdentity(t, a, wire.RoleWorker, 100*time.Hour)
		if age := time.Since(i.Peer().Issued); age < 0 || age > time.Minute {
			t.Errorf("issued %s ago", age)
		}
		in := time.Until(i.RenewAt())
		if in < 50*time.Hour-time.Minute || in > 80*time.Hour+time.Minute {
			t.Errorf("in %s of 100h, want between 50h and 80h", in)
		}
		moments[in.Round(time.Hour)] = true
	}
	if len(moments) < 3 {
		t.Errorf("all nodes come at once: %v", moments)
	}
}

func TestTLSInfo(t *testing.T) {
	a := newAuthority(t)
	root := parseOne(t, a.Cert)
	want := wire.SwarmTLSInfo{TrustRoot: string(a.Cert), CertIssuerSubject: root.RawSubject, CertIssuerPublicKey: root.RawSubjectPublicKeyInfo}
	got, err := TLSInfo(a.Cert)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := TLSInfo([]byte("x")); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func newAuthority(t *testing.T) Authority {
	t.Helper()
	a, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newIdentity(t *testing.T, a Authority, role string, expiry time.Duration) *Identity {
	t.Helper()
	return newIdentityOf(t, a, role, swarmOf(a), expiry)
}

// swarmOf makes a name of a swarm of its authority, so that those of one authority are of one swarm.
func swarmOf(a Authority) string { return digestOf(a.Cert)[:idLength] }

func newIdentityOf(t *testing.T, a Authority, role, swarm string, expiry time.Duration) *Identity {
	t.Helper()
	key, csr, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(csr, NewID(), role, swarm, expiry)
	if err != nil {
		t.Fatal(err)
	}
	i, err := New(cert, key, a.Cert)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func parseOne(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	certs, err := parseCertificates(data)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}
