// Package server is the monitor itself: the process that is the parent of every container of an
// exec-root, and holds their pipes, terminals, logs and exit statuses while daemons come and go.
// What it promises is written in core/monitor, whose Client speaks to it; how, in
// core/monitor/protocol.
//
// # One container
//
// Create makes the pipes, opens the log, and lets core/runtime make the container in this process,
// which so becomes the parent of its init. From then on three goroutines wait in Go's poller, with
// neither thread nor buffer: one for each output stream, one for the pidfd. Output goes to the log,
// then to the attached clients. When the pidfd says that the init has ended its status is reaped,
// the pipes are read to their end, the log is closed, everybody is told who asked by Wait or Watch, and the exit is
// written to a file, for the monitor after this one, should this one be killed; where nobody watches that comes first.
// Delete lets core/runtime remove the container, and forgets it.
//
// # Trust
//
// The socket has mode 0600, and only root and the monitor's own user are served (SO_PEERCRED).
// Messages are bounded. Nothing that a container writes is parsed.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/protocol"
	"github.com/sampan-project/sampan/core/runtime"
	"github.com/sampan-project/sampan/core/runtime/external"
)

// settleWait bounds how long a list waits for containers that are being created.
const settleWait = 10 * time.Second

// idleWait is how long a monitor without containers and clients stays: a daemon that is restarted
// finds it still there.
const idleWait = time.Second

// Options describe a monitor.
type Options struct {
	Socket   string   // path of its socket
	Listener *os.File // the listening socket, when the client has made it; nil: Run makes it
	Root     string   // OCI state is below runtime/ and, of other runtimes, external/; exit statuses in exits/
	Logger   *slog.Logger
}

// Server is a running monitor.
type Server struct {
	socket string
	rt     oci
	exits  exits
	log    *slog.Logger
	idle   time.Duration
	told   time.Duration // toldWait

	external *external.Runtimes // makes the containers that ask for another runtime

	mu         sync.Mutex
	containers map[string]*container    // a nil one is being created
	creating   map[string]chan struct{} // closed when what becomes of it is decided
	sessions   map[*session]bool
	watches    map[*watch]bool
	idleTimer  *time.Timer
	removals   sync.WaitGroup // that a discard has promised
	over       bool
	done       chan struct{} // closed when the monitor is to end
	listener   *net.UnixListener
}

// Run is the monitor's life: it returns when there is nothing left to do, or on Shutdown. The
// program that calls it must have the runtime's init verb, and must not have children of its own.
func Run(ctx context.Context, o Options) error {
	init, err := runtime.SealSelf()
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	if init != nil {
		defer init.Close()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	rt, err := runtime.New(runtime.Options{Root: filepath.Join(o.Root, "runtime"), Init: init, Logger: o.Logger})
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	s, err := newServer(o, realOCI{rt})
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	if err := rt.ClearAll(); err != nil {
		o.Logger.Warn("creations that were cut off are not cleared", "error", err)
	}
	stopOrphans, err := adoptOrphans(s)
	if err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	defer stopOrphans()
	return s.serve(ctx)
}

func newServer(o Options, rt oci) (*Server, error) {
	s := &Server{
		socket: o.Socket, rt: rt, log: o.Logger, idle: idleWait, told: toldWait,
		containers: map[string]*container{}, creating: map[string]chan struct{}{}, sessions: map[*session]bool{}, watches: map[*watch]bool{},
		done:     make(chan struct{}),
		external: external.New(filepath.Join(o.Root, "external"), o.Logger),
	}
	listener, err := listen(o)
	if err != nil {
		return nil, err
	}
	s.listener = listener
	if s.exits, err = openExits(filepath.Join(o.Root, "exits")); err == nil {
		err = s.adopt()
	}
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	return s, nil
}

// listen takes the listener that the client has made, or makes one unless a monitor is there.
func listen(o Options) (*net.UnixListener, error) {
	f := o.Listener
	if f == nil {
		unlock, err := protocol.Lock(o.Socket, true)
		if err != nil {
			return nil, err
		}
		defer unlock()
		if c, err := protocol.Dial(o.Socket); err == nil {
			c.Close()
			return nil, fault.New(fault.Conflict, "a monitor listens on %s already", o.Socket)
		}
		if f, err = protocol.Listen(o.Socket); err != nil {
			return nil, err
		}
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Socket, err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fault.New(fault.Invalid, "the inherited descriptor is no unix socket")
	}
	ul.SetUnlinkOnClose(false) // see endIfIdle
	return ul, nil
}

// serve accepts clients until the monitor is to end.
func (s *Server) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		finish, err := s.shutdown()
		if err != nil {
			s.log.Warn("told to end, and does not", "error", err)
			return
		}
		finish()
	})
	defer stop()
	s.mu.Lock()
	s.checkIdle()
	s.mu.Unlock()
	s.log.Info("monitor is ready", "pid", os.Getpid(), "socket", s.socket)
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			select {
			case <-s.done:
				s.log.Info("monitor ends", "pid", os.Getpid())
				return nil
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept on %s: %w", s.socket, err)
			}
			// Out of descriptors or memory: containers end, and it goes on.
			s.log.Error("accept", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		s.welcome(conn)
	}
}

