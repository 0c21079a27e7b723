package cluster

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestListenAddr(t *testing.T) {
	for _, c := range []struct{ given, want, err string }{
		{"", "", `invalid ListenAddr "": invalid empty address`},
		{"0.0.0.0:7777", "0.0.0.0:7777", ""},
		{"127.0.0.1", "127.0.0.1:2377", ""},
		{":9999", "0.0.0.0:9999", ""},
		{"lo:9999", "127.0.0.1:9999", ""},
		{"[::1]:9999", "[::1]:9999", ""},
		{"[::1]", "[::1]:2377", ""},
		{"nosuch0:9999", "", "must be an IP address or network interface"},
		{"127.0.0.1:0", "", "HOST:PORT"},
		{"127.0.0.1:99999", "", "HOST:PORT"},
		{"127.0.0.1:http", "", "HOST:PORT"},
	} {
		got, err := listenAddr(c.given)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("listenAddr(%q) = %q, %v; want %q, %s", c.given, got, err, c.want, c.err)
		}
	}
}

func TestAdvertiseAddr(t *testing.T) {
	all := func(netip.Addr) bool { return true } // every address is of an engine's network
	for _, c := range []struct{ given, listen, want, err string }{
		{"192.0.2.1", "0.0.0.0:2377", "192.0.2.1:2377", ""},
		{"192.0.2.1:1", "0.0.0.0:2377", "192.0.2.1:1", ""},
		{"lo", "0.0.0.0:2377", "127.0.0.1:2377", ""},
		{"2001:db8::1", "0.0.0.0:2377", "[2001:db8::1]:2377", ""},
		{"0.0.0.0", "0.0.0.0:2377", "", "must be a non-zero IP address"},
		{"example.org", "0.0.0.0:2377", "", "must be a non-zero IP address"},
		{"", "192.0.2.7:2377", "192.0.2.7:2377", ""},
		{"", "0.0.0.0:2377", "", "--advertise-addr"},
	} {
		got, err := advertiseAddr(c.given, c.listen, all)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("advertiseAddr(%q, %q) = %q, %v; want %q, %s", c.given, c.listen, got, err, c.want, c.err)
		}
	}
}

func TestCheckPeerAddr(t *testing.T) {
	for addr, ok := range map[string]bool{
		"192.0.2.1:2377": true, "[2001:db8::1]:2377": true, "example.org:2377": false, "192.0.2.1": false, "": false, "192.0.2.1:": false,
		"192.0.2.1:x": false, "192.0.2.1:123456": false, "192.0.2.1:65536": false, "192.0.2.1:0": false, "0.0.0.0:2377": false, "[::]:2377": false, "192.0.2.1:2377/../../x": false,
	} {
		if err := checkPeerAddr(addr); (err == nil) != ok {
			t.Errorf("checkPeerAddr(%q): %v", addr, err)
		}
	}
}

// What dockerd refuses of a request to join before it asks anybody is refused in its words.
func TestCheckJoin(t *testing.T) {
	m := newMachine(t)
	for want, r := range map[string]wire.SwarmJoinRequest{
		`invalid ListenAddr "": invalid empty address`: {},
		"at least 1 RemoteAddr is required to join":    {ListenAddr: m.addr},
		`invalid remoteAddr "": invalid empty address`: {ListenAddr: m.addr, RemoteAddrs: []string{"192.0.2.1", ""}},
		"invalid join token":                           {ListenAddr: m.addr, RemoteAddrs: []string{"192.0.2.1"}},
	} {
		if err := m.JoinSwarm(t.Context(), r); !fault.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// Nothing is taken and not done: what is not there is refused by its name.
func TestWhatASwarmCannotHave(t *testing.T) {
	one := uint64(1)
	for field, change := range map[string]func(*wire.SwarmInitRequest){
		"DefaultAddrPool":           func(r *wire.SwarmInitRequest) { r.DefaultAddrPool = []string{"10.1.0.0/16"} },
		"SubnetSize":                func(r *wire.SwarmInitRequest) { r.SubnetSize = 26 },
		"DataPathPort":              func(r *wire.SwarmInitRequest) { r.DataPathPort = 7777 },
		"DataPathAddr":              func(r *wire.SwarmInitRequest) { r.DataPathAddr = "192.0.2.1" },
		"AutoLockManagers":          func(r *wire.SwarmInitRequest) { r.AutoLockManagers = true },
		"Availability":              func(r *wire.SwarmInitRequest) { r.Availability = "asleep" },
		"default":                   func(r *wire.SwarmInitRequest) { r.Spec.Name = "mine" },
		"CAConfig.ExternalCAs":      func(r *wire.SwarmInitRequest) { r.Spec.CAConfig.ExternalCAs = []any{1} },
		"CAConfig.SigningCACert":    func(r *wire.SwarmInitRequest) { r.Spec.CAConfig.SigningCACert = "x" },
		"CAConfig.ForceRotate":      func(r *wire.SwarmInitRequest) { r.Spec.CAConfig.ForceRotate = 1 },
		"certificate expiry":        func(r *wire.SwarmInitRequest) { r.Spec.CAConfig.NodeCertExpiry = 1 },
		"HeartbeatPeriod":           func(r *wire.SwarmInitRequest) { r.Spec.Dispatcher.HeartbeatPeriod = -1 },
		"Raft.KeepOldSnapshots":     func(r *wire.SwarmInitRequest) { r.Spec.Raft.KeepOldSnapshots = &one },
		"Raft.ElectionTick":         func(r *wire.SwarmInitRequest) { r.Spec.Raft.ElectionTick = 10 },
		"TaskHistoryRetentionLimit": func(r *wire.SwarmInitRequest) { n := int64(-1); r.Spec.Orchestration.TaskHistoryRetentionLimit = &n },
	} {
		var r wire.SwarmInitRequest
		if err := checkInit(&r); err != nil {
			t.Fatal(err)
		}
		r = wire.SwarmInitRequest{}
		change(&r)
		if err := checkInit(&r); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
