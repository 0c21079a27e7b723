package monitor

import (
	"context"
	"net/netip"
	"os"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

// CreateArgs is a Config on its way. Of the files that come with it the network namespace is the
// first, if there is one, and the rest are to be held.
type CreateArgs struct {
	Config
	WithNetNS bool           `json:"withNetns,omitempty"`
	Run       bool           `json:"run,omitempty"` // attach and start as well
	Attach    []AttachConfig `json:"attach,omitempty"`
}

// ExecArgs is an ExecConfig on its way. With Attach the answer brings the stream.
type ExecArgs struct {
	ExecConfig
	Attach *AttachConfig `json:"attach,omitempty"`
}

// Create makes the container: its init exists and waits for Start. An id that the monitor knows is
// fault.Exists. When it fails nothing of the container is left.
func (c *Client) Create(ctx context.Context, o Config) (Status, error) {
	s, _, err := c.create(ctx, CreateArgs{Config: o})
	return s, err
}

// Run is Create, an Attach for each of attach, and Start, in one exchange: between the three there is nothing
// for the daemon to do but to wait. After another error than fault.Exists a container may be left, which is
// to be deleted.
func (c *Client) Run(ctx context.Context, o Config, attach []AttachConfig) (Status, []*os.File, error) {
	s, streams, err := c.create(ctx, CreateArgs{Config: o, Run: true, Attach: attach})
	if err == nil && len(streams) != len(attach) {
		closeAll(streams)
		err = fault.New(fault.Internal, "monitor sent %d streams, expected %d", len(streams), len(attach))
	}
	return s, streams, err
}

func (c *Client) create(ctx context.Context, args CreateArgs) (s Status, streams []*os.File, err error) {
	files := args.Hold
	if args.NetNS != nil {
		args.WithNetNS = true
		files = append([]*os.File{args.NetNS}, args.Hold...)
	}
	streams, err = c.call(ctx, protocol.Request{Verb: protocol.Create, ID: args.ID}, args, &s, files...)
	return s, streams, err
}

// Start lets the container's program run. It returns when the program was executed, or with why it
// could not be; then the container ends, and is to be deleted.
func (c *Client) Start(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Start, ID: id}, nil, nil)
	return err
}

// Kill sends the signal to the init, or to every process of the container with all.
func (c *Client) Kill(ctx context.Context, id string, sig int, all bool) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Kill, ID: id}, protocol.KillArgs{Signal: sig, All: all}, nil)
	return err
}

// KillExec sends a signal to an exec process of the container.
func (c *Client) KillExec(ctx context.Context, id, execID string, sig int) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Kill, ID: id, Exec: execID}, protocol.KillArgs{Signal: sig}, nil)
	return err
}

// Delete removes a container that has ended, its cgroup and its held files, and forgets it. With force
// it is killed first. A container that the monitor does not know is fault.NotFound, so that a
// second Delete after a crash does no harm.
func (c *Client) Delete(ctx context.Context, id string, force bool) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Delete, ID: id}, protocol.DeleteArgs{Force: force}, nil)
	return err
}

// Discard is a Delete with force for an id that does not come back. It returns when the container has no process
// and its held files are closed, and is no longer listed; the cgroup goes right after. What fails then is the
// monitor's to log, and the container is listed again.
func (c *Client) Discard(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Delete, ID: id}, protocol.DeleteArgs{Force: true, Later: true}, nil)
	return err
}

// Exec starts a further process in a running container. What it writes before somebody attaches is
// dropped: ExecAttach is for those who want it.
func (c *Client) Exec(ctx context.Context, id string, o ExecConfig) (Status, error) {
	var s Status
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Exec, ID: id, Exec: o.ID}, ExecArgs{ExecConfig: o}, &s)
	return s, err
}

// ExecAttach is Exec and Attach in one: the stream has the process's first byte.
func (c *Client) ExecAttach(ctx context.Context, id string, o ExecConfig, a AttachConfig) (Status, *os.File, error) {
	var s Status
	files, err := c.call(ctx, protocol.Request{Verb: protocol.Exec, ID: id, Exec: o.ID}, ExecArgs{ExecConfig: o, Attach: &a}, &s)
	if err != nil {
		return s, nil, err
	}
	f, err := stream(files)
	return s, f, err
}

// DeleteExec forgets an exec process that has ended.
func (c *Client) DeleteExec(ctx context.Context, id, execID string) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.DeleteExec, ID: id, Exec: execID}, nil, nil)
	return err
}

