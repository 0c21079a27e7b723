package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/trust"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func newCreate(c *cli.CLI) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create a new container", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.image, o.args = args[0], args[1:]
			o.note(cmd.Flags())
			r, err := o.request()
			if err != nil {
				return cli.Engine(err)
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			made, err := o.create(cmd.Context(), c, engine, r)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Out, made.ID)
			return nil
		},
	}
	o.addFlags(cmd.Flags())
	return cli.Also(cmd, "sampan container create, sampan create")
}

// create makes the container, after pulling its image if that is wanted.
func (o *options) create(ctx context.Context, c *cli.CLI, engine *client.Client, r wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error) {
	var made wire.ContainerCreateResponse
	cid, err := openCIDFile(o.cidFile)
	if err != nil {
		return made, err
	}
	defer cid.discard()
	config, err := c.Config()
	if err != nil {
		return made, err
	}
	r.Env = withProxies(r.Env, config.ProxyVariables(engine.Host()))
	if o.tty {
		r.HostConfig.ConsoleSize[0], r.HostConfig.ConsoleSize[1] = c.Out.Size()
	}
	target, err := o.trusted(ctx, c, engine)
	if err != nil {
		return made, err
	}
	if target != nil {
		r.Image = target.Pinned
	}
	if o.pull == "always" {
		if err := o.pullImage(ctx, c, engine, target); err != nil {
			return made, err
		}
	}
	made, err = o.answered(ctx, engine, r)
	if err != nil && o.pull == "missing" && fault.Is(err, fault.NotFound) && strings.HasPrefix(err.Error(), "No such image") {
		fmt.Fprintf(c.Err, "Unable to find image '%s' locally\n", withTag(o.image))
		if err := o.pullImage(ctx, c, engine, target); err != nil {
			return made, err
		}
		made, err = o.answered(ctx, engine, r)
	}
	if err != nil {
		return made, err
	}
	for _, w := range made.Warnings {
		fmt.Fprintf(c.Err, "WARNING: %s\n", w)
	}
	return made, cid.write(made.ID)
}

// createPatience bounds the wait for the answer to a create after the user has interrupted it.
const createPatience = 2 * time.Second

// answered creates the container. Who interrupts it at this moment is told what was made, as nobody else knows it to take
// it back.
func (o *options) answered(ctx context.Context, engine *client.Client, r wire.ContainerCreateRequest) (made wire.ContainerCreateResponse, err error) {
	if err := ctx.Err(); err != nil {
		return made, err
	}
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(createPatience, cancel) })()
	return engine.ContainerCreate(patient, o.name, o.platform, r)
}

// trusted is what a signer of the image signed, with content trust: that, by its digest, is run. It is nil
// without, and for a name that has a digest.
func (o *options) trusted(ctx context.Context, c *cli.CLI, engine *client.Client) (*trust.Target, error) {
	if on, err := o.trust.On(c); !on || err != nil || trust.IsPinned(o.image) {
		return nil, err
	}
	list, err := trust.Targets(ctx, c, engine, o.image, false)
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

func (o *options) pullImage(ctx context.Context, c *cli.CLI, engine *client.Client, target *trust.Target) error {
	auth, err := c.Auth(o.image)
	if err != nil {
		return err
	}
	show := cli.Progress(c.Err)
	if o.quiet {
		show = nil
	}
	if target != nil {
		return target.Pull(ctx, c, engine, o.platform, show)
	}
	return engine.ImagePull(ctx, o.image, o.platform, auth, show)
}

// withTag completes a name as the engine will understand it.
func withTag(ref string) string {
	if strings.Contains(ref, "@") || strings.LastIndexByte(ref, ':') > strings.LastIndexByte(ref, '/') {
		return ref
	}
	return ref + ":latest"
}

// cidFile is the file of --cidfile, which must not be there before and is not there after a failure.
type cidFile struct {
	path    string
	written bool
}

func openCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return nil, fault.New(fault.Exists, "container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "--cidfile: %w", err)
	}
	return &cidFile{path: path}, f.Close()
}

func (f *cidFile) write(id string) error {
	if f.path == "" {
		return nil
	}
	f.written = true
	return os.WriteFile(f.path, []byte(id), 0o666)
}

func (f *cidFile) discard() {
	if f.path != "" && !f.written {
		os.Remove(f.path)
	}
}
