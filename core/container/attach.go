package container

import (
	"context"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
)

// TTY reports whether the container has a terminal, and so its stream no frames.
func (m *Manager) TTY(ref string) (bool, error) {
	c, err := m.find(ref)
	if err != nil {
		return false, err
	}
	rec, _ := c.snapshot()
	return rec.Config.Tty, nil
}

// Resize sets the size of the container's terminal. Before there is one, the size is kept for it.
func (m *Manager) Resize(ctx context.Context, ref string, height, width uint16) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	rec, st := c.snapshot()
	if !st.live() {
		return notRunningError(&rec)
	}
	if err := m.o.Monitor.Resize(ctx, rec.ID, "", height, width); err != nil {
		return err
	}
	m.emit(&rec, "resize", "height", strconv.Itoa(int(height)), "width", strconv.Itoa(int(width)))
	return nil
}

// Attach joins the container's streams. One that does not run yet may be attached to: the stream
// begins with the process, and misses no byte of it.
func (m *Manager) Attach(ctx context.Context, ref string, o AttachOptions) (Stream, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	rec, st := c.snapshot()
	switch st.Phase {
	case paused:
		return nil, fault.New(fault.Conflict, "container %s is paused, unpause the container before attach", rec.ID)
	case restarting:
		return nil, fault.New(fault.Conflict, "container %s is restarting, wait until the container is running", rec.ID)
	}
	stream := Stream(emptyStream{})
	if o.Stream {
		config := monitor.AttachConfig{Stdin: o.Stdin && rec.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr}
		if stream, err = m.join(ctx, c, config); err != nil {
			return nil, err
		}
	}
	m.emit(&rec, "attach")
	if !o.Logs {
		return stream, nil
	}
	// Through a pipe: a log may be larger than memory.
	past, in := io.Pipe()
	logs := LogOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1}
	m.later(func() { in.CloseWithError(m.writeLogs(m.ctx, c, logs, in)) })
	return &replayed{Stream: stream, past: past, output: io.MultiReader(past, stream)}, nil
}

// join attaches to the process, or to the one that there will be.
func (m *Manager) join(ctx context.Context, c *Container, config monitor.AttachConfig) (Stream, error) {
	c.mu.Lock()
	for c.binding != nil { // too late for this start: it would miss the first bytes of what it was promised
		through := c.binding
		c.mu.Unlock()
		select {
		case <-through:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		c.mu.Lock()
	}
	if c.removed {
		c.mu.Unlock()
		return nil, noSuch(c.id)
	}
	if !c.bound {
		c.streams = slices.DeleteFunc(c.streams, (*lateStream).closed)
		s := &lateStream{config: config, ready: make(chan struct{}), gone: make(chan struct{})}
		c.streams = append(c.streams, s)
		c.mu.Unlock()
		return s, nil
	}
	c.mu.Unlock()
	f, err := m.o.Monitor.Attach(ctx, c.id, "", config)
	switch {
	case fault.Is(err, fault.NotFound): // it has just ended, and its stream with it
		return emptyStream{}, nil
	case err != nil:
		return nil, err
	}
	return fileStream{f}, nil
}

// waitingStreams are those that wait for the process. Who attaches from here on waits for bindStreams or
// settleStreams.
func (c *Container) waitingStreams() []*lateStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.binding = make(chan struct{})
	c.streams = slices.DeleteFunc(c.streams, (*lateStream).closed)
	return slices.Clone(c.streams)
}

// bindStreams joins the waiting streams to the process, which runs, by their files.
func (c *Container) bindStreams(waiting []*lateStream, files []*os.File) {
	c.mu.Lock()
	c.streams, c.bound = nil, true
	c.mu.Unlock()
	for i, s := range waiting {
		s.bind(files[i], nil)
	}
	c.settleStreams()
}

// settleStreams lets those in who attach while a start has the streams.
func (c *Container) settleStreams() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.binding != nil {
		close(c.binding)
		c.binding = nil
	}
}

// fileStream is a stream of the monitor.
type fileStream struct{ *os.File }

// CloseWrite is shutdown(2).
func (s fileStream) CloseWrite() error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// lateStream is a stream to a process that does not exist yet.
type lateStream struct {
	config monitor.AttachConfig
	ready  chan struct{} // closed by bind
	gone   chan struct{} // closed by Close

	mu     sync.Mutex
	stream Stream // set before ready is closed
	over   bool   // closed by its owner
	silent bool   // its owner has ended the input
}

// bind gives the stream its process's. A nil file is the end: there will be no process.
func (s *lateStream) bind(f *os.File, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil || f == nil:
		s.stream = emptyStream{err}
	case s.over:
		f.Close()
		s.stream = emptyStream{}
	default:
		s.stream = fileStream{f}
		if s.silent {
			_ = s.stream.CloseWrite() // of a socket: it fails only when the other end has hung up
		}
	}
	close(s.ready)
}

func (s *lateStream) closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// wait returns the process's stream when there is one.
func (s *lateStream) wait() (Stream, error) {
	select {
	case <-s.ready:
		return s.stream, nil
	case <-s.gone:
		return nil, net.ErrClosed
	}
}

func (s *lateStream) Read(p []byte) (int, error) {
	stream, err := s.wait()
	if err != nil {
		return 0, err
	}
	return stream.Read(p)
}

func (s *lateStream) Write(p []byte) (int, error) {
	stream, err := s.wait()
	if err != nil {
		return 0, err
	}
	return stream.Write(p)
}

// CloseWrite does not wait for the process: who ends the input may be about to go away.
func (s *lateStream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return net.ErrClosed
	case s.stream != nil:
		return s.stream.CloseWrite()
	}
	s.silent = true
	return nil
}

// Close may be called while others read and write, and more than once.
func (s *lateStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		close(s.gone)
	}
	if s.stream != nil {
		return s.stream.Close()
	}
	return nil
}

// emptyStream has ended, with an error or without.
type emptyStream struct{ err error }

func (s emptyStream) Read([]byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return 0, io.EOF
}

func (s emptyStream) Write(p []byte) (int, error) { return 0, net.ErrClosed }
func (emptyStream) CloseWrite() error             { return nil }
func (emptyStream) Close() error                  { return nil }

// replayed is a stream with the past before it.
type replayed struct {
	Stream
	past   *io.PipeReader
	output io.Reader
}

func (r *replayed) Close() error {
	_ = r.past.Close() // never fails
	return r.Stream.Close()
}

func (r *replayed) Read(p []byte) (int, error) { return r.output.Read(p) }
