// Package swarm has the commands about the swarm that the daemon is a node of.
//
// options.go has the flags of what users decide of a swarm, init.go and join.go make the daemon a node, ca.go shows
// and exchanges the root of its certificates.
package swarm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Group returns `sampan swarm`.
func Group(c *cli.CLI) *cobra.Command {
	return cli.Group("swarm", "Manage Swarm", newCA(c), newInit(c), newJoin(c), newJoinToken(c), newLeave(c), newUnlock(c), newUnlockKey(c), newUpdate(c))
}

func newLeave(c *cli.CLI) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "leave [OPTIONS]", Short: "Leave the swarm", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			if err := engine.SwarmLeave(cmd.Context(), force); err != nil {
				return err
			}
			fmt.Fprintln(c.Out, "Node left the swarm.")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force this node to leave the swarm, ignoring warnings")
	return cmd
}

func newUpdate(c *cli.CLI) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "update [OPTIONS]", Short: "Update the swarm", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().NFlag() == 0 {
				return cmd.Help()
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			swarm, err := engine.SwarmInspect(cmd.Context())
			if err != nil {
				return err
			}
			locked := swarm.Spec.EncryptionConfig.AutoLockManagers
			o.apply(&swarm.Spec, cmd.Flags(), swarm.TLSInfo.TrustRoot)
			if err := engine.SwarmUpdate(cmd.Context(), swarm.Version, swarm.Spec, wire.SwarmRotation{}); err != nil {
				return err
			}
			fmt.Fprintln(c.Out, "Swarm updated.")
			if locked || !swarm.Spec.EncryptionConfig.AutoLockManagers {
				return nil
			}
			return showUnlockKey(cmd.Context(), c.Out, engine)
		},
	}
	o.addFlags(cmd.Flags(), "Change manager autolocking setting (true|false)")
	return cmd
}

func newUnlockKey(c *cli.CLI) *cobra.Command {
	var rotate, quiet bool
	cmd := &cobra.Command{
		Use: "unlock-key [OPTIONS]", Short: "Manage the unlock key", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			if rotate {
				if err := rotateKey(cmd.Context(), engine); err != nil {
					return err
				}
				if !quiet {
					fmt.Fprintln(c.Out, "Successfully rotated manager unlock key.")
				}
			}
			key, err := unlockKey(cmd.Context(), engine)
			switch {
			case err != nil:
				return err
			case key == "":
				return fault.New(fault.Unavailable, "no unlock key is set")
			case quiet:
				fmt.Fprintln(c.Out, key)
			default:
				printUnlock(c.Out, key)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display token")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Rotate unlock key")
	return cmd
}

func rotateKey(ctx context.Context, engine *client.Client) error {
	swarm, err := engine.SwarmInspect(ctx)
	if err != nil {
		return err
	}
	if !swarm.Spec.EncryptionConfig.AutoLockManagers {
		return fault.New(fault.Unavailable, "cannot rotate because autolock is not turned on")
	}
	return engine.SwarmUpdate(ctx, swarm.Version, swarm.Spec, wire.SwarmRotation{ManagerUnlockKey: true})
}

func unlockKey(ctx context.Context, engine *client.Client) (string, error) {
	key, err := engine.SwarmUnlockKey(ctx)
	if err != nil {
		return "", fmt.Errorf("could not fetch unlock key: %w", err)
	}
	return key, nil
}

// showUnlockKey tells the key of a swarm that was locked just now.
func showUnlockKey(ctx context.Context, out io.Writer, engine *client.Client) error {
	key, err := unlockKey(ctx, engine)
	if err == nil && key != "" {
		printUnlock(out, key)
	}
	return err
}

func printUnlock(out io.Writer, key string) {
	fmt.Fprintf(out, "To unlock a swarm manager after it restarts, run the `sampan swarm unlock`\ncommand and provide the following key:\n\n    %s\n\n"+
		"Remember to store this key in a password manager, since without it you\nwill not be able to restart the manager.\n", key)
}

func newUnlock(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "unlock", Short: "Unlock swarm", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			info, err := engine.Info(cmd.Context())
			if err != nil {
				return err
			}
			switch info.Swarm.LocalNodeState {
			case wire.SwarmInactive:
				return errors.New("this node is not part of a swarm")
			case wire.SwarmPending, wire.SwarmActive, wire.SwarmError:
				return errors.New("swarm is not locked")
			}
			key, err := readKey(c)
			if err != nil {
				return err
			}
			return engine.SwarmUnlock(cmd.Context(), key)
		},
	}
}

// maxKey bounds what is read as a key.
const maxKey = 4 << 10

// readKey asks for the key at a terminal, and takes the first line of any other input.
func readKey(c *cli.CLI) (string, error) {
	if c.In.IsTerminal() {
		show, err := c.In.Hide() // before the question: some answer at once
		if err != nil {
			return "", err
		}
		defer show()
		fmt.Fprint(c.Out, "Enter unlock key: ")
		defer fmt.Fprintln(c.Out)
	}
	line, err := bufio.NewReader(io.LimitReader(c.In, maxKey)).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return strings.TrimSpace(line), err
}
