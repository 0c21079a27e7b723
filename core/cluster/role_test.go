package cluster

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/cluster/transport"
	"github.com/sampan-project/sampan/core/wire"
)

// running is the machine's part.
func (m *machine) running() *member {
	m.t.Helper()
	part, _, err := m.part()
	if part == nil {
		m.t.Fatal("it has no part in a swarm: ", err)
	}
	return part
}

// certificates is where the machine keeps who it is.
func (m *machine) certificates() string { return filepath.Join(m.root, "swarm", certificatesDir) }

// setRole has the swarm make a node a worker or a manager.
func (m *machine) setRole(id, role string) {
	m.t.Helper()
	eventually(m.t, "the swarm takes that a node becomes a "+role, func() bool {
		n := m.node(id)
		n.Spec.Role = role
		return m.UpdateNode(m.t.Context(), id, n.Version.Index, n.Spec) == nil
	})
}

// stranger is a node that has a certificate and nothing else.
func stranger(t *testing.T, who *identity.Identity) *transport.Node {
	t.Helper()
	n, err := transport.Listen("127.0.0.1:0", identity.NewHolder(who), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// status is that of the answer to a request of one node to another.
func status(t *testing.T, from *transport.Node, to *machine, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+to.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := from.NodeClient(to.running().who.Current().NodeID, to.addr)
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// letsIn reports whether a manager takes messages of the log over the connection: it would wait for one.
func letsIn(t *testing.T, from *transport.Node, to *machine) bool {
	t.Helper()
	c, err := from.Raft().Dial(raft.ServerAddress(to.addr), 10*time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err = c.Read(make([]byte, 1))
	return os.IsTimeout(err)
}

// The certificate of a manager that is a worker now is good for nothing that managers alone may do.
func TestADemotedManagersCertificate(t *testing.T) {
	first, second, third, worker := newMachine(t), newMachine(t), newMachine(t), newMachine(t)
	first.init()
	for m, token := range map[*machine]func(wire.SwarmTokens) string{second: asManager, third: asManager, worker: asWorker} {
		if err := m.joinTo(first, token); err != nil {
			t.Fatal(err)
		}
	}
	old, err := identity.Load(second.certificates())
	if err != nil {
		t.Fatal(err)
	}
	former := stranger(t, old)
	logs := "/v1/tasks/" + identity.NewID() + "/logs?options=%7B%7D"
	eventually(t, "the worker knows the managers", func() bool { return len(worker.running().state().Managers) == 3 })
	for m, path := range map[*machine]string{first: forwardPrefix + "/v1.50/nodes", third: logs, worker: logs} {
		if code, text := status(t, former, m, path); code == http.StatusForbidden {
			t.Errorf("%s for a manager: %d %s", path, code, text)
		}
	}
	if !letsIn(t, former, first) || !letsIn(t, former, third) {
		t.Fatal("a manager has no part in the log")
	}
	open, err := former.Raft().Dial(raft.ServerAddress(third.addr), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := open.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}

	first.setRole(old.NodeID, wire.RoleWorker)
	eventually(t, "it is a worker", func() bool { return second.Status() == "active/"+wire.RoleWorker })
	eventually(t, "all are told", func() bool {
		return !slices.ContainsFunc([]*machine{first, third, worker}, func(m *machine) bool {
			return slices.ContainsFunc(m.running().state().Managers, func(p wire.SwarmPeer) bool { return p.NodeID == old.NodeID })
		})
	})
	for m, path := range map[*machine]string{first: forwardPrefix + "/v1.50/nodes", third: logs, worker: logs, second: logs} {
		if code, text := status(t, former, m, path); code != http.StatusForbidden {
			t.Errorf("%s for a former manager: %d %s", path, code, text)
		}
	}
	eventually(t, "it has no part in the log", func() bool { return !letsIn(t, former, first) && !letsIn(t, former, third) })
	if _, err := open.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("its open connection: %v", err)
	}
}

// Who may speak of the log is what this manager knows, and its knowledge may be old.
func TestAllowed(t *testing.T) {
	m := newMachine(t)
	m.init()
	p := m.running()
	s, err := p.managing()
	if err != nil {
		t.Fatal(err)
	}
	manager, worker, gone, told := identity.NewID(), identity.NewID(), identity.NewID(), identity.NewID()
	err = s.update(t.Context(), func(w store.Writer) error {
		for _, id := range []string{manager, worker, gone, told} {
			w.PutNode(newNode(id, wire.RoleWorker, wire.AvailabilityActive, "", "127.0.0.1:1"))
		}
		n := *w.Node(manager)
		n.Spec.Role = wire.RoleManager
		w.PutNode(&n)
		expel(w, gone, time.Now())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before, after := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	p.mu.Lock()
	p.local.Managers = append(slices.Clone(p.local.Managers), wire.SwarmPeer{NodeID: told, Addr: "127.0.0.1:1"})
	p.mu.Unlock()
	for _, c := range []struct {
		what     string
		id       string
		issued   time.Time
		protocol string
		want     bool
	}{
		{"a manager's", manager, before, transport.Raft, true},
		{"a demoted manager's", worker, before, transport.Raft, false},
		{"that of one that was promoted since", worker, after, transport.Raft, true},
		{"that of one that the leader names", told, before, transport.Raft, true},
		{"that of one that has joined since", identity.NewID(), before, transport.Raft, true},
		{"a removed node's", gone, after, transport.Raft, false},
		{"a removed node's", gone, after, transport.HTTP, false},
		{"a demoted manager's", worker, before, transport.HTTP, true},
		{"a demoted manager's", worker, before, transport.Tunnel, true},
	} {
		if got := p.allowed(identity.Peer{NodeID: c.id, Role: wire.RoleManager, Issued: c.issued}, c.protocol); got != c.want {
			t.Errorf("%s certificate for %s: %v", c.what, c.protocol, got)
		}
	}
	p.mu.Lock()
	p.told = false
	p.mu.Unlock()
	if p.allowed(identity.Peer{NodeID: told, Role: wire.RoleManager, Issued: before}, transport.Raft) {
		t.Error("one has a part in the log that the leader of an earlier life has named")
	}
	p.mu.Lock()
	p.local.ForceNew = true
	p.mu.Unlock()
	if p.allowed(identity.Peer{NodeID: manager, Role: wire.RoleManager, Issued: after}, transport.Raft) {
		t.Error("another manager has a part in the log of one that is to go on alone")
	}
}

// The old managers of a swarm that goes on without them cannot take it back.
func TestForceNewCluster(t *testing.T) {
	first, second, third := newMachine(t), newMachine(t), newMachine(t)
	id := first.init()
	for _, m := range []*machine{second, third} {
		if err := m.joinTo(first, asManager); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "each has all managers in its log", func() bool { // else they cannot vote for each other
		return !slices.ContainsFunc([]*machine{second, third}, func(m *machine) bool {
			s, err := m.running().managing()
			return err != nil || len(s.store.Managers()) != 3
		})
	})
	second.halt()
	third.halt()
	if _, err := first.InitSwarm(t.Context(), wire.SwarmInitRequest{ForceNewCluster: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it leads", first.leads)
	second.boot()
	third.boot()
	eventually(t, "they have their own leader", func() bool {
		return slices.ContainsFunc([]*machine{second, third}, (*machine).leads)
	})
	for range 20 { // theirs is the higher term
		time.Sleep(100 * time.Millisecond)
		if !first.leads() {
			t.Fatal("it leads no more")
		}
	}
	if list, err := first.Nodes(t.Context(), nil); err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("its nodes: %+v, %v", list, err)
	}
	// A new daemon that finds it unfinished ends it.
	if err := first.running().save(func(l *local) { l.ForceNew = true }); err != nil {
		t.Fatal(err)
	}
	first.halt()
	first.boot()
	eventually(t, "it leads again", first.leads)
	eventually(t, "it is done", func() bool { return !first.running().state().ForceNew })
}

// What a worker has of a former seat is removed, whatever was cut off, and never opened again.
func TestAWorkerHasNoLog(t *testing.T) {
	first, second := newMachine(t), newMachine(t)
	first.init()
	if err := second.joinTo(first, asWorker); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(second.root, "swarm", raftDir)
	leave := func() {
		t.Helper()
		made := filepath.Join(t.TempDir(), raftDir) // and moved: it may be removed at once
		if err := os.MkdirAll(made, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(made, "raft.db"), []byte("of a former seat"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(made, dir); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	eventually(t, "it is removed while the node runs", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	second.halt()
	leave()
	second.boot()
	eventually(t, "it is removed by the next daemon", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	eventually(t, "it is a worker again", func() bool { return second.Status() == "active/"+wire.RoleWorker })
	leave()
	id := second.running().who.Current().NodeID
	first.setRole(id, wire.RoleManager)
	eventually(t, "it is a manager", func() bool {
		s := first.node(id).ManagerStatus
		return s != nil && second.Status() == "active/"+wire.RoleManager
	})
	var l local
	text, err := fs.ReadFile(os.DirFS(filepath.Join(second.root, "swarm")), stateFile)
	if err != nil || json.Unmarshal(text, &l) != nil || l.Phase != phaseActive {
		t.Errorf("its state: %s, %v", text, err)
	}
}

// What a node remembers of an earlier life says nothing of who is a manager now: it waits for the leader's word.
func TestManagersOfAnEarlierLife(t *testing.T) {
	first, worker := newMachine(t), newMachine(t)
	first.init()
	if err := worker.joinTo(first, asWorker); err != nil {
		t.Fatal(err)
	}
	boss := first.running().who.Current().Peer()
	believes := func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // it does not wait
		return worker.running().isManager(ctx, boss)
	}
	if !believes() {
		t.Error("it does not know its manager")
	}
	first.halt()
	worker.halt()
	worker.boot()
	eventually(t, "it has taken its part up", func() bool { part, _, _ := worker.part(); return part != nil })
	if len(worker.running().state().Managers) == 0 || believes() {
		t.Error("it believes what it remembers")
	}
	first.boot()
	eventually(t, "it has the leader's word", believes)
}

// A manager that was removed while it was off is told so, and does not look for a leader in vain.
func TestARemovedManagerIsTold(t *testing.T) {
	first, second, third := newMachine(t), newMachine(t), newMachine(t)
	first.init()
	for _, m := range []*machine{second, third} {
		if err := m.joinTo(first, asManager); err != nil {
			t.Fatal(err)
		}
	}
	id := third.running().who.Current().NodeID
	third.halt()
	first.setRole(id, wire.RoleWorker)
	eventually(t, "it is removed", func() bool { return first.RemoveNode(t.Context(), id, true) == nil })
	third.boot()
	eventually(t, "it is told", func() bool {
		return strings.HasSuffix(third.Info(t.Context()).Error, "node "+id+" was removed from this swarm")
	})
	if err := third.LeaveSwarm(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}
