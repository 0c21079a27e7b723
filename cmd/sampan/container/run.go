package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// runOptions are what run says beside create.
type runOptions struct {
	options
	detach     bool
	sigProxy   bool
	detachKeys string
}

func newRun(c *cli.CLI) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use: "run [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create and run a new container from an image", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.image, o.args = args[0], args[1:]
			o.note(cmd.Flags())
			return cli.Engine(o.run(cmd.Context(), c))
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	o.addFlags(f)
	return cli.Also(cmd, "sampan container run, sampan run")
}

func (o *runOptions) run(ctx context.Context, c *cli.CLI) error {
	r, err := o.request()
	if err != nil {
		return err
	}
	if o.detach {
		if len(o.attach.Values) > 0 {
			err := fault.New(fault.Invalid, "conflicting options: cannot specify both --attach and --detach")
			return &cli.Exit{Code: cli.CodeFailed, Err: err} // 1, as docker's client has it
		}
		r.AttachStdin, r.AttachStdout, r.AttachStderr, r.StdinOnce = false, false, false, false
	} else if err := c.In.CheckTTY(r.AttachStdin, r.Tty); err != nil {
		return &cli.Exit{Code: cli.CodeFailed, Err: err}
	}
	if o.detachKeys != "" {
		if _, err := parseKeys(o.detachKeys); err != nil {
			return err
		}
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	if !o.detach {
		engine.Ahead(2) // attach, wait and start come at once; one has the connection of create
	}
	made, err := o.create(ctx, c, engine, r)
	if err != nil {
		return err
	}
	if o.detach {
		if err := engine.ContainerStart(ctx, made.ID); err != nil {
			if ctx.Err() != nil && o.rm {
				removeUnstarted(ctx, c, engine, made.ID)
			}
			return err
		}
		fmt.Fprintln(c.Out, made.ID)
		return nil
	}
	condition := client.WaitNextExit
	if o.rm {
		condition = client.WaitRemoved
	}
	j := joined{
		cli: c, engine: engine, id: made.ID, tty: r.Tty, condition: condition, start: true, goes: o.rm, sigProxy: o.sigProxy,
		attach: client.AttachOptions{Stream: true, Stdin: r.AttachStdin, Stdout: r.AttachStdout, Stderr: r.AttachStderr, DetachKeys: c.DetachKeys(o.detachKeys)},
	}
	return j.run(ctx)
}

// joined is a container in the foreground.
type joined struct {
	cli       *cli.CLI
	engine    *client.Client
	id        string
	tty       bool
	start     bool   // start it when all is ready
	goes      bool   // it was made for this start, and is to be removed when there is none
	condition string // what its end is
	sigProxy  bool
	attach    client.AttachOptions
	// tellDetached returns errDetached after the detach keys, instead of nil.
	tellDetached bool
}

// run joins the container's streams, starts it, and returns its exit status as an error. The order
// is what loses nothing: attached and waited for before it starts.
func (j *joined) run(ctx context.Context) error {
	// Once it runs, Ctrl-C is the container's, and the client stays to tell its end.
	steady := context.WithoutCancel(ctx)
	var taken *cli.Taken
	if j.sigProxy {
		taken = j.cli.TakeSignals()
	}
	conn, wait, err := j.prepare(ctx)
	if err != nil {
		return j.unstarted(ctx, err)
	}
	if !j.start { // it may have ended since it was looked at: then the streams are those of its next start, for which nobody waits
		if _, err := inspectRunning(ctx, j.engine, j.id); err != nil {
			_ = conn.Close() // nothing was sent
			return err
		}
	}
	if taken != nil {
		taken.Hold()
		defer taken.Release()
		if err := ctx.Err(); err != nil && j.start {
			_ = conn.Close()
			return j.unstarted(ctx, err)
		}
		ctx = steady
	}
	s := session{cli: j.cli, conn: conn, tty: j.tty, stdin: j.attach.Stdin, stdout: j.attach.Stdout, stderr: j.attach.Stderr, detachKeys: j.attach.DetachKeys}
	streams, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	begin := func() { go func() { done <- s.run(streams) }() }
	if j.start {
		if err := j.engine.ContainerStart(ctx, j.id); err != nil {
			_ = conn.Close()
			switch {
			case ctx.Err() != nil:
				return j.unstarted(ctx, err)
			case j.condition == client.WaitRemoved:
				awaitRemoval(wait)
			}
			return err
		}
	}
	if taken != nil { // what has come since Hold is passed on to a process that there is
		defer forwardSignals(ctx, taken, j.engine, j.id)()
	}
	begin()
	if j.tty {
		followSize(streams, j.cli, func(ctx context.Context, h, w uint) error { return j.engine.ContainerResize(ctx, j.id, h, w) })
	}
	if err := <-done; errors.Is(err, errDetached) && !j.tellDetached {
		return nil
	} else if err != nil {
		return err
	}
	answer, err := wait()
	switch {
	case err != nil:
		return err
	case answer.Error != nil:
		return fault.New(fault.Internal, "%s", answer.Error.Message)
	}
	return cli.ContainerExit(int(answer.StatusCode))
}

// removalPatience bounds the wait for the removal of a container that was not started.
const removalPatience = 5 * time.Second

// unstarted is the end of what was not started, for the reason err.
func (j *joined) unstarted(ctx context.Context, err error) error {
	if j.goes {
		removeUnstarted(ctx, j.cli, j.engine, j.id)
	}
	return err
}

// removeUnstarted removes a container that was to remove itself at its end, and has none because it was not started.
func removeUnstarted(ctx context.Context, c *cli.CLI, engine *client.Client, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removalPatience)
	defer cancel()
	if err := engine.ContainerRemove(ctx, id, client.RemoveOptions{Force: true, Volumes: true}); err != nil && !fault.Is(err, fault.NotFound) {
		fmt.Fprintf(c.Err, "WARNING: the container is left: %s\n", cli.Message(err))
	}
}

// awaitRemoval lets the engine remove what --rm wants removed, so that nothing is left when we end.
func awaitRemoval(wait func() (wire.WaitResponse, error)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait() //nolint:errcheck // the start's error says more
	}()
	select {
	case <-done:
	case <-time.After(removalPatience):
	}
}

// prepare attaches and registers the wait, side by side.
func (j *joined) prepare(ctx context.Context) (*client.Hijacked, func() (wire.WaitResponse, error), error) {
	type registered struct {
		wait func() (wire.WaitResponse, error)
		err  error
	}
	waiting := make(chan registered, 1)
	go func() {
		wait, err := j.engine.ContainerWait(context.WithoutCancel(ctx), j.id, j.condition)
		waiting <- registered{wait, err}
	}()
	conn, err := j.engine.ContainerAttach(ctx, j.id, j.attach)
	w := <-waiting
	if err == nil && w.err != nil {
		_ = conn.Close()
		err = w.err
	}
	return conn, w.wait, err
}
