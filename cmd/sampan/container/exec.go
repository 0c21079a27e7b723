package container

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// execOptions are exec's.
type execOptions struct {
	detach, interactive, tty, privileged bool
	user, workdir, detachKeys            string
	env, envFiles                        cli.List
}

func newExec(c *cli.CLI) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use: "exec [OPTIONS] CONTAINER COMMAND [ARG...]", Short: "Execute a command in a running container", Args: cli.MinArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), c, args[0], args[1:]) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.detach, "detach", "d", false, "Detached mode: run command in the background")
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	o.env.Check = CheckVariable
	f.VarP(&o.env, "env", "e", "Set environment variables")
	f.Var(&o.envFiles, "env-file", "Read in a file of environment variables")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to the command")
	f.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVarP(&o.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	f.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	return cli.Also(cmd, "sampan container exec, sampan exec")
}

func (o *execOptions) run(ctx context.Context, c *cli.CLI, container string, command []string) error {
	env, err := Environment(o.envFiles.Values, o.env.Values)
	if err != nil {
		return err
	}
	if !o.detach {
		if err := c.In.CheckTTY(o.interactive, o.tty); err != nil {
			return err
		}
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	var size *[2]uint
	if height, width := c.Out.Size(); o.tty && height > 0 {
		size = &[2]uint{height, width}
	}
	keys := c.DetachKeys(o.detachKeys)
	if !o.detach {
		engine.Ahead(1) // the stream has a connection of its own
	}
	id, err := engine.ExecCreate(ctx, container, wire.ExecConfig{
		User: o.user, Privileged: o.privileged, Tty: o.tty, ConsoleSize: size, DetachKeys: keys, Env: env, WorkingDir: o.workdir, Cmd: command,
		AttachStdin: o.interactive && !o.detach, AttachStdout: !o.detach, AttachStderr: !o.detach,
	})
	if err != nil {
		return err
	}
	if o.detach {
		return engine.ExecStart(ctx, id, wire.ExecStart{Detach: true, Tty: o.tty, ConsoleSize: size})
	}
	conn, err := engine.ExecAttach(ctx, id, wire.ExecStart{Tty: o.tty, ConsoleSize: size})
	if err != nil {
		return cli.Engine(err)
	}
	streams, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.tty {
		followSize(streams, c, func(ctx context.Context, h, w uint) error { return engine.ExecResize(ctx, id, h, w) })
	}
	s := session{cli: c, conn: conn, tty: o.tty, stdin: o.interactive, stdout: true, stderr: true, detachKeys: keys}
	if err := s.run(streams); err != nil {
		return err
	}
	return execExit(ctx, engine.ExecInspect, id)
}

// statusPatience bounds the wait for the exit status of a command whose output has ended, and
// statusPause is the time between two looks.
const (
	statusPatience = 2 * time.Second
	statusPause    = 20 * time.Millisecond
)

// execExit asks how the command ended. Its output may end before it does; one that goes on without
// output has no status, which must not look like success.
func execExit(ctx context.Context, inspect func(context.Context, string) (wire.ExecInspect, error), id string) error {
	limited, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	for {
		answer, err := inspect(limited, id)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && limited.Err() == nil:
			return cli.Engine(fmt.Errorf("ask for the exit status: %w", err))
		case err == nil && answer.ExitCode != nil:
			return cli.ContainerExit(*answer.ExitCode)
		case limited.Err() != nil || !answer.Running:
			return cli.Engine(errNoStatus)
		}
		select {
		case <-time.After(statusPause):
		case <-limited.Done():
		}
	}
}

var errNoStatus = fault.New(fault.Internal, "exec ended without a status")
