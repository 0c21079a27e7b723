// Package container is the life of containers: create, start, stop, exec, attach, logs, restart,
// remove, and what inspect and ps show of it.
//
// # One life
//
//	Create   validates everything, prepares the snapshot, makes volumes, and writes the record last (create.go)
//	Attach   may come before Start: its stream is joined to the process when there is one (attach.go)
//	Start    network, files, specification, then the monitor creates and starts it (start.go)
//	exit     the monitor tells; network and monitor let go, restart policy decides (exit.go)
//	         a container that goes with its end (--rm) is removed there, the record first
//	Remove   the record goes first, in one transaction with a note of what is left to delete (remove.go)
//
// # What is where
//
// A container is in memory while the daemon runs; reading (ps, inspect) asks no database. Its record,
// what it was created as, is a row in state.db; its state, what it is doing, is a row in run.db, which
// is not synced: a killed daemon loses nothing of it, and after a power failure no container runs.
// A copy of the state goes to state.db in the background, so that exit codes and times outlive a
// reboot. A container that removes itself (--rm) and has nothing that outlives it is in run.db
// alone: it costs no sync of the disk at all.
//
// # Locks
//
// What changes a container takes its op lock for the whole of the change: Start, the handling of an
// exit, Remove. Signals do not: they are sent, and the exit comes as an event. The mutex guards the
// fields and is never held while something is waited for. Manager.mu guards the maps of containers
// and is taken before a container's mutex, never after. What is written of a state is read under the
// lock of its writing, so that none comes to lie over a newer one (keep).
package container

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/event"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/operation"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// Options are what a Manager is made of.
type Options struct {
	DB    *state.DB // data-root/state.db
	RunDB *state.DB // exec-root/run.db

	Images  Images
	Layers  Layers
	Network Network
	Volumes Volumes
	Monitor Monitor
	Events  *event.Log
	Logger  *slog.Logger

	Root     string // data-root: containers/<id> has the log and the files of each
	ExecRoot string

	CgroupParent   string // cgroup of all containers that ask for no other; "" is "sampan", with SystemdCgroup "system.slice"
	SystemdCgroup  bool   // systemd makes the cgroups, and their parents are slices
	InitPath       string // program for --init; "" refuses the option
	DefaultLog     wire.LogConfig
	DefaultUlimits map[string]wire.Ulimit
	DefaultShmSize int64
	DefaultInit    bool
	// DefaultIpcMode and DefaultCgroupnsMode are Docker's default-ipc-mode and default-cgroupns-mode; ""
	// is private, and private with cgroup v2.
	DefaultIpcMode, DefaultCgroupnsMode string
	// SecurityOptions come before those of a container that is not privileged, which win over them.
	SecurityOptions []string
	// AppArmor is the profile of containers that ask for none; "" on a host without AppArmor.
	AppArmor string
	// Remap gives containers a user namespace; nil: they are in the host's.
	Remap *userns.Remap
	// StorageSize is how many bytes containers that ask for nothing else may write in their layer; 0 is no limit.
	StorageSize uint64
	// LiveRestore leaves containers running when the daemon ends in peace.
	LiveRestore bool
	// Runtimes and DefaultRuntime are those of Live.
	Runtimes       map[string]monitor.Runtime
	DefaultRuntime string
	// Operations is told what is done; nil: nobody.
	Operations *operation.Recorder
}

// Live are the options that may change while the Manager works.
type Live struct {
	LiveRestore bool
	ShmSize     int64 // of containers that are created from now on; 0 is Docker's

	// Runtimes are OCI runtimes beside the engine's own, by name; DefaultRuntime is that of containers that
	// are created from now on and ask for none, "" the engine's own.
	Runtimes       map[string]monitor.Runtime
	DefaultRuntime string
}

// Reload changes them.
func (m *Manager) Reload(l Live) { m.live.Store(&l) }

// Manager keeps the containers of one data-root. Its methods may be called in parallel.
type Manager struct {
	o     Options
	log   *slog.Logger
	store *store

	mu    sync.RWMutex
	byID  map[string]*Container
	names map[string]*Container // without a slash; also of containers that are being created
	execs map[string]*execution
	steps map[string]bool // of builds, by id; guarded by mu

	live        atomic.Pointer[Live]
	users       userCache
	closing     atomic.Bool // the daemon ends: nothing is restarted
	background  background
	ctx         context.Context // ends when the Manager is closed
	cancel      context.CancelFunc
	restartGate chan struct{} // bounds how many containers start at once by themselves
}