// welcome begins a session with a client that may have one.
func (s *Server) welcome(conn *net.UnixConn) {
	uid, err := protocol.Peer(conn)
	if err != nil || uid != 0 && uid != uint32(os.Geteuid()) {
		s.log.Warn("client refused", "uid", uid, "error", err)
		_ = conn.Close()
		return
	}
	c := newSession(s, protocol.NewConn(conn))
	s.mu.Lock()
	s.sessions[c] = true
	s.mu.Unlock()
	go func() {
		c.serve()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, c)
		s.checkIdle()
	}()
}

// checkIdle starts the timer of the end when there is nothing to do. The lock is held.
func (s *Server) checkIdle() {
	if s.idleTimer != nil {
		s.idleTimer.Stop()
		s.idleTimer = nil
	}
	if len(s.containers) == 0 && len(s.sessions) == 0 && !s.over {
		s.idleTimer = time.AfterFunc(s.idle, s.endIfIdle)
	}
}

// endIfIdle ends the monitor unless somebody came. The socket is removed under its lock: whoever
// wants a monitor at the same moment either reached this one before, or waits for the lock and then
// starts another.
func (s *Server) endIfIdle() {
	unlock, err := protocol.Lock(s.socket, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.checkIdle()
		return
	}
	defer unlock()
	if len(s.containers) == 0 && len(s.sessions) == 0 && !s.over {
		s.end()
	}
}

// end makes serve return. The lock of the server and that of the socket are held.
func (s *Server) end() {
	s.over = true
	os.Remove(s.socket)
	close(s.done)
	_ = s.listener.Close()
}

// shutdown ends the monitor unless containers run. When it returns without error the end is
// decided, what discards have promised is done, and the end comes with the call of finish.
func (s *Server) shutdown() (finish func(), err error) {
	unlock, err := protocol.Lock(s.socket, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	if err := s.decideEnd(); err != nil {
		return nil, err
	}
	s.removals.Wait() // before the answer, after which whoever asked removes what was around
	return func() {
		defer unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.end()
	}, nil
}

// decideEnd refuses new containers from here on, unless there are some that run.
func (s *Server) decideEnd() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return fault.New(fault.Conflict, "the monitor is ending already")
	}
	var running []string
	for id, c := range s.containers {
		if c == nil || !c.ended() {
			running = append(running, id)
		}
	}
	if len(running) > 0 {
		slices.Sort(running)
		return fault.New(fault.Conflict, "the monitor has running containers: %s", strings.Join(running, ", "))
	}
	s.over = true
	return nil
}

