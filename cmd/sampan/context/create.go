package context

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/context/store"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
)

// long is the help of what takes an endpoint.
const long = `%s

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ sampan context %s my-context --description "some description" --docker "host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file"`

func newCreate(c *cli.CLI) *cobra.Command {
	var description, from string
	var docker map[string]string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] CONTEXT", Short: "Create a context", Long: fmt.Sprintf(long, "Create a context", "create"), Args: cli.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return create(c, args[0], description, from, docker) },
	}
	f := cmd.Flags()
	f.StringVar(&description, "description", "", "Description of the context")
	f.StringToStringVar(&docker, "docker", nil, "set the docker endpoint")
	f.StringVar(&from, "from", "", "create context from a named context")
	return cmd
}

// create makes a context: with the endpoint that is described, or as a copy of another, which is the
// current one unless it is named.
func create(c *cli.CLI, name, description, from string, docker map[string]string) error {
	if err := store.CheckName(name); err != nil {
		return err
	}
	if c.Contexts().Exists(name) {
		return fault.New(fault.Exists, "context %q already exists", name)
	}
	if from != "" && docker != nil {
		return fault.New(fault.Invalid, "cannot use --docker flag when --from is set")
	}
	var made *store.Context
	var tls store.Material
	var err error
	if docker != nil {
		made = &store.Context{}
		tls, err = describe(c, made, docker)
	} else {
		made, tls, err = copyOf(c, from)
	}
	if err != nil {
		return err
	}
	made.Name = name
	if description != "" {
		made.Describe(description)
	}
	if err := c.Contexts().Put(made, tls); err != nil {
		return err
	}
	fmt.Fprintln(c.Out, name)
	fmt.Fprintf(c.Err, "Successfully created context %q\n", name)
	return nil
}

// copyOf returns a context's contents for another one.
func copyOf(c *cli.CLI, from string) (*store.Context, store.Material, error) {
	if from == "" {
		from = c.ContextName()
	}
	found, place, err := get(c, from)
	if err != nil {
		return nil, nil, err
	}
	if from == store.Default {
		found.Describe(defaultDescription)
		return found, store.Material{}, nil
	}
	tls, err := place.Material()
	return found, tls, err
}

// endpointKeys are what --docker takes.
var endpointKeys = []string{"ca", "cert", "from", "host", "key", "skip-tls-verify"}

// describe gives a context the endpoint of --docker, and returns its certificates.
func describe(c *cli.CLI, to *store.Context, docker map[string]string) (_ store.Material, err error) {
	defer func() {
		if err != nil {
			err = fault.As(fault.ClassOf(err), fmt.Errorf("unable to create docker endpoint config: %w", err))
		}
	}()
	for _, key := range slices.Sorted(maps.Keys(docker)) {
		if !slices.Contains(endpointKeys, key) {
			return nil, fault.New(fault.Invalid, "unrecognized config key: %s", key)
		}
	}
	if from, ok := docker["from"]; ok {
		other, tls, err := copyOf(c, from)
		if err != nil {
			return nil, err
		}
		to.Place(other.Host(), other.SkipTLSVerify())
		return tls, nil
	}
	skip := false
	if text := docker["skip-tls-verify"]; text != "" {
		if skip, err = strconv.ParseBool(text); err != nil {
			return nil, fault.New(fault.Invalid, "skip-tls-verify: parsing %q: invalid syntax", text)
		}
	}
	files := map[string][]byte{}
	for key, name := range map[string]string{"ca": store.CA, "cert": store.Cert, "key": store.Key} {
		if docker[key] == "" {
			continue
		}
		if files[name], err = os.ReadFile(docker[key]); err != nil {
			return nil, fault.As(fault.Invalid, err)
		}
	}
	if err := client.CheckHost(docker["host"]); err != nil && docker["host"] != "" {
		return nil, err
	}
	to.Place(docker["host"], skip)
	if len(files) == 0 {
		return store.Material{}, nil
	}
	return store.Material{store.Docker: files}, nil
}

func newUpdate(c *cli.CLI) *cobra.Command {
	var description string
	var docker map[string]string
	cmd := &cobra.Command{
		Use: "update [OPTIONS] CONTEXT", Short: "Update a context", Long: fmt.Sprintf(long, "Update a context", "update"), Args: cli.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return update(c, args[0], description, docker) },
	}
	f := cmd.Flags()
	f.StringVar(&description, "description", "", "Description of the context")
	f.StringToStringVar(&docker, "docker", nil, "set the docker endpoint")
	return cmd
}

// update replaces what is given; a new endpoint takes the certificates of the old one away.
func update(c *cli.CLI, name, description string, docker map[string]string) error {
	if err := store.CheckName(name); err != nil {
		return err
	}
	found, err := own(c, name)
	if err != nil {
		return err
	}
	var tls store.Material // nil: those that there are stay
	if docker != nil {
		if tls, err = describe(c, found, docker); err != nil {
			return err
		}
	}
	if description != "" {
		found.Describe(description)
	}
	if err := c.Contexts().Put(found, tls); err != nil {
		return err
	}
	fmt.Fprintln(c.Out, name)
	fmt.Fprintf(c.Err, "Successfully updated context %q\n", name)
	return nil
}

var errTerminal = errors.New("cowardly refusing to export to a terminal, specify a file path")

// expectNoTerminal refuses to write an archive where a person reads.
func expectNoTerminal(c *cli.CLI, path string) error {
	if path == "-" && c.Out.IsTerminal() {
		return fault.As(fault.Invalid, errTerminal)
	}
	return nil
}

// archiveOf is the file that export writes unless it is told another.
func archiveOf(name string) string { return strings.TrimSpace(name) + ".dockercontext" }
