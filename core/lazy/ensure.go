package lazy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

// ensure makes sure that a process answers, and starts one if none does.
func (c *Client) ensure(ctx context.Context) error {
	c.ensuring.Lock()
	defer c.ensuring.Unlock()
	err := c.hello(ctx)
	if !fault.Is(err, fault.Unavailable) {
		return err
	}
	if c.o.Program == "" {
		return fault.New(fault.NotFound, "sampan-lazy: expected it beside sampand or in PATH")
	}
	if err := os.MkdirAll(c.o.Dir, 0o700); err != nil {
		return fmt.Errorf("start sampan-lazy: %w", err)
	}
	unlock, err := protocol.Lock(c.socket(), true)
	if err != nil {
		return fmt.Errorf("start sampan-lazy: %w", err)
	}
	defer unlock()
	if err := c.hello(ctx); !fault.Is(err, fault.Unavailable) { // another one was faster
		return err
	}
	if err := c.start(); err != nil {
		return fmt.Errorf("start sampan-lazy: %w", err)
	}
	return c.hello(ctx)
}

// Hello asks the process who it is, and starts none.
func (c *Client) Hello(ctx context.Context) (h Hello, err error) {
	err = c.call(ctx, VerbHello, nil, &h)
	return h, err
}

func (c *Client) hello(ctx context.Context) error {
	h, err := c.Hello(ctx)
	if err != nil {
		return err
	}
	if h.Version != Version {
		return fault.New(fault.Conflict, "sampan-lazy (process %d) speaks version %d, expected %d: stop the containers that run on its layers, then it ends", h.Pid, h.Version, Version)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watch == nil && !c.closed {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c.watch = &watch{cancel}
		go c.alive(ctx, c.watch)
	}
	return nil
}

// alive notices the end of the process.
func (c *Client) alive(ctx context.Context, w *watch) {
	err := c.call(ctx, VerbAlive, nil, nil)
	w.cancel()
	c.mu.Lock()
	lost := c.watch == w && !c.closed && len(c.users) > 0
	if c.watch == w {
		c.watch = nil
	}
	c.mu.Unlock()
	if lost {
		c.o.Logger.Error("sampan-lazy has ended: layers that are not there yet are shown by another one; containers that run on them have lost their files", "error", err)
		if c.o.Lost != nil {
			c.o.Lost()
		}
	}
}

// proxies are the variables by which Go's HTTP client finds its way out.
var proxies = []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG"}

// start runs the program in a session of its own, with the listening socket as descriptor 3, so that
// who connects now is served when it is up.
func (c *Client) start() error {
	listener, err := protocol.Listen(c.socket())
	if err != nil {
		return err
	}
	defer listener.Close()
	log, err := os.OpenFile(filepath.Join(c.o.Dir, "lazy.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(c.o.Program, "--socket", c.socket(), "--listen-fd", "3")
	cmd.ExtraFiles = []*os.File{listener}
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for _, name := range proxies {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		os.Remove(c.socket())
		return err
	}
	go cmd.Wait() //nolint:errcheck // it usually outlives us; should it end first, it must not stay a zombie
	return nil
}

// clear removes what is mounted at a place, and the place. Containers that run on it keep it.
func clear(at string) error {
	for {
		// EINVAL: it is not a mount point. A filesystem whose process has ended can still be unmounted.
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			break
		}
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Clear is for the process: it makes place for a mount where an earlier one may have left its own.
func Clear(at string) error { return clear(at) }

func clearAll(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, "layers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, clear(filepath.Join(dir, "layers", e.Name())))
	}
	return err
}

// Dead reports whether a container can no longer read its root directory, because a process that
// served one of its layers has ended. root is a path that leads into it, such as /proc/PID/root.
func Dead(root string) bool {
	dir, err := os.Open(root)
	if err == nil {
		_, err = dir.Readdirnames(1)
		dir.Close()
	}
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

// ProgramBeside returns the path of sampan-lazy: beside the program that runs, or in PATH; "" for none.
func ProgramBeside() string {
	if self, err := os.Executable(); err == nil {
		path := strings.TrimSuffix(self, filepath.Base(self)) + "sampan-lazy"
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath("sampan-lazy")
	if err != nil {
		return ""
	}
	return path
}
