package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

// EnsureOptions say which monitor is meant and how to start it.
type EnsureOptions struct {
	Socket  string // path of its socket; its directory is the lock (see protocol.Lock)
	Root    string // its directory: OCI state below runtime/, exit statuses in exits/
	Program string // path of sampan-runtime
	Log     string // file that its own messages are appended to; "" drops them
	Logger  *slog.Logger
}

// Ensure connects to the monitor of the exec-root and starts one when none answers. Of several
// processes that do this at once one starts it. A socket file without a monitor is replaced.
func Ensure(ctx context.Context, o EnsureOptions) (*Client, error) {
	c := &Client{options: o, log: o.Logger}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	_, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Dial connects to a monitor that runs, and starts none: fault.Unavailable.
func Dial(ctx context.Context, socket string) (*Client, error) {
	return Ensure(ctx, EnsureOptions{Socket: socket})
}

func ensure(ctx context.Context, o EnsureOptions, log *slog.Logger) (*link, error) {
	// Without the lock first: the usual case is a monitor that runs.
	if l, err := dial(ctx, o.Socket); err == nil || !fault.Is(err, fault.Unavailable) || o.Program == "" {
		return l, err
	}
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o711); err != nil {
		return nil, fmt.Errorf("start monitor: %w", err)
	}
	unlock, err := protocol.Lock(o.Socket, true)
	if err != nil {
		return nil, fmt.Errorf("start monitor: %w", err)
	}
	defer unlock()
	if l, err := dial(ctx, o.Socket); err == nil || !fault.Is(err, fault.Unavailable) {
		return l, err
	}
	if err := start(o, log); err != nil {
		return nil, err
	}
	l, err := dial(ctx, o.Socket)
	if err != nil {
		return nil, fmt.Errorf("start monitor %s: %w%s", o.Program, err, seeLog(o.Log))
	}
	return l, nil
}

func seeLog(path string) string {
	if path == "" {
		return ""
	}
	return " (its log is " + path + ")"
}

// dial connects and says hello: a connection alone proves nothing, the kernel makes it before the
// monitor accepts it. A monitor that ends at that moment is as one that is not there.
func dial(ctx context.Context, socket string) (*link, error) {
	conn, err := protocol.Dial(socket)
	if err != nil {
		return nil, err
	}
	l := connect(conn)
	args, err := protocol.Encode(protocol.HelloArgs{Version: protocol.Version})
	if err != nil {
		return nil, err
	}
	a, err := l.call(ctx, protocol.Request{Verb: protocol.Hello, Args: args}, nil)
	var hello protocol.HelloResult
	if err == nil {
		err = protocol.Decode(a.response.Result, &hello)
	}
	if err == nil && hello.Version != protocol.Version {
		err = fault.New(fault.Conflict, "the monitor at %s (process %d) speaks protocol version %d, expected %d: stop its containers, then it ends", socket, hello.Pid, hello.Version, protocol.Version)
	}
	if err != nil {
		l.end(err)
		return nil, err
	}
	return l, nil
}

// start runs the program in a session of its own. It gets the listening socket as descriptor 3, so
// that there is no moment to wait for: who connects now is served when it is up, and cut off
// should it fail.
func start(o EnsureOptions, log *slog.Logger) error {
	listener, err := protocol.Listen(o.Socket)
	if err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	defer listener.Close()
	cmd := exec.Command(o.Program, "monitor", "--socket", o.Socket, "--root", o.Root, "--listen-fd", "3")
	cmd.ExtraFiles = []*os.File{listener}
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, debugEnv()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if o.Log != "" {
		f, err := os.OpenFile(o.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return fmt.Errorf("start monitor: %w", err)
		}
		defer f.Close()
		cmd.Stdout, cmd.Stderr = f, f
	}
	if err := cmd.Start(); err != nil {
		os.Remove(o.Socket)
		if errors.Is(err, os.ErrNotExist) {
			return fault.New(fault.Unavailable, "start monitor: program %s: not found", o.Program)
		}
		return fmt.Errorf("start monitor: %w", err)
	}
	log.Debug("monitor started", "pid", cmd.Process.Pid, "socket", o.Socket)
	// It usually outlives us; should it end first, it must not stay a zombie of ours.
	go func() {
		if err := cmd.Wait(); err != nil {
			log.Warn("monitor ended", "pid", cmd.Process.Pid, "error", err)
		}
	}()
	return nil
}

// debugEnv passes on the switches of Go's runtime and our own debugging.
func debugEnv() []string {
	var env []string
	for _, name := range []string{"GODEBUG", "GOTRACEBACK", "SAMPAN_DEBUG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}
