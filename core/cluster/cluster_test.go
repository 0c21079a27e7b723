package cluster

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/cluster/agent"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/event"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// noContainers is an engine on which nothing runs.
type noContainers struct{ agent.Containers }

func (noContainers) List(context.Context, container.ListOptions) ([]wire.ContainerSummary, error) {
	return nil, nil
}

// machine is a daemon that can be started again.
type machine struct {
	*Manager
	t    *testing.T
	root string
	addr string
	api  http.Handler
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := &machine{t: t, root: t.TempDir(), addr: l.Addr().String()}
	m.api = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if done, err := m.Forward(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		} else if !done {
			w.Header().Set("Answered-By", m.addr)
		}
	})
	m.boot()
	t.Cleanup(func() { m.halt() })
	return m
}

func (m *machine) boot() {
	m.Manager = New(Options{
		// Without a Logger: Raft goes on writing for a moment after it was closed, and the test may be over.
		Root: m.root, Containers: noContainers{}, Events: event.NewLog(),
		Info: func(context.Context) (wire.Info, error) { return wire.Info{Name: m.addr, NCPU: 1}, nil },
	})
	m.Start(m.api)
}

func (m *machine) halt() {
	m.t.Helper()
	if err := m.Close(); err != nil {
		m.t.Error(err)
	}
}

