package trust

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
)

// reserved is the role of Docker's trust that collects what all signers signed.
const reserved = "releases"

func newSignerAdd(c *cli.CLI) *cobra.Command {
	var keys cli.List
	cmd := &cobra.Command{
		Use: "add OPTIONS NAME REPOSITORY [REPOSITORY...] ", Short: "Add a signer", Args: cli.MinArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return addSigner(c, args[0], args[1:], keys.Values) },
	}
	cmd.Flags().Var(&keys, "key", "Path to the signer's public key file")
	return cmd
}

func addSigner(c *cli.CLI, name string, repositories, files []string) error {
	if err := checkName("signer", name); err != nil {
		return err
	}
	if name == reserved {
		return fault.New(fault.Invalid, "releases is a reserved keyword, use a different signer name")
	}
	if len(files) == 0 {
		return fault.New(fault.Invalid, "path to a public key must be provided using the `--key` flag")
	}
	var keys []*trust.PublicKey
	for _, path := range files {
		k, err := trust.ReadPublicKey(path)
		if err != nil {
			return fmt.Errorf("could not parse public key from file: %w", err)
		}
		keys = append(keys, k)
	}
	known, err := readSigners(c)
	if err != nil {
		return err
	}
	var failed []string
	for _, given := range repositories {
		fmt.Fprintf(c.Out, "Adding signer %q to %s...\n", name, given)
		repository, err := repositoryOf(given)
		if err == nil {
			err = known.add(repository, name, keys)
		}
		if err != nil {
			fmt.Fprintf(c.Err, "%v\n\n", err)
			failed = append(failed, given)
			continue
		}
		fmt.Fprintf(c.Out, "Successfully added signer: %s to %s\n\n", name, given)
	}
	if len(failed) > 0 {
		return fault.New(fault.Invalid, "failed to add signer to: %s", strings.Join(failed, ", "))
	}
	return nil
}

func newSignerRemove(c *cli.CLI) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "remove [OPTIONS] NAME REPOSITORY [REPOSITORY...]", Short: "Remove a signer", Args: cli.MinArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var failed []string
			for _, repository := range args[1:] {
				fmt.Fprintf(c.Out, "Removing signer %q from %s...\n", args[0], repository)
				if err := removeSigner(c, args[0], repository, force); err != nil {
					fmt.Fprintf(c.Err, "%v\n\n", err)
					failed = append(failed, repository)
				}
			}
			if len(failed) > 0 {
				return fault.New(fault.Invalid, "error removing signer from: %s", strings.Join(failed, ", "))
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation before removing the most recent signer")
	return cmd
}

func removeSigner(c *cli.CLI, name, given string, force bool) error {
	if name == reserved {
		return fault.New(fault.Invalid, "releases is a reserved keyword and cannot be removed")
	}
	repository, err := repositoryOf(given)
	if err != nil {
		return err
	}
	known, err := readSigners(c)
	if err != nil {
		return err
	}
	of := known.file.Repositories[repository]
	if _, ok := of[name]; !ok {
		return fault.New(fault.NotFound, "no signer %s for repository %s", name, given)
	}
	if len(of) == 1 && !force {
		sure, err := c.Confirm(fmt.Sprintf("The signer %q is the last one of %s. Removing this signer will make %s unpullable with content trust. Are you sure you want to continue?", name, given, given))
		if err != nil || !sure {
			return err
		}
	}
	if err := known.remove(repository, name); err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "Successfully removed %s from %s\n\n", name, given)
	return nil
}
