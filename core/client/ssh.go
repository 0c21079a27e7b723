package client

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
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
	c := &commandConn{cmd: cmd, remote: address(u.String())}
	cmd.Stderr = &c.stderr
	cmd.WaitDelay = time.Second // another process, which ssh leaves for later connections, may keep its standard error open
	var err error
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// quoted is a word for the shell of the far side, to which ssh hands its arguments as one line.
func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// commandConn is a connection over a program's standard streams.
type commandConn struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr tail
	remote address
	closer sync.Once
}

func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if n == 0 && err != nil {
		return 0, c.lastWords(err)
	}
	return n, err
}

// A program that has ended may be noticed by a read or by a write, each of which closes the other's pipe:
// the cause is the same.
func (c *commandConn) Write(p []byte) (int, error) {
	n, err := c.in.Write(p)
	if err != nil {
		return n, c.lastWords(err)
	}
	return n, nil
}

// lastWords ends the program, after which what it has said is whole, and returns that as the error; err
// when it has said nothing.
func (c *commandConn) lastWords(err error) error {
	_ = c.Close()
	if text := c.stderr.String(); text != "" {
		return fmt.Errorf("ssh: %s", text)
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
		kill := time.AfterFunc(time.Second, func() { _ = c.cmd.Process.Kill() })
		_ = c.cmd.Wait() // its exit status says nothing that Read has not said
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
