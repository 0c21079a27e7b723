package client

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// dialSSH runs `ssh HOST sampan system dial-stdio`, whose standard streams are the connection: the
// user's own ssh program brings keys, agents, jump hosts and known hosts.
func dialSSH(u *url.URL) (net.Conn, error) {
	// A name that begins with a dash would be an option of ssh (CVE-2017-1000117 and its like).
	if strings.HasPrefix(u.Hostname(), "-") || u.User != nil && strings.HasPrefix(u.User.Username(), "-") {
		return nil, hostError(u.String())
	}
	args := []string{"-o", "ConnectTimeout=30", "-T"}
	if u.User != nil {
		args = append(args, "-l", u.User.Username())
	}
	if u.Port() != "" {
		args = append(args, "-p", u.Port())
	}
	args = append(args, "--", u.Hostname(), "sampan")
	if path := strings.TrimSuffix(u.Path, "/"); path != "" {
		args = append(args, "--host", quoted("unix://"+path))
	}
	cmd := exec.Command("ssh", append(args, "system", "dial-stdio")...)
	c := &commandConn{cmd: cmd, remote: address(u.String()), ended: make(chan struct{})}
	cmd.Stderr = &c.stderr
	cmd.WaitDelay = lastWait // another process, which ssh leaves for later connections, may keep its standard error open
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// Not cmd.StdoutPipe: the end of the program would throw away what was not read yet.
	var out *os.File
	if c.out, out, err = os.Pipe(); err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		c.out.Close()
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // its exit status says nothing that Read does not say
		close(c.ended)
	}()
	return c, nil
}

// lastWait is how long a program is waited for that has been told to end, or should.
const lastWait = time.Second

// quoted is a word for the shell of the far side, to which ssh hands its arguments as one line.
func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// commandConn is a connection over a program's standard streams.
type commandConn struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *os.File
	stderr tail
	remote address
	closer sync.Once
	ended  chan struct{} // closed when the program has ended and what it has said is whole
}

func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if n == 0 && err != nil {
		_ = c.Close()
		return 0, c.lastWords(err)
	}
	return n, err
}

// A program that has ended may be noticed here first: the cause is the same. What it has written before is still there
// to be read.
func (c *commandConn) Write(p []byte) (int, error) {
	n, err := c.in.Write(p)
	if err == nil {
		return n, nil
	}
	select {
	case <-c.ended:
	case <-time.After(lastWait): // it has only stopped reading
	}
	return n, c.lastWords(err)
}

// lastWords is what the program has said at its end; err when it has said nothing, or has not ended.
func (c *commandConn) lastWords(err error) error {
	select {
	case <-c.ended:
		if text := c.stderr.String(); text != "" {
			return fmt.Errorf("ssh: %s", text)
		}
	default:
	}
	return err
}

// CloseWrite ends the program's standard input.
func (c *commandConn) CloseWrite() error { return c.in.Close() }

// Close ends the program: first by the end of its input, and by force when that does not help.
func (c *commandConn) Close() error {
	c.closer.Do(func() {
		c.in.Close()
		c.out.Close()
		kill := time.AfterFunc(lastWait, func() { _ = c.cmd.Process.Kill() })
		<-c.ended
		kill.Stop()
	})
	return nil
}

func (c *commandConn) LocalAddr() net.Addr  { return address("ssh") }
func (c *commandConn) RemoteAddr() net.Addr { return c.remote }

// A pipe has no deadlines here; net/http asks for none on a client's connection.
func (c *commandConn) SetDeadline(time.Time) error      { return nil }
func (c *commandConn) SetReadDeadline(time.Time) error  { return nil }
func (c *commandConn) SetWriteDeadline(time.Time) error { return nil }

type address string

func (a address) Network() string { return "ssh" }
func (a address) String() string  { return string(a) }

// tail keeps the last kilobyte written to it: the error message of a program.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - 1024; over > 0 {
		t.buf = t.buf[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(string(bytes.TrimSpace(t.buf)), "\n", "; ")
}
