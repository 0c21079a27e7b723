package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
)

// A tunnel begins with a line of JSON each way: which task and which of its ports is wanted, and whether that
// is given. Then it has the bytes of the connection.

// maxLine bounds such a line, in bytes.
const maxLine = 1 << 10

// greetTime is how long the other node may take for its line.
const greetTime = 10 * time.Second

type greeting struct {
	Task string `json:"task"`
	Port uint32 `json:"port"` // of the container
}

type answer struct {
	Error string `json:"error,omitempty"`
}

// tunnel connects to a task of another node.
func (m *Mesh) tunnel(ctx context.Context, t session.Target, port uint32) (net.Conn, error) {
	conn, err := m.o.Dial(ctx, t.Node, t.Addr)
	if err != nil {
		return nil, err
	}
	if err := ask(ctx, conn, greeting{t.Task, port}); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("node %s: %w", t.Node, err)
	}
	return conn, nil
}

// ask says what is wanted of a tunnel, and waits for the answer.
func ask(ctx context.Context, conn net.Conn, g greeting) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	var said answer
	err := writeLine(conn, g)
	if err == nil {
		err = readLine(conn, &said)
	}
	switch {
	case !stop():
		return context.Cause(ctx)
	case err != nil:
		return err
	case said.Error != "":
		return fault.New(fault.Unavailable, "%s", said.Error)
	}
	return nil
}

// Serve carries a connection of another node's mesh to a task of this one: the handler of transport's tunnels.
// It returns when the connection has ended.
func (m *Mesh) Serve(ctx context.Context, conn net.Conn) {
	if !m.begin() {
		_ = conn.Close()
		return
	}
	defer m.work.Done()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer context.AfterFunc(m.ctx, func() { _ = conn.Close() })()
	task, err := m.greet(conn)
	if err != nil {
		m.log.Debug("a tunnel is refused", "from", conn.RemoteAddr(), "error", err)
		_ = writeLine(conn, answer{shortened(err.Error())})
		_ = conn.Close()
		return
	}
	defer func() { <-m.in }()
	if err := writeLine(conn, answer{}); err != nil {
		reset(conn)
		reset(task)
		return
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		reset(conn)
		reset(task)
		return
	}
	m.join(conn, task)
}

// begin counts a connection that the transport brings; false once the Mesh is closed.
func (m *Mesh) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return false
	}
	m.work.Add(1)
	return true
}

// greet reads what is wanted and connects to it. That the task is this node's and the port one that its service
// publishes is for the node to know, whatever the other one says. The connection has a place then.
func (m *Mesh) greet(conn net.Conn) (net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(greetTime)); err != nil {
		return nil, err
	}
	var wanted greeting
	if err := readLine(conn, &wanted); err != nil {
		return nil, err
	}
	select {
	case m.in <- struct{}{}:
	default:
		return nil, fault.New(fault.Unavailable, "%d connections are carried, and no more", m.o.MaxConns)
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.o.DialTimeout)
	defer cancel()
	task, err := m.dial(ctx, wanted.Task, wanted.Port)
	if err != nil {
		<-m.in
	}
	return task, err
}

func writeLine(conn net.Conn, v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = conn.Write(append(line, '\n'))
	}
	return err
}

// readLine reads a line and not a byte more.
func readLine(conn net.Conn, v any) error {
	var line []byte
	for b := make([]byte, 1); len(line) < maxLine; line = append(line, b[0]) {
		if _, err := conn.Read(b); err != nil {
			return err
		}
		if b[0] == '\n' {
			if err := json.Unmarshal(line, v); err != nil {
				return fault.New(fault.Invalid, "the first line of a tunnel: %w", err)
			}
			return nil
		}
	}
	return fault.New(fault.Invalid, "the first line of a tunnel: expected at most %d bytes", maxLine)
}

// shortened fits an error into a line, of whose characters JSON makes up to six.
func shortened(s string) string {
	return s[:min(len(s), maxLine/8)]
}