// Attach joins the streams of the container, or of the exec process when execID is set. The file is
// one end of a stream socket. Output comes in frames of 8 bytes (stream, 0, 0, 0, length as uint32,
// big-endian) and that many bytes, or as it is from a terminal; it ends when the process has
// ended and all was sent. What is written to it goes to the process's stdin; shutting it down for
// writing ends the stdin of an exec process, and of a container with StdinOnce, unless it is a
// terminal. Closing it detaches. Whoever attaches before Start misses nothing.
func (c *Client) Attach(ctx context.Context, id, execID string, o AttachConfig) (*os.File, error) {
	files, err := c.call(ctx, protocol.Request{Verb: protocol.Attach, ID: id, Exec: execID}, o, nil)
	if err != nil {
		return nil, err
	}
	return stream(files)
}

// stream takes the one file of an answer, ready for Go's poller, so that closing it ends a read.
func stream(files []*os.File) (*os.File, error) {
	if len(files) != 1 {
		closeAll(files)
		return nil, fault.New(fault.Internal, "monitor sent %d files, expected a stream", len(files))
	}
	return files[0], nil
}

// Resize sets the size of the terminal.
func (c *Client) Resize(ctx context.Context, id, execID string, height, width uint16) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Resize, ID: id, Exec: execID}, protocol.ResizeArgs{Height: height, Width: width}, nil)
	return err
}

// Wait blocks until the process has ended and its log is complete. It may be called before and after.
func (c *Client) Wait(ctx context.Context, id, execID string) (Exit, error) {
	var e Exit
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Wait, ID: id, Exec: execID}, nil, &e)
	return e, err
}

// Pause freezes every process of the container.
func (c *Client) Pause(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Pause, ID: id}, nil, nil)
	return err
}

// Resume ends Pause.
func (c *Client) Resume(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Resume, ID: id}, nil, nil)
	return err
}

// Forward gives the sockets that the monitor serves for a container other targets: Config.Forward anew.
func (c *Client) Forward(ctx context.Context, id string, targets []netip.AddrPort) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Forward, ID: id}, targets, nil)
	return err
}

// Update changes the limits of the container.
func (c *Client) Update(ctx context.Context, id string, r *specs.LinuxResources) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Update, ID: id}, r, nil)
	return err
}

// Stats reads the counters of the container's cgroup.
func (c *Client) Stats(ctx context.Context, id string) (cgroup.Stats, error) {
	var s cgroup.Stats
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Stats, ID: id}, nil, &s)
	return s, err
}

// Pids returns the processes of the container, as the host numbers them.
func (c *Client) Pids(ctx context.Context, id string) ([]int, error) {
	var pids []int
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Pids, ID: id}, nil, &pids)
	return pids, err
}

// List returns every container from Create to Delete, with its exec processes, ordered by id.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var list []Status
	_, err := c.call(ctx, protocol.Request{Verb: protocol.List}, nil, &list)
	return list, err
}

// Shutdown ends the monitor. With running containers it is refused: fault.Conflict.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.call(ctx, protocol.Request{Verb: protocol.Shutdown}, nil, nil)
	return err
}

// Watch returns a channel of ends: first those of containers that were not deleted yet, also when
// they ended before this client or its daemon existed, then each as it happens. An end may come twice,
// never not at all. The channel closes when ctx ends or the monitor is lost. A caller that does not
// read holds up nobody: what it has not read is queued here.
func (c *Client) Watch(ctx context.Context) (<-chan Event, error) {
	l, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	q := &queue{wake: make(chan struct{}, 1)}
	p := &pending{gone: make(chan struct{}), events: q.put}
	id, err := l.send(protocol.Request{Verb: protocol.Watch}, p, nil)
	if err != nil {
		return nil, err
	}
	events := make(chan Event)
	go func() {
		defer close(events)
		defer l.forget(id)
		for {
			select {
			case <-q.wake:
			case <-p.gone:
				return
			case <-ctx.Done():
				return
			}
			for _, e := range q.take() {
				select {
				case events <- e:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return events, nil
}

// queue holds events that a Watch has received and its caller has not read. It must not block the
// goroutine that reads the connection.
type queue struct {
	mu     sync.Mutex
	events []Event
	wake   chan struct{}
}

func (q *queue) put(r protocol.Response) {
	var e Event
	if r.Error != nil || protocol.Decode(r.Result, &e) != nil {
		return
	}
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	return events
}
