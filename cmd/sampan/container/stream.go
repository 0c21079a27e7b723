package container

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/moby/term"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
)

// errDetached is the end of a session by the detach keys: the container goes on. As in Docker, it is an
// error of attach and exec, with these words, and no word of run and start.
var errDetached = errors.New("read escape sequence")

// defaultDetachKeys is Docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// session joins the client's streams to those of a process in a container.
type session struct {
	cli            *cli.CLI
	conn           *client.Hijacked
	tty            bool
	stdin          bool // what is typed goes to the process
	stdout, stderr bool // what it writes is printed
	detachKeys     string
}

// run copies until the process's output has ended: its input alone does not end the session, unless
// no output is wanted. With a terminal on both sides keys go over at once, and the detach keys end it.
func (s *session) run(ctx context.Context) error {
	defer s.conn.Close() //nolint:errcheck // all that matters was read
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	if s.tty && s.stdin {
		restore, err := s.cli.In.Raw()
		if err != nil {
			return err
		}
		defer restore()
	}
	input, err := s.input()
	if err != nil {
		return err
	}
	inputDone := make(chan error, 1)
	go func() { inputDone <- s.send(input) }()
	outputDone := make(chan error, 1)
	go func() { outputDone <- s.receive() }()
	for {
		select {
		case err := <-outputDone:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		case err := <-inputDone:
			var escaped term.EscapeError
			switch {
			case errors.As(err, &escaped):
				return errDetached
			case !s.stdout && !s.stderr && s.stdin:
				return err
			}
			inputDone = nil // the output tells how it ends
		}
	}
}

// input is the client's standard input, without the detach keys.
func (s *session) input() (io.Reader, error) {
	if !s.stdin {
		return nil, nil
	}
	if !s.tty {
		return s.cli.In, nil
	}
	keys, err := parseKeys(s.cli.DetachKeys(s.detachKeys))
	if err != nil {
		return nil, err
	}
	return term.NewEscapeProxy(s.cli.In, keys), nil
}

func parseKeys(given string) ([]byte, error) {
	if given == "" {
		given = defaultDetachKeys
	}
	keys, err := term.ToBytes(given)
	if err != nil {
		return nil, &fault.Field{Field: "--detach-keys", Given: given, Expected: "letters or ctrl-x, joined by commas, such as ctrl-p,ctrl-q"}
	}
	return keys, nil
}

func (s *session) send(input io.Reader) error {
	if input == nil {
		return nil
	}
	_, err := io.Copy(s.conn.Conn, input)
	var escaped term.EscapeError
	if errors.As(err, &escaped) {
		return err
	}
	// Whatever ended it, the process gets no more.
	return errors.Join(err, s.conn.CloseWrite())
}

func (s *session) receive() error {
	if s.tty {
		_, err := io.Copy(s.cli.Out, s.conn.Reader)
		return err
	}
	_, err := client.StdCopy(s.cli.Out, s.cli.Err, s.conn.Reader)
	return err
}

// followSize tells a terminal in a container the size of the client's: now, and whenever it changes,
// until ctx ends. A process that has just been started may not have its terminal yet.
func followSize(ctx context.Context, c *cli.CLI, resize func(ctx context.Context, height, width uint) error) {
	if !c.Out.IsTerminal() {
		return
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	tell := func() error {
		height, width := c.Out.Size()
		if height == 0 && width == 0 {
			return nil
		}
		return resize(ctx, height, width)
	}
	go func() {
		defer signal.Stop(changed)
		for retry := range 5 {
			if tell() == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(time.Duration(retry+1) * 10 * time.Millisecond)
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				tell() //nolint:errcheck // the process may have ended; its streams say so
			}
		}
	}()
}

// forwardSignals passes the signals that are taken on to the container until release is called.
func forwardSignals(ctx context.Context, taken *cli.Taken, engine *client.Client, id string) (release func()) {
	ctx, release = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		for {
			select {
			case s := <-taken.C:
				if name := cli.SignalName(s); name != "" {
					engine.ContainerKill(ctx, id, name) //nolint:errcheck // it may have ended; its exit says so
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return release
}
