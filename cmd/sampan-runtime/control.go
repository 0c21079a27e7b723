package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime"
)

func killFlags(p *program, f *pflag.FlagSet) action {
	all := f.BoolP("all", "a", false, "send it to all processes of the container")
	return func(args []string) error {
		c, err := p.load(args[0])
		if err != nil {
			return err
		}
		sig := unix.SIGTERM
		if len(args) > 1 {
			if sig, err = parseSignal(args[1]); err != nil {
				return err
			}
		}
		err = c.Kill(sig, *all)
		if fault.Is(err, fault.Conflict) {
			return fault.New(fault.Conflict, "container not running") // callers look for these words
		}
		return err
	}
}

// lastSignal is SIGRTMAX.
const lastSignal = 64

// parseSignal reads a number, or a name with or without SIG.
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= lastSignal {
		return unix.Signal(n), nil
	}
	upper := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + upper); sig != 0 {
		return sig, nil
	}
	// 34 and 64, as programs see them: the C library keeps two for itself.
	for base, first := range map[string]int{"RTMIN": 34, "RTMAX": lastSignal} {
		if rest, ok := strings.CutPrefix(upper, base); ok {
			if n, err := strconv.Atoi("0" + strings.TrimLeft(rest, "+-")); err == nil {
				if strings.HasPrefix(rest, "-") {
					n = -n
				}
				if n += first; n >= 34 && n <= lastSignal {
					return unix.Signal(n), nil
				}
			}
		}
	}
	return 0, fault.New(fault.Invalid, "unknown signal %q", s)
}

func deleteFlags(p *program, f *pflag.FlagSet) action {
	force := f.BoolP("force", "f", false, "end the container if it runs (SIGKILL)")
	return func(args []string) error {
		ctx, stop := interruptible()
		defer stop()
		r, err := p.runtime(false)
		if err != nil {
			return err
		}
		c, err := r.Load(args[0])
		if *force && fault.Is(err, fault.NotFound) {
			return r.Clear(args[0])
		}
		if err != nil {
			return err
		}
		s, err := c.State()
		if err != nil {
			return err
		}
		// A container that was never started has no program that could be lost.
		if err := c.Delete(ctx, *force || s.Status == "created"); err != nil {
			return err
		}
		p.forget(args[0])
		return nil
	}
}

func pauseFlags(p *program, _ *pflag.FlagSet) action {
	return p.change("running", func(ctx context.Context, c *runtime.Container) error { return c.Pause(ctx) })
}

func resumeFlags(p *program, _ *pflag.FlagSet) action {
	return p.change("paused", func(ctx context.Context, c *runtime.Container) error { return c.Resume(ctx) })
}

// change is the action of a verb that changes one container, which should be in a state.
func (p *program) change(state string, do func(context.Context, *runtime.Container) error) action {
	return func(args []string) error {
		ctx, stop := interruptible()
		defer stop()
		c, err := p.load(args[0])
		if err != nil {
			return err
		}
		err = do(ctx, c)
		if fault.Is(err, fault.Conflict) {
			return fmt.Errorf("container not %s: %w", state, err)
		}
		return err
	}
}