func (m *machine) init() string {
	m.t.Helper()
	id, err := m.InitSwarm(m.t.Context(), wire.SwarmInitRequest{ListenAddr: m.addr})
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

func (m *machine) joinTo(other *machine, token func(wire.SwarmTokens) string) error {
	s, err := other.InspectSwarm(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return m.JoinSwarm(m.t.Context(), wire.SwarmJoinRequest{ListenAddr: m.addr, RemoteAddrs: []string{other.addr}, JoinToken: token(s.JoinTokens)})
}

func asWorker(t wire.SwarmTokens) string  { return t.Worker }
func asManager(t wire.SwarmTokens) string { return t.Manager }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// node is a node as the swarm sees it from here.
func (m *machine) node(id string) wire.Node {
	m.t.Helper()
	n, err := m.Node(m.t.Context(), id)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

func TestInitInspectLeave(t *testing.T) {
	m := newMachine(t)
	for what, err := range map[string]error{
		"inspect": second(m.InspectSwarm(t.Context())), "leave": m.LeaveSwarm(t.Context(), true), "update": m.UpdateSwarm(t.Context(), 1, wire.SwarmSpec{}, wire.SwarmRotation{}),
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s without a swarm: %v", what, err)
		}
	}
	if s := m.Status(); s != "inactive" {
		t.Errorf("status %s", s)
	}
	id := m.init()
	if s := m.Status(); s != "active/manager" {
		t.Errorf("status %s", s)
	}
	if n := m.node(id[:5]); n.Status.State != wire.NodeReady || n.Spec.Role != wire.RoleManager || n.ManagerStatus == nil || !n.ManagerStatus.Leader {
		t.Errorf("the first node: %+v", n)
	}
	if _, err := m.InitSwarm(t.Context(), wire.SwarmInitRequest{ListenAddr: m.addr}); !errors.Is(err, errExists) {
		t.Errorf("a second init: %v", err)
	}
	before, err := m.InspectSwarm(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.UpdateSwarm(t.Context(), before.Version.Index, before.Spec, wire.SwarmRotation{WorkerToken: true}); err != nil {
		t.Fatal(err)
	}
	after, err := m.InspectSwarm(t.Context())
	if err != nil || after.JoinTokens.Worker == before.JoinTokens.Worker || after.JoinTokens.Manager != before.JoinTokens.Manager {
		t.Errorf("tokens before %+v, after %+v, %v", before.JoinTokens, after.JoinTokens, err)
	}
	if err := m.UpdateSwarm(t.Context(), before.Version.Index, before.Spec, wire.SwarmRotation{}); err == nil || !strings.Contains(err.Error(), "update out of sequence") {
		t.Errorf("an update of an old version: %v", err)
	}

	// the next daemon goes on with it
	m.halt()
	m.boot()
	defer func() { t.Logf("%+v", m.Info(context.Background())) }()
	eventually(t, "it is active again", func() bool { return m.Status() == "active/manager" })
	eventually(t, "it leads again", func() bool { _, err := m.InspectSwarm(t.Context()); return err == nil && m.leads() })

	// a manager that cannot be taken up does not leave by mistake
	m.halt()
	other, err := net.Listen("tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	m.boot()
	eventually(t, "it has no port", func() bool { return strings.Contains(m.Info(t.Context()).Error, "address already in use") })
	if err := m.LeaveSwarm(t.Context(), false); err == nil || !strings.Contains(err.Error(), "Doing so may lose the consensus") {
		t.Errorf("the leave of a manager that is not taken up: %v", err)
	}
	other.Close()
	eventually(t, "it is active again", func() bool { return m.Status() == "active/manager" && m.leads() })

	if err := m.LeaveSwarm(t.Context(), false); err == nil || !strings.Contains(err.Error(), "Removing the last manager erases all current state") {
		t.Errorf("the last manager's leave: %v", err)
	}
	if err := m.LeaveSwarm(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(m.root, "swarm")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is left of the swarm: %v", err)
	}
	m.init() // and into another
}

func (m *machine) leads() bool {
	s, err := m.leading()
	return err == nil && s.leads()
}

func second[T any](_ T, err error) error { return err }

func TestJoin(t *testing.T) {
	first, second, third := newMachine(t), newMachine(t), newMachine(t)
	first.init()
	other := newMachine(t)
	other.init()
	foreign, err := other.InspectSwarm(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]func(wire.SwarmTokens) string{
		"no token":                func(wire.SwarmTokens) string { return "SWMTKN-1-x" },
		"another swarm's token":   func(wire.SwarmTokens) string { return foreign.JoinTokens.Worker },
		"a token of other secret": func(s wire.SwarmTokens) string { return s.Worker[:len(s.Worker)-25] + strings.Repeat("0", 25) },
	} {
		if err := second.joinTo(first, token); err == nil {
			t.Fatalf("joined with %s", what)
		}
		if i := second.Info(t.Context()); i.LocalNodeState != wire.SwarmInactive {
			t.Errorf("after %s it is %s", what, i.LocalNodeState)
		}
	}
	if err := second.joinTo(first, asManager); err != nil {
		t.Fatal(err)
	}
	if err := third.joinTo(second, asWorker); err != nil {
		t.Fatal(err)
	}
	if s := third.Status(); s != "active/worker" {
		t.Errorf("a worker's status: %s", s)
	}
	if err := second.joinTo(first, asWorker); !errors.Is(err, errExists) {
		t.Errorf("a second join: %v", err)
	}
	if _, err := third.Nodes(t.Context(), nil); !errors.Is(err, errWorker) {
		t.Errorf("a worker lists nodes: %v", err)
	}
	// What a node is comes with the first report of its session, after it has joined.
	eventually(t, "the worker among the nodes", func() bool {
		list, err := first.Nodes(t.Context(), map[string][]string{"role": {wire.RoleWorker}})
		return err == nil && len(list) == 1 && list[0].ID == third.Info(t.Context()).NodeID && list[0].Description.Hostname == third.addr
	})

	// a manager that does not lead has the leader answer
	w := httptest.NewRecorder()
	second.api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1.50/nodes", nil))
	if got := w.Header().Get("Answered-By"); got != first.addr {
		t.Errorf("answered by %q: %s", got, w.Body)
	}

	// a worker that is promoted and demoted
	worker := third.Info(t.Context()).NodeID
	role := func(want string) {
		t.Helper()
		n := first.node(worker)
		n.Spec.Role = want
		if err := first.UpdateNode(t.Context(), worker, n.Version.Index, n.Spec); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is a "+want, func() bool { return third.Status() == "active/"+want })
	}
	role(wire.RoleManager)
	eventually(t, "the managers count it", func() bool {
		s := first.node(worker).ManagerStatus
		return s != nil && s.Reachability == wire.ReachabilityReachable
	})
	if err := first.RemoveNode(t.Context(), worker, true); err == nil || !strings.Contains(err.Error(), "must be demoted to worker") {
		t.Errorf("a manager was removed: %v", err)
	}
	role(wire.RoleWorker)
	eventually(t, "a worker has nothing of the managers' state", func() bool {
		_, err := os.Stat(filepath.Join(third.root, "swarm", raftDir))
		return errors.Is(err, fs.ErrNotExist)
	})

	// one that is removed does not come back
	if err := first.RemoveNode(t.Context(), worker, false); err == nil || !strings.Contains(err.Error(), "is not down") {
		t.Errorf("a ready node was removed: %v", err)
	}
	if err := first.RemoveNode(t.Context(), worker, true); err != nil {
		t.Fatal(err)
	}
	third.halt()
	third.boot()
	eventually(t, "it is refused", func() bool {
		i := third.Info(t.Context())
		return i.LocalNodeState == wire.SwarmPending && strings.HasSuffix(i.Error, "node "+worker+" was removed from this swarm")
	})
	if err := third.LeaveSwarm(t.Context(), false); err != nil {
		t.Fatal(err)
	}

	// the last but one manager
	if err := second.LeaveSwarm(t.Context(), false); err == nil || !strings.Contains(err.Error(), "Removing this node leaves 1 managers out of 2") {
		t.Errorf("the leave of one of two managers: %v", err)
	}
	if err := second.LeaveSwarm(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := first.InitSwarm(t.Context(), wire.SwarmInitRequest{ForceNewCluster: true}); err != nil {
		t.Fatal(err)
	}
	if i := first.Info(t.Context()); i.Managers != 1 || !first.leads() {
		t.Errorf("after --force-new-cluster: %+v", i)
	}
}

// A manager that cannot be reached at the address that it says to have is refused, and nothing is left of it.
func TestJoinWithAnAddressOfNobody(t *testing.T) {
	first, second, other := newMachine(t), newMachine(t), newMachine(t)
	first.init()
	s, err := first.InspectSwarm(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for what, addr := range map[string]string{"nobody's": other.addr, "another node's": first.addr} {
		err := second.JoinSwarm(t.Context(), wire.SwarmJoinRequest{
			ListenAddr: second.addr, AdvertiseAddr: addr, RemoteAddrs: []string{first.addr}, JoinToken: s.JoinTokens.Manager,
		})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "could not connect to prospective new cluster member using its advertised address") {
			t.Errorf("joined as a manager with %s address: %v", what, err)
		}
		if i := second.Info(t.Context()); i.LocalNodeState != wire.SwarmInactive || i.Error != "" {
			t.Errorf("after %s address: %+v", what, i)
		}
		if _, err := os.Stat(filepath.Join(second.root, "swarm")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what is left after %s address: %v", what, err)
		}
	}
	if i := first.Info(t.Context()); i.Managers != 1 || !first.leads() {
		t.Errorf("the swarm: %+v", i)
	}
	if err := second.joinTo(first, asManager); err != nil {
		t.Fatal(err)
	}
}

// What a crash has cut off is taken back, or gone on with.
func TestCutOff(t *testing.T) {
	for _, phase := range []string{phaseInit, phaseJoin, phaseLeave} {
		t.Run(phase, func(t *testing.T) {
			m := newMachine(t)
			dir := filepath.Join(m.root, "swarm")
			m.halt()
			if err := (&local{Phase: phase, NodeID: "n", Listen: m.addr}).save(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(dir, raftDir, "snapshots"), 0o700); err != nil {
				t.Fatal(err)
			}
			m.boot()
			eventually(t, "it is in no swarm", func() bool { return m.Status() == wire.SwarmInactive })
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what is left: %v", err)
			}
			m.init()
		})
	}
	t.Run("a state that cannot be read", func(t *testing.T) {
		m := newMachine(t)
		m.init()
		m.halt()
		if err := os.WriteFile(filepath.Join(m.root, "swarm", stateFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		m.boot()
		if i := m.Info(t.Context()); i.LocalNodeState != wire.SwarmError || i.Error == "" {
			t.Errorf("its state: %+v", i)
		}
		if _, err := m.InitSwarm(t.Context(), wire.SwarmInitRequest{ListenAddr: m.addr}); !errors.Is(err, errExists) {
			t.Errorf("init over it: %v", err)
		}
		if err := m.LeaveSwarm(t.Context(), false); err == nil {
			t.Error("left without --force")
		}
		if err := m.LeaveSwarm(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		m.init()
	})
}

func TestServices(t *testing.T) {
	m := newMachine(t)
	m.init()
	create := func(name string, labels map[string]string) string {
		t.Helper()
		spec := wire.ServiceSpec{Annotations: wire.Annotations{Name: name, Labels: labels}}
		spec.TaskTemplate.ContainerSpec = &wire.ContainerSpec{Image: "busybox"}
		spec.TaskTemplate.Placement = &wire.Placement{Constraints: []string{"node.role==worker"}} // there is none
		made, err := m.CreateService(t.Context(), spec, "", false)
		if err != nil {
			t.Fatal(err)
		}
		return made.ID
	}
	web, db := create("web", map[string]string{"tier": "front"}), create("webdb", nil)
	for _, c := range []struct {
		filters map[string][]string
		want    int
	}{
		{nil, 2}, {map[string][]string{"name": {"web"}}, 2}, {map[string][]string{"name": {"webd"}}, 1}, {map[string][]string{"id": {db[:10]}}, 1},
		{map[string][]string{"label": {"tier=front"}}, 1}, {map[string][]string{"label": {"tier=back"}}, 0}, {map[string][]string{"mode": {"global"}}, 0},
	} {
		list, err := m.Services(t.Context(), c.filters, true)
		if err != nil || len(list) != c.want {
			t.Errorf("%v: %d services, want %d, %v", c.filters, len(list), c.want, err)
		}
		for _, s := range list {
			if s.ServiceStatus == nil || s.ServiceStatus.DesiredTasks != 1 {
				t.Errorf("status %+v", s.ServiceStatus)
			}
		}
	}
	eventually(t, "there are tasks", func() bool {
		list, err := m.Tasks(t.Context(), map[string][]string{"service": {"web"}, "desired-state": {"running"}, "_up-to-date": {"true"}})
		return err == nil && len(list) == 1 && list[0].ServiceID == web && list[0].Status.Err != ""
	})
	spec := wire.ServiceSpec{Annotations: wire.Annotations{Name: "other"}}
	spec.TaskTemplate.ContainerSpec = &wire.ContainerSpec{Image: "busybox"}
	if _, err := m.CreateService(t.Context(), spec, strings.Repeat("a", agent.MaxAuth+1), false); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "X-Registry-Auth") {
		t.Errorf("a login without end: %v", err)
	}
	if _, err := m.Tasks(t.Context(), map[string][]string{"node": {"nowhere"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("tasks of a node that there is not: %v", err)
	}
	now, err := m.Service(t.Context(), "web", false)
	if err != nil {
		t.Fatal(err)
	}
	next := now.Spec
	two := uint64(2)
	next.Mode = wire.ServiceMode{Replicated: &wire.Replicated{Replicas: &two}}
	if _, err := m.UpdateService(t.Context(), "web", next, wire.ServiceUpdate{Version: now.Version.Index}, "", false); err != nil {
		t.Fatal(err)
	}
	if _, err := m.UpdateService(t.Context(), web, next, wire.ServiceUpdate{Version: now.Version.Index}, "", false); err == nil || !strings.Contains(err.Error(), "out of sequence") {
		t.Errorf("an update of an old version: %v", err)
	}
	eventually(t, "there are two", func() bool {
		list, err := m.Tasks(t.Context(), map[string][]string{"service": {web}})
		return err == nil && len(list) == 2
	})
	for _, ref := range []string{"web", db} {
		if err := m.RemoveService(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.RemoveService(t.Context(), "web"); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	eventually(t, "there are no tasks", func() bool { list, err := m.Tasks(t.Context(), nil); return err == nil && len(list) == 0 })
}
