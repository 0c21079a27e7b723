package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// maxFrame bounds a line of a log that another node sends.
const maxFrame = 2 << 20

// ServiceLogs writes the logs of a service's tasks, of all nodes, as their lines come. With Follow it also has those of
// tasks that come later, and ends with the service.
func (m *Manager) ServiceLogs(ctx context.Context, ref string, o wire.LogOptions, w io.Writer) error {
	s, err := m.leading()
	if err != nil {
		return err
	}
	service, err := s.service(s.store.Reader(), ref)
	if err != nil {
		return err
	}
	tty := service.Spec.TaskTemplate.ContainerSpec != nil && service.Spec.TaskTemplate.ContainerSpec.TTY
	g := &gathering{seat: s, o: o, w: w, raw: tty, begun: map[string]bool{}}
	return g.follow(ctx, func(r store.Reader) (tasks []*wire.Task, over bool) {
		return r.TasksOf(service.ID), r.Service(service.ID) == nil
	})
}

// TaskLogs writes the log of one task.
func (m *Manager) TaskLogs(ctx context.Context, ref string, o wire.LogOptions, w io.Writer) error {
	s, err := m.leading()
	if err != nil {
		return err
	}
	t, err := s.task(s.store.Reader(), ref)
	if err != nil {
		return err
	}
	g := &gathering{seat: s, o: o, w: w, raw: t.Spec.ContainerSpec != nil && t.Spec.ContainerSpec.TTY, begun: map[string]bool{}}
	return g.follow(ctx, func(r store.Reader) ([]*wire.Task, bool) {
		now := r.Task(t.ID)
		if now == nil {
			return nil, true
		}
		return []*wire.Task{now}, now.NodeID != "" // it will get no other node
	})
}

// gathering brings the logs of several tasks into one answer.
type gathering struct {
	seat *seat
	o    wire.LogOptions
	raw  bool // without frames

	mu    sync.Mutex
	w     io.Writer
	begun map[string]bool // by task
	work  sync.WaitGroup
	err   error
}

