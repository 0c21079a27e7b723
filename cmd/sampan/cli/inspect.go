package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/core/client"
)

// NewInspect returns the command that shows all that the daemon says of things of a kind. get asks the
// daemon; typed makes of the answer what templates see first.
func NewInspect(c *CLI, kind string, typed func(json.RawMessage) (any, error), get func(ctx context.Context, e *client.Client, name string) (json.RawMessage, error)) *cobra.Command {
	var format string
	word := strings.ToUpper(kind)
	cmd := &cobra.Command{
		Use:   fmt.Sprintf("inspect [OPTIONS] %s [%s...]", word, word),
		Short: fmt.Sprintf("Display detailed information on one or more %ss", kind),
		Args:  MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return Inspect(c.Out, args, format, func(name string) (any, json.RawMessage, error) {
				raw, err := get(cmd.Context(), engine, name)
				if err != nil {
					return nil, nil, err
				}
				v, err := typed(raw)
				return v, raw, err
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", InspectFormatHelp)
	return cmd
}

// Typed decodes an answer about a thing of a kind.
func Typed[T any](kind string) func(json.RawMessage) (any, error) {
	return func(raw json.RawMessage) (any, error) {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("decode the %s: %w", kind, err)
		}
		return v, nil
	}
}
