package network

import (
	"context"
	"log/slog"
	"net/netip"
	"os"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// Options are what a Manager needs.
type Options struct {
	DB      *state.DB // durable: networks
	RunDB   *state.DB // of this boot: endpoints
	Drivers Drivers
	Logger  *slog.Logger // nil: discard
	// Events is told of create, connect, disconnect and destroy, with the network's ID; nil: nobody.
	Events func(action, networkID string, attributes map[string]string)

	DefaultDriver string            // "" is bridge: the driver of the network called bridge and of networks that name none
	DefaultBridge string            // "" is sampan0: name of the default network's bridge on the host
	BIP           string            // address of the default bridge with prefix length; "": from the pools
	DefaultOption map[string]string // more driver options of the default network, such as mtu
	Pools         []netip.Prefix    // see ipam.DefaultPools; nil: those
	DNS           []string          // for containers that say nothing themselves
	DNSSearch     []string
	DNSOptions    []string
	HostGateway   netip.Addr // what host-gateway in ExtraHosts means; zero: the default bridge's address
	ResolvConf    string     // "" is /etc/resolv.conf
}

// Manager keeps the networks. Its methods may be called in parallel.
type Manager struct{}

// JoinRequest says how a container that is about to start wants to be connected.
type JoinRequest struct {
	ContainerID   string
	ContainerName string // without the slash
	Hostname      string
	Domainname    string
	Mode          string                            // bridge or default, none, host, container:ID (a full ID), or a network's name or ID
	Endpoints     map[string]*wire.EndpointSettings // by network; empty: the one that Mode names
	Ports         map[string][]wire.PortBinding     // "80/tcp"
	ExposedPorts  map[string]struct{}
	PublishAll    bool
	DNS           []string
	DNSSearch     []string
	DNSOptions    []string
	ExtraHosts    []string // name:address
}

// Sandbox is a container's network as Join made it.
type Sandbox struct {
	NetNS *os.File // nil for host; the caller closes it when the monitor has it
	// Hold are the sockets that reserve the published ports: they go to the monitor, and the
	// caller closes its own.
	Hold       []*os.File
	Settings   wire.NetworkSettings
	ResolvConf []byte // contents for /etc/resolv.conf and /etc/hosts of the container
	Hosts      []byte
}

var errNotYet = fault.New(fault.NotImplemented, "network: not built yet")

// NewManager opens the tables. It talks to no driver: see Reconcile.
func NewManager(o Options) (*Manager, error) { return &Manager{}, nil }

// Close ends what runs in the background. Containers and their connections stay.
func (m *Manager) Close() error { return nil }

// Create makes a network.
func (m *Manager) Create(ctx context.Context, r wire.NetworkCreateRequest) (wire.NetworkCreateResponse, error) {
	return wire.NetworkCreateResponse{}, errNotYet
}

// Inspect describes the network of a name, ID or unique prefix of an ID.
func (m *Manager) Inspect(ctx context.Context, ref string) (wire.NetworkInspect, error) {
	return wire.NetworkInspect{}, errNotYet
}

// List describes the networks that pass the filters.
func (m *Manager) List(ctx context.Context, filters map[string][]string) ([]wire.NetworkInspect, error) {
	return nil, errNotYet
}

// Remove removes a network that no container is in.
func (m *Manager) Remove(ctx context.Context, ref string) error { return errNotYet }

// Prune removes the networks that users made and no container is in.
func (m *Manager) Prune(ctx context.Context, filters map[string][]string) (wire.NetworksPrune, error) {
	return wire.NetworksPrune{}, errNotYet
}

// Join connects a container that is about to start. On an error nothing is left.
func (m *Manager) Join(ctx context.Context, r JoinRequest) (*Sandbox, error) { return nil, errNotYet }

// Leave disconnects a container that ended, or whose start failed. It may be called twice.
func (m *Manager) Leave(ctx context.Context, containerID string) error { return errNotYet }

// ConnectRunning connects a running container to one more network. The Sandbox has the new
// Settings, Hosts and ResolvConf, and neither namespace nor sockets.
func (m *Manager) ConnectRunning(ctx context.Context, ref, containerID string, pid int, e *wire.EndpointSettings) (*Sandbox, error) {
	return nil, errNotYet
}

// DisconnectRunning takes a running container off a network; the Sandbox is as ConnectRunning's.
func (m *Manager) DisconnectRunning(ctx context.Context, ref, containerID string, pid int) (*Sandbox, error) {
	return nil, errNotYet
}

// Settings are what inspect shows of a container that joined; zero for one that did not.
func (m *Manager) Settings(containerID string) wire.NetworkSettings { return wire.NetworkSettings{} }

// Resolve returns the network that a name, ID or prefix of an ID means, as fault.NotFound says when
// there is none, so that a container can be refused at its creation.
func (m *Manager) Resolve(ref string) (Network, error) { return Network{}, errNotYet }

// Reconcile is called once after the start of the daemon with the containers that live and the
// process ID of their init.
func (m *Manager) Reconcile(ctx context.Context, running map[string]int) error { return errNotYet }
