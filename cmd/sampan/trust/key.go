package trust

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
)

func newKeyGenerate(c *cli.CLI) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "generate NAME", Short: "Generate and load a signing key-pair", Args: cli.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return generate(c, args[0], dir) },
	}
	cmd.Flags().StringVar(&dir, "dir", "", "Directory to generate key in, defaults to current directory")
	return cmd
}

func generate(c *cli.CLI, name, dir string) error {
	if err := checkName("key", name); err != nil {
		return err
	}
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return err
		}
	}
	if _, err := os.Stat(dir); err != nil {
		return fault.New(fault.Invalid, "public key path does not exist: %q", dir)
	}
	path := filepath.Join(dir, name+".pub")
	public, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fault.New(fault.Invalid, "public key file already exists: %q", path)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "Generating key for %s...\n", name)
	key, err := trust.GenerateKey()
	if err == nil {
		err = openStore(c).add(name, key)
	}
	if err == nil {
		_, err = public.Write(key.Public().PEM())
	}
	if err = errors.Join(err, public.Close()); err != nil {
		os.Remove(path)
		return fmt.Errorf("failed to generate key for %s: %w", name, err)
	}
	fmt.Fprintln(c.Out, "Successfully generated and loaded private key. Corresponding public key available:", path)
	return nil
}

func newKeyLoad(c *cli.CLI) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "load [OPTIONS] KEYFILE", Short: "Load a private key file for signing", Args: cli.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return load(c, args[0], name) },
	}
	cmd.Flags().StringVar(&name, "name", "signer", "Name for the loaded key")
	return cmd
}

// maxKey bounds the file of a key.
const maxKey = 64 << 10

func load(c *cli.CLI, path, name string) error {
	if err := checkName("key", name); err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "Loading key from %q...\n", path)
	data, err := readPrivate(path)
	if err != nil {
		return fmt.Errorf("refusing to load key from %s: %w", path, err)
	}
	if err := loadKey(openStore(c), data, path, name); err != nil {
		return fmt.Errorf("error importing key from %s: %w", path, err)
	}
	fmt.Fprintln(c.Out, "Successfully imported key from", path)
	return nil
}

// loadKey keeps a sealed key as it is, under its own passphrase; a bare one gets one.
func loadKey(s store, data []byte, path, name string) error {
	if _, err := trust.ParsePublicKey(data); err == nil {
		return fault.New(fault.Invalid, "provided file %s is not a supported private key - to add a signer's public key use sampan trust signer add", path)
	}
	if !trust.IsSealed(data) {
		key, err := trust.ParsePrivateKey(data, nil)
		if err != nil {
			return err
		}
		return s.add(name, key)
	}
	key, err := s.unseal(name, "", data)
	if err != nil {
		return err
	}
	return s.put(name, key.Public(), data)
}

func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Invalid, "private key file %s must not be readable or writable by others", path)
	}
	return io.ReadAll(io.LimitReader(f, maxKey+1))
}
