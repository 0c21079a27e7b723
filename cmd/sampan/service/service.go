// Package service has the commands about the services of a swarm.
//
// options.go has the flags that create and update share, with the values of values.go, words.go, ports.go and
// policy.go; create.go makes a specification of them, update.go and edit.go change one, and reference.go finds what
// it refers to. converge.go waits for the tasks, which progress.go shows. list.go, pretty.go and logs.go print.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Group returns `sampan service`.
func Group(c *cli.CLI) *cobra.Command {
	return cli.Group("service", "Manage Swarm services", newCreate(c), newInspect(c), newList(c), newLogs(c), newPs(c), newRemove(c), newRollback(c), newScale(c), newUpdate(c))
}

func newInspect(c *cli.CLI) *cobra.Command {
	var pretty bool
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] SERVICE [SERVICE...]", Short: "Display detailed information on one or more services", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if pretty && format != "" {
				return fault.New(fault.Invalid, "--format is incompatible with human friendly format")
			}
			return inspect(cmd.Context(), c, args, format, pretty)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", cli.InspectFormatHelp)
	cmd.Flags().BoolVar(&pretty, "pretty", false, "Print the information in a human friendly format")
	return cmd
}

func inspect(ctx context.Context, c *cli.CLI, names []string, format string, pretty bool) error {
	if format == "" && !pretty {
		if config, err := c.Config(); err == nil {
			format = config.ServiceFormat
		}
	}
	if strings.HasPrefix(format, "pretty") && format != "pretty" {
		return fault.New(fault.Invalid, "Cannot supply extra formatting options to the pretty template")
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	get := func(name string) (any, json.RawMessage, error) {
		raw, err := engine.ServiceInspectRaw(ctx, name, true)
		if fault.Is(err, fault.NotFound) {
			return nil, nil, fault.New(fault.NotFound, "no such service: %s", name)
		}
		if err != nil {
			return nil, nil, err
		}
		v, err := Typed(raw)
		return v, raw, err
	}
	if pretty || format == "pretty" {
		return printPretty(ctx, c.Out, engine, names, get)
	}
	return cli.Inspect(c.Out, names, format, get)
}

// Typed returns what the daemon says of a service for a template.
var Typed = cli.Typed[wire.Service]("service")

func newRemove(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "rm SERVICE [SERVICE...]", Short: "Remove one or more services", Aliases: []string{"remove"}, Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return cli.Named(c.Out, args, func(name string) error { return engine.ServiceRemove(cmd.Context(), name) })
		},
	}
}

func newRollback(c *cli.CLI) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "rollback [OPTIONS] SERVICE", Short: "Revert changes to a service's configuration", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			service, err := engine.ServiceInspect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			answer, err := engine.ServiceUpdate(cmd.Context(), service.ID, service.Spec, wire.ServiceUpdate{Version: service.Version.Index, Rollback: "previous"}, nil)
			if err != nil {
				return err
			}
			warn(c, answer.Warnings)
			fmt.Fprintln(c.Out, args[0])
			if o.detach {
				return nil
			}
			return wait(cmd.Context(), c, engine, args[0], o.quiet)
		},
	}
	o.addWait(cmd.Flags())
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output")
	return cmd
}

func newScale(c *cli.CLI) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "scale SERVICE=REPLICAS [SERVICE=REPLICAS...]", Short: "Scale one or multiple replicated services",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cli.MinArgs(1)(cmd, args); err != nil {
				return err
			}
			for _, arg := range args {
				if name, n, ok := strings.Cut(arg, "="); !ok || name == "" || n == "" {
					return &cli.Usage{Command: cmd.CommandPath(), Err: fault.New(fault.Invalid, "invalid scale specifier '%s'.", arg)}
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return scaleAll(cmd.Context(), c, args, o.detach) },
	}
	o.addWait(cmd.Flags())
	return cmd
}

// scaleAll scales each service, then waits for those for which it could be.
func scaleAll(ctx context.Context, c *cli.CLI, args []string, detach bool) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	var scaled []string
	var errs []error
	for _, arg := range args {
		name, text, _ := strings.Cut(arg, "=")
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: invalid replicas value %s: expected a whole number from 0 up", name, text))
			continue
		}
		warnings, err := scale(ctx, engine, name, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		warn(c, warnings)
		fmt.Fprintf(c.Out, "%s scaled to %d\n", name, n)
		scaled = append(scaled, name)
	}
	for _, name := range scaled {
		if detach {
			break
		}
		if err := wait(ctx, c, engine, name, false); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return cli.Join(errs)
}

func scale(ctx context.Context, engine *client.Client, name string, n uint64) (warnings []string, err error) {
	service, err := engine.ServiceInspect(ctx, name)
	if err != nil {
		return nil, err
	}
	switch mode := &service.Spec.Mode; {
	case mode.Replicated != nil:
		mode.Replicated.Replicas = &n
	case mode.ReplicatedJob != nil:
		mode.ReplicatedJob.TotalCompletions = &n
	default:
		return nil, errors.New("scale can only be used with replicated or replicated-job mode")
	}
	answer, err := engine.ServiceUpdate(ctx, service.ID, service.Spec, wire.ServiceUpdate{Version: service.Version.Index}, nil)
	return answer.Warnings, err
}
