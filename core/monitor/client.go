package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

// Client speaks to a monitor over one connection, on which any number of requests are under way.
// When the connection is lost, requests in progress fail with fault.Unavailable, and the next one
// connects again, which starts another monitor if the first is gone.
type Client struct {
	options EnsureOptions
	log     *slog.Logger

	mu     sync.Mutex
	link   *link
	closed bool
}

// link is one connection with what waits for its answers.
type link struct {
	conn *protocol.Conn

	mu      sync.Mutex
	last    uint32
	pending map[uint32]*pending
	err     error // why the connection ended; set once
}

// pending is a request that has not been answered, or a watch.
type pending struct {
	answer chan answer // of one element, for a request
	events func(protocol.Response)
	gone   chan struct{} // closed when the connection is lost
}

type answer struct {
	response protocol.Response
	files    []*os.File
}

// connect makes a link over conn and reads from it until it ends.
func connect(conn *protocol.Conn) *link {
	l := &link{conn: conn, pending: map[uint32]*pending{}}
	go l.read()
	return l
}

func (l *link) read() {
	for {
		f, err := l.conn.Receive()
		if err != nil {
			l.end(err)
			return
		}
		var a answer
		if err := protocol.Decode(f.Body, &a.response); err != nil {
			closeAll(f.Files)
			l.end(err)
			return
		}
		a.files = f.Files
		l.mu.Lock()
		p := l.pending[f.ID]
		if p != nil && p.events == nil {
			delete(l.pending, f.ID)
		}
		l.mu.Unlock()
		switch {
		case p == nil: // given up by its caller
			closeAll(f.Files)
		case p.events != nil:
			p.events(a.response)
		default:
			p.answer <- a
		}
	}
}

// end marks the link as lost and wakes all who wait.
func (l *link) end(err error) {
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = fault.New(fault.Unavailable, "connection to the monitor lost: %w", err)
	for id, p := range l.pending {
		close(p.gone)
		delete(l.pending, id)
	}
}

func (l *link) lost() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// send sends a request and registers who waits for its answer.
func (l *link) send(r protocol.Request, p *pending, files []*os.File) (id uint32, err error) {
	body, err := protocol.Encode(r)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return 0, l.err
	}
	for l.last++; l.last == 0 || l.pending[l.last] != nil; l.last++ { // an id is not used twice at a time
	}
	id = l.last
	l.pending[id] = p
	l.mu.Unlock()
	if err := l.conn.Send(id, body, files); err != nil {
		var unsent *protocol.Unsent
		if errors.As(err, &unsent) { // it is this request's failure alone
			l.mu.Lock()
			delete(l.pending, id)
			l.mu.Unlock()
			return 0, fmt.Errorf("monitor: %s: %w", r.Verb, err)
		}
		l.end(err)
		return 0, l.lost()
	}
	return id, nil
}

// forget gives a request up and tells the monitor so. It reports whether nothing will come of the request any more;
// else its answer is being delivered, or its loss.
func (l *link) forget(id uint32) bool {
	l.mu.Lock()
	_, waiting := l.pending[id]
	delete(l.pending, id)
	l.mu.Unlock()
	if waiting {
		if body, err := protocol.Encode(protocol.Request{Verb: protocol.Cancel}); err == nil {
			l.conn.Send(id, body, nil) //nolint:errcheck // a lost connection gives up by itself
		}
	}
	return waiting
}

// call sends one request and waits for its answer.
func (l *link) call(ctx context.Context, r protocol.Request, files []*os.File) (answer, error) {
	p := &pending{answer: make(chan answer, 1), gone: make(chan struct{})}
	id, err := l.send(r, p, files)
	if err != nil {
		return answer{}, err
	}
	select {
	case a := <-p.answer:
		return a, a.response.Error.Err()
	case <-p.gone:
		return answer{}, l.lost()
	case <-ctx.Done():
		if !l.forget(id) {
			select {
			case a := <-p.answer: // it came at the same moment
				closeAll(a.files)
			case <-p.gone:
			}
		}
		return answer{}, fmt.Errorf("monitor: %s %s: %w", r.Verb, r.ID, context.Cause(ctx))
	}
}

// connection returns the living link, after having found or started a monitor if need be.
func (c *Client) connection(ctx context.Context) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fault.New(fault.Unavailable, "the monitor's client is closed")
	}
	if c.link != nil && c.link.lost() == nil {
		return c.link, nil
	}
	if c.link != nil {
		c.log.Warn("connection to the monitor lost, connecting again", "socket", c.options.Socket, "error", c.link.lost())
	}
	l, err := ensure(ctx, c.options, c.log)
	if err != nil {
		return nil, err
	}
	c.link = l
	return l, nil
}

// Close ends the connection. Containers go on.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.link != nil {
		c.link.end(errors.New("closed by the client"))
	}
	return nil
}

// call runs a verb with args and decodes its result.
func (c *Client) call(ctx context.Context, r protocol.Request, args, result any, files ...*os.File) ([]*os.File, error) {
	var err error
	if r.Args, err = protocol.Encode(args); err != nil {
		return nil, err
	}
	l, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	crash.Point("monitor before", r.Verb)
	a, err := l.call(ctx, r, files)
	crash.Point("monitor after", r.Verb)
	if err == nil && result != nil {
		err = protocol.Decode(a.response.Result, result)
	}
	if err != nil {
		closeAll(a.files)
		return nil, err
	}
	return a.files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
