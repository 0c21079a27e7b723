package server

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

// session is one connected client. Each of its requests has a goroutine, so that one that waits
// holds up no other.
type session struct {
	s    *Server
	conn *protocol.Conn

	// gone ends with the connection. What only reads (wait, watch) ends with it; what changes
	// something is carried through, so that a daemon that was killed finds a whole or nothing.
	gone  context.Context
	leave context.CancelFunc

	mu      sync.Mutex
	running map[uint32]context.CancelFunc
}

func newSession(s *Server, conn *protocol.Conn) *session {
	c := &session{s: s, conn: conn, running: map[uint32]context.CancelFunc{}}
	c.gone, c.leave = context.WithCancel(context.Background())
	return c
}

// serve answers requests until the client is gone.
func (c *session) serve() {
	defer c.conn.Close()
	defer c.leave()
	for {
		f, err := c.conn.Receive()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.s.log.Debug("connection of a client ended", "error", err)
			}
			return
		}
		var r protocol.Request
		if err := protocol.Decode(f.Body, &r); err != nil {
			closeAll(f.Files)
			c.s.log.Warn("client sent what is no request", "error", err)
			return
		}
		if r.Verb == protocol.Cancel {
			closeAll(f.Files)
			c.mu.Lock()
			cancel := c.running[f.ID]
			c.mu.Unlock()
			if cancel != nil {
				cancel()
			}
			continue
		}
		c.begin(f, r)
	}
}

// begin runs a request in a goroutine of its own.
func (c *session) begin(f protocol.Frame, r protocol.Request) {
	base := context.Background()
	if r.Verb == protocol.Wait || r.Verb == protocol.Watch {
		base = c.gone
	}
	ctx, cancel := context.WithCancel(base)
	c.mu.Lock()
	if c.running[f.ID] != nil {
		c.mu.Unlock()
		cancel()
		closeAll(f.Files)
		c.conn.Close()
		return
	}
	c.running[f.ID] = cancel
	c.mu.Unlock()
	go func() {
		defer cancel()
		call := &call{Request: r, id: f.ID, files: f.Files}
		result, out, err := c.guard(ctx, call)
		closeAll(call.files)
		// Forgotten before the answer: with it the client may use the id again.
		c.mu.Lock()
		delete(c.running, f.ID)
		c.mu.Unlock()
		if r.Verb != protocol.Watch || err != nil {
			c.answer(f.ID, result, out, err)
		}
		closeAll(out)
		if call.after != nil {
			c.finish(call)
		}
	}()
}

// call is a request that is being run.
type call struct {
	protocol.Request
	id    uint32
	files []*os.File // that came with it; closed at the end unless they were taken away from here
	after func()     // runs when the answer was sent
}

// answer sends the response, or why it cannot be sent. A client that is gone does not get it.
func (c *session) answer(id uint32, result any, files []*os.File, err error) {
	err = c.send(id, result, files, err)
	var unsent *protocol.Unsent
	if errors.As(err, &unsent) {
		err = c.send(id, nil, nil, err)
	}
	if err != nil {
		c.conn.Close() // the client would wait for ever
	}
}

func (c *session) send(id uint32, result any, files []*os.File, err error) error {
	var r protocol.Response
	if err == nil {
		r.Result, err = protocol.Encode(result)
	}
	r.Error = protocol.ErrorOf(err)
	body, err := protocol.Encode(r)
	if err != nil {
		return err
	}
	return c.conn.Send(id, body, files)
}

// guard keeps a fault of ours in one request from taking every container's pipes along.
func (c *session) guard(ctx context.Context, r *call) (result any, out []*os.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(r, p)
		}
	}()
	return c.handle(ctx, r)
}

// finish does what comes after the answer, as guarded as what came before it.
func (c *session) finish(r *call) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(r, p) //nolint:errcheck // there is nobody to tell but the log
		}
	}()
	r.after()
}

func (c *session) panicked(r *call, p any) error {
	c.s.log.Error("panic", "verb", r.Verb, "container", r.ID, "panic", p, "stack", string(debug.Stack()))
	return fault.New(fault.Internal, "monitor: %s %s: panic: %v", r.Verb, r.ID, p)
}

