package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/runtime"
)

func runFlags(p *program, f *pflag.FlagSet) action {
	var c creation
	c.flags(f)
	detach := f.BoolP("detach", "d", false, "leave the container running and return")
	keep := f.Bool("keep", false, "do not delete the container when it has ended")
	noSubreaper := f.Bool("no-subreaper", false, "do not become the parent of processes that lose theirs")
	return func(args []string) error {
		ctx, ending := interruptibleSoon()
		defer ending.end(nil)
		c.signals = ending
		signals := make(chan chan os.Signal, 1)
		if !*detach {
			ending.next = func() { signals <- foregroundSignals() }
		}
		c.begun = func() {
			if !p.systemdCgroup { // else the process is yet to be started
				p.leaveInit()
			}
		}
		spec, err := c.spec()
		if err != nil {
			return err
		}
		if err := checkConsole(spec.Process, c.consoleSocket, *detach); err != nil {
			return err
		}
		if !*detach && !*noSubreaper {
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
				return fmt.Errorf("become subreaper: %w", err)
			}
		}
		notify := p.notification(args[0])
		c.startNext = notify == nil && c.pidFile == "" && c.pidfdSocket == "" && (spec.Process == nil || !spec.Process.Terminal)
		container, err := p.create(ctx, args[0], spec, &c)
		if err != nil {
			return err
		}
		defer container.Close() //nolint:errcheck // handles that were only read from
		if err := notify.listen(); err != nil {
			return errors.Join(err, container.Delete(ctx, true))
		}
		if *detach {
			if err := p.startNew(ctx, container); err != nil {
				return err
			}
			return notify.forward(container, container.Pid())
		}
		relay, err := newForeground(<-signals, container.Console(), container.Pid(), container.PidFD())
		if err == nil {
			err = p.startNew(ctx, container)
		} else {
			err = errors.Join(err, container.Delete(ctx, true))
		}
		if err != nil {
			relay.stop()
			return err
		}
		if notify != nil {
			go func() {
				if err := notify.forward(container, 0); err != nil {
					p.log.Warn(err.Error())
				}
			}()
		}
		code, err := relay.wait()
		if err == nil && !*keep {
			err = container.Delete(context.Background(), true)
			p.forget(container.ID())
		}
		if err != nil {
			return err
		}
		return &exitStatus{code: code}
	}
}

// startNew starts a container that was just created. When it cannot be started it is removed.
func (p *program) startNew(ctx context.Context, c *runtime.Container) error {
	err := c.Start(ctx)
	if err == nil {
		return nil
	}
	p.forget(c.ID())
	if derr := c.Delete(context.WithoutCancel(ctx), true); derr != nil {
		p.log.Warn("a container that could not be started is left", "id", c.ID(), "error", derr)
	}
	return fmt.Errorf("%s run failed: %w", name, err)
}

func startFlags(p *program, _ *pflag.FlagSet) action {
	return func(args []string) error {
		ctx, stop := interruptible()
		defer stop()
		c, err := p.load(args[0])
		if err != nil {
			return err
		}
		s, err := c.State()
		if err != nil {
			return err
		}
		if err := errorOfStart(string(s.Status)); err != nil {
			return err
		}
		notify := p.notification(c.ID())
		if err := notify.listen(); err != nil {
			return err
		}
		if err := c.Start(ctx); err != nil {
			return err
		}
		return notify.forward(c, c.Pid())
	}
}

// errorOfStart is runc's, for each status but created.
func errorOfStart(status string) error {
	switch status {
	case "stopped":
		return errors.New("cannot start a container that has stopped")
	case "running", "paused":
		return errors.New("cannot start an already running container")
	}
	return nil
}
