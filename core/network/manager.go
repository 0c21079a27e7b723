package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/ipam"
	"github.com/sampan-project/sampan/core/network/netns"
	"github.com/sampan-project/sampan/core/network/port"
	"github.com/sampan-project/sampan/core/state"
)

// Options are what a Manager needs.
type Options struct {
	DB      *state.DB // durable: networks
	RunDB   *state.DB // of this boot: endpoints
	Drivers Drivers
	Logger  *slog.Logger // nil: discard
	// Events is told of create, connect, disconnect and destroy, with the network's ID; nil: nobody.
	Events func(action, networkID string, attributes map[string]string)

	DefaultDriver string                       // "" is bridge: the driver of the network called bridge and of networks that name none
	DefaultBridge string                       // "" is sampan0: name of the default network's bridge on the host
	BIP           string                       // address of the default bridge with prefix length; "": from the pools
	DefaultOption map[string]string            // more driver options of the default network, such as mtu
	FixedCIDR     string                       // the part of BIP's subnet that containers get addresses of; "": all of it
	NetworkOption map[string]map[string]string // by driver: options of new networks that do not say otherwise
	Pools         []ipam.Pool                  // nil: ipam.DefaultPools
	DNS           []string                     // for containers that say nothing themselves
	DNSSearch     []string
	DNSOptions    []string
	HostGateway   netip.Addr // what host-gateway in ExtraHosts means; zero: the default bridge's address
	ResolvConf    string     // "" is /etc/resolv.conf
}

const (
	// ready is how many namespaces are kept prepared: more than are started in a burst by one
	// person, few enough to cost nothing.
	ready = 4
	// patience bounds calls of drivers that nobody waits for.
	patience = 30 * time.Second
)

// Manager keeps the networks. Its methods may be called in parallel.
//
// Locks are taken in this order: a sandbox's op, a driver's gate, mu. Nothing that waits, for a
// driver or the disk, is done under mu.
type Manager struct {
	o         Options
	log       *slog.Logger
	owner     string // the mark of this daemon, see Network.Owner
	networks  *state.Table[row]
	sandboxes *state.Table[record]
	drivers   *state.Table[time.Time] // drivers that may have made something in this boot
	pool      *netns.Pool
	ports     *port.Allocator

	burying  sync.Mutex
	creating sync.Mutex // one Create at a time: two must not choose the same subnet

	mu      sync.RWMutex
	entries map[string]*entry   // networks, by ID
	joined  map[string]*sandbox // by container's ID
	leaving map[string]*sandbox // those that a driver still detaches, by container's ID
	dead    []*sandbox          // those that no driver could detach: the next Reconcile does
	gates   map[string]*gate    // by driver
	owed    map[string]int      // by driver: how often its Reconcile was asked for and is not done, see again
	closed  bool

	background sync.WaitGroup
	ctx        context.Context // of what runs there and may be broken off; ends with Close
	cancel     context.CancelFunc
}

// gate of a driver is held for reading around the calls of one endpoint, with the change of our
// records that belongs to it, and for writing by Reconcile, which must see both or neither.
type gate struct {
	sync.RWMutex
	used bool // noted in the table of drivers
}

// row is a network in the durable database.
type row struct {
	Network
	// DriverOptions are Options by the names of the driver's schema.
	DriverOptions map[string]string `json:"driverOptions,omitempty"`
	// Known says that the driver made it once, and that what it answered is in Network.
	Known bool `json:"known,omitempty"`
}

// forDriver returns the network as drivers see it.
func (r row) forDriver() Network {
	n := r.Network
	n.Options = r.DriverOptions
	return n
}

// entry is a network in memory.
type entry struct {
	row      // guarded by Manager.mu
	space    *ipam.Space
	removing bool
	made     bool       // the driver has made it since this daemon started
	making   sync.Mutex // held while the driver makes it
}

func newEntry(r row) *entry {
	var subnets []ipam.Subnet
	for _, s := range r.Subnets {
		if r.ConfigOnly {
			continue
		}
		subnets = append(subnets, ipam.Subnet{Prefix: s.Prefix, Range: s.Range})
	}
	e := &entry{row: r, space: ipam.NewSpace(subnets)}
	for _, s := range r.Subnets {
		if s.Gateway.IsValid() {
			e.space.Mark(s.Gateway)
		}
		for _, a := range s.Auxiliary {
			e.space.Mark(a)
		}
	}
	return e
}