// container returns a container that exists. Of one that is being created it waits for the outcome: who gave
// its creation up and deletes it must not be told that there is none.
func (s *Server) container(ctx context.Context, id string) (*container, error) {
	for {
		s.mu.Lock()
		c, creation := s.containers[id], s.creating[id]
		s.mu.Unlock()
		switch {
		case c != nil:
			return c, nil
		case creation == nil:
			return nil, notFound(id)
		}
		select {
		case <-creation:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// settle waits for the creations that are under way: a daemon that was killed may have begun them, and the
// next one asks only once.
func (s *Server) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	s.mu.Lock()
	creations := slices.Collect(maps.Values(s.creating))
	s.mu.Unlock()
	for _, c := range creations {
		select {
		case <-c:
		case <-ctx.Done():
			return
		}
	}
}

// list returns the status of all containers, ordered by id.
func (s *Server) list(ctx context.Context) []monitor.Status {
	s.settle(ctx)
	s.mu.Lock()
	all := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		if c != nil && !c.vacated.Load() {
			all = append(all, c)
		}
	}
	s.mu.Unlock()
	list := make([]monitor.Status, len(all))
	for i, c := range all {
		list[i] = c.status()
	}
	slices.SortFunc(list, func(a, b monitor.Status) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// create makes a container and begins to wait for its end.
func (s *Server) create(ctx context.Context, o monitor.Config) (c *container, err error) {
	if err := checkID(o.ID); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil, fault.New(fault.Unavailable, "the monitor is ending")
	}
	if _, ok := s.containers[o.ID]; ok {
		s.mu.Unlock()
		return nil, fault.New(fault.Exists, "container %s exists already", o.ID)
	}
	decided := make(chan struct{})
	s.containers[o.ID], s.creating[o.ID] = nil, decided
	s.mu.Unlock()

	defer func() { // after a panic, too
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.creating, o.ID)
		close(decided)
		if c == nil {
			delete(s.containers, o.ID)
			s.checkIdle()
			return
		}
		s.containers[o.ID] = c
		go s.superviseInit(c)
	}()
	return create(ctx, s.runtimeOf(o.Runtime), o)
}

// checkID keeps ids to what can be the name of a file.
func checkID(id string) error {
	bad := func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_.-+", r))
	}
	if id == "" || len(id) > 200 || id[0] == '.' || strings.ContainsFunc(id, bad) {
		return &fault.Field{Field: "container id", Given: id, Expected: "at most 200 of the characters A-Z a-z 0-9 _ . - +, the first no dot"}
	}
	return nil
}

// superviseInit waits for the end of a container and tells it.
func (s *Server) superviseInit(c *container) {
	c.init.wait()
	c.init.exit.Pid = c.init.pid
	if c.init.exit.Code != 0 && c.init.child {
		// Only for ends that may be the kernel's doing, because reading it costs time.
		if n, err := c.oci.OOMKills(); err == nil && n > 0 {
			c.oom.Store(true)
			c.init.exit.OOMKilled = c.init.exit.Signal == int(unix.SIGKILL) || c.init.exit.Code == 128+int(unix.SIGKILL)
		}
	}
	if log := c.init.out.log; log != nil && log.Dropped() > 0 {
		s.log.Warn("log is not complete, the disk did not take it", "container", c.id, "bytes", log.Dropped())
	}
	c.life.Lock() // a Start in progress comes first
	c.mu.Lock()
	started := c.started
	c.mu.Unlock()
	keep := func() {
		if err := s.exits.write(c.id, record{Started: started, Exit: c.init.exit}); err != nil {
			s.log.Warn("exit status is kept in memory only", "container", c.id, "error", err)
		}
	}
	event := monitor.Event{ID: c.id, Started: !started.IsZero(), Exit: c.init.exit}
	// A daemon that listens is told first, as it is waited for. The file is for when it has not been, or has not
	// handled it: once it is sent it is in the kernel, and outlives a monitor that is killed before the file is there.
	// A Delete waits for the file, and removes it.
	if s.heard() {
		s.sent(s.announce(c.init.exited, event))
		keep()
	} else {
		keep()
		s.announce(c.init.exited, event)
	}
	c.life.Unlock()
}

// superviseExec waits for the end of an exec process and tells it.
func (s *Server) superviseExec(c *container, e *execution) {
	e.wait()
	s.announce(e.exited, monitor.Event{ID: c.id, ExecID: e.id, Started: true, Exit: e.exit})
}

// discard lets go of what others may want of a container, and hides it. finish removes it.
func (s *Server) discard(ctx context.Context, id string, force bool) (finish func(), err error) {
	c, err := s.container(ctx, id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	// Shutdown waits for those before it. And what may have processes after its init is not let go of
	// before they are ended.
	if s.over || !c.alone {
		s.mu.Unlock()
		return nil, s.delete(ctx, id, force)
	}
	s.removals.Add(1)
	s.mu.Unlock()
	if err := c.vacate(ctx, force); err != nil {
		s.removals.Done()
		return nil, err
	}
	return func() {
		defer s.removals.Done()
		defer c.vacated.Store(false) // what is left is shown again
		if err := s.delete(context.Background(), id, force); err != nil && !fault.Is(err, fault.NotFound) {
			s.log.Error("remove a container", "container", id, "error", err)
		}
	}, nil
}

// delete removes a container and forgets it.
func (s *Server) delete(ctx context.Context, id string, force bool) error {
	c, err := s.container(ctx, id)
	if err != nil {
		return err
	}
	if err := c.delete(ctx, force); err != nil {
		return err
	}
	s.exits.remove(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[id] == c {
		delete(s.containers, id)
	}
	s.checkIdle()
	return nil
}
