// Sampan-registry serves container images: `sampan registry` executes it.
//
//	server   the API of the OCI distribution specification
//	store    the directory with blobs, manifests and tags; garbage collection
//	mirror   the pull-through cache
//	access   the users
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan-registry/access"
	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/registry"
	"github.com/sampan-project/sampan/core/fault"
)

func main() {
	c := cli.New(os.Stdin, os.Stdout, os.Stderr)
	ctx, stop := c.Interruptible(context.Background())
	root := &cobra.Command{
		Use: "sampan-registry COMMAND", Short: "Serve a registry", Args: cli.Unknown,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cli.Prepare(root, c.Out, c.Err)
	root.AddCommand(registry.Commands(func(cmd *cobra.Command, _ []string, order any) error { return run(cmd.Context(), c, order) })...)
	err := root.ExecuteContext(ctx)
	stop()
	if text := cli.Message(err); text != "" {
		fmt.Fprintln(os.Stderr, text)
	}
	os.Exit(c.Code(err))
}

func run(ctx context.Context, c *cli.CLI, order any) error {
	switch o := order.(type) {
	case *registry.Serve:
		return serve(ctx, o)
	case *registry.Collect:
		return collect(o)
	case *registry.AddUser:
		password, err := readPassword(c, o.Stdin)
		if err != nil {
			return err
		}
		return access.Set(o.File, o.Name, password)
	case *registry.RemoveUser:
		return access.Remove(o.File, o.Name)
	case *registry.ListUsers:
		users, err := access.List(o.File)
		for _, user := range users {
			fmt.Println(user)
		}
		return err
	}
	return fault.New(fault.Internal, "no such order: %T", order)
}

// maxPassword bounds what is read from standard input.
const maxPassword = 64 << 10

// readPassword asks for a password at the terminal, where Ctrl-C is a no, or takes what standard input has.
func readPassword(c *cli.CLI, stdin bool) (string, error) {
	if stdin {
		data, err := io.ReadAll(io.LimitReader(c.In, maxPassword))
		return strings.TrimRight(string(data), "\r\n"), err
	}
	if !c.In.IsTerminal() {
		return "", fault.New(fault.Invalid, "cannot ask for the password without a terminal; use --password-stdin")
	}
	show, err := c.In.Hide() // before the question: some answer at once
	if err != nil {
		return "", err
	}
	fmt.Fprint(c.Out, "Password: ")
	line, err := bufio.NewReader(io.LimitReader(c.In, maxPassword)).ReadString('\n')
	show()
	fmt.Fprintln(c.Out)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return strings.TrimRight(line, "\r\n"), err
}

// collect collects the garbage of a registry that does not run.
func collect(o *registry.Collect) error {
	if err := store.Check(o.Root); err != nil {
		return err
	}
	s, err := store.Open(o.Root)
	if fault.Is(err, fault.Conflict) {
		return fault.New(fault.Conflict, "%w: stop it first, or let it collect by itself with --gc-interval", err)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	done, err := s.Collect(store.Collection{Untagged: o.Untagged, DryRun: o.DryRun})
	if err != nil {
		return err
	}
	verb := "removed"
	if o.DryRun {
		verb = "would remove"
	}
	fmt.Printf("%s %d manifests and %d blobs: %d bytes\n", verb, done.Manifests, done.Blobs, done.Bytes)
	return nil
}
