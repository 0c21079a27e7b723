package system

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

func newEvents(c *cli.CLI) *cobra.Command {
	var o client.EventsOptions
	var format string
	filters := cli.Filters{Keys: []string{"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"}}
	cmd := &cobra.Command{
		Use: "events [OPTIONS]", Short: "Get real time events from the server", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			now := time.Now()
			if o.Since, err = cli.Timestamp("--since", o.Since, now); err != nil {
				return err
			}
			if o.Until, err = cli.Timestamp("--until", o.Until, now); err != nil {
				return err
			}
			o.Filters = filters.Values
			show, err := eventPrinter(c, format)
			if err != nil {
				return err
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return engine.Events(cmd.Context(), o, show)
		},
	}
	f := cmd.Flags()
	f.VarP(&filters, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&format, "format", "", cli.InspectFormatHelp)
	f.StringVar(&o.Since, "since", "", "Show all events created since timestamp")
	f.StringVar(&o.Until, "until", "", "Stream events until this timestamp")
	return cli.Also(cmd, "sampan system events, sampan events")
}

func eventPrinter(c *cli.CLI, format string) (func(wire.Event) error, error) {
	switch format {
	case "":
		return func(e wire.Event) error {
			_, err := fmt.Fprintln(c.Out, eventLine(e))
			return err
		}, nil
	case "json":
		out := json.NewEncoder(c.Out)
		out.SetEscapeHTML(false)
		return func(e wire.Event) error { return out.Encode(e) }, nil
	}
	t, err := cli.Template(format)
	if err != nil {
		return nil, &cli.Exit{Code: cli.CodeUsage, Err: err}
	}
	// What an event has not is told now, and not when the first one comes.
	id := strings.Repeat("0", 64) // templates cut it
	if err := t.Execute(io.Discard, wire.Event{ID: id, Actor: wire.EventActor{ID: id}}); err != nil {
		return nil, &cli.Exit{Code: cli.CodeUsage, Err: cli.TemplateError(err)}
	}
	return func(e wire.Event) error {
		var b bytes.Buffer // what cannot be written is no error of the template
		if err := t.Execute(&b, e); err != nil {
			return &cli.Exit{Code: cli.CodeUsage, Err: cli.TemplateError(err)}
		}
		b.WriteByte('\n')
		_, err := b.WriteTo(c.Out)
		return err
	}, nil
}

// eventLine is "2026-01-02T15:04:05.000000000Z container start ID (image=busybox, name=web)".
func eventLine(e wire.Event) string {
	var b strings.Builder
	at := time.Unix(e.Time, 0)
	if e.TimeNano != 0 {
		at = time.Unix(0, e.TimeNano)
	}
	fmt.Fprintf(&b, "%s %s %s %s", at.Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action, e.Actor.ID)
	if len(e.Actor.Attributes) > 0 {
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
			pairs = append(pairs, key+"="+e.Actor.Attributes[key])
		}
		fmt.Fprintf(&b, " (%s)", strings.Join(pairs, ", "))
	}
	return b.String()
}