// New loads the containers. Nothing is started or changed before Reconcile.
func New(o Options) (*Manager, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Events == nil {
		o.Events = event.NewLog()
	}
	if o.CgroupParent == "" {
		o.CgroupParent = spec.DefaultCgroupParent(o.SystemdCgroup)
	}
	if o.DefaultLog.Type == "" {
		o.DefaultLog.Type = "json-file"
	}
	m := &Manager{o: o, log: o.Logger, byID: map[string]*Container{}, names: map[string]*Container{},
		steps: map[string]bool{}, execs: map[string]*execution{}, restartGate: make(chan struct{}, 4)}
	m.Reload(Live{LiveRestore: o.LiveRestore, ShmSize: o.DefaultShmSize, Runtimes: o.Runtimes, DefaultRuntime: o.DefaultRuntime})
	m.ctx, m.cancel = context.WithCancel(context.Background())
	// 0710 as dockerd: the daemon's group may pass, so that what is mounted from here can be read.
	for _, dir := range []string{m.containersDir(), m.mountPoint()} {
		if err := os.MkdirAll(dir, 0o710); err != nil {
			return nil, fmt.Errorf("containers: %w", err)
		}
	}
	m.store = openStore(o.DB, o.RunDB, m.log)
	rows, err := m.store.load()
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		c := newContainer(r.record, r.state)
		m.byID[c.rec.ID] = c
		m.names[c.rec.Name] = c
	}
	return m, nil
}

func (m *Manager) containersDir() string { return filepath.Join(m.o.Root, "containers") }

// mountPoint is an empty directory on which every root filesystem is mounted, each in a mount namespace
// that sees only its own: of a container, or of one thread (core/container/rootfs).
func (m *Manager) mountPoint() string { return filepath.Join(m.o.ExecRoot, "mnt") }

// directory has the container's log, hostname, hosts and resolv.conf.
func (m *Manager) directory(id string) string { return filepath.Join(m.containersDir(), id) }

// Container is one container. The exported methods of Manager find it by reference.
type Container struct {
	id string
	op opLock // held for the whole of a change, see the package comment

	keeping sync.Mutex // held while the state is written, and taken before mu
	struck  bool       // its record is deleted, and no state is written any more; guarded by keeping

	telling sync.RWMutex // held for reading by who ends it, until that is told, and for writing while its removal is

	mu      sync.Mutex
	rec     record // replaced as a whole, never changed in place
	state   runState
	removed bool
	// reserved: its Create has not ended.
	reserved bool
	// leaving: Remove or Restart ends it, so that no policy starts or removes it at its exit.
	leaving int
	account *account // of the present run's process; nil: to be looked up

	waiters []*waiter
	streams []*lateStream // attached before there was a process
	bound   bool          // the monitor has it: who attaches now goes there
	binding chan struct{} // closed when a start that has taken the streams is through; nil: there is none
	restart restarter
	// unwell: it is being stopped because it is unhealthy, and is to be started again.
	unwell bool
	// stopProbes ends the health probes of the present run.
	stopProbes context.CancelFunc
	ended      chan struct{} // closed when the present run has ended; nil when there is none
}

func newContainer(r record, s runState) *Container {
	return &Container{id: r.ID, op: newOpLock(), rec: r, state: s}
}

// snapshot returns the record and the state of one moment.
func (c *Container) snapshot() (record, runState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec, c.state
}

// opLock is a mutex whose waiting ends with a context.
type opLock chan struct{}

func newOpLock() opLock { return make(opLock, 1) }

func (l opLock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	default:
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l opLock) unlock() { <-l }

// emit publishes an event about the container with Docker's attributes: image, name, labels, and more.
func (m *Manager) emit(rec *record, action string, more ...string) {
	attributes := make(map[string]string, len(rec.Config.Labels)+2+len(more)/2)
	for k, v := range rec.Config.Labels {
		attributes[k] = v
	}
	attributes["image"], attributes["name"] = rec.Config.Image, rec.Name
	for i := 0; i+1 < len(more); i += 2 {
		attributes[more[i]] = more[i+1]
	}
	m.o.Events.Emit(event.Container, action, rec.ID, attributes)
}

// later runs fn in the background; Close waits for it.
func (m *Manager) later(fn func()) { m.background.run(fn) }

// background is what a Manager does by itself. It is no sync.WaitGroup, to which nothing may be added from none while
// it is waited for: here requests come to the end.
type background struct {
	mu      sync.Mutex
	running int
	none    chan struct{} // closed when none runs any more; nil: nobody waits
}

func (b *background) run(fn func()) {
	b.mu.Lock()
	b.running++
	b.mu.Unlock()
	go func() {
		defer b.done()
		fn()
	}()
}

func (b *background) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running--; b.running == 0 && b.none != nil {
		close(b.none)
		b.none = nil
	}
}

// wait returns when there is a moment at which none runs. What is begun after it belongs to a Manager that is
// closed, and ends with its context.
func (b *background) wait() {
	b.mu.Lock()
	if b.running == 0 {
		b.mu.Unlock()
		return
	}
	if b.none == nil {
		b.none = make(chan struct{})
	}
	none := b.none
	b.mu.Unlock()
	<-none
}