// handle runs one request. Files that it returns are sent and then closed.
func (c *session) handle(ctx context.Context, r *call) (any, []*os.File, error) {
	s := c.s
	switch r.Verb {
	case protocol.Hello:
		return protocol.HelloResult{Version: protocol.Version, Pid: os.Getpid()}, nil, nil
	case protocol.List:
		return s.list(ctx), nil, nil
	case protocol.Shutdown:
		finish, err := s.shutdown()
		if err == nil {
			r.after = finish
		}
		return nil, nil, err
	case protocol.Create:
		return c.create(ctx, r)
	case protocol.Watch:
		return nil, nil, c.watch(ctx, r.id)
	case protocol.Delete:
		var a protocol.DeleteArgs
		if err := protocol.Decode(r.Args, &a); err != nil {
			return nil, nil, err
		}
		if a.Later {
			var err error
			r.after, err = s.discard(ctx, r.ID, a.Force)
			return nil, nil, err
		}
		return nil, nil, s.delete(ctx, r.ID, a.Force)
	}
	k, err := s.container(ctx, r.ID)
	if err != nil {
		return nil, nil, err
	}
	switch r.Verb {
	case protocol.Start:
		return nil, nil, k.start(ctx)
	case protocol.Pause:
		return nil, nil, k.setPaused(ctx, true)
	case protocol.Resume:
		return nil, nil, k.setPaused(ctx, false)
	case protocol.Stats:
		v, err := k.oci.Stats()
		return v, nil, err
	case protocol.Pids:
		v, err := k.oci.Pids()
		return v, nil, err
	case protocol.DeleteExec:
		return nil, nil, k.deleteExec(r.Exec)
	case protocol.Kill:
		var a protocol.KillArgs
		if err := protocol.Decode(r.Args, &a); err != nil {
			return nil, nil, err
		}
		if r.Exec != "" {
			return nil, nil, k.killExec(r.Exec, unix.Signal(a.Signal))
		}
		return nil, nil, k.kill(unix.Signal(a.Signal), a.All)
	case protocol.Update:
		var a specs.LinuxResources
		if err := protocol.Decode(r.Args, &a); err != nil {
			return nil, nil, err
		}
		return nil, nil, k.oci.Update(&a)
	case protocol.Forward:
		var a []netip.AddrPort
		if err := protocol.Decode(r.Args, &a); err != nil {
			return nil, nil, err
		}
		k.forward(a)
		return nil, nil, nil
	case protocol.Exec:
		return c.exec(ctx, k, r)
	}
	p, err := k.process(r.Exec)
	if err != nil {
		return nil, nil, err
	}
	return onProcess(ctx, k, p, r)
}

// onProcess runs the verbs that are about one process.
func onProcess(ctx context.Context, k *container, p *process, r *call) (any, []*os.File, error) {
	switch r.Verb {
	case protocol.Wait:
		select {
		case <-p.exited:
			return p.exit, nil, nil
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	case protocol.Resize:
		var a protocol.ResizeArgs
		if err := protocol.Decode(r.Args, &a); err != nil {
			return nil, nil, err
		}
		return nil, nil, p.resize(a.Height, a.Width)
	case protocol.Attach:
		var a monitor.AttachConfig
		if err := protocol.Decode(r.Args, &a); err != nil {
			return nil, nil, err
		}
		if k.adopted && p == k.init {
			return nil, nil, fault.New(fault.Conflict, "attach to container %s: its streams were lost with an earlier monitor", k.id)
		}
		client, err := p.attach(a)
		if err != nil {
			return nil, nil, err
		}
		return nil, []*os.File{client}, nil
	}
	return nil, nil, fault.New(fault.NotImplemented, "the monitor has no verb %q", r.Verb)
}

func (c *session) create(ctx context.Context, r *call) (any, []*os.File, error) {
	var a monitor.CreateArgs
	if err := protocol.Decode(r.Args, &a); err != nil {
		return nil, nil, err
	}
	a.Hold = r.files
	if a.WithNetNS {
		if len(r.files) == 0 {
			return nil, nil, fault.New(fault.Invalid, "create container %s: the network namespace did not come", a.ID)
		}
		a.NetNS, a.Hold = r.files[0], r.files[1:]
	}
	k, err := c.s.create(ctx, a.Config)
	if err != nil {
		return nil, nil, err
	}
	r.files = nil
	if !a.Run {
		return k.status(), nil, nil
	}
	streams, err := k.run(ctx, a.Attach)
	if err != nil {
		return nil, nil, err
	}
	return k.status(), streams, nil
}

func (c *session) exec(ctx context.Context, k *container, r *call) (any, []*os.File, error) {
	var a monitor.ExecArgs
	if err := protocol.Decode(r.Args, &a); err != nil {
		return nil, nil, err
	}
	if a.ID == "" {
		return nil, nil, fault.New(fault.Invalid, "exec in container %s: no id is given", k.id)
	}
	if _, err := k.process(a.ID); err == nil {
		return nil, nil, fault.New(fault.Exists, "exec process %s exists already", a.ID)
	}
	e, client, err := k.exec(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	k.add(e)
	go c.s.superviseExec(k, e)
	var out []*os.File
	if client != nil {
		out = []*os.File{client}
	}
	return e.status(k.id), out, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