// NewManager opens the tables and makes the rows of the networks that always exist. It talks to no
// driver: see Reconcile.
func NewManager(o Options) (*Manager, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Events == nil {
		o.Events = func(string, string, map[string]string) {}
	}
	o.DefaultDriver = or(o.DefaultDriver, "bridge")
	o.DefaultBridge = or(o.DefaultBridge, "sampan0")
	o.ResolvConf = or(o.ResolvConf, "/etc/resolv.conf")
	if o.Pools == nil {
		o.Pools = ipam.DefaultPools()
	}
	m := &Manager{
		o: o, log: o.Logger,
		networks:  state.NewTable[row](o.DB, "networks"),
		sandboxes: state.NewTable[record](o.RunDB, "network.sandboxes"),
		drivers:   state.NewTable[time.Time](o.RunDB, "network.drivers"),
		ports:     port.NewAllocator(),
		entries:   map[string]*entry{},
		joined:    map[string]*sandbox{},
		leaving:   map[string]*sandbox{},
		gates:     map[string]*gate{},
		owed:      map[string]int{},
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.load(); err != nil {
		return nil, err
	}
	m.pool = netns.NewPool(ready, o.Logger)
	if r, ok := o.Drivers.(Restarts); ok {
		r.OnRestart(m.restarted)
	}
	return m, nil
}

// load reads the rows of networks, and those of endpoints so that their addresses and ports are
// not given out before Reconcile says who lives.
func (m *Manager) load() error {
	owners := state.NewTable[string](m.o.DB, "network.owner")
	owner, err := owners.Get("owner")
	if fault.Is(err, fault.NotFound) {
		owner = newID()[:12]
		err = owners.Put("owner", owner)
	}
	if err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	m.owner = owner
	rows, err := m.networks.List()
	if err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	for _, r := range rows {
		m.entries[r.ID] = newEntry(r)
	}
	if err := m.loadDefaults(); err != nil {
		return err
	}
	records, err := m.sandboxes.List()
	if err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	for _, r := range records {
		sb := &sandbox{record: r, attached: true, loaded: true}
		m.mark(sb)
		if r.Dead {
			m.dead = append(m.dead, sb)
		} else {
			m.joined[r.ContainerID] = sb
		}
	}
	used, err := m.drivers.All()
	if err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	for name := range used {
		m.gate(name).used = true
	}
	return nil
}

// mark takes the addresses and ports that a record says.
func (m *Manager) mark(sb *sandbox) {
	for _, ep := range sb.Endpoints {
		if e := m.entries[ep.NetworkID]; e != nil {
			for _, a := range ep.Addresses {
				e.space.Mark(a.Addr())
			}
		}
	}
	for _, p := range sb.Ports {
		if p.HostPort == 0 {
			continue
		}
		m.ports.Adopt(port.Binding{Protocol: p.Protocol, Address: p.HostAddress, Port: p.HostPort}, sb.ID)
	}
}

// Close waits for what runs in the background and ends the name servers. Containers and their
// connections stay.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	var open []*sandbox
	for _, sb := range m.joined {
		open = append(open, sb)
	}
	var leaves []*departure
	for _, sb := range m.leaving {
		leaves = append(leaves, sb.leave)
	}
	m.mu.Unlock()
	for _, l := range leaves {
		_ = l.wait(context.Background()) // bounded by patience
	}
	m.cancel()
	m.background.Wait()
	for _, sb := range open {
		sb.op.Lock()
		sb.shut()
		sb.op.Unlock()
	}
	m.pool.Close()
	return nil
}

// gate returns the gate of a driver; the caller holds mu, or is alone.
func (m *Manager) gate(driver string) *gate {
	g := m.gates[driver]
	if g == nil {
		g = &gate{}
		m.gates[driver] = g
	}
	return g
}

// enter passes the driver's gate for one endpoint or network, and returns the driver and the way
// out. It notes that the driver may have made something, so that Reconcile asks it.
func (m *Manager) enter(ctx context.Context, name string) (Driver, func(), error) {
	d, err := m.use(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return d, m.pass(name), nil
}

// use returns the driver, and notes that it may have made something.
func (m *Manager) use(ctx context.Context, name string) (Driver, error) {
	d, err := m.o.Drivers.Network(ctx, name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	g := m.gate(name)
	used := g.used
	m.mu.Unlock()
	if !used {
		if err := m.drivers.Put(name, time.Now()); err != nil {
			return nil, err
		}
		m.mu.Lock()
		g.used = true
		m.mu.Unlock()
	}
	return d, nil
}

// pass passes the driver's gate for one endpoint or network, and returns the way out.
func (m *Manager) pass(name string) func() {
	m.mu.Lock()
	g := m.gate(name)
	m.mu.Unlock()
	g.RLock()
	return g.RUnlock
}

// newID returns 64 random hexadecimal digits.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
