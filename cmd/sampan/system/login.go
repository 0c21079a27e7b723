package system

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

// loginOptions are login's.
type loginOptions struct {
	user, password string
	stdin          bool
}

func newLogin(c *cli.CLI) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use: "login [OPTIONS] [SERVER]", Short: "Authenticate to a registry", Args: cli.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), c, first(args)) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	f.BoolVar(&o.stdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	f.StringVarP(&o.user, "username", "u", "", "Username")
	return cmd
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// maxPassword bounds what is read from standard input.
const maxPassword = 64 << 10

func (o *loginOptions) run(ctx context.Context, c *cli.CLI, server string) error {
	switch {
	case o.stdin && o.password != "":
		return fault.New(fault.Invalid, "conflicting options: --password and --password-stdin are mutually exclusive")
	case o.stdin && o.user == "":
		return fault.New(fault.Invalid, "the --password-stdin option requires --username to be set")
	case o.stdin:
		data, err := io.ReadAll(io.LimitReader(c.In, maxPassword))
		if err != nil {
			return err
		}
		o.password = strings.TrimRight(string(data), "\r\n")
	case o.password != "":
		fmt.Fprintln(c.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	registry := cli.Registry(server)
	if o.user == "" && o.password == "" {
		done, err := again(ctx, c, engine, registry)
		if done || err != nil {
			return err
		}
	}
	if err := o.ask(c); err != nil {
		return err
	}
	return login(ctx, c, engine, wire.AuthConfig{Username: o.user, Password: o.password, ServerAddress: registry})
}

// again tries the name and password that are kept for the registry; done is whether they are still good. An
// identity token is none: it is for everything but logging in.
func again(ctx context.Context, c *cli.CLI, engine *client.Client, registry string) (done bool, err error) {
	auth, err := c.LoginOf(registry)
	if err != nil || auth == nil || auth.Username == "" || auth.Password == "" {
		return false, err
	}
	auth.ServerAddress = registry
	fmt.Fprintf(c.Err, "Authenticating with existing credentials... [Username: %s]\n", auth.Username)
	if err = login(ctx, c, engine, *auth); fault.Is(err, fault.Unauthorized) {
		fmt.Fprintln(c.Err, "Stored credentials invalid or expired")
		return false, nil
	}
	return true, err
}

// login asks the registry by way of the engine, and keeps what it was good for.
func login(ctx context.Context, c *cli.CLI, engine *client.Client, auth wire.AuthConfig) error {
	registry := auth.ServerAddress
	answer, err := engine.RegistryLogin(ctx, auth)
	if err != nil {
		return err
	}
	if answer.IdentityToken != "" {
		auth.Password, auth.IdentityToken = "", answer.IdentityToken
	}
	where, err := c.SaveLogin(registry, &auth)
	if err != nil {
		return err
	}
	if where != "" {
		fmt.Fprintf(c.Err, "WARNING! Your credentials are stored unencrypted in '%s'.\n", where)
	}
	if answer.Status == "" {
		answer.Status = "Login Succeeded"
	}
	fmt.Fprintln(c.Out, answer.Status)
	return nil
}

// ask asks at the terminal for what the options do not say.
func (o *loginOptions) ask(c *cli.CLI) error {
	if o.user != "" && o.password != "" {
		return nil
	}
	if !c.In.IsTerminal() {
		return fault.New(fault.Invalid, "cannot perform an interactive login from a non TTY device; use --username and --password-stdin")
	}
	in := bufio.NewReader(c.In)
	if o.user == "" {
		fmt.Fprint(c.Out, "Username: ")
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if o.user = strings.TrimSpace(line); o.user == "" {
			return fault.New(fault.Invalid, "username is required")
		}
	}
	if o.password == "" {
		show, err := c.In.Hide() // before the question: some answer at once
		if err != nil {
			return err
		}
		fmt.Fprint(c.Out, "Password: ")
		line, err := in.ReadString('\n')
		show()
		fmt.Fprintln(c.Out)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if o.password = strings.TrimRight(line, "\r\n"); o.password == "" {
			return fault.New(fault.Invalid, "password is required")
		}
	}
	return nil
}

func newLogout(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "logout [SERVER]", Short: "Log out from a registry", Args: cli.RangeArgs(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			registry := cli.Registry(first(args))
			if auth, err := c.LoginOf(registry); err == nil && auth == nil {
				fmt.Fprintf(c.Out, "Not logged in to %s\n", registry)
				return nil
			}
			fmt.Fprintf(c.Out, "Removing login credentials for %s\n", registry)
			_, err := c.SaveLogin(registry, nil)
			return err
		},
	}
}