func (g *gathering) follow(ctx context.Context, tasks func(store.Reader) ([]*wire.Task, bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer g.work.Wait()
	defer cancel()
	for {
		changed := g.seat.store.Changed()
		list, over := tasks(g.seat.store.Reader())
		for _, t := range list {
			g.begin(ctx, cancel, t)
		}
		if over || !g.o.Follow {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.err
		}
	}
	g.work.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// begin reads the log of a task that has a node. That one cannot be read is told in the others' stream.
func (g *gathering) begin(ctx context.Context, cancel context.CancelFunc, t *wire.Task) {
	if t.NodeID == "" || g.begun[t.ID] {
		return
	}
	g.begun[t.ID] = true
	g.work.Go(func() {
		err := g.seat.taskLog(ctx, t, g.o, func(frame []byte) error { return g.write(t, frame) })
		// One whose container is gone, or was never there, has no log.
		if err == nil || ctx.Err() != nil || fault.Is(err, fault.NotFound) {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		var gone writeError
		if errors.As(err, &gone) {
			g.err = err
			cancel()
			return
		}
		text := fmt.Sprintf("Error grabbing logs: task %s: %v\n", t.ID, err)
		if _, werr := g.w.Write(g.framed(stderrFrame, []byte(text))); werr != nil {
			g.err = werr
			cancel()
		}
	})
}

// writeError says that it is the client that does not take more.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

const (
	frameHeader = 8 // of Docker's streams: the stream, three zeroes, the length
	stderrFrame = 2
)

func (g *gathering) framed(stream byte, line []byte) []byte {
	if g.raw {
		return line
	}
	frame := make([]byte, frameHeader, frameHeader+len(line))
	frame[0] = stream
	binary.BigEndian.PutUint32(frame[4:], uint32(len(line)))
	return append(frame, line...)
}

// write passes on one line, with what it is of if the client wants details.
func (g *gathering) write(t *wire.Task, frame []byte) error {
	text := frame[frameHeader:]
	if g.o.Details {
		text = detailed(t, text, g.o.Timestamps)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.w.Write(g.framed(frame[0], text)); err != nil {
		return writeError{err}
	}
	return nil
}

// detailed adds to a line's own attributes whose it is: "[TIME ]KEY=VALUE,... TEXT".
func detailed(t *wire.Task, text []byte, stamped bool) []byte {
	var line []byte
	if stamped {
		if stamp, rest, ok := bytes.Cut(text, []byte(" ")); ok {
			line, text = append(append(line, stamp...), ' '), rest
		}
	}
	own, rest, _ := bytes.Cut(text, []byte(" "))
	if len(own) > 0 {
		line = append(append(line, own...), ',')
	}
	line = fmt.Appendf(line, "com.docker.swarm.node.id=%s,com.docker.swarm.service.id=%s,com.docker.swarm.task.id=%s ", t.NodeID, t.ServiceID, t.ID)
	return append(line, rest...)
}

// taskLog reads the log of a task where it runs.
func (s *seat) taskLog(ctx context.Context, t *wire.Task, o wire.LogOptions, line func(frame []byte) error) error {
	n := s.store.Reader().Node(t.NodeID)
	if n == nil {
		return fault.New(fault.NotFound, "node %s not found", t.NodeID)
	}
	if t.NodeID == s.member.who.Current().NodeID {
		return s.member.agent.Logs(ctx, t.ID, o, frameWriter(line))
	}
	if n.Status.State != wire.NodeReady {
		return fault.New(fault.Unavailable, "node %s is %s", n.ID, n.Status.State)
	}
	addr := s.dispatcher.addr(n)
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/v1/tasks/"+t.ID+"/logs?options="+url.QueryEscape(string(text)), nil)
	if err != nil {
		return err
	}
	client := s.member.net.NodeClient(n.ID, addr)
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	if err := answerError(resp); err != nil {
		return err
	}
	defer resp.Body.Close()
	return frames(resp.Body, line)
}

// frames reads Docker's frames. A stream that is cut off within one is an error.
func frames(r io.Reader, line func(frame []byte) error) error {
	frame := make([]byte, frameHeader, 4096)
	for {
		frame = frame[:frameHeader]
		if _, err := io.ReadFull(r, frame); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(frame[4:])
		if size > maxFrame {
			return fault.New(fault.Internal, "a line of %d bytes, expected %d at most", size, maxFrame)
		}
		frame = append(frame, make([]byte, size)...)
		if _, err := io.ReadFull(r, frame[frameHeader:]); err != nil {
			return err
		}
		if err := line(frame); err != nil {
			return err
		}
	}
}

// frameWriter takes frames that come whole, one with each Write: as a container's log writes them.
type frameWriter func(frame []byte) error

func (f frameWriter) Write(frame []byte) (int, error) {
	if len(frame) < frameHeader {
		return 0, fault.New(fault.Internal, "a line of a log without its header")
	}
	if err := f(frame); err != nil {
		return 0, err
	}
	return len(frame), nil
}

// answerLogs is the log of a task of this node.
func (p *member) answerLogs(w http.ResponseWriter, r *http.Request, id string) error {
	var o wire.LogOptions
	if err := json.Unmarshal([]byte(r.URL.Query().Get("options")), &o); err != nil {
		return fault.New(fault.Invalid, "options: %w", err)
	}
	out := &logBody{w: w}
	err := p.agent.Logs(r.Context(), id, o, out)
	if err != nil && out.begun {
		panic(http.ErrAbortHandler) // half a log is known by its being cut off
	}
	return err
}

// logBody sends each line at once. Its header waits for the first, so that an error can be one.
type logBody struct {
	w     http.ResponseWriter
	begun bool
}

func (b *logBody) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.w.Header().Set("Content-Type", "application/octet-stream")
	}
	n, err := b.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(b.w).Flush()
}
