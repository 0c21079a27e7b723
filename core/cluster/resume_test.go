package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/wire"
)

// A manager whose log has ended by itself opens it again.
func TestTheLogEnds(t *testing.T) {
	m := newMachine(t)
	m.init()
	ended, err := m.leading()
	if err != nil {
		t.Fatal(err)
	}
	if err := ended.store.Close(); err != nil { // as after an error that it does not survive
		t.Fatal(err)
	}
	eventually(t, "it leads again", func() bool { s, err := m.leading(); return err == nil && s != ended && s.leads() })
	spec := wire.ServiceSpec{Annotations: wire.Annotations{Name: "web"}}
	spec.TaskTemplate.ContainerSpec = &wire.ContainerSpec{Image: "busybox"}
	spec.TaskTemplate.Placement = &wire.Placement{Constraints: []string{"node.role==worker"}}
	eventually(t, "it takes a service", func() bool { _, err := m.CreateService(t.Context(), spec, "", false); return err == nil })
	id := m.running().who.Current().NodeID
	eventually(t, "its node is ready", func() bool { return m.node(id).Status.State == wire.NodeReady })
}

// A daemon that ends does not wait for a join whose manager says nothing.
func TestCloseEndsAJoin(t *testing.T) {
	first, second := newMachine(t), newMachine(t)
	first.init()
	s, err := first.InspectSwarm(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	asked := make(chan net.Conn, 1)
	go func() {
		if c, err := silent.Accept(); err == nil {
			asked <- c
		}
	}()
	joined := make(chan error, 1)
	go func() {
		joined <- second.JoinSwarm(context.WithoutCancel(t.Context()), wire.SwarmJoinRequest{
			ListenAddr: second.addr, RemoteAddrs: []string{silent.Addr().String()}, JoinToken: s.JoinTokens.Worker,
		})
	}()
	var c net.Conn
	select {
	case c = <-asked:
	case err := <-joined:
		t.Fatalf("the join has ended without asking: %v", err)
	}
	defer c.Close()
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := <-joined; !errors.Is(err, context.Canceled) {
		t.Errorf("the join: %v", err)
	}
	if _, err := os.Stat(filepath.Join(second.root, "swarm")); !os.IsNotExist(err) {
		t.Errorf("what is left of it: %v", err)
	}

	// nor one that waits for the leader's first word
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&member{ctx: ctx, up: make(chan struct{})}).awaitUp(nil); !errors.Is(err, errNoSwarm) {
		t.Errorf("a join whose part has ended: %v", err)
	}
}

// stuckContainers cannot be listed for a while.
type stuckContainers struct {
	noContainers
	stuck atomic.Bool
}

func (c *stuckContainers) List(ctx context.Context, o container.ListOptions) ([]wire.ContainerSummary, error) {
	if c.stuck.Load() {
		return nil, errors.New("containers cannot be listed")
	}
	return c.noContainers.List(ctx, o)
}

// A leave that fails leaves no room for another swarm until it is done.
func TestALeaveThatFails(t *testing.T) {
	m := newMachine(t)
	containers := &stuckContainers{}
	m.o.Containers = containers
	m.init()
	containers.stuck.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := m.LeaveSwarm(ctx, true); err == nil || errors.Is(err, errNoSwarm) {
		t.Fatalf("the leave: %v", err)
	}
	if _, err := m.InitSwarm(t.Context(), wire.SwarmInitRequest{ListenAddr: m.addr}); !errors.Is(err, errExists) {
		t.Errorf("init over it: %v", err)
	}
	if i := m.Info(t.Context()); i.LocalNodeState != wire.SwarmError || !strings.Contains(i.Error, "cannot be listed") {
		t.Errorf("its state: %+v", i)
	}
	containers.stuck.Store(false)
	if err := m.LeaveSwarm(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	m.init()
}

// slowContainers are listed when whoever asks has had enough of it.
type slowContainers struct {
	noContainers
	asked chan struct{}
}

func (c *slowContainers) List(ctx context.Context, _ container.ListOptions) ([]wire.ContainerSummary, error) {
	select {
	case c.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// A daemon that ends does not wait for a leave that does not come to its end. The next one goes on with it.
func TestCloseEndsALeave(t *testing.T) {
	m := newMachine(t)
	containers := &slowContainers{asked: make(chan struct{}, 1)}
	m.o.Containers = containers
	m.init()
	<-containers.asked // the agent looks for what there is
	left := make(chan error, 1)
	go func() { left <- m.LeaveSwarm(context.WithoutCancel(t.Context()), true) }()
	select {
	case <-containers.asked:
	case err := <-left:
		t.Fatalf("the leave has ended without its containers: %v", err)
	}
	closed := make(chan struct{})
	go func() { defer close(closed); m.halt() }()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the leave: %v", err)
	}
	<-closed
	m.boot()
	eventually(t, "it is in no swarm", func() bool {
		_, err := os.Stat(filepath.Join(m.root, "swarm"))
		return os.IsNotExist(err) && m.Status() == wire.SwarmInactive
	})
}

// A certificate that has expired may be one whose time is still to come: the clock was wrong.
func TestExpiredAtTheStart(t *testing.T) {
	first, second := newMachine(t), newMachine(t)
	first.init()
	if err := second.joinTo(first, asWorker); err != nil {
		t.Fatal(err)
	}
	s, err := first.leading()
	if err != nil {
		t.Fatal(err)
	}
	second.halt()
	good, err := identity.Load(second.certificates())
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	c := s.store.Reader().Cluster()
	cert, err := identity.Authority{Cert: c.RootCert, Key: c.RootKey}.Sign(csr, good.NodeID, good.Role, good.SwarmID, time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := identity.New(cert, key, good.Roots)
	if err != nil {
		t.Fatal(err)
	}
	if err := expired.Save(second.certificates()); err != nil {
		t.Fatal(err)
	}
	second.boot()
	eventually(t, "it says so", func() bool {
		i := second.Info(t.Context())
		return i.LocalNodeState == wire.SwarmError && i.Error == errExpired.Error()
	})
	if _, err := second.leading(); !errors.Is(err, errExpired) {
		t.Errorf("what clients are told: %v", err)
	}
	if err := good.Save(second.certificates()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is in again", func() bool { return second.Status() == "active/"+wire.RoleWorker })
}
